package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"
)

// headerFlag declares --header; help says what it goes with.
func headerFlag(c *kingpin.CmdClause, help string) func() (http.Header, error) {
	lines := c.Flag("header", help+" Repeatable.").Strings()
	return func() (http.Header, error) { return headers(*lines) }
}

func headers(lines []string) (http.Header, error) {
	h := make(http.Header)
	for _, l := range lines {
		name, value, ok := strings.Cut(l, ":")
		if !ok || name == "" {
			return nil, usageError{fmt.Errorf("--header must be 'Name: value', got %q", l)}
		}
		h.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	return h, nil
}

// sendFlags declares in what requests a load is sent, and returns a writer that
// has the load, the protocol and the receiver still to be set.
func sendFlags(c *kingpin.CmdClause) func() (writer, error) {
	w := writer{}
	c.Flag("per-request", "Samples in a request.").Default("2000").IntVar(&w.perRequest)
	c.Flag("connections", "How many send at a time.").Default("2").IntVar(&w.connections)
	return func() (writer, error) {
		if w.perRequest < 1 || w.connections < 1 || w.connections > 1024 {
			return w, usageError{fmt.Errorf("--per-request must be positive and --connections from 1 to 1024, got %d and %d", w.perRequest, w.connections)}
		}
		return w, nil
	}
}

// jsonFlag declares --json, and returns what reports r: as JSON, or by print.
func jsonFlag(c *kingpin.CmdClause) func(out io.Writer, r any, print func(io.Writer) error) error {
	asJSON := c.Flag("json", "Report as JSON.").Bool()
	return func(out io.Writer, r any, print func(io.Writer) error) error {
		if *asJSON {
			return json.NewEncoder(out).Encode(r)
		}
		return print(out)
	}
}

// newTable aligns columns, which end with tabs, to the right. Flush it.
func newTable(out io.Writer) *tabwriter.Writer {
	return tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
}

// loadFlags declares what a load is made of.
func loadFlags(c *kingpin.CmdClause) func() (load, error) {
	series := c.Flag("series", "How many series.").Default("100000").Int()
	samples := c.Flag("samples", "How many samples of each.").Default("60").Int()
	start := c.Flag("start", "Time of the first samples, in Unix milliseconds. Default: so that the last are of now.").Int64()
	interval := c.Flag("interval", "Distance of a series' samples.").Default("15s").Duration()
	jitter := c.Flag("jitter", "By how much a sample may be off the interval's grid, either way.").Default("0s").Duration()
	late := c.Flag("late", "Percent of samples that are delivered 1 to 4 intervals late.").Default("0").Float64()
	seed := c.Flag("seed", "What values, jitter and lateness are computed from.").Default("1").Uint64()
	return func() (load, error) {
		l := load{series: *series, samples: *samples, startMs: *start, intervalMs: interval.Milliseconds(), jitterMs: jitter.Milliseconds(), latePct: *late, seed: *seed}
		switch {
		case l.series < 1 || l.series > 1<<24:
			return l, usageError{fmt.Errorf("--series must be from 1 to %d, got %d", 1<<24, l.series)}
		case l.samples < 1 || l.samples > 1<<24:
			return l, usageError{fmt.Errorf("--samples must be from 1 to %d, got %d", 1<<24, l.samples)}
		case l.intervalMs < 1:
			return l, usageError{fmt.Errorf("--interval must be at least 1ms, got %v", *interval)}
		case l.jitterMs < 0 || l.jitterMs >= (l.intervalMs+1)/2:
			return l, usageError{fmt.Errorf("--jitter must be less than half of --interval, got %v", *jitter)}
		case l.latePct < 0 || l.latePct > 100:
			return l, usageError{fmt.Errorf("--late must be from 0 to 100, got %v", l.latePct)}
		}
		if l.startMs == 0 {
			now := time.Now().UnixMilli()
			l.startMs = (now/l.intervalMs - int64(l.samples) + 1) * l.intervalMs
		}
		return l, nil
	}
}

// apiURL is where the API of the server that receives at receiver is.
func apiURL(receiver, api string) (string, error) {
	if api != "" {
		return strings.TrimSuffix(api, "/"), nil
	}
	u, err := url.Parse(receiver)
	if err != nil || u.Host == "" {
		return "", usageError{fmt.Errorf("--url must be http://host:port/path, got %q", receiver)}
	}
	return u.Scheme + "://" + u.Host + "/api/v1", nil
}
