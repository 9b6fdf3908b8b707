package cloud

import (
	"encoding/json"
	"time"
)

// memory is what a session leaves to the one of the next process: of each topic
// of answers.
type memory map[string]remembered

type remembered struct {
	Answers bool `json:"answers"` // the platform sends them
	Open    bool `json:"open"`    // some may still come to what was sent
}

// Memory is for Config.Memory of the session that the next process makes for
// the user. One that may still send leaves answers open: so does a process that
// ends without a word. It tells of topics whose answers do not count, too: the
// next process may be told to wait for them.
func (s *Session) Memory(sends bool) []byte {
	m := memory{}
	for _, n := range s.lanes {
		if n.response != "" {
			m[n.response] = remembered{n.confirm.answers(), sends || n.open()}
		}
	}
	text, _ := json.Marshal(m) // strings and bools
	return text
}

// remember makes the lanes know what the process before has left. Of a text that
// can't be read the worst is thought.
func (s *Session) remember(text []byte) {
	if text == nil {
		return
	}
	var m memory
	damaged := json.Unmarshal(text, &m) != nil
	for _, n := range s.lanes {
		r := m[n.response]
		r.Open = r.Open || damaged
		n.remember(r)
	}
}

// manyOwed is more than may still come to what several processes have sent that
// were killed one after the other.
const manyOwed = 1 << 30

// remember expects answers to unknown messages, if some may still come. The first
// message doesn't wait for them, since a gateway that starts should be heard at
// once, but no answer confirms it, and it is sent again after the hold-off.
func (n *lane) remember(r remembered) {
	if n.confirm.setting == byPuback {
		return
	}
	n.confirm.seen = r.Answers
	if r.Open {
		n.owed, n.unacked, n.first = manyOwed, new(message), true
	}
}

// open tells whether answers may still come. It is called when the connection
// has ended.
func (n *lane) open() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.owed > 0 && (n.unacked != nil || time.Now().Before(n.quiet))
}
