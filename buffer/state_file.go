package buffer

import (
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// StateFile reads the small state of a file that no gateway has open. It changes nothing, and keeps a gateway from opening the
// file until Close.
type StateFile struct {
	path string
	db   *bolt.DB
}

// OpenState opens a file for its small state. A file that is missing, damaged or in use is an error.
func OpenState(path string) (*StateFile, error) {
	f := &StateFile{path: path}
	err := guard(func() (err error) {
		f.db, err = bolt.Open(path, 0, &bolt.Options{ReadOnly: true, Timeout: lockTimeout})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open buffer %s to read its state: %w", path, err)
	}
	return f, nil
}

// Get returns a value, nil if there is none.
func (f *StateFile) Get(bucket, name string) (value []byte, err error) {
	err = guard(func() error {
		return f.db.View(func(tx *bolt.Tx) (err error) {
			value, err = getState(tx, bucket, name)
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("get %s/%s from buffer %s: %w", bucket, name, f.path, err)
	}
	return value, nil
}

// Close lets others open the file.
func (f *StateFile) Close() error { return f.db.Close() }
