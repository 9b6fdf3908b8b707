package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strings"
)

// assets are the page: it is not built, and loads nothing from elsewhere.
//
//go:embed assets
var assets embed.FS

// kinds are the content types of assets; what the machine's own table says may
// be anything.
var kinds = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
	".webmanifest": "application/manifest+json", ".txt": "text/plain; charset=utf-8",
}

// assetServer serves the files of assets. They stay in the program file, whose
// pages the system takes back.
func assetServer() http.Handler {
	tags := make(map[string]string)
	_ = fs.WalkDir(assets, "assets", func(name string, entry fs.DirEntry, err error) error { // an embedded file can be read
		if err == nil && !entry.IsDir() {
			content, _ := assets.ReadFile(name)
			sum := sha256.Sum256(content)
			tags["/"+name] = `"` + hex.EncodeToString(sum[:8]) + `"`
		}
		return err
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tag, ok := tags[r.URL.Path]
		if !ok {
			refuse(http.StatusNotFound, "there is no "+r.URL.Path).ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", kinds[path.Ext(r.URL.Path)])
		w.Header().Set("Cache-Control", "no-cache") // asked for with its tag each time: an update shows at once
		w.Header().Set("ETag", tag)
		if strings.Contains(r.Header.Get("If-None-Match"), tag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		content, _ := assets.ReadFile(strings.TrimPrefix(r.URL.Path, "/"))
		_, _ = w.Write(content) // nobody is left to hear of an error
	})
}

// index is the page itself.
func index(w http.ResponseWriter, _ *http.Request) {
	content, _ := assets.ReadFile("assets/index.html") // it is embedded
	w.Header().Set("Content-Type", kinds[".html"])
	w.Header().Set("Cache-Control", "no-cache")
	_, _ = w.Write(content) // nobody is left to hear of an error
}
