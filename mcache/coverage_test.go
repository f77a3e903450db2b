package mcache

import (
	"bytes"
	"errors"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// covered is a cache with a clock of its own.
type covered struct {
	*Cache
	t   testing.TB
	now int64
}

func newCovered(t testing.TB, now int64) *covered {
	v := &covered{t: t, now: now}
	v.Cache = newTestCache(t, Options{Memory: newTestMemory(t, 8<<20, 64<<10), Shards: 2, Now: func() int64 { return v.now }})
	return v
}

// write writes a sample of each of the series, of the time now.
func (v *covered) write(bucket string, series ...int) {
	v.t.Helper()
	v.writeLate(bucket, v.now, series...)
}

// writeLate writes a sample of each of the series, of the time at.
func (v *covered) writeLate(bucket string, at int64, series ...int) {
	v.t.Helper()
	var b Batch
	b.Reset(bucket)
	for _, i := range series {
		b.Series(v.Fingerprint(kubernetesLabels(i)))
		b.Sample(at, uint64(i))
	}
	if _, err := v.Append(&b); err != nil {
		v.t.Fatal(err)
	}
	for _, i := range b.Missing() {
		if _, err := v.AppendNew(&b, i, kubernetesLabels(series[i])); err != nil {
			v.t.Fatal(err)
		}
	}
}

func (v *covered) save() []byte {
	v.t.Helper()
	var file bytes.Buffer
	if _, err := v.Save(&file, v.now, nil); err != nil {
		v.t.Fatal(err)
	}
	return file.Bytes()
}

// restart is a cache that has what was saved, if that is anything.
func (v *covered) restart(file []byte, now int64) *covered {
	v.t.Helper()
	next := newCovered(v.t, now)
	if file != nil {
		if _, err := next.Load(bytes.NewReader(file), LoadOptions{}); err != nil {
			v.t.Fatal(err)
		}
	}
	return next
}

func (v *covered) wants(bucket string, from, to, want int64) {
	v.t.Helper()
	got, ok := v.CoveredFrom(bucket, from, to)
	if !ok {
		got = 0
	}
	if got != want {
		v.t.Errorf("from %d to %d: complete from %d, want %d; %v", from, to, got, want, v.Coverage(bucket))
	}
}

func equals(ls []Label) (ms []Matcher) {
	for _, l := range ls {
		ms = append(ms, Matcher{Name: l.Name, Value: l.Value})
	}
	return ms
}

// TestCoverageColdStart: what was before the first write is not known, and
// without a clock nothing is claimed.
func TestCoverageColdStart(t *testing.T) {
	v := newCovered(t, 1_000_000)
	v.wants("b", 0, 2_000_000, 1_000_000) // nothing has come
	v.wants("b", 1_000_000, 2_000_000, 0)
	v.now += 5000
	v.write("b", 1)
	v.now += 5000
	v.write("b", 1)
	v.wants("b", 0, v.now, 1_005_000)
	v.wants("b", 0, 10, 1_005_000)
	v.wants("b", 1_004_999, v.now, 1_005_000)
	v.wants("b", 1_005_000, v.now, 0)
	v.wants("b", 1_005_000, MaxTime, 0)
	v.wants("b", 10, 5, 0)
	if err := v.AppendLocal("own", name("m"), Sample{T: v.now, V: 1}); err != nil {
		t.Fatal(err)
	}
	v.wants("own", v.now, v.now, 0)
	if !v.RemoveBucket("b") {
		t.Fatal("there is none")
	}
	v.now += 5000
	v.write("b", 1)
	v.wants("b", 0, v.now, v.now)
	none := newTestCache(t, Options{})
	if got, ok := none.CoveredFrom("b", 0, 1); ok {
		t.Errorf("without a clock: complete from %d", got)
	}
}

// TestCoverageCrash: what came between the snapshot and the crash is gone, and
// told, for good; whatever the sender sends later, and at further restarts.
func TestCoverageCrash(t *testing.T) {
	const step = 15_000
	v := newCovered(t, 1_000_000_000)
	begin := v.now
	series := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}
	var file []byte
	var saved int64
	for i := range 200 {
		v.write("b", series...)
		if i == 100 {
			file, saved = v.save(), v.now
		}
		v.now += step
	}
	v = v.restart(file, v.now+5000)
	v.wants("b", saved-closeLagMs-1000, saved-closeLagMs-1, 0)
	v.wants("b", saved, saved+1000, v.now) // not written yet: nothing is known
	v.now += 1000
	first := v.now
	for range 100 {
		v.write("b", series...)
		v.now += step
		v.Maintain()
	}
	v.wants("b", begin, saved-closeLagMs, 0)
	v.wants("b", begin, v.now, first)
	v.wants("b", first-1, v.now, first)
	v.wants("b", first, v.now, 0)
	for range 3 {
		v = v.restart(v.save(), v.now)
		for range 20 {
			v.write("b", series...)
			v.now += step
			v.Maintain()
		}
		v.wants("b", begin, v.now, first)
		v.wants("b", first, v.now, 0)
	}
}

// TestCoverageStop: at an orderly stop senders deliver later what they could
// not; if the series go on where they were, there is no gap.
func TestCoverageStop(t *testing.T) {
	t.Parallel()
	const step, down = 15_000, 40 * 60_000
	series := make([]int, 300)
	for i := range series {
		series[i] = i
	}
	for _, c := range []struct {
		name   string
		skip   int  // series whose samples of the time down are lost
		behind bool // nothing is delivered later
		gap    bool
	}{
		{"all go on", 0, false, false},
		{"one in a hundred does not", 3, false, false},
		{"four in a hundred do not", 12, false, true},
		{"nobody delivers later", 0, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newCovered(t, 1_000_000_000)
			begin := v.now
			for range 50 {
				v.write("b", series...)
				v.now += step
			}
			stopped := v.now
			v = v.restart(v.save(), stopped+down)
			started := v.now
			v.wants("b", begin, v.now, v.now)
			if !c.behind {
				for at := stopped; at < started; at += step {
					v.writeLate("b", at, series[c.skip:]...)
				}
			}
			v.write("b", series...)
			v.Maintain()
			v.wants("b", begin, v.now, started) // it is not known yet
			v.now += resumeMs
			v.write("b", series...)
			_, before := v.ChangedSince("b", 0)
			v.Maintain()
			want, changed := int64(0), int64(noChange)
			if !c.gap && c.skip > 0 { // until now all of them said so
				changed = math.MinInt64
			}
			if from, _ := v.ChangedSince("b", before); from != changed {
				t.Errorf("changed from %d on, not %d", from, changed)
			}
			if c.gap {
				want = started
			}
			v.wants("b", begin, v.now, want)
			if n := len(v.Coverage("b")); (n == 1) == c.gap {
				t.Errorf("%d intervals", n)
			}
			// Series that skipped something say so themselves.
			marked := 0
			for _, i := range series {
				var s Snapshot
				ids, err := v.Select("b", equals(kubernetesLabels(i)), nil)
				if err == nil && len(ids) == 1 && v.Snapshot(ids[0], 0, v.now, &s) && s.CompleteFrom() == started {
					marked++
				}
			}
			if c.gap { // it says so for all
				c.skip = 0
			}
			if marked != c.skip {
				t.Errorf("%d series say that they lack something, of %d", marked, c.skip)
			}
		})
	}
}

// TestCoverageRestarts: a second restart before the sender is back does not
// make a gap of the first, and gaps are no more than there may be intervals.
func TestCoverageRestarts(t *testing.T) {
	const step = 15_000
	v := newCovered(t, 1_000_000_000)
	begin := v.now
	for range 50 {
		v.write("b", 1, 2, 3)
		v.now += step
	}
	at := v.now
	for range 3 { // only the daemon's own samples come
		v = v.restart(v.save(), v.now+10_000)
		for range 10 {
			if err := v.AppendLocal("b", name("own"), Sample{T: v.now, V: 1}); err != nil {
				t.Fatal(err)
			}
			v.now += step
		}
	}
	v.wants("b", begin, v.now, v.Coverage("b")[3].From)
	started := v.now
	for ; at < started; at += step {
		v.writeLate("b", at, 1, 2, 3)
	}
	// Half watched, it stops again: what was seen counts.
	v = v.restart(v.save(), started+5000)
	v.write("b", 1, 2, 3)
	v.now += resumeMs
	v.Maintain()
	v.wants("b", begin, v.now, 0)

	for i := range 3 * maxIntervals { // crashes
		file := v.save()
		v.now += 1_000_000
		v = v.restart(file, v.now)
		v.write("b", 1, 2, 3)
		v.now += 10_000_000
		if n := len(v.Coverage("b")); n != min(i+2, maxIntervals) {
			t.Fatalf("%d crashes: %d intervals", i+1, n)
		}
	}
}

// TestCoverageClockBehind: what a sender whose clock is behind had not sent when an
// interval ended is not covered by it.
func TestCoverageClockBehind(t *testing.T) {
	const step, behind = 15_000, 90_000
	send := func(v *covered, turns int, series ...int) {
		for range turns {
			v.now += step
			v.writeLate("b", v.now-behind, series...)
			v.Maintain()
		}
	}
	for _, c := range []struct {
		what string
		end  func(v *covered) *covered
	}{
		{"crash", func(v *covered) *covered {
			file := v.save()
			v.now += 600_000 // what is sent is lost
			return v.restart(file, v.now)
		}},
		{"silence", func(v *covered) *covered {
			v.now += silentMs
			v.Maintain()
			return v
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			v := newCovered(t, 1_000_000_000)
			v.write("b", 1) // whose clock is right
			send(v, 50, 2, 3)
			last := v.now - behind // later points are lost
			v = c.end(v)
			send(v, 1, 2, 3)
			list := v.Coverage("b")
			if len(list) != 2 || list[0].To > last || list[0].To < last-closeLagMs-step {
				t.Errorf("%v, last was %d", list, last)
			}
		})
	}
	t.Run("old data", func(t *testing.T) {
		v := newCovered(t, 1_000_000_000)
		v.write("b", 1)
		v.now += 5_000_000
		v.writeLate("b", v.now-maxClockMs-1, 2)
		v.write("b", 1)
		saved := v.now
		v = v.restart(v.save(), v.now)
		v.wants("b", 1_000_000_000, saved-closeLagMs, 0)
	})
}

// TestCoverageClockAhead: a sender whose clock is ahead wrote, before it wrote here
// for the first time, what has times behind that. It is not covered.
func TestCoverageClockAhead(t *testing.T) {
	const step, ahead = 15_000, 90_000
	send := func(v *covered, by int64, turns int, series ...int) {
		for range turns {
			v.writeLate("b", v.now+by, series...)
			v.now += step
			v.Maintain()
		}
	}
	t.Run("cold start", func(t *testing.T) {
		v := newCovered(t, 1_000_000_000)
		first := v.now
		send(v, ahead, 20, 1)
		v.wants("b", 0, v.now, first+ahead)
		v.wants("b", first+ahead-1, v.now, first+ahead)
		v.wants("b", first+ahead, v.now, 0)
	})
	t.Run("crash", func(t *testing.T) {
		v := newCovered(t, 1_000_000_000)
		send(v, ahead, 50, 1, 2)
		file, saved := v.save(), v.now
		send(v, ahead, 50, 1, 2) // which are lost
		v = v.restart(file, v.now)
		first := v.now
		v.write("b", 3) // whose clock is right
		v.now++
		send(v, ahead, 50, 1, 2)
		v.wants("b", 1_000_000_000+ahead, saved-closeLagMs, 0)
		v.wants("b", saved, v.now, first+ahead)
		v.wants("b", first+ahead, v.now, 0)
		if list := v.Coverage("b"); len(list) != 2 {
			t.Errorf("%v", list)
		}
		// Who comes later may be further ahead, and one who tells the future has no clock.
		send(v, 2*ahead, 1, 4)
		send(v, maxClockMs+1, 1, 5)
		v.wants("b", saved, v.now, first+2*ahead)
		v = v.restart(v.save(), v.now) // it stays so
		v.wants("b", saved, v.now-closeLagMs, first+2*ahead)
	})
	t.Run("stop", func(t *testing.T) {
		v := newCovered(t, 1_000_000_000)
		begin := v.now
		send(v, ahead, 50, 1, 2)
		v = v.restart(v.save(), v.now)
		send(v, ahead, int(resumeMs/step)+2, 1, 2)
		if list := v.Coverage("b"); len(list) != 1 {
			t.Fatalf("the series go on: %v", list)
		}
		send(v, 2*ahead, 1, 3)
		v.wants("b", 0, v.now, begin+ahead)
	})
	t.Run("silence", func(t *testing.T) {
		v := newCovered(t, 1_000_000_000)
		send(v, ahead, 50, 1, 2)
		for range silentMs/step + 2 {
			v.now += step
			v.Maintain()
		}
		first := v.now
		send(v, 0, 1, 1, 2)
		v.wants("b", 0, v.now, first)
	})
}

// TestCoverageGivesUp: a gap of which no series tells anything stays, and
// writers are not watched without end because of it.
func TestCoverageGivesUp(t *testing.T) {
	v := newCovered(t, 1_000_000_000)
	v.write("b", 1)
	v.now += 1_000_000
	v = v.restart(v.save(), v.now)
	first := v.now
	for range 100 {
		v.write("b", 2) // another
		v.now += giveUpMs / 100
		v.Maintain()
		if watched := v.findBucket("b").cover.watching.Load(); watched != (v.now-first < giveUpMs) {
			t.Fatalf("watched after %d ms: %v", v.now-first, watched)
		}
	}
	v.wants("b", 1_000_000_000, v.now, first)
}

// TestCoverageClock: a clock that was set back leaves no interval in the future.
func TestCoverageClock(t *testing.T) {
	v := newCovered(t, 1_000_000_000)
	v.write("b", 1)
	v.now += 10_000_000
	file := v.save()
	v = v.restart(file, 1_005_000_000)
	v.write("b", 1)
	list := v.Coverage("b")
	if len(list) != 2 || list[0] != (Interval{1_000_000_000, 1_005_000_000 - closeLagMs}) || list[1].From != 1_005_000_000 {
		t.Errorf("%v", list)
	}
	v = v.restart(file, 900_000_000)
	v.write("b", 1)
	if list := v.Coverage("b"); len(list) != 1 || list[0].From != 900_000_000 {
		t.Errorf("%v", list)
	}
}

// TestCoverageDamaged: of a snapshot that is not there as a whole nothing is
// covered.
func TestCoverageDamaged(t *testing.T) {
	v := newCovered(t, 1_000_000_000)
	v.write("b", 1)
	v.now += 1_000_000
	file := v.save()
	file[len(file)-1] ^= 1
	next := newCovered(t, v.now)
	if _, err := next.Load(bytes.NewReader(file), LoadOptions{}); err == nil {
		t.Fatal("it is whole")
	}
	if n := len(next.Coverage("b")); n != 0 || next.Stats().Series != 1 {
		t.Errorf("%d intervals", n)
	}
}

// TestCoverageExtra: what is wrong with things of others says nothing of series.
func TestCoverageExtra(t *testing.T) {
	v := newCovered(t, 1_000_000_000)
	v.write("b", 1)
	v.now += 1_000_000
	var file bytes.Buffer
	if _, err := v.Save(&file, v.now, maps.All(map[string][]byte{"x": nil})); err != nil {
		t.Fatal(err)
	}
	next := newCovered(t, v.now)
	if _, err := next.Load(&file, LoadOptions{Extra: func(string, []byte) error { return errors.New("not mine") }}); !errors.Is(err, ErrDamaged) {
		t.Fatal(err)
	}
	if n := len(next.Coverage("b")); n != 1 {
		t.Errorf("%d intervals", n)
	}
}

// TestCoverageModel does the same with intervals and with a list of all times,
// at random.
func TestCoverageModel(t *testing.T) {
	t.Parallel()
	const second = int64(1000)
	asked, gaps := 0, 0
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		v := newCovered(t, 1_000_000_000)
		origin := v.now
		var known []bool // by second since origin: all that was written is here
		open := false
		var file []byte
		var fileKnown []bool
		var fileNow int64
		at := func(ms int64) int { return int((ms - origin) / second) }
		for op := range 120 {
			switch k := rnd.IntN(10); {
			case k < 5:
				v.write("b", op) // each a series of its own
				if !open {
					open = true
				}
			case k == 5:
				file, fileNow, fileKnown = v.save(), v.now, slices.Clone(known)
			case k == 6 && file != nil: // a crash
				down := rnd.Int64N(100) * second
				v = v.restart(file, v.now+down)
				known = slices.Clone(fileKnown)
				for i := range known {
					if ms := origin + int64(i)*second; ms > fileNow-closeLagMs {
						known[i] = false
					}
				}
				open = false
			case k == 7 && op%7 == 0:
				v = v.restart(nil, v.now)
				known, open = nil, false
			}
			from := v.now
			v.now += (1 + rnd.Int64N(300)) * second
			for len(known) < at(v.now) {
				known = append(known, false)
			}
			if open {
				for i := at(from); i < at(v.now); i++ {
					known[i] = true
				}
			}
			for range 20 {
				a := origin + rnd.Int64N(int64(len(known))+5)*second
				b := a + rnd.Int64N(int64(len(known))+5)*second
				isKnown := func(ms int64) bool {
					if i := at(ms); i < len(known) {
						return known[i]
					}
					return open || ms >= v.now // what is to come will be here
				}
				want := int64(0)
				for ms := b; ms >= a; ms -= second {
					if !isKnown(ms) {
						for want = ms; !isKnown(want); want += second {
						}
						break
					}
				}
				got, ok := v.CoveredFrom("b", a, b)
				if !ok {
					got = 0
				}
				// A gap ends within the second that is asked for, and an interval within its lag.
				if got != want {
					t.Fatalf("seed %d, operation %d: from %d to %d: %d, want %d; now %d, %v", seed, op, a, b, got, want, v.now, v.Coverage("b"))
				}
				asked++
				if want != 0 {
					gaps++
				}
			}
		}
	}
	if gaps < asked/20 || gaps > asked*19/20 {
		t.Errorf("%d of %d answers told of gaps: that shows too little", gaps, asked)
	}
}

// TestCoverageSilence: a bucket that nobody writes to for longer than silentMs
// has a gap, which begins before the last write, as more may have been under way.
func TestCoverageSilence(t *testing.T) {
	v := newCovered(t, 1_000_000)
	series := []int{1, 2, 3}
	scrape := func(until int64) {
		for v.now < until {
			v.now += 15_000
			v.write("b", series...)
			v.Maintain()
		}
	}
	quiet := func(ms int64) {
		for end := v.now + ms; v.now < end; {
			v.now = min(v.now+1000, end)
			v.Maintain()
		}
	}
	scrape(1_600_000)
	last := v.now
	quiet(silentMs - 1000)
	v.wants("b", 1_015_000, v.now, 0)
	quiet(2000)
	end := last - closeLagMs
	v.wants("b", 1_015_000, end, 0)
	v.wants("b", 1_015_000, end+1, v.now)
	// The sender has lost what it could not send.
	v.now += 600_000
	v.write("b", series...)
	again := v.now
	scrape(again + resumeMs + 30_000)
	v.wants("b", 1_015_000, v.now, again)
	v.wants("b", 1_015_000, end, 0)
	v.wants("b", again, v.now, 0)
	if n := len(v.Coverage("b")); n != 2 {
		t.Errorf("%d intervals", n)
	}
	// Next time it has kept it, and catches up.
	from := v.now
	quiet(silentMs + 60_000)
	v.wants("b", again, v.now, v.now)
	for at := from + 15_000; at < v.now; at += 15_000 {
		v.writeLate("b", at, series...)
	}
	scrape(v.now + 2*resumeMs)
	v.wants("b", again, v.now, 0)
	v.wants("b", end+1, v.now, again)
}

// TestCoverageSilenceAfterTheClockWasSetBack: a silence is noted all the same, once it has
// lasted by the clock as it is now.
func TestCoverageSilenceAfterTheClockWasSetBack(t *testing.T) {
	v := newCovered(t, 100_000_000)
	for range 100 {
		v.now += 15_000
		v.write("b", 1, 2, 3)
		v.Maintain()
	}
	v.now -= 3_600_000
	v.Maintain()
	if n := len(v.Coverage("b")); n != 1 || v.Coverage("b")[0].To != MaxTime {
		t.Fatalf("set back, %v", v.Coverage("b"))
	}
	for range silentMs/1000 + 1 {
		v.now += 1000
		v.Maintain()
	}
	v.wants("b", v.now-1000, v.now, v.now)
}

// TestCoverageLocal: what the program writes of itself says nothing of what
// others have to write.
func TestCoverageLocal(t *testing.T) {
	v := newCovered(t, 1_000_000)
	own := func() {
		t.Helper()
		if err := v.AppendLocal("b", name("own"), Sample{T: v.now, V: 1}); err != nil {
			t.Fatal(err)
		}
		v.Maintain()
	}
	own()
	v.wants("b", 1_000_000, v.now, 0) // nobody else has written
	v.now += 60_000
	own()
	v.write("b", 1)
	v.wants("b", 1_000_000, v.now, 1_060_000)
	for range 400 {
		v.now += 1000
		own()
	}
	v.wants("b", 1_060_000, v.now, v.now)
}
