package wire

import (
	"context"
	"fmt"
)

// Categories of device identification (function 43/14).
const (
	IdentBasic    = 1 // vendor, product code, revision
	IdentRegular  = 2
	IdentExtended = 3
	IdentOne      = 4 // a single object
)

// An Object is a part of a unit's identification: 0 vendor name, 1 product code, 2 revision, 3 vendor URL, 4 product name,
// 5 model name, 6 user application name.
type Object struct {
	ID    byte
	Value string
}

// ReadDeviceIdentification reads the objects of a category from a first object on (43/14), in as many requests as it takes.
func (c *Client) ReadDeviceIdentification(ctx context.Context, unit, category, first byte) ([]Object, error) {
	var all []Object
	for {
		reply, err := c.Do(ctx, Request{Unit: unit, PDU: []byte{FuncEncapsulated, meiDeviceIdentification, category, first}})
		if err != nil {
			return all, err
		}
		objects, next, more := parseIdentification(reply)
		all = append(all, objects...)
		if !more || category == IdentOne {
			return all, nil
		}
		if next <= first {
			return all, fmt.Errorf("read device identification: object %d is to follow object %d", next, first)
		}
		first = next
	}
}

// identificationSize is replySize for 43/14: the objects tell their own length.
func identificationSize(p []byte) int {
	if len(p) < 2 {
		return needMore
	}
	if p[1] != meiDeviceIdentification {
		return unknownSize
	}
	if len(p) < 7 {
		return needMore
	}
	size := 7
	for range p[6] {
		if size+2 > maxPDU {
			return maxPDU + 1 // can't be: longer than any PDU
		}
		if len(p) < size+2 {
			return needMore
		}
		size += 2 + int(p[size+1])
	}
	return size
}

// parseIdentification takes a reply apart whose size identificationSize has confirmed.
func parseIdentification(p []byte) (objects []Object, next byte, more bool) {
	at := 7
	for range p[6] {
		end := at + 2 + int(p[at+1])
		objects = append(objects, Object{ID: p[at], Value: string(p[at+2 : end])})
		at = end
	}
	return objects, p[5], p[4] == 0xFF
}
