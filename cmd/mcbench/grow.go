package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
)

// growCommand measures what grows with the number of series.
func growCommand(app *kingpin.Application) (string, action) {
	c := app.Command("grow", "Write more and more series to mcached and the peers, each number to servers that begin empty: what a sample and a series cost, and how long the same queries take.")
	f := fieldFlags(c)
	sizes := c.Flag("sizes", "Numbers of series, separated by commas.").Default("100000,1000000").String()
	upTo := c.Flag("peers-up-to", "Peers are left out of larger ones: they need several times the memory.").Default("1000000").Int()
	memory := c.Flag("memory", "The budget of mcached.").Default("8GiB").String()
	times := c.Flag("times", "How often each query is asked.").Default("100").Int()
	data := loadFlags(c)
	return c.FullCommand(), func(ctx context.Context, out io.Writer) error {
		l, err := data()
		if err != nil {
			return err
		}
		var series []int
		for _, text := range strings.Split(*sizes, ",") {
			n, err := strconv.Atoi(strings.TrimSpace(text))
			if err != nil || n < 50_000 || n > 1<<24 {
				return usageError{fmt.Errorf("--sizes must be numbers from 50000 to %d, got %q", 1<<24, text)}
			}
			series = append(series, n)
		}
		all, err := f.contestants(out)
		if err != nil {
			return err
		}
		head := "server\tseries\tCPU µs/1,000\tCPU µs/series\tB/series\t"
		for _, q := range growQuestions(l) {
			head += q.name + "\t"
		}
		fmt.Fprintf(out, "%d samples of each series; p50 of queries in ms\n", l.samples)
		return table(ctx, out, all, head, func(t io.Writer, c contestant) error {
			if c.name == "mcached" {
				c.peer = c.with("--memory.size=" + *memory)
			}
			for _, n := range series {
				if c.name != "mcached" && n > *upTo {
					continue
				}
				if err := growRow(ctx, t, c, l, n, *times); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// growQuestions are the three whose time should not depend on how many other series there are.
func growQuestions(l load) (some []question) {
	for _, q := range questions(l) {
		switch q.name {
		case "one series raw", "100 series raw", "sum(rate[5m]) of 1,000 series":
			some = append(some, q)
		}
	}
	return some
}

// growRow measures one server with n series: the first samples create them,
// the others cost what a sample does.
func growRow(ctx context.Context, t io.Writer, c contestant, l load, n, times int) error {
	s, err := start(ctx, c.peer)
	if err != nil {
		return err
	}
	defer s.stop()
	first, rest := l, l
	first.series, first.samples = n, 1
	rest.series, rest.samples, rest.startMs = n, l.samples-1, l.startMs+l.intervalMs
	w := writer{load: first, perRequest: 2000, connections: 2}
	created, err := c.writeTo(ctx, s, w)
	if err != nil {
		return err
	}
	later := writeReport{}
	if rest.samples > 0 {
		w.load = rest
		if later, err = c.writeTo(ctx, s, w); err != nil {
			return err
		}
	}
	grown := created.RSSGrownBytes + later.RSSGrownBytes
	fmt.Fprintf(t, "%v\t%d\t%.0f\t%.2f\t%d\t", c, n, later.CPUUsPer1000, (created.CPUUsPer1000-later.CPUUsPer1000)/1000, grown/int64(n))
	client := asker{timeout: 2 * time.Minute}
	defer client.close()
	l.series = n
	for _, q := range growQuestions(l) {
		a, err := ask(ctx, &client, s.url+"/api/v1", computeAnew, q, times, s.process())
		if err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
		fmt.Fprintf(t, "%.2f\t", a.p50Ms)
	}
	fmt.Fprintln(t)
	return nil
}
