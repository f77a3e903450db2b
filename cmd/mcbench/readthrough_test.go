package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// TestReadthrough runs it small, with whichever Prometheus is installed: what
// that splits is answered by both, and nothing differs from what it says alone.
func TestReadthrough(t *testing.T) {
	binary := daemonBinary(t, peers("")[1].binary)
	t.Parallel()
	var out bytes.Buffer
	args := []string{"readthrough", "--mcached", binary, "--series", "20", "--long", "6h", "--looks", "1"}
	if err := run(t.Context(), args, &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	_, table, _ := strings.Cut(out.String(), "\n\n")
	rows := strings.Split(strings.TrimSpace(table), "\n")[1:]
	// Five rows of each of four expressions. A Prometheus before 3 splits no rate.
	n := map[string]int{}
	for _, r := range rows {
		switch fields := strings.Fields(r); {
		case strings.Contains(r, "not split with this store"):
			n["whole"]++
		case !strings.HasSuffix(r, "the same") && fields[len(fields)-1] != "-":
			t.Errorf("answers differ: %s", r)
		case strings.Contains(r, "  both  "):
			n["both"]++
		case strings.Contains(r, "  memory  "):
			n["memory"]++
		}
	}
	split := strings.Contains(out.String(), "range queries are split between memory and it")
	if want := map[bool]int{true: 0, false: 4}[split]; len(rows) != 20 || n["whole"] != want || n["memory"] != 4 || n["both"] < 8 {
		t.Errorf("it prints\n%s%v", &out, n)
	}
}

func TestReadthroughRefuses(t *testing.T) {
	for _, args := range [][]string{{"--series", "0"}, {"--held", "1h"}, {"--long", "4h"}, {"--long", "200h"}, {"--looks", "0"}, {"--mcached", "/nonexistent"}} {
		if err := run(t.Context(), append([]string{"readthrough"}, args...), new(bytes.Buffer)); err == nil {
			t.Errorf("readthrough %v: no error", args)
		}
	}
}

// TestWeek: whoever asks for the end of the data gets the same as who asks for all.
func TestWeek(t *testing.T) {
	k := week{series: 7, long: 3 * time.Hour, held: 2 * time.Hour, endMs: 1795208700000}
	all := map[int64][]float64{}
	_ = k.each(k.long, func(at int64, values []float64) error { all[at] = append([]float64(nil), values...); return nil })
	n := 0
	_ = k.each(k.held, func(at int64, values []float64) error {
		for i, v := range values {
			if all[at][i] != v || v < 0 {
				t.Errorf("%v at %d, and %v", v, at, all[at][i])
			}
		}
		n++
		return nil
	})
	if len(all) != 181 || n != 121 {
		t.Errorf("%d minutes, and %d", len(all), n)
	}
	b, err := k.snapshot()
	if err != nil || len(b) == 0 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}
