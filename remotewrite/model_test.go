package remotewrite

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// TestModel sends random requests, whose series share labels with the series
// before in all ways: the same, one changed, one more, one less, all other,
// with empty values and duplicates among them. A naïve reading of the rules
// says what the cache has to hold.
func TestModel(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		const seed = 20
		rng := rand.New(rand.NewPCG(seed, uint64(p)))
		names := []string{"a", "bb", "ccc", "dddddddd", "", "a\xff"}
		values := []string{"", "1", "22", "123456789", "a value of more than thirty-two bytes, to cross a step",
			"a value of more than thirty-two bytes, to cross a stop", "b value of more than thirty-two bytes, to cross a step"}
		weighted := func(from []string, usual int) string {
			if rng.IntN(10) > 0 {
				return from[rng.IntN(usual)]
			}
			return from[rng.IntN(len(from))]
		}
		r := newReceiver(t, Options{MaxLabels: 6})
		in := r.intake()
		in.through = through{unsnappy: unsnappy{piece: smallPiece}}
		maxT := now.UnixMilli() + r.o().MaxAhead.Milliseconds()
		var all []decodedSeries
		written, refused, future, inParts, throughWindow := 0, 0, 0, 0, 0
		for range 1000 {
			var series []Series
			var ls []mcache.Label
			for range 1 + rng.IntN(12) {
				switch op := rng.IntN(8); {
				case op == 0 || len(ls) == 0:
					ls = named(weighted(values[1:], 4))
				case op == 1 && len(ls) < 9:
					ls = slices.Insert(slices.Clone(ls), rng.IntN(len(ls)+1), mcache.Label{Name: weighted(names, 4), Value: weighted(values, 7)})
				case op == 2:
					ls = slices.Delete(slices.Clone(ls), 0, rng.IntN(2))
				case op == 3:
					ls = slices.Delete(slices.Clone(ls), len(ls)-1, len(ls))
				case op <= 6:
					ls = slices.Clone(ls)
					ls[rng.IntN(len(ls))].Value = weighted(values, 7)
				}
				s := Series{Labels: slices.Clone(ls)}
				for range 1 + rng.IntN(2) {
					x := sample(float64(rng.IntN(40)*15-300), float64(rng.IntN(1000)))
					if rng.IntN(20) == 0 {
						x.T += 3_600_000
						future++
					}
					s.Samples = append(s.Samples, x)
				}
				series = append(series, s)
				all = append(all, decodedSeries{labels: s.Labels, samples: s.Samples})
			}
			in.decoded = encode(t, p, series...)
			if p == wire.V2 && rng.IntN(4) == 0 {
				in.decoded = unpacked(t, rng, requestV2(series...))
				inParts++
			}
			in.reset(p, "default", nil)
			if in.through.waits = 0; in.readThrough(snappyBlock, inPieces(in.decoded), len(in.decoded)) {
				throughWindow++
			}
			if err := in.write(t.Context()); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			in.closeWindow()
			written += in.written
			refused += in.problems.count[reasonLabels]
		}
		want, n, _ := expect(all, r.o(), maxT)
		if written != n {
			t.Errorf("seed %d: %d samples written, want %d", seed, written, n)
		}
		r.Holds(want...)
		if len(want) < 100 || refused < 100 || future < 50 || p == wire.V2 && inParts < 100 || p == wire.V1 && throughWindow < 50 {
			t.Errorf("seed %d: too little happened: %d series, %d refused, %d samples in the future, %d through a window", seed, len(want), refused, future, throughWindow)
		}
	})
}

// unpacked encodes m with references that are not one packed list: one by one,
// in two lists, or with samples between them, as rng will; and some symbols behind
// some series.
func unpacked(t testing.TB, rng *rand.Rand, m *writev2.Request) []byte {
	t.Helper()
	late, behind := len(m.Symbols), rng.IntN(len(m.Timeseries))
	if rng.IntN(2) == 0 {
		late = rng.IntN(len(m.Symbols) + 1)
	}
	symbols := func(all []string) []byte { return marshal(t, &writev2.Request{Symbols: all}) }
	body := symbols(m.Symbols[:late])
	for i, ts := range m.Timeseries {
		if i == behind+1 {
			body, late = append(body, symbols(m.Symbols[late:])...), len(m.Symbols)
		}
		refs := ts.LabelsRefs
		ts.LabelsRefs = nil
		rest := marshal(t, &ts)
		var series []byte
		list := func(refs []uint32) {
			var packed []byte
			for _, r := range refs {
				packed = binary.AppendUvarint(packed, uint64(r))
			}
			series = append(field(series, wire.TagV2SeriesRefs, len(packed)), packed...)
		}
		switch cut := rng.IntN(len(refs) + 1); rng.IntN(4) {
		case 0:
			list(refs)
			series = append(series, rest...)
		case 1:
			list(refs[:cut])
			series = append(series, rest...)
			list(refs[cut:])
		case 2:
			series = append(series, rest...)
			list(refs)
		case 3:
			for _, r := range refs {
				series = binary.AppendUvarint(append(series, wire.TagV2SeriesRef), uint64(r))
			}
			series = append(series, rest...)
		}
		body = append(field(body, wire.TagV2Series, len(series)), series...)
	}
	return append(body, symbols(m.Symbols[late:])...)
}

// Any bit that differs ends the common prefix, wherever it lies and whatever
// lies around it.
func TestCommonPrefix(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range 100 {
		a := make([]byte, n)
		for i := range a {
			a[i] = byte(rng.Uint32())
		}
		if got := wire.CommonPrefix(a, append(slices.Clone(a), 1, 2, 3)); got != n {
			t.Errorf("of %d equal bytes: %d", n, got)
		}
		for bit := range 8 * n {
			b := slices.Clone(a)
			b[bit/8] ^= 1 << (bit % 8)
			if got := wire.CommonPrefix(a, b); got != bit/8 {
				t.Fatalf("%x and %x have %d bytes in common, not %d", a, b, bit/8, got)
			}
		}
	}
}

// field appends the tag and the length of a field of n bytes.
func field(dst []byte, tag byte, n int) []byte {
	return binary.AppendUvarint(append(dst, tag), uint64(n))
}
