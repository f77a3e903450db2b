package main

import (
	"cmp"
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
	rate   bool   // a counter, shown by its perSecond
	show   func(v float64) string
	// read, if it is there, makes the lines instead, of what the metric and others
	// say: none where that means nothing.
	read func(r *reading) []summaryLine
}

type summaryLine struct{ what, text string }

// summary is what is shown, in that order.
var summary = []summaryRow{
	{what: "memory budget", metric: "mcached_memory_budget_bytes", show: showBytes},
	{what: "memory used", metric: "mcached_memory_used_bytes", show: showBytes},
	{what: "resident", metric: "process_resident_memory_bytes", show: showBytes},
	{what: "available on the machine", metric: "mcached_pressure_available_bytes", read: (*reading).available},
	{what: "returned to the kernel, in total", metric: "mcached_memory_returned_bytes_total", show: showBytes},
	{what: "series", metric: "mcached_series", show: short},
	{what: "samples", metric: "mcached_series_points", show: short},
	{what: "bytes for one more sample", metric: "mcached_series_part_points", read: (*reading).marginal},
	{what: "bytes a sample, all included", metric: "mcached_series_bytes", read: (*reading).perSample},
	{what: "complete since", metric: "mcached_bucket_covered_from_timestamp_seconds", read: (*reading).coverage},
	{what: "samples in, per second", metric: "mcached_bucket_samples_total", rate: true, show: short},
	{what: "samples removed, per second", metric: "mcached_series_samples_left_total", rate: true, show: short},
	{what: "samples that wait to be forwarded", metric: "mcached_forward_dirty_samples", show: short},
	{what: "queries, per second", metric: "mcached_query_requests_total", rate: true, show: short},
	{what: "steps of queries", metric: "mcached_upstream_steps_total", read: (*reading).sources},
	{what: "Redis values", metric: "mcached_blobs_entries", show: short},
	{what: "Redis clients", metric: "mcached_resp_connections", show: short},
	{what: "commands, per second", metric: "mcached_resp_commands_total", rate: true, show: short},
	{what: "up for", metric: "process_start_time_seconds", read: func(r *reading) []summaryLine {
		return []summaryLine{{text: since(r.at - r.start)}}
	}},
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

// of is the value of a metric's series with one label; !ok if there is none.
func (r *reading) of(metric, label, value string) (v float64, ok bool) {
	for _, s := range r.series {
		if s.Metric["__name__"] == metric && s.Metric[label] == value {
			return s.Value.value(), true
		}
	}
	return 0, false
}

const (
	// minPointsPerSeries is how many samples a series must have on average for the
	// bytes of a sample to mean something: with fewer they are those of the series.
	minPointsPerSeries = 100
	// minSealed is how many samples must be in blocks for what they take to be a rule.
	minSealed = 10_000
)

// available is what others may take: of the machine, or of the control group whose
// limit is tighter.
func (r *reading) available() []summaryLine {
	bytes, ok := r.sum("mcached_pressure_available_bytes")
	if !ok {
		return nil
	}
	what := ""
	if _, machine := r.of("mcached_pressure_available_bytes", "limit", "node"); !machine {
		what = "available in the control group"
	}
	return []summaryLine{{what, showBytes(bytes)}}
}

// marginal is what one more sample takes, once its head is sealed: labels,
// descriptors and heads are there already.
func (r *reading) marginal() []summaryLine {
	points, _ := r.of("mcached_series_part_points", "part", "blocks")
	blocks, ok := r.of("mcached_series_bytes", "part", "blocks")
	directories, _ := r.of("mcached_series_bytes", "part", "directories")
	if !ok || points < minSealed {
		return nil
	}
	return []summaryLine{{text: short((blocks + directories) / points)}}
}

func (r *reading) perSample() []summaryLine {
	bytes, ok := r.sum("mcached_series_bytes")
	points, _ := r.sum("mcached_series_points")
	n, _ := r.sum("mcached_series")
	if !ok || n == 0 || points < minPointsPerSeries*n {
		return nil
	}
	return []summaryLine{{text: short(bytes / points)}}
}

// maxCoverage is of how many buckets coverage is shown.
const maxCoverage = 8

// coverage says of each bucket of others since when an answer lacks nothing.
func (r *reading) coverage() (lines []summaryLine) {
	for _, s := range r.series {
		bucket := s.Metric["bucket"]
		if s.Metric["__name__"] != "mcached_bucket_covered_from_timestamp_seconds" || bucket == selfBucket {
			continue
		}
		if len(lines) == maxCoverage {
			return append(lines, summaryLine{text: "(and more buckets: see /metrics)"})
		}
		from := s.Value.value()
		text := fmt.Sprintf("%s (%s)", time.UnixMilli(int64(from*1000)).Format(time.DateTime), since(r.at-from))
		switch gaps, _ := r.of("mcached_bucket_coverage_gaps", "bucket", bucket); {
		case gaps == 1:
			text += ", before that one gap"
		case gaps > 1:
			text += fmt.Sprintf(", before that %.0f gaps", gaps)
		}
		what := ""
		if bucket != "default" {
			what = "complete since, " + bucket
		}
		lines = append(lines, summaryLine{what, text})
	}
	return lines
}

// sources says who computed the steps of queries, where there is a store to ask.
func (r *reading) sources() []summaryLine {
	const metric = "mcached_upstream_steps_total"
	all, _ := r.sum(metric)
	if all == 0 {
		return nil
	}
	var parts []string
	for _, s := range r.series {
		if s.Metric["__name__"] == metric {
			parts = append(parts, fmt.Sprintf("%s %.1f %%", s.Metric["source"], 100*s.Value.value()/all))
		}
	}
	return []summaryLine{{text: strings.Join(parts, ", ")}}
}

func since(seconds float64) string {
	return time.Duration(max(seconds, 0) * float64(time.Second)).Round(time.Second).String()
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
		if row.read != nil {
			for _, l := range row.read(now) {
				fmt.Fprintf(w, "%s\t%s\n", printable(cmp.Or(l.what, row.what)), l.text)
			}
			continue
		}
		v, ok := now.sum(row.metric)
		if row.rate {
			v, ok = f.perSecond(ctx, row.metric, now, before)
		}
		if ok && !math.IsNaN(v) {
			fmt.Fprintf(w, "%s\t%s\n", row.what, row.show(v))
		}
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
