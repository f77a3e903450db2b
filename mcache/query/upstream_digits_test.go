package query

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestNumerals: numbers that were kept are what they were, read one by one and written
// as points, in runs that begin anywhere.
func TestNumerals(t *testing.T) {
	rnd, shared, same := rand.New(rand.NewPCG(17, 8)), 0, 0
	g := gridOf{t0, 15_000, 200}
	before := separators{grid: g}
	before.of(g.n - 1)
	for range 5000 {
		var s extentSeries
		next := randomNumerals(rnd)
		for step := range 1 + rnd.IntN(100) {
			s.add(step, next())
		}
		s.text = s.text[:len(s.text):len(s.text)]
		kept := appendNumerals(nil, s.text, s.numerals)
		same += bytes.Count(kept, []byte{0})
		for i := range 7 {
			shared += bytes.Count(kept, []byte{byte((i+1)<<5 | 3)})
		}
		x, at := numeralReader{b: append(kept, make([]byte, rnd.IntN(2*numeralRoom))...)}, rnd.IntN(len(s.steps))
		for i := range at + 1 {
			if want := s.appendValue(nil, i); !x.next() || !bytes.Equal(x.text(), want) {
				t.Fatalf("number %d of %s is %s", i, s.text, x.text())
			}
		}
		want, out := x.text(), make([]byte, 200*pointRoom)
		k := copy(out, want)
		want = bytes.Clone(want)
		done, end := x.put(out, k, 0, before.list[at+1:len(s.steps)])
		for i := at + 1; i <= at+done; i++ {
			n := len(want)
			want = append(want, make([]byte, longSeparator)...)
			want = s.appendValue(want[:n+before.list[i].put(want[n:])], i)
		}
		if !bytes.Equal(out[:end], want) {
			t.Fatalf("behind number %d of %s: %d are\n%s, want\n%s", at, s.text, done, out[:end], want)
		}
		for i := at + done + 1; i < len(s.steps); i++ {
			if want := s.appendValue(nil, i); !x.next() || !bytes.Equal(x.text(), want) {
				t.Fatalf("number %d of %s is %s", i, s.text, x.text())
			}
		}
	}
	if shared < 1000 || same < 10_000 {
		t.Errorf("%d begin like the one before, %d are it", shared, same)
	}
}

// TestNumeralSize: nearly all numbers are kept as they are written.
func TestNumeralSize(t *testing.T) {
	size := func(text string) int {
		t.Helper()
		n := numeralSize([]byte(`[1795208700,"`+text+`"`), len(`[1795208700,"`))
		for _, behind := range []string{`]`, `],[1795208715,"`, strings.Repeat("1", 20)} {
			if in := numeralSize([]byte(text+`"`+behind), 0); in != n {
				t.Errorf("%q before %q has a size of %d, want %d", text, behind, in, n)
			}
		}
		return n
	}
	rnd := rand.New(rand.NewPCG(17, 3))
	for i := range 20_000 {
		f := rnd.NormFloat64() * math.Pow10(rnd.IntN(16)-4)
		if i%2 == 0 {
			f = math.Round(f) / math.Pow10(rnd.IntN(9))
		}
		if text := string(appendFloat(nil, f)); len(text) <= maxNumeral && !strings.Contains(text, "e") && size(text) != len(text) {
			t.Errorf("%s has a size of %d", text, size(text))
		}
	}
	for _, text := range slices.Concat([]string{"", "NaN", "+Inf", "-Inf", "1e+21", "12345678e-9", "1-", "+1"}, strings.Split(strings.Repeat("1", maxNumeral+1)+" -"+strings.Repeat("1", maxNumeral)+" "+strings.Repeat("1", 100), " ")) {
		if n := size(text); n != 0 {
			t.Errorf("%q has a size of %d", text, n)
		}
	}
}
