package query

import "testing"

// TestPointTexts holds the texts between values to appendTime, where the number
// of digits, all but the last eight of them, or the sign change on the way, too.
func TestPointTexts(t *testing.T) {
	short := 0
	for _, start := range []int64{1795208700_000, 1999999970_000, 9999999990_000, 99999970_000, 999_990_000, -30_000, -100000030_000, 1795208700_001, 0} {
		for _, interval := range []int64{1, 1000, 15_000, 15_001, 86400_000, 1 << 40} {
			s := steps{start: start, interval: interval, n: 50}
			for i, x := range s.pointTexts(make([]pointText, 2, 8)) {
				at := start + int64(i)*interval
				want := `"],[` + string(appendTime(nil, at)) + `,"`
				if got := string(x.text[:x.n]); got != want {
					t.Fatalf("from %d by %d: %s, want %s", start, interval, got, want)
				}
				if i > 0 && at%1000 == 0 && at/1e11 == (at-interval)/1e11 {
					short++
				}
			}
		}
	}
	if short < 100 {
		t.Errorf("%d texts of which the last digits were to be written", short)
	}
}
