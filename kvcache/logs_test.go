package kvcache

import (
	"math/rand/v2"
	"testing"
)

// fill puts keys from first on, n of them, and reads none.
func fill(t *testing.T, c *Cache, first, n, valueBytes int) {
	t.Helper()
	for i := first; i < first+n; i++ {
		if err := c.Put(key(i), make([]byte, valueBytes), 0); err != nil {
			t.Fatal(err)
		}
	}
}

// fillHalfRead puts twice as many keys as hot and reads every other one, the
// first hot of them: no region has more of those than may be kept.
func fillHalfRead(t *testing.T, c *Cache, hot int) {
	t.Helper()
	for i := range hot {
		fill(t, c, i, 1, 100)
		c.Touch(key(i))
		fill(t, c, hot+i, 1, 100)
	}
}

func checkCache(t *testing.T, c *Cache) {
	t.Helper()
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
}

// TestProbation: what was read once survives any number of keys that are never
// read, and these take no more than their share.
func TestProbation(t *testing.T) {
	c, _ := newTestCache(t, MemoryOptions{BudgetBytes: 4 << 20, RegionBytes: 16 << 10, ReadyRegions: -1}, CacheOptions{Shards: 1, SweepEvery: -1})
	const hot = 10_000
	fillHalfRead(t, c, hot)
	fill(t, c, 2*hot, 100_000, 100) // three times the memory
	kept := 0
	for i := range hot {
		if c.Has(key(i)) {
			kept++
		}
	}
	s := c.Stats()
	if kept < hot*99/100 || s.Promoted < hot*99/100 {
		t.Errorf("%d of %d read keys are left, %d were promoted", kept, hot, s.Promoted)
	}
	if lasting := s.LiveBytes - s.ProbationBytes; lasting < hot*120 || lasting > hot*130 {
		t.Errorf("%d bytes last, of %d read keys", lasting, hot)
	}
	checkCache(t, c)
}

// TestGhosts: a loop over more keys than there is room for. One log, or the
// least recently used, would have none of them when it comes round.
func TestGhosts(t *testing.T) {
	c, _ := newTestCache(t, MemoryOptions{BudgetBytes: 4 << 20, RegionBytes: 16 << 10, ReadyRegions: -1}, CacheOptions{Shards: 1, SweepEvery: -1})
	const keys, rounds = 35_000, 12 // of 136 bytes: 4.8 MB
	hits := 0
	for round := range rounds {
		for i := range keys {
			if _, ok := c.Get(nil, key(i)); ok {
				if round >= rounds/2 {
					hits++
				}
				continue
			}
			fill(t, c, i, 1, 100)
		}
	}
	s := c.Stats()
	if ratio := float64(hits) / (keys * rounds / 2); ratio < 0.4 {
		t.Errorf("hit ratio %.2f of a loop over 1.2 times what there is room for: %+v", ratio, s)
	}
	if s.Returned == 0 || s.Spared == 0 {
		t.Errorf("too little happened: %+v", s)
	}
	checkCache(t, c)
}

// TestGhostsAreReadOnceThereAreAny: while a cache fills, and its indexes grow and
// split, their lines for ghosts are left alone.
func TestGhostsAreReadOnceThereAreAny(t *testing.T) {
	c, m := newTestCache(t, MemoryOptions{BudgetBytes: 16 << 20, RegionBytes: 16 << 10, ReadyRegions: -1}, CacheOptions{Shards: 1, SweepEvery: -1})
	haunted := func() (n, indexes int) {
		s := &c.shards[0]
		s.mu.Lock()
		defer s.mu.Unlock()
		for x := range s.dir.all() {
			if indexes++; x.haunted {
				n++
			}
		}
		return n, indexes
	}
	fill(t, c, 0, 60_000, 100)
	if n, indexes := haunted(); n != 0 || indexes < 2 {
		t.Errorf("%d of %d indexes have had ghosts, and nothing was dropped", n, indexes)
	}
	checkCache(t, c)
	m.SetBudget(8 << 20)
	fill(t, c, 60_000, 60_000, 100)
	if n, indexes := haunted(); n != indexes {
		t.Errorf("%d of %d indexes have had ghosts, and half of all was dropped", n, indexes)
	}
	checkCache(t, c)
}

// TestSecondChance: a region of what lasts that was nearly all read is the
// youngest again, as it is, and each record has one read less to its credit. One
// with more unread is left where it was.
func TestSecondChance(t *testing.T) {
	c, _ := newTestCache(t, MemoryOptions{BudgetBytes: 4 << 20, RegionBytes: 16 << 10, ReadyRegions: -1}, CacheOptions{Shards: 1, SweepEvery: -1})
	s := &c.shards[0]
	const keys = 1200
	for i := range keys {
		h := c.hash(key(i))
		s.mu.Lock()
		f := s.findLocked(h, key(i))
		s.growLocked(f.x)
		f.x = s.segmentLocked(h)
		ref, b, ok := s.logs[lasting].Alloc(recordBytes(len(key(i)), 100, String, false), recordAux(len(key(i)), String, false), h.home(), 1)
		if !ok {
			t.Fatal("no memory")
		}
		writeRecord(b, key(i), &Entry{Value: make([]byte, 100)})
		s.insertLocked(f.x, h, s.places.short(ref))
		s.mu.Unlock()
	}
	oldest := s.logs[lasting].oldest()
	inOldest := func() (all []int) {
		for i := range keys {
			h := c.hash(key(i))
			if f := s.findLocked(h, key(i)); s.places.long(f.ref()).region() == oldest {
				all = append(all, i)
			}
		}
		return all
	}()
	if len(inOldest) < 100 {
		t.Fatalf("%d keys in the oldest region", len(inOldest))
	}
	hot := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.hotLocked(oldest)
	}
	for _, i := range inOldest[:len(inOldest)*7/10] {
		c.Touch(key(i))
		c.Touch(key(i))
	}
	if hot() || s.logs[lasting].oldest() != oldest {
		t.Fatal("a region was spared that was read to seven tenths")
	}
	for _, i := range inOldest[:len(inOldest)*9/10] {
		c.Touch(key(i))
	}
	before := map[int]uint8{}
	for _, i := range inOldest {
		before[i], _ = c.Frequency(key(i))
	}
	if !hot() || s.logs[lasting].oldest() == oldest || c.Stats().Spared != 1 {
		t.Fatal("a region was not spared that was read to nine tenths")
	}
	for _, i := range inOldest {
		want := max(before[i], 1) - 1
		if f, ok := c.Frequency(key(i)); !ok || f != want {
			t.Fatalf("key %d has frequency %d, %v after a second chance; it had %d", i, f, ok, before[i])
		}
	}
	checkCache(t, c)
}

// TestReclaimProbationFirst: what is given back to the machine is what was not
// read, before any of what lasts.
func TestReclaimProbationFirst(t *testing.T) {
	c, m := newTestCache(t, MemoryOptions{BudgetBytes: 4 << 20, RegionBytes: 16 << 10, ReadyRegions: -1}, CacheOptions{Shards: 2, SweepEvery: -1})
	const hot = 5_000
	fillHalfRead(t, c, hot)
	fill(t, c, 2*hot, 40_000, 100)
	left := func() (kept int) {
		for i := range hot {
			if c.Has(key(i)) {
				kept++
			}
		}
		return kept
	}
	before := left() // but for the few that writers have evicted
	if before < hot*95/100 {
		t.Fatalf("%d of %d read keys are there", before, hot)
	}
	m.SetBudget(2 << 20) // half of it; what lasts is a sixth
	if kept := left(); kept < before {
		t.Errorf("%d of %d read keys are left", kept, before)
	}
	checkCache(t, c)
	// And then the rest, down to nothing.
	for budget := int64(2 << 20); budget > 0; budget -= 64 << 10 {
		m.SetBudget(budget)
		if m.Used() > budget {
			t.Fatalf("%d used of %d", m.Used(), budget)
		}
		checkCache(t, c)
	}
}

// TestFewRegions: a shard of less than minLogRegions has one log, and keeps
// what is read of it.
func TestFewRegions(t *testing.T) {
	c, _ := newTestCache(t, MemoryOptions{BudgetBytes: 384 << 10, RegionBytes: 16 << 10, ReadyRegions: -1}, CacheOptions{Shards: 4, SweepEvery: -1})
	const hot = 400
	fill(t, c, 0, hot, 100)
	for n := range 200 {
		for i := range hot {
			c.Touch(key(i))
		}
		fill(t, c, hot+n*100, 100, 100)
	}
	kept := 0
	for i := range hot {
		if c.Has(key(i)) {
			kept++
		}
	}
	s := c.Stats()
	if kept < hot*9/10 || s.Promoted > 0 || s.Returned > 0 || s.Evicted == 0 {
		t.Errorf("%d of %d read keys are left: %+v", kept, hot, s)
	}
	checkCache(t, c)
}

// TestGhostLine holds a line to a plain list of the last that were added.
func TestGhostLine(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var g ghostLine
	var model [ghostSlots]uint32
	next, taken, missed := 0, 0, 0
	for range 20_000 {
		f := 1 + uint32(rnd.IntN(200))*uint32(1+rnd.IntN(20)) // alike in the low bits, or in the high
		if rnd.IntN(2) == 0 {
			g.add(f)
			model[next] = f
			next = (next + 1) % ghostSlots
			continue
		}
		want := false
		for i := range model {
			if model[i] == f {
				model[i], want = 0, true
				break
			}
		}
		if got := g.take(f); got != want {
			t.Fatalf("take(%#x) is %v, want %v, of %x", f, got, want, model)
		}
		if want {
			taken++
		} else {
			missed++
		}
	}
	if taken < 100 || missed < 100 {
		t.Errorf("too little happened: %d taken, %d missed", taken, missed)
	}
}

// TestExchange holds the order of age, and the serials, to a plain list.
func TestExchange(t *testing.T) {
	c, m := newTestCache(t, MemoryOptions{BudgetBytes: 1 << 20, RegionBytes: MinRegionBytes, ReadyRegions: -1}, CacheOptions{Shards: 1, SweepEvery: -1})
	fill(t, c, 0, 1000, 100)
	order := func() (all []Region) {
		for r := m.age[Log][0].head; r != noRegion; r = m.regions[r].next {
			if n := len(all); n > 0 && m.regions[all[n-1]].serial > m.regions[r].serial {
				t.Fatalf("region %d stands behind one that is younger", r)
			}
			all = append(all, r)
		}
		return all
	}
	want := order()
	if len(want) < 20 {
		t.Fatalf("only %d regions", len(want))
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		i, j := rnd.IntN(len(want)), rnd.IntN(len(want))
		if rnd.IntN(3) == 0 {
			j = min(i+1, len(want)-1) // neighbours
		}
		m.exchange(want[i], want[j])
		want[i], want[j] = want[j], want[i]
		got := order()
		for k := range want {
			if got[k] != want[k] {
				t.Fatalf("after the exchange of %d and %d: %v, want %v", i, j, got, want)
			}
		}
	}
	checkCache(t, c)
}

// TestShorterInPlace: a shorter value takes the place of a longer one, and the
// rest of it is dead, so that compaction returns it.
func TestShorterInPlace(t *testing.T) {
	c, m := newTestCache(t, MemoryOptions{BudgetBytes: 8 << 20, RegionBytes: 16 << 10, ReadyRegions: -1}, CacheOptions{Shards: 1, SweepEvery: -1})
	const keys = 5000
	fill(t, c, 0, keys, 500)
	before := c.Stats()
	rnd := rand.New(rand.NewPCG(7, 8))
	for i := range keys {
		fill(t, c, i, 1, rnd.IntN(500))
	}
	s := c.Stats()
	if s.Overwritten != keys || s.LiveBytes >= before.LiveBytes*3/4 {
		t.Errorf("%d of %d were written in place; %d bytes live, %d before", s.Overwritten, keys, s.LiveBytes, before.LiveBytes)
	}
	checkCache(t, c)
	c.Sweep()
	if s := c.Stats(); s.Compacted == 0 || s.DeadBytes > s.LiveBytes/2 || s.LiveBytes+s.DeadBytes+s.FreeBytes != int64(s.Regions*m.RegionBytes()) {
		t.Errorf("after compaction: %+v", s)
	}
	checkCache(t, c)
}
