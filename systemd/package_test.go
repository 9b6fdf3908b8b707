package systemd

import (
	"bufio"
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/adapters/sim"
	"sluice/buffer"
	"sluice/gateway/cloud/twin"
	"sluice/gateway/site"
)

// packages is the folder with what ./package made: sluice_0.1.0_amd64.deb and
// sluice_0.1.1_amd64.deb. Without it these tests, which install and remove
// sluice on this machine, are skipped.
func packages(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("SLUICE_PACKAGES")
	if dir == "" {
		t.Skip("SLUICE_PACKAGES is not set")
	}
	return dir
}

const (
	siteFile   = "/etc/sluice/site.yaml"
	bufferFile = "/var/lib/sluice/buffer.db"
	wanted     = "/etc/systemd/system/multi-user.target.wants/sluice.service" // the service starts at boot
)

const onePump = `version: 1
site: { name: packaged }
cloud: { url: %s, login: { user: gate, password: secret:gate }, confirm: puback, min_interval: 0s, backlog: replay }
buffer: { max_size: 16MB, min_free_disk: 1MB, flush: 200ms }
local: { http: none }
buses:
  tcp: { type: modbus-tcp, host: %s, port: %s }
devices:
  - name: pump
    bus: tcp
    unit: 1
    protocol: modbus
    addressing: protocol
    table: holding
    poll: 100ms
    report: { mode: always }
    points:
      speed: { at: 10, type: uint16 }
`

// TestPackage goes the way of a gateway: installed, refused while the site file
// is the one that came with it, run as the unit runs it, upgraded with reports
// in the buffer, removed, purged.
func TestPackage(t *testing.T) {
	dir := packages(t)
	if out, err := exec.Command("dpkg-query", "-W", "sluice").CombinedOutput(); err == nil {
		t.Fatalf("sluice is installed on this machine already: %s", out)
	}
	dpkg := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("dpkg", args...).CombinedOutput(); err != nil {
			t.Fatalf("dpkg %v: %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() { exec.Command("dpkg", "-P", "sluice").Run() })
	dpkg("-i", filepath.Join(dir, "sluice_0.1.0_amd64.deb"))
	if size := stat(t, "/usr/bin/sluice").Size(); size > 25e6 {
		t.Errorf("the program has %d bytes", size)
	}
	if mode := stat(t, siteFile).Mode().Perm(); mode != 0o640 {
		t.Errorf("%s has mode %o", siteFile, mode)
	}
	if mode := stat(t, "/etc/sluice/secrets").Mode().Perm(); mode != 0o700 {
		t.Errorf("the folder of secrets has mode %o", mode)
	}
	if out, err := asService(t, "ExecCondition").CombinedOutput(); err == nil || !strings.Contains(string(out), siteFile+":") {
		t.Errorf("the site file that comes with the package may start: %v\n%s", err, out)
	}

	platform := plant(t)
	if out, err := asService(t, "ExecCondition").CombinedOutput(); err != nil {
		t.Fatalf("the site file is refused: %v\n%s", err, out)
	}
	platform.Stop()
	serve(t, func() bool { return stat(t, bufferFile).Size() > 0 }, time.Second)
	kept := waiting(t)
	if kept == 0 {
		t.Fatal("nothing waits in the buffer")
	}
	dpkg("-i", filepath.Join(dir, "sluice_0.1.1_amd64.deb"))
	if now := waiting(t); now != kept {
		t.Errorf("%d records waited before the upgrade, %d after it", kept, now)
	}
	if err := platform.Restart(); err != nil {
		t.Fatal(err)
	}
	serve(t, func() bool { return len(platform.Received("gate")) > kept }, 0)

	dpkg("-r", "sluice")
	stat(t, siteFile)
	stat(t, bufferFile)
	if _, err := os.Stat("/usr/bin/sluice"); err == nil {
		t.Error("the program is there after its removal")
	}
	comesBack(t, filepath.Join(dir, "sluice_0.1.1_amd64.deb"))
	dpkg("-P", "sluice")
	for _, gone := range []string{"/etc/sluice", "/var/lib/sluice", "/usr/share/sluice", "/usr/share/doc/sluice", wanted} {
		if _, err := os.Lstat(gone); err == nil {
			t.Errorf("%s is there after the purge", gone)
		}
	}
}

// comesBack installs and removes the package where systemd seems to run, and
// looks what it is asked for: dpkg calls the scripts, and they are called as
// rpm would. That systemd starts nothing must fail no script.
func comesBack(t *testing.T, deb string) {
	t.Helper()
	fake, scripts := t.TempDir(), t.TempDir()
	asked := filepath.Join(fake, "asked")
	write(t, filepath.Join(fake, "systemctl"), `#!/bin/sh
case "$1" in is-enabled) ;; *) echo "$1" >>`+asked+` ;; esac
case "$1" in
enable | disable | is-enabled) exec /usr/bin/systemctl --root=/ "$@" ;;
start | try-restart) exit 1 ;;
esac
`)
	if err := os.Chmod(filepath.Join(fake, "systemctl"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("dpkg-deb", "-e", deb, scripts).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, step := range []struct {
		command, asked string
		enabled        bool
	}{
		{"dpkg -i " + deb, "enable daemon-reload start", true},
		{"dpkg -i " + deb, "daemon-reload daemon-reload try-restart", true},
		{"dpkg -r sluice", "disable stop daemon-reload", false},
		{"dpkg -i " + deb, "enable daemon-reload start", true},
		{"systemctl disable sluice", "disable", false},
		{"dpkg -r sluice", "stop daemon-reload", false},
		{"dpkg -i " + deb, "daemon-reload try-restart", false}, // somebody did not want it

		{scripts + "/postinst 1", "enable daemon-reload start", true},
		{scripts + "/prerm 1", "", true},
		{scripts + "/postinst 2", "daemon-reload try-restart", true},
		{scripts + "/prerm 0", "disable stop", false},
		{scripts + "/postinst 1", "enable daemon-reload start", true},
		{scripts + "/prerm remove", "disable stop", false},
		{scripts + "/postinst abort-remove", "enable daemon-reload start", true},
	} {
		_ = os.Remove(asked)
		cmd := exec.Command("unshare", "--mount", "sh", "-c", "mount -t tmpfs none /run && mkdir -p /run/systemd/system && exec "+step.command)
		cmd.Env = append(os.Environ(), "PATH="+fake+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		words, _ := os.ReadFile(asked)
		_, enabled := os.Lstat(wanted)
		if got := strings.Join(strings.Fields(string(words)), " "); err != nil || got != step.asked || (enabled == nil) != step.enabled {
			t.Errorf("%s: %v, asks systemd to %s, not to %s; enabled: %v\n%s", step.command, err, got, step.asked, enabled == nil, out)
		}
		if says := strings.Contains(string(out), "journalctl -u sluice says why"); says != strings.HasSuffix(step.asked, "start") {
			t.Errorf("%s says:\n%s", step.command, out)
		}
	}
}

// TestPackagesOfAllMachines: each package holds the program for its machine,
// and the site file as one that an upgrade leaves alone.
func TestPackagesOfAllMachines(t *testing.T) {
	dir := packages(t)
	emulators := map[elf.Machine]string{elf.EM_AARCH64: "qemu-aarch64-static", elf.EM_ARM: "qemu-arm-static"}
	for deb, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "armhf": elf.EM_ARM} {
		root := t.TempDir()
		file := filepath.Join(dir, "sluice_0.1.0_"+deb+".deb")
		if out, err := exec.Command("dpkg-deb", "-x", file, root).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", file, err, out)
		}
		program, err := elf.Open(filepath.Join(root, "usr/bin/sluice"))
		if err != nil {
			t.Fatal(err)
		}
		if libraries, err := program.ImportedLibraries(); program.Machine != machine || len(libraries) > 0 || err != nil {
			t.Errorf("%s holds a program for %s that needs %v: %v", file, program.Machine, libraries, err)
		}
		program.Close()
		if emulator := emulators[machine]; emulator != "" {
			emulate(t, emulator, root)
		}
	}
	need(t, "rpm")
	for _, machine := range []string{"x86_64", "aarch64", "armv7hl"} {
		file := filepath.Join(dir, "sluice-0.1.0-1."+machine+".rpm")
		out, err := exec.Command("rpm", "-qp", "--qf", "[%{FILENAMES} %{FILEFLAGS:fflags}\n]%{ARCH}\n", file).CombinedOutput()
		if text := string(out); err != nil || !strings.Contains(text, "/usr/bin/sluice \n") || !strings.Contains(text, siteFile+" cn\n") || !strings.HasSuffix(text, machine+"\n") {
			t.Errorf("%s: %v\n%s", file, err, out)
		}
	}
	root := t.TempDir()
	if out, err := exec.Command("rpm", "--root", root, "-i", "--nodeps", "--noscripts", filepath.Join(dir, "sluice-0.1.0-1.x86_64.rpm")).CombinedOutput(); err != nil {
		t.Fatalf("rpm: %v\n%s", err, out)
	}
	if out, err := exec.Command(filepath.Join(root, "usr/bin/sluice"), "version").CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "sluice 0.1.0+") {
		t.Errorf("from the .rpm: %v\n%s", err, out)
	}
}

// emulate runs the program of another machine, where there is an emulator: it
// says its version, and knows a good site file from a bad one.
func emulate(t *testing.T, emulator, root string) {
	t.Helper()
	run := func(args ...string) (string, error) {
		out, err := exec.Command(emulator, append([]string{filepath.Join(root, "usr/bin/sluice")}, args...)...).CombinedOutput()
		return string(out), err
	}
	if _, err := exec.LookPath(emulator); err != nil && os.Getenv("CI") == "" {
		t.Log(err)
		return
	}
	if out, err := run("version"); err != nil || !strings.HasPrefix(out, "sluice 0.1.0+") {
		t.Errorf("%s version: %v\n%s", emulator, err, out)
	}
	if out, err := run("check", filepath.Join(root, "usr/share/doc/sluice/examples/demo.yaml")); err != nil {
		t.Errorf("%s check: %v\n%s", emulator, err, out)
	}
	if out, err := run("check", filepath.Join(root, siteFile)); err == nil || !strings.Contains(out, "the site needs a name") {
		t.Errorf("%s check of the site file of the package: %v\n%s", emulator, err, out)
	}
}

// TestTheDemoOfThePackage: the packaged program brings no simulated OPC UA
// server, says so, and shows the rest.
func TestTheDemoOfThePackage(t *testing.T) {
	root := t.TempDir()
	if out, err := exec.Command("dpkg-deb", "-x", filepath.Join(packages(t), "sluice_0.1.0_amd64.deb"), root).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	demo := exec.Command(filepath.Join(root, "usr/bin/sluice"), "demo", "--for", "20s")
	out, err := demo.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := demo.Start(); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan() && !strings.Contains(lines.Text(), " Hz"); { // until the cloud shows the pump
		fmt.Fprintln(&text, lines.Text())
	}
	_ = demo.Process.Kill()
	if err := demo.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("it ended by itself: %v\n%s", err, text.String())
	}
	if !strings.Contains(text.String(), "Left out, since the packaged program brings no simulated OPC UA server: press.") {
		t.Errorf("it does not say what it goes without:\n%s", text.String())
	}
}

func stat(t *testing.T, path string) os.FileInfo {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// plant starts a simulated pump and a broker, and writes the site of them.
func plant(t *testing.T) *twin.Twin {
	t.Helper()
	platform, err := twin.Start(twin.Options{Users: map[string]string{"gate": "g"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(platform.Stop)
	model, found := site.Parse(siteFile, fmt.Appendf(nil, onePump, platform.URL(), "127.0.0.1", "1"), site.Options{})
	if found.Errors() > 0 {
		t.Fatal(found)
	}
	field, simulated, err := sim.Start(model, sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { field.Close() })
	content := fmt.Appendf(nil, onePump, platform.URL(), simulated.Buses[0].Host, simulated.Buses[0].Port)
	if err := os.WriteFile(siteFile, content, 0); err != nil { // it keeps the mode it has
		t.Fatal(err)
	}
	return platform
}

// asService is a command of the installed unit, run as its user, with what
// systemd would give it.
func asService(t *testing.T, key string) *exec.Cmd {
	t.Helper()
	_, line, ok := strings.Cut(read(t, "/usr/lib/systemd/system/sluice.service"), "\n"+key+"=")
	if !ok {
		t.Fatalf("the unit has no %s", key)
	}
	line, _, _ = strings.Cut(line, "\n")
	words := strings.Fields(line)
	account, err := user.Lookup("sluice")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(account.Uid)
	gid, _ := strconv.Atoi(account.Gid)
	credentials, err := os.MkdirTemp("", "credentials")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(credentials) })
	secret := filepath.Join(credentials, "secrets_gate")
	write(t, secret, "g\n")
	for path, mode := range map[string]os.FileMode{credentials: 0o500, secret: 0o400} {
		if err := os.Chown(path, uid, gid); err != nil {
			t.Fatal(err)
		}
		os.Chmod(path, mode)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Dir = "/"
	cmd.Env = []string{"CREDENTIALS_DIRECTORY=" + credentials}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	return cmd
}

// serve runs the daemon until something holds, and for a while longer.
func serve(t *testing.T, until func() bool, longer time.Duration) {
	t.Helper()
	var log strings.Builder
	run := asService(t, "ExecStart")
	run.Stderr = &log
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for time.Sleep(time.Second); !until() && time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
	}
	if !until() {
		t.Error("not within 20 s")
	}
	time.Sleep(longer)
	run.Process.Signal(syscall.SIGTERM)
	if err := run.Wait(); err != nil || t.Failed() {
		t.Fatalf("the daemon: %v\n%s", err, log.String())
	}
}

// waiting is the number of records in the buffer.
func waiting(t *testing.T) int {
	t.Helper()
	b, err := buffer.Open(bufferFile, buffer.Options{MaxSize: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	n := b.Len("gate")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	return n
}
