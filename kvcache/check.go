package kvcache

import (
	"fmt"
	"slices"
)

// Check walks everything and reports the first broken invariant. It is for
// tests and for debug builds, whose sweeper calls it: it holds one shard's lock
// after the other for as long as that takes.
func (c *Cache) Check() error {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		err := s.checkLocked(uint32(i))
		s.mu.Unlock()
		if err != nil {
			return fmt.Errorf("shard %d: %w", i, err)
		}
	}
	return nil
}

func (s *shard) checkLocked(number uint32) error {
	for n, t := range s.logs {
		if err := t.Check(); err != nil {
			return err
		}
		for _, r := range t.list {
			if b := &s.m.tables[r]; int(b.log) != n || b.order == 0 || b.order > t.order {
				return fmt.Errorf("kvcache: region %d of log %d is noted in log %d, with order %d of %d", r, n, b.log, b.order, t.order)
			}
		}
	}
	live := int64(0) // a sum of weights
	for x := range s.dir.all() {
		n, err := s.checkIndexLocked(x, number)
		if err != nil {
			return fmt.Errorf("index %0*b: %w", x.depth, x.prefix, err)
		}
		live += n
	}
	if n := s.weightLocked(); live != n {
		return fmt.Errorf("kvcache: %d records in tables, %d of them expire; %d and %d in indexes",
			weightRecords(n), weightExpiring(n), weightRecords(live), weightExpiring(live))
	}
	for n, r := range s.places.region {
		if r == 0 {
			continue
		}
		if b := &s.m.tables[r-1]; int(b.place) != n || s.logs[b.log].list[b.pos] != Region(r-1) {
			return fmt.Errorf("kvcache: place %d has region %d, which has place %d", n, r-1, b.place)
		}
	}
	if n := len(s.places.region) - len(s.places.free) - len(s.places.gone); n != s.regionsLocked() {
		return fmt.Errorf("kvcache: %d places in use for %d regions", n, s.regionsLocked())
	}
	return nil
}

func (s *shard) checkIndexLocked(x *index, number uint32) (live int64, err error) {
	away := make([]uint32, len(x.lines))
	used := 0
	for i := range x.lines {
		l := &x.lines[i]
		for slot, tag := range l.tags {
			if tag == 0 {
				if l.frequency(slot) != 0 {
					return 0, fmt.Errorf("kvcache: a vacant slot has frequency %d", l.frequency(slot))
				}
				continue
			}
			used++
			home := uint32(i)
			if tag&displaced != 0 {
				home = x.other(home, tag&tagMask)
				away[home]++
			}
			p := s.places.at(l.refs[slot])
			if p == nil {
				continue
			}
			live += int64(weightOf(p))
			key := recordKey(p)
			h := s.c.hash(key)
			switch {
			case !(*header)(p).live():
				err = fmt.Errorf("kvcache: the index has a freed record")
			case uint32(h)&uint32(len(s.c.shards)-1) != number || s.segmentLocked(h) != x:
				err = fmt.Errorf("kvcache: a record in another's index")
			case h.home() != (*header)(p).owner() || h.tag() != tag&tagMask || x.home(h.home()) != home:
				err = fmt.Errorf("kvcache: a record that is not at home")
			}
			if f := s.findLocked(h, key); err == nil && f.p != p {
				err = fmt.Errorf("kvcache: key %x is found at %p, is at %p", key, f.p, p)
			}
			if err != nil {
				return 0, err
			}
		}
	}
	for i := range away {
		if away[i] != x.lines[i].displaced() {
			return 0, fmt.Errorf("kvcache: line %d counts %d displaced, has %d", i, x.lines[i].displaced(), away[i])
		}
	}
	if !x.haunted && slices.ContainsFunc(x.ghosts, func(g ghostLine) bool { return g != ghostLine{} }) {
		return 0, fmt.Errorf("kvcache: an index has ghosts that it does not know of")
	}
	if used != x.used {
		return 0, fmt.Errorf("kvcache: %d slots taken, %d counted", used, x.used)
	}
	return live, nil
}
