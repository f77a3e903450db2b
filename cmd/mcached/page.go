package main

import (
	"embed"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
)

// pageFiles are the status page: plain HTML, CSS and JavaScript, with nothing
// fetched from anywhere else. Its data come through the query API, so that it
// can show nothing that its reader could not ask for.
//
//go:embed page
var pageFiles embed.FS

// pagePolicy keeps whatever got into a label or a key from being run.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// servePage answers "/" and what the page refers to.
func servePage() http.Handler {
	files := http.FileServerFS(pageFiles)
	page, err := fs.ReadFile(pageFiles, "page/index.html")
	if err != nil {
		panic(err) // it is part of the program
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", pagePolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache")
		if r.URL.Path == "/" {
			h.Set("Content-Type", "text/html; charset=utf-8")
			_, _ = w.Write(page) // a reader who has gone needs no answer
			return
		}
		files.ServeHTTP(w, r)
	})
}

// exploreWindows are the times, in seconds, that the page can look back.
var exploreWindows = []int{300, 900, 3600, 21600, 86400}

// redirectGraph sends links to Prometheus' own page, which alerts and chats are
// full of, to the explore part of ours. Of several graphs it takes the first.
func redirectGraph(w http.ResponseWriter, r *http.Request) {
	given := r.URL.Query()
	to := url.Values{}
	if expr := given.Get("g0.expr"); expr != "" {
		to.Set("expr", expr)
		if d, err := model.ParseDuration(given.Get("g0.range_input")); err == nil {
			to.Set("window", strconv.Itoa(exploreWindow(time.Duration(d))))
		}
	}
	// Relative, so that it also holds behind a proxy that serves us under a path.
	w.Header().Set("Location", "./?"+to.Encode()+"#explore")
	w.WriteHeader(http.StatusFound)
}

// exploreWindow is the shortest window that shows all of d, or the longest.
func exploreWindow(d time.Duration) int {
	for _, seconds := range exploreWindows {
		if d <= time.Duration(seconds)*time.Second {
			return seconds
		}
	}
	return exploreWindows[len(exploreWindows)-1]
}
