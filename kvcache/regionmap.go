package kvcache

// A RegionMap is a picture of a Memory for people: its regions in the order of
// their addresses, with how soon each would go.

// RegionCell stands for a run of neighbouring regions.
type RegionCell struct {
	Regions int // how many it stands for; the rest was given back or never used
	InUse   int
	Spare   int // resident, but empty
	Pinned  int // of those in use
	// Age is the mean of those in use: 1 is the oldest of its class, which is
	// the next of it to go, 0 the youngest.
	Age float64

	// Of the first region in use, if there is one:
	Class      Class
	Owner      int     // as Register numbered it; -1 if none is in use
	Account    Account // the owner's
	Live, Dead float64 // shares of the region; the rest is free
}

// regionReader is an Owner that tells how full its regions are.
type regionReader interface {
	// RegionUse returns the live and dead bytes of r. It reports false if r has
	// changed hands since.
	RegionUse(r Region, epoch uint32) (live, dead int, ok bool)
}

// Use is the live and dead bytes of a region of this set.
func (t *Tables) Use(r Region) (live, dead int) {
	b := &t.m.tables[r]
	return int(b.live), int(b.fill - b.live)
}

// RegionUse implements regionReader.
func (s *shard) RegionUse(r Region, epoch uint32) (live, dead int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ownsLocked(r, epoch) {
		return 0, 0, false
	}
	live, dead = s.logs[probation].Use(r)
	return live, dead, true
}

// RegionMap appends at most maxCells cells to dst, all of the same number of
// regions but for the last. It holds the Memory's lock for about 10 ns a
// region, which is 0.3 ms for 32 GiB, and then the owner's of one region a
// cell. It must be called without owners' locks.
func (m *Memory) RegionMap(dst []RegionCell, maxCells int) []RegionCell {
	first := len(dst)
	type sample struct {
		r     Region
		epoch uint32
	}
	var samples []sample // by cell; Region noRegion if there is none
	m.mu.Lock()
	n := int(m.virgin)
	each := max(1, (n+maxCells-1)/max(1, maxCells))
	ages := m.agesLocked(n)
	for r := range n {
		if r%each == 0 {
			dst = append(dst, RegionCell{Owner: -1})
			samples = append(samples, sample{r: noRegion})
		}
		c, g := &dst[len(dst)-1], &m.regions[r]
		c.Regions++
		if !g.inUse {
			continue
		}
		if c.InUse++; c.InUse == 1 {
			c.Class, c.Owner, c.Account = g.class, int(g.owner), g.account
			samples[len(samples)-1] = sample{Region(r), g.epoch.Load()}
		}
		if g.pinned {
			c.Pinned++
		}
		c.Age += float64(ages[r])
	}
	for r := m.spare.head; r != noRegion; r = m.regions[r].next {
		dst[first+int(r)/each].Spare++
	}
	owners := m.owners
	m.mu.Unlock()

	for i := range samples {
		c, s := &dst[first+i], samples[i]
		if s.r == noRegion {
			continue
		}
		c.Age /= float64(c.InUse)
		if o, ok := owners[c.Owner].(regionReader); ok {
			if live, dead, ok := o.RegionUse(s.r, s.epoch); ok {
				c.Live, c.Dead = float64(live)/float64(m.regionBytes), float64(dead)/float64(m.regionBytes)
			}
		}
	}
	return dst
}

// agesLocked is the age of each of the first n regions within its class, from
// 0, the youngest, to 1.
func (m *Memory) agesLocked(n int) []float32 {
	ages := make([]float32, n)
	for class := range m.age {
		count := 0
		var heads [2 * MaxAccounts]Region // what is left of each list
		for a := range MaxAccounts {
			heads[2*a], heads[2*a+1] = m.pinned[class][a].head, m.age[class][a].head
		}
		for _, r := range heads {
			for ; r != noRegion; r = m.regions[r].next {
				count++
			}
		}
		for i := range count {
			oldest := -1
			for k, r := range heads {
				if r != noRegion && (oldest < 0 || m.regions[r].serial < m.regions[heads[oldest]].serial) {
					oldest = k
				}
			}
			r := heads[oldest]
			heads[oldest] = m.regions[r].next
			if count > 1 {
				ages[r] = 1 - float32(i)/float32(count-1)
			}
		}
	}
	return ages
}

// Owners is how many have been registered; the next gets this number.
func (m *Memory) Owners() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.owners)
}
