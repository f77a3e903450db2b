package query

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
)

// TestPacked: what is written from packed decimals is what is written from a list of
// them, whatever part of an extent a query asks for, and with times of any kind.
func TestPacked(t *testing.T) {
	rnd := rand.New(rand.NewPCG(17, 6))
	names, written, gaps := []labels.Labels{labels.FromStrings("a", "1"), labels.FromStrings("a", "2")}, 0, 0
	for range 3000 {
		from := rnd.IntN(extentSteps)
		to := from + 1 + rnd.IntN(extentSteps-from)
		x := randomExtent(rnd, names, from, to)
		if rnd.IntN(2) == 0 {
			x = extentWithoutGaps(rnd, from, to)
		}
		base := rnd.IntN(extentSteps)
		g := gridOf{[]int64{t0, t0 + 999_500, 5000}[rnd.IntN(3)], []int64{15_000, 500, 1001}[rnd.IntN(3)], 1000}
		part := func() *recalled {
			s := span{from: 7, to: 7 + 1 + rnd.IntN(extentSteps-base)}
			return &recalled{span: s, extent: x, base: base, start: g.time(s.from), step: g.step, reader: newExtentReader(x), before: separators{grid: g, from: s.from}}
		}
		p := part()
		q := *p
		q.reader = newExtentReader(x)
		for {
			more, err := p.reader.nextPacked()
			if err != nil {
				t.Fatal(err)
			}
			if unpacked, err := q.reader.next(); unpacked != more || err != nil {
				t.Fatalf("%v and %v, %v", more, unpacked, err)
			}
			if !more {
				break
			}
			isPacked := p.reader.at.packed.n > 0
			has := p.has(floatPoints)
			if has != q.has(floatPoints) {
				t.Fatalf("%d to %d at %d: packed has points: %v", from, to, base, has)
			}
			if !has {
				continue
			}
			w := jsonWriter{buf: []byte("before")}
			if gap := p.reader.at.packed.gaps; !p.write(&w, floatPoints) {
				t.Fatal(w.err)
			} else if isPacked && gap {
				gaps++
			} else if isPacked {
				written++
			}
			if want := "before" + string(q.text(floatPoints)); string(w.buf) != want {
				t.Fatalf("%d to %d at %d, %+v:\n%s\n%s", from, to, base, p.span, w.buf, want)
			}
		}
	}
	if written < 200 || gaps < 200 {
		t.Errorf("%d were written packed, %d with gaps", written, gaps)
	}
}

// extentWithoutGaps has a decimal at each of its steps.
func extentWithoutGaps(rnd *rand.Rand, from, to int) *extent {
	s, bits, places := extentSeries{labels: labels.FromStrings("a", "3")}, rnd.IntN(59), rnd.IntN(maxDecimals+1)
	for step := from; step < to; step++ {
		s.steps, s.decimals = append(s.steps, step), append(s.decimals, decimalOf(rnd.Int64N(1<<bits)-1<<min(bits, 20)/2, places))
	}
	var w extentWriter
	w.add(&s)
	return &extent{lo: from, hi: to, body: w.body}
}

// TestPackedIsBroken: what cannot be read is not left out of an answer.
func TestPackedIsBroken(t *testing.T) {
	for _, gap := range []int{0, 1} {
		s := extentSeries{labels: labels.FromStrings("a", "1")}
		for i := range 20 {
			s.steps, s.decimals = append(s.steps, i+i/10*gap), append(s.decimals, decimalOf(maxUnits-1, 0))
		}
		var w extentWriter
		w.add(&s)
		// The tenth number is more by one: beyond what there is.
		w.body = w.body[:len(w.body)-1]
		w.body[len(w.body)-10] = 2
		w.body = append(w.body, 0)
		x := &extent{hi: 30, body: w.body}
		p := &recalled{span: span{to: 30}, extent: x, start: t0, step: 15_000, reader: newExtentReader(x), before: separators{grid: gridOf{t0, 15_000, 30}}}
		out := jsonWriter{flush: func([]byte) error { return nil }}
		if more, err := p.next(); !more || err != nil {
			t.Fatalf("%v, %v", more, err)
		}
		if p.write(&out, floatPoints) || out.err == nil {
			t.Errorf("gap %d: it writes %s, %v", gap, out.buf, out.err)
		}
	}
}

func TestVarint(t *testing.T) {
	rnd := rand.New(rand.NewPCG(17, 7))
	check := func(b []byte) {
		t.Helper()
		v, n := varint(b)
		if want, wantN := binary.Varint(b); v != want || n != wantN {
			t.Fatalf("%x is %d of %d bytes, want %d of %d", b, v, n, want, wantN)
		}
	}
	for range 100_000 {
		b := binary.AppendVarint(nil, int64(rnd.Uint64())>>rnd.IntN(64))
		check(b)
		check(append(b, make([]byte, rnd.IntN(12))...))
		for range rnd.IntN(12) {
			b = append(b, byte(rnd.Uint32()))
		}
		check(b)
		check(b[rnd.IntN(len(b)):])
	}
}
