package pressure

import "testing"

const mib = 1 << 20

// TestSteps lets others take a lot at once, and then nothing: a process that
// starts, huge pages that were set aside. What they took is gone before anyone
// can look, and the slope of one look says that as much will go again, and
// again. No more is given than restores the middle between floor and ceiling,
// and what the fastest neighbour takes in the least look ahead; and it is given
// in the time that releasing takes.
func TestSteps(t *testing.T) {
	// 2 GiB of pages that were zeroed before were seen to go in 6 ms; as many
	// that have to be zeroed take 60 ms and more.
	const atOnce, quick = 0.006, 0.060
	type step struct{ at, gib, seconds float64 }
	for _, x := range []struct {
		name     string
		totalGiB float64
		keep     int64   // the floor, 0 for the default
		begin    float64 // GiB that others have
		steps    []step
		lists    bool // pages stay unseen for long, as on Linux 6.18; see creditPart
	}{
		{"2 GiB", 24, 0, 6, []step{{10, 2, atOnce}}, false},
		{"2 GiB, floor 4 GiB", 24, 4 * gib, 6, []step{{10, 2, atOnce}}, false},
		{"2 GiB, floor 4 GiB, 3.7 held", 24, 4 * gib, 14.3, []step{{10, 2, atOnce}}, false},
		{"2 GiB in 60 ms", 24, 0, 6, []step{{10, 2, quick}}, false},
		{"1 GiB, twice within two looks", 24, 0, 6, []step{{10, 1, atOnce}, {10.05, 1, atOnce}}, false},
		{"1 GiB, twice in 2 s", 24, 0, 6, []step{{10, 1, atOnce}, {12, 1, atOnce}}, false},
		{"0.25 GiB", 24, 0, 6, []step{{10, 0.25, atOnce}}, false},
		{"2 GiB, pages on lists", 24, 0, 6, []step{{10, 2, atOnce}}, true},
		{"0.7 GiB of 8", 8, 0, 1, []step{{10, 0.7, atOnce}}, false},
		{"60 MiB of 384", 0.375, 0, 0.05, []step{{10, 0.06, atOnce}}, false},
	} {
		for _, group := range []bool{false, true} {
			total := int64(x.totalGiB * gib)
			law, taken := NewLaw(total, x.keep), 0.0
			if group {
				law = NewLaw(total, min(x.keep, total/4))
			}
			for _, s := range x.steps {
				taken += s.gib
			}
			// The budget is used up and leaves the ceiling, as long as others take nothing.
			middle := (law.FloorBytes + law.CeilingBytes) / 2
			needed := max(0, middle-law.CeilingBytes+int64(taken*gib))
			margin := min(maxLossBytes, middle-law.FloorBytes)
			most, least, shortMs := int64(0), total, int64(0)
			for phase := 0.0; phase < 0.25; phase += 0.009 { // of the looks
				m := newMachine(total, func(now float64) float64 {
					others := x.begin
					for _, s := range x.steps {
						others += s.gib * min(1, max(0, (now-s.at-phase)/s.seconds))
					}
					return others
				})
				if x.lists {
					m.lagPart, m.lagSeconds, m.lagMaxBytes = 1, 30, 500e6
				}
				m.group, m.floor = group, law.FloorBytes
				m.write()
				m.run(t, 16, Options{KeepAvailableBytes: x.keep})
				most, least, shortMs = max(most, m.released), min(least, m.released), max(shortMs, int64(m.shortMs))
			}
			t.Logf("%-30s group=%-5v needed %4d MiB, released %4d to %4d; below the floor for at most %3d ms",
				x.name, group, needed/mib, least/mib, most/mib, shortMs)
			unseen := int64(0)
			if !group {
				unseen = total / creditPart // what the law is unsure of
				if x.lists {
					unseen = 500e6
				}
			}
			if most > needed+margin+unseen+mib {
				t.Errorf("%s, group=%v: %d MiB released, %d were needed, and at most %d to spare", x.name, group, most/mib, needed/mib, (margin+unseen)/mib)
			}
			if least < needed-unseen-mib {
				t.Errorf("%s, group=%v: only %d MiB released, %d were needed", x.name, group, least/mib, needed/mib)
			}
			// The longest look, and as long as the simulated kernel takes to take the memory back.
			if limit := 150 + most*1000/releasePerSecond; shortMs > limit {
				t.Errorf("%s, group=%v: below the floor for %d ms, at most %d can be helped", x.name, group, shortMs, limit)
			}
		}
	}
}
