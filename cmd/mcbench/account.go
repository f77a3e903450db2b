package main

import (
	"context"
	"fmt"
	"io"
	"math"
)

// accountParts are what the memory of an mcached holds, by series of its /metrics.
// What is empty has pages only as far as it was written to before.
var accountParts = []struct {
	name   string
	series []string
}{
	{"heads", []string{`mcached_series_bytes{part="heads"}`}},
	{"partial", []string{`mcached_series_bytes{part="partial"}`}},
	{"blocks", []string{`mcached_series_bytes{part="blocks"}`}},
	{"directories", []string{`mcached_series_bytes{part="directories"}`}},
	{"index", []string{`mcached_series_bytes{part="index"}`}},
	{"dead", []string{`mcached_series_dead_bytes`}},
	{"empty", []string{`mcached_series_free_bytes`}},
	{"used", []string{`mcached_memory_used_bytes`}},
	{"Go", []string{`go_memstats_heap_inuse_bytes`, `go_memstats_stack_inuse_bytes`}},
}

// account is what each of accountParts takes, in bytes; NaN if the server, which
// may be older than this program, does not tell.
type account []float64

// accountOf reads what an mcached says of its memory.
func accountOf(ctx context.Context, s *server) account {
	a := make(account, len(accountParts))
	for i, part := range accountParts {
		for _, name := range part.series {
			v, err := s.metric(ctx, name)
			if err != nil {
				v = math.NaN()
			}
			a[i] += v
		}
	}
	return a
}

// printAccounts writes a table of the rows that have an account, and nothing if
// there are none.
func printAccounts(out io.Writer, rows []row, series int) error {
	t := newTable(out)
	some := false
	for _, r := range rows {
		if r.account == nil {
			continue
		}
		if !some {
			some = true
			fmt.Fprint(out, "\nwhere it lies, B/series; empty and Go are resident only in part, and Go was there in part before\n")
			fmt.Fprint(t, "server\t")
			for _, part := range accountParts {
				fmt.Fprintf(t, "%s\t", part.name)
			}
			fmt.Fprintln(t, "resident\t")
		}
		fmt.Fprintf(t, "%s\t", r.name)
		for _, bytes := range r.account {
			fmt.Fprintf(t, "%.0f\t", bytes/float64(series))
		}
		fmt.Fprintf(t, "%.0f\t\n", r.report.RSSPerSeries)
	}
	return t.Flush()
}
