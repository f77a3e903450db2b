package ingest

import (
	"testing"
	"time"
)

// TestCrowd plays rounds of so many connections that take so long each, and
// looks in which of them the loop would let others come.
func TestCrowd(t *testing.T) {
	for _, test := range []struct {
		name    string
		conns   int           // that take turns
		events  int           // of a round
		round   time.Duration // that it takes
		between time.Duration // that the loop waits after it
		want    bool
	}{
		{"a crowd with one request each", 50, 3, 10 * time.Microsecond, 5 * time.Microsecond, true},
		{"one client as fast as it can", 1, 1, 5 * time.Microsecond, 5 * time.Microsecond, false},
		{"few clients as fast as they can", 16, 3, 10 * time.Microsecond, 0, false},
		{"many clients with little to ask", 1000, 1, 5 * time.Microsecond, 40 * time.Microsecond, false},
		{"all at once, once a second", 50, 50, 90 * time.Microsecond, time.Second, false},
		{"pipelines", 50, 50, 400 * time.Microsecond, 0, false},
	} {
		var (
			k      crowd
			now    = time.Unix(1_700_000_000, 0)
			met    = make([]int, test.conns)
			next   int
			paused int
		)
		const rounds = 1000
		for range rounds {
			k.begin(now)
			for range test.events {
				k.meet(&met[next%test.conns])
				next++
			}
			now = now.Add(test.round)
			if k.pause(now) {
				paused++
			}
			now = now.Add(test.between)
		}
		// What is known after the first windows stays so.
		if got := paused > rounds*9/10; got != test.want || paused > 0 && paused < rounds*9/10 {
			t.Errorf("%s: paused after %d of %d rounds", test.name, paused, rounds)
		}
	}
}
