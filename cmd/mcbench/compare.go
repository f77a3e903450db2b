package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/alecthomas/kingpin/v2"
)

func compareCommand(app *kingpin.Application) (string, action) {
	c := app.Command("compare", "Start mcached and the peers that are installed, one after the other, write the same load to each and print one table.")
	f := fieldFlags(c)
	sending := sendFlags(c)
	times := c.Flag("times", "How often each query is asked; 0 asks none.").Default("30").Int()
	header := headerFlag(c, "'Name: value' to send with each query, as 'Accept-Encoding: identity' for answers that nobody compresses.")
	check := c.Flag("check", "Read all samples back and compare.").Bool()
	data := loadFlags(c)
	return c.FullCommand(), func(ctx context.Context, out io.Writer) error {
		l, err := data()
		if err != nil {
			return err
		}
		w, err := sending()
		if err != nil {
			return err
		}
		h, err := header()
		if err != nil {
			return err
		}
		w.load = l
		k := comparison{writer: w, header: h, times: *times, check: *check}
		all, err := f.contestants(out)
		if err != nil {
			return err
		}
		for _, p := range all {
			if err := k.measure(ctx, p); err != nil {
				return fmt.Errorf("%v: %w", p, err)
			}
		}
		return k.print(out)
	}
}

// comparison collects the rows of the tables.
type comparison struct {
	writer
	times  int
	header http.Header // of queries
	check  bool

	rows []row
}

type row struct {
	name    string
	version string
	report  writeReport
	queries []asked // in the order of questions
	account account // of an mcached, after the load
}

// measure starts c, writes the load to it, asks its queries, and stops it.
func (k *comparison) measure(ctx context.Context, c contestant) error {
	s, err := start(ctx, c.peer)
	if err != nil {
		return err
	}
	defer s.stop()
	r := row{name: c.String(), version: version(ctx, c.peer)}
	if r.report, err = c.writeTo(ctx, s, k.writer); err != nil {
		return err
	}
	if c.name == "mcached" {
		r.account = accountOf(ctx, s)
	}
	if k.check {
		back := checker{load: k.load, url: s.url + "/api/v1", http: &http.Client{Timeout: 2 * time.Minute}}
		if r.report.Check, err = back.run(ctx); err != nil {
			return err
		}
		r.report.Checked = true
	}
	if k.times > 0 {
		client := asker{timeout: 2 * time.Minute}
		defer client.close()
		for _, q := range questions(k.load) {
			a, err := ask(ctx, &client, s.url+"/api/v1", k.header, q, k.times, s.process())
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
	t := newTable(out)
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
	if err := printAccounts(out, k.rows, k.load.series); err != nil {
		return err
	}
	if k.times > 0 {
		fmt.Fprint(out, "\nqueries: p50 ms / server CPU ms\n")
		t = newTable(out)
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
