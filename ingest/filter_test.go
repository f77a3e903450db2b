package ingest

import (
	"fmt"
	"strings"
	"testing"

	"mcached/mcache"
)

// TestLongFilterLists: a list is as long as a command can be. Its values in turn
// would be compared for minutes, once with each other and once for each series.
func TestLongFilterLists(t *testing.T) {
	var b strings.Builder
	b.WriteString("l=(z,a")
	for i := range 500_000 {
		fmt.Fprint(&b, ",v", i*7919%250_000)
	}
	b.WriteString(",last)")
	f, ok := parseFilter([]byte(b.String()))
	if !ok || len(f.set) != 250_003 {
		t.Fatalf("%t, %d values", ok, len(f.set))
	}
	m := f.matcher()
	for i := range 250_000 {
		if v := fmt.Sprint("v", i); !m.Matches(v) || !f.matches([]mcache.Label{{Name: "l", Value: v}}) {
			t.Fatalf("%s is not found", v)
		}
	}
	for value, want := range map[string]bool{"z": true, "a": true, "last": true, "v": false, "v250000": false, "": false} {
		if m.Matches(value) != want || f.matches([]mcache.Label{{Name: "l", Value: value}}) != want {
			t.Errorf("%q is found: %t", value, !want)
		}
	}
}

// TestManyFilters: there is a bound, and it is said.
func TestManyFilters(t *testing.T) {
	args := make([][]byte, maxFilters)
	for i := range args {
		args[i] = []byte("l=v")
	}
	if fs, problem := parseFilters(args); len(fs) != maxFilters || problem != "" {
		t.Errorf("%d filters, %q", len(fs), problem)
	}
	if _, problem := parseFilters(append(args, []byte("l=v"))); problem != "1025 filters are too many, the limit is 1024, which no setting changes" {
		t.Error(problem)
	}
}
