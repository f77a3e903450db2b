package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"mcached/kvcache"
	"mcached/mcache"
	"mcached/mcache/block/mix"
)

// The rule of docs/memory.md: what a series of about 200 bytes of labels takes.
const (
	bytesOfSeries = 750
	bytesOfSample = 1.35
)

func ruleBytes(series, samples int) float64 {
	return float64(series) * (bytesOfSeries + bytesOfSample*float64(samples))
}

// TestDocumentsSizing measures whether the rule holds, and keeps the table of the
// document what the rule says.
func TestDocumentsSizing(t *testing.T) {
	var table strings.Builder
	table.WriteString("| series | 15 s, 1 hour | 15 s, 6 hours | 15 s, 24 hours | 30 s, 24 hours | 60 s, 24 hours |\n|---|---|---|---|---|---|\n")
	for _, series := range []int{10_000, 100_000, 500_000, 1_000_000, 5_000_000} {
		fmt.Fprintf(&table, "| %s", thousands(series))
		for _, samples := range []int{240, 1440, 5760, 2880, 1440} {
			fmt.Fprintf(&table, " | %s", roughly(ruleBytes(series, samples)))
		}
		table.WriteString(" |\n")
	}
	holdDocument(t, "memory.md", "sizing", table.String())

	if testing.Short() {
		t.Skip("the rule is not measured in short tests: it takes 40 million samples")
	}
	for _, load := range []struct{ series, samples int }{{40_000, 240}, {10_000, 1440}, {3_000, 5760}} {
		got, want := measureBytes(t, load.series, load.samples), ruleBytes(load.series, load.samples)
		t.Logf("%d series of %d samples: %.0f bytes a series, the rule says %.0f", load.series, load.samples, got/float64(load.series), want/float64(load.series))
		if off := got/want - 1; math.Abs(off) > 0.2 {
			t.Errorf("%d series of %d samples take %+.0f %% of what the document says", load.series, load.samples, 100*off)
		}
	}
}

// measureBytes is what a cache takes for such a load, written as scrapes come.
func measureBytes(t *testing.T, series, samples int) float64 {
	t.Helper()
	m, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 512 << 20, RegionBytes: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	c, err := mcache.New(mcache.Options{Memory: m, Shards: 8}) // on two processors it would be four, and up to a fifth less
	if err != nil {
		t.Fatal(err)
	}
	defer func() { c.Close(); m.Close() }()
	prints := make([]mcache.Fingerprint, series)
	labels := make([][]mcache.Label, series)
	next := make([]func() float64, series)
	for i := range series {
		labels[i] = sizedLabels(i)
		prints[i] = c.Fingerprint(labels[i])
		_, next[i] = mix.Generator(i, rand.New(rand.NewPCG(1, uint64(i))))
	}
	const atOnce = 2000
	var b mcache.Batch
	for s := range samples {
		if s%20 == 0 {
			c.Maintain() // as the daemon does each second
		}
		for first := 0; first < series; first += atOnce {
			b.Reset("default")
			for i := first; i < min(first+atOnce, series); i++ {
				b.Series(prints[i])
				b.Sample(int64(s)*15_000+1_700_000_000_000, math.Float64bits(next[i]()))
			}
			n, err := c.Append(&b)
			for _, i := range b.Missing() {
				k, err := c.AppendNew(&b, i, labels[first+i])
				if err != nil {
					t.Fatal(err)
				}
				n += k
			}
			if err != nil || n != min(atOnce, series-first) {
				t.Fatalf("%d samples were taken: %v", n, err)
			}
		}
	}
	m.Trim(0)
	return float64(m.Used())
}

// sizedLabels are some 200 bytes of labels as a container's metrics have them.
func sizedLabels(i int) []mcache.Label {
	pod := i / 100
	return []mcache.Label{
		{Name: "__name__", Value: fmt.Sprintf("container_network_receive_things_%02d_total", i%100)},
		{Name: "cluster", Value: "europe-west-1"},
		{Name: "container", Value: "application-server"},
		{Name: "instance", Value: fmt.Sprintf("10.0.%d.%d:9100", pod/250%250, pod%250)},
		{Name: "job", Value: "kubernetes-pods"},
		{Name: "namespace", Value: fmt.Sprintf("team-%02d", pod%20)},
		{Name: "pod", Value: fmt.Sprintf("application-server-7d9f8c%04d-x2x%d", pod, pod%10)},
	}
}

// thousands writes 1000000 as 1,000,000.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// roughly is a number of bytes with two digits that count.
func roughly(bytes float64) string {
	if mib := bytes / (1 << 20); mib < 1000 {
		return fmt.Sprintf("%.0f MiB", twoDigits(mib))
	}
	if gib := bytes / (1 << 30); gib < 10 {
		return fmt.Sprintf("%.1f GiB", gib)
	}
	return fmt.Sprintf("%.0f GiB", bytes/(1<<30))
}

func twoDigits(x float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(x))-1)
	return math.Round(x/unit) * unit
}
