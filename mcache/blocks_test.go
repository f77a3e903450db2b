package mcache

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"mcached/mcache/block"
)

// handedOver writes what c has of a series, the newest or the rest, to the cache to, as
// nodes do. It returns the samples in it, and how many blocks it was in.
func handedOver(t *testing.T, c, to *Cache, labels []Label, from, recent int64, newest bool) (samples []Sample, blocks int) {
	t.Helper()
	ids, err := c.Select("default", []Matcher{{Type: MatchEqual, Name: labels[0].Name, Value: labels[0].Value}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var b Batch
	var reader BlockReader
	for _, id := range ids {
		var snap Snapshot
		var packed []Block
		whole := false
		if newest {
			c.SnapshotNewest(id, from, recent, &snap)
		} else if c.Snapshot(id, from, math.MaxInt64, &snap); true {
			if packed, whole = snap.Blocks(nil); !whole && len(packed) > 0 {
				t.Fatalf("%d blocks of what cannot be had in blocks", len(packed))
			}
		}
		b.Reset("default")
		var f Fingerprint
		f.Add(to.HashString(labels[0].Name), to.HashString(labels[0].Value))
		b.Series(f)
		b.Duty(Nobodys)
		if !whole {
			for it := snap.Iterator(); it.Next(); {
				if it.OnRecord() {
					b.Record(it.Record().T, slices.Clone(it.Record().Value))
					continue
				}
				b.Sample(it.At().T, it.At().V)
				b.StartTime(it.StartTime())
				samples = append(samples, it.At())
			}
		}
		var sound []SoundBlock
		for _, p := range packed {
			x, err := reader.Check(Block{p.First, slices.Clone(p.Bytes)})
			if err != nil || x.Len() != p.Len() {
				t.Fatal(err)
			}
			all := reader.Samples(&x)
			if all[0].T != x.First() || all[len(all)-1].T != x.Last() {
				t.Fatalf("a block from %d to %d has %v", x.First(), x.Last(), all)
			}
			samples = append(samples, all...)
			sound = append(sound, x)
		}
		blocks += len(sound)
		if b.Blocks(sound); len(samples)+len(b.records) == 0 {
			continue
		}
		n, err := to.Append(&b)
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Missing()) > 0 {
			if n, err = to.AppendNew(&b, 0, labels); err != nil {
				t.Fatal(err)
			}
		}
		if n != len(samples)+len(b.records) {
			t.Fatalf("%d points of %d were written", n, len(samples)+len(b.records))
		}
	}
	return samples, blocks
}

// What one cache hands over to another is there, as if its samples had been written one
// by one: whatever either has before, in heads, in blocks that are full, short or open, in
// blobs, with start times and records, on a grid or not; and none of it is dirty there.
func TestBlocksHandedOver(t *testing.T) {
	taken, mended := 0, 0
	for seed := range uint64(40) {
		for _, writeBack := range []bool{false, true} {
			a, b := testBlocksHandedOver(t, seed, writeBack)
			taken, mended = taken+a, mended+b
		}
	}
	if taken < 200 || mended < 500 {
		t.Errorf("%d blocks were taken as they are, %d were not: no test", taken, mended)
	}
}

func testBlocksHandedOver(t *testing.T, seed uint64, writeBack bool) (taken, mended int) {
	rng := rand.New(rand.NewPCG(seed, 1))
	const series, step = 4, 15_000
	type one struct {
		c    *Cache
		want [series]map[int64]uint64
	}
	var both [2]one
	for i := range both {
		both[i].c = newTestCache(t, Options{WriteBack: writeBack, Blobs: !writeBack, Shards: 1})
		for k := range series {
			both[i].want[k] = map[int64]uint64{}
		}
	}
	labels := func(k int) []Label { return name(fmt.Sprint("s", k)) }
	check := func(x *one, k int) {
		t.Helper()
		var all []Sample
		for at, v := range x.want[k] {
			all = append(all, Sample{T: at, V: v})
		}
		slices.SortFunc(all, func(a, b Sample) int { return int(a.T - b.T) })
		var got []Sample
		ids, _ := x.c.Select("default", []Matcher{{Type: MatchEqual, Name: labels(k)[0].Name, Value: labels(k)[0].Value}}, nil)
		for _, id := range ids {
			var snap Snapshot
			x.c.Snapshot(id, -MaxTime, MaxTime, &snap)
			for it := snap.Iterator(); it.Next(); {
				if !it.OnRecord() {
					got = append(got, it.At())
				}
			}
		}
		if !slices.Equal(got, all) {
			t.Fatalf("seed %d, series %d: %d samples are read of %d, or others", seed, k, len(got), len(all))
		}
	}
	now := [2]int{200, 200} // by cache: steps
	at := func(k, n int) int64 {
		if k == 1 { // on no grid
			return int64(n)*step + int64(n*n%977)
		}
		return int64(n) * step
	}
	for range 60 {
		i, k := rng.IntN(2), rng.IntN(series)
		x := &both[i]
		switch rng.IntN(12) {
		case 0, 1, 2, 3: // in order, with holes
			var ss []Sample
			for range rng.IntN(200) {
				if now[i]++; rng.IntN(50) == 0 {
					now[i] += rng.IntN(300)
				}
				ss = append(ss, Sample{T: at(k, now[i]), V: rng.Uint64N(100)})
			}
			for _, s := range ss {
				x.want[k][s.T] = s.V
			}
			if err := x.c.AppendSamples("default", labels(k), ss...); err != nil {
				t.Fatal(err)
			}
		case 4: // late, alone or some
			from := rng.IntN(now[i])
			for n := range 1 + rng.IntN(4)*rng.IntN(10) {
				s := Sample{T: at(k, from+n) + int64(rng.IntN(2)), V: rng.Uint64N(100)}
				x.want[k][s.T] = s.V
				if err := x.c.AppendSamples("default", labels(k), s); err != nil {
					t.Fatal(err)
				}
			}
		case 5: // to a blob
			s := x.c.shards[0]
			for gen := 3; gen > genBlob; gen-- {
				for !writeBack && rng.IntN(2) == 0 && s.coldestToBlob(gen) {
				}
			}
		case 6: // start times, or a record, of one series
			if k != 3 || i != int(seed%2) {
				continue
			}
			var b Batch
			var f Fingerprint
			f.Add(x.c.HashString(labels(k)[0].Name), x.c.HashString(labels(k)[0].Value))
			b.Reset("default")
			b.Series(f)
			if now[i]++; seed%4 < 2 {
				b.Sample(at(k, now[i]), 1)
				b.StartTime(at(k, now[i]) - 1)
				x.want[k][at(k, now[i])] = 1
			} else if len(x.want[k]) > 0 {
				b.Record(at(k, now[i])+7, []byte("a record"))
			}
			if _, err := x.c.Append(&b); err != nil {
				t.Fatal(err)
			}
			if len(b.Missing()) > 0 && len(b.samples) > 0 {
				if _, err := x.c.AppendNew(&b, 0, labels(k)); err != nil {
					t.Fatal(err)
				}
			}
		default: // handed over
			y := &both[1-i]
			from, newest := int64(math.MinInt64), rng.IntN(3) == 0
			if rng.IntN(2) == 0 {
				from = at(k, rng.IntN(now[i]))
			}
			before, dirty := y.c.Stats(), y.c.Dirty().Points
			samples, blocks := handedOver(t, x.c, y.c, labels(k), from, at(k, now[i]-20), newest)
			for _, s := range samples {
				y.want[k][s.T] = s.V
			}
			if after := y.c.Dirty().Points; after != dirty {
				t.Fatalf("seed %d: %d points are dirty, %d before", seed, after, dirty)
			}
			after := y.c.Stats()
			if blocks > 0 && after.Mended == before.Mended && after.Overwritten == before.Overwritten {
				taken += blocks
			} else {
				mended += blocks
			}
			now[1-i] = max(now[1-i], now[i])
		}
		check(x, k)
		check(&both[1-i], k)
	}
	for i := range both {
		checkCache(t, both[i].c)
	}
	// All of it, both ways: then both have the same, but for what one has written over.
	for k := range 3 {
		for i := range both {
			for _, newest := range []bool{true, false} {
				samples, _ := handedOver(t, both[i].c, both[1-i].c, labels(k), math.MinInt64, 0, newest)
				for _, s := range samples {
					both[1-i].want[k][s.T] = s.V
				}
			}
			check(&both[1-i], k)
		}
		if !maps.Equal(both[0].want[k], both[1].want[k]) {
			t.Fatalf("seed %d: series %d is not the same in both", seed, k)
		}
	}
	return taken, mended
}

// What is not a sound block is refused, and so is one that is open, or ends too late.
func TestBlockReaderRefuses(t *testing.T) {
	var codec block.Codec
	var reader BlockReader
	ss := []Sample{{T: 1, V: 1}, {T: 2, V: 2}, {T: 4, V: 3}}
	good := codec.Encode(nil, ss, 1)
	x, err := reader.Check(Block{1, good[:len(good):len(good)]})
	if err != nil || !slices.Equal(reader.Samples(&x), ss) || x.Len() != 3 || x.First() != 1 || x.Last() != 4 {
		t.Fatal(x, err)
	}
	open := make([]byte, block.OpenBytes(8))
	block.PutOpen(open, ss)
	for _, c := range []struct {
		name string
		b    Block
	}{
		{"empty", Block{1, nil}},
		{"cut", Block{1, good[:len(good)-3]}},
		{"open", Block{1, open}},
		{"too late", Block{MaxTime - 1, codec.Encode(nil, ss, 1)}},
		{"too early", Block{-MaxTime - 2, good}},
		{"noise", Block{1, []byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")}},
	} {
		if _, err := reader.Check(c.b); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// BenchmarkTakeBlocks is what a series of an hour costs whom it is handed over to, who
// has its newest samples already: 240 samples in blocks, or one by one.
func BenchmarkTakeBlocks(b *testing.B) {
	const samples, step = 240, 15_000
	src := newTestCache(b, Options{})
	var ss []Sample
	for k := range samples {
		ss = append(ss, Sample{T: int64(k) * step, V: math.Float64bits(float64(k * 7))})
	}
	if err := src.AppendSamples("default", name("a"), ss...); err != nil {
		b.Fatal(err)
	}
	ids, _ := src.Select("default", nil, nil)
	var snap Snapshot
	src.Snapshot(ids[0], math.MinInt64, math.MaxInt64, &snap)
	packed, _ := snap.Blocks(nil)
	for _, how := range []string{"blocks", "samples"} {
		b.Run(how, func(b *testing.B) {
			b.ReportAllocs()
			c := newTestCache(b, Options{Memory: newTestMemory(b, 2<<30, 1<<20)})
			var batch Batch
			var reader BlockReader
			sound := make([]SoundBlock, 0, len(packed))
			labels := make([][]Label, b.N)
			for i := range labels {
				labels[i] = name(fmt.Sprint("s", i))
				if err := c.AppendSamples("default", labels[i], Sample{T: samples * step}); err != nil {
					b.Fatal(err)
				}
			}
			n := 0
			for b.ResetTimer(); n < b.N; n++ {
				var f Fingerprint
				f.Add(c.HashString(labels[n][0].Name), c.HashString(labels[n][0].Value))
				batch.Reset("default")
				batch.Series(f)
				if how == "blocks" {
					sound = sound[:0]
					for _, p := range packed {
						x, err := reader.Check(p)
						if err != nil {
							b.Fatal(err)
						}
						sound = append(sound, x)
					}
					batch.Blocks(sound)
				} else {
					for _, p := range packed {
						x, _ := reader.Check(p)
						for _, s := range reader.Samples(&x) {
							batch.Sample(s.T, s.V)
						}
					}
				}
				if _, err := c.Append(&batch); err != nil || len(batch.Missing()) > 0 {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*samples), "ns/sample")
		})
	}
}

// TestPlaceBehind places blocks at once and one by one, more than a directory can have and
// more than there is memory for: the series are the same, and hold the same.
func TestPlaceBehind(t *testing.T) {
	for seed := range uint64(6) {
		testPlaceBehind(t, rand.New(rand.NewPCG(9, seed)))
	}
}

func testPlaceBehind(t *testing.T, rnd *rand.Rand) {
	together, single := newPlacer(t, 4<<20), newPlacer(t, 8<<20)
	full := false
	for n := 0; !full; n++ {
		blocks := single.blocks(rnd, []int{0, 1, 1, 2, 5, 40, 400}[rnd.IntN(7)])
		placed := 0
		a, gotA := together.place(n, func(s *shard, id uint32) {
			for placed < len(blocks) && !full {
				k := s.placeBehindLocked(id, blocks[placed:])
				placed += k
				full = k == 0
			}
		})
		b, gotB := single.place(n, func(s *shard, id uint32) {
			for k := range blocks[:placed] {
				if !s.placeBlockLocked(id, &blocks[k], int(s.recs.At(id).dirLen), k == len(blocks)-1) {
					t.Errorf("no memory for block %d of series %d", k, n)
				}
			}
			s.relistLocked(id)
		})
		if full && int(a.dirLen) < placed {
			break // its directory made room for a block for which there was no memory
		}
		if a != b || together.c.shards[0].changed[0] != single.c.shards[0].changed[0] {
			t.Fatalf("series %d with %d blocks of %d is %+v, one by one %+v", n, placed, len(blocks), a, b)
		}
		if !slices.EqualFunc(gotA, gotB, func(x, y Block) bool { return x.First == y.First && bytes.Equal(x.Bytes, y.Bytes) }) {
			t.Fatalf("series %d has %d blocks, one by one %d, of %d", n, len(gotA), len(gotB), placed)
		}
	}
	for _, p := range []*placer{together, single} {
		if st := checkCache(t, p.c); st.Reclaimed == 0 {
			t.Error("no directory was full")
		}
	}
}

// placer places blocks of new series.
type placer struct {
	t *testing.T
	c *Cache
	BlockReader
}

func newPlacer(t *testing.T, budget int64) *placer {
	return &placer{t: t, c: newTestCache(t, Options{Memory: newTestMemory(t, budget, 4<<10), Shards: 1})}
}

// blocks makes blocks of all lengths, that follow one another.
func (p *placer) blocks(rnd *rand.Rand, n int) (blocks []SoundBlock) {
	at := int64(0)
	for range n {
		ss, step := make([]Sample, 1+rnd.IntN(block.MaxSamples)), []int64{1000, 15000}[rnd.IntN(2)]
		for i := range ss {
			ss[i] = Sample{T: at, V: rnd.Uint64N(1000)}
			at += step
		}
		x, err := p.Check(Block{ss[0].T, p.codec.Encode(nil, ss, step)})
		if err != nil {
			p.t.Fatal(err)
		}
		blocks = append(blocks, x)
	}
	return blocks
}

// place makes series n, and returns what is known of it and its blocks, without what goes by
// the steps in which its directory grew.
func (p *placer) place(n int, place func(s *shard, id uint32)) (r series, blocks []Block) {
	labels := name(fmt.Sprint("m", n))
	b, err := p.c.openBucket("default", widthHPTS)
	if err != nil {
		p.t.Fatal(err)
	}
	s := p.c.shards[0]
	s.mu.Lock()
	id, err := s.createLocked(b, p.c.Fingerprint(labels).in(b), 0, labels, nil)
	if err == nil {
		place(s, id)
		if r = *s.recs.At(id); r.class != listClass(&r) {
			p.t.Errorf("a series of %d bytes is in class %d", r.bytes, r.class)
		}
		if r.dir != 0 {
			r.bytes -= entryBytes(int(r.dirCap) * dirEntryBytes)
		}
		r.fp, r.dir, r.dirCap, r.class, r.older = Fingerprint{}, 0, 0, 0, 0
	}
	s.publishLocked()
	s.mu.Unlock()
	if err != nil {
		p.t.Fatal(err)
	}
	var snap Snapshot
	p.c.Snapshot(mustSelect(p.t, p.c, labels)[0], 0, MaxTime, &snap)
	blocks, ok := snap.Blocks(nil)
	if !ok {
		p.t.Fatalf("series %d: blocks cannot be had", n)
	}
	return r, blocks
}
