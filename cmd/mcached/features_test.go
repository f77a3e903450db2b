package main

import (
	"slices"
	"strings"
	"testing"

	"mcached/mcache/query"
)

// TestFeatures reads --enable-feature as Prometheus does: lists, repeated, and
// unknown names are only warned of.
func TestFeatures(t *testing.T) {
	c, err := parseConfig([]string{"--enable-feature=promql-experimental-functions,no-such-thing", "--enable-feature=exemplar-storage, use-start-timestamps", "--enable-feature="})
	if err != nil {
		t.Fatal(err)
	}
	f, warnings := c.enableFeatures.features()
	if want := (query.Features{ExperimentalFunctions: true, UseStartTimestamps: true}); f != want {
		t.Errorf("%+v, want %+v", f, want)
	}
	if len(warnings) != 2 || !strings.HasPrefix(warnings[0], "Unknown option for --enable-feature: no-such-thing;") || !strings.HasPrefix(warnings[1], "--enable-feature=exemplar-storage concerns") {
		t.Errorf("warnings %q", warnings)
	}
	if all := c.warnings(nil, 0); !slices.Equal(all, warnings) {
		t.Errorf("check-config says %q", all)
	}
	if got := c.flags["enable-feature"]; got != "promql-experimental-functions,no-such-thing,exemplar-storage,use-start-timestamps" {
		t.Errorf("the API shows %q", got)
	}
}
