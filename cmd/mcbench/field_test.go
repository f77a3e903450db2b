package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// serveItself has PATH name this test binary as mcached: a script, as the
// arguments of a real one are not its own.
func serveItself(t *testing.T) (mcached string) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	mcached = filepath.Join(dir, "mcached")
	script := "#!/bin/sh\nfor a; do case $a in --version) echo test; exit;; --web.listen-address=*) exec " + os.Args[0] + " serve ${a#*=};; esac; done\n"
	if err := os.WriteFile(mcached, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return mcached
}

// TestSideBySide: small, grow, concurrent, wide and cluster measure a server, and print it.
func TestSideBySide(t *testing.T) {
	self := serveItself(t)
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"small", "--series=600", "--samples=3", "--large=200", "--small=20", "--many=4", "--turns=1"}, []string{"200 × 2", "20 × 4", "mcached v1", "mcached v2", "mcached: test"}},
		{[]string{"grow", "--sizes=50000", "--samples=2", "--times=1"}, []string{"CPU µs/series", "50000", "100 series raw"}},
		{[]string{"concurrent", "--series=50000", "--samples=2", "--for=1s", "--readers=3", "--rate=1000"}, []string{"queries/s", "3 readers for 1s", "mcached v1"}},
		{[]string{"wide", "--series=50000", "--samples=2", "--times=1"}, []string{"50000 series × 2 samples", "topk(5, m)", "instant: count by (job) (all)", "values of instance in the hour", " -\n"}},
		{[]string{"wide", "--series=1000", "--samples=2", "--times=1", "--questions=histogram_q.*some"}, []string{"1000 series × 2 samples", "histogram_quantile(0.9, rate(some[5m]))"}},
		{[]string{"cluster", "--series=600", "--samples=3", "--per-request=100", "--members=" + strconv.Itoa(testMembers), "--turns=1"}, []string{"600 series × 3 samples, 100 a request over 6 connections", "daemons  copies", "of one", "mcached: test"}},
	} {
		if c.args[0] != "cluster" {
			c.args = append(c.args, "--only=mcached")
		}
		var out bytes.Buffer
		if err := run(t.Context(), append(c.args, "--mcached="+self), &out); err != nil {
			t.Errorf("%v: %v\n%s", c.args, err, out.String())
		}
		for _, want := range c.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%v prints no %q:\n%s", c.args, want, out.String())
			}
		}
	}
	for _, args := range [][]string{{"small", "--small=0"}, {"cluster", "--members=1"}, {"grow", "--sizes=1"}, {"grow", "--sizes=x"}, {"concurrent", "--readers=0"}, {"wide", "--times=0"}, {"small", "--mcached=/nonexistent", "--only=mcached"}, {"dashboards", "/nonexistent"}} {
		var out bytes.Buffer
		if err := run(t.Context(), args, &out); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "mcbench-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestDashboards asks the panels of a dashboard of two servers, of which one
// has other samples.
func TestDashboards(t *testing.T) {
	good := newServer(t, nil)
	now := time.Now().UnixMilli()
	l := load{series: 500, samples: 10, startMs: now - 150_000, intervalMs: 15_000, seed: 1}
	if _, err := (&writer{load: l, url: good.URL + "/api/v1/write", perRequest: 500, connections: 1}).run(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := newServer(t, nil)
	l.seed = 2
	if _, err := (&writer{load: l, url: other.URL + "/api/v1/write", perRequest: 500, connections: 1}).run(t.Context()); err != nil {
		t.Fatal(err)
	}
	board := filepath.Join(t.TempDir(), "board.json")
	if err := os.WriteFile(board, []byte(`{"panels": [
		{"title": "rates", "targets": [{"expr": "sum(rate(`+metricName(1)+`{instance=\"$instance\",job=~\"[[job]]\"}[$__rate_interval]))"}, {"expr": ""}]},
		{"title": "a row", "panels": [{"title": "number", "targets": [{"expr": "count({__name__=~\"checkout.*\"})"}]}]},
		{"title": "wrong", "targets": [{"expr": "sum(("}]}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	ask := func(reference string) string {
		var out bytes.Buffer
		if err := run(t.Context(), []string{"dashboards", "--url=" + good.URL, "--reference-url=" + reference, "--times=1", "--var=job=kubernetes-pods", board}, &out); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	if out := ask(good.URL); strings.Count(out, "the same") != 3 || !strings.Contains(out, "2 expressions over 1h0m0s at 15s") || !strings.Contains(out, "wrong") {
		t.Errorf("beside itself it prints\n%s", out)
	}
	if out := ask(other.URL); !strings.Contains(out, "the reference has") || !strings.Contains(out, "1 answers the same") {
		t.Errorf("beside another it prints\n%s", out)
	}
}

// TestFill: variables as Grafana fills them.
func TestFill(t *testing.T) {
	b := boards{window: time.Hour, step: 15 * time.Second, variables: map[string]string{"job": "node"}}
	for expr, want := range map[string]string{
		`rate(x{job="$job"}[$__rate_interval])`:  `rate(x{job="node"}[60s])`,
		`x{pod=~"${pod:regex}"} / [[__range_s]]`: `x{pod=~".*"} / 3600`,
		`x{pod="$pod"}[$__range]`:                `x{pod=~".*"}[3600s]`,
	} {
		if got := b.question("", expr).form.Get("query"); got != want {
			t.Errorf("%s is filled as %s, want %s", expr, got, want)
		}
	}
}

func TestWith(t *testing.T) {
	p := peer{args: func(dir, _ string) []string { return []string{"--memory.size=2GiB", "--memory=" + dir} }}
	got := p.with("--memory.size=1GiB", "--more").args("d", "")
	if want := []string{"--memory=d", "--memory.size=1GiB", "--more"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := p.args("d", ""); len(got) != 2 {
		t.Errorf("the peer has changed: %q", got)
	}
}
