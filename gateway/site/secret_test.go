package site

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

func TestSecretsAreOpened(t *testing.T) {
	dir, credentials := t.TempDir(), t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", credentials)
	t.Setenv("PUMP_PASSWORD", "from env")
	write(t, filepath.Join(dir, "secrets", "gw"), "from file\n", 0o600)
	write(t, filepath.Join(dir, "p3.txt"), "from path\r\n", 0o644)
	write(t, filepath.Join(credentials, "pump1"), "from credentials", 0o400)
	write(t, filepath.Join(credentials, "secrets_pump1"), "from the folder", 0o400)
	text := plantWith(t, "unit: 3,", "unit: 3, login: { user: p3, password: file:p3.txt },", "unit: 0004,", "unit: 4, login: { user: p4, password: env:PUMP_PASSWORD },")
	site, diagnostics := Parse(filepath.Join(dir, "plant.yaml"), []byte(text), Options{})
	if len(diagnostics) > 0 {
		t.Fatal(diagnostics)
	}
	for _, s := range FindSecrets(site) {
		if s.Err != nil || s.Place == "" {
			t.Errorf("%+v", s)
		}
	}
	if diagnostics = OpenSecrets(site); len(diagnostics) > 0 {
		t.Fatal(diagnostics)
	}
	got := []string{string(site.Cloud.Login.Password)}
	for _, d := range site.Devices {
		got = append(got, string(d.Login.Password))
	}
	if want := "from file|from credentials|from path|from env"; strings.Join(got, "|") != want {
		t.Errorf("got %q", got)
	}
	if again := OpenSecrets(site); len(again) > 0 {
		t.Errorf("opened twice: %v", again)
	}
	if err := os.Remove(filepath.Join(credentials, "pump1")); err != nil {
		t.Fatal(err)
	}
	if got, _, err := readSecret(site, "secret:pump1"); got != "from the folder" || err != nil {
		t.Errorf("of a folder of credentials: %q, %v", got, err)
	}
}

func TestMissingSecretIsRefusedAtItsPlace(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	dir := t.TempDir()
	file := filepath.Join(dir, "plant.yaml")
	write(t, filepath.Join(dir, "secrets", "pump1"), "x", 0o644)
	if err := os.Chmod(filepath.Join(dir, "secrets", "pump1"), 0o644); err != nil {
		t.Fatal(err)
	}
	site, diagnostics := Parse(file, []byte(plant), Options{})
	if len(diagnostics) > 0 {
		t.Fatal(diagnostics)
	}
	want := file + `:6:32: error: secret "gw" is missing: neither in $CREDENTIALS_DIRECTORY nor in ` + dir + `/secrets/gw
      login: { user: gw, password: secret:gw }
                                   ^^^^^^^^^
` + file + `:32:101: error: ` + dir + `/secrets/pump1 can be read by others: chmod 600 ` + dir + `/secrets/pump1
      - { name: cooling-pump-1, profile: pump, bus: pump-skid, unit: 1, login: { user: pump1, password: "secret:pump1" } }
                                                                                                        ^^^^^^^^^^^^^^
`
	var got strings.Builder
	OpenSecrets(site).Print(&got)
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}

func TestPasswordIsNotShown(t *testing.T) {
	for line, want := range map[string]string{
		"login: { user: gw, password: hunter2, x: 1 }": "login: { user: gw, password: *******, x: 1 }",
		`password: "a b, c" # x`:                       "password: ******** # x",
		"password: secret:gw":                          "password: secret:gw",
		"key: env:KEY":                                 "key: env:KEY",
		"\tpassword:\thunter2":                         " password: *******",
		"password: { at: 1 }":                          "password: { at: 1 }",
	} {
		if got := hide(line); got != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
}
