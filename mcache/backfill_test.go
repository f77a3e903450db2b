package mcache

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"mcached/kvcache"
	"mcached/mcache/block"
)

// Samples that come before what a series has, in order, in order backwards, or
// in runs of which the newest comes first, with some written twice, some out of
// order and some in between, are all there at once, each with what was written
// last: read where they lie, from a snapshot, and from a blob.
func TestBackfill(t *testing.T) {
	for _, writeBack := range []bool{false, true} {
		for _, order := range []string{"forward", "backward", "runs"} {
			t.Run(fmt.Sprintf("write-back %v, %s", writeBack, order), func(t *testing.T) { testBackfill(t, writeBack, order) })
		}
	}
}

func testBackfill(t *testing.T, writeBack bool, order string) {
	const seed = 5
	rng := rand.New(rand.NewPCG(seed, 1))
	c := newTestCache(t, Options{WriteBack: writeBack, Blobs: !writeBack})
	const series, have, missing, step = 6, 300, 700, 15_000
	want := make([]map[int64]uint64, series)
	write := func(i int, ss ...Sample) {
		if want[i] == nil {
			want[i] = map[int64]uint64{}
		}
		for _, s := range ss {
			want[i][s.T] = s.V
		}
		if err := c.AppendSamples("default", name(fmt.Sprint("s", i)), ss...); err != nil {
			t.Fatal(err)
		}
	}
	at := func(i, k int) int64 {
		if i%2 == 1 { // not on a grid
			return int64(k)*step + int64(k*k%977)
		}
		return int64(k) * step
	}
	check := func(c *Cache, i int) {
		t.Helper()
		var all []Sample
		for at, v := range want[i] {
			all = append(all, Sample{T: at, V: v})
		}
		slices.SortFunc(all, func(a, b Sample) int { return int(a.T - b.T) })
		if got := readAll(t, c, "default", name(fmt.Sprint("s", i)), -MaxTime, MaxTime); !slices.Equal(got, all) {
			t.Fatalf("seed %d, series %d: %d samples are read of %d, or others", seed, i, len(got), len(all))
		}
	}
	for k := range have {
		for i := range series {
			write(i, Sample{T: at(i, k), V: rng.Uint64N(100)})
		}
	}
	sealed, open, now := c.Stats(), 0, have
	for n := range missing {
		k := n - missing
		switch order {
		case "backward":
			k = -1 - n
		case "runs": // of ten
			k = n%10 - 10*(n/10+1)
		}
		for i := range series {
			switch rng.IntN(60) {
			case 0: // one that is there, or not yet
				write(i, Sample{T: at(i, -rng.IntN(missing)), V: rng.Uint64()})
			case 1: // it does not come at all
				continue
			case 2: // behind the blocks that were filled
				write(i, Sample{T: at(i, k) + 7, V: 1})
			case 3:
				write(i, Sample{T: at(i, k), V: 1}, Sample{T: at(i, k) + 1, V: 2}, Sample{T: at(i, k) + 2, V: 3})
				continue
			}
			write(i, Sample{T: at(i, k), V: rng.Uint64N(100)})
			if i == n%series {
				check(c, i)
			}
		}
		if n%20 == 0 { // meanwhile others come in order
			for i := range series {
				write(i, Sample{T: at(i, now), V: rng.Uint64N(100)})
			}
			now++
		}
		open += openBlocks(c)
		if n%100 == 0 {
			checkCache(t, c)
		}
	}
	if mended := c.Stats().Mended - sealed.Mended; mended < series*missing*9/10 {
		t.Errorf("only %d samples were late", mended)
	}
	if open < series*missing/4 {
		t.Errorf("there were only %d open blocks", open)
	}
	var file bytes.Buffer
	if _, err := c.Save(&file, 1, nil); err != nil {
		t.Fatal(err)
	}
	d := newTestCache(t, Options{})
	if _, err := d.Load(&file, LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := openBlocks(d); n != 0 {
		t.Errorf("%d open blocks were saved", n)
	}
	if !writeBack {
		defer func() {
			evictAll(t, c)
			for i := range series {
				check(c, i)
			}
		}()
	}
	for i := range series {
		check(c, i)
		check(d, i)
	}
	checkCache(t, c)
}

// openBlocks counts those of all series.
func openBlocks(c *Cache) (n int) {
	for _, s := range c.shards {
		for id := range s.recs.All() {
			for _, e := range s.dirOfLocked(s.recs.At(uint32(id))) {
				if b := s.blockLocked(e); b != nil && block.OpenRoom(b) > 0 {
					n++
				}
			}
		}
	}
	return n
}

// Samples before what a series has are encoded a few times for many, whichever
// way they come, and leave full blocks; when the series goes on none is open.
func TestBackfillIsOpen(t *testing.T) {
	const missing = 20 * block.MaxSamples
	for _, order := range []string{"forward", "backward"} {
		t.Run(order, func(t *testing.T) {
			c := newTestCache(t, Options{Shards: 1})
			write := func(k int) {
				if err := c.AppendSamples("default", name("s"), Sample{T: int64(k) * 15_000, V: uint64(k * k)}); err != nil {
					t.Fatal(err)
				}
			}
			const have = 300
			for k := range have {
				write(k)
			}
			s := c.shards[0]
			blocks := len(s.dirOfLocked(s.recs.At(0)))
			inPlace := 0
			for n := range missing {
				before := slices.Clone(s.dirOfLocked(s.recs.At(0)))
				if order == "forward" {
					write(n - missing)
				} else {
					write(-1 - n)
				}
				if slices.EqualFunc(before, s.dirOfLocked(s.recs.At(0)), func(a, b dirEntry) bool { return a.ref == b.ref }) {
					inPlace++
				}
			}
			// Of each openRoom the first one, the one behind openFirst, and the one behind the last go elsewhere.
			if least := missing * (openRoom - 3) / openRoom; inPlace < least {
				t.Errorf("%d of %d samples were written where a block lay, at least %d should be", inPlace, missing, least)
			}
			for k := range headMax / slotBytes {
				write(have + k)
			}
			if n := openBlocks(c); n > 0 {
				t.Errorf("%d blocks are open when the head was sealed", n)
			}
			if now := len(s.dirOfLocked(s.recs.At(0))); now > blocks+missing/block.MaxSamples+2 {
				t.Errorf("%d samples are in %d blocks", missing, now-blocks)
			}
			checkCache(t, c)
		})
	}
}

// What is written once more as it is changes no block.
func TestOverwrittenAlike(t *testing.T) {
	c := newTestCache(t, Options{Shards: 1})
	for range 2 {
		for k := range 300 {
			if err := c.AppendSamples("default", name("s"), Sample{T: int64(k) * 15_000, V: uint64(k * k)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	s, st := c.shards[0], c.Stats()
	if st.Points != 300 || st.Overwritten != 300 {
		t.Errorf("%d points, %d overwritten", st.Points, st.Overwritten)
	}
	before := slices.Clone(s.dirOfLocked(s.recs.At(0)))
	same := func() bool { return slices.Equal(before, s.dirOfLocked(s.recs.At(0))) }
	for k, v := range []uint64{0, 1, 5} {
		if err := c.AppendSamples("default", name("s"), Sample{T: int64(k) * 15_000, V: v}); err != nil {
			t.Fatal(err)
		}
		if alike := v == uint64(k*k); same() != alike {
			t.Errorf("sample %d was written as it was: %v; no block changed: %v", k, alike, same())
		}
	}
	if got := readAll(t, c, "default", name("s"), 0, 2*15_000); got[2].V != 5 {
		t.Errorf("reads %v", got)
	}
	checkCache(t, c)
}

// An open block that there was no memory to seal is sealed when there is.
func TestOpenUntilThereIsMemory(t *testing.T) {
	c := newTestCache(t, Options{Memory: newTestMemory(t, 1<<20, 16<<10), Shards: 1})
	for k := range 310 {
		if k >= 300 {
			k = 299 - k
		}
		if err := c.AppendSamples("default", name("s"), Sample{T: int64(k) * 15_000, V: uint64(k * k)}); err != nil {
			t.Fatal(err)
		}
	}
	s := c.shards[0]
	seal := func() int {
		s.mu.Lock()
		s.sealOpensLocked(0)
		s.mu.Unlock()
		checkCache(t, c)
		return openBlocks(c)
	}
	var filling []kvcache.Ref
	for n := s.log.MaxValue(); n > 0; {
		if ref, _, ok := s.log.Alloc(n, kindBlock, 0, 0); ok {
			filling = append(filling, ref)
		} else {
			n /= 2
		}
	}
	if n := seal(); n != 1 {
		t.Fatalf("%d blocks are open where there is no memory to seal one", n)
	}
	for _, ref := range filling {
		s.log.Free(ref, 0)
	}
	if n := seal(); n != 0 {
		t.Errorf("%d blocks are open", n)
	}
}
