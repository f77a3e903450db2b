package send

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// ForwarderOptions configure a Forwarder. The zero value of a field means its default.
type ForwarderOptions struct {
	// Cache whose dirty points are sent. It must have been made with
	// mcache.Options.WriteBack. Required.
	Cache *mcache.Cache
	// Client of the receiver. Required.
	Client *Client
	// Lanes send at the same time. Default 2; never more than the cache has shards.
	Lanes int
	// MaxDirtyAge is how long a point may wait before it is sent. Default 1 minute.
	MaxDirtyAge time.Duration
	// MaxPerRequest is how many points a request holds, but for a part of a
	// series. Default 25,000.
	MaxPerRequest int
	// MaxRequestBytes bounds a request before compression, but for its first
	// series. Default 8 MiB.
	MaxRequestBytes int
	// MinBackoff is slept after a first failure, and doubled for each that
	// follows, up to MaxBackoff. Defaults 30 ms and 5 s, as Prometheus has them.
	MinBackoff, MaxBackoff time.Duration
	// TenancyHeader names the header that names the bucket of a request.
	// Default: none, all buckets go the same way.
	TenancyHeader string
	// DefaultBucket goes without TenancyHeader. Default "default".
	DefaultBucket string
	// Metadata tells what is known of a metric. Default: nothing.
	Metadata func(bucket, metric string) (wire.Metadata, bool)
	// Now is the clock; only distances between its times matter. Default time.Now.
	Now func() time.Time
	// Logger is told what the receiver refuses. Default: nobody.
	Logger *slog.Logger
}

// Forwarder sends what a cache holds and no downstream store has acknowledged
// yet. It is run by one goroutine, and its Stats may be read by any.
type Forwarder struct {
	o     ForwarderOptions
	age   stopwatch
	tick  time.Duration // unit of the cache's coarse clock
	lanes []*lane

	away, rejects sparseLog                     // for the two kinds of trouble
	redirect      atomic.Pointer[RedirectError] // that was said; nil if it took something since

	counters forwardCounters
}

// ticksPerAge is how finely a point's age is known, as a part of MaxDirtyAge;
// roundsPerAge how often each shard is looked at.
const (
	ticksPerAge  = 64
	roundsPerAge = 8
	// minTick keeps the ticks of 13 years within 32 bits.
	minTick = 100 * time.Millisecond
	// kickGap is the least time between two passes that the cache asked for.
	kickGap = 100 * time.Millisecond
)

// NewForwarder returns a Forwarder that sends nothing until it is run.
func NewForwarder(o ForwarderOptions) (*Forwarder, error) {
	if o.Cache == nil || o.Client == nil {
		return nil, errors.New("a forwarder needs a cache and a client")
	}
	o.Lanes = cmp.Or(o.Lanes, 2)
	o.MaxDirtyAge = cmp.Or(o.MaxDirtyAge, time.Minute)
	o.MaxPerRequest = cmp.Or(o.MaxPerRequest, 25_000)
	o.MaxRequestBytes = cmp.Or(o.MaxRequestBytes, 8<<20)
	o.MinBackoff = cmp.Or(o.MinBackoff, 30*time.Millisecond)
	o.MaxBackoff = cmp.Or(o.MaxBackoff, 5*time.Second)
	if o.DefaultBucket == "" {
		o.DefaultBucket = "default"
	}
	if o.Metadata == nil {
		o.Metadata = func(string, string) (wire.Metadata, bool) { return wire.Metadata{}, false }
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Lanes < 1 || o.MaxDirtyAge < 0 || o.MaxPerRequest < 1 || o.MaxRequestBytes < 1 || o.MinBackoff < 0 || o.MaxBackoff < o.MinBackoff {
		return nil, fmt.Errorf("lanes, age, points and bytes of a request and back-off must be positive, got %d, %v, %d, %d and %v to %v",
			o.Lanes, o.MaxDirtyAge, o.MaxPerRequest, o.MaxRequestBytes, o.MinBackoff, o.MaxBackoff)
	}
	f := &Forwarder{o: o, tick: max(o.MaxDirtyAge/ticksPerAge, minTick), age: stopwatch{now: o.Now, last: o.Now()}}
	f.away.log, f.away.now = o.Logger, o.Now
	f.rejects.log, f.rejects.now = o.Logger, o.Now
	shards := o.Cache.Shards()
	for i := range min(o.Lanes, shards) {
		l := &lane{f: f, wake: make(chan struct{}, 1)}
		for s := i; s < shards; s += min(o.Lanes, shards) {
			l.shards = append(l.shards, s)
		}
		f.lanes = append(f.lanes, l)
	}
	f.setTick()
	return f, nil
}

// setTick tells the cache the time.
func (f *Forwarder) setTick() { f.o.Cache.SetTick(f.tickAt(f.age.read())) }

// tickAt is a time since the forwarder was made in the cache's coarse clock,
// which begins with 1.
func (f *Forwarder) tickAt(age time.Duration) uint32 {
	return uint32(min(age/f.tick, math.MaxUint32-2)) + 1
}

// stopwatch counts the time that goes by on a clock. It never goes back: when
// the clock is set back it goes on from there.
type stopwatch struct {
	now func() time.Time

	mu   sync.Mutex
	last time.Time
	sum  time.Duration
}

func (s *stopwatch) read() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.sum += max(now.Sub(s.last), 0)
	s.last = now
	return s.sum
}

// Run sends dirty points before they are older than MaxDirtyAge, and all of
// them when the cache asks for that, until ctx ends. It returns when its
// goroutines have; what was on its way is dirty again then.
func (f *Forwarder) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for i, l := range f.lanes {
		wg.Go(func() { l.run(ctx, i) })
	}
	f.watch(ctx)
	wg.Wait()
	return nil
}

// watch keeps the cache's clock, and wakes the lanes when the cache asks for it.
func (f *Forwarder) watch(ctx context.Context) {
	ticker := time.NewTicker(f.tick)
	defer ticker.Stop()
	rested := time.NewTimer(0)
	defer rested.Stop()
	var kick <-chan struct{} // nil for a while after each
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			f.setTick()
			for _, l := range f.lanes {
				l.settleIfStuck()
			}
		case <-rested.C:
			kick = f.o.Cache.Kick()
		case <-kick:
			f.counters.forced.Add(1)
			for _, l := range f.lanes {
				select {
				case l.wake <- struct{}{}:
				default: // it is going to look anyway
				}
			}
			kick = nil
			rested.Reset(kickGap)
		}
	}
}

// Left is what a Drain could not send.
type Left struct {
	Points    int64
	OldestAge time.Duration // of the oldest of them
}

// Drain sends all that is dirty, until nothing is or ctx ends, and returns
// what is left. Run must have returned, or never been called.
func (f *Forwarder) Drain(ctx context.Context) Left {
	var wg sync.WaitGroup
	for _, l := range f.lanes {
		wg.Go(func() { l.drain(ctx) })
	}
	wg.Wait()
	s := f.Stats()
	return Left{s.DirtyPoints, s.OldestAge}
}

// ForwardStats are counters since the Forwarder was made, and readings.
type ForwardStats struct {
	Sent     uint64 // points that the receiver took
	Rejected uint64 // points that the receiver rejected; they are not sent again
	Runs     uint64 // of points of one series each, that were collected to be sent
	Requests uint64 // of any outcome, those that detected the protocol included
	Retries  uint64 // requests that were sent again because the receiver was not available
	Splits   uint64 // requests cut in two to find what the receiver refuses
	Forced   uint64 // passes over everything that the cache asked for
	Bytes    uint64 // of request bodies, compressed

	LastSuccess time.Time // when the receiver last took or rejected something; zero if never
	InFlight    int64     // points on their way
	DirtyPoints int64     // points not acknowledged, those on their way included, but not those on standby
	Standby     int64     // points that another node forwards
	Released    uint64    // points on standby that were forwarded by another
	Promoted    uint64    // points on standby that this node took over
	OldestAge   time.Duration
	Protocol    wire.Protocol // of the next request
}

type forwardCounters struct {
	sent, rejected, runs, requests, retries, splits, forced, bytes atomic.Uint64
	released, promoted                                             atomic.Uint64 // points
	inFlight                                                       atomic.Int64
	lastSuccess                                                    atomic.Pointer[time.Time]
	failing                                                        atomic.Bool
}

// Stats reads the counters, each by itself.
func (f *Forwarder) Stats() ForwardStats {
	c := &f.counters
	dirty := f.o.Cache.Dirty()
	s := ForwardStats{
		Sent: c.sent.Load(), Rejected: c.rejected.Load(), Runs: c.runs.Load(), Requests: c.requests.Load(), Retries: c.retries.Load(),
		Splits: c.splits.Load(), Forced: c.forced.Load(), Bytes: c.bytes.Load(),
		Released: c.released.Load(), Promoted: c.promoted.Load(),
		InFlight: c.inFlight.Load(), DirtyPoints: dirty.Points - dirty.Standby, Standby: dirty.Standby, Protocol: f.o.Client.Protocol(),
	}
	if t := c.lastSuccess.Load(); t != nil {
		s.LastSuccess = *t
	}
	if dirty.OldestTick > 0 {
		s.OldestAge = f.age.read() - time.Duration(dirty.OldestTick-1)*f.tick
	}
	return s
}

// sayAway logs that the receiver did not take a request. A redirect will be
// there until somebody changes a URL, so it is said once.
func (f *Forwarder) sayAway(err error) {
	var to *RedirectError
	if !errors.As(err, &to) {
		f.away.warn("The receiver is not available; what it did not take is kept and sent again.", "err", err)
		return
	}
	if said := f.redirect.Load(); said != nil && *said == *to {
		return
	}
	if f.away.warn("The receiver redirects, which is not followed: the URL to send to must be the place itself. "+
		"What it did not take is kept and sent again.", "status", to.Status, "to", to.To) {
		f.redirect.Store(to)
	}
}

// sparseLog drops what comes too soon after the last line, and says how much
// that was with the next.
type sparseLog struct {
	log *slog.Logger
	now func() time.Time

	mu      sync.Mutex
	last    time.Time
	dropped int
}

// sparseGap is the least time between two lines.
const sparseGap = 10 * time.Second

// warn reports whether the line was not dropped.
func (s *sparseLog) warn(msg string, args ...any) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if d := now.Sub(s.last); !s.last.IsZero() && d >= 0 && d < sparseGap {
		s.dropped++
		return false
	}
	if s.dropped > 0 {
		args = append(args, "more_like_it", s.dropped)
	}
	s.last, s.dropped = now, 0
	s.log.Warn(msg, args...)
	return true
}
