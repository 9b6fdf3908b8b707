package buffer

import (
	"container/list"
	"encoding/binary"
	"hash/crc32"
	"math"
	"time"
)

// Class says how a record is committed, and what goes first when there is no room.
type Class uint8

const (
	Attributes Class = iota // committed after Options.Flush, dropped first
	Event                   // committed at once, seen by Peek once it is on disk or the disk fails
	Gap                     // stands where records were lost, see Options.Gaps and Record.Loss
)

func (c Class) String() string {
	switch c {
	case Event:
		return "event"
	case Gap:
		return "gap"
	}
	return "attributes"
}

// Record is one stored message. Data stays valid as long as it is referenced, and must not be modified.
type Record struct {
	Seq   uint64 // unique in the file, rising within a lane, never 0
	Class Class
	Time  time.Time // as given to Append, in UTC
	Data  []byte
}

// A stored value is crc32c(key, rest) · lane · class · time · data, big-endian.
const (
	laneAt     = 4
	classAt    = 8
	timeAt     = 9
	headerSize = 17
	zeroTime   = math.MinInt64 // time.Time{} has no UnixNano
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// pending is a record that memory still owns.
type pending struct {
	seq    uint64
	lane   *lane
	class  Class
	time   time.Time
	added  time.Time
	value  []byte // as it will stand in the file
	elem   *list.Element
	frozen bool
	gone   bool // merged into another gap
	hidden bool // on its way out of quarantine: nobody goes past it before it is on disk
}

// size is what the record costs in memory.
func (p *pending) size() int64 { return int64(len(p.value)) + 160 }

func (p *pending) record() Record {
	return Record{Seq: p.seq, Class: p.class, Time: p.time.UTC(), Data: p.value[headerSize:]}
}

// seal completes the value with what is known only once the record has its number.
func (p *pending) seal() {
	seal(p.value, p.seq, p.lane.id)
}

func seal(value []byte, seq uint64, lane uint32) {
	binary.BigEndian.PutUint32(value[laneAt:], lane)
	binary.BigEndian.PutUint32(value, checksum(key(seq), value))
}

func encode(class Class, t time.Time, data []byte) []byte {
	value := make([]byte, headerSize+len(data))
	value[classAt] = byte(class)
	binary.BigEndian.PutUint64(value[timeAt:], uint64(nanos(t)))
	copy(value[headerSize:], data)
	return value
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return zeroTime
	}
	return t.UnixNano()
}

func fromNanos(n int64) time.Time {
	if n == zeroTime {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

func key(n uint64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 0, 8), n)
}

func checksum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value[laneAt:])
}

// intact tells whether a stored record is as it was written.
func intact(key, value []byte) bool {
	return len(key) == 8 && len(value) >= headerSize && (binary.BigEndian.Uint32(value) == checksum(key, value) || ignoreChecksums)
}

// ignoreChecksums is set by a test that shows what they are for.
var ignoreChecksums bool

func laneOf(value []byte) uint32 { return binary.BigEndian.Uint32(value[laneAt:]) }

// causeOf is the cause that an intact gap record names.
func causeOf(value []byte) Cause {
	g, _ := decodeLoss(value[headerSize:])
	return g.Cause
}

func classOf(value []byte) Class { return Class(value[classAt]) }

func timeOf(value []byte) time.Time {
	return fromNanos(int64(binary.BigEndian.Uint64(value[timeAt:])))
}

// decode copies a stored record out of its transaction.
func decode(key, value []byte) Record {
	return Record{
		Seq:   binary.BigEndian.Uint64(key),
		Class: classOf(value),
		Time:  timeOf(value),
		Data:  append([]byte(nil), value[headerSize:]...),
	}
}
