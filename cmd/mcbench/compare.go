package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"mcached/remotewrite/wire"
)

func compareCommand(app *kingpin.Application) (string, func(context.Context, io.Writer) error) {
	c := app.Command("compare", "Start mcached and the peers that are installed, one after the other, write the same load to each and print one table.")
	f := fieldFlags(c)
	perRequest := c.Flag("per-request", "Samples in a request.").Default("2000").Int()
	connections := c.Flag("connections", "How many send at a time.").Default("2").Int()
	times := c.Flag("times", "How often each query is asked; 0 asks none.").Default("30").Int()
	header := c.Flag("header", "'Name: value' to send with each query, as 'Accept-Encoding: identity' for answers that nobody compresses. Repeatable.").Strings()
	check := c.Flag("check", "Read all samples back and compare.").Bool()
	data := loadFlags(c)
	return c.FullCommand(), func(ctx context.Context, out io.Writer) error {
		l, err := data()
		if err != nil {
			return err
		}
		if *perRequest < 1 || *connections < 1 || *connections > 1024 {
			return usageError{fmt.Errorf("--per-request must be positive and --connections from 1 to 1024, got %d and %d", *perRequest, *connections)}
		}
		h, err := headers(*header)
		if err != nil {
			return err
		}
		k := comparison{load: l, header: h, perRequest: *perRequest, connections: *connections, times: *times, check: *check}
		all, err := f.contestants(out)
		if err != nil {
			return err
		}
		for _, p := range all {
			if err := k.measure(ctx, p.peer, p.protocol); err != nil {
				return fmt.Errorf("%v: %w", p, err)
			}
		}
		return k.print(out)
	}
}

// comparison collects the rows of the tables.
type comparison struct {
	load                    load
	perRequest, connections int
	times                   int
	header                  http.Header // of queries
	check                   bool

	rows []row
}

type row struct {
	name    string
	version string
	report  report
	queries []asked // in the order of questions
}

// measure starts p, writes the load to it, asks its queries, and stops it.
func (k *comparison) measure(ctx context.Context, p peer, protocol string) error {
	s, err := start(ctx, p)
	if err != nil {
		return err
	}
	defer s.stop()
	r := row{name: p.name + " v" + protocol, version: version(ctx, p)}
	r.report = report{Series: k.load.series, SamplesPerSeries: k.load.samples, Protocol: protocol, StartMs: k.load.startMs}
	w := writer{load: k.load, url: s.url + p.write, protocol: wire.V1, perRequest: k.perRequest, connections: k.connections}
	if protocol == "2" {
		w.protocol = wire.V2
	}
	proc := process{"/proc", s.cmd.Process.Pid}
	if err := r.report.write(ctx, &w, proc); err != nil {
		return err
	}
	if p.flush != "" {
		if err := s.get(ctx, p.flush); err != nil {
			return err
		}
	}
	if k.check {
		c := checker{load: k.load, url: s.url + "/api/v1", http: &http.Client{Timeout: 2 * time.Minute}}
		if r.report.Check, err = c.run(ctx); err != nil {
			return err
		}
		r.report.Checked = true
	}
	if k.times > 0 {
		client := &http.Client{Timeout: 2 * time.Minute}
		defer client.CloseIdleConnections()
		for _, q := range questions(k.load) {
			a, err := ask(ctx, client, s.url+"/api/v1", k.header, q, k.times, proc)
			if err != nil {
				return fmt.Errorf("%s: %w", q.name, err)
			}
			r.queries = append(r.queries, a)
		}
	}
	k.rows = append(k.rows, r)
	return nil
}

func (k *comparison) print(out io.Writer) error {
	if len(k.rows) == 0 {
		return errors.New("nothing to compare")
	}
	fmt.Fprintf(out, "%d series × %d samples, %d samples a request, %d connections, %v %% late\n",
		k.load.series, k.load.samples, k.perRequest, k.connections, k.load.latePct)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "server\tsamples/s\tCPU µs/1,000\tp50 ms\tp99 ms\tB/series\twire B/sample\tread back\t")
	for _, r := range k.rows {
		back := "-"
		if r.report.Checked {
			back = "all, exactly"
			if c := r.report.Check; !c.ok() {
				back = fmt.Sprintf("%d missing, %d wrong, %d extra", c.missing, c.wrong, c.extra)
			}
		}
		fmt.Fprintf(t, "%s\t%.0f\t%.0f\t%.1f\t%.1f\t%.0f\t%.1f\t%s\t\n", r.name, r.report.SamplesPerS, r.report.CPUUsPer1000,
			r.report.P50Ms, r.report.P99Ms, r.report.RSSPerSeries, r.report.BytesPerSample, back)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if k.times > 0 {
		fmt.Fprint(out, "\nqueries: p50 ms / server CPU ms\n")
		t = tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprint(t, "query\t")
		for _, r := range k.rows {
			fmt.Fprintf(t, "%s\t", r.name)
		}
		fmt.Fprintln(t)
		for i, q := range questions(k.load) {
			fmt.Fprintf(t, "%s\t", q.name)
			for _, r := range k.rows {
				fmt.Fprintf(t, "%v\t", r.queries[i])
			}
			fmt.Fprintln(t)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	fmt.Fprintln(out)
	for _, r := range k.rows {
		fmt.Fprintf(out, "%s: %s\n", r.name, r.version)
	}
	return nil
}
