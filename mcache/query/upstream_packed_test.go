package query

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
)

// TestPacked: what is written from packed numerals is what is written from a list of
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

// extentWithoutGaps has a numeral at each of its steps.
func extentWithoutGaps(rnd *rand.Rand, from, to int) *extent {
	s, next := extentSeries{labels: labels.FromStrings("a", "3")}, randomNumerals(rnd)
	for step := from; step < to; step++ {
		s.add(step, next())
	}
	var w extentWriter
	w.add(&s)
	return &extent{lo: from, hi: to, body: w.body}
}

// add adds a numeral.
func (s *extentSeries) add(step int, text string) {
	s.steps, s.numerals = append(s.steps, step), append(s.numerals, numeral{uint32(len(s.text)), uint32(len(text))})
	s.text = append(s.text, text...)
}

// randomNumerals are texts of numbers, of which some begin like the one before, or are it.
func randomNumerals(rnd *rand.Rand) func() string {
	most, text := 1+rnd.IntN(maxNumeral), "0"
	return func() string {
		if rnd.IntN(4) == 0 {
			return text
		}
		b := []byte(text[:min(rnd.IntN(len(text)+1), most)])
		for range rnd.IntN(most - len(b) + 1) {
			b = append(b, "0123456789.-"[rnd.IntN(12)])
		}
		if text = string(b); text == "" {
			text = "7"
		}
		return text
	}
}

// TestPackedIsBroken: what cannot be read is not left out of an answer.
func TestPackedIsBroken(t *testing.T) {
	for _, gap := range []int{0, 1} {
		s := extentSeries{labels: labels.FromStrings("a", "1")}
		for i := range 20 {
			s.add(i+i/10*gap, fmt.Sprintf("%d23456789012345678901234", 1+i%9))
		}
		var w extentWriter
		w.add(&s)
		// The last number has more characters than there are.
		w.body[len(w.body)-14]++
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
