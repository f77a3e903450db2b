package offheap

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"mcached/kvcache"
)

// TestArenaModel holds an Arena to a byte slice: what is put or taken stays at
// its place while others come.
func TestArenaModel(t *testing.T) {
	for seed := range uint64(4) {
		r := rand.New(rand.NewPCG(seed, 0))
		m := newTestMemory(t, 64<<20)
		unused := 8 * r.IntN(2)
		a := NewArena(m, unused)
		want := make([]byte, unused)
		type piece struct{ place, n uint32 }
		var pieces []piece
		grown := 0
		for step := range 20_000 {
			size := a.Bytes()
			b := make([]byte, r.IntN(200))
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			var place uint32
			if r.IntN(2) == 0 {
				var err error
				if place, err = a.Put(string(b)); err != nil {
					t.Fatalf("seed %d step %d: %v", seed, step, err)
				}
			} else {
				if err := a.Reserve(len(b)); err != nil {
					t.Fatalf("seed %d step %d: %v", seed, step, err)
				}
				var view []byte
				place, view = a.Take(len(b))
				if !bytes.Equal(view, make([]byte, len(b))) {
					t.Fatalf("seed %d step %d: bytes that were taken are not zero", seed, step)
				}
				copy(view, b)
			}
			if int(place) != len(want) {
				t.Fatalf("seed %d step %d: at %d, want %d", seed, step, place, len(want))
			}
			want = append(want, b...)
			pieces = append(pieces, piece{place, uint32(len(b))})
			if a.Bytes() > size {
				grown++
			}
			p := pieces[r.IntN(len(pieces))]
			if got := a.At(p.place, p.n); !bytes.Equal(got, want[p.place:p.place+p.n]) || !bytes.HasPrefix(a.From(int(p.place)), got) {
				t.Fatalf("seed %d step %d: %d bytes at %d are others", seed, step, p.n, p.place)
			}
			if a.Len() != len(want) || a.Bytes() < a.Len() {
				t.Fatalf("seed %d step %d: %d bytes of %d, want %d", seed, step, a.Len(), a.Bytes(), len(want))
			}
		}
		if grown < 5 {
			t.Errorf("seed %d: grown %d times", seed, grown)
		}
		if slack := a.Bytes() - a.Len(); slack > a.Len()/8+spanStep+kvcache.MinRegionBytes {
			t.Errorf("seed %d: %d bytes of slack beside %d", seed, slack, a.Len())
		}
		a.Free()
		if m.Used() != 0 {
			t.Errorf("seed %d: %d bytes used after Free", seed, m.Used())
		}
	}
}

// An Arena that cannot grow is as it was.
func TestArenaWithoutMemory(t *testing.T) {
	a := NewArena(newTestMemory(t, smallBudget), 0)
	var err error
	for err == nil {
		_, err = a.Put("0123456789abcdef")
	}
	if !errors.Is(err, kvcache.ErrNoMemory) || a.Len() < 1000 || a.Len()%16 != 0 {
		t.Fatalf("full with %d bytes: %v", a.Len(), err)
	}
	for at := 0; at < a.Len(); at += 16 {
		if string(a.At(uint32(at), 16)) != "0123456789abcdef" {
			t.Fatalf("other bytes at %d", at)
		}
	}
	if err := a.Reserve(maxArenaBytes); !errors.Is(err, kvcache.ErrNoMemory) {
		t.Errorf("reserved more than a place can address: %v", err)
	}
}
