package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What the neighbour takes at once, and what would be left for it if the daemon
// gave nothing: so that the kernel kills nobody, whatever the daemon does.
const (
	neighbourLimit = 640 << 20
	neighbourTake  = "104MiB"
	neighbourLeave = "32MiB"
	neighbourSlack = 48 << 20 // the heaps of two programs come and go
)

// TestE2ENeighbour runs mcbench neighbour in a control group: a daemon that is
// full and under load gives what a neighbour takes at once, and little more, and
// answers everything meanwhile.
func TestE2ENeighbour(t *testing.T) {
	if testing.Short() {
		t.Skip("builds mcbench, and measures for ten seconds")
	}
	t.Parallel()
	within := memoryGroup(t, neighbourLimit)
	s := startServerBy(t, within, "--memory.size=0", "--memory.keep-available=128MiB", "--memory.heap-limit=64MiB", "--self-scrape.interval=1s")
	mcbench := filepath.Join(t.TempDir(), "mcbench")
	if out, err := goBuild(mcbench, "./cmd/mcbench"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	line := append(within, mcbench, "neighbour", "--json", "--url="+s.url, "--address="+s.resp, fmt.Sprintf("--pid=%d", s.cmd.Process.Pid),
		"--take="+neighbourTake, "--hold=352MiB", "--leave="+neighbourLeave, "--rate=20000", "--series=5000", "--before=1s", "--after=3s")
	out, err := exec.CommandContext(t.Context(), line[0], line[1:]...).Output()
	if err != nil {
		var stderr []byte
		if e, ok := err.(*exec.ExitError); ok {
			stderr = e.Stderr
		}
		t.Fatalf("%v: %s", err, stderr)
	}
	s.alive()
	var r struct {
		Floor    int64  `json:"floor_bytes"`
		Held     int64  `json:"held_bytes"`
		Released int64  `json:"released_bytes"`
		Expected int64  `json:"expected_bytes"`
		End      int64  `json:"end_available_bytes"`
		Writes   int    `json:"writes"`
		Refused  int    `json:"writes_refused"`
		Sets     int    `json:"sets"`
		Gets     int    `json:"gets"`
		Failed   int    `json:"failed"`
		Failure  string `json:"first_failure"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%s", out)
	if r.Writes == 0 || r.Sets == 0 || r.Gets == 0 || r.Released == 0 || r.Expected < 32<<20 {
		t.Error("nothing was measured")
	}
	if r.Refused+r.Failed > 0 {
		t.Errorf("%d writes were refused and %d requests failed: %s", r.Refused, r.Failed, r.Failure)
	}
	if most := r.Expected + r.Floor/4 + neighbourSlack; r.Released > most {
		t.Errorf("%d MiB of %d were released, at most %d are reasonable", r.Released>>20, r.Held>>20, most>>20)
	} else if r.Held < most {
		t.Errorf("%d MiB were held, so that %d could not be too much", r.Held>>20, r.Released>>20)
	}
	if r.End < r.Floor-neighbourSlack {
		t.Errorf("%d MiB are available in the end, the floor is %d", r.End>>20, r.Floor>>20)
	}
}

// TestE2ELeast takes nearly all memory away from a daemon at once, so that the
// index of what it holds does not fit: it takes what is written, from all doors.
func TestE2ELeast(t *testing.T) {
	t.Parallel()
	series, size := 200_000, "256MiB"
	if testing.Short() {
		series, size = series/4, "64MiB"
	}
	s := startServer(t, "--memory.size="+size, "--self-scrape.interval=0")
	c := s.redis()
	const perRequest = 5_000
	value := strings.Repeat("x", 4000)
	round := func() {
		t.Helper()
		for from := 0; from < series; from += perRequest {
			code, said, err := s.post(t.Context(), numbered(t, "least", from, perRequest))
			if err != nil || code != http.StatusNoContent {
				t.Fatalf("remote write: %d %s, %v", code, said, err)
			}
			if err := c.Set(t.Context(), fmt.Sprint("k", from), value, 0).Err(); err != nil {
				t.Fatalf("SET: %v", err)
			}
		}
	}
	round()
	index := s.metric("mcached_memory_used_bytes")
	err := c.ConfigSet(t.Context(), "maxmemory", "1mb").Err()
	if err == nil || !strings.Contains(err.Error(), "least size") {
		t.Fatalf("less than the least passes: %v", err)
	}
	var least int64
	if _, after, ok := strings.Cut(err.Error(), "the least size is "); !ok {
		t.Fatal(err)
	} else if _, err := fmt.Sscan(after, &least); err != nil {
		t.Fatal(err)
	}
	if err := c.ConfigSet(t.Context(), "maxmemory", fmt.Sprint(least)).Err(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		round()
	}
	used, held := s.metric("mcached_memory_used_bytes"), s.metric(`mcached_series{bucket="default"}`)
	t.Logf("%.0f MiB held %d series; the least, %d MiB, holds %.0f", index/(1<<20), series, least>>20, held)
	if used > float64(least) || index < float64(least) || held >= float64(series) || held < float64(series)/60 {
		t.Errorf("%v bytes used of %d, by %v series", used, least, held)
	}
}
