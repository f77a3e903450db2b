package mcache

import (
	"fmt"
	"testing"
)

// TestDirtGroups has three groups of series. What a pass does not look at is as old as if it
// had, and what a pass has collected is not looked at again.
func TestDirtGroups(t *testing.T) {
	c := newTestCache(t, Options{WriteBack: true, Shards: 1})
	s := c.shards[0]
	var o Outgoing
	write := func(tick uint32, from, to int, at int64, duty Duty) {
		t.Helper()
		c.SetTick(tick)
		var b Batch
		b.Reset("default")
		for i := from; i < to; i++ {
			ls := []Label{{"__name__", "m"}, {"i", fmt.Sprint(i)}}
			b.Series(c.Fingerprint(ls))
			b.Sample(at, uint64(i))
			b.Duty(duty)
		}
		if _, err := c.Append(&b); err != nil {
			t.Fatal(err)
		}
		for _, i := range b.Missing() {
			if _, err := c.AppendNew(&b, i, []Label{{"__name__", "m"}, {"i", fmt.Sprint(from + i)}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	// collect expects so many runs, and how old is afterwards what was not collected.
	collect := func(due Due, runs int, oldest uint32) {
		t.Helper()
		var p Pass
		got := 0
		for more := true; more; {
			more = c.Collect(0, &p, due, 1<<20, &o)
			got += o.Len()
			c.Acknowledge(&o)
		}
		c.Settle(0, &p)
		if got != runs || c.Dirty().OldestTick != oldest {
			t.Errorf("due %+v: %d runs, and what is left came at tick %d; want %d and %d", due, got, c.Dirty().OldestTick, runs, oldest)
		}
	}
	groups := func(want string) {
		t.Helper()
		if got := fmt.Sprint(s.groups.All()); got != want {
			t.Errorf("groups are %s, want %s", got, want)
		}
	}
	const n = 2*groupSeries + 8
	write(3, 0, n, 1000, Mine)
	groups("[{3 false} {3 false} {3 false}]")
	collect(Due{Since: 2}, 0, 3)
	collect(Due{Since: 3}, n, 0)
	groups("[{0 false} {0 false} {0 false}]")
	write(5, groupSeries+1, groupSeries+3, 2000, Mine)
	write(7, 0, groupSeries+8, 3000, Mine)
	groups("[{7 false} {5 false} {0 false}]")
	collect(Due{Since: 5}, 2, 7)
	groups("[{7 false} {7 false} {0 false}]")
	collect(Due{Since: 4, Sealed: true}, 0, 7)
	for at := range int64(130) {
		write(8, 4, 5, 10_000+at, Mine)
	}
	groups("[{7 true} {7 false} {0 false}]")
	collect(Due{Since: 6}, 0, 7)
	collect(Due{Since: 6, Sealed: true}, 1, 7)
	groups("[{7 false} {7 false} {0 false}]")
	collect(Due{Since: AllTicks}, groupSeries+5, 0)
	groups("[{0 false} {0 false} {0 false}]")
	// What another hands on is not ours to be old.
	write(9, n-1, n, 200_000, Standby)
	collect(Due{Since: 4}, 0, 0)
	write(11, 0, 1, 200_000, Mine)
	collect(Due{Since: 4}, 0, 11)
}
