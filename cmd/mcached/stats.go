package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"
)

// summary is what `mcached stats` asks, in the order in which it is shown.
// All of it comes from the daemon's scrape of itself.
var summary = []struct {
	what, expr string
	show       func(v float64) string
}{
	{"memory budget", `mcached_memory_budget_bytes`, showBytes},
	{"memory used", `mcached_memory_used_bytes`, showBytes},
	{"resident", `process_resident_memory_bytes{job="mcached"}`, showBytes},
	{"available on the machine", `mcached_pressure_available_bytes`, showBytes},
	{"given back, all in all", `mcached_memory_returned_bytes_total`, showBytes},
	{"series", `sum(mcached_series)`, short},
	{"samples held", `sum(mcached_series_points)`, short},
	{"bytes a sample", `sum(mcached_series_bytes) / sum(mcached_series_points)`, short},
	{"samples in, per second", `sum(rate(mcached_bucket_samples_total[1m]))`, short},
	{"samples left, per second", `sum(rate(mcached_series_samples_left_total[1m]))`, short},
	{"samples waiting to be forwarded", `mcached_forward_dirty_samples`, short},
	{"queries, per second", `sum(rate(mcached_query_requests_total[1m]))`, short},
	{"blobs", `mcached_blobs_entries`, short},
	{"Redis clients", `mcached_resp_connections`, short},
	{"commands, per second", `rate(mcached_resp_commands_total[1m])`, short},
	{"up for", `time() - process_start_time_seconds{job="mcached"}`, func(v float64) string {
		return (time.Duration(v) * time.Second).String()
	}},
}

// statsCommand is `mcached stats`.
func statsCommand(ctx context.Context, args []string, out io.Writer) error {
	app := kingpin.New("mcached stats", "Show what a running daemon holds and does, from the metrics that it keeps of itself.")
	var f apiFlags
	f.add(app, "1m")
	if _, err := app.Parse(args); err != nil {
		return usageError{err}
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	shown := 0
	for _, row := range summary {
		b, err := f.get(ctx, "/api/v1/query", url.Values{"query": {row.expr}})
		if err != nil {
			return err
		}
		var a answer
		if err := json.Unmarshal(b, &a); err != nil {
			return fmt.Errorf("the answer is not JSON as Prometheus writes it: %w", err)
		}
		list, err := a.list()
		if err != nil {
			return err
		}
		for _, s := range list {
			if v := s.Value.value(); !math.IsNaN(v) {
				fmt.Fprintf(w, "%s\t%s\n", row.what, row.show(v))
				shown++
			}
		}
	}
	if shown == 0 {
		return fmt.Errorf("%s has no metrics of a daemon; is it one, with --self-scrape.interval above 0?", f.url)
	}
	return w.Flush()
}

// showBytes spells bytes in binary units.
func showBytes(v float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for ; v >= 1024 && i < len(units)-1; i++ {
		v /= 1024
	}
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", v), "0"), ".") + " " + units[i]
}
