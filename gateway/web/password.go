package web

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/crypto/argon2"
)

// password checks a password against its argon2id hash: one check at a time,
// so that guessing takes neither all memory nor more than one core.
type password struct {
	mu     sync.Mutex
	time   uint32
	memory uint32 // KiB
	lanes  uint8
	salt   []byte
	hash   []byte

	key   []byte // of this process
	known []byte // digest of the right password, once it was seen: a scraper's is checked at each scrape
}

// A check takes some 30 ms and 9 MiB: an industrial PC has not much more. The
// password is long and random, or a hash can be put in its place.
const (
	argonTime   = 4
	argonMemory = 9 << 10
)

// newPassword takes a password in clear, or the hash of one as other programs
// write it: $argon2id$v=19$m=9216,t=4,p=1$salt$hash.
func newPassword(secret string) (*password, error) {
	p := &password{time: argonTime, memory: argonMemory, lanes: 1, key: make([]byte, 32)}
	_, _ = rand.Read(p.key) // never fails
	if strings.HasPrefix(secret, "$argon2id$") {
		return p, p.parse(secret)
	}
	p.salt = make([]byte, 16)
	_, _ = rand.Read(p.salt)
	p.hash = argon2.IDKey([]byte(secret), p.salt, p.time, p.memory, p.lanes, 32)
	return p, nil
}

func (p *password) parse(secret string) error {
	parts := strings.Split(secret, "$")
	if len(parts) != 6 || parts[2] != "v=19" {
		return errors.New("local.password: no argon2id hash of version 19")
	}
	if n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.memory, &p.time, &p.lanes); n != 3 || err != nil {
		return errors.New("local.password: the hash's parameters are not m=…,t=…,p=…")
	}
	if p.memory > 256<<10 || p.time > 100 || p.time < 1 || p.lanes < 1 {
		return errors.New("local.password: the hash takes more than 256 MiB or 100 passes")
	}
	var err error
	if p.salt, err = base64.RawStdEncoding.DecodeString(parts[4]); err != nil {
		return fmt.Errorf("local.password: salt of the hash: %w", err)
	}
	if p.hash, err = base64.RawStdEncoding.DecodeString(parts[5]); err != nil || len(p.hash) < 16 {
		return errors.New("local.password: the hash is not 16 bytes or more in base64")
	}
	return nil
}

// check tells whether a password is the right one.
func (p *password) check(guess string) bool {
	mac := hmac.New(sha256.New, p.key)
	mac.Write([]byte(guess))
	digest := mac.Sum(nil)
	p.mu.Lock()
	defer p.mu.Unlock()
	if subtle.ConstantTimeCompare(digest, p.known) == 1 {
		return true
	}
	got := argon2.IDKey([]byte(guess), p.salt, p.time, p.memory, p.lanes, uint32(len(p.hash)))
	if subtle.ConstantTimeCompare(got, p.hash) != 1 {
		return false
	}
	p.known = digest
	return true
}
