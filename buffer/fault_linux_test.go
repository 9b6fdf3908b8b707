package buffer

import (
	"errors"
	"syscall"
	"testing"
)

// TestAPageThatCanNotBeReadIsAnError for who reads it through the map, and not the end of the program: on a dying disk that is a signal, for which a
// protected page stands here.
func TestAPageThatCanNotBeReadIsAnError(t *testing.T) {
	o := Options{MaxSize: 16 << 20, Gaps: true, Flush: 1 << 50, retry: 1 << 60}
	b, err := Open(newPath(t), o)
	if err != nil {
		t.Fatal(err)
	}
	for n := range uint64(20_000) {
		b.Append("l", Attributes, noon, numbered(n+1, 300))
		if n%1000 == 0 {
			syncNow(t, b)
		}
	}
	syncNow(t, b)
	first := peek(t, b, "l", 1)[0].Seq
	b.writer.Lock()
	p, err := openPages(b.file)
	if err != nil {
		t.Fatal(err)
	}
	at := int64(0)
	w := p.walker()
	w.damage = func(tree, uint64, error) bool { return true }
	w.visit = func(path []string, e element) {
		if len(path) == 2 && path[0] == string(segmentsBucket) && len(e.key) == 8 && seqOf(e.key) == first {
			at = e.at / p.pageSize * p.pageSize
		}
	}
	w.walk(tree{}, p.root, 0)
	_, _, refused := syscall.Syscall(syscall.SYS_MPROTECT, b.db.Info().Data+uintptr(at), uintptr(p.pageSize), syscall.PROT_NONE)
	b.writer.Unlock()
	if refused != 0 {
		t.Fatal(refused)
	}
	if err := b.Quarantine("l", first, "x"); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
	syncNow(t, b) // the file is opened anew
	if r := peek(t, b, "l", 1); r[0].Seq != first {
		t.Errorf("%d is in front", r[0].Seq)
	}
	closeNow(t, b)
}
