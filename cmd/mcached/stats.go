package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"
)

// summaryRow is a line of `mcached stats`. The values are those of the daemon's
// registry, whatever else is stored in it.
type summaryRow struct {
	what   string
	metric string // summed over its series
	rate   bool   // per second, over the last minute
	show   func(v float64) string
}

// summary is what is shown, in that order.
var summary = []summaryRow{
	{"memory budget", "mcached_memory_budget_bytes", false, showBytes},
	{"memory used", "mcached_memory_used_bytes", false, showBytes},
	{"resident", "process_resident_memory_bytes", false, showBytes},
	{"available on the machine", "mcached_pressure_available_bytes", false, showBytes},
	{"given back, all in all", "mcached_memory_returned_bytes_total", false, showBytes},
	{"series", "mcached_series", false, short},
	{"samples held", "mcached_series_points", false, short},
	{"bytes a sample", "mcached_series_bytes", false, short}, // by way of perSample
	{"samples in, per second", "mcached_bucket_samples_total", true, short},
	{"samples left, per second", "mcached_series_samples_left_total", true, short},
	{"samples waiting to be forwarded", "mcached_forward_dirty_samples", false, short},
	{"queries, per second", "mcached_query_requests_total", true, short},
	{"blobs", "mcached_blobs_entries", false, short},
	{"Redis clients", "mcached_resp_connections", false, short},
	{"commands, per second", "mcached_resp_commands_total", true, short},
	{"up for", "process_start_time_seconds", false, nil}, // by way of the reading's time
}

// reading is one look at a daemon's registry.
type reading struct {
	at, start float64 // Unix seconds
	series    []series
}

// sum adds a metric's series up; !ok if it has none.
func (r *reading) sum(metric string) (v float64, ok bool) {
	for _, s := range r.series {
		if s.Metric["__name__"] == metric {
			v, ok = v+s.Value.value(), true
		}
	}
	return v, ok
}

// minPointsPerSeries is how many samples a series must have on average for the
// bytes of a sample to mean something: with fewer they are those of the series.
const minPointsPerSeries = 100

func (r *reading) perSample() (float64, bool) {
	bytes, ok := r.sum("mcached_series_bytes")
	points, _ := r.sum("mcached_series_points")
	n, _ := r.sum("mcached_series")
	return bytes / points, ok && n > 0 && points >= minPointsPerSeries*n
}

// readDaemon asks for the registry.
func (f *apiFlags) readDaemon(ctx context.Context) (*reading, error) {
	b, err := f.get(ctx, "/api/v1/status/self", nil)
	if err != nil {
		if s := (statusError{}); errors.As(err, &s) && s.code == 404 {
			return nil, fmt.Errorf("%s is no mcached, or an older one", f.url)
		}
		return nil, err
	}
	var a struct {
		Data struct {
			StartTime float64
			Result    []series
		}
	}
	if err := json.Unmarshal(b, &a); err != nil || len(a.Data.Result) == 0 {
		return nil, fmt.Errorf("the answer of %s is not that of an mcached", f.url)
	}
	return &reading{at: a.Data.Result[0].Value.seconds, start: a.Data.StartTime, series: a.Data.Result}, nil
}

// perSecond is the rate of a counter: since the reading before, if there is
// one, else over the last minute of the history that the daemon keeps, else
// since it was started.
func (f *apiFlags) perSecond(ctx context.Context, metric string, now, before *reading) (float64, bool) {
	v, ok := now.sum(metric)
	if !ok {
		return 0, false
	}
	if before != nil && before.start == now.start && now.at > before.at {
		was, _ := before.sum(metric)
		return (v - was) / (now.at - before.at), true
	}
	if b, err := f.get(ctx, selfPath+"/api/v1/query", url.Values{"query": {"sum(rate(" + metric + "[1m]))"}}); err == nil {
		var a answer
		if json.Unmarshal(b, &a) == nil {
			if list, err := a.list(); err == nil && len(list) == 1 && !math.IsNaN(list[0].Value.value()) {
				return list[0].Value.value(), true
			}
		}
	}
	return v / max(now.at-now.start, 1), true
}

// summarize writes the table of one reading.
func (f *apiFlags) summarize(ctx context.Context, out io.Writer, now, before *reading) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	for _, row := range summary {
		var v float64
		var ok bool
		switch {
		case row.rate:
			v, ok = f.perSecond(ctx, row.metric, now, before)
		case row.what == "bytes a sample":
			v, ok = now.perSample()
		default:
			v, ok = now.sum(row.metric)
		}
		if !ok || math.IsNaN(v) {
			continue
		}
		text := ""
		if row.show != nil {
			text = row.show(v)
		} else {
			text = time.Duration((now.at - now.start) * float64(time.Second)).Round(time.Second).String()
		}
		fmt.Fprintf(w, "%s\t%s\n", row.what, text)
	}
	return w.Flush()
}

// statsCommand is `mcached stats`.
func statsCommand(ctx context.Context, args []string, out io.Writer) error {
	app := kingpin.New("mcached stats", "Show what a running daemon holds and does, by its own metrics.")
	var f apiFlags
	f.add(app, "1m")
	var watch bool
	app.Flag("watch", "Show it again and again, until interrupted.").Short('w').BoolVar(&watch)
	every := duration(2 * time.Second)
	flag(app, "interval", "How often, with --watch.").Default("2s").SetValue(namedValue{&every, "interval"})
	if _, err := app.Parse(args); err != nil {
		return usageError{err}
	}
	if watch && every.std() < time.Second/10 {
		return usageError{fmt.Errorf("--interval must be at least 100ms, got %s", &every)}
	}
	now, err := f.readDaemon(ctx)
	if err != nil {
		return err
	}
	if !watch {
		return f.summarize(ctx, out, now, nil)
	}
	var before *reading
	ticker := time.NewTicker(every.std())
	defer ticker.Stop()
	for {
		var page strings.Builder
		fmt.Fprintf(&page, "%s, %s\n\n", f.url, time.UnixMilli(int64(now.at*1000)).Format(time.DateTime))
		if err := f.summarize(ctx, &page, now, before); err != nil {
			return err
		}
		if isTerminal(out) {
			fmt.Fprint(out, clearScreen)
		} else if before != nil {
			fmt.Fprintln(out)
		}
		if _, err := io.WriteString(out, page.String()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil // as asked
		case <-ticker.C:
		}
		next, err := f.readDaemon(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		before, now = now, next
	}
}

// clearScreen empties a terminal and goes to its first line.
const clearScreen = "\x1b[2J\x1b[H"

// showBytes spells bytes in binary units.
func showBytes(v float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for ; v >= 1024 && i < len(units)-1; i++ {
		v /= 1024
	}
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", v), "0"), ".") + " " + units[i]
}
