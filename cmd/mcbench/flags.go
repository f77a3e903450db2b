package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
)

// headers parses --header flags.
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
		l := load{*series, *samples, *start, interval.Milliseconds(), jitter.Milliseconds(), *late, *seed}
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
