package kvcache

// A cursor walks the hashes, not the places of records: shard, segment and
// the upper half of the hash, in this order. A record's hash never changes,
// while its place does when an index grows, makes room, or a region ages. So
// whatever is in the cache from the first call of an iteration to its last is
// seen, once or, when an index changed its size meanwhile, more often.
//
//	63                  32 31                      0
//	┌─────────────────────┬─────────────────────────┐
//	│ shard, segment (12) │ upper half of the hash  │
//	└─────────────────────┴─────────────────────────┘

// scanEmptyLines bounds how many lines one call looks at for each record that
// it was asked for, as in Redis.
const scanEmptyLines = 10

// maxScan bounds what one call is asked for.
const maxScan = 1 << 30

// Scan calls f for about count records, and returns the cursor to go on with.
// An iteration starts with cursor 0 and ends when 0 is returned. A record that
// is in the cache throughout is seen at least once; one that comes, changes or
// goes meanwhile may or may not be.
//
// f runs under a shard's lock: it must be quick and must not call the Cache.
// Key and value are views, valid during the call. Any cursor is legal.
func (c *Cache) Scan(cursor uint64, count int, f func(key []byte, e Entry)) (next uint64) {
	count = min(max(count, 1), maxScan)
	lines := count * scanEmptyLines
	parts := uint64(len(c.shards) * segments)
	nowMs := c.nowMs()
	for count > 0 && lines > 0 {
		part := cursor >> 32
		if part >= parts {
			return 0
		}
		s := &c.shards[part/segments]
		s.mu.Lock()
		x := s.dir.at(uint32(part % segments))
		from := uint32(cursor)
		cursor = (part/segments*segments + uint64(x.end())) << 32
		lines--
		if n := uint64(len(x.lines)); n > 0 {
			i := x.home(from)
			count -= s.scanLocked(x, i, nowMs, f)
			if uint64(i)+1 < n {
				cursor = part<<32 | ((uint64(i)+1)<<32+n-1)/n
			}
		}
		s.mu.Unlock()
	}
	if cursor>>32 >= parts {
		return 0
	}
	return cursor
}

// scanLocked calls f for the records whose home is line i.
func (s *shard) scanLocked(x *index, i uint32, nowMs int64, f func(key []byte, e Entry)) (seen int) {
	visit := func(ref uint32) {
		p := s.places.at(ref)
		if p == nil {
			return
		}
		ms := recordExpiry(p)
		if ms != 0 && ms <= nowMs || recordKind(p) == kindPart {
			return
		}
		f(recordKey(p), recordEntry(p))
		seen++
	}
	l := &x.lines[i]
	for slot, tag := range l.tags {
		if tag != 0 && tag&displaced == 0 {
			visit(l.refs[slot])
		}
	}
	// Those displaced from here are in lines that their tags give.
	left := l.displaced()
	for tag := uint8(1); tag <= tagMask && left > 0; tag++ {
		o := &x.lines[x.other(i, tag)]
		for set := o.match(tag); set != 0; set &= set - 1 {
			if slot := slotOf(set); o.tags[slot]&displaced != 0 {
				visit(o.refs[slot])
				left--
			}
		}
	}
	return seen
}

// randomTries is how often RandomKey draws a slot before it takes the next
// record there is. Half of the slots are in use, usually more.
const randomTries = 32

// RandomKey appends a random key to dst. It reports false if there is none.
func (c *Cache) RandomKey(dst []byte) ([]byte, bool) {
	for range randomTries {
		n := c.random()
		s := c.shard(hash(n))
		s.mu.Lock()
		x := s.segmentLocked(hash(n))
		if len(x.lines) > 0 {
			l := &x.lines[x.home(uint32(n>>32))]
			slot := int(n>>tagShift&tagMask) % lineSlots
			if l.tags[slot] != 0 {
				if p := s.places.at(l.refs[slot]); p != nil && !s.expiredLocked(p) && recordKind(p) != kindPart {
					dst = append(dst, recordKey(p)...)
					s.mu.Unlock()
					return dst, true
				}
			}
		}
		s.mu.Unlock()
	}
	found := false
	take := func(key []byte, _ Entry) {
		if !found {
			dst, found = append(dst, key...), true
		}
	}
	// From a random point to the end, and then all of it.
	parts := uint64(len(c.shards) * segments)
	for cursor := c.random() % (parts << 32); !found; {
		if cursor = c.Scan(cursor, 1, take); cursor == 0 {
			break
		}
	}
	for cursor := uint64(0); !found; {
		if cursor = c.Scan(cursor, 1, take); cursor == 0 {
			break
		}
	}
	return dst, found
}

// meanTTLRecords bounds the records that MeanTTL looks at.
const meanTTLRecords = 1024

// MeanTTL is the mean time to live in ms of the records that expire, or 0 if
// none does. Where there are more than some thousand records it is that of a
// random sample.
func (c *Cache) MeanTTL() int64 {
	nowMs := c.nowMs()
	sum, n, seen := 0.0, 0.0, 0
	add := func(_ []byte, e Entry) {
		seen++
		if e.ExpiresMs != 0 {
			sum += float64(e.ExpiresMs - nowMs)
			n++
		}
	}
	from := uint64(0)
	if c.Len() > meanTTLRecords {
		from = c.random() % uint64(len(c.shards)*segments) << 32
	}
	for cursor := from; seen < meanTTLRecords; {
		if cursor = c.Scan(cursor, 64, add); cursor == 0 && from == 0 {
			break
		} else if cursor == 0 {
			from = 0 // once round: on a large cache the sample is full long before the end
		}
	}
	if n == 0 {
		return 0
	}
	return int64(min(sum/n, 1<<62))
}
