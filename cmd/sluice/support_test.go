package main

import (
	"archive/tar"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// planted are secrets, one for each way to write one.
var planted = map[string]string{
	"clear":  "in-clear-91",
	"quoted": `with "quotes" & 91%`,
	"file":   "of-a-file-91",
	"env":    "of-env/91+?",
	"secret": "of-secrets-91",
	"lines":  "first-of-a-key-91\nsecond-of-a-key-91",
	"unlock": "4711",
}

const secretive = `version: 1
site: { name: secretive }
cloud:
  url: mqtts://127.0.0.1:1
  confirm: puback
  backlog: replay
  tls: { key: file:lines }
buffer: { path: buffer.db, max_size: 16MB }
local: { http: none, password: env:SLUICE_TEST_PASSWORD }
buses:
  tcp: { type: modbus-tcp, host: 127.0.0.1, port: 1 }
devices:
  - name: a
    bus: tcp
    unit: 1
    protocol: modbus
    addressing: protocol
    table: holding
    unlock: { write: { code: "4711" } }
    login: { user: a, password: in-clear-91 }
    points:
      speed: { at: 10, type: uint16 }
      code: { at: 11, type: uint16, access: w, min: 0, max: 9999 }
  - { name: b, bus: tcp, unit: 2, protocol: modbus, addressing: protocol, table: holding, points: { p: { at: 1, type: uint16 } }, login: { user: b, password: 'with "quotes" & 91%' } }
  - { name: c, bus: tcp, unit: 3, protocol: modbus, addressing: protocol, table: holding, points: { p: { at: 1, type: uint16 } }, login: { user: c, password: file:file } }
  - { name: d, bus: tcp, unit: 4, protocol: modbus, addressing: protocol, table: holding, points: { p: { at: 1, type: uint16 } }, login: { user: d, password: secret:secret } }
`

// TestSupportBundleHoldsNoSecret: however a secret is written in the site file,
// and in whatever form the log has it.
func TestSupportBundleHoldsNoSecret(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "site.yaml")
	write(t, path, secretive)
	write(t, filepath.Join(dir, "file"), planted["file"]+"\n")
	write(t, filepath.Join(dir, "lines"), planted["lines"]+"\n")
	if err := os.Mkdir(filepath.Join(dir, "secrets"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "secrets", "secret"), planted["secret"]+"\n")
	t.Setenv("SLUICE_TEST_PASSWORD", planted["env"])

	// A log that says all of it, in every form.
	var log strings.Builder
	var forms []string
	for _, secret := range planted {
		for _, line := range strings.Split(secret, "\n") {
			forms = append(forms, line, url.QueryEscape(line), url.PathEscape(line), fmt.Sprintf("%q", line)[1:len(fmt.Sprintf("%q", line))-1],
				base64.StdEncoding.EncodeToString([]byte(line)))
		}
	}
	for _, form := range forms {
		fmt.Fprintf(&log, "x=%s y mqtt://a:%s@host\n", form, form)
	}
	log.WriteString("connect to mqtt://somebody:another-91@broker.example\n")
	forms = append(forms, "another-91")
	bin := t.TempDir()
	write(t, filepath.Join(bin, "text"), log.String())
	write(t, filepath.Join(bin, "journalctl"), "#!/bin/sh\ncat "+filepath.Join(bin, "text")+"\n")
	if err := os.Chmod(filepath.Join(bin, "journalctl"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))

	holdsNone := func(texts map[string]string, of ...string) {
		t.Helper()
		for name, text := range texts {
			for _, form := range forms {
				if (of == nil || slices.Contains(of, name)) && strings.Contains(text, form) {
					t.Errorf("%s holds %s", name, form)
				}
			}
		}
	}
	output := filepath.Join(dir, "bundle.tar.gz")
	if _, errs, err := execute(t, "support-bundle", "--site", path, "-o", output); err != nil {
		t.Fatalf("%v\n%s", err, errs)
	}
	texts := unpack(t, output)
	holdsNone(texts)
	for name, want := range map[string]string{
		"site.yaml": "name: secretive", "version.txt": "sluice ", "log.txt": "x=*** y mqtt://a:***@host", "check.txt": "warning", "status.txt": "no gateway runs this site",
	} {
		if !strings.Contains(texts[name], want) {
			t.Errorf("%s doesn't say %q:\n%s", name, want, texts[name])
		}
	}
	if info, err := os.Stat(output); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the bundle has mode %v: %v", info.Mode(), err)
	}

	// A site that doesn't load is when help is needed most.
	write(t, path, strings.Replace(secretive, "unit: 2", "unit: 999", 1))
	if _, errs, err := execute(t, "support-bundle", "--site", path, "-o", output); err != nil {
		t.Fatalf("%v\n%s", err, errs)
	}
	texts = unpack(t, output)
	holdsNone(texts, "site.yaml", "check.txt")
	if !strings.Contains(texts["check.txt"], "error: ") {
		t.Errorf("check.txt says:\n%s", texts["check.txt"])
	}
}

// TestSupportBundleOfARunningGateway holds what it says of itself.
func TestSupportBundleOfARunningGateway(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	run := sluice(t, "run", "--site", p.path)
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	p.waitFor(t, "own", "speed", p.twin.Attributes("own")["speed"])
	output := filepath.Join(t.TempDir(), "bundle.tar.gz")
	var texts map[string]string
	for range 50 {
		if out, err := sluice(t, "support-bundle", "--site", p.path, "-o", output).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if texts = unpack(t, output); texts["status.json"] != "" {
			break
		}
	}
	for name, want := range map[string]string{
		"status.json": `"buses"`, "points.json": `"speed"`, "metrics.txt": "sluice_", "buffer.json": `"lanes"`, "healthz.json": "{", "readyz.json": "{", "events.json": "",
	} {
		if text, there := texts[name]; !there || !strings.Contains(text, want) {
			t.Errorf("%s doesn't say %q:\n%s", name, want, text)
		}
	}
	run.Process.Kill()
	run.Wait()
}

func unpack(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	texts := make(map[string]string)
	for archive := tar.NewReader(zipped); ; {
		head, err := archive.Next()
		if err == io.EOF {
			return texts
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		texts[strings.TrimPrefix(head.Name, "sluice-support/")] = string(content)
	}
}

func TestVersion(t *testing.T) {
	out, _, err := execute(t, "version")
	if want := "sluice " + version() + ", go1."; err != nil || !strings.HasPrefix(out, want) {
		t.Errorf("%v: %s", err, out)
	}
}
