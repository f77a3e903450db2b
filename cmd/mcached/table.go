package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kingpin/v2"
)

// metricsCommand is `mcached metrics`.
func metricsCommand(_ context.Context, args []string, out io.Writer) error {
	app := kingpin.New("mcached metrics", "Print the table of the daemon's own metrics, as METRICS.md has it.")
	app.HelpFlag.Short('h')
	app.HelpFlag.NoEnvar()
	app.UsageWriter(os.Stdout)
	if _, err := app.Parse(args); err != nil {
		return usageError{err}
	}
	return writeMetricsTable(out)
}

// writeMetricsTable prints a Markdown table of every metric that this program
// defines. Those of the Go runtime and the process are client_golang's.
func writeMetricsTable(out io.Writer) error {
	var b strings.Builder
	b.WriteString("# Metrics of mcached\n\nPrinted by `mcached metrics` from the code that fills `/metrics`. Beside these there are the usual `go_…` and `process_…`.\n\n")
	b.WriteString("| metric | type | labels | meaning |\n|---|---|---|---|\n")
	line := func(name, kind string, labels []string, help string) {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", name, kind, strings.Join(labels, ", "), help)
	}
	for _, r := range rows() {
		line(r.Name, r.Kind, r.Labels, r.Help)
	}
	for _, h := range httpRows {
		line(h.name, h.kind, h.labels, h.help)
	}
	_, err := io.WriteString(out, b.String())
	return err
}
