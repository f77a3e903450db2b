package main

import (
	"bytes"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestAccount reads the parts of a server's memory, and prints those of the
// servers that have an account.
func TestAccount(t *testing.T) {
	missing := ""
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := 0
		for _, part := range accountParts {
			for _, name := range part.series {
				if n += 1000; name != missing {
					fmt.Fprintln(w, name, n)
				}
			}
		}
	}))
	defer web.Close()
	s := &server{url: web.URL}
	a := accountOf(t.Context(), s)
	var out bytes.Buffer
	rows := []row{{name: "another", report: writeReport{RSSPerSeries: 99}}, {name: "mcached v1", account: a, report: writeReport{RSSPerSeries: 77}}}
	if err := printAccounts(&out, rows, 100); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if got := strings.Fields(lines[len(lines)-1]); strings.Join(got, " ") != "mcached v1 10 20 30 40 50 60 70 80 190 77" || len(lines) != 3 {
		t.Errorf("it prints\n%s", out.String())
	}
	out.Reset()
	if err := printAccounts(&out, rows[:1], 100); err != nil || out.Len() > 0 {
		t.Errorf("of servers without an account it prints %q, %v", out.String(), err)
	}
	missing = "mcached_series_dead_bytes"
	if older := accountOf(t.Context(), s); !math.IsNaN(older[5]) || older[4] != a[4] {
		t.Errorf("a server that does not tell of %s: %v", missing, older)
	}
}
