package opcua

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/gopcua/opcua/uapolicy"
)

// Sizes of what goes over the wire: Part 6 of OPC UA, 6.7.2 and 7.1.2.
const (
	plainHeader    = 12      // type, kind, size and channel of a chunk
	sequenceHeader = 8       // number of the chunk, number of the request
	largestChunk   = 65535   // that we take and send
	smallestChunk  = 8192    // that everybody has to take
	largestMessage = 8 << 20 // that we take, of all requests together
)

var (
	errUnverified = errors.New("a message is not signed by the server")
	errTooLarge   = errors.New("the request is larger than the server takes")
)

// protection is how chunks are signed and encrypted.
type protection struct {
	algorithm       *uapolicy.EncryptionAlgorithm
	signs, encrypts bool
}

// room is how large the body of a chunk may be.
func (p protection) room(chunk, head int) int {
	if !p.signs {
		return chunk - head - sequenceHeader
	}
	room := chunk - head
	if p.encrypts {
		room = room/p.algorithm.BlockSize()*p.algorithm.PlaintextBlockSize() - 2 // of the padding's own size
	}
	return room - sequenceHeader - p.algorithm.SignatureLength()
}

// seal makes a chunk of its head, which stays in clear, and the rest.
func (p protection) seal(head, rest []byte) ([]byte, error) {
	chunk := slices.Concat(head, rest)
	size := len(chunk)
	if p.encrypts {
		block := p.algorithm.PlaintextBlockSize()
		extra := p.algorithm.RemoteSignatureLength() > 256 // the size of the padding takes two bytes
		own := 1
		if extra {
			own = 2
		}
		padding := (block - (len(rest)+own+p.algorithm.SignatureLength())%block) % block
		for range padding + 1 {
			chunk = append(chunk, byte(padding))
		}
		if extra {
			chunk = append(chunk, byte(padding>>8))
		}
		size = len(head) + (len(chunk)-len(head)+p.algorithm.SignatureLength())/block*p.algorithm.BlockSize()
	} else if p.signs {
		size += p.algorithm.SignatureLength()
	}
	binary.LittleEndian.PutUint32(chunk[4:], uint32(size))
	if !p.signs {
		return chunk, nil
	}
	signature, err := p.algorithm.Signature(chunk)
	if err != nil {
		return nil, err
	}
	chunk = append(chunk, signature...)
	if !p.encrypts {
		return chunk, nil
	}
	hidden, err := p.algorithm.Encrypt(chunk[len(head):])
	return append(chunk[:len(head)], hidden...), err
}

// unseal gives what is behind the head of a chunk, if the server has signed it.
// Without protection it is in the memory of the chunk.
func (p protection) unseal(chunk []byte, head int) ([]byte, error) {
	rest := chunk[head:]
	if p.signs {
		if p.encrypts {
			plain, err := p.algorithm.Decrypt(rest)
			if err != nil {
				return nil, errUnverified
			}
			rest = plain
		}
		end := len(rest) - p.algorithm.RemoteSignatureLength()
		if end < 0 || p.algorithm.VerifySignature(slices.Concat(chunk[:head], rest[:end]), rest[end:]) != nil {
			return nil, errUnverified
		}
		rest = rest[:end]
	}
	if p.encrypts && len(rest) > 1 {
		padding := int(rest[len(rest)-1]) + 1
		if p.algorithm.SignatureLength() > 256 {
			padding = int(rest[len(rest)-1])<<8 + int(rest[len(rest)-2]) + 2
		}
		rest = rest[:max(0, len(rest)-padding)]
	}
	if len(rest) < sequenceHeader {
		return nil, errShort
	}
	return rest, nil
}
