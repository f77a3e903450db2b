package main

import (
	"strings"
	"testing"
	"time"
)

// TestClusterClocks: of a member whose clock differs that is said, and it has been up for
// as long as it has by the clock of who asks; never for less than nothing.
func TestClusterClocks(t *testing.T) {
	now := time.UnixMilli(1_796_000_000_000)
	began := float64(now.Add(-time.Hour).UnixMilli()) / 1000
	n := clusterNews{Members: []memberNews{
		{Name: "right", Started: began, Lag: -1, RTT: -1, Clock: 0.2},
		{Name: "ahead", Started: began + 86_400, Lag: -1, RTT: -1, Clock: 86_400},
		{Name: "behind", Started: began - 90, Lag: -1, RTT: -1, Clock: -90},
		{Name: "set", Started: began + 86_400, Lag: -1, RTT: -1},
	}}
	var out strings.Builder
	if err := n.write(&out, now); err != nil {
		t.Fatal(err)
	}
	want := map[string][2]string{"right": {"", "1h0m0s"}, "ahead": {", clock +86400 s", "1h0m0s"}, "behind": {", clock -90 s", "1h0m0s"}, "set": {"", "0s"}}
	seen := 0
	for line := range strings.Lines(out.String()) {
		name, _, _ := strings.Cut(line, " ")
		if w, ok := want[name]; ok {
			seen++
			if !strings.Contains(line, w[0]) || !strings.HasSuffix(strings.TrimSpace(line), " "+w[1]) || strings.Contains(line, "clock") != strings.Contains(w[0], "clock") {
				t.Errorf("%q, want %q", line, w)
			}
		}
	}
	if seen != len(want) {
		t.Errorf("%d members of %d in\n%s", seen, len(want), out.String())
	}
}
