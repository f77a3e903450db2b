package query

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

// runsGrid is one whose times have ten digits, and some of them milliseconds.
var runsGrid = gridOf{1795208700_000, 2500, 40}

// readPoints lists what a reader finds, by runs or without any.
func readPoints(r io.Reader, byRuns bool) (string, error) {
	m := newMatrixReader(r, runsGrid, span{from: 3, to: 37})
	if !byRuns {
		m.expected.list = make([]separator, runsGrid.n) // none is
	}
	var b strings.Builder
	for {
		s, err := m.next()
		if err != nil {
			fmt.Fprintf(&b, "%q %q", m.warnings, m.infos)
			return b.String(), err
		}
		fmt.Fprintf(&b, "%s %s %s\n", s.labels, s.floats, s.histograms)
	}
}

// sameByRuns reads an answer in every way, and reports whether it is one.
func sameByRuns(t *testing.T, in []byte) bool {
	t.Helper()
	want, wantErr := readPoints(bytes.NewReader(in), false)
	for name, r := range map[string]io.Reader{"as a whole": bytes.NewReader(in), "in halves": iotest.HalfReader(bytes.NewReader(in)), "in bytes": iotest.OneByteReader(bytes.NewReader(in))} {
		if got, err := readPoints(r, true); got != want || fmt.Sprint(err) != fmt.Sprint(wantErr) {
			t.Fatalf("%s %q:\n got %s, %v\nwant %s, %v", name, in, got, err, want, wantErr)
		}
	}
	return wantErr == io.EOF
}

// randomAnswer is a matrix on runsGrid, of some kilobytes at most.
func randomAnswer(rnd *rand.Rand) []byte {
	b := []byte(`{"status":"success","data":{"resultType":"matrix","result":[`)
	for i := range 1 + rnd.IntN(4) {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `{"metric":{"i":"%d"},"values":[`, i)
		points := 0
		for step := 3; step < 37; step++ {
			if rnd.IntN(20) == 0 {
				continue
			}
			if points++; points > 1 {
				b = append(b, ',')
			}
			v := []float64{rnd.Float64(), float64(rnd.IntN(1 << 30)), float64(rnd.IntN(1<<30)) / 8, -rnd.Float64(), 1e-7 * rnd.Float64(), 1e22, math.NaN(), math.Inf(1), math.Inf(-1), 0, 3.5, 100}[rnd.IntN(12)]
			b = append(appendTime(append(b, '['), runsGrid.time(step)), `,"`...)
			b = append(appendFloat(b, v), `"]`...)
		}
		b = append(b, `]}`...)
	}
	return append(b, `]}}`...)
}

// spoil changes something of an answer.
func spoil(rnd *rand.Rand, b []byte) []byte {
	const odd = `/"],[.:0123456789eE+-{}x ` + "\x00\xff\xaf\xb1"
	b = bytes.Clone(b)
	for range 1 + rnd.IntN(2) {
		at := rnd.IntN(len(b))
		switch rnd.IntN(5) {
		case 0:
			b[at] = odd[rnd.IntN(len(odd))]
		case 1:
			b = append(b[:at], b[at+1:]...)
		case 2: // a number that is too long for any
			b = append(b[:at], append(bytes.Repeat([]byte{odd[rnd.IntN(len(odd))]}, 1+rnd.IntN(150)), b[at:]...)...)
		case 3: // two parts change places, as times that are not in order
			to := at + rnd.IntN(len(b)-at)
			b = append(b[:at:at], append(bytes.Clone(b[to:]), b[at:to]...)...)
		case 4: // something comes twice
			to := at + rnd.IntN(min(len(b)-at, 60))
			b = append(b[:to:to], b[at:]...)
		}
	}
	return b
}

// TestRunsArePoints: whatever comes, runs take what reading byte by byte does,
// and refuse it with the same words.
func TestRunsArePoints(t *testing.T) {
	rnd := rand.New(rand.NewPCG(17, 2))
	sound, spoilt, refused := 0, 0, 0
	for range 300 {
		answer := randomAnswer(rnd)
		if !sameByRuns(t, answer) {
			t.Fatalf("%s is refused", answer)
		}
		sound++
		for range 20 {
			if spoilt++; !sameByRuns(t, spoil(rnd, answer)) {
				refused++
			}
		}
	}
	if refused < spoilt/2 || refused == spoilt {
		t.Errorf("of %d answers that were spoilt %d are refused", spoilt, refused)
	}
}

// TestRun: a run goes as far as points are as expected, and no further.
func TestRun(t *testing.T) {
	point := func(step int, value string) string {
		return fmt.Sprintf(`,[%s,"%s"]`, appendTime(nil, runsGrid.time(step)), value)
	}
	end := `,[1795208795` + strings.Repeat(" ", longSeparator) // of the buffer, not of the list
	all := point(4, "1") + point(5, "-1.5e-07") + point(6, "+Inf") + point(7, "NaN") + point(8, "123456789012345678.5")
	for in, want := range map[string]int{
		all:                       len(all),
		point(5, "1"):             0, // not the next
		point(3, "1"):             0,
		"":                        0,
		all + point(10, "1"):      len(all), // one is missing
		all + point(8, "1"):       len(all), // comes twice
		all + point(9, ""):        len(all),
		all + point(9, "1/2"):     len(all),
		all + point(9, "/"):       len(all),
		all + point(9, "x"):       len(all),
		all + point(9, "1\xb1"):   len(all),
		all + point(9, `1","2`):   len(all),
		all + `,[1795208722,"1"]`: len(all), // another time
		all + point(9, strings.Repeat("1", 2*maxPointText)): len(all),
	} {
		m := newMatrixReader(nil, runsGrid, span{from: 3, to: 37})
		n, next := m.run([]byte(`"]`+in+end), 4)
		if n != want || want > 0 && !strings.Contains(in, "/") && next != 9 {
			t.Errorf("of %q %d bytes, up to step %d, want %d", in, n, next, want)
		}
	}
	// It ends with the span.
	m := newMatrixReader(nil, runsGrid, span{from: 3, to: 6})
	if n, next := m.run([]byte(`"]`+all+end), 4); n != len(point(4, "1")+point(5, "-1.5e-07")) || next != 6 {
		t.Errorf("beyond the span: %d bytes, step %d", n, next)
	}
}

// FuzzRuns: whatever comes, runs make no difference.
func FuzzRuns(f *testing.F) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 5 {
		f.Add(randomAnswer(rnd))
		f.Add(spoil(rnd, randomAnswer(rnd)))
	}
	f.Fuzz(func(t *testing.T, in []byte) { sameByRuns(t, in) })
}
