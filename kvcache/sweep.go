package kvcache

import (
	"slices"
	"time"
	"unsafe"
)

// sweepBytes bounds how much one Sweep reads to find expired records. At
// 8 GiB/s that is 8 ms, less than a hundredth of a processor once a second.
const sweepBytes = 64 << 20

// sweepChunk bounds how many records are looked at under one lock.
const sweepChunk = 1024

// sweepCompactBytes bounds how much is compacted under one lock: some 700
// records at 200 ns each.
const sweepCompactBytes = 64 << 10

func (c *Cache) sweepEvery(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-c.stop:
			return
		case <-tick.C:
			c.Sweep()
			c.checks.now(c.Check)
		}
	}
}

// Sweep removes expired records, compacts regions that are mostly dead and
// shrinks indexes that are mostly empty. It reads a bounded number of regions
// and goes on from there when called again. It returns how many records it
// removed. The cache's own goroutine calls it; see CacheOptions.SweepEvery.
func (c *Cache) Sweep() (removed int) {
	c.sweepMu.Lock()
	defer c.sweepMu.Unlock()
	c.removeOrphans()
	left := sweepBytes
	for range c.shards {
		s := &c.shards[c.sweepNext]
		c.sweepNext = (c.sweepNext + 1) % len(c.shards)
		n, read := s.expire(left)
		removed += n
		left -= read
		s.tidy()
		if left <= 0 {
			break
		}
	}
	return removed
}

// expire removes expired records region by region, from those regions that
// can have any. It stops when it has read about maxBytes, and goes on from
// there the next time.
func (s *shard) expire(maxBytes int) (removed, readBytes int) {
	nowMs := s.c.nowMs()
	for _, at := range s.due(nowMs) {
		if readBytes >= maxBytes {
			s.mu.Lock()
			s.expireNext = at.index
			s.mu.Unlock()
			break
		}
		for unit := uint32(0); ; {
			s.mu.Lock()
			n, more := s.expireLocked(at.r, at.epoch, &unit, nowMs)
			s.mu.Unlock()
			removed += n
			if !more {
				break
			}
		}
		readBytes += s.m.regionBytes
	}
	return removed, readBytes
}

// dueRegion is one that can have expired records.
type dueRegion struct {
	r     Region
	epoch uint32
	index int // in the lists of regions
}

// due lists the regions to look at, from where the last sweep stopped, once round.
func (s *shard) due(nowMs int64) (due []dueRegion) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Concat(s.logs[probation].list, s.logs[lasting].list)
	for n := range all {
		i := (s.expireNext + n) % len(all)
		r := all[i]
		if ms := s.places.expiry[s.m.tables[r].place]; ms != 0 && ms <= nowMs {
			due = append(due, dueRegion{r, s.m.regions[r].epoch.Load(), i})
		}
	}
	return due
}

// expireLocked removes expired records from *unit on. While a region is read,
// its earliest expiry is found anew: writers note theirs as always.
func (s *shard) expireLocked(r Region, epoch uint32, unit *uint32, nowMs int64) (removed int, more bool) {
	if !s.ownsLocked(r, epoch) {
		return 0, false
	}
	if *unit == 0 {
		s.places.expiry[s.m.tables[r].place] = 0
	}
	for range sweepChunk {
		if *unit*unitBytes >= s.m.tables[r].fill {
			return removed, false
		}
		ref := makeRef(epoch, r, *unit)
		p := unsafe.Add(s.m.addr(r), uintptr(*unit)*unitBytes)
		hd := *(*header)(p)
		*unit += hd.units()
		ms := recordExpiry(p)
		if !hd.live() || ms == 0 {
			continue
		}
		short := s.places.short(ref)
		if ms > nowMs {
			s.places.expires(short, ms)
			continue
		}
		h := s.c.hash(recordKey(p))
		x := s.segmentLocked(h)
		i, slot, ok := x.findRef(h.home(), h.tag(), short)
		if !ok {
			panic("kvcache: a live record that is not in the index")
		}
		x.erase(i, slot)
		s.count.expired++
		removed++
		s.abandonLocked(p)
		s.logOfLocked(ref).Free(ref, weightOf(p))
		if !s.ownsLocked(r, epoch) {
			return removed, false
		}
	}
	return removed, true
}

// tidy compacts while that pays, and shrinks indexes.
func (s *shard) tidy() {
	s.mu.Lock()
	more := s.beginCompactionLocked()
	s.mu.Unlock()
	for more {
		s.mu.Lock()
		more = s.compactLocked(sweepCompactBytes)
		s.mu.Unlock()
	}
	for segment := uint32(0); segment < segments; {
		s.mu.Lock()
		x := s.dir.at(segment)
		s.shrinkLocked(x)
		segment = x.end()
		s.mu.Unlock()
	}
	s.mu.Lock()
	s.passLocked(segments)
	s.mu.Unlock()
}

// shrinkLocked makes an index smaller that is mostly empty.
func (s *shard) shrinkLocked(x *index) {
	if x.used == 0 {
		x.clear()
		return
	}
	if x.used*100 >= x.slots()*minLoadPercent || x.span.Len() <= MinRegionBytes {
		return
	}
	x.sweep(&s.places)
	n := x.used*100/(lineSlots*maxLoadPercent*4/5) + 1
	if x.resize(n, &s.places) != nil {
		s.count.stayed++
		return
	}
	s.count.shrunk++
}
