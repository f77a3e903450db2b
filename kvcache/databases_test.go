package kvcache

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

func newMemory(t testing.TB, budgetBytes int64, regionBytes int) *Memory {
	t.Helper()
	m, err := NewMemory(MemoryOptions{BudgetBytes: budgetBytes, RegionBytes: regionBytes})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// TestDatabasesAsMaps holds databases to maps while they are written, swapped and
// cleared, with room for all.
func TestDatabasesAsMaps(t *testing.T) {
	m := newMemory(t, 4<<20, MinRegionBytes)
	d, err := NewDatabases(CacheOptions{Memory: m, SweepEvery: -1}, 5)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.Len() != 5 || d.Made(0) == nil || d.Made(1) != nil {
		t.Fatalf("%d databases, number 0 made: %v, 1: %v", d.Len(), d.Made(0) != nil, d.Made(1) != nil)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	model := make([]map[string]string, d.Len())
	for n := range model {
		model[n] = map[string]string{}
	}
	swaps := 0
	for i := range 20_000 {
		n, key, value := rng.IntN(len(model)), fmt.Sprint("k", rng.IntN(50)), fmt.Sprint(i)
		switch rng.IntN(100) {
		case 0:
			d.At(n).Clear()
			clear(model[n])
		case 1:
			j := rng.IntN(len(model))
			d.Swap(n, j)
			model[n], model[j] = model[j], model[n]
			swaps++
		case 2:
			if rng.IntN(20) == 0 {
				d.Clear()
				for n := range model {
					clear(model[n])
				}
			}
		default:
			if err := d.At(n).Put([]byte(key), []byte(value), 0); err != nil {
				t.Fatal(err)
			}
			model[n][key] = value
		}
		n = rng.IntN(len(model))
		got, ok := d.At(n).Get(nil, []byte(key))
		if want, there := model[n][key]; ok != there || string(got) != want {
			t.Fatalf("operation %d: database %d, %s: %q %v, want %q %v", i, n, key, got, ok, want, there)
		}
	}
	sum := 0
	for n, keys := range model {
		if err := d.At(n).Check(); err != nil {
			t.Fatal(err)
		}
		if d.At(n).Len() != len(keys) {
			t.Errorf("database %d: %d keys, want %d", n, d.At(n).Len(), len(keys))
		}
		sum += len(keys)
	}
	if st := d.Stats(); st.Entries != sum || swaps < 50 {
		t.Errorf("%d keys in all, want %d; %d swaps", st.Entries, sum, swaps)
	}
}

// TestDatabasesShareTheBudget: what is oldest goes, whichever database it is in.
func TestDatabasesShareTheBudget(t *testing.T) {
	m := newMemory(t, 64*MinRegionBytes, MinRegionBytes)
	d, err := NewDatabases(CacheOptions{Memory: m, Shards: 1, SweepEvery: -1}, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	put := func(n, i int) {
		if err := d.At(n).Put(fmt.Appendf(nil, "key:%d", i), make([]byte, 500), 0); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 300 {
		put(1, i)
	}
	if d.At(1).Len() != 300 {
		t.Fatalf("%d of 300 keys fit", d.At(1).Len())
	}
	for i := range 2000 {
		put(0, i)
	}
	if left := d.At(1).Len(); left != 0 || d.At(0).Len() < 300 {
		t.Errorf("%d keys of the database that is not used any more are left, the other has %d", left, d.At(0).Len())
	}
}

func TestDatabasesAreBounded(t *testing.T) {
	m := newMemory(t, 1<<20, MinRegionBytes)
	for _, n := range []int{0, -1, MaxDatabases + 1} {
		if _, err := NewDatabases(CacheOptions{Memory: m}, n); err == nil {
			t.Errorf("%d databases are made", n)
		}
	}
}
