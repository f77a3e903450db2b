package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// watch keeps writing samples and values and reading values, and looks at the
// daemon's memory, each millisecond.
type watch struct {
	n      *neighbour
	cancel context.CancelFunc
	wg     sync.WaitGroup

	wrote    written // below: once wg is done
	writeErr error

	mu           sync.Mutex
	stepAt       time.Time // zero before the step
	rss, want    int64     // at the step, and what is to go
	first, given time.Duration
	least        int64
	sets         int
	gets         []timed
	failed       int
	failure      error
	readErr      error
}

// timed is when a GET began, and how long it took.
type timed struct {
	at   time.Time
	took time.Duration
}

const (
	watchPause = time.Millisecond
	setPause   = 5 * time.Millisecond
	setsAtOnce = 16
	never      = -time.Millisecond
	setsFrom   = 1 << 32 // a key beyond those of fill
)

func (n *neighbour) watch(ctx context.Context) *watch {
	ctx, cancel := context.WithCancel(ctx)
	w := &watch{n: n, cancel: cancel, least: 1<<63 - 1, first: never, given: never}
	if n.rate > 0 {
		w.wg.Go(func() {
			to, err := n.receiver()
			if err == nil {
				// Taking what is left above the floor lasts half of it, slowPart a second.
				w.wrote, err = n.writer(to, (2*n.before+n.after).Seconds()+slowPart+60).run(ctx)
			}
			if ctx.Err() == nil || !errors.Is(err, context.Canceled) {
				w.writeErr = err
			}
		})
	}
	l := n.resp
	l.valueBytes, l.connections = fillValueBytes, 1
	w.wg.Go(func() {
		key := uint64(setsFrom)
		for ctx.Err() == nil {
			w.commands(ctx, &l, setPause, func(c *respConn) {
				for range setsAtOnce {
					c.set(key)
					key++
				}
			}, func(time.Time, time.Duration) { w.sets += setsAtOnce })
		}
	})
	w.wg.Go(func() {
		for ctx.Err() == nil {
			w.commands(ctx, &l, watchPause, func(c *respConn) { c.get(1) }, func(at time.Time, took time.Duration) {
				w.gets = append(w.gets, timed{at, took})
			})
		}
	})
	w.wg.Go(func() { w.look(ctx) })
	return w
}

// commands sends commands over one connection until it fails or ctx ends.
func (w *watch) commands(ctx context.Context, l *respLoad, pause time.Duration, put func(*respConn), done func(time.Time, time.Duration)) {
	c, err := l.dial(ctx)
	if err == nil {
		defer c.conn.Close()
		stop := context.AfterFunc(ctx, func() { c.conn.Close() })
		defer stop()
		for err == nil {
			put(c)
			began := time.Now()
			if err = c.roundTrip(); err == nil {
				w.mu.Lock()
				done(began, time.Since(began))
				w.mu.Unlock()
				err = sleep(ctx, pause)
			}
		}
	}
	if ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	w.failed++
	if w.failure == nil {
		w.failure = err
	}
	w.mu.Unlock()
	_ = sleep(ctx, 10*time.Millisecond) // no flood of attempts
}

// step says that the neighbour takes its memory now.
func (w *watch) step(rss, want int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stepAt, w.rss, w.want = time.Now(), rss, want
}

// Memory that goes in one go is at least so much; less comes and goes.
const firstBytes = 8 << 20

func (w *watch) look(ctx context.Context) {
	p := process{"/proc", w.n.pid}
	s, err := w.n.read(ctx)
	for err == nil && sleep(ctx, watchPause) == nil {
		var u usage
		var free int64
		if u, err = p.usage(); err == nil {
			free, err = available(s.limit)
		}
		w.mu.Lock()
		if since := time.Since(w.stepAt); err == nil && !w.stepAt.IsZero() {
			w.least = min(w.least, free)
			if w.first < 0 && u.rssBytes <= w.rss-firstBytes {
				w.first = since
			}
			if w.given < 0 && u.rssBytes <= w.rss-w.want {
				w.given = since
			}
		}
		w.mu.Unlock()
	}
	if ctx.Err() == nil {
		w.mu.Lock()
		w.readErr = err
		w.mu.Unlock()
	}
}

// stop ends all of it. It may be called twice.
func (w *watch) stop() {
	w.cancel()
	w.wg.Wait()
}

// report stops, and fills in what was seen.
func (w *watch) report(r *neighbourReport) error {
	w.stop()
	if err := w.readErr; err != nil {
		return err
	}
	if w.writeErr != nil {
		w.failed++
		w.failure = errors.Join(w.failure, fmt.Errorf("remote write: %w", w.writeErr))
	}
	r.LeastBytes = w.least
	r.FirstMs, r.GivenMs = ms(w.first), ms(w.given)
	r.Samples, r.Writes, r.WritesRefused = w.wrote.samples, w.wrote.requests, w.wrote.retries
	r.WriteMsP99 = ms(percentile(w.wrote.latencies, 99))
	if k := len(w.wrote.latencies); k > 0 {
		r.SlowestWriteMs = ms(w.wrote.latencies[k-1])
	}
	r.Sets, r.Gets, r.Failed = w.sets, len(w.gets), w.failed
	if w.failure != nil {
		r.FirstFailure = w.failure.Error()
	}
	slowest := func(from, to time.Time) float64 {
		var took time.Duration
		for _, g := range w.gets {
			if end := g.at.Add(g.took); end.After(from) && g.at.Before(to) {
				took = max(took, g.took)
			}
		}
		return ms(took)
	}
	r.SlowestGetBefore = slowest(w.stepAt.Add(-time.Second), w.stepAt.Add(-time.Millisecond))
	r.SlowestGetAfterMs = slowest(w.stepAt, w.stepAt.Add(time.Second))
	if len(w.gets) == 0 || !slices.ContainsFunc(w.gets, func(g timed) bool { return g.at.After(w.stepAt) }) {
		return errors.New("no GET was answered after the neighbour had taken its memory")
	}
	return nil
}
