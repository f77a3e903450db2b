package mcache

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"mcached/kvcache"
)

// reclaimWorld is a Memory that a metric cache, its blobs and a client's blobs
// share, filled era by era: in each, some series are written until they have
// sealed blocks, some are evicted into blobs, and a client stores values.
type reclaimWorld struct {
	m       *kvcache.Memory
	c       *Cache
	clients *kvcache.Cache
}

const (
	worldEras    = 6
	worldSeries  = 60
	worldValues  = 400
	blocksOf     = 0
	overflowOf   = 1
	clientsOf    = 2
	overflowAcct = 1
	clientsAcct  = 2
)

func newReclaimWorld(t *testing.T, writeBack bool) *reclaimWorld {
	t.Helper()
	m, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 32 << 20, RegionBytes: 4 << 10, ReserveBytes: 64 << 20, ReadyRegions: -1})
	if err != nil {
		t.Fatal(err)
	}
	w := &reclaimWorld{m: m}
	if w.clients, err = kvcache.NewCache(kvcache.CacheOptions{Memory: m, Account: clientsAcct, Shards: 1, SweepEvery: -1}); err != nil {
		t.Fatal(err)
	}
	w.c = newTestCache(t, Options{Memory: m, Shards: 1, Blobs: true, BlobAccount: overflowAcct, WriteBack: writeBack})
	t.Cleanup(func() {
		w.c.Close()
		w.clients.Close()
		m.Close()
	})
	s := w.c.shards[0]
	for era := range worldEras {
		for i := range worldSeries {
			// Those that are evicted first, so that only theirs are evicted.
			if err := w.c.InsertHPTS("evicted", worldKey(era, i), worldPairs(100)); err != nil {
				t.Fatal(err)
			}
			s.mu.Lock()
			if !s.toBlobLocked(s.findLocked(w.c.rawFingerprint(worldKey(era, i)).in(w.c.findBucket("evicted"))), ofBudget) {
				t.Fatal("no memory for a blob")
			}
			s.mu.Unlock()
		}
		for i := range worldSeries {
			if err := w.c.InsertHPTS("live", worldKey(era, i), worldPairs(300)); err != nil {
				t.Fatal(err)
			}
		}
		for i := range worldValues {
			if err := w.clients.Put(worldKey(era, i), make([]byte, 100), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	return w
}

func worldKey(era, i int) []byte { return fmt.Appendf(nil, "era %d, %d", era, i) }

// worldPairs are n pairs that take a few bytes each in blocks.
func worldPairs(n int) (b []byte) {
	for i := range n {
		b = le.AppendUint64(le.AppendUint64(b, uint64(i*1000)), math.Float64bits(float64(i*i%1000)/8))
	}
	return b
}

// count reads everything, and says how much of each kind and era is left.
func (w *reclaimWorld) count(t *testing.T) (kinds [3][worldEras]int, heads int) {
	t.Helper()
	for era := range worldEras {
		for i := range worldSeries {
			runs, err := w.c.Get("evicted", worldKey(era, i))
			if err != nil {
				t.Fatal(err)
			}
			if len(points("pairs", runs)) > 0 {
				kinds[overflowOf][era]++
			}
			if runs, err = w.c.Get("live", worldKey(era, i)); err != nil {
				t.Fatal(err)
			}
			for at := range points("pairs", runs) {
				if at < 128*1000 { // of the first block; the last points are in the head
					kinds[blocksOf][era]++
				} else if at == 299*1000 {
					heads++
				}
			}
		}
		for i := range worldValues {
			if w.clients.Has(worldKey(era, i)) {
				kinds[clientsOf][era]++
			}
		}
	}
	return kinds, heads
}

// TestReclaimOrder takes the memory away, region by region: what is empty goes
// first; then, era by era, sealed blocks, evicted series and clients' values
// alike; the heads of series last.
func TestReclaimOrder(t *testing.T) {
	t.Parallel()
	w := newReclaimWorld(t, false)
	full, allHeads := w.count(t)
	for kind := range full {
		for era, n := range full[kind] {
			if n != full[kind][0] || n == 0 {
				t.Fatalf("kind %d, era %d holds %d, era 0 %d", kind, era, n, full[kind][0])
			}
		}
	}
	before := w.m.Stats().RegionsReclaimed
	w.m.SetBudget(w.m.Used() - int64(w.m.Stats().RegionsSpare*w.m.RegionBytes()))
	if st := w.m.Stats(); st.RegionsReclaimed != before || st.RegionsSpare != 0 {
		t.Fatalf("what was empty did not go first: %+v", st)
	}
	mixed, hotSteps := 0, 0
	var hotFrom uint64
	for w.c.Stats().Hot.Regions > 0 {
		w.m.SetBudget(w.m.Used() - int64(3*w.m.RegionBytes()))
		left, heads := w.count(t)
		logs := w.c.Stats().Log.Regions + w.c.Stats().Blobs.Regions + w.clients.Stats().Regions
		if heads < allHeads && logs > 0 && hotFrom == 0 {
			t.Fatalf("%d of %d heads are left, and %d regions of logs", heads, allHeads, logs)
		}
		if heads < allHeads {
			hotFrom = 1
			hotSteps++
		}
		// No kind may have lost of an era while another still has most of one
		// before it. An open region may hold the end of an era and the beginning
		// of the next.
		lost := func(kind, era int) int { return full[kind][era] - left[kind][era] }
		for kind := range left {
			for era := 2; era < worldEras; era++ {
				for other := range left {
					if lost(kind, era) > 0 && left[other][era-2] > 0 {
						t.Fatalf("kind %d has lost %d of era %d, and kind %d has %d of era %d: %v", kind, lost(kind, era), era, other, left[other][era-2], era-2, left)
					}
				}
			}
		}
		for era := range worldEras {
			if lost(blocksOf, era) > 0 && lost(overflowOf, era) > 0 && lost(clientsOf, era) > 0 && left[blocksOf][era]+left[overflowOf][era]+left[clientsOf][era] > 0 {
				mixed++
			}
		}
	}
	if mixed < 3 || hotSteps < 3 {
		t.Errorf("too little happened: %d steps in which an era was half gone of all kinds, %d steps of heads", mixed, hotSteps)
	}
	checkCache(t, w.c)
	if err := w.clients.Check(); err != nil {
		t.Error(err)
	}
}

// TestReclaimShares gives clients a share that they are above: theirs goes
// first, until they are within, and then the oldest of all.
func TestReclaimShares(t *testing.T) {
	t.Parallel()
	w := newReclaimWorld(t, false)
	w.m.SetBudget(w.m.Used() - int64(w.m.Stats().RegionsSpare*w.m.RegionBytes()))
	full, _ := w.count(t)
	const share = 0.1
	if err := w.m.SetShare(clientsAcct, share); err != nil {
		t.Fatal(err)
	}
	over, within := 0, 0
	for w.m.Account(clientsAcct).UsedBytes > 0 && within < 20 {
		a := w.m.Account(clientsAcct)
		w.m.SetBudget(w.m.Used() - int64(w.m.RegionBytes()))
		left, _ := w.count(t)
		others := slices.Equal(left[blocksOf][:], full[blocksOf][:]) && slices.Equal(left[overflowOf][:], full[overflowOf][:])
		if a.UsedBytes > a.ShareBytes {
			over++
			if !others {
				t.Fatalf("clients hold %d of a share of %d, and others have lost", a.UsedBytes, a.ShareBytes)
			}
		} else if !others {
			within++
		}
	}
	if over < 20 || within < 20 {
		t.Errorf("too little happened: %d steps above the share, %d within", over, within)
	}
	if a := w.m.Account(clientsAcct); a.UsedBytes == 0 {
		t.Error("clients have nothing left")
	}
}

// TestReclaimPinned takes all the memory away from a cache whose newest points
// are not acknowledged: those stay, and what is evicted stays until they are.
func TestReclaimPinned(t *testing.T) {
	w := newReclaimWorld(t, true)
	w.c.SetTick(2)
	var dirty []Sample
	for i := range 500 {
		dirty = append(dirty, Sample{T: int64(i) * 1000, V: uint64(i)})
	}
	if err := w.c.AppendSamples("default", name("dirty"), dirty...); err != nil {
		t.Fatal(err)
	}
	for gen := 3; gen > genBlob; gen-- {
		for w.c.shards[0].coldestToBlob(gen) {
		}
	}
	if all := w.c.shards[0].recs.All(); all[len(all)-1].flags&flagBlob != 0 || all[len(all)-1].points != 500 {
		t.Fatalf("the dirty series was evicted: %+v", all[len(all)-1])
	}
	w.m.SetBudget(1)
	if got := readAll(t, w.c, "default", name("dirty"), math.MinInt64, math.MaxInt64); !slices.Equal(got, dirty) {
		t.Fatalf("%d dirty samples are left of %d", len(got), len(dirty))
	}
	if st := w.c.Stats(); st.BlobPoints != 0 || w.clients.Len() != 0 || w.m.Stats().RegionsPinned == 0 {
		t.Fatalf("%d values of clients, %+v", w.clients.Len(), st)
	}
	checkCache(t, w.c)
	// Acknowledged, they go as all others.
	var o Outgoing
	w.c.SetTick(3)
	for shard := range w.c.Shards() {
		var pass Pass
		for w.c.Collect(shard, &pass, Due{Since: AllTicks}, 1000, &o) {
			w.c.Acknowledge(&o)
		}
		w.c.Acknowledge(&o)
		w.c.Settle(shard, &pass)
	}
	if st := checkCache(t, w.c); st.Points != 0 {
		t.Errorf("%d points are left in no memory", st.Points)
	}
}
