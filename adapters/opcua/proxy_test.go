package opcua_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// proxy stands between client and server: it counts the requests, and is the
// network that is cut, or swallows all.
type proxy struct {
	listener net.Listener
	target   string
	requests atomic.Int64
	keys     atomic.Int64 // requests for keys of a channel
	spy      func([]byte) // sees what the client sends
	onlyNone bool         // offers no security, whatever the server does
	swap     [2][]byte    // what is replaced in answers, and by what
	hole     atomic.Bool  // nothing passes, nothing is closed
	mutex    sync.Mutex
	conns    map[net.Conn]bool
	refuse   bool
	wait     sync.WaitGroup
}

func startProxy(t testing.TB, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, target: target, conns: make(map[net.Conn]bool)}
	p.wait.Go(p.serve)
	t.Cleanup(func() {
		l.Close()
		p.cut()
		p.wait.Wait()
	})
	return p
}

func (p *proxy) endpoint() string {
	return "opc.tcp://127.0.0.1:" + strconv.Itoa(p.listener.Addr().(*net.TCPAddr).Port)
}

func (p *proxy) serve() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mutex.Lock()
		refuse, target := p.refuse, p.target
		p.mutex.Unlock()
		s, err := net.Dial("tcp", target)
		if refuse || err != nil {
			c.Close()
			if s != nil {
				s.Close()
			}
			continue
		}
		p.mutex.Lock()
		p.conns[c], p.conns[s] = true, true
		p.mutex.Unlock()
		p.wait.Go(func() { p.frames(s, c, true) })
		p.wait.Go(func() { p.frames(c, s, false) })
	}
}

// frames passes on whole messages.
func (p *proxy) frames(to, from net.Conn, count bool) {
	defer func() {
		p.mutex.Lock()
		delete(p.conns, to)
		delete(p.conns, from)
		p.mutex.Unlock()
		to.Close()
		from.Close()
	}()
	for {
		head := make([]byte, 8)
		if _, err := io.ReadFull(from, head); err != nil {
			return
		}
		frame := make([]byte, max(8, binary.LittleEndian.Uint32(head[4:])))
		copy(frame, head)
		if _, err := io.ReadFull(from, frame[8:]); err != nil {
			return
		}
		if !count {
			frame = p.change(frame)
		}
		if count && p.spy != nil {
			p.spy(frame)
		}
		if count && string(head[:4]) == "MSGF" {
			p.requests.Add(1)
		}
		if count && string(head[:3]) == "OPN" {
			p.keys.Add(1)
		}
		for p.hole.Load() {
			time.Sleep(5 * time.Millisecond)
			p.mutex.Lock()
			gone := !p.conns[from]
			p.mutex.Unlock()
			if gone {
				return
			}
		}
		if _, err := to.Write(frame); err != nil {
			return
		}
	}
}

// change is what somebody in between makes of an answer; lengths stay.
func (p *proxy) change(frame []byte) []byte {
	if p.onlyNone {
		for _, policy := range []string{"Aes256_Sha256_RsaPss", "Aes128_Sha256_RsaOaep", "Basic256Sha256"} {
			for mode := range byte(4) { // which stands before an endpoint's policy, and not before a token's
				uri := binary.LittleEndian.AppendUint32([]byte{mode, 0, 0, 0}, uint32(len("http://opcfoundation.org/UA/SecurityPolicy#"+policy)))
				uri = append(uri, "http://opcfoundation.org/UA/SecurityPolicy#"...)
				frame = bytes.ReplaceAll(frame, append(slices.Clone(uri), policy...), append(uri, strings.Repeat("x", len(policy))...))
			}
		}
	}
	if len(p.swap[0]) > 0 && len(p.swap[0]) == len(p.swap[1]) {
		frame = bytes.ReplaceAll(frame, p.swap[0], p.swap[1])
	}
	return frame
}

// to sends new connections elsewhere.
func (p *proxy) to(target string) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.target = target
}

// cut closes all connections and takes no new ones.
func (p *proxy) cut() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.refuse = true
	for c := range p.conns {
		c.Close()
		delete(p.conns, c)
	}
}

// restore takes connections again.
func (p *proxy) restore() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.refuse = false
}
