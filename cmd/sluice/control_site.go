package main

import (
	"bytes"
	"net/http"
	"os"
	"slices"
	"sync"

	"sluice/gateway"
	"sluice/gateway/site"
	"sluice/gateway/web"
)

// siteView is the site file as it is on disk, with what a reload would find in it.
type siteView struct {
	File     string           `json:"file"`
	Text     string           `json:"text"`    // without secrets
	Changed  bool             `json:"changed"` // since the gateway read it
	Findings site.Diagnostics `json:"findings"`
}

// siteAPI shows the site file. A check takes a while, so that it is made only
// when the file has changed.
type siteAPI struct {
	path  string
	begun []byte // its content when the gateway read it

	mu    sync.Mutex
	known []byte
	site  *gateway.Site
	view  siteView // without what is wrong with secrets, which may change any time
}

func newSiteAPI(s *gateway.Site) *siteAPI {
	api := &siteAPI{path: s.Path}
	api.begun, _ = os.ReadFile(s.Path) // asked for again when it is shown
	return api
}

func (api *siteAPI) show(*http.Request) (any, error) {
	api.mu.Lock()
	defer api.mu.Unlock()
	content, err := os.ReadFile(api.path)
	if err != nil {
		return nil, &web.Error{Status: http.StatusNotFound, Text: "read the site file: " + err.Error()}
	}
	if api.known == nil || !bytes.Equal(content, api.known) {
		s, found := site.Load(api.path, siteOptions())
		if found == nil {
			found = site.Diagnostics{}
		}
		api.known, api.site = content, s
		api.view = siteView{File: api.path, Text: site.Conceal(string(content), s), Changed: !bytes.Equal(content, api.begun), Findings: found}
	}
	view := api.view
	if view.Findings.Errors() == 0 {
		view.Findings = append(slices.Clone(view.Findings), site.OpenSecrets(api.site)...) // never nil: the page walks through it
	}
	return view, nil
}
