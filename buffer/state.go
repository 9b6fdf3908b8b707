package buffer

import (
	"encoding/binary"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// stateValue is how a value of the small state is stored: with its bucket, and a stamp that rises, so that it can be salvaged wherever it stands.
type stateValue struct {
	stamp uint64
	value []byte
}

func (x stateValue) encode(bucket string, name []byte) []byte {
	value := binary.BigEndian.AppendUint64(nil, x.stamp)
	return sealed(name, append(appendText(value, bucket), x.value...))
}

func decodeState(value []byte) (bucket string, x stateValue, ok bool) {
	if len(value) < 8 {
		return "", x, false
	}
	x.stamp = seqOf(value)
	bucket, x.value, ok = takeText(value[8:])
	return bucket, x, ok
}

// Get returns a value of the small state, nil if there is none.
func (b *Buffer) Get(bucket, name string) ([]byte, error) {
	var value []byte
	b.layout.RLock()
	defer b.layout.RUnlock()
	err := b.view(func(tx *bolt.Tx) (err error) {
		value, err = getState(tx, bucket, name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("get %s/%s from buffer %s: %w", bucket, name, b.path, err)
	}
	return value, nil
}

// getState copies a value of the small state, nil if there is none.
func getState(tx *bolt.Tx, bucket, name string) ([]byte, error) {
	all := tx.Bucket(stateBucket)
	if all == nil {
		return nil, nil
	}
	s := all.Bucket([]byte(bucket))
	if s == nil {
		return nil, nil
	}
	stored := s.Get([]byte(name))
	if stored == nil {
		return nil, nil
	}
	plain, ok := unseal([]byte(name), stored)
	in, x, read := decodeState(plain)
	if !ok || !read || in != bucket {
		return nil, errors.New("the value is damaged")
	}
	return append([]byte{}, x.value...), nil
}

// Put stores a value of the small state; it is on disk at return. A nil value deletes. Bucket and key must not be empty. It works
// too when the buffer is full of records.
func (b *Buffer) Put(bucket, name string, value []byte) error {
	return b.PutAll(bucket, map[string][]byte{name: value})
}

// PutAll stores values of one bucket by their keys, as Put does, in one commit: all of them or none.
func (b *Buffer) PutAll(bucket string, values map[string][]byte) error {
	err := b.writeNow(func(tx *bolt.Tx) error {
		s, err := tx.Bucket(stateBucket).CreateBucketIfNotExists([]byte(bucket))
		if err != nil {
			return err
		}
		for name, value := range values {
			if value == nil {
				err = s.Delete([]byte(name))
			} else {
				err = s.Put([]byte(name), stateValue{uint64(tx.ID()), value}.encode(bucket, []byte(name)))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("put %s to buffer %s: %w", bucket, b.path, err)
	}
	return nil
}

// writeNow runs a transaction in the caller's goroutine.
func (b *Buffer) writeNow(fn func(*bolt.Tx) error) error {
	b.writer.Lock()
	defer b.writer.Unlock()
	if b.isClosed() {
		return errClosed
	}
	if err := b.heal(); err != nil {
		return err
	}
	return b.updateOrDrop(&work{}, fn)
}

func (b *Buffer) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}

// Scan hands over the values of a bucket in the order of their names, from a name on, until fn says that it has enough. Damaged values are
// left out. The bytes are the caller's. fn may not call the buffer.
func (b *Buffer) Scan(bucket, from string, fn func(name string, value []byte) bool) error {
	b.layout.RLock()
	defer b.layout.RUnlock()
	err := b.view(func(tx *bolt.Tx) error {
		s := tx.Bucket(stateBucket).Bucket([]byte(bucket))
		if s == nil {
			return nil
		}
		c := s.Cursor()
		for k, v := c.Seek([]byte(from)); k != nil; k, v = c.Next() {
			plain, ok := unseal(k, v)
			in, x, read := decodeState(plain)
			if !ok || !read || in != bucket {
				continue
			}
			if !fn(string(k), append([]byte{}, x.value...)) {
				return nil
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("scan %s of buffer %s: %w", bucket, b.path, err)
	}
	return nil
}

// mostTrimmed bounds one commit of Trim.
const mostTrimmed = 1000

// Trim deletes the values of a bucket whose names are before a name, and then the first ones until the rest takes no more than that many
// bytes. It tells how many values went.
func (b *Buffer) Trim(bucket, before string, most int64) (int, error) {
	gone := 0
	for {
		n, err := b.trimSome(bucket, before, most)
		gone += n
		if err != nil {
			return gone, fmt.Errorf("trim %s of buffer %s: %w", bucket, b.path, err)
		}
		if n < mostTrimmed {
			return gone, nil
		}
	}
}

func (b *Buffer) trimSome(bucket, before string, most int64) (gone int, err error) {
	err = b.writeNow(func(tx *bolt.Tx) error {
		gone = 0
		s := tx.Bucket(stateBucket).Bucket([]byte(bucket))
		if s == nil {
			return nil
		}
		size := int64(0)
		c := s.Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			size += int64(len(k) + len(v))
		}
		var names [][]byte
		for k, v := c.First(); k != nil && len(names) < mostTrimmed && (string(k) < before || size > most); k, v = c.Next() {
			size -= int64(len(k) + len(v))
			names = append(names, k)
		}
		for _, name := range names {
			if err := s.Delete(name); err != nil {
				return err
			}
		}
		gone = len(names)
		return nil
	})
	return gone, err
}

// MaxSize is the upper limit of the file in bytes.
func (b *Buffer) MaxSize() int64 { return b.opt.MaxSize }
