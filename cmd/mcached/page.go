package main

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
)

// pageFiles are the page: one document for all of its views, one script and one
// style, with nothing fetched from anywhere else. Script and style are bundled
// from page/src and style.css by `make page`; CI bundles them again and compares.
// Its data come through the query API, so that it can show nothing that its reader
// could not ask for.
//
//go:embed page/index.html page/icon.svg page/app.js page/app.css
var pageFiles embed.FS

// pagePolicy keeps whatever got into a label or a key from being run.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// pageViews are the paths of the document: its script tells the views apart.
var pageViews = []string{"GET /{$}", "GET /explore", "GET /status", "GET /cardinality"}

// prometheusViews are the paths of Prometheus' own page, until 3.0 and since, which
// links in alerts and chats lead to: its parameters are those of the explore view.
var prometheusViews = []string{"GET /graph", "GET /query"}

// redirectToExplore answers prometheusViews. The place is relative, so that it holds
// behind a proxy that takes a prefix away, which http.Redirect would not let it be.
func redirectToExplore(w http.ResponseWriter, r *http.Request) {
	to := "explore"
	if r.URL.RawQuery != "" {
		to += "?" + r.URL.RawQuery
	}
	w.Header().Set("Location", to)
	w.Header().Set("Cache-Control", "no-cache")
	w.WriteHeader(http.StatusFound)
}

// servePage answers pageViews and what the page refers to.
func servePage() http.Handler {
	document := pageFile("page/index.html")
	files := map[string]http.HandlerFunc{}
	for _, name := range []string{"icon.svg", "app.js", "app.css"} {
		files["/page/"+name] = pageFile("page/" + name)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", pagePolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache") // ask each time: the tag says whether there is another version
		serve := document
		if path.Dir(r.URL.Path) == "/page" {
			if serve = files[r.URL.Path]; serve == nil {
				http.NotFound(w, r)
				return
			}
		}
		serve(w, r)
	})
}

// pageFile serves one file under a tag of its content, a weak one: the file is the
// same however it is compressed. It is compressed for whoever accepts that, once. (What
// klauspost's gzhttp has beside is 0.4 MB of the binary.)
func pageFile(name string) http.HandlerFunc {
	b, err := pageFiles.ReadFile(name)
	if err != nil {
		panic(err) // it is part of the program
	}
	sum := sha256.Sum256(b)
	tag := `W/"` + hex.EncodeToString(sum[:16]) + `"`
	compressed := sync.OnceValue(func() []byte {
		var to bytes.Buffer
		w := gzip.NewWriter(&to)
		_, _ = w.Write(b) // to memory
		_ = w.Close()
		return to.Bytes()
	})
	return func(w http.ResponseWriter, r *http.Request) {
		content := b
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			content = compressed()
			w.Header().Set("Content-Encoding", "gzip")
		}
		w.Header().Set("Vary", "Accept-Encoding")
		w.Header().Set("ETag", tag)
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(content))
	}
}
