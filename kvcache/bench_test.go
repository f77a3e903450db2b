package kvcache

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/VictoriaMetrics/fastcache"
	"golang.org/x/sys/unix"
)

// The benchmarks hold Cache beside fastcache, whose index is a Go map without
// pointers a bucket, and beside dorylike, which has the shape of Dory: a Go
// map from key to place under one lock, data in PackedTables. All have 1 Mi
// entries of 16-byte keys and 64-byte values, and room for them.

const (
	benchEntries = 1 << 20
	benchKey     = 16
	benchValue   = 64
)

type store interface {
	put(k, v []byte)
	get(dst, k []byte) ([]byte, bool)
}

type ours struct{ c *Cache }

func (o ours) put(k, v []byte)                  { _ = o.c.Put(k, v, 0) }
func (o ours) get(dst, k []byte) ([]byte, bool) { return o.c.Get(dst, k) }

type fast struct{ c *fastcache.Cache }

func (f fast) put(k, v []byte)                  { f.c.Set(k, v) }
func (f fast) get(dst, k []byte) ([]byte, bool) { return f.c.HasGet(dst, k) }

type dorylike struct {
	mu     sync.Mutex
	index  map[string]int
	tables [][]byte
	fill   int
}

const doryTable = 2 << 20

func (d *dorylike) put(k, v []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.tables) == 0 || d.fill+len(k)+len(v)+8 > doryTable {
		d.tables, d.fill = append(d.tables, make([]byte, doryTable)), 0
	}
	t := d.tables[len(d.tables)-1][d.fill:]
	binary.LittleEndian.PutUint32(t, uint32(len(k)))
	binary.LittleEndian.PutUint32(t[4:], uint32(len(v)))
	copy(t[8:], k)
	copy(t[8+len(k):], v)
	d.index[string(k)] = (len(d.tables)-1)*doryTable + d.fill
	d.fill += 8 + len(k) + len(v)
}

func (d *dorylike) get(dst, k []byte) ([]byte, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at, ok := d.index[string(k)]
	if !ok {
		return dst, false
	}
	t := d.tables[at/doryTable][at%doryTable:]
	n := binary.LittleEndian.Uint32(t[4:])
	return append(dst, t[8+len(k):][:n]...), true
}

func newOurs(b *testing.B, budget int64) ours {
	c, _ := newTestCache(b, MemoryOptions{BudgetBytes: budget}, CacheOptions{})
	return ours{c}
}

func stores(b *testing.B) map[string]func(b *testing.B) store {
	return map[string]func(b *testing.B) store{
		"mcached":   func(b *testing.B) store { return newOurs(b, 512<<20) },
		"fastcache": func(b *testing.B) store { return fast{fastcache.New(512 << 20)} },
		"dorylike":  func(b *testing.B) store { return &dorylike{index: map[string]int{}} },
	}
}

func benchKeyAt(k []byte, n uint64) {
	binary.LittleEndian.PutUint64(k, n)
	binary.LittleEndian.PutUint64(k[8:], n*0x9E3779B97F4A7C15)
}

func fillStore(s store) {
	k, v := make([]byte, benchKey), make([]byte, benchValue)
	for n := range uint64(benchEntries) {
		benchKeyAt(k, n)
		s.put(k, v)
	}
}

// parallel runs f in g goroutines, b.N times in all.
func parallel(b *testing.B, g int, f func(rnd *rand.PCG, k, v []byte)) {
	b.ResetTimer()
	b.ReportAllocs()
	before := processorTime()
	var wg sync.WaitGroup
	for i := range g {
		wg.Go(func() {
			rnd := rand.NewPCG(uint64(i), 1)
			k, v := make([]byte, benchKey), make([]byte, benchValue, 2*benchValue)
			for range b.N / g {
				f(rnd, k, v)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(processorTime()-before)/float64(b.N), "cpu-ns/op")
}

// processorTime is what this process has used so far. On a machine that is
// shared it tells more than the time that passed.
func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkStore(b *testing.B) {
	for _, name := range []string{"mcached", "fastcache", "dorylike"} {
		open := stores(b)[name]
		var s store
		filled := func(b *testing.B) store {
			if s == nil {
				s = open(b)
				fillStore(s)
			}
			return s
		}
		b.Run("store="+name, func(b *testing.B) {
			s = nil
			filled(b)
			for _, g := range []int{1, 2} {
				run := func(op string, f func(rnd *rand.PCG, k, v []byte)) {
					b.Run(fmt.Sprintf("op=%s/goroutines=%d", op, g), func(b *testing.B) { parallel(b, g, f) })
				}
				run("get-hit", func(rnd *rand.PCG, k, v []byte) {
					benchKeyAt(k, rnd.Uint64()%benchEntries)
					if _, ok := s.get(v[:0], k); !ok {
						panic("a miss")
					}
				})
				run("get-miss", func(rnd *rand.PCG, k, v []byte) {
					benchKeyAt(k, benchEntries+rnd.Uint64()>>1)
					if _, ok := s.get(v[:0], k); ok {
						panic("a hit")
					}
				})
				run("overwrite", func(rnd *rand.PCG, k, v []byte) {
					benchKeyAt(k, rnd.Uint64()%benchEntries)
					s.put(k, v)
				})
			}
		})
	}
}

// BenchmarkPutNew writes benchEntries new keys into an empty store, again and again.
func BenchmarkPutNew(b *testing.B) {
	for _, name := range []string{"mcached", "fastcache", "dorylike"} {
		for _, g := range []int{1, 2} {
			b.Run(fmt.Sprintf("store=%s/goroutines=%d", name, g), func(b *testing.B) {
				s := stores(b)[name](b)
				var next atomic.Uint64
				parallel(b, g, func(_ *rand.PCG, k, v []byte) {
					benchKeyAt(k, next.Add(1)%(3*benchEntries))
					s.put(k, v)
				})
			})
		}
	}
}

// BenchmarkOverhead reports what an entry costs beside key and value, in a
// cache with room for a hundred times as many. Its time is that of Stats.
func BenchmarkOverhead(b *testing.B) {
	for _, entries := range []uint64{1 << 18, 1 << 19, 3 << 18, 1 << 20, 3 << 19} {
		b.Run(fmt.Sprintf("entries=%d", entries), func(b *testing.B) {
			base := resident(b)
			o := newOurs(b, 8<<30)
			k, v := make([]byte, benchKey), make([]byte, benchValue)
			for n := range entries {
				benchKeyAt(k, n)
				o.put(k, v)
			}
			var s CacheStats
			for b.Loop() {
				s = o.c.Stats()
			}
			if s.Entries != int(entries) {
				b.Fatalf("%d entries", s.Entries)
			}
			b.ReportMetric(s.OverheadPerEntry(), "B/entry")
			b.ReportMetric(float64(s.IndexBytes)/float64(s.Entries), "index-B/entry")
			b.ReportMetric(float64(resident(b)-base)/float64(s.Entries)-benchKey-benchValue, "resident-B/entry")
		})
	}
}

// BenchmarkForcedGC times a full collection with nothing and with 10 Mi
// entries held: the difference is what they cost the collector.
func BenchmarkForcedGC(b *testing.B) {
	b.Run("entries=0", func(b *testing.B) {
		for b.Loop() {
			runtime.GC()
		}
	})
	o := newOurs(b, 1400<<20)
	k, v := make([]byte, benchKey), make([]byte, benchValue)
	for n := range uint64(10 << 20) {
		benchKeyAt(k, n)
		o.put(k, v)
	}
	if n := o.c.Len(); n != 10<<20 {
		b.Fatalf("%d entries", n)
	}
	b.Run("entries=10Mi", func(b *testing.B) {
		for b.Loop() {
			runtime.GC()
		}
	})
}

// BenchmarkReclaim times SetBudget from full to an eighth.
func BenchmarkReclaim(b *testing.B) {
	const budget = 1 << 30
	m, err := NewMemory(MemoryOptions{BudgetBytes: budget})
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	c, err := NewCache(CacheOptions{Memory: m})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	k, v := make([]byte, benchKey), make([]byte, 1024)
	var took time.Duration
	var freed int64
	for n := uint64(0); b.Loop(); {
		b.StopTimer()
		m.SetBudget(budget)
		for m.Used() < budget-16<<20 {
			benchKeyAt(k, n)
			n++
			_ = c.Put(k, v, 0)
		}
		used := m.Used()
		b.StartTimer()
		start := time.Now()
		m.SetBudget(budget / 8)
		took += time.Since(start)
		freed += used - m.Used()
	}
	b.ReportMetric(float64(freed)/(1<<30)/took.Seconds(), "GiB/s")
}

// BenchmarkReclaimDelay fills 1 GiB and takes seven eighths of it away while
// two others read and write. It reports how long the slowest of their calls
// took meanwhile, and without anything going on.
func BenchmarkReclaimDelay(b *testing.B) {
	const budget = 1 << 30
	o := newOurs(b, budget)
	m := o.c.m
	v := make([]byte, 1024)
	fill := func() {
		k := make([]byte, benchKey)
		for n := uint64(0); m.Used() < budget-16<<20; n++ {
			benchKeyAt(k, n)
			o.put(k, v)
		}
	}
	// slowest runs f while two others are busy, and returns their worst call.
	slowest := func(f func()) time.Duration {
		var worst [2]time.Duration
		var stop atomic.Bool
		var wg sync.WaitGroup
		for g := range worst {
			wg.Go(func() {
				rnd := rand.NewPCG(uint64(g), 2)
				k, dst := make([]byte, benchKey), make([]byte, 0, 2048)
				for !stop.Load() {
					start := time.Now()
					for range 10 {
						benchKeyAt(k, rnd.Uint64()%(1<<20))
						if dst, _ = o.c.Get(dst[:0], k); len(dst) == 0 {
							o.put(k, v)
						}
					}
					worst[g] = max(worst[g], time.Since(start))
				}
			})
		}
		f()
		stop.Store(true)
		wg.Wait()
		return max(worst[0], worst[1])
	}
	var idle, busy, took time.Duration
	for b.Loop() {
		m.SetBudget(budget)
		fill()
		idle = max(idle, slowest(func() { time.Sleep(100 * time.Millisecond) }))
		busy = max(busy, slowest(func() {
			start := time.Now()
			m.SetBudget(budget / 8)
			took = max(took, time.Since(start))
		}))
	}
	b.ReportMetric(float64(idle.Microseconds()), "idle-worst-us")
	b.ReportMetric(float64(busy.Microseconds()), "reclaim-worst-us")
	b.ReportMetric(float64(took.Microseconds()), "reclaim-us")
}
