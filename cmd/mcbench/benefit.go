package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"mcached/remotewrite/wire"
)

// benefitCommand measures what it changes for a store when mcached stands
// before it and forwards: what the store's processor does for a sample, how
// many requests it answers, and what the forwarding costs the cache.
func benefitCommand(app *kingpin.Application) (string, action) {
	c := app.Command("benefit", "Write the same load to each store that is installed, directly and through an mcached that forwards to it, and compare what the store does; then time how long a stop takes to drain.")
	binary := mcachedFlag(c)
	only := c.Flag("only", "Leave out all stores but these. Repeatable.").Strings()
	perRequest := c.Flag("per-request", "Samples in a request of the load.").Default("2000").Int()
	round := c.Flag("round", "Time between two samples of a series as they are written, whatever their timestamps say.").Default("500ms").Duration()
	perAge := c.Flag("per-age", "How many of those fit into --forward.max-dirty-age: 4 is a scrape each 15 s with the default of a minute. Repeatable.").Default("4", "20").Ints()
	drain := c.Flag("drain", "How many samples wait when the drain is timed; 0 times none.").Default("1000000").Int()
	data := loadFlags(c)
	return c.FullCommand(), func(ctx context.Context, out io.Writer) error {
		l, err := data()
		if err != nil {
			return err
		}
		if *perRequest < 1 || *round <= 0 || slices.ContainsFunc(*perAge, func(n int) bool { return n < 1 || time.Duration(n)**round < time.Second }) {
			return usageError{fmt.Errorf("--per-request and --round must be positive, and --per-age times --round at least 1s, got %d, %v and %v", *perRequest, *round, *perAge)}
		}
		b := benefit{load: l, perRequest: *perRequest, round: *round}
		all := peers(*binary)
		if b.cache, err = installed(all[0]); err != nil {
			return err
		}
		alone, err := b.measure(ctx, nil, b.cache.name+" alone", 0)
		if err != nil {
			return err
		}
		for _, p := range all {
			if len(*only) > 0 && !slices.Contains(*only, p.name) {
				continue
			}
			if p, err = installed(p); err != nil {
				fmt.Fprintln(out, err)
				continue
			}
			for _, n := range append([]int{0}, *perAge...) {
				name := p.name + ", directly"
				if n > 0 {
					name = fmt.Sprintf("%s, %d a run", p.name, n)
				}
				if _, err := b.measure(ctx, &p, name, n); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
		}
		if err := b.print(out, alone); err != nil {
			return err
		}
		if *drain > 0 {
			return b.drain(ctx, out, *drain)
		}
		return nil
	}
}

type benefit struct {
	load       load
	perRequest int
	round      time.Duration
	cache      peer
	rows       []benefitRow
}

// benefitRow is one way that the load took. CPU times are in µs for 1,000 samples.
type benefitRow struct {
	name               string
	storeCPU, cacheCPU float64
	requests           float64 // that the store got
	bytesPerSample     float64 // that the store got
	samples            float64
}

// through is the cache with flags to forward to a URL.
func (b *benefit) through(to string, flags ...string) peer {
	return b.cache.with(append([]string{"--forward.url=" + to}, flags...)...)
}

// measure writes the load to the store, or through the cache with n rounds in
// the age that samples may have; without a store, to the cache alone.
func (b *benefit) measure(ctx context.Context, store *peer, name string, n int) (row benefitRow, err error) {
	row.name = name
	var behind, front *server
	if store != nil {
		if behind, err = start(ctx, *store); err != nil {
			return row, err
		}
		defer behind.stop()
		front = behind
	}
	if store == nil || n > 0 {
		p := b.cache
		if n > 0 {
			p = b.through(behind.url+store.write, "--forward.max-dirty-age="+(time.Duration(n)*b.round).String())
		}
		if front, err = start(ctx, p); err != nil {
			return row, err
		}
		defer front.stop()
	}
	usages := func() (store, cache usage, err error) {
		if behind != nil {
			if store, err = (process{"/proc", behind.cmd.Process.Pid}).usage(); err != nil {
				return store, cache, err
			}
		}
		if front != behind {
			cache, err = process{"/proc", front.cmd.Process.Pid}.usage()
		}
		return store, cache, err
	}
	store0, cache0, err := usages()
	if err != nil {
		return row, err
	}
	w := writer{load: b.load, url: front.url + "/api/v1/write", protocol: wire.V1, perRequest: b.perRequest, connections: 2,
		rate: float64(b.load.series) / b.round.Seconds()}
	done, err := w.run(ctx)
	if err != nil {
		return row, err
	}
	row.samples, row.requests = float64(done.samples), float64(done.requests)
	row.bytesPerSample = float64(done.bodyBytes) / row.samples
	// The books are read when everything had to be forwarded, and before
	// /metrics is, which would count, too.
	if err := sleep(ctx, time.Duration(n)*b.round+settleTime); err != nil {
		return row, err
	}
	store1, cache1, err := usages()
	if err != nil {
		return row, err
	}
	if n > 0 {
		left, err1 := front.metric(ctx, "mcached_forward_dirty_samples")
		bytes, err2 := front.metric(ctx, "mcached_forward_bytes_total")
		requests, err3 := front.metric(ctx, "mcached_forward_requests_total")
		rejected, err4 := front.metric(ctx, `mcached_forward_samples_total{result="rejected"}`)
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			return row, err
		}
		if left > 0 || rejected > 0 {
			return row, fmt.Errorf("%.0f samples are still not forwarded, and the store rejected %.0f", left, rejected)
		}
		row.requests, row.bytesPerSample = requests, bytes/row.samples
	}
	row.storeCPU = float64((store1.cpu - store0.cpu).Microseconds()) / row.samples * 1000
	row.cacheCPU = float64((cache1.cpu - cache0.cpu).Microseconds()) / row.samples * 1000
	b.rows = append(b.rows, row)
	return row, nil
}

func (b *benefit) print(out io.Writer, alone benefitRow) error {
	fmt.Fprintf(out, "%d series × %d samples, %d samples a request of the load, a sample of each series every %v\n", b.load.series, b.load.samples, b.perRequest, b.round)
	t := newTable(out)
	fmt.Fprintln(t, "way\tstore CPU µs/1,000\trequests\tsamples/request\twire B/sample\tcache CPU µs/1,000\tfor forwarding\t")
	for _, r := range b.rows {
		store, cache, added := "-", "-", "-"
		if r.storeCPU > 0 {
			store = fmt.Sprintf("%.0f", r.storeCPU)
		}
		if r.cacheCPU > 0 {
			cache = fmt.Sprintf("%.0f", r.cacheCPU)
			if r.storeCPU > 0 {
				added = fmt.Sprintf("%+.0f %%", (r.cacheCPU/alone.cacheCPU-1)*100)
			}
		}
		fmt.Fprintf(t, "%s\t%s\t%.0f\t%.0f\t%.1f\t%s\t%s\t\n", r.name, store, r.requests, r.samples/r.requests, r.bytesPerSample, cache, added)
	}
	return t.Flush()
}

// drainSamples of each series wait when a drain is timed: so few that no head
// is full, since full ones go at once.
const drainSamples = 10

// drain times how long a stop takes with n samples waiting, to another mcached.
func (b *benefit) drain(ctx context.Context, out io.Writer, n int) error {
	behind, err := start(ctx, b.cache)
	if err != nil {
		return err
	}
	defer behind.stop()
	front, err := start(ctx, b.through(behind.url+"/api/v1/write", "--forward.max-dirty-age=1h", "--forward.max-dirty-size=1GiB", "--shutdown.timeout=1m"))
	if err != nil {
		return err
	}
	defer front.stop()
	l := b.load
	l.samples = drainSamples
	l.series = (n + drainSamples - 1) / drainSamples
	w := writer{load: l, url: front.url + "/api/v1/write", protocol: wire.V2, perRequest: b.perRequest, connections: 2}
	if _, err := w.run(ctx); err != nil {
		return err
	}
	waiting, err := front.metric(ctx, "mcached_forward_dirty_samples")
	if err != nil {
		return err
	}
	before, err := behind.metric(ctx, "mcached_remote_write_samples_total")
	if err != nil {
		return err
	}
	began := time.Now()
	if err := front.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-front.exited:
	case <-time.After(2 * time.Minute):
		return errors.New("the drain does not end")
	case <-ctx.Done():
		return ctx.Err()
	}
	took := time.Since(began)
	after, err := behind.metric(ctx, "mcached_remote_write_samples_total")
	if err != nil {
		return err
	}
	if int(after) < l.series*l.samples {
		return fmt.Errorf("the store got %.0f of %d samples", after, l.series*l.samples)
	}
	_, err = fmt.Fprintf(out, "\ndrain: %.0f samples waited at the signal, %.0f of them arrived; the process ended after %.2f s\n", waiting, after-before, took.Seconds())
	return err
}
