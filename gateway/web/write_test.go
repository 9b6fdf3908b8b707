package web

import (
	"strings"
	"testing"

	"sluice/gateway"
)

// TestWritesFromThePage need local.write_test, and go through the checks of a
// push.
func TestWritesFromThePage(t *testing.T) {
	const ask = `{"device": "press", "point": "speed", "value": "12"}`
	off := newRig(t, gateway.Local{}, nil)
	if status, body, _ := off.ask(t, "POST", "/api/write", ask); status != 403 || !strings.Contains(body, "local.write_test") {
		t.Errorf("where it is off: %d %s", status, body)
	}
	on := newRig(t, gateway.Local{WriteTest: true}, nil)
	for _, tt := range []struct{ ask, want string }{
		{ask, `{"result":"refused","old":"`},
		{`{"device": "press", "point": "speed", "value": "fast"}`, `{"result":"refused","reason":"speed fast is no number"}`},
		{`{"device": "press", "point": "bad", "value": "1"}`, `{"result":"refused","reason":"bad is only read"}`},
		{`{"device": "press", "point": "none", "value": "1"}`, `{"result":"refused","reason":"`},
	} {
		status, body, _ := on.ask(t, "POST", "/api/write", tt.ask)
		if status != 200 || !strings.HasPrefix(body, tt.want) {
			t.Errorf("%s: %d %s", tt.ask, status, body)
		}
	}
	if status, _, _ := on.ask(t, "POST", "/api/write", `{"device": 7}`); status != 400 {
		t.Errorf("nonsense: %d", status)
	}
	_, body, _ := on.ask(t, "GET", "/api/audit", "")
	lines := decode[[]gateway.Audit](t, body)
	if len(lines) == 0 || lines[0].Who != gateway.ByPage || lines[0].Device != "press" || lines[0].Asked != "12" {
		t.Errorf("audit: %s", body)
	}
}
