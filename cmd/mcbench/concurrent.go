package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/alecthomas/kingpin/v2"
)

// concurrentCommand has many readers ask while samples come in.
func concurrentCommand(app *kingpin.Application) (string, action) {
	c := app.Command("concurrent", "Have many clients ask queries while samples come in, of mcached and the peers: queries a second, their times, and the processor time of both together.")
	f := fieldFlags(c)
	k := concurrency{}
	c.Flag("readers", "How many ask at a time.").Default("16").IntVar(&k.readers)
	c.Flag("for", "How long they ask.").Default("20s").DurationVar(&k.time)
	c.Flag("rate", "Samples a second that come in meanwhile; 0 for none.").Default("300000").Float64Var(&k.rate)
	data := loadFlags(c)
	return c.FullCommand(), func(ctx context.Context, out io.Writer) (err error) {
		if k.load, err = data(); err != nil {
			return err
		}
		if k.readers < 1 || k.readers > 1024 || k.time < time.Second || k.rate < 0 {
			return usageError{errors.New("--readers must be from 1 to 1024, --for at least 1s, --rate not negative")}
		}
		all, err := f.contestants(out, "1")
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%d readers for %v, %.0f samples a second into %d series of %d samples\n", k.readers, k.time, k.rate, k.load.series, k.load.samples)
		return table(ctx, out, all, "server\tqueries/s\tp50 ms\tp99 ms\tsamples/s\tCPU ms/s\t", func(t io.Writer, c contestant) error {
			r, err := k.measure(ctx, c)
			if err == nil {
				fmt.Fprintf(t, "%v\t%.0f\t%.2f\t%.2f\t%.0f\t%.0f\t\n", c, r.queriesPerS, r.p50Ms, r.p99Ms, r.samplesPerS, r.cpuMsPerS)
			}
			return err
		})
	}
}

// concurrency is what is measured.
type concurrency struct {
	load    load
	readers int
	time    time.Duration
	rate    float64
}

// concurrently is what one server managed.
type concurrently struct {
	queriesPerS, p50Ms, p99Ms float64
	samplesPerS, cpuMsPerS    float64
}

func (k *concurrency) measure(ctx context.Context, c contestant) (r concurrently, err error) {
	s, err := start(ctx, c.peer)
	if err != nil {
		return r, err
	}
	defer s.stop()
	if _, err := c.writeTo(ctx, s, writer{load: k.load, perRequest: 2000, connections: 2}); err != nil {
		return r, err
	}
	before, err := s.process().usage()
	if err != nil {
		return r, err
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, k.time)
	defer cancel()

	var wg sync.WaitGroup
	var more written
	var writeErr error
	if k.rate > 0 {
		wg.Go(func() { more, writeErr = k.goOnWriting(ctx, s.url+c.write) })
	}
	latencies := make([][]time.Duration, k.readers)
	errs := make([]error, k.readers)
	for i := range k.readers {
		wg.Go(func() { latencies[i], errs[i] = k.read(ctx, s.url+"/api/v1", i) })
	}
	wg.Wait()
	took := time.Since(began)
	after, err := s.process().usage()
	if err = errors.Join(append(errs, writeErr, err)...); err != nil {
		return r, err
	}
	all := slices.Concat(latencies...)
	slices.Sort(all)
	return concurrently{
		queriesPerS: float64(len(all)) / took.Seconds(), p50Ms: ms(percentile(all, 50)), p99Ms: ms(percentile(all, 99)),
		samplesPerS: float64(more.samples) / took.Seconds(), cpuMsPerS: ms(after.cpu-before.cpu) / took.Seconds(),
	}, nil
}

// goOnWriting writes what comes after the load until ctx ends.
func (k *concurrency) goOnWriting(ctx context.Context, url string) (written, error) {
	l := k.load
	l.startMs += int64(l.samples) * l.intervalMs
	l.samples = int(k.rate*k.time.Seconds())/l.series + 2 // more than there is time for
	w := writer{load: l, url: url, perRequest: 2000, connections: 1, rate: k.rate}
	done, err := w.run(ctx)
	if ctx.Err() != nil {
		err = nil // the time is over
	}
	return done, err
}

// read asks one question after the other until ctx ends.
func (k *concurrency) read(ctx context.Context, base string, from int) (latencies []time.Duration, err error) {
	client := &http.Client{Timeout: time.Minute}
	defer client.CloseIdleConnections()
	asks := concurrentQuestions(k.load)
	for i := from; ; i++ {
		q := asks[i%len(asks)]
		req, err := q.request(ctx, base, nil)
		if err != nil {
			return latencies, err
		}
		began := time.Now()
		resp, err := client.Do(req)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		if ctx.Err() != nil {
			return latencies, nil
		}
		if err != nil {
			return latencies, err
		}
		if resp.StatusCode != http.StatusOK {
			return latencies, fmt.Errorf("%s: %s", q.name, resp.Status)
		}
		latencies = append(latencies, time.Since(began))
	}
}

// concurrentQuestions are what a dashboard's panels ask.
func concurrentQuestions(l load) (some []question) {
	for _, q := range questions(l) {
		switch q.name {
		case "100 series raw", "sum by over 1,000 series", "rate[5m] of 100 series", "sum(rate[5m]) of 1,000 series", "instant sum of 1,000 series":
			some = append(some, q)
		}
	}
	return some
}
