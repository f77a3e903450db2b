package kvcache

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// largeModel runs random calls on a cache of values short and long, and on a map.
// With evicts, what is there must be right and may be gone.
type largeModel struct {
	t      *testing.T
	c      *Cache
	clock  time.Time
	values map[string]Entry
	evicts bool
	misses int
	large  int // values read that were kept in parts
}

func (w *largeModel) now() time.Time { return w.clock }

// want is what the model holds of a key, or nil.
func (w *largeModel) want(key string) *Entry {
	e, ok := w.values[key]
	if ok && e.ExpiresMs != 0 && e.ExpiresMs <= w.clock.UnixMilli() {
		delete(w.values, key)
		ok = false
	}
	if !ok {
		return nil
	}
	return &e
}

func (w *largeModel) check(what, key string, got []byte, ok bool) {
	w.t.Helper()
	want := w.want(key)
	switch {
	case !ok && want != nil && w.evicts:
		delete(w.values, key)
		w.misses++
	case ok != (want != nil) || ok && !bytes.Equal(got, want.Value):
		w.t.Fatalf("%s %s: %d bytes %v, want %v", what, key, len(got), ok, want != nil)
	case ok && len(got) > w.c.MaxValue():
		w.large++
	}
}

func (w *largeModel) get(key string) ([]byte, bool) {
	var v []byte
	found := false
	if w.c.View([]byte(key), func(b []byte, _ Kind, ok bool) { v, found = append(v, b...), ok }) {
		v, found = w.c.appendLarge(nil, []byte(key))
	}
	return v, found
}

func (w *largeModel) step(rng *rand.Rand) {
	key := fmt.Sprint("key", rng.IntN(30))
	size := rng.IntN(200)
	if rng.IntN(2) == 0 {
		size = rng.IntN(60 << 10)
	}
	value := bytes.Repeat([]byte{byte(rng.Uint32())}, size)
	for i := 0; i < len(value); i += 97 {
		value[i] = byte(rng.Uint32())
	}
	stored := func(err error, e Entry) {
		w.t.Helper()
		switch {
		case err == nil:
			w.values[key] = e
		case w.evicts && errors.Is(err, ErrNoMemory):
			delete(w.values, key)
		default:
			w.t.Fatal(err)
		}
	}
	switch rng.IntN(13) {
	case 12: // a part of what is there; that of which a part is gone may still have a length
		want, length, from, to := w.want(key), -1, 0, 0
		var got []byte
		kind, ok, err := w.c.ViewPart([]byte(key), func(n int) (int, int, error) {
			got, length = got[:0], n
			from = rng.IntN(n + 1)
			to = from + rng.IntN(n-from+1)
			return from, to, nil
		}, func(b []byte) { got = append(got, b...) })
		switch {
		case err != nil:
			w.t.Fatal(err)
		case !ok && want != nil && w.evicts:
			delete(w.values, key)
			w.misses++
		case ok != (want != nil) || ok && (kind != String || length != len(want.Value) || !bytes.Equal(got, want.Value[from:to])):
			w.t.Fatalf("%d to %d of %s: %d bytes, %v of %d, want %v", from, to, key, len(got), ok, length, want != nil)
		case ok && length > w.c.MaxValue() && from < to:
			w.large++
		}
	case 0, 1:
		stored(w.c.Put([]byte(key), value, 0), Entry{Value: value})
	case 2:
		ttl := time.Duration(1+rng.IntN(50)) * time.Second
		stored(w.c.Put([]byte(key), value, ttl), Entry{Value: value, ExpiresMs: w.clock.Add(ttl).UnixMilli()})
	case 3:
		n, err := w.c.PutMany([][]byte{[]byte(key)}, [][]byte{value})
		if n == 0 && err == nil {
			w.t.Fatal("PutMany stores none")
		}
		stored(err, Entry{Value: value})
	case 4, 5: // append
		var e Entry
		err := w.c.Update([]byte(key), func(old Entry, ok bool) (Entry, Op) {
			e = Entry{Value: append(bytes.Clone(old.Value), value[:min(len(value), 1000)]...), ExpiresMs: old.ExpiresMs}
			if len(e.Value) > 64<<10 {
				e.Value = e.Value[:100]
			}
			if want := w.want(key); want != nil && !ok && w.evicts {
				delete(w.values, key)
				w.misses++
			} else if ok != (want != nil) || ok && (!bytes.Equal(old.Value, want.Value) || old.ExpiresMs != want.ExpiresMs || old.Kind != String) {
				w.t.Fatalf("Update %s: %d bytes, %v", key, len(old.Value), ok)
			}
			return e, Store
		})
		stored(err, e)
	case 6: // EXPIRE
		at := w.clock.Add(time.Duration(rng.IntN(100)-10) * time.Second).UnixMilli()
		there := false
		var value []byte
		err := w.c.Update([]byte(key), func(old Entry, ok bool) (Entry, Op) {
			if there, value = ok, bytes.Clone(old.Value); !ok {
				return old, Keep
			}
			return Entry{Value: old.Value, ExpiresMs: at}, Store
		})
		if w.check("EXPIRE", key, value, there); there {
			if stored(err, Entry{Value: value, ExpiresMs: at}); at <= w.clock.UnixMilli() {
				delete(w.values, key)
			}
		}
	case 7:
		if w.want(key) == nil || w.c.Delete([]byte(key)) || !w.evicts {
			delete(w.values, key)
		} else {
			delete(w.values, key)
			w.misses++
		}
	case 8:
		keys := [][]byte{[]byte(key), []byte("key1"), []byte("key2")}
		for at := 0; at < len(keys); {
			n := w.c.GetMany(keys[at:], func(i int, v []byte, _ Kind, ok bool) { w.check("GetMany", string(keys[at+i]), v, ok) })
			if at += n; n == 0 {
				v, ok := w.get(string(keys[at]))
				w.check("a large one of GetMany", string(keys[at]), v, ok)
				at++
			}
		}
	case 9:
		w.clock = w.clock.Add(time.Duration(rng.IntN(2000)) * time.Millisecond)
		if rng.IntN(4) == 0 {
			w.c.Sweep()
		}
	case 10:
		v, ok := w.c.Get(nil, []byte(key))
		w.check("Get", key, v, ok)
	default:
		v, ok := w.get(key)
		w.check("View", key, v, ok)
	}
}

// seen is all that a scan shows.
func (w *largeModel) seen() {
	w.t.Helper()
	n := 0
	for cursor := uint64(0); ; {
		cursor = w.c.Scan(cursor, 10, func(key []byte, e Entry) {
			if n++; w.want(string(key)) == nil || e.Kind != String {
				w.t.Fatalf("a scan shows %q of kind %d", key, e.Kind)
			}
		})
		if cursor == 0 {
			break
		}
	}
	for range 20 {
		if key, ok := w.c.RandomKey(nil); ok && w.want(string(key)) == nil {
			w.t.Fatalf("RandomKey gives %q", key)
		}
	}
	if err := w.c.Check(); err != nil {
		w.t.Fatal(err)
	}
}

func TestLargeValuesAsMap(t *testing.T) {
	for _, evicts := range []bool{false, true} {
		for seed := range uint64(4) {
			t.Run(fmt.Sprintf("evicts %v, seed %d", evicts, seed), func(t *testing.T) {
				budget := int64(8 << 20)
				if evicts {
					budget = 512 << 10
				}
				w := &largeModel{t: t, clock: time.Unix(1_700_000_000, 0), values: map[string]Entry{}, evicts: evicts}
				m := newMemory(t, budget, MinRegionBytes)
				lent := 0
				c, err := NewCache(CacheOptions{Memory: m, Shards: 4, SweepEvery: -1, Now: w.now, MaxLargeBytes: 64 << 10,
					Lend: func(n int64) (func(), error) { lent++; return func() { lent-- }, nil }})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				w.c = c
				rng := rand.New(rand.NewPCG(seed, 7))
				for i := range 6000 {
					if w.step(rng); i%500 == 0 {
						w.seen()
					}
				}
				if w.large < 200 || evicts && w.misses < 50 || lent != 0 {
					t.Errorf("%d large values read, %d misses, %d lent", w.large, w.misses, lent)
				}
				// Nothing is left of values that are gone.
				for key := range w.values {
					c.Delete([]byte(key))
				}
				w.clock = w.clock.Add(time.Hour)
				for range 10 {
					c.Sweep()
				}
				if st := c.Stats(); st.Entries != 0 || !evicts && st.LiveBytes != 0 {
					t.Errorf("left over: %d keys, %d bytes", st.Entries, st.LiveBytes)
				}
			})
		}
	}
}

// TestLargeValuesVanishInPart: with any one part gone the value is a miss, and the
// other parts go as well.
func TestLargeValuesVanishInPart(t *testing.T) {
	m := newMemory(t, 8<<20, MinRegionBytes)
	c, err := NewCache(CacheOptions{Memory: m, Shards: 2, SweepEvery: -1, MaxLargeBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	key, value := []byte("key"), bytes.Repeat([]byte("0123456789"), 1000)
	parts := (len(value) + c.partBytes() - 1) / c.partBytes()
	for i := range parts {
		for name, look := range map[string]func() bool{
			"Get": func() bool { _, ok := c.Get(nil, key); return ok },
			"ViewPart": func() bool {
				_, ok, _ := c.ViewPart(key, func(n int) (int, int, error) { return i * c.partBytes(), i*c.partBytes() + 1, nil }, func([]byte) {})
				return ok
			},
			"View": func() bool { _, ok := c.appendLarge(nil, key); return ok },
			"Update": func() bool {
				found := false
				_ = c.Update(key, func(e Entry, ok bool) (Entry, Op) { found = ok; return e, Keep })
				return found
			},
		} {
			if err := c.Put(key, value, 0); err != nil {
				t.Fatal(err)
			}
			if !look() {
				t.Fatalf("%s: the value is not there", name)
			}
			var man manifest
			c.with(key, func(_ *shard, f *found) { man = readManifest(recordValue(f.p)) })
			if !c.Delete(man.partKey(i)) {
				t.Fatalf("no part %d", i)
			}
			if look() {
				t.Fatalf("%s finds a value without part %d", name, i)
			}
			if st := c.Stats(); st.LiveBytes != 0 || c.Len() != 0 {
				t.Fatalf("%s without part %d leaves %d bytes, %d keys", name, i, st.LiveBytes, c.Len())
			}
		}
	}
}

// TestLargeValuesAreBounded by what was asked for, by the memory, and to strings.
func TestLargeValuesAreBounded(t *testing.T) {
	m := newMemory(t, 128<<10, MinRegionBytes)
	c, err := NewCache(CacheOptions{Memory: m, Shards: 1, SweepEvery: -1, MaxLargeBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, n := range []int{64<<10 + 1, 33 << 10} {
		if err := c.Put([]byte("k"), make([]byte, n), 0); !errors.Is(err, ErrValueSize) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	err = c.Update([]byte("k"), func(Entry, bool) (Entry, Op) { return Entry{Value: make([]byte, 5<<10), Kind: 1}, Store })
	if !errors.Is(err, ErrValueSize) {
		t.Errorf("a value that is no string: %v", err)
	}
	if err := c.Put([]byte("k"), make([]byte, 20<<10), 0); err != nil || c.Len() != 1 {
		t.Errorf("a value that fits: %v, %d keys", err, c.Len())
	}
}

// TestLargeValuesOfManyWriters: readers see whole values only, while others write
// and append to the same few keys and memory is short.
func TestLargeValuesOfManyWriters(t *testing.T) {
	m := newMemory(t, 1<<20, MinRegionBytes)
	c, err := NewCache(CacheOptions{Memory: m, Shards: 2, SweepEvery: time.Millisecond, MaxLargeBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	whole := func(v []byte) bool { return len(v) == 0 || bytes.Count(v, v[:1]) == len(v) }
	var wg sync.WaitGroup
	var mu sync.Mutex
	hits := 0
	for n := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rng := rand.New(rand.NewPCG(uint64(n), 1))
			for range 400 {
				key := fmt.Appendf(nil, "k%d", rng.IntN(3))
				switch rng.IntN(4) {
				case 0:
					if err := c.Put(key, bytes.Repeat([]byte{byte(rng.Uint32())}, 1+rng.IntN(30<<10)), 0); err != nil && !errors.Is(err, ErrNoMemory) {
						t.Error(err)
					}
				case 1:
					err := c.Update(key, func(e Entry, ok bool) (Entry, Op) {
						if !whole(e.Value) {
							t.Error("Update sees a mixture")
						}
						if !ok || len(e.Value) > 30<<10 {
							return Entry{}, Remove
						}
						return Entry{Value: append(bytes.Clone(e.Value), bytes.Repeat(e.Value[:1], 3000)...)}, Store
					})
					if err != nil && !errors.Is(err, ErrNoMemory) && !errors.Is(err, ErrBusy) {
						t.Error(err)
					}
				default:
					v, ok := c.appendLarge(nil, key)
					if !whole(v) {
						t.Error("a mixture is read")
					}
					if ok {
						mu.Lock()
						hits++
						mu.Unlock()
					}
				}
			}
		}()
	}
	wg.Wait()
	if hits < 50 {
		t.Errorf("%d hits", hits)
	}
	if err := c.Check(); err != nil {
		t.Error(err)
	}
}
