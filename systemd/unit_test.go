package systemd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// need skips a test where a program is missing; CI has to have it.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// unit lays the unit out as it is installed, changed by edit, with or without
// the drop-in for serial ports. It gives the path of the unit.
func unit(t *testing.T, serial bool, edit func(string) string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sluice.service")
	content := read(t, "sluice.service")
	if edit != nil {
		content = edit(content)
	}
	write(t, path, content)
	if serial {
		write(t, filepath.Join(path+".d", "serial.conf"), read(t, "serial.conf"))
	}
	return path
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestExposure holds the unit to its score: 0 is a program that can do nothing,
// 10 one that can do everything.
func TestExposure(t *testing.T) {
	need(t, "systemd-analyze")
	open := func(text string) string { return strings.Replace(text, "NoNewPrivileges=yes\n", "", 1) }
	for name, c := range map[string]struct {
		serial bool
		edit   func(string) string
		most   float64
	}{
		"network only":        {false, nil, 1.1},
		"serial ports":        {true, nil, 1.3},
		"with a line missing": {false, open, 1.1}, // the negative control
	} {
		t.Run(name, func(t *testing.T) {
			out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", unit(t, c.serial, c.edit)).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			_, rest, _ := strings.Cut(string(out), "Overall exposure level for sluice.service: ")
			var score float64
			if _, err := fmt.Sscan(rest, &score); err != nil {
				t.Fatalf("no score: %v\n%s", err, out)
			}
			t.Logf("%s: %.1f", name, score)
			if met := score <= c.most; met != (c.edit == nil) {
				t.Errorf("exposure %.1f, at most %.1f is allowed\n%s", score, c.most, out)
			}
		})
	}
}

// TestUnitIsUnderstood: systemd knows every line of the unit.
func TestUnitIsUnderstood(t *testing.T) {
	need(t, "systemd-analyze")
	there := func(text string) string { return strings.ReplaceAll(text, "/usr/bin/sluice", "/bin/true") }
	misspelt := func(text string) string { return there(strings.Replace(text, "WatchdogSec", "WatchDogSec", 1)) }
	for name, edit := range map[string]func(string) string{"the unit": there, "a misspelt one": misspelt} {
		out, err := exec.Command("systemd-analyze", "verify", unit(t, true, edit)).CombinedOutput()
		if fine := err == nil && !strings.Contains(string(out), "sluice.service"); fine != (name == "the unit") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
