package cluster

import (
	"log/slog"
	"testing"
	"time"
)

// TestSetBy: a clock that is moved a little is not set.
func TestSetBy(t *testing.T) {
	for _, c := range []struct{ shown, passed, want time.Duration }{
		{time.Minute, time.Minute, 0},
		{time.Minute + clocksAgree, time.Minute, 0},
		{time.Minute - clocksAgree, time.Minute, 0},
		{time.Hour + time.Minute, time.Minute, time.Hour},
		{time.Minute - time.Hour, time.Minute, -time.Hour},
	} {
		if got := setBy(c.shown, c.passed); got != c.want {
			t.Errorf("a clock that shows %v after %v was set by %v, want %v", c.shown, c.passed, got, c.want)
		}
	}
	var w ownClock
	now := time.Now()
	for _, at := range []time.Time{now, now.Add(24 * time.Hour), now.Add(25 * time.Hour)} {
		if by := w.look(at); by != 0 {
			t.Errorf("time passed, and the clock was set by %v", by)
		}
	}
}

// clockCluster knows the clock of one other member, a.
func clockCluster(ahead time.Duration) *Cluster {
	c := &Cluster{o: Options{Self: some(2)[1], Logger: slog.New(slog.DiscardHandler)}, there: map[string]presence{}}
	m := some(1)[0]
	c.there[m.ID] = presence{Member: m, probe: Probe{RTT: time.Millisecond, ClockAhead: ahead}}
	c.compareClocks()
	return c
}

// TestClocksApart: a difference counts until a clock was set right, from then on at once.
func TestClocksApart(t *testing.T) {
	c := clockCluster(90 * time.Second)
	if got := c.ClocksApart(); got != 180*time.Second {
		t.Errorf("clocks that differ by 90 s are %v apart", got)
	}
	c.clockSet(90 * time.Second)
	if got := c.ClocksApart(); got != 0 {
		t.Errorf("clocks of which one was set right are %v apart", got)
	}
	c.clockSet(-time.Hour)
	if got := c.ClocksApart(); got != 2*time.Hour {
		t.Errorf("clocks of which one was set back by an hour are %v apart", got)
	}
	if by := some(1)[0].Start() - c.Began(some(1)[0]); by != time.Hour.Milliseconds() {
		t.Errorf("by a clock that is an hour behind a member began %d ms earlier", by)
	}
	if self := c.o.Self; c.Began(self) != self.Start() {
		t.Error("this member began by its own clock")
	}
	clear(c.there)
	c.compareClocks()
	if got := c.ClocksApart(); got != 0 {
		t.Errorf("a clock without others is %v apart", got)
	}
	if got := clockCluster(-clocksAgree).ClocksApart(); got != 0 {
		t.Errorf("clocks that agree are %v apart", got)
	}
}

// TestErasWhileClocksDiffer: eras that another member tells of are by its clock, and are
// noted by that of who hears of them.
func TestErasWhileClocksDiffer(t *testing.T) {
	for _, ahead := range []time.Duration{-90 * time.Second, 90 * time.Second, 24 * time.Hour, 0} {
		c := clockCluster(ahead)
		other := some(1)[0]
		now := time.Now().UnixMilli()
		from, until := now-20_000, now-10_000
		told := []*Era{{From: from + ahead.Milliseconds(), Until: until + ahead.Milliseconds(), Members: owning(some(3)), Layout: Layout{Copies: 2}}}
		d := &delegate{c}
		for range 3 { // told again it is the same
			d.MergeRemoteState(encodeHistory(told, wireDrops{By: other.ID}), false)
		}
		got := c.history.since(0)
		if len(got) != 1 || got[0].From != from || got[0].Until != until {
			t.Errorf("clock ahead by %v: %+v, want one from %d until %d", ahead, got, from, until)
		}
	}
}

// TestErasWhenAClockIsSet: what was is as long ago as before, and for who reads it may
// have been at either time. Others are not told of what is doubted here.
func TestErasWhenAClockIsSet(t *testing.T) {
	for _, by := range []time.Duration{-time.Hour, time.Hour} {
		c := clockCluster(0)
		c.history.settled = true
		l := Layout{Copies: 2}
		const at, hour = int64(1_700_000_000_000), int64(3_600_000)
		set := by.Milliseconds()
		c.history.observe(at, some(3), l)
		c.history.observe(at+1000, some(2), l)
		before := c.history.since(0)
		c.clockSet(by)
		got := c.history.since(0)
		if len(got) != 2 || got[0].From != at+set || got[0].Until != at+1000+set || got[1].From != at+1000+set || got[1].Until != 0 {
			t.Fatalf("set by %v: %+v", by, got)
		}
		if got[1] != c.history.now || before[0].From != at {
			t.Errorf("set by %v: an era was changed where somebody reads it, or the one that lasts is another", by)
		}
		if told, err := decodeEras(encodeEras(c.history.told())); err != nil || told[0].From != at+set || told[0].Until != at+1000+set {
			t.Errorf("set by %v: others are told %+v, %v", by, told, err)
		}
		// Whoever lasted at either time counts.
		for ms, want := range map[int64]int{at + 1000 + set + hour: 2, at + 1001 + set + hour: 1} {
			if n := len(c.history.since(ms)); n != want {
				t.Errorf("set by %v: %d eras lasted at %d or later, want %d", by, n, ms-at, want)
			}
		}
		c.history.observe(at+set+2000, some(1), l)
		c.history.merge(at+set+3000, told(c))
		for _, e := range c.history.since(0) {
			if want := e.From < at+set+2000; (e.Doubt == hour) != want {
				t.Errorf("set by %v: an era from %d on is doubted by %d ms", by, e.From-at, e.Doubt)
			}
		}
	}
}

// told is what another member says of eras.
func told(c *Cluster) []*Era {
	list, _ := decodeEras(encodeEras(c.history.told()))
	return list
}
