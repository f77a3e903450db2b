package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

// TestGraphRedirect follows links to Prometheus' page.
func TestGraphRedirect(t *testing.T) {
	for target, want := range map[string]string{
		"/graph?g0.expr=sum(rate(x%5B5m%5D))%20%2B%201&g0.tab=0&g0.range_input=1h&g1.expr=other": "./?expr=sum%28rate%28x%5B5m%5D%29%29+%2B+1&window=3600#explore",
		"/query?g0.expr=up&g0.show_tree=0":     "./?expr=up#explore",
		"/graph?g0.expr=up&g0.range_input=7h":  "./?expr=up&window=86400#explore",
		"/graph?g0.expr=up&g0.range_input=2w":  "./?expr=up&window=86400#explore",
		"/graph?g0.expr=up&g0.range_input=%0d": "./?expr=up#explore",
		"/graph":                               "./?#explore",
		"/graph?g0.expr=a%0d%0ab%23c%26window": "./?expr=a%0D%0Ab%23c%26window#explore",
	} {
		w := httptest.NewRecorder()
		redirectGraph(w, httptest.NewRequest(http.MethodGet, target, nil))
		if got := w.Header().Get("Location"); got != want || w.Code != http.StatusFound {
			t.Errorf("%s: %d %q, want %q", target, w.Code, got, want)
		}
	}
	page, err := os.ReadFile("page/index.html")
	if err != nil {
		t.Fatal(err)
	}
	for _, seconds := range exploreWindows {
		if !strings.Contains(string(page), fmt.Sprintf(`<option value="%d"`, seconds)) {
			t.Errorf("the page has no window of %d s", seconds)
		}
	}
}
