package main

import (
	"math"
	"strconv"
	"testing"
	"time"
)

// readingOf makes a reading of series, each a metric, a label of it or none, and a value.
func readingOf(at float64, rows ...[4]string) *reading {
	r := &reading{at: at, start: at - 3600}
	for _, row := range rows {
		labels := map[string]string{"__name__": row[0]}
		if row[1] != "" {
			labels[row[1]] = row[2]
		}
		r.series = append(r.series, series{Metric: labels, Value: point{at, row[3]}})
	}
	return r
}

// TestStatsBytes: what a sample takes is shown where that means something.
func TestStatsBytes(t *testing.T) {
	load := func(sealed, series int) *reading {
		return readingOf(1e9,
			[4]string{"mcached_series_part_points", "part", "heads", "5000"}, [4]string{"mcached_series_part_points", "part", "blocks", strconv.Itoa(sealed)},
			[4]string{"mcached_series_bytes", "part", "heads", "80000"}, [4]string{"mcached_series_bytes", "part", "blocks", strconv.Itoa(sealed + sealed/4)},
			[4]string{"mcached_series_bytes", "part", "directories", strconv.Itoa(sealed / 4)}, [4]string{"mcached_series_points", "generation", "1", strconv.Itoa(sealed + 5000)},
			[4]string{"mcached_series", "bucket", "default", strconv.Itoa(series)})
	}
	for _, c := range []struct {
		sealed, series     int
		marginal, included string // empty: not shown
	}{
		{0, 1000, "", ""}, {minSealed - 1, 1000, "", ""}, {10_000, 1000, "1.5", ""}, {95_000, 1000, "1.5", "2.225"}, {0, 0, "", ""},
	} {
		r := load(c.sealed, c.series)
		for _, row := range []struct {
			lines []summaryLine
			want  string
		}{{r.marginal(), c.marginal}, {r.perSample(), c.included}} {
			if got := textsOf(row.lines); got != row.want {
				t.Errorf("%d sealed samples of %d series: %q, want %q", c.sealed, c.series, got, row.want)
			}
		}
	}
}

// TestStatsAvailable: what a control group has available is not said of the machine.
func TestStatsAvailable(t *testing.T) {
	const metric = "mcached_pressure_available_bytes"
	for limit, what := range map[string]string{"node": "", "sys/fs/cgroup/a": "available in the control group"} {
		lines := readingOf(1e9, [4]string{metric, "limit", limit, "1048576"}).available()
		if len(lines) != 1 || lines[0] != (summaryLine{what, "1 MiB"}) {
			t.Errorf("%s: %+v", limit, lines)
		}
	}
	if lines := readingOf(1e9).available(); lines != nil {
		t.Errorf("of a fixed size: %+v", lines)
	}
}

// TestStatsCoverage: each bucket says since when it is complete, the daemon's own not.
func TestStatsCoverage(t *testing.T) {
	at := float64(time.Date(2026, 11, 28, 12, 0, 0, 0, time.Local).Unix())
	const from, gaps = "mcached_bucket_covered_from_timestamp_seconds", "mcached_bucket_coverage_gaps"
	begun := strconv.FormatFloat(at-90*60, 'f', -1, 64)
	r := readingOf(at, [4]string{from, "bucket", "default", begun}, [4]string{from, "bucket", selfBucket, begun}, [4]string{from, "bucket", "team", begun},
		[4]string{gaps, "bucket", "default", "0"}, [4]string{gaps, "bucket", "team", "2"})
	lines := r.coverage()
	if len(lines) != 2 || lines[0] != (summaryLine{"", "2026-11-28 10:30:00 (1h30m0s)"}) || lines[1] != (summaryLine{"complete since, team", "2026-11-28 10:30:00 (1h30m0s), before that 2 gaps"}) {
		t.Errorf("%+v", lines)
	}
	var many [][4]string
	for i := range 100 {
		many = append(many, [4]string{from, "bucket", strconv.Itoa(i), begun})
	}
	if lines := readingOf(at, many...).coverage(); len(lines) != maxCoverage+1 {
		t.Errorf("%d lines for 100 buckets", len(lines))
	}
}

// TestStatsSources: where there is a store to ask, it is said how much it was asked.
func TestStatsSources(t *testing.T) {
	const steps = "mcached_upstream_steps_total"
	for want, values := range map[string][2]string{"": {"0", "0"}, "memory 100.0 %, upstream 0.0 %": {"7", "0"}, "memory 97.5 %, upstream 2.5 %": {"390", "10"}} {
		if got := textsOf(readingOf(1e9, [4]string{steps, "source", "memory", values[0]}, [4]string{steps, "source", "upstream", values[1]}).sources()); got != want {
			t.Errorf("%v: %q, want %q", values, got, want)
		}
	}
	if got := textsOf(readingOf(1e9).sources()); got != "" {
		t.Errorf("of nothing: %q", got)
	}
	if got := since(math.Copysign(5, -1)); got != "0s" {
		t.Errorf("a clock that was set back: %s", got)
	}
}

func textsOf(lines []summaryLine) (s string) {
	for _, l := range lines {
		s += l.text
	}
	return s
}
