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

// assetServer serves the files of assets.
func assetServer() http.Handler {
	type file struct {
		content []byte
		tag     string
	}
	files := make(map[string]file)
	_ = fs.WalkDir(assets, "assets", func(name string, entry fs.DirEntry, err error) error { // an embedded file can be read
		if err == nil && !entry.IsDir() {
			content, _ := assets.ReadFile(name)
			sum := sha256.Sum256(content)
			files["/"+name] = file{content, `"` + hex.EncodeToString(sum[:8]) + `"`}
		}
		return err
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, ok := files[r.URL.Path]
		if !ok {
			refuse(http.StatusNotFound, "there is no "+r.URL.Path).ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", kinds[path.Ext(r.URL.Path)])
		w.Header().Set("Cache-Control", "no-cache") // asked for with its tag each time: an update shows at once
		w.Header().Set("ETag", f.tag)
		if strings.Contains(r.Header.Get("If-None-Match"), f.tag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write(f.content) // nobody is left to hear of an error
	})
}

// index is the page itself.
func index(w http.ResponseWriter, _ *http.Request) {
	content, _ := assets.ReadFile("assets/index.html") // it is embedded
	w.Header().Set("Content-Type", kinds[".html"])
	w.Header().Set("Cache-Control", "no-cache")
	_, _ = w.Write(content) // nobody is left to hear of an error
}
