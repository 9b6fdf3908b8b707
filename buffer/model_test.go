package buffer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// model is the buffer as plain slices.
type model struct {
	lanes map[string][]Record
	aside []uint64
	last  uint64
}

func (m *model) index(lane string, seq uint64) int {
	return slices.IndexFunc(m.lanes[lane], func(r Record) bool { return r.Seq == seq })
}

func TestModel(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		path := filepath.Join(dir, "buffer.db")
		var f faults
		o := f.options(Options{Flush: time.Hour, MaxSize: 16 << 20, Gaps: true})
		b, err := Open(path, o)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			f.early.Store(false)
			f.late.Store(false)
			if err := errors.Join(b.Close(), os.Remove(path)); err != nil {
				t.Fatal(err)
			}
		}()
		m := &model{lanes: map[string][]Record{}}
		lanes := rapid.SampledFrom([]string{"a", "b", "c", ""})
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { m.compare(t, b) },
			"append": func(t *rapid.T) {
				lane, n := lanes.Draw(t, "lane"), rapid.IntRange(1, 300).Draw(t, "n")
				for i := range n {
					m.append(t, b, lane, Class(i%50/49), i)
				}
			},
			"ack": func(t *rapid.T) {
				lane := lanes.Draw(t, "lane")
				upTo := rapid.Uint64Range(0, m.last+10).Draw(t, "up to")
				if len(m.lanes[lane]) > 0 && rapid.Bool().Draw(t, "oldest") {
					upTo = m.lanes[lane][0].Seq + rapid.Uint64Range(0, 500).Draw(t, "more")
				}
				b.Ack(lane, upTo)
				m.lanes[lane] = slices.DeleteFunc(m.lanes[lane], func(r Record) bool { return r.Seq <= upTo })
			},
			"peek": func(t *rapid.T) {
				lane := lanes.Draw(t, "lane")
				limit := rapid.IntRange(1, 1500).Draw(t, "limit")
				m.comparePeek(t, b, lane, limit)
			},
			"sync": func(t *rapid.T) {
				if err := b.Sync(context.Background()); err != nil {
					t.Fatal(err)
				}
			},
			"failing sync": func(t *rapid.T) {
				fault := &f.early
				if rapid.Bool().Draw(t, "late") {
					fault = &f.late
				}
				fault.Store(true)
				err := b.Sync(context.Background())
				fault.Store(false)
				if err != nil && !errors.Is(err, errDisk) {
					t.Fatal(err)
				}
			},
			"quarantine": func(t *rapid.T) {
				lane := lanes.Draw(t, "lane")
				seq := rapid.Uint64Range(1, m.last+1).Draw(t, "seq")
				if n := len(m.lanes[lane]); n > 0 && rapid.Bool().Draw(t, "there") {
					seq = m.lanes[lane][rapid.IntRange(0, n-1).Draw(t, "index")].Seq
				}
				m.quarantine(t, b, lane, seq)
			},
			"close and open": func(t *rapid.T) {
				if err := b.Close(); err != nil {
					t.Fatal(err)
				}
				if b, err = Open(path, o); err != nil {
					t.Fatal(err)
				}
			},
		})
	})
}

func (m *model) append(t *rapid.T, b *Buffer, lane string, class Class, i int) {
	r := Record{Class: class, Time: noon.Add(time.Duration(i)), Data: fmt.Appendf(nil, "%s %d", lane, i)}
	r.Seq = b.Append(lane, class, r.Time, r.Data)
	if r.Seq <= m.last {
		t.Fatalf("number %d after %d", r.Seq, m.last)
	}
	m.last = r.Seq
	m.lanes[lane] = append(m.lanes[lane], r)
}

func (m *model) quarantine(t *rapid.T, b *Buffer, lane string, seq uint64) {
	i := m.index(lane, seq)
	err := b.Quarantine(lane, seq, "why")
	if i < 0 {
		if !errors.Is(err, ErrNotFound) {
			t.Fatalf("quarantine of a record that isn't there: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	m.lanes[lane] = slices.Delete(m.lanes[lane], i, i+1)
	m.aside = append(m.aside, seq)
}

func (m *model) compare(t *rapid.T, b *Buffer) {
	for lane, want := range m.lanes {
		if n := b.Len(lane); n != len(want) {
			t.Fatalf("lane %q: len %d, want %d", lane, n, len(want))
		}
	}
	list, err := b.Quarantined()
	if err != nil || len(list) != len(m.aside) {
		t.Fatalf("%d in quarantine, want %d, %v", len(list), len(m.aside), err)
	}
	slices.Sort(m.aside)
	for i, q := range list {
		if q.Seq != m.aside[i] {
			t.Fatalf("quarantine %d: %d, want %d", i, q.Seq, m.aside[i])
		}
	}
	s := b.Stats()
	if s.Found+s.Appended != s.Acked+s.Quarantined+uint64(s.Waiting) || s.Dropped.Total() != 0 {
		t.Fatalf("account: %+v", s)
	}
}

// comparePeek wants a prefix of the lane, complete but for events that are on their way to the disk and for what stands behind them.
func (m *model) comparePeek(t *rapid.T, b *Buffer, lane string, limit int) {
	read, want := b.Peek, m.lanes[lane]
	if n := len(want); n > 0 && rapid.Bool().Draw(t, "after") {
		i := rapid.IntRange(0, n-1).Draw(t, "index")
		after := want[i].Seq
		read = func(name string, limit int) ([]Record, error) { return b.PeekAfter(name, after, limit) }
		want = want[i+1:]
	}
	got, err := read(lane, limit)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) > limit || len(got) > len(want) {
		t.Fatalf("lane %q: peek %d gave %d of %d", lane, limit, len(got), len(want))
	}
	for i, r := range got {
		w := want[i]
		if r.Seq != w.Seq || r.Class != w.Class || !r.Time.Equal(w.Time) || string(r.Data) != string(w.Data) {
			t.Fatalf("lane %q, record %d: %+v, want %+v", lane, i, r, w)
		}
	}
	if len(got) < min(limit, len(want)) && want[len(got)].Class != Event {
		t.Fatalf("lane %q: peek %d ended after %d of %d in front of attributes", lane, limit, len(got), len(want))
	}
}
