package kvcache

import (
	"encoding/binary"
	"math"
	"testing"
)

// TestOverheadPerEntry compares the figure with what was put in: all that is
// live, and the indexes, less keys and values. Lengths of every remainder by
// eight come, some records are overwritten in place, and some deleted.
func TestOverheadPerEntry(t *testing.T) {
	c, _ := newTestCache(t, MemoryOptions{BudgetBytes: 16 << 20}, CacheOptions{Shards: 2})
	payload, entries := 0, 0
	var k [4]byte
	for i := range 20_000 {
		binary.LittleEndian.PutUint32(k[:], uint32(i))
		n := i % 50
		if err := c.Put(k[:], make([]byte, n), 0); err != nil {
			t.Fatal(err)
		}
		switch i % 5 {
		case 3: // in the same room, another padding
			n = (n+4+7)/8*8 - 4
			if err := c.Put(k[:], make([]byte, n), 0); err != nil {
				t.Fatal(err)
			}
		case 4:
			if !c.Delete(k[:]) {
				t.Fatal("nothing to delete")
			}
			continue
		}
		payload += len(k) + n
		entries++
	}
	s := c.Stats()
	if s.Entries != entries || s.Overwritten == 0 || s.PaddingBytes < int64(entries) {
		t.Fatalf("%d entries were put in: %+v", entries, s)
	}
	want := float64(s.LiveBytes+s.IndexBytes-int64(payload)) / float64(entries)
	if got := s.OverheadPerEntry(); math.Abs(got-want) > 1e-9 {
		t.Errorf("%v bytes an entry, want %v", got, want)
	}
	if err := c.Check(); err != nil {
		t.Error(err)
	}
}
