package opcua

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"sync"
	"time"

	"github.com/gopcua/opcua/ua"
)

// What an answer may take: the library's decoder believes every length that it
// reads, and follows every nesting.
const (
	mostMemory    = 48 << 20 // bytes, decoded
	mostNested    = 100      // Part 6 of OPC UA asks for as many
	mostDimension = 8
)

// errUnreadable is an answer that is not what it should be; the channel is fine.
var errUnreadable = errors.New("the server's answer can't be read")

var (
	errShort  = errors.New("it ends too early")
	errBroken = errors.New("it is no OPC UA")
	errHuge   = fmt.Errorf("it would take more than %d MiB of memory", mostMemory>>20)
	errDeep   = fmt.Errorf("it is nested more than %d times", mostNested)
)

// decodeAnswer decodes the body of a message, once it is known to be bounded.
func decodeAnswer(body []byte) (response ua.Response, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: the decoder stumbled: %v", errUnreadable, p)
		}
	}()
	b := &bounds{rest: body}
	b.nodeID(true)
	if b.err != nil {
		return nil, fmt.Errorf("%w: %w", errUnreadable, b.err)
	}
	// Of what type it is, the library tells with what it makes of no content.
	_, empty, _ := ua.DecodeService(body[:len(body)-len(b.rest)])
	if _, ok := empty.(ua.Response); !ok {
		return nil, fmt.Errorf("%w: %w", errUnreadable, errBroken)
	}
	content := b.rest
	made := reflect.New(reflect.TypeOf(empty).Elem())
	b.value(made.Type())
	if b.err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errUnreadable, made.Type().Elem().Name(), b.err)
	}
	var n int
	if _, ok := empty.(*ua.PublishResponse); ok {
		response, n, err = decodePublished(content)
	} else {
		response = made.Interface().(ua.Response)
		n, err = ua.Decode(content, response)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnreadable, err)
	} else if n != len(content)-len(b.rest) {
		return nil, fmt.Errorf("%w: %w", errUnreadable, errBroken)
	}
	return response, nil
}

// bounds goes over an encoded value as the library's decoder will, and adds up
// what it takes.
type bounds struct {
	rest   []byte
	memory int
	nested int
	err    error
}

func (b *bounds) fail(err error) {
	if b.err == nil {
		b.err = err
	}
	b.rest = nil
}

// take goes over n bytes.
func (b *bounds) take(n int) []byte {
	if n < 0 || n > len(b.rest) {
		b.fail(errShort)
		return nil
	}
	taken := b.rest[:n]
	b.rest = b.rest[n:]
	return taken
}

func (b *bounds) allocate(n int) {
	if b.memory += n; b.memory > mostMemory {
		b.fail(errHuge)
	}
}

func (b *bounds) byte() byte {
	if x := b.take(1); x != nil {
		return x[0]
	}
	return 0
}

func (b *bounds) uint32() uint32 {
	if x := b.take(4); x != nil {
		return binary.LittleEndian.Uint32(x)
	}
	return 0
}

// text goes over a string or bytes.
func (b *bounds) text() {
	if n := b.uint32(); n != math.MaxUint32 {
		b.take(int(n))
		b.allocate(int(min(n, math.MaxInt32)))
	}
}

// within goes one level deeper.
func (b *bounds) within(inner func()) {
	if b.nested++; b.nested > mostNested {
		b.fail(errDeep)
	}
	if b.err == nil {
		inner()
	}
	b.nested--
}

var (
	typeTime            = reflect.TypeFor[time.Time]()
	typeNodeID          = reflect.TypeFor[*ua.NodeID]()
	typeExpandedNodeID  = reflect.TypeFor[*ua.ExpandedNodeID]()
	typeGUID            = reflect.TypeFor[*ua.GUID]()
	typeLocalizedText   = reflect.TypeFor[*ua.LocalizedText]()
	typeDiagnosticInfo  = reflect.TypeFor[*ua.DiagnosticInfo]()
	typeExtensionObject = reflect.TypeFor[*ua.ExtensionObject]()
	typeVariant         = reflect.TypeFor[*ua.Variant]()
	typeDataValue       = reflect.TypeFor[*ua.DataValue]()
)

// value goes over a value of a Go type, as the library encodes it.
func (b *bounds) value(t reflect.Type) {
	if b.err != nil {
		return
	}
	switch t.Kind() {
	case reflect.Bool, reflect.Int8, reflect.Uint8:
		b.take(1)
	case reflect.Int16, reflect.Uint16:
		b.take(2)
	case reflect.Int32, reflect.Uint32, reflect.Float32:
		b.take(4)
	case reflect.Int64, reflect.Uint64, reflect.Float64:
		b.take(8)
	case reflect.String:
		b.text()
	case reflect.Pointer:
		b.pointer(t)
	case reflect.Slice:
		b.slice(t.Elem())
	case reflect.Struct:
		if t == typeTime {
			b.take(8)
			return
		}
		for _, field := range fieldsOf(t) {
			b.value(field)
		}
	default:
		b.fail(errBroken)
	}
}

func (b *bounds) pointer(t reflect.Type) {
	b.allocate(int(t.Elem().Size()))
	switch t {
	case typeNodeID, typeExpandedNodeID:
		b.nodeID(t == typeExpandedNodeID)
	case typeGUID:
		b.take(16)
	case typeLocalizedText:
		b.localizedText()
	case typeDiagnosticInfo:
		b.within(b.diagnosticInfo)
	case typeExtensionObject:
		b.within(b.extensionObject)
	case typeVariant:
		b.within(b.variant)
	case typeDataValue:
		b.within(b.dataValue)
	default:
		b.value(t.Elem())
	}
}

func (b *bounds) slice(element reflect.Type) {
	n := b.uint32()
	switch {
	case n == math.MaxUint32:
	case int64(n) > int64(len(b.rest)): // an element takes a byte at least
		b.fail(errShort)
	case element.Kind() == reflect.Uint8:
		b.take(int(n))
	default:
		b.allocate(int(n) * int(element.Size()))
		for range n {
			if b.err != nil {
				return
			}
			b.value(element)
		}
	}
}

var fieldTypes sync.Map // of structures, which are the library's: reflect.Type to []reflect.Type

func fieldsOf(t reflect.Type) []reflect.Type {
	if known, ok := fieldTypes.Load(t); ok {
		return known.([]reflect.Type)
	}
	var fields []reflect.Type
	for i := range t.NumField() {
		fields = append(fields, t.Field(i).Type)
	}
	fieldTypes.Store(t, fields)
	return fields
}

func (b *bounds) nodeID(expanded bool) {
	b.allocate(int(typeNodeID.Elem().Size()))
	mask := b.byte()
	switch mask & 0xF {
	case 0:
		b.take(1)
	case 1:
		b.take(3)
	case 2:
		b.take(6)
	case 3, 5:
		b.take(2)
		b.text()
	case 4:
		b.take(18)
	default:
		b.fail(errBroken)
	}
	if expanded && mask&0x80 != 0 {
		b.text()
	}
	if expanded && mask&0x40 != 0 {
		b.take(4)
	}
}

func (b *bounds) localizedText() {
	mask := b.byte()
	for _, has := range []byte{ua.LocalizedTextLocale, ua.LocalizedTextText} {
		if mask&has != 0 {
			b.text()
		}
	}
}

func (b *bounds) diagnosticInfo() {
	mask := b.byte()
	for _, has := range []byte{ua.DiagnosticInfoSymbolicID, ua.DiagnosticInfoNamespaceURI, ua.DiagnosticInfoLocalizedText, ua.DiagnosticInfoLocale} {
		if mask&has != 0 {
			b.take(4)
		}
	}
	if mask&ua.DiagnosticInfoAdditionalInfo != 0 {
		b.text()
	}
	if mask&ua.DiagnosticInfoInnerStatusCode != 0 {
		b.take(4)
	}
	if mask&ua.DiagnosticInfoInnerDiagnosticInfo != 0 {
		b.allocate(int(typeDiagnosticInfo.Elem().Size()))
		b.within(b.diagnosticInfo)
	}
}

func (b *bounds) dataValue() {
	mask := b.byte()
	b.allocate(int(typeVariant.Elem().Size()))
	if mask&ua.DataValueValue != 0 {
		b.variant()
	}
	for _, part := range [...]struct {
		has  byte
		size int
	}{
		{ua.DataValueStatusCode, 4}, {ua.DataValueSourceTimestamp, 8}, {ua.DataValueSourcePicoseconds, 2},
		{ua.DataValueServerTimestamp, 8}, {ua.DataValueServerPicoseconds, 2},
	} {
		if mask&part.has != 0 {
			b.take(part.size)
		}
	}
}

// extensionObject goes into a body that the library knows the type of.
func (b *bounds) extensionObject() {
	start := b.rest
	b.nodeID(true)
	id := start[:len(start)-len(b.rest)]
	encoding := b.byte()
	if b.err != nil || encoding == ua.ExtensionObjectEmpty {
		return
	}
	length := b.uint32()
	if length == 0 || length == math.MaxUint32 {
		return
	}
	body := b.take(int(length))
	if b.err != nil {
		return
	}
	inner := reflect.TypeFor[*ua.XMLElement]()
	if encoding != ua.ExtensionObjectXML {
		var probe ua.ExtensionObject
		_, _ = probe.Decode(append(append([]byte(nil), id...), ua.ExtensionObjectBinary, 1, 0, 0, 0, 0))
		if probe.Value == nil {
			return
		}
		inner = reflect.TypeOf(probe.Value)
	}
	outer := b.rest
	b.rest = body
	b.value(inner)
	if b.err == nil {
		b.rest = outer
	}
}

// sizes are those of scalars that always take as much.
var sizes = map[ua.TypeID]int{
	ua.TypeIDBoolean: 1, ua.TypeIDSByte: 1, ua.TypeIDByte: 1, ua.TypeIDInt16: 2, ua.TypeIDUint16: 2, ua.TypeIDInt32: 4, ua.TypeIDUint32: 4,
	ua.TypeIDInt64: 8, ua.TypeIDUint64: 8, ua.TypeIDFloat: 4, ua.TypeIDDouble: 8, ua.TypeIDDateTime: 8, ua.TypeIDStatusCode: 4,
}

// scalars are the Go types of the others.
var scalars = map[ua.TypeID]reflect.Type{
	ua.TypeIDString: reflect.TypeFor[string](), ua.TypeIDXMLElement: reflect.TypeFor[string](), ua.TypeIDByteString: reflect.TypeFor[string](),
	ua.TypeIDGUID: typeGUID, ua.TypeIDNodeID: typeNodeID, ua.TypeIDExpandedNodeID: typeExpandedNodeID,
	ua.TypeIDQualifiedName: reflect.TypeFor[*ua.QualifiedName](), ua.TypeIDLocalizedText: typeLocalizedText,
	ua.TypeIDExtensionObject: typeExtensionObject, ua.TypeIDDataValue: typeDataValue, ua.TypeIDVariant: typeVariant, ua.TypeIDDiagnosticInfo: typeDiagnosticInfo,
}

// boxed is what an element of an array takes while it is decoded, and in the
// array.
const boxed = 48

func (b *bounds) variant() {
	mask := b.byte()
	kind := ua.TypeID(mask & 0x3F)
	if kind == ua.TypeIDNull {
		return
	}
	size, fixed := sizes[kind]
	scalar := scalars[kind]
	if !fixed && scalar == nil {
		b.fail(errBroken)
		return
	}
	n := 1
	if mask&ua.VariantArrayValues != 0 {
		if n = int(int32(b.uint32())); n < -1 || n > len(b.rest) {
			b.fail(errShort)
			return
		}
		b.allocate(max(n, 0) * boxed)
	}
	if fixed {
		b.take(max(n, 0) * size)
	} else {
		for range n {
			if b.err != nil {
				return
			}
			b.value(scalar)
		}
	}
	if mask&ua.VariantArrayValues != 0 && mask&ua.VariantArrayDimensions != 0 {
		b.dimensions(n)
	}
}

// dimensions of an array of n elements.
func (b *bounds) dimensions(n int) {
	count := b.uint32()
	if count > mostDimension {
		b.fail(errBroken)
		return
	}
	elements := int64(1)
	for range count {
		elements *= int64(b.uint32())
		if elements < 1 || elements > int64(max(n, 0)) {
			b.fail(errBroken)
			return
		}
	}
	if count > 0 && elements != int64(n) {
		b.fail(errBroken)
	}
}
