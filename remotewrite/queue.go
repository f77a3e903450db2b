package remotewrite

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
)

// ErrQueueClosed says that a Queue takes nothing any more.
var ErrQueueClosed = errors.New("remotewrite: the queue is closed")

// QueueOptions configure a Queue. The zero value of a field means its default.
type QueueOptions struct {
	Client *Client // required
	// Lanes send at the same time. The series of one label set all go
	// through one lane, in order. Default 2.
	Lanes int
	// MaxSamples waiting in a lane, or on the way from it. Default 20,000.
	MaxSamples int
	// MaxPerRequest samples of a request. Default 2,000.
	MaxPerRequest int
}

// Queue collects series into requests of a useful size and sends them. It is
// safe for concurrent use.
//
//	Put ──by labels──▶ lane ──requests──▶ Client.Send ──▶ done
//
// The bound is on samples: a Put that would exceed it waits, so that a
// receiver that does not keep up slows down who writes to it.
type Queue struct {
	o      QueueOptions
	seed   maphash.Seed
	lanes  []lane
	cancel context.CancelFunc // ends what is being sent
	wg     sync.WaitGroup
}

type lane struct {
	mu      sync.Mutex
	changed sync.Cond // items, samples or closed
	items   []item
	samples int // in items, and on the way
	closed  bool
}

type item struct {
	series Series
	done   func(error)
}

// weight counts a series without samples as one, so that those have a bound, too.
func (i item) weight() int { return max(1, len(i.series.Samples)) }

// NewQueue starts the goroutines of a Queue; Close ends them.
func NewQueue(o QueueOptions) (*Queue, error) {
	if o.Client == nil {
		return nil, errors.New("remotewrite: a queue needs a client")
	}
	def(&o.Lanes, 2)
	def(&o.MaxSamples, 20_000)
	def(&o.MaxPerRequest, 2_000)
	if o.Lanes < 1 || o.MaxSamples < 1 || o.MaxPerRequest < 1 {
		return nil, fmt.Errorf("remotewrite: lanes, samples and samples per request must be positive, got %d, %d and %d", o.Lanes, o.MaxSamples, o.MaxPerRequest)
	}
	ctx, cancel := context.WithCancel(context.Background())
	q := &Queue{o: o, seed: maphash.MakeSeed(), lanes: make([]lane, o.Lanes), cancel: cancel}
	for i := range q.lanes {
		l := &q.lanes[i]
		l.changed.L = &l.mu
		q.wg.Go(func() { q.run(ctx, l) })
	}
	return q, nil
}

// Put adds s, which must not change until done has been called, from another
// goroutine, with nil or why s was not written. It waits while the queue is
// full, until ctx ends. When Put returns an error, done is not called. A
// series of more samples than MaxSamples is taken when the lane is empty.
func (q *Queue) Put(ctx context.Context, s Series, done func(error)) error {
	l := &q.lanes[q.lane(s)]
	stop := context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.changed.Broadcast()
	})
	defer stop()
	it := item{s, done}
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.closed && ctx.Err() == nil && l.samples > 0 && l.samples+it.weight() > q.o.MaxSamples {
		l.changed.Wait()
	}
	switch {
	case l.closed:
		return ErrQueueClosed
	case ctx.Err() != nil:
		return ctx.Err()
	}
	l.items = append(l.items, it)
	l.samples += it.weight()
	l.changed.Broadcast()
	return nil
}

func (q *Queue) lane(s Series) int {
	var h maphash.Hash
	h.SetSeed(q.seed)
	for _, l := range s.Labels {
		h.WriteString(l.Name)
		h.WriteByte(0xff)
		h.WriteString(l.Value)
		h.WriteByte(0xff)
	}
	return int(h.Sum64() % uint64(len(q.lanes)))
}

// Close takes nothing more, sends what is waiting, and returns when that is
// done. When ctx ends first, what is left fails with the error of ctx.
// Every done has been called when Close returns.
func (q *Queue) Close(ctx context.Context) error {
	for i := range q.lanes {
		l := &q.lanes[i]
		l.mu.Lock()
		l.closed = true
		l.changed.Broadcast()
		l.mu.Unlock()
	}
	stop := context.AfterFunc(ctx, q.cancel)
	q.wg.Wait()
	q.cancel()
	if !stop() {
		return ctx.Err()
	}
	return nil
}

// run sends the items of a lane until it is closed and empty.
func (q *Queue) run(ctx context.Context, l *lane) {
	var batch []item
	var series []Series
	for {
		batch = l.take(batch[:0], q.o.MaxPerRequest)
		if len(batch) == 0 {
			return
		}
		series = series[:0]
		n := 0
		for _, it := range batch {
			series = append(series, it.series)
			n += it.weight()
		}
		_, err := q.o.Client.Send(ctx, series)
		for _, it := range batch {
			if it.done != nil {
				it.done(err)
			}
		}
		clear(series)
		clear(batch)
		l.mu.Lock()
		l.samples -= n
		l.changed.Broadcast()
		l.mu.Unlock()
	}
}

// take waits for items and moves as many to dst as make a request. It returns
// none when the lane is closed and empty.
func (l *lane) take(dst []item, maxSamples int) []item {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.items) == 0 && !l.closed {
		l.changed.Wait()
	}
	n, samples := 0, 0
	for n < len(l.items) {
		samples += l.items[n].weight()
		if n > 0 && samples > maxSamples {
			break
		}
		n++
	}
	dst = append(dst, l.items[:n]...)
	rest := copy(l.items, l.items[n:])
	clear(l.items[rest:])
	l.items = l.items[:rest]
	return dst
}
