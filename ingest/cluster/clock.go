package cluster

import (
	"sync"
	"time"
)

// Clocks. Eras, and from when on a member has all that it was sent, are times by
// clocks of machines, and are held against the times of samples. A clock that is
// wrong, or was, makes them wrong. So
//
//   - what a member tells of eras is by its clock, and is reckoned by that of who
//     hears it (see MergeRemoteState): each probe says how far apart they are;
//   - when a clock is set while the daemon runs its eras are moved by as much: what was
//     ten minutes ago still is. To who reads they are that much longer at both ends,
//     since the times of samples are by other clocks, and either may have been right;
//   - ClocksApart says by how much any time may be wrong now. Who reads takes less
//     for complete then (mcache/query).
//
// Clocks that differ by clocksAgree or less are taken for the same: as much is
// allowed for where times of members are compared.
const clocksAgree = time.Second

// ownClock notices that this machine's clock was set. The zero value is ready for use.
type ownClock struct {
	mu   sync.Mutex
	last time.Time // it was looked at, by both of its clocks
}

// look returns by how much the clock was set since the last look: forwards if that is
// more than 0. It is 0 for what clocks that are kept right are moved by. A machine that
// was suspended has its clock set forwards, as far as can be told.
func (w *ownClock) look(now time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := w.last
	w.last = now
	if last.IsZero() {
		return 0
	}
	return SetBy(last, now)
}

// SetBy is by how much this machine's clock was set between two readings of time.Now:
// forwards if that is more than 0. It is 0 for what clocks that are kept right are moved by.
func SetBy(from, to time.Time) time.Duration {
	return setBy(to.Round(0).Sub(from.Round(0)), to.Sub(from))
}

// setBy is by how much a clock was set that shows a time to have passed, where another
// one, that nobody sets, shows how much did.
func setBy(shown, passed time.Duration) time.Duration {
	if by := shown - passed; by.Abs() > clocksAgree {
		return by
	}
	return 0
}

// watchClock does what is due if this machine's clock was set.
func (c *Cluster) watchClock() {
	if by := c.clock.look(time.Now()); by != 0 {
		c.clockSet(by)
	}
}

func (c *Cluster) clockSet(by time.Duration) {
	c.o.Logger.Warn("The clock of this machine was set: what is said to be complete allows for as much, before and after each change of the members until now.", "forward_seconds", by.Seconds())
	c.history.move(by.Milliseconds())
	c.thereMu.Lock()
	for id, p := range c.there {
		if p.probe.RTT > 0 {
			p.probe.ClockAhead -= by
			c.there[id] = p
		}
	}
	c.thereMu.Unlock()
	c.compareClocks()
}

// compareClocks is called when a probe was answered, or members are others.
func (c *Cluster) compareClocks() {
	most := c.clockSkew()
	if most <= clocksAgree {
		most = 0
	}
	c.apart.Store(int64(2 * most)) // it may be between two others
}

// ClocksApart is by how much a time that a member told may be wrong; 0 while clocks
// agree. Nobody knows whose clock is right.
func (c *Cluster) ClocksApart() time.Duration {
	c.watchClock()
	return time.Duration(c.apart.Load())
}

// aheadMs is how far a member's clock is ahead of this one's; 0 if they agree, or it
// has not answered a probe.
func (c *Cluster) aheadMs(id string) int64 {
	if p, _ := c.Probe(id); p.ClockAhead.Abs() > clocksAgree {
		return p.ClockAhead.Milliseconds()
	}
	return 0
}

// Began is when a member was started, in Unix ms by this one's clock. Its ID has that by
// its own.
func (c *Cluster) Began(m Member) int64 { return m.Start() - c.aheadMs(m.ID) }

// move reckons all eras by the clock as it was set.
func (h *history) move(ms int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.eras {
		moved := &Era{From: max(1, e.From+ms), Doubt: e.Doubt + max(ms, -ms), Members: e.Members, Layout: e.Layout, used: e.used}
		if e.Until != 0 {
			moved.Until = max(moved.From, e.Until+ms)
		}
		h.replaceLocked(e, moved)
	}
}

// shift reckons eras of another member, which nobody else has, by this one's clock:
// the other's is ahead by so much.
func shift(told []*Era, aheadMs int64) {
	for _, e := range told {
		e.From = max(1, e.From-aheadMs)
		if e.Until != 0 {
			e.Until = max(e.From, e.Until-aheadMs)
		}
	}
}
