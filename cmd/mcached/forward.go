package main

import (
	"context"
	"crypto/rand"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oklog/run"

	"mcached/remotewrite/send"
	"mcached/remotewrite/wire"
)

// With --forward.url the cache stands before another store: every sample goes
// on to it, in long runs, and stays until it is acknowledged.

// openForward makes the forwarder, if there is somewhere to forward to.
func (d *daemon) openForward() error {
	f := &d.config.forward
	if f.url == "" {
		return nil
	}
	d.circle, d.forwardBy = newCircleGuard(rand.Text()), newTransport(f.http.Transport)
	client, err := send.NewClient(send.ClientOptions{
		URL: f.url, Protocol: wire.Protocol(f.protocol), Header: f.headers.header(),
		HTTP: &http.Client{Transport: d.circle.sign(d.forwardBy), Timeout: f.http.Timeout, CheckRedirect: f.http.CheckRedirect},
	})
	if err != nil {
		return err
	}
	d.forwarder, err = send.NewForwarder(send.ForwarderOptions{
		Cache: d.metrics, Client: client, Lanes: int(f.lanes), MaxDirtyAge: f.maxDirtyAge.std(), MaxPerRequest: int(f.maxSamples),
		TenancyHeader: d.config.tenancyHeader, DefaultBucket: defaultBucket, Metadata: d.writes.Describe, Logger: d.log,
	})
	if err != nil {
		return err
	}
	d.boundDirty()
	d.log.Info("Forwarding.", "url", f.url, "protocol", f.protocol.String(), "max_dirty_age", f.maxDirtyAge.std(), "max_dirty_points", d.metrics.Dirty().MaxPoints)
	return nil
}

// What a sample that waits counts for, a time and a value, be it a histogram or
// not, and the share of the budget that may wait if nobody says otherwise.
const (
	dirtyPointBytes = 16
	dirtyShare      = 8
)

// boundDirty sets how much may wait for the receiver. The budget changes, so
// this is done again and again.
func (d *daemon) boundDirty() {
	if d.forwarder == nil {
		return
	}
	n := int64(d.live.Load().forward.maxDirty)
	if n == 0 {
		n = max(d.memory.Budget()/dirtyShare, minMaxDirty)
	}
	was := d.metrics.Dirty()
	d.metrics.SetMaxDirty(nextMaxDirty(n/dirtyPointBytes, was.MaxPoints, was.Points))
}

// nextMaxDirty is the bound after `was`, 0 for none, on the way to want. When the
// budget falls, what waits already may be more than the new bound. To refuse all
// that comes until it is sent would help nobody, so the bound follows it down,
// half of the new bound ahead. It never goes up again on that way.
func nextMaxDirty(want, was, waiting int64) int64 {
	if was == 0 {
		return want
	}
	return max(want, min(was, waiting+want/2))
}

// addForwarder adds the forwarder as an actor. When it is stopped it drains
// beside the last requests, which have the same deadline.
func (d *daemon) addForwarder(g *run.Group) {
	if d.forwarder == nil {
		return
	}
	d.addLoop(g, func(ctx context.Context) error {
		if err := d.forwarder.Run(ctx); err != nil {
			return err
		}
		ctx, cancel := context.WithDeadline(context.Background(), d.deadline)
		defer cancel()
		d.forwarder.Drain(ctx)
		return nil
	})
}

// lastDrain is what the drain after the last request has at least, however
// long that took.
const lastDrain = 500 * time.Millisecond

// drain sends what is left when nothing more can come, and says what it could
// not send.
func (d *daemon) drain() {
	if d.forwarder == nil {
		return
	}
	deadline := time.Now().Add(lastDrain)
	if d.deadline.After(deadline) {
		deadline = d.deadline
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	left := d.forwarder.Drain(ctx)
	st := d.forwarder.Stats()
	if left.Points == 0 {
		d.log.Info("Everything was forwarded.", "samples", st.Sent, "rejected", st.Rejected, "requests", st.Requests)
		return
	}
	d.log.Warn("Not everything was forwarded.", "left_samples", left.Points, "oldest_age", left.OldestAge.Round(time.Millisecond),
		"samples", st.Sent, "rejected", st.Rejected, "snapshot", d.config.snapshotPath)
}

// forwardedBy is the header that names the daemons whose samples a request may
// hold. Without it two daemons that forward to each other would never stop.
const forwardedBy = "X-Mcached-Forwarded-By"

// circleGuard detects samples that this daemon has forwarded before.
type circleGuard struct {
	id string // of this process, drawn by chance

	mu       sync.Mutex
	upstream []string // the ids that requests to us came with, the latest last
}

// maxUpstream bounds the ids that a daemon remembers and passes on.
const maxUpstream = 64

func newCircleGuard(id string) *circleGuard { return &circleGuard{id: id} }

// refuse answers requests that hold this daemon's own samples, and remembers
// who forwards to it.
func (c *circleGuard) refuse(next http.Handler) http.Handler {
	if c == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if by := r.Header.Get(forwardedBy); by != "" {
			ids := strings.Split(by, ",")
			if slices.Contains(ids, c.id) {
				http.Error(w, "mcached: forwarding loop: this daemon has forwarded these samples already; --forward.url of this one, or of one behind it, leads back here", http.StatusLoopDetected)
				return
			}
			c.remember(ids)
		}
		next.ServeHTTP(w, r)
	})
}

func (c *circleGuard) remember(ids []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		if len(id) != len(c.id) || slices.Contains(c.upstream, id) {
			continue
		}
		if len(c.upstream) == maxUpstream {
			c.upstream = slices.Delete(c.upstream, 0, 1)
		}
		c.upstream = append(c.upstream, strings.Clone(id))
	}
}

// sign adds the header to what goes out.
func (c *circleGuard) sign(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		c.mu.Lock()
		by := strings.Join(append([]string{c.id}, c.upstream...), ",")
		c.mu.Unlock()
		r = r.Clone(r.Context())
		r.Header.Set(forwardedBy, by)
		return next.RoundTrip(r)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
