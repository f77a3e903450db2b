package kvcache

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// checkedValue fills v so that it tells its key and that no other value was
// written over a part of it.
func checkedValue(v []byte, key, version uint64) []byte {
	for i := range v {
		v[i] = byte(key>>(8*(i%8))) ^ byte(version*uint64(i/8+1))
	}
	if len(v) >= 16 {
		binary.LittleEndian.PutUint64(v, key)
		binary.LittleEndian.PutUint64(v[8:], version)
	}
	return v
}

func valueIsWhole(v []byte, key uint64) bool {
	if len(v) < 16 || binary.LittleEndian.Uint64(v) != key {
		return false
	}
	version := binary.LittleEndian.Uint64(v[8:])
	for i := 16; i < len(v); i++ {
		if v[i] != byte(key>>(8*(i%8)))^byte(version*uint64(i/8+1)) {
			return false
		}
	}
	return true
}

// TestVanish takes regions away by the thousand while others read, write,
// delete, iterate and sweep: by cutting the budget, which drops them as they
// are, and by filling it, which ages them. Every value read must be whole and
// its key's. Nothing is timed: the loop ends when enough has happened.
func TestVanish(t *testing.T) {
	const (
		population = 20_000
		fullBytes  = 400 * MinRegionBytes
	)
	wantDrops, wantHits := int64(4_000), int64(100_000)
	if testing.Short() {
		wantDrops, wantHits = wantDrops/4, wantHits/4
	}
	c, m := newTestCache(t,
		MemoryOptions{BudgetBytes: fullBytes, RegionBytes: MinRegionBytes, ReserveBytes: 4 * fullBytes},
		CacheOptions{Shards: 4, SweepEvery: time.Millisecond})
	var hits, misses, wrong, refused, scanned, drops atomic.Int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	for g := range uint64(3) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(g, 7))
			var key [8]byte
			v, dst := make([]byte, 200), make([]byte, 0, 256)
			for n := uint64(0); !stop.Load(); n++ {
				k := rnd.Uint64N(population)
				binary.LittleEndian.PutUint64(key[:], k)
				switch n % 16 {
				case 0, 1, 2, 3, 4, 5:
					ttl := time.Duration(0)
					if n%5 == 0 {
						ttl = time.Duration(1+n%20) * time.Millisecond
					}
					if err := c.Put(key[:], checkedValue(v[:16+rnd.IntN(180)], k, n<<8|g), ttl); err != nil {
						if refused.Add(1) == 1 {
							t.Error(err)
						}
					}
				case 6:
					c.Delete(key[:])
				case 9, 10:
					keys, values := make([][]byte, 20), make([][]byte, 20)
					for i := range keys {
						keys[i] = binary.LittleEndian.AppendUint64(nil, rnd.Uint64N(population))
						values[i] = checkedValue(make([]byte, 16+rnd.IntN(50)), binary.LittleEndian.Uint64(keys[i]), n<<8|g)
					}
					if n%16 == 9 {
						if _, err := c.PutMany(keys, values); err != nil && refused.Add(1) == 1 {
							t.Error(err)
						}
						continue
					}
					c.GetMany(keys, func(i int, v []byte, _ Kind, ok bool) {
						if ok && len(v) > 0 && !valueIsWhole(v, binary.LittleEndian.Uint64(keys[i])) {
							wrong.Add(1)
						}
					})
				case 7:
					_ = c.Update(key[:], func(old Entry, ok bool) (Entry, Op) {
						if len(old.Value) > 0 && !valueIsWhole(old.Value, k) {
							wrong.Add(1)
						}
						return Entry{Value: old.Value, ExpiresMs: 0}, Op(n/16%2) * Store
					})
				case 8:
					c.Scan(rnd.Uint64N(4<<32), 20, func(key []byte, e Entry) {
						scanned.Add(1)
						if k := binary.LittleEndian.Uint64(key); len(e.Value) > 0 && !valueIsWhole(e.Value, k) {
							wrong.Add(1)
						}
					})
				default:
					var ok bool
					if dst, ok = c.Get(dst[:0], key[:]); !ok {
						misses.Add(1)
					} else if hits.Add(1); len(dst) > 0 && !valueIsWhole(dst, k) {
						wrong.Add(1)
					}
				}
			}
		})
	}
	// enough is asked after the cache was left alone until it gave second chances,
	// which takes as long as it takes to fill it.
	enough := func(s CacheStats) bool {
		return drops.Load() >= wantDrops && hits.Load() >= wantHits && misses.Load() > 0 && scanned.Load() > 0 && s.Passes > 0 && s.Expired > 0
	}
	for n, reinserted := 1, uint64(0); ; n++ {
		if n%16 == 0 {
			s := c.Stats()
			if s.Reinserted == reinserted {
				n--
				time.Sleep(time.Millisecond)
				continue
			}
			if reinserted = s.Reinserted; enough(s) {
				break
			}
		}
		m.SetBudget(fullBytes / int64(2+n%5))
		if used, limit := m.Used(), m.Budget(); used > limit {
			t.Errorf("%d used of %d on return", used, limit)
		}
		m.SetBudget(fullBytes)
		drops.Store(int64(c.Stats().Reclaimed))
		time.Sleep(time.Millisecond) // let them fill it again
	}
	stop.Store(true)
	wg.Wait()
	s := c.Stats()
	t.Logf("%d hits, %d misses, %d wrong, %d scanned, %d regions taken, %+v",
		hits.Load(), misses.Load(), wrong.Load(), scanned.Load(), s.Reclaimed, s)
	if wrong.Load() != 0 {
		t.Errorf("%d wrong values", wrong.Load())
	}
	if refused.Load() != 0 || s.Refused != 0 {
		t.Errorf("%d writes refused although older ones could go", refused.Load())
	}
	if err := c.Check(); err != nil {
		t.Error(err)
	}
}

// TestStalePlace holds the one rule that keeps an address without an epoch
// honest: the place of a region that is gone is not given to another while an
// index has addresses in it.
func TestStalePlace(t *testing.T) {
	c, _ := newTestCache(t,
		MemoryOptions{BudgetBytes: 64 * MinRegionBytes, RegionBytes: MinRegionBytes},
		CacheOptions{Shards: 1, SweepEvery: -1})
	s := &c.shards[0]
	s.places.max = 8 // so that places must come round again and again
	// stale counts addresses in empty places, by place.
	stale := func() map[uint32]int {
		n := map[uint32]int{}
		for x := range s.dir.all() {
			for _, l := range x.lines {
				for slot, tag := range l.tags {
					if tag != 0 && !s.places.live(l.refs[slot]) {
						n[l.refs[slot]>>s.places.unitBits]++
					}
				}
			}
		}
		return n
	}
	var key [8]byte
	sawStale, reused := 0, 0
	seen := map[uint32]Region{}
	for n := range uint64(20_000) {
		binary.LittleEndian.PutUint64(key[:], n)
		if err := c.Put(key[:], make([]byte, 100), 0); err != nil {
			t.Fatal(err)
		}
		if list := s.logs[probation].list; len(list) > 5 {
			r := list[int(n)%len(list)]
			if !s.DropRegion(r, s.m.regions[r].epoch.Load()) {
				t.Fatal("not dropped")
			}
		}
		if n%7 != 0 {
			continue
		}
		at := stale()
		sawStale += len(at)
		for _, free := range s.places.free {
			if at[free] > 0 {
				t.Fatalf("put %d: place %d is free, %d addresses point to it", n, free, at[free])
			}
		}
		for place, r := range s.places.region {
			if r != 0 && seen[uint32(place)] != Region(r) {
				seen[uint32(place)] = Region(r)
				reused++
			}
		}
		if err := c.Check(); err != nil {
			t.Fatalf("put %d: %v", n, err)
		}
	}
	if sawStale < 100 || reused < 100 || c.Stats().Passes < 10 {
		t.Errorf("too little happened: %d stale places seen, %d regions placed, %d passes", sawStale, reused, c.Stats().Passes)
	}
}
