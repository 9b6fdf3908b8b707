package web

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"path"
	"regexp"
	"strings"
	"testing"

	"sluice/gateway"
)

// TestVendoredFilesAreAsPublished: each has its source, its checksum and its
// licence beside it.
func TestVendoredFilesAreAsPublished(t *testing.T) {
	sources, err := assets.ReadFile("assets/vendor/SOURCES.txt")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := fs.ReadDir(assets, "assets/vendor")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".txt") {
			continue
		}
		content, err := assets.ReadFile("assets/vendor/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(content)
		found := regexp.MustCompile(regexp.QuoteMeta(e.Name()) + `\n  .*, (\S+-LICENSE.txt)\n  https://\S+ \S+\n  sha256 ` + hex.EncodeToString(sum[:])).FindStringSubmatch(string(sources))
		if found == nil {
			t.Errorf("%s is not what SOURCES.txt says", e.Name())
			continue
		}
		if _, err := assets.ReadFile("assets/vendor/" + found[1]); err != nil {
			t.Errorf("%s has no licence: %v", e.Name(), err)
		}
	}
}

// TestPageLoadsNothingFromElsewhere: what its files name is served, and nothing
// in them leads to another host.
func TestPageLoadsNothingFromElsewhere(t *testing.T) {
	r := newRig(t, gateway.Local{}, nil)
	named := regexp.MustCompile(`(?:src|href)="(/[^"]+)"|from '(\./[^']+)'`)
	elsewhere := regexp.MustCompile(`https?://[^'"\s]*`)
	err := fs.WalkDir(assets, "assets", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.Contains(name, "/vendor/") {
			return err
		}
		content, err := assets.ReadFile(name)
		if err != nil {
			return err
		}
		for _, match := range named.FindAllStringSubmatch(string(content), -1) {
			target := match[1] + path.Join("/assets", match[2])
			if match[1] != "" {
				target = match[1]
			}
			if status, _, h := r.ask(t, "GET", target, ""); status != 200 || h.Get("Content-Type") == "" {
				t.Errorf("%s names %s: status %d, type %q", name, target, status, h.Get("Content-Type"))
			}
		}
		for _, url := range elsewhere.FindAllString(string(content), -1) {
			if url != "http://www.w3.org/2000/svg" {
				t.Errorf("%s names %s", name, url)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	_, _, h := r.ask(t, "GET", "/assets/app.js", "")
	if status, body, _ := r.ask(t, "GET", "/assets/app.js", "", "If-None-Match: "+h.Get("ETag")); status != 304 || body != "" {
		t.Errorf("asked for with its tag: %d", status)
	}
}
