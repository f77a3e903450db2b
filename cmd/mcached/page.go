package main

import (
	"embed"
	"io/fs"
	"net/http"
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
