package remotewrite

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"mcached/mcache"
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
	runs   []int    // places in out, by bucket
	series []Series // of the request in hand
	header http.Header
	holds  holds
}

// everything is due.
var everything = mcache.Due{Sealed: true, Since: mcache.AllTicks}

// run visits the shards one by one, at even distances, so that each is visited
// roundsPerAge times while a point grows old. n is the number of the lane.
func (l *lane) run(ctx context.Context, n int) {
	gap := l.f.o.MaxDirtyAge / roundsPerAge / time.Duration(len(l.shards))
	timer := time.NewTimer(gap * time.Duration(n) / time.Duration(len(l.f.lanes)))
	defer timer.Stop()
	for i := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
			l.passAll(ctx, everything)
		case <-timer.C:
			began := time.Now()
			_ = l.pass(ctx, l.shards[i], l.f.due()) // it fails when ctx has ended
			i = (i + 1) % len(l.shards)
			timer.Reset(max(gap-time.Since(began), 0))
		}
	}
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

func (l *lane) passAll(ctx context.Context, due mcache.Due) error {
	for _, s := range l.shards {
		if err := l.pass(ctx, s, due); err != nil {
			return err
		}
	}
	return nil
}

// drain passes over everything until nothing is held any more.
func (l *lane) drain(ctx context.Context) {
	for l.passAll(ctx, everything) == nil {
		rest, held := l.holds.first(l.f.age.read())
		if !held || wait(ctx, rest) != nil {
			return
		}
	}
}

// pass sends what is due of a shard. Its error is that of ctx; what was not
// sent is dirty again.
func (l *lane) pass(ctx context.Context, shard int, due mcache.Due) error {
	c := l.f.o.Cache
	defer l.settle(shard)
	var cursor uint32
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return err
		}
		due.Without = l.holds.now(l.f.age.read())
		more = c.Collect(shard, &cursor, due, l.f.o.MaxPerRequest, &l.out)
		if l.out.Len() == 0 {
			continue
		}
		points := int64(l.out.Points())
		l.f.counters.inFlight.Add(points)
		err := l.deliver(ctx)
		l.f.counters.inFlight.Add(-points)
		l.f.counters.runs.Add(uint64(l.out.Len()))
		if err != nil {
			c.Return(&l.out)
			return err
		}
		c.Acknowledge(&l.out)
	}
	return nil
}

func (l *lane) settle(shard int) {
	l.f.o.Cache.Settle(shard)
	l.settled.Store(int64(l.f.age.read()))
}

// settleIfStuck settles one shard after the other while the lane is busy with
// a receiver that does not answer: without that nobody would learn how old the
// oldest dirty point is just when it matters.
func (l *lane) settleIfStuck() {
	if l.f.age.read()-time.Duration(l.settled.Load()) < l.f.o.MaxDirtyAge/roundsPerAge {
		return
	}
	l.f.o.Cache.Settle(l.shards[l.next%len(l.shards)])
	l.next++
}

// deliver sends all of out, one bucket after the other, but what is to be kept.
func (l *lane) deliver(ctx context.Context) error {
	l.runs = l.runs[:0]
	one := true
	for i := range l.out.Len() {
		l.runs = append(l.runs, i)
		one = one && l.out.Bucket(i) == l.out.Bucket(0)
	}
	if !one {
		slices.SortStableFunc(l.runs, func(a, b int) int { return strings.Compare(l.out.Bucket(a), l.out.Bucket(b)) })
	}
	defer func() { clear(l.series[:cap(l.series)]) }() // they are views that end with out
	for rest := l.runs; len(rest) > 0; {
		bucket := l.out.Bucket(rest[0])
		n := l.fill(bucket, rest)
		done, err := l.request(ctx, bucket, l.series)
		switch {
		case err == nil:
		case errors.Is(err, errHeld):
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

// fill makes series of the first of runs, as many as are of the bucket and fit
// a request, and returns their number.
func (l *lane) fill(bucket string, runs []int) int {
	l.series = l.series[:0]
	bytes := 0
	described := ""
	var meta Metadata // of the metric described
	v2 := l.f.o.Client.Protocol() == V2
	for n, i := range runs {
		r := l.out.Run(i)
		bytes += runBytes(&r)
		if r.Bucket != bucket || n > 0 && bytes > l.f.o.MaxRequestBytes {
			break
		}
		s := Series{Labels: r.Labels, Samples: r.Samples, Starts: r.Starts, Records: r.Records}
		if v2 {
			if name := nameOf(r.Labels); n == 0 || name != described {
				meta, _ = l.f.o.Metadata(bucket, name)
				described = name
			}
			s.Metadata = meta
		}
		l.series = append(l.series, s)
	}
	return len(l.series)
}

// sampleSendBytes is about what a sample takes in a request: two tags, a
// length, 8 bytes of value and 6 of time.
const sampleSendBytes = 18

// runBytes is about what a run takes in a request of protocol 1.0.
func runBytes(r *mcache.OutRun) int {
	n := sampleSendBytes * len(r.Samples)
	for _, l := range r.Labels {
		n += labelBytes(l) + 2
	}
	for _, x := range r.Records {
		n += len(x.Value) + 4
	}
	return n
}

func nameOf(ls []mcache.Label) string {
	for _, l := range ls {
		if l.Name == metricName {
			return l.Value
		}
	}
	return ""
}

// maxSplits bounds how often one request is cut in two. A single bad point
// among 25,000 takes 15 of them.
const maxSplits = 100

// piece is a part of a request.
type piece struct {
	series []Series
	first  int // place of the first of them in the request
}

// request sends series of one bucket until the receiver has taken or rejected
// every point. Receivers of protocol 1.0 take all of a request or nothing: for
// one bad point they would lose all the good ones beside it. So a request that
// was rejected is cut in two, and so on, until what is bad is alone, or
// maxSplits says that there is no end to it. If the bucket comes to be held,
// which is errHeld, done is how many series were dealt with.
func (l *lane) request(ctx context.Context, bucket string, series []Series) (done int, err error) {
	l.header = nil
	if name := l.f.o.TenancyHeader; name != "" && bucket != l.f.o.DefaultBucket {
		l.header = http.Header{http.CanonicalHeaderKey(name): {bucket}}
	}
	c := &l.f.counters
	splits := 0
	for waiting := []piece{{series, 0}}; len(waiting) > 0; {
		p := waiting[len(waiting)-1]
		waiting = waiting[:len(waiting)-1]
		points := 0
		for i := range p.series {
			points += p.series[i].points()
		}
		r, err := l.send(ctx, bucket, p.series)
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
			a, b := halves(p.series, points)
			waiting = append(waiting, piece{b, p.first + len(p.series) - len(b)}, piece{a, p.first})
			continue
		}
		written := min(r.Written, points)
		c.sent.Add(uint64(written))
		c.rejected.Add(uint64(points - written))
		l.f.rejects.warn("The receiver rejects what it is sent; it is lost to it.", "points", points-written,
			"series", describe(p.series[0].Labels), "err", err)
	}
	return len(series), nil
}

// halves cuts series of so many points, more than one, in two, as evenly as
// whole series allow. A single series is cut in itself, in order of time.
func halves(series []Series, points int) (a, b []Series) {
	if len(series) > 1 {
		n, at := 0, 0
		for at < len(series)-1 && (at == 0 || 2*(n+series[at].points()) <= points) {
			n += series[at].points()
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

// send tries until the receiver has taken or rejected series, or ctx has ended.
// errHeld says that it does not take any of the bucket for now.
func (l *lane) send(ctx context.Context, bucket string, series []Series) (Result, error) {
	c := &l.f.counters
	backoff := l.f.o.MinBackoff
	for {
		r, err := l.f.o.Client.Send(ctx, series, l.header)
		c.requests.Add(uint64(r.Requests))
		c.bytes.Add(uint64(r.Bytes))
		if err == nil || errors.Is(err, ErrRejected) {
			now := l.f.o.Now()
			c.lastSuccess.Store(&now)
			if c.failing.Swap(false) {
				l.f.o.Logger.Info("The receiver takes again what it is sent.")
			}
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
		l.f.away.warn("The receiver is not available; what it did not take is kept and sent again.", "err", err)
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
