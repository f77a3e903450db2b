package block

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// An open block is decoded as any other, whatever order its samples come in,
// and has room for as many as it says.
func TestOpen(t *testing.T) {
	const seed = 7
	rng := rand.New(rand.NewPCG(seed, 1))
	var c Codec
	replaced, first, between := 0, 0, 0
	for round := range 3000 {
		room := 1 + rng.IntN(MaxSamples)
		b := make([]byte, OpenBytes(room))
		for i := range b {
			b[i] = 0xdb
		}
		at := func() int64 { return rng.Int64N(200)*15_000 - 1<<40 + rng.Int64N(2)*rng.Int64N(MaxTime) }
		want := []Sample{{T: at(), V: rng.Uint64()}}
		start := want[0].T
		PutOpen(b, want)
		for len(want) < room {
			x := Sample{T: at(), V: rng.Uint64()}
			i, there := slices.BinarySearchFunc(want, x, func(a, b Sample) int { return int(min(max(a.T-b.T, -1), 1)) })
			var added bool
			start, added = InsertOpen(b, start, x)
			if added == there {
				t.Fatalf("seed %d, round %d: a time that is there: %v, and it was added: %v", seed, round, there, added)
			}
			switch {
			case there:
				want[i] = x
				replaced++
				continue
			case i == 0:
				first++
			case i < len(want):
				between++
			}
			want = slices.Insert(want, i, x)
			if rng.IntN(8) == 0 || len(want) == room {
				checkOpen(t, &c, b, start, want, room)
			}
		}
		PutOpen(b, want)
		checkOpen(t, &c, b, want[0].T, want, room)
	}
	if replaced == 0 || first == 0 || between == 0 {
		t.Errorf("%d samples replaced another, %d came first, %d between", replaced, first, between)
	}
}

func checkOpen(t *testing.T, c *Codec, b []byte, start int64, want []Sample, room int) {
	t.Helper()
	var out [MaxSamples]Sample
	if n, err := decodeBlock(c, &out, b, start); err != nil || !slices.Equal(out[:n], want) {
		t.Fatalf("%d samples: %v, or others", len(want), err)
	}
	if got := OpenRoom(b); got != room {
		t.Fatalf("%d samples: room for %d, not for %d", len(want), got, room)
	}
	if last, ok := GridEnd(b, start); !ok || last != want[len(want)-1].T {
		t.Fatalf("%d samples end at %d, %v", len(want), last, ok)
	}
}

// No block that Encode makes is taken for an open one, and where its end is told
// without decoding, it is right.
func TestEncodedIsNotOpen(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 1))
	var c Codec
	ends := 0
	for range 20_000 {
		ss := make([]Sample, 1+rng.IntN(MaxSamples))
		at := rng.Int64N(1 << 40)
		for i := range ss {
			at += 1 + rng.Int64N(2)*rng.Int64N(1<<rng.IntN(50))
			ss[i] = Sample{T: at, V: rng.Uint64() >> rng.IntN(64)}
		}
		b := c.Encode(nil, ss, []int64{0, 1, 15_000}[rng.IntN(3)])
		if room := OpenRoom(b); room != 0 {
			t.Fatalf("a block of %d samples has room for %d: % x", len(ss), room, b)
		}
		if last, ok := GridEnd(b, ss[0].T); ok {
			if ends++; last != at {
				t.Fatalf("%d samples end at %d, not at %d", len(ss), last, at)
			}
		}
	}
	if ends == 0 {
		t.Error("no block was on a grid")
	}
}
