package send

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// lane owns a set of shards and sends their dirty points, one request at a
// time: no point of a series overtakes another.
type lane struct {
	f      *Forwarder
	shards []int
	wake   chan struct{} // a pass over everything is asked for

	settled atomic.Int64 // when a shard was settled last: ns since the forwarder began
	next    int          // place in shards of the one that settleIfStuck looks at; the watch's

	out    mcache.Outgoing
	points int           // that were collected
	passes []mcache.Pass // of a visit
	runs   []int         // places in out, by bucket
	parcel runs          // of the request in hand
	header http.Header
	holds  holds
	left   bool // a visit has left what may be of buckets that were held
}

// everything is due.
var everything = mcache.Due{Sealed: true, Since: mcache.AllTicks}

// run visits the shards, so that each is visited roundsPerAge times while a
// point grows old. n is the number of the lane. What a round finds goes in few
// requests: if one holds it, all shards are visited at once, and if many are
// needed, one shard after the other at even distances.
func (l *lane) run(ctx context.Context, n int) {
	round := l.f.o.MaxDirtyAge / roundsPerAge
	timer := time.NewTimer(round * time.Duration(n) / time.Duration(len(l.f.lanes)))
	defer timer.Stop()
	span := len(l.shards)       // how many are visited at once
	points, busiest := 0.0, 0.0 // of this round, and of the last ones
	for at := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
			_ = l.visit(ctx, l.shards, everything) // it fails when ctx has ended, as below
		case <-timer.C:
			began := time.Now()
			end := min(at+span, len(l.shards))
			l.points = 0
			_ = l.visit(ctx, l.shards[at:end], l.f.due())
			points += float64(l.points)
			rest := round * time.Duration(end-at) / time.Duration(len(l.shards))
			if at = end; at == len(l.shards) {
				busiest = max(points, busiest*(1-1.0/roundsPerAge))
				was := span
				if span = l.f.span(busiest, len(l.shards)); span < was {
					rest = 0 // else the last shard would wait for two rounds
				}
				at, points = 0, 0
			}
			timer.Reset(max(rest-time.Since(began), 0))
		}
	}
}

// span is how many of the shards of a lane to visit at once when a round finds
// so many points.
func (f *Forwarder) span(points float64, shards int) int {
	return max(1, min(shards, int(float64(f.o.MaxPerRequest)/max(points, 1)*float64(shards))))
}

// due is what a visit sends. The next visit comes one round from now, and may
// take another to be done: what would be too old by then has to go.
func (f *Forwarder) due() mcache.Due {
	d := mcache.Due{Sealed: true}
	limit := f.age.read() - f.o.MaxDirtyAge*(roundsPerAge-2)/roundsPerAge
	if limit >= 0 {
		d.Since = f.tickAt(limit)
	}
	return d
}

// drain visits everything until a visit leaves nothing. Of a bucket that was held by one,
// and is not any more, something is left.
func (l *lane) drain(ctx context.Context) {
	for l.left = true; l.left; {
		l.left = false
		if l.visit(ctx, l.shards, everything) != nil {
			return
		}
		if rest, held := l.holds.first(l.f.age.read()); l.left && held && wait(ctx, rest) != nil {
			return
		}
	}
}

// visit sends what is due of shards. Its error is that of ctx; what was not
// sent is dirty again.
func (l *lane) visit(ctx context.Context, shards []int, due mcache.Due) error {
	c := l.f.o.Cache
	l.passes = append(l.passes[:0], make([]mcache.Pass, len(shards))...)
	settled := 0 // so many of shards are
	settle := func(end int) {
		for ; settled < end; settled++ {
			c.Settle(shards[settled], &l.passes[settled])
			l.settled.Store(int64(l.f.age.read()))
		}
	}
	defer func() { settle(len(shards)) }()
	for k, shard := range shards {
		for more := true; more; {
			if err := ctx.Err(); err != nil {
				c.Return(&l.out)
				return err
			}
			due.Without = l.holds.now(l.f.age.read())
			l.left = l.left || len(due.Without) > 0
			more = c.Collect(shard, &l.passes[k], due, l.f.o.MaxPerRequest, &l.out)
			if l.out.Points() < l.f.o.MaxPerRequest {
				continue
			}
			if err := l.flush(ctx); err != nil {
				return err
			}
			settle(k)
		}
	}
	return l.flush(ctx)
}

// flush sends what was collected.
func (l *lane) flush(ctx context.Context) error {
	c, counters := l.f.o.Cache, &l.f.counters
	points := l.out.Points()
	l.points += points
	counters.runs.Add(uint64(l.out.Len()))
	counters.inFlight.Add(int64(points))
	err := l.deliver(ctx)
	counters.inFlight.Add(-int64(points))
	if err != nil {
		c.Return(&l.out)
		return err
	}
	c.Acknowledge(&l.out)
	return nil
}

// settleIfStuck settles one shard after the other while the lane is busy with
// a receiver that does not answer: without that nobody would learn how old the
// oldest dirty point is just when it matters.
func (l *lane) settleIfStuck() {
	if l.f.age.read()-time.Duration(l.settled.Load()) < l.f.o.MaxDirtyAge/roundsPerAge {
		return
	}
	l.f.o.Cache.Settle(l.shards[l.next%len(l.shards)], nil)
	l.next++
}

// deliver sends all of out, one bucket after the other, but what is to be kept.
func (l *lane) deliver(ctx context.Context) error {
	l.runs = l.runs[:0]
	for i := range l.out.Len() {
		l.runs = append(l.runs, i)
	}
	if !l.out.OneBucket() {
		slices.SortStableFunc(l.runs, func(a, b int) int { return strings.Compare(l.out.Bucket(a), l.out.Bucket(b)) })
	}
	for rest := l.runs; len(rest) > 0; {
		bucket := l.out.Bucket(rest[0])
		n := l.fill(bucket, rest)
		done, err := l.request(ctx, bucket, &l.parcel)
		l.parcel.forget()
		switch {
		case err == nil:
		case errors.Is(err, errHeld):
			l.left = true
			for n < len(rest) && l.out.Bucket(rest[n]) == bucket {
				n++
			}
			for _, i := range rest[done:n] {
				l.out.Keep(i)
			}
		default:
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// fill makes a parcel of the first of places, as many as are of the bucket and fit
// a request, and returns their number.
func (l *lane) fill(bucket string, places []int) int {
	p := &l.parcel
	p.out, p.places, p.sum = &l.out, places, l.out.Points()
	p.metadata = func(metric string) wire.Metadata {
		m, _ := l.f.o.Metadata(bucket, metric)
		return m
	}
	labels, bytes := l.out.Sizes()
	if len(places) == l.out.Len() && l.out.OneBucket() && sendBytes(p.sum, labels, bytes) <= l.f.o.MaxRequestBytes {
		return len(places)
	}
	n, points, sum := 0, 0, 0
	for _, i := range places {
		r := l.out.Run(i)
		sum += runBytes(&r)
		if r.Bucket != bucket || n > 0 && sum > l.f.o.MaxRequestBytes {
			break
		}
		n, points = n+1, points+len(r.Samples)+len(r.Records)
	}
	p.places, p.sum = places[:n], points
	return n
}

const (
	// sampleSendBytes is about what a sample takes in a request: two tags, a
	// length, 8 bytes of value and 6 of time.
	sampleSendBytes = 18
	// labelSendBytes is the most that a label takes in a request of protocol 1.0
	// beside name and value: three tags and lengths.
	labelSendBytes = 12
)

// sendBytes is about what points take in a request of protocol 1.0, with so many
// labels, the bytes of which, and of histograms, are so many.
func sendBytes(points, labels, bytes int) int {
	return sampleSendBytes*points + labelSendBytes*labels + bytes
}

func runBytes(r *mcache.OutRun) int {
	bytes := r.Bytes
	for _, x := range r.Records {
		bytes += len(x.Value)
	}
	return sendBytes(len(r.Samples)+len(r.Records), len(r.Labels), bytes)
}

// maxSplits bounds how often one request is cut in two. A single bad point
// among 25,000 takes 15 of them.
const maxSplits = 100

// piece is a part of a request.
type piece struct {
	parcel
	first int // place of the first of its series in the request
}

// request sends a parcel of one bucket until the receiver has taken or rejected
// every point. Receivers of protocol 1.0 take all of a request or nothing: for
// one bad point they would lose all the good ones beside it. So a request that
// was rejected is cut in two, and so on, until what is bad is alone, or
// maxSplits says that there is no end to it. If the bucket comes to be held,
// which is errHeld, done is how many series were dealt with.
func (l *lane) request(ctx context.Context, bucket string, all parcel) (done int, err error) {
	l.header = nil
	if name := l.f.o.TenancyHeader; name != "" && bucket != l.f.o.DefaultBucket {
		l.header = http.Header{http.CanonicalHeaderKey(name): {bucket}}
	}
	c := &l.f.counters
	splits := 0
	for waiting := []piece{{all, 0}}; len(waiting) > 0; {
		p := waiting[len(waiting)-1]
		waiting = waiting[:len(waiting)-1]
		points := p.points()
		r, err := l.send(ctx, bucket, p.parcel)
		switch {
		case err == nil:
			c.sent.Add(uint64(points))
			continue
		case !errors.Is(err, ErrRejected):
			return p.first, err
		}
		if r.Written == 0 && points > 1 && splits < maxSplits {
			splits++
			c.splits.Add(1)
			a, b := halves(p.series(), points)
			waiting = append(waiting, piece{seriesList(b), p.first + p.len() - len(b)}, piece{seriesList(a), p.first})
			continue
		}
		written := min(r.Written, points)
		c.sent.Add(uint64(written))
		c.rejected.Add(uint64(points - written))
		l.f.rejects.warn("The receiver rejects samples; they are not sent again.", "points", points-written,
			"series", wire.Describe(p.series()[0].all), "err", err)
	}
	return all.len(), nil
}

// halves cuts series of so many points, more than one, in two, as evenly as
// whole series allow. A single series is cut in itself, in order of time.
func halves(series []Series, points int) (a, b []Series) {
	if len(series) > 1 {
		n, at := 0, 0
		for at < len(series)-1 && (at == 0 || 2*(n+series[at].Points()) <= points) {
			n += series[at].Points()
			at++
		}
		return series[:at], series[at:]
	}
	s := series[0]
	first, second := s, s
	if n := len(s.Samples); n > 1 || n == 1 && len(s.Records) == 0 {
		half := n / 2
		first.Samples, second.Samples = s.Samples[:half], s.Samples[half:]
		if len(s.Starts) > 0 {
			at := min(half, len(s.Starts))
			first.Starts, second.Starts = s.Starts[:at], s.Starts[at:]
		}
		first.Records = nil
	} else if n == 1 {
		first.Records, second.Samples, second.Starts = nil, nil, nil
	} else {
		half := len(s.Records) / 2
		first.Records, second.Records = s.Records[:half], s.Records[half:]
	}
	return []Series{first}, []Series{second}
}

// send tries until the receiver has taken or rejected a parcel, or ctx has ended.
// errHeld says that it does not take any of the bucket for now.
func (l *lane) send(ctx context.Context, bucket string, what parcel) (Result, error) {
	c := &l.f.counters
	backoff := l.f.o.MinBackoff
	for {
		r, err := l.f.o.Client.send(ctx, what, l.header)
		c.requests.Add(uint64(r.Requests))
		c.bytes.Add(uint64(r.Bytes))
		if err == nil || errors.Is(err, ErrRejected) {
			now := l.f.o.Now()
			c.lastSuccess.Store(&now)
			if c.failing.Swap(false) {
				l.f.o.Logger.Info("The receiver takes again what it is sent.")
			}
			l.f.redirect.Store(nil)
			l.holds.end(bucket)
			return r, err
		}
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		c.retries.Add(1)
		if l.f.o.TenancyHeader != "" && isTenants(r.Status) {
			l.holds.begin(bucket, l.f.age.read(), r.RetryAfter, &l.f.o)
			l.f.away.warn("The receiver does not take what is of a bucket; it is kept and sent again.", "bucket", bucket, "err", err)
			return r, errHeld
		}
		c.failing.Store(true)
		l.f.sayAway(err)
		if err := wait(ctx, max(backoff, r.RetryAfter)); err != nil {
			return r, err
		}
		backoff = min(2*backoff, l.f.o.MaxBackoff)
	}
}

// wait sleeps, or returns the error of ctx when that ends first.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
