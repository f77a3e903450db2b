package kvcache

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// clock is a time that tests move.
type clock struct{ ms int64 }

func (c *clock) now() time.Time { return time.UnixMilli(c.ms) }

func newTestCache(t testing.TB, mo MemoryOptions, o CacheOptions) (*Cache, *Memory) {
	t.Helper()
	m, err := NewMemory(mo)
	if err != nil {
		t.Fatal(err)
	}
	o.Memory = m
	c, err := NewCache(o)
	if err != nil {
		t.Fatal(err)
	}
	if mo.RegionBytes != 0 && mo.RegionBytes < 64<<10 {
		for i := range c.shards {
			c.shards[i].dir.maxLines = pageLines - ghostLines(pageLines) // so that indexes split, too
		}
	}
	t.Cleanup(func() {
		c.Close()
		// A region that was being made ready goes back, too, in its own time.
		for end := time.Now().Add(time.Minute); m.Used() != 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Errorf("%d bytes used after Close", m.Used())
				break
			}
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return c, m
}

type modelEntry struct {
	value     []byte
	expiresMs int64
	kind      Kind
}

// TestCacheModel runs random operations on tiny regions against a plain map.
// A miss is always allowed for what was stored, because it may have been
// evicted; a wrong or an expired value, or one that was deleted, never is.
func TestCacheModel(t *testing.T) {
	seeds := uint64(6)
	if testing.Short() {
		seeds = 3
	}
	for seed := uint64(1); seed <= seeds; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { testCacheModel(t, seed) })
	}
}

func testCacheModel(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	now := &clock{ms: 1_700_000_000_000}
	budget := int64(100 * MinRegionBytes)
	c, m := newTestCache(t,
		MemoryOptions{BudgetBytes: budget, RegionBytes: MinRegionBytes},
		CacheOptions{Shards: 2, SweepEvery: -1, Now: now.now, Random: rnd.Uint64})
	model := map[string]modelEntry{}
	var hits, vanished, cut, kinds int
	key := func() []byte {
		n := rnd.IntN(3000)
		if n == 1 {
			return nil // the empty key is one like others
		}
		if n%50 == 0 {
			return fmt.Appendf(nil, "%0*d", 300+n%500, n)
		}
		return fmt.Appendf(nil, "k%d", n)
	}
	value := func() []byte {
		v := make([]byte, rnd.IntN(200))
		for i := range v {
			v[i] = byte(rnd.Uint32())
		}
		return v
	}
	// agree checks what was read under k, and forgets what vanished.
	agree := func(op int, k []byte, got []byte, ok bool) {
		t.Helper()
		want, has := model[string(k)]
		if has && want.expiresMs != 0 && want.expiresMs <= now.ms {
			delete(model, string(k))
			has = false
		}
		switch {
		case ok && !has:
			t.Fatalf("seed %d op %d: %q reads %x, was removed", seed, op, k, got)
		case ok && !bytes.Equal(got, want.value):
			t.Fatalf("seed %d op %d: %q reads %x, want %x", seed, op, k, got, want.value)
		case ok:
			hits++
		case has:
			vanished++
			delete(model, string(k))
		}
	}
	for op := range 40000 {
		now.ms += int64(rnd.IntN(3))
		k := key()
		switch rnd.IntN(12) {
		case 0, 1, 2, 3:
			v, ttl := value(), time.Duration(0)
			if rnd.IntN(3) == 0 {
				ttl = time.Duration(1+rnd.IntN(4000)) * time.Millisecond
			}
			if err := c.Put(k, v, ttl); err != nil {
				t.Fatalf("seed %d op %d: %v", seed, op, err)
			}
			e := modelEntry{value: v}
			if ttl > 0 {
				e.expiresMs = now.ms + ttl.Milliseconds()
			}
			model[string(k)] = e
		case 4:
			_, has := model[string(k)]
			if c.Delete(k) && !has {
				t.Fatalf("seed %d op %d: deleted %q, was removed", seed, op, k)
			}
			delete(model, string(k))
		case 5:
			more := value()
			more = more[:min(len(more), 7)]
			var e modelEntry
			err := c.Update(k, func(old Entry, ok bool) (Entry, Op) {
				agree(op, k, old.Value, ok)
				if ok && old.Kind != model[string(k)].kind {
					t.Fatalf("seed %d op %d: %q is of kind %d, want %d", seed, op, k, old.Kind, model[string(k)].kind)
				}
				e = modelEntry{append(bytes.Clone(old.Value), more...), old.ExpiresMs, Kind(len(more) & 3)}
				if len(e.value) > 300 {
					e.value = e.value[:100]
					return Entry{old.Value[:100], old.ExpiresMs, e.kind}, Store
				}
				return Entry{e.value, e.expiresMs, e.kind}, Store
			})
			if err != nil {
				t.Fatalf("seed %d op %d: %v", seed, op, err)
			}
			model[string(k)] = e
		case 6:
			e, has := model[string(k)]
			ms, ok := c.Expiry(k)
			if ok && (!has || ms != e.expiresMs) {
				t.Fatalf("seed %d op %d: %q expires at %d, want %d (%v)", seed, op, k, ms, e.expiresMs, has)
			}
			kind, ok := c.KindOf(k)
			if ok && kind != e.kind {
				t.Fatalf("seed %d op %d: %q is of kind %d, want %d", seed, op, k, kind, e.kind)
			}
			if kind != String {
				kinds++
			}
		default:
			got, ok := c.Get([]byte("x"), k)
			agree(op, k, got[1:], ok)
		}
		if m.Used() > m.Budget() {
			t.Fatalf("seed %d op %d: %d used of %d", seed, op, m.Used(), m.Budget())
		}
		switch {
		case op%997 == 0:
			c.Sweep()
		case op%4001 == 0:
			m.SetBudget(int64(20+rnd.IntN(30)) * MinRegionBytes)
			cut++
		case op%4001 == 300:
			m.SetBudget(budget)
		case op%9001 == 9000:
			c.Clear()
			clear(model)
		}
		if op%500 == 0 {
			if err := c.Check(); err != nil {
				t.Fatalf("seed %d op %d: %v", seed, op, err)
			}
			s := c.Stats()
			if s.LiveBytes+s.DeadBytes+s.FreeBytes != int64(s.Regions*m.RegionBytes()) {
				t.Fatalf("seed %d: identity broken: %+v", seed, s)
			}
		}
	}
	s := c.Stats()
	if hits < 1000 || vanished < 100 || cut < 5 || kinds < 100 || s.Overwritten == 0 || s.Reinserted == 0 || s.Expired == 0 ||
		s.Compacted == 0 || s.Evicted == 0 || s.IndexesGrown == 0 || s.Passes == 0 || s.Indexes <= 2 {
		t.Errorf("seed %d: too little happened: %d hits, %d vanished, %d cuts, %d of a kind, %+v", seed, hits, vanished, cut, kinds, s)
	}
}

func TestCacheLimits(t *testing.T) {
	c, _ := newTestCache(t, MemoryOptions{BudgetBytes: 1 << 20, RegionBytes: MinRegionBytes}, CacheOptions{SweepEvery: -1})
	for _, x := range []struct {
		key, value []byte
		ttl        time.Duration
		err        error
	}{
		{nil, nil, 0, nil},
		{make([]byte, c.MaxKey()+1), nil, 0, ErrKeySize},
		{make([]byte, c.MaxKey()), nil, 0, nil},
		{[]byte("k"), nil, 0, nil},
		{[]byte("k"), make([]byte, c.MaxValue()), time.Hour, nil},
		{[]byte("k"), make([]byte, c.MaxValue()+1), 0, ErrValueSize},
		{[]byte("kk"), make([]byte, c.MaxValue()), 0, ErrValueSize},
		{make([]byte, c.MaxKey()), make([]byte, c.MaxValue()+1-c.MaxKey()), time.Hour, nil},
		{[]byte("k"), nil, -1, ErrTTL},
		{[]byte("k"), nil, math.MinInt64, ErrTTL},
		{[]byte("k"), nil, math.MaxInt64, nil},
		{[]byte("k"), nil, 1, nil},
	} {
		if err := c.Put(x.key, x.value, x.ttl); !errors.Is(err, x.err) {
			t.Errorf("Put of %d, %d bytes for %v: %v, want %v", len(x.key), len(x.value), x.ttl, err, x.err)
		} else if err != nil {
			t.Log(err)
		}
	}
	long := make([]byte, c.MaxKey()+1)
	if _, ok := c.Get(nil, long); ok || c.Delete(long) {
		t.Error("a key that is too long was found")
	}
}
