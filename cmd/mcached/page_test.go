package main

import (
	"net/http"
	"net/http/httptest"
	"net/url"
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
	for _, view := range []string{"/explore", "/status", "/cardinality"} {
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
		if small := get(file, "", "gzip"); small.Header().Get("Content-Encoding") != "gzip" || small.Body.Len() >= w.Body.Len() {
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

// TestPrometheusLinks: links of Prometheus' page lead to the explore view, with all
// that they say, also behind a proxy that takes a prefix away.
func TestPrometheusLinks(t *testing.T) {
	for link, want := range map[string]string{
		"/graph":                          "explore",
		"/graph?g0.expr=up&g0.tab=1":      "explore?g0.expr=up&g0.tab=1",
		"/query?g0.expr=a%20%2B+b%0d%0aX": "explore?g0.expr=a%20%2B+b%0d%0aX",
	} {
		w := httptest.NewRecorder()
		redirectToExplore(w, httptest.NewRequest(http.MethodGet, link, nil))
		to, err := url.Parse(w.Header().Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		if w.Code != http.StatusFound || to.String() != want {
			t.Errorf("%s: %d to %s, want %s", link, w.Code, to, want)
		}
		from, _ := url.Parse("http://proxy/cache/one" + link)
		if at := from.ResolveReference(to); at.Path != "/cache/one/explore" {
			t.Errorf("%s behind a prefix leads to %s", link, at)
		}
	}
}
