package main

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestPageFiles: all views are one document, files come again only when they
// have changed, and nothing else is there.
func TestPageFiles(t *testing.T) {
	page := servePage()
	get := func(target, tag string, accept ...string) *httptest.ResponseRecorder {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, target, nil)
		r.Header.Set("If-None-Match", tag)
		r.Header["Accept-Encoding"] = accept
		page.ServeHTTP(w, r)
		return w
	}
	document := get("/", "").Body.String()
	for _, view := range []string{"/explore", "/status", "/cardinality", "/graph?g0.expr=up", "/query?g0.expr=up"} {
		if w := get(view, ""); w.Code != http.StatusOK || w.Body.String() != document {
			t.Errorf("%s: %d", view, w.Code)
		}
	}
	total := 0
	for _, file := range []string{"/page/app.js", "/page/app.css", "/page/icon.svg"} {
		w := get(file, "")
		total += w.Body.Len()
		if w.Code != http.StatusOK || w.Body.Len() == 0 || w.Header().Get("Content-Security-Policy") != pagePolicy {
			t.Errorf("%s: %d, %v", file, w.Code, w.Header())
		}
		if small := get(file, "", "gzip"); w.Body.Len() > 2000 && (small.Header().Get("Content-Encoding") != "gzip" || small.Body.Len() > w.Body.Len()/2) {
			t.Errorf("%s compressed: %d bytes of %d", file, small.Body.Len(), w.Body.Len())
		}
		if again := get(file, w.Header().Get("ETag"), "gzip"); again.Code != http.StatusNotModified || again.Body.Len() != 0 {
			t.Errorf("%s again: %d", file, again.Code)
		}
	}
	if total += len(document); total > 700_000 {
		t.Errorf("the page has %d bytes", total)
	}
	for _, none := range []string{"/page/", "/page/index.html", "/page/package.json", "/page/src", "/page/../page.go"} {
		if w := get(none, ""); w.Code == http.StatusOK && w.Body.String() != document {
			t.Errorf("%s is served", none)
		}
	}
}
