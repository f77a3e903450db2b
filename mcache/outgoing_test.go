package mcache

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestCollectInOrder writes series in order, on a grid or not, with gaps and records, and
// collects them in pieces of any size: each piece is what comes next of its series.
func TestCollectInOrder(t *testing.T) {
	t.Parallel()
	const seed, series = 5, 40
	rnd := rand.New(rand.NewPCG(seed, 2))
	c := newTestCache(t, Options{WriteBack: true, Shards: 1})
	s := c.shards[0]
	type state struct {
		next    int64
		samples []Sample
		records []int64
	}
	var all [series]state
	var o Outgoing
	byHead, otherwise := 0, 0
	for round := range 4000 {
		i := rnd.IntN(series)
		x := &all[i]
		ls := []Label{{"__name__", "m"}, {"i", fmt.Sprint(i)}}
		var b Batch
		b.Reset("default")
		b.Series(c.Fingerprint(ls))
		for range 1 + rnd.IntN(6) {
			x.next += 1000
			switch kind := rnd.IntN(30); {
			case kind == 0:
				x.next += 1000 * rnd.Int64N(5)
			case kind == 1 && i%2 == 0:
				x.next += rnd.Int64N(999)
			case kind < 6 && i%10 == 7:
				b.Record(x.next, []byte("record"))
				x.records = append(x.records, x.next)
				continue
			}
			v := Sample{T: x.next, V: rnd.Uint64()}
			b.Sample(v.T, v.V)
			x.samples = append(x.samples, v)
		}
		if _, err := c.Append(&b); err != nil {
			t.Fatal(err)
		}
		if len(b.Missing()) > 0 {
			if _, err := c.AppendNew(&b, 0, ls); err != nil {
				t.Fatal(err)
			}
		}
		if round%5 != 0 {
			continue
		}
		var p Pass
		for more := true; more; {
			most := 1 + rnd.IntN(30)
			more = c.Collect(0, &p, Due{Since: AllTicks}, most, &o)
			if o.Points() > most {
				t.Fatalf("seed %d, round %d: %d points collected, %d wanted", seed, round, o.Points(), most)
			}
			for k := range o.Len() {
				run := o.Run(k)
				var i int
				fmt.Sscan(o.Labels()[run.Labels[1]].Value, &i)
				x := &all[i]
				n := len(run.Samples)
				if n > len(x.samples) || !slices.Equal(run.Samples, x.samples[:n]) {
					t.Fatalf("seed %d, round %d: %v collected of series %d, want the first of %v", seed, round, run.Samples, i, x.samples)
				}
				x.samples = x.samples[n:]
				for _, r := range run.Records {
					if r.T != x.records[0] {
						t.Fatalf("seed %d, round %d: a record at %d of series %d, want one at %d", seed, round, r.T, i, x.records[0])
					}
					x.records = x.records[1:]
				}
				if r := s.recs.At(o.runs[k].id); n > 0 && r.mode == modeGrid && run.Samples[0].T > r.sealedEnd {
					byHead++
				} else {
					otherwise++
				}
			}
			c.Acknowledge(&o)
		}
		for i := range all {
			if n := len(all[i].samples) + len(all[i].records); n > 0 {
				t.Fatalf("seed %d, round %d: %d points of series %d are not collected", seed, round, n, i)
			}
		}
		if err := c.Check(); err != nil {
			t.Fatal(err)
		}
	}
	if byHead < 1000 || otherwise < 500 {
		t.Errorf("seed %d: %d runs were the end of a head, %d were not", seed, byHead, otherwise)
	}
}
