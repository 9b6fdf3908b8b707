package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/gateway"
	"sluice/gateway/site"
)

func supportCommand() *cobra.Command {
	var path, output string
	cmd := &cobra.Command{
		Use:   "support-bundle --site FILE",
		Short: "Collect what helps to find a fault, without secrets",
		Long: `Support-bundle writes one file to send to who is to help: the site file and what
check says of it, version and build, the last lines of the log, and of a running
gateway its status, events, metrics and buffer. Passwords and keys are taken
out wherever they stand, as far as this user may read them.`,
		Args: onlyFlags,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := collect(cmd.Context(), path)
			if err != nil {
				return err
			}
			if output == "" {
				output = "sluice-support-" + time.Now().UTC().Format("20060102-150405") + ".tar.gz"
			}
			if err := b.write(output); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", output, strings.Join(b.names, ", "))
			return nil
		},
	}
	siteFlag(cmd, &path)
	cmd.Flags().StringVarP(&output, "output", "o", "", "the file to write; default sluice-support-<time>.tar.gz")
	return cmd
}

// bundle is a set of texts to be sent to somebody.
type bundle struct {
	names   []string
	texts   map[string]string
	secrets []string // in every form that they may have
}

func (b *bundle) add(name, text string) {
	b.names = append(b.names, name)
	b.texts[name] = text
}

// collect gathers what there is. Of a site that does not load there is less.
func collect(ctx context.Context, path string) (*bundle, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	b := &bundle{texts: make(map[string]string)}
	s, found := site.Load(path, siteOptions())
	text := site.Conceal(string(content), s)
	if s == nil { // what it means is not known
		text = withoutUnlock(text)
		for i := range found {
			found[i].Source = ""
		}
	}
	b.add("site.yaml", text)
	b.add("version.txt", buildText())
	var checked strings.Builder
	found.Print(&checked)
	b.add("check.txt", checked.String())
	b.add("log.txt", journalText(ctx))
	if s == nil {
		return b, nil
	}
	b.addRunning(ctx, s)
	site.OpenSecrets(s) // one that can't be read is in nothing that this user can read
	b.secrets = secretForms(s)
	return b, nil
}

// addRunning adds what the gateway says of itself, or why it says nothing.
func (b *bundle) addRunning(ctx context.Context, s *gateway.Site) {
	c, err := dialControl(ctx, s)
	if err != nil {
		b.add("status.txt", err.Error()+"\n")
		if errors.Is(err, errNoGateway) {
			err = withBufferFile(s, io.Discard, func(c *control) error { return b.ask(ctx, c, "/api/buffer", "buffer.json") })
		}
		if err != nil {
			b.add("buffer.txt", err.Error()+"\n")
		}
		return
	}
	for _, q := range [][2]string{
		{"/api/status", "status.json"}, {"/api/points", "points.json"}, {"/api/events", "events.json"}, {"/api/buffer", "buffer.json"},
		{"/metrics", "metrics.txt"}, {"/healthz", "healthz.json"}, {"/readyz", "readyz.json"},
	} {
		if err := b.ask(ctx, c, q[0], q[1]); err != nil {
			b.add(q[1], err.Error()+"\n")
		}
	}
}

// ask adds an answer of the gateway, JSON with line breaks.
func (b *bundle) ask(ctx context.Context, c *control, path, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	answer, err := c.open(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer answer.Close()
	content, err := io.ReadAll(io.LimitReader(answer, 64<<20))
	if err != nil {
		return err
	}
	var pretty bytes.Buffer
	if json.Indent(&pretty, content, "", "  ") == nil {
		content = pretty.Bytes()
	}
	b.add(name, string(content))
	return nil
}

func buildText() string {
	text := fmt.Sprintf("sluice %s, %s on %s/%s, %s\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH, time.Now().UTC().Format(time.RFC3339))
	if release, err := os.ReadFile("/proc/version"); err == nil {
		text += string(release)
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		text += "\n" + info.String()
	}
	return text
}

// journalText is the end of the service's log, where this user may read it.
func journalText(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "journalctl", "--unit", "sluice", "--lines", "5000", "--no-pager", "--output", "short-iso").CombinedOutput()
	if err != nil {
		out = fmt.Appendf(out, "journalctl: %v\n", err)
	}
	return string(out)
}

// withoutUnlock takes out of the text of a site file what stands under unlock:
// the codes there have no key that would tell them from other numbers.
func withoutUnlock(text string) string {
	lines := strings.Split(text, "\n")
	indent := func(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }
	below := -1
	for i, line := range lines {
		if below >= 0 && (strings.TrimSpace(line) == "" || indent(line) > below) {
			lines[i] = "***"
			continue
		}
		below = -1
		if before, _, ok := strings.Cut(line, "unlock:"); ok {
			lines[i], below = before+"unlock: ***", indent(line)
		}
	}
	return strings.Join(lines, "\n")
}

// secretForms are the secrets of a site, opened, as texts may hold them: as they
// are, as a part of an address, in JSON, or as base64. The longest come first,
// since one may hold another.
func secretForms(s *gateway.Site) []string {
	var forms []string
	for _, secret := range site.Secrets(s) {
		for _, line := range append(strings.Split(secret, "\n"), secret) { // a key has many lines
			if len(line) < shortestSecret {
				continue
			}
			inJSON, _ := json.Marshal(line) // a string always has a form
			inLog := strconv.Quote(line)
			forms = append(forms, line, url.QueryEscape(line), url.PathEscape(line), url.UserPassword("", line).String()[1:], string(inJSON[1:len(inJSON)-1]), inLog[1:len(inLog)-1],
				base64.StdEncoding.EncodeToString([]byte(line)), base64.URLEncoding.EncodeToString([]byte(line)))
		}
	}
	slices.SortFunc(forms, func(a, b string) int { return len(b) - len(a) })
	return slices.Compact(forms)
}

// shortestSecret: what is shorter stands in any text by chance.
const shortestSecret = 4

var passwordInURL = regexp.MustCompile(`(://[^/\s:@]*):[^/\s@]+@`)

// clean takes the secrets out of a text.
func (b *bundle) clean(text string) string {
	for _, form := range b.secrets {
		text = strings.ReplaceAll(text, form, "***")
	}
	return passwordInURL.ReplaceAllString(text, "$1:***@")
}

// write makes the file, for this user's eyes only.
func (b *bundle) write(path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	zipped := gzip.NewWriter(f)
	archive := tar.NewWriter(zipped)
	for _, name := range b.names {
		text := b.clean(b.texts[name])
		head := &tar.Header{Name: "sluice-support/" + name, Mode: 0o600, Size: int64(len(text)), ModTime: time.Now()}
		if err := archive.WriteHeader(head); err != nil {
			return err
		}
		if _, err := io.WriteString(archive, text); err != nil {
			return err
		}
	}
	return errors.Join(archive.Close(), zipped.Close())
}
