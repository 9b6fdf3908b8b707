package buffer

import (
	"fmt"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// Get returns a value of the small state, nil if there is none.
func (b *Buffer) Get(bucket, name string) ([]byte, error) {
	var value []byte
	err := b.db.View(func(tx *bolt.Tx) error {
		if s := tx.Bucket(stateBucket).Bucket([]byte(bucket)); s != nil {
			value = slices.Clone(s.Get([]byte(name)))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("get %s/%s from buffer %s: %w", bucket, name, b.path, err)
	}
	return value, nil
}

// Put stores a value of the small state; it is on disk at return. A nil value deletes. Bucket and key must not be empty. It works
// too when the buffer is full of records.
func (b *Buffer) Put(bucket, name string, value []byte) error {
	err := b.writeNow(func(tx *bolt.Tx) error {
		s, err := tx.Bucket(stateBucket).CreateBucketIfNotExists([]byte(bucket))
		if err != nil {
			return err
		}
		if value == nil {
			return s.Delete([]byte(name))
		}
		return s.Put([]byte(name), value)
	})
	if err != nil {
		return fmt.Errorf("put %s/%s to buffer %s: %w", bucket, name, b.path, err)
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
	return b.updateOrDrop(&work{}, fn)
}

func (b *Buffer) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}
