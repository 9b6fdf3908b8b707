package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/gateway/web"
)

// TestSiteFileIsShownWithoutSecrets, with its findings as they are now.
func TestSiteFileIsShownWithoutSecrets(t *testing.T) {
	p := newPlant(t)
	p.configure(t, "password: file:gate.txt", "password: hunter2")
	s := runPlant(t, p)
	var c *control
	eventually(t, func() (err error) { c, err = dialControl(t.Context(), s); return err })
	var view siteView
	if err := c.call(t.Context(), http.MethodGet, "/api/site", nil, &view); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(view.Text, "hunter2") || !strings.Contains(view.Text, "password: *******") || view.Changed || len(view.Findings) != 1 || strings.Contains(view.Findings[0].Source, "hunter2") {
		t.Errorf("%+v", view)
	}
	t.Run("a secret goes", func(t *testing.T) { // the gateway is asked for it: this user might not see it
		own := filepath.Join(filepath.Dir(p.path), "own.txt")
		password, err := os.ReadFile(own)
		if err != nil {
			t.Fatal(err)
		}
		if _, errs, err := execute(t, "check", "--quiet", "--secrets", p.path); err != nil {
			t.Errorf("%v\n%s", err, errs)
		}
		if err := os.Remove(own); err != nil {
			t.Fatal(err)
		}
		if _, errs, err := execute(t, "check", "--quiet", "--secrets", p.path); err != errFound || !strings.Contains(errs, "own.txt: no such file") {
			t.Errorf("%v\n%s", err, errs)
		}
		write(t, own, string(password))
	})
	p.configure(t, "poll: 100ms", "pol: 100ms")
	if err := c.call(t.Context(), http.MethodGet, "/api/site", nil, &view); err != nil || !view.Changed || view.Findings.Errors() == 0 || strings.Contains(view.Text, "hunter2") {
		t.Errorf("after a change for the worse: %v %+v", err, view)
	}
	if err := os.Remove(p.path); err != nil {
		t.Fatal(err)
	}
	err := c.call(t.Context(), http.MethodGet, "/api/site", nil, &view)
	if e, ok := err.(*web.Error); !ok || e.Status != http.StatusNotFound {
		t.Errorf("without a file: %v", err)
	}
}
