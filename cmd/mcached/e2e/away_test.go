package e2e

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"
)

// awayTime is how long the receiver of TestE2EReceiverAway is away: long enough
// for what may wait to be used up, and for every time-out there is. For more,
// set MCACHED_TEST_AWAY=5m.
func awayTime(t testing.TB) time.Duration {
	if s := os.Getenv("MCACHED_TEST_AWAY"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatal("MCACHED_TEST_AWAY:", err)
		}
		return d
	}
	if testing.Short() {
		return 10 * time.Second
	}
	return 30 * time.Second
}

// TestE2EReceiverAway: the receiver's process ends under load and comes back
// after half a minute. At any time all that was acknowledged is read from
// the daemon or from the receiver, though memory is short; writers are told to
// come back later when too much waits; and when the receiver is back, it has
// all of it soon.
func TestE2EReceiverAway(t *testing.T) {
	t.Parallel()
	lasts := awayTime(t)
	r := newReceiver(t)
	s := startServer(t, "--self-scrape.interval=0", "--memory.size=32MiB", "--forward.url="+r.url(), "--forward.max-dirty-age=2s", "--forward.max-dirty-size=1MiB")
	const series = 100
	f := newFeed("fed", series)
	f.histograms = true
	// So that as much as may wait has come after half of the time, or a little later.
	st := f.start(s, lasts/2/(1<<16/series))
	defer st.stop()
	eventually(t, "the receiver has some", func() error {
		if r.len() < 10*series {
			return errors.New("not yet")
		}
		return nil
	})
	// missing reads back what was acknowledged before.
	missing := func() (n, all int) {
		f.acked.mu.Lock()
		before := book{points: map[string]map[int64]string{}}
		for key, points := range f.acked.points {
			before.points[key] = map[int64]string{}
			for at, p := range points {
				before.points[key][at] = p
				all++
			}
		}
		f.acked.mu.Unlock()
		var found book
		r.book.missing(&book{}, func(series string, t int64) { found.add(series, t, r.book.points[series][t]) })
		if err := found.addRead(s.url, "fed", time.Now().Add(-time.Hour).UnixMilli(), time.Now().Add(time.Hour).UnixMilli()); err != nil {
			t.Fatal(err)
		}
		return before.missing(&found, nil), all
	}
	r.down()
	gone := time.Now()
	for time.Since(gone) < lasts {
		time.Sleep(lasts / 5)
		if n, all := missing(); n > 0 {
			t.Fatalf("%v after the receiver went, %d of %d acknowledged points are neither there nor here", time.Since(gone).Round(time.Second), n, all)
		}
	}
	eventually(t, "writes are rejected", func() error {
		if s.metric("mcached_forward_refused_total") == 0 {
			return fmt.Errorf("%v samples wait of %v", s.metric("mcached_forward_dirty_samples"), s.metric("mcached_forward_dirty_limit_samples"))
		}
		return nil
	})
	waits, limit := s.metric("mcached_forward_dirty_samples"), s.metric("mcached_forward_dirty_limit_samples")
	age, refused := s.metric("mcached_forward_dirty_age_seconds"), s.metric("mcached_forward_refused_total")
	away := time.Since(gone)
	if waits < limit || waits > limit+series || refused == 0 || age < lasts.Seconds()/2 || s.metric("mcached_forward_retries_total") == 0 {
		t.Errorf("after %v %v of %v points wait, the oldest for %v s; %v writes were refused", away, waits, limit, age, refused)
	}
	r.up()
	rounds := st.rounds.Load()
	eventually(t, "writes go on", func() error {
		if n := st.rounds.Load() - rounds; n < 20 {
			return fmt.Errorf("%d rounds", n)
		}
		return nil
	})
	back := time.Since(gone) - away
	st.end(t)
	s.forwarded(t)
	if n := f.acked.missing(&r.book, nil); n > 0 || f.acked.len() < int(limit) {
		t.Errorf("%d of %d points are missing", n, f.acked.len())
	}
	if v := s.metric(`mcached_forward_samples_total{result="rejected"}`); v != 0 {
		t.Errorf("%v points count as rejected", v)
	}
	t.Logf("away for %v: %v of %v points waited, %d writes were rejected; writes went on %v after it was back; %d points in all, none lost",
		away.Round(time.Second), waits, limit, f.refused, back.Round(time.Millisecond), f.acked.len())
}
