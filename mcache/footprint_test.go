package mcache

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"mcached/kvcache"
	"mcached/mcache/block"
	"mcached/mcache/block/mix"
)

// TestFootprint is what one series on a grid takes, by how many samples it has:
// what is here is there once for each of millions.
func TestFootprint(t *testing.T) {
	for _, want := range []struct {
		samples              int
		hot, partial, dir    int64
		blockPoints, inBlock int64
	}{
		{6, 72, 0, 0, 0, 0},
		{24, 200, 0, 0, 0, 0},
		{25, 200, 40, 40, 21, 0},
		{240, 200, 104, 40, 105, 126}, // one full block, and one that was joined in the middle
	} {
		c := newTestCache(t, Options{})
		for i := range want.samples {
			x := Sample{T: int64(i) * 15_000, V: math.Float64bits(float64(i * i % 97))}
			if err := c.AppendSamples("default", kubernetesLabels(0), x); err != nil {
				t.Fatal(err)
			}
		}
		st := checkCache(t, c)
		if st.Hot.LiveBytes != want.hot || st.Dir.LiveBytes != want.dir || st.Partials.Weight != want.blockPoints || st.Log.Weight != want.inBlock {
			t.Errorf("%d samples: head %d bytes, directory %d, %d samples in a partial block, %d in full ones; want %+v",
				want.samples, st.Hot.LiveBytes, st.Dir.LiveBytes, st.Partials.Weight, st.Log.Weight, want)
		}
		if got := st.Partials.LiveBytes; got > want.partial+want.partial/2 {
			t.Errorf("%d samples: a partial block of %d bytes, want about %d", want.samples, got, want.partial)
		}
	}
}

// TestFewSeriesOfSmallMemory leave it to others: the daemon's own metrics, which are
// always there, are 714 series.
func TestFewSeriesOfSmallMemory(t *testing.T) {
	m, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	c, err := New(Options{Memory: m, Blobs: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for series := range 714 {
		for i := range int64(30) { // so that there are heads, partial blocks and directories
			if err := c.AppendSamples("default", name(fmt.Sprint("own_", series)), Sample{T: i * 15_000, V: uint64(i)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if used := m.Used(); used < 714*200 || used > m.Budget()/20 {
		t.Errorf("%d shards take %d bytes of %d, want at most a 20th", c.Shards(), used, m.Budget())
	}
}

// TestPartialBlocksDieTogether writes series as a sender does, all of them in each
// round: what their partial blocks leave behind when they grow goes by regions, without
// compaction. Those of the first sealing, in one round, do not: the next of a series is
// up to a head's length later.
func TestPartialBlocksDieTogether(t *testing.T) {
	const series = 4000
	m, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 64 << 20, RegionBytes: 8 << 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	c := newTestCache(t, Options{Memory: m, Shards: 2})
	fps := fill(t, c, series)
	next := make([]func() float64, series)
	for i := range next {
		_, next[i] = mix.Generator(i, rand.New(rand.NewPCG(1, uint64(i))))
	}
	var b Batch
	grown := 0
	for round, live := int64(1), int64(0); round < 128; round++ {
		b.Reset("default")
		for i, f := range fps {
			b.Series(f)
			b.Sample(round*15_000, math.Float64bits(next[i]()))
		}
		if n, err := c.Append(&b); n != series || err != nil {
			t.Fatal(n, err)
		}
		p := c.Stats().Partials
		if p.LiveBytes != live {
			grown++
			live = p.LiveBytes
		}
		const sealedTwice = 2 * headMax / slotBytes
		if round >= sealedTwice && p.DeadBytes > p.LiveBytes/16 || p.DeadBytes > p.LiveBytes/2 {
			t.Fatalf("round %d: of partial blocks %d bytes live and %d are dead", round, p.LiveBytes, p.DeadBytes)
		}
	}
	if grown < 5 {
		t.Errorf("partial blocks have grown %d times", grown)
	}
}

// TestSectionsOfPartialBlock follows a block until it is full: long sections, of a
// grid, are joined once in its middle, short ones when there are as many as may be.
func TestSectionsOfPartialBlock(t *testing.T) {
	for _, want := range []struct {
		kind     string
		at       func(i int64) int64
		sections string // samples:sections, each time that it has grown
	}{
		{"grid", func(i int64) int64 { return i * 15_000 }, "21:1 42:2 63:1 84:2 105:3 "},
		{"pairs", func(i int64) int64 { return i*15_000 + i*i }, "11:1 22:2 33:3 44:4 55:1 66:2 77:3 88:4 99:1 110:2 "},
	} {
		c := newTestCache(t, Options{Shards: 1})
		got, last := "", ""
		for i := range int64(120) {
			x := Sample{T: want.at(i), V: uint64(i)}
			if err := c.AppendSamples("default", name("m"), x); err != nil {
				t.Fatal(err)
			}
			s := c.shards[0]
			s.mu.Lock()
			if r := s.recs.At(0); r.flags&flagPartial != 0 {
				b := s.partials.Value(s.dirOfLocked(r)[r.dirLen-1].ref)
				if now := fmt.Sprintf("%d:%d ", block.Len(b), block.Sections(b)); now != last {
					got, last = got+now, now
				}
			}
			s.mu.Unlock()
		}
		if got != want.sections {
			t.Errorf("%s: it grows %sand should %s", want.kind, got, want.sections)
		}
		checkCache(t, c)
	}
}
