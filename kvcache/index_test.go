package kvcache

import (
	"math/rand/v2"
	"testing"
	"unsafe"
)

// testIndex is an index and one region of places in which all addresses live.
func testIndex(t *testing.T, lines int) (*index, *places) {
	t.Helper()
	m, err := NewMemory(MemoryOptions{BudgetBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	p := newPlaces(m)
	p.add(0, 0)
	x := &index{span: m.NewSpan()}
	if err := x.resize(lines, &p); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.clear(); m.Close() })
	return x, &p
}

// TestIndexLoad fills indexes of several sizes: they must take maxLoad before
// an insert fails, or they would grow too early and waste memory.
func TestIndexLoad(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, lines := range []int{64, 320, 1280, 6400, 64000} {
		x, p := testIndex(t, lines)
		n := 0
		for h := hash(rnd.Uint64()); x.insert(h.home(), h.tag(), 0, 0, p); h = hash(rnd.Uint64()) {
			if n++; n == x.slots() {
				break
			}
		}
		if load := float64(n) / float64(x.slots()); load < maxLoadPercent/100.0 || n != x.used {
			t.Errorf("%d lines: full at %.3f, %d counted of %d", lines, load, x.used, n)
		}
	}
}

// TestIndexOneTag gives all records the same tag and home, as only an attacker
// who knew the seed could: it fills two lines, and then says so.
func TestIndexOneTag(t *testing.T) {
	x, p := testIndex(t, 64)
	n := 0
	for x.insert(1<<20, 5, uint32(n), 0, p) {
		if n++; n > x.slots() {
			t.Fatal("no end")
		}
	}
	if n != 2*lineSlots {
		t.Errorf("%d taken", n)
	}
	for ref := range uint32(n) {
		i, slot, ok := x.findRef(1<<20, 5, ref)
		if !ok || x.lines[i].refs[slot] != ref {
			t.Fatalf("%d is not found", ref)
		}
		x.erase(i, slot)
	}
	for i := range x.lines {
		if x.lines[i].displaced() != 0 || x.used != 0 {
			t.Fatalf("line %d counts %d displaced", i, x.lines[i].displaced())
		}
	}
}

func TestOtherLine(t *testing.T) {
	for _, lines := range []int{64, 192, 4096, 6400} {
		x := &index{lines: make([]line, lines)}
		for i := range uint32(lines) {
			for tag := uint8(1); tag <= tagMask; tag++ {
				if o := x.other(i, tag); o >= uint32(lines) || x.other(o, tag) != i {
					t.Fatalf("%d lines: the other of %d, tag %d is %d, whose other is %d", lines, i, tag, o, x.other(o, tag))
				}
			}
		}
	}
}

func TestMatch(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 3))
	for range 20_000 {
		var l line
		for slot := range l.tags {
			l.tags[slot] = uint8(rnd.IntN(4)) * uint8(1+rnd.IntN(60))
			if l.tags[slot] != 0 && rnd.IntN(3) == 0 {
				l.tags[slot] |= displaced
			}
		}
		tag := l.tags[rnd.IntN(lineSlots)] & tagMask
		got := [lineSlots]bool{}
		for set := l.match(tag); set != 0; set &= set - 1 {
			got[slotOf(set)] = true
		}
		for slot := range l.tags {
			if got[slot] != (l.tags[slot]&tagMask == tag) {
				t.Fatalf("tags %x: slot %d matches %d: %v", l.tags, slot, tag, got[slot])
			}
		}
	}
	if unsafe.Sizeof(line{}) != lineBytes {
		t.Errorf("a line has %d bytes", unsafe.Sizeof(line{}))
	}
}
