package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/configs"
)

// execute runs a subcommand in this process.
func execute(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&errs)
	err = root.ExecuteContext(t.Context())
	return out.String(), errs.String(), err
}

// oneMeter polls 10 registers a second, from one unit at 9600 Bd.
const oneMeter = `version: 1
site: { name: one }
cloud: { url: mqtt://broker.example:1883, login: { user: gate, password: secret:gate }, confirm: puback, backlog: replay }
local: { http: none }
buses:
  rs485: { type: modbus-rtu, port: /dev/serial/by-id/usb-1, line: 9600 8N1 }
devices:
  - name: meter
    bus: rs485
    unit: 3
    protocol: modbus
    addressing: one-based
    table: input
    order: ABCD
    points:
      voltage:   { at: 1, type: float32, poll: 1s }
      power:     { at: 9, type: float32, poll: 1s }
      serial:    { at: "holding:64513", type: uint32, poll: 1h }
`

func TestCheckQuietSaysOnlyWhatIsWrong(t *testing.T) {
	path := filepath.Join(t.TempDir(), "site.yaml")
	write(t, path, oneMeter)
	if out, errs, err := execute(t, "check", "--quiet", path); out != "" || errs != "" || err != nil {
		t.Errorf("of a good file: %v\n%s%s", err, out, errs)
	}
	if _, errs, err := execute(t, "check", "--quiet", "--secrets", path); !strings.Contains(errs, `:3:74: error: secret "gate" is missing`) || err == nil {
		t.Errorf("of a good file without its secret: %v\n%s", err, errs)
	}
	write(t, path, strings.Replace(oneMeter, "unit: 3", "unit: 300", 1))
	if out, errs, err := execute(t, "check", "--quiet", path); out != "" || !strings.Contains(errs, ":10:11: error: ") || err == nil {
		t.Errorf("of a bad file: %v\n%s%s", err, out, errs)
	}
}

func TestCheckVerbose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "site.yaml")
	write(t, path, oneMeter)
	out, errs, err := execute(t, "check", "-v", path)
	if err != nil || errs != "" {
		t.Fatalf("%v\n%s", err, errs)
	}
	// The first request: 8 + 25 characters, 3.5 of silence, 10 ms of turn-around.
	want := `bus rs485 (modbus-rtu)

  device  point    printed        reference      on the wire             size  type     order  poll
  meter   voltage  1              input:1        input 0 (0x0000)        2     float32  ABCD   1s
  meter   power    9              input:9        input 8 (0x0008)        2     float32  ABCD   1s
  meter   serial   holding:64513  holding:64513  holding 64512 (0xFC00)  2     uint32   ABCD   1h

  device  request                         points  every  takes
  meter   unit 3, input 0 to 9            2       1s     48.02ms
  meter   unit 3, holding 64512 to 64513  1       1h     31.35ms

bus rs485: 2 requests, 0.05 s per 1s cycle, 5 %

secret secret:gate: missing: secret "gate" is missing: neither in $CREDENTIALS_DIRECTORY nor in ` + filepath.Dir(path) + `/secrets/gate

` + path + `: site one is fine: 1 bus, 1 device, 3 points, 0 warnings
`
	if out != want {
		t.Errorf("got:\n%s\nwant:\n%s", out, want)
	}
}

func TestCheckJSON(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.yaml"), filepath.Join(dir, "bad.yaml")
	write(t, good, oneMeter)
	write(t, bad, strings.Replace(oneMeter, "type: uint32", "typ: uint32", 1))
	out, errs, err := execute(t, "check", "--json", good, bad)
	if err != errFound || errs != "" {
		t.Fatalf("%v\n%s", err, errs)
	}
	var files []struct {
		File     string
		Errors   int
		Findings []struct {
			Line, Column     int
			Severity         string
			Text, Suggestion string
		}
		Buses []struct {
			Name     string
			Requests []struct{ Reads string }
			Busy     float64
		}
	}
	if err := json.Unmarshal([]byte(out), &files); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if len(files) != 2 || len(files[0].Findings) != 0 || len(files[0].Buses[0].Requests) != 2 || files[0].Buses[0].Busy < 0.04 {
		t.Errorf("got:\n%s", out)
	}
	if f := files[1]; f.Errors == 0 || f.Findings[0].Line != 18 || f.Findings[0].Column != 41 || f.Findings[0].Suggestion != "did you mean type?" {
		t.Errorf("got:\n%s", out)
	}
}

func TestProfilesAndSchemaArePrinted(t *testing.T) {
	out, _, err := execute(t, "profiles")
	if err != nil || !strings.Contains(out, "builtin:eastron-sdm630") || !strings.Contains(out, "52 points") {
		t.Errorf("%v\n%s", err, out)
	}
	for args, file := range map[string]string{"profiles show eastron-sdm120": "profiles/eastron-sdm120.yaml", "schema": "site.schema.json"} {
		want, err := configs.FS.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if out, _, err := execute(t, strings.Fields(args)...); err != nil || out != string(want) {
			t.Errorf("%s: %v\n%s", args, err, out)
		}
	}
	if _, _, err := execute(t, "profiles", "show", "nonesuch"); err == nil || !strings.Contains(err.Error(), `no built-in profile "nonesuch"`) {
		t.Errorf("unknown profile: %v", err)
	}
}

// TestExamplesAreFine: every site file that ships is without errors.
func TestExamplesAreFine(t *testing.T) {
	files, err := filepath.Glob("../../configs/*.yaml")
	if err != nil || len(files) < 4 {
		t.Fatal(files, err)
	}
	if _, errs, err := execute(t, append([]string{"check", "-v"}, files...)...); err != nil {
		t.Errorf("%v\n%s", err, errs)
	}
}

func TestShortDurations(t *testing.T) {
	for d, want := range map[time.Duration]string{time.Minute: "1m", time.Hour: "1h", 90 * time.Second: "1m30s", time.Second: "1s", 10 * time.Minute: "10m", 500 * time.Millisecond: "500ms"} {
		if got := short(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
}

func TestMissingFile(t *testing.T) {
	_, errs, err := execute(t, "check", filepath.Join(t.TempDir(), "none.yaml"))
	if err != errFound || !strings.Contains(errs, "none.yaml: error: can't read the file: "+os.ErrNotExist.Error()) && !strings.Contains(errs, "no such file") {
		t.Errorf("%v\n%s", err, errs)
	}
}
