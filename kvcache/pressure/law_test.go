package pressure

import (
	"testing"
	"time"
)

// TestTraces runs the law over others that take memory at different rates,
// and once a second as Dory does for comparison. go test -v prints the table.
func TestTraces(t *testing.T) {
	for _, x := range []struct {
		name     string
		totalGiB int64
		others   func(float64) float64
		seconds  float64
		below    int64 // allowed below the floor, in MiB
	}{
		{"ramp 0.4 GiB/s to 14 GiB", 24, ramp(0.4, 14), 90, 0},
		{"ramp 0.5 GiB/s to 14 GiB", 24, ramp(0.5, 14), 90, 0},
		{"ramp 2.4 GiB/s to 14 GiB", 24, ramp(2.4, 14), 60, 128},
		{"ramp 8 GiB/s to 14 GiB", 24, ramp(8, 14), 60, 900},
		{"ramp 8 GiB/s to 24 GiB", 64, ramp(8, 24), 60, 900},
		{"square 4 GiB at 2 GiB/s, 20 s", 24, square(4, 2, 20), 300, 128},
		{"square 2 GiB at 8 GiB/s, 2 s", 24, square(2, 8, 2), 60, 900},
	} {
		for _, group := range []bool{false, true} {
			if group && x.totalGiB != 24 {
				continue
			}
			total := x.totalGiB * gib
			m := newMachine(total, x.others)
			m.group = group
			m.write()
			c := m.run(t, x.seconds, Options{})
			d := newMachine(total, x.others)
			d.runDory(x.seconds, 512<<20)
			floor := NewLaw(total, 0).FloorBytes
			t.Logf("%-30s group=%-5v floor %5d MiB, least available %6d MiB; released %5.1f GiB, refilled %5.1f; polls %d; once a second: least %6d MiB of 512, released %5.1f GiB",
				x.name, group, floor>>20, m.least>>20, float64(m.released)/gib, float64(m.refilled)/gib, c.Stats().Polls, d.least>>20, float64(d.released)/gib)
			if m.least < floor-x.below<<20 || m.least < 0 {
				t.Errorf("%s: available fell to %d MiB, floor %d", x.name, m.least>>20, floor>>20)
			}
			if m.released < gib {
				t.Errorf("%s: only %d bytes released, so that nothing was tested", x.name, m.released)
			}
			if d.least >= 512<<20 {
				t.Errorf("%s: the comparison was never short", x.name)
			}
		}
	}
}

// TestSmallLimits lets a fast neighbour take a part of a small control group,
// and stop as suddenly. The floor holds, and no more is given than the
// neighbour took and a third of the limit's ceiling.
func TestSmallLimits(t *testing.T) {
	for _, x := range []struct {
		total, takes int64 // MiB
		perSecond    float64
	}{
		{256, 80, 0.5}, {256, 120, 0.2}, {384, 120, 0.5}, {1024, 300, 0.5}, {1024, 300, 1}, {4096, 1500, 1}, {4096, 1500, 2.4},
	} {
		others := func(s float64) float64 { return 0.01 + min(max(0, (s-10)*x.perSecond), float64(x.takes)/1024) }
		m := newMachine(x.total*mib, others)
		m.group = true
		m.write()
		law := NewLaw(x.total*mib, 0)
		c := m.run(t, 20, Options{})
		left := m.available() - (m.budget - m.used)
		t.Logf("of %4d MiB a neighbour takes %4d at %.1f GiB/s: floor %3d MiB, least available %3d, in the end %3d; released %4d",
			x.total, x.takes, x.perSecond, law.FloorBytes/mib, m.least/mib, left/mib, m.released/mib)
		if m.least < law.FloorBytes*3/4 {
			t.Errorf("available fell to %d MiB, floor %d", m.least/mib, law.FloorBytes/mib)
		}
		if left > law.CeilingBytes*4/3 {
			t.Errorf("%d MiB are left, which is far beyond the ceiling of %d: too much was released", left/mib, law.CeilingBytes/mib)
		}
		if c.Stats().Releases == 0 {
			t.Error("nothing was released")
		}
	}
}

// TestRegrowth gives memory back after a ramp: the budget grows after the
// quiet time, at a bounded rate, and leaves the ceiling.
func TestRegrowth(t *testing.T) {
	const total = 24 * gib
	up := ramp(2, 10)
	m := newMachine(total, func(s float64) float64 {
		if s > 60 {
			return 6
		}
		return up(s)
	})
	law := NewLaw(total, 0)
	before := int64(0)
	c := m.run(t, 30, Options{})
	if before = c.Stats().BudgetBytes; before > total-16*gib-law.FloorBytes {
		t.Fatalf("budget %d after the ramp", before)
	}
	m.least = total
	c = m.run(t, 330, Options{MaxBytes: before})
	if c.Stats().BudgetBytes != before {
		t.Errorf("budget %d, at most %d allowed", c.Stats().BudgetBytes, before)
	}
	// A budget that is bounded by nothing but the law.
	s := State{}
	budget, now := int64(2*gib), time.Unix(1e9, 0)
	grown, first := 0, time.Duration(0)
	for range 4000 {
		in := Input{At: now, UsedBytes: budget, AvailableBytes: total - 6*gib - budget, BudgetBytes: budget}
		var d Decision
		s, d = law.Step(s, in)
		if d.BudgetBytes > budget {
			if grown++; grown == 1 {
				first = now.Sub(time.Unix(1e9, 0))
			}
			if limit := int64(float64(total/growPart) * pollFar.Seconds()); d.BudgetBytes-budget > limit {
				t.Fatalf("grew by %d at once, limit %d", d.BudgetBytes-budget, limit)
			}
		}
		budget = d.BudgetBytes
		now = now.Add(d.Wait)
	}
	if first < quiet || grown < 100 {
		t.Errorf("grew %d times, first after %v", grown, first)
	}
	if left := total - 6*gib - budget; left < law.CeilingBytes-1<<20 || left > law.CeilingBytes+1<<20 {
		t.Errorf("%d left available, ceiling %d", left, law.CeilingBytes)
	}
}

// TestStuck freezes the reading below the floor: following it would release
// everything, step by step.
func TestStuck(t *testing.T) {
	for _, group := range []bool{false, true} {
		m := newMachine(24*gib, ramp(0.1, 1))
		m.group = group
		m.freeze = 1 * gib
		m.used, m.budget = 10*gib, 10*gib
		m.write()
		c := m.run(t, 60, Options{})
		if s := c.Stats(); s.Stuck == 0 || s.BudgetBytes < 3*c.initial/4 {
			t.Errorf("group=%v: budget %d of %d, %d readings found stuck", group, s.BudgetBytes, c.initial, s.Stuck)
		}
	}
}

// TestLimitReached: neighbours that wait for each page take all that is
// released at once, so that a group is at its limit whenever one looks. That
// reading does not move, and is right.
func TestLimitReached(t *testing.T) {
	tr := &tracked{law: NewLaw(gib, 0)}
	for used := int64(gib); used > 0; used -= 70 * mib {
		if tr.stuck(0, used) {
			t.Fatalf("stuck after %d MiB", (gib-used)/mib)
		}
	}
}

// TestLawBounds feeds the law extremes: the budget stays within what could be.
func TestLawBounds(t *testing.T) {
	for _, total := range []int64{0, 1, 4096, 64 << 20, gib, 24 * gib, maxBytes} {
		for _, floor := range []int64{0, 1, gib, maxBytes} {
			l := NewLaw(total, floor)
			if floor == 0 && l.FloorBytes > total/4 {
				t.Errorf("floor %d of %d", l.FloorBytes, total)
			}
			for _, avail := range []int64{0, 1, total / 2, total} {
				for _, used := range []int64{0, total / 2, total} {
					s, now := State{}, time.Unix(1e9, 0)
					budget := l.Initial(avail, used)
					for i := range 10 {
						var d Decision
						s, d = l.Step(s, Input{now, avail, used, budget, i%3 == 0})
						if d.BudgetBytes < 0 || d.BudgetBytes > budget || d.Wait < pollAgain || d.Wait > pollFar {
							t.Fatalf("total %d floor %d avail %d used %d budget %d: %+v", total, floor, avail, used, budget, d)
						}
						budget, now = d.BudgetBytes, now.Add(d.Wait)
					}
				}
			}
		}
	}
}

// TestNotStuck lets a neighbour take what was released before the kernel shows
// either, as it happens within a processor's own list of pages: what is
// available stays the same, and more must go.
func TestNotStuck(t *testing.T) {
	tr := &tracked{law: NewLaw(24*gib, 0)}
	used := int64(10 * gib)
	for range 5 {
		if tr.stuck(gib, used) {
			t.Fatalf("stuck after %d MiB", (10*gib-used)>>20)
		}
		used -= 70 << 20
	}
	for range 10 {
		used -= 70 << 20
		if tr.stuck(gib, used) {
			return
		}
	}
	t.Errorf("not stuck after %d MiB", (10*gib-used)>>20)
}
