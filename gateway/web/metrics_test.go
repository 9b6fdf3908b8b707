package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"sluice/gateway"
)

// TestMetrics: names and units keep the conventions, and values are those of
// the gateway.
func TestMetrics(t *testing.T) {
	r := newRig(t, gateway.Local{}, nil)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector{r.Server})
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	_, body, _ := r.ask(t, "GET", "/metrics", "")
	for _, want := range []string{
		`sluice_bus_up{bus="plc",type="modbus-tcp"} 1`, `sluice_device_up{bus="plc",device="press"} 1`, `sluice_device_bad_points{bus="plc",device="press"} 1`,
		`sluice_cloud_connected{user="press"} 1`, `sluice_buffer_failing 0`, `sluice_build_info{site="hall",version="test"} 1`, "go_goroutines ",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in:\n%s", want, body)
		}
	}
	r.field.fail(errors.New("connection reset"))
	r.await(t, func() bool {
		_, body, _ := r.ask(t, "GET", "/metrics", "")
		return strings.Contains(body, `sluice_bus_up{bus="plc",type="modbus-tcp"} 0`) && strings.Contains(body, `sluice_device_up{bus="plc",device="press"} 0`)
	})
}

// TestPromtoolLikesTheMetrics, and the expressions of the dashboard, which
// name only metrics that are there.
func TestPromtoolLikesTheMetrics(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("promtool is missing")
		}
		t.Skip("promtool is missing")
	}
	r := newRig(t, gateway.Local{}, nil)
	_, body, _ := r.ask(t, "GET", "/metrics", "")
	check := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	check.Stdin = strings.NewReader(onlyOurs(body))
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}

	content, err := os.ReadFile("../../configs/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	expressions := regexp.MustCompile(`"expr": ("(?:[^"\\]|\\.)*")`).FindAllStringSubmatch(string(content), -1)
	if len(expressions) < 15 {
		t.Fatalf("%d expressions in the dashboard", len(expressions))
	}
	rules := "groups:\n- name: dashboard\n  rules:\n"
	for i, match := range expressions {
		var expression string
		if err := json.Unmarshal([]byte(match[1]), &expression); err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`(sluice|process)_[a-z_]+`).FindAllString(expression, -1) {
			if !strings.Contains(body, "\n"+name+"{") && !strings.Contains(body, "\n"+name+" ") {
				t.Errorf("the dashboard asks for %s, which is not there", name)
			}
		}
		expression = strings.NewReplacer("$__rate_interval", "5m", "$__range", "6h").Replace(expression)
		rules += fmt.Sprintf("  - record: panel%d\n    expr: %q\n", i, expression)
	}
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, out)
	}
}

// onlyOurs leaves out what the Go library says of itself.
func onlyOurs(metrics string) string {
	var ours strings.Builder
	for line := range strings.Lines(metrics) {
		if strings.Contains(line, "sluice_") {
			ours.WriteString(line)
		}
	}
	return ours.String()
}

func TestHealthAndReadiness(t *testing.T) {
	stuck := []string{}
	r := newRig(t, gateway.Local{}, func(c *Config) { c.Stuck = func() []string { return stuck } })
	for _, path := range []string{"/healthz", "/readyz"} {
		if status, body, _ := r.ask(t, "GET", path, ""); status != 200 || body != `{"ok":true,"reasons":[]}`+"\n" {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	r.field.fail(errors.New("connection reset"))
	r.await(t, func() bool {
		status, body, _ := r.ask(t, "GET", "/readyz", "")
		return status == 503 && body == `{"ok":false,"reasons":["bus plc is down: connection reset"]}`+"\n"
	})
	if status, body, _ := r.ask(t, "GET", "/healthz", ""); status != 200 {
		t.Errorf("a lost bus makes the process ill: %s", body)
	}
	stuck = append(stuck, "lane press")
	if status, body, _ := r.ask(t, "GET", "/healthz", ""); status != 503 || !strings.Contains(body, "lane press does not turn") {
		t.Errorf("a stuck lane: %d %s", status, body)
	}
}

func TestPointsShowWhatIsKnown(t *testing.T) {
	r := newRig(t, gateway.Local{}, nil)
	r.await(t, func() bool { r.field.mu.Lock(); defer r.field.mu.Unlock(); return r.field.reads > 1 })
	_, body, _ := r.ask(t, "GET", "/api/points?device=press", "")
	points := decode[[]PointsOf](t, body)[0].Points
	if !strings.HasSuffix(points[0].Value, ".00") || points[0].Quality != "good" || points[0].Time.IsZero() {
		t.Errorf("speed: %+v", points[0])
	}
	if points[1].Value != "" || points[1].Quality != "bad" || points[1].Reason != "exception 2: illegal data address" {
		t.Errorf("bad: %+v", points[1])
	}
	if points[2].Value != "***" {
		t.Errorf("the secret shows: %+v", points[2])
	}
	if status, body, _ := r.ask(t, "GET", "/api/points?device=none", ""); status != 404 || !strings.Contains(body, "there is no device none") {
		t.Errorf("%d %s", status, body)
	}
}
