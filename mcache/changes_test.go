package mcache

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// What is before the time of ChangedSince is as it was at that moment; and the time
// is no earlier than what was written and deleted since, but for a second, whatever comes
// to another bucket.
func TestChangedSinceModel(t *testing.T) {
	type look struct {
		bucket   string
		at       Stamp
		points   map[string]string // by series and time
		earliest int64             // that was written since
	}
	for seed := range uint64(8) {
		c := newTestCache(t, Options{Memory: newTestMemory(t, 8<<20, 1<<16), Blobs: seed%2 == 0, WriteBack: seed%4 == 3})
		rnd := rand.New(rand.NewPCG(seed, 7))
		const series = 12
		labelsOf := func(i int) []Label { return []Label{{metricName, "m"}, {"i", fmt.Sprint(i)}} }
		everything := func(bucket string) map[string]string {
			all := map[string]string{}
			ids, err := c.Select(bucket, []Matcher{{Type: MatchEqual, Name: metricName, Value: "m"}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			var snap Snapshot
			for _, id := range ids {
				ls, _ := c.Labels(id, nil)
				if !c.Snapshot(id, math.MinInt64, math.MaxInt64, &snap) {
					continue
				}
				for it := snap.Iterator(); it.Next(); {
					if it.OnRecord() {
						x := it.Record()
						all[fmt.Sprint(ls, " ", x.T)] = string(x.Value)
					} else {
						x := it.At()
						all[fmt.Sprint(ls, " ", x.T)] = fmt.Sprint(x.V)
					}
				}
			}
			return all
		}
		var looks []look
		var now int64 = 1_000_000
		buckets := []string{"b", "other"}
		newestOf := map[string][]int64{}
		for _, name := range buckets {
			newestOf[name] = make([]int64, series)
		}
		wroteTo := func(bucket string, at int64) {
			for i := range looks {
				if l := &looks[i]; l.bucket == bucket {
					l.earliest = min(l.earliest, at)
				}
			}
		}
		for op := range 400 {
			i := rnd.IntN(series)
			bucket := buckets[rnd.IntN(len(buckets))]
			newest, wrote := newestOf[bucket], func(at int64) { wroteTo(bucket, at) }
			switch x := rnd.IntN(100); {
			case x < 75:
				next := newest[i] + 15_000
				if rnd.IntN(3) == 0 {
					next = max(next, now) + rnd.Int64N(20_000)
				}
				if rnd.IntN(20) == 0 {
					next = max(newest[i]-rnd.Int64N(1_500_000), 0) // all of it out of order
				}
				many := 1
				if rnd.IntN(2) == 0 {
					many += rnd.IntN(20)
				}
				var b Batch
				b.Reset(bucket)
				b.Series(c.Fingerprint(labelsOf(i)))
				for k := range many {
					at := next + int64(k)*15_000
					newest[i], now = max(newest[i], at), max(now, at)
					if rnd.IntN(100) == 0 {
						at -= rnd.Int64N(1_500_000)
					}
					wrote(at)
					if rnd.IntN(60) == 0 {
						b.Record(at, []byte{1, byte(op)})
					} else {
						b.Sample(at, rnd.Uint64())
					}
				}
				_, err := c.Append(&b)
				for _, k := range append([]int(nil), b.Missing()...) {
					_, e := c.AppendNew(&b, k, labelsOf(i))
					err = errors.Join(err, e)
				}
				if err != nil {
					t.Fatal(err)
				}
			case x < 77:
				from := now - rnd.Int64N(500_000)
				ids, _ := c.Select(bucket, []Matcher{{Type: MatchEqual, Name: "i", Value: fmt.Sprint(i)}}, nil)
				for _, id := range ids {
					if _, err := c.Delete(id, from, from+rnd.Int64N(100_000)); err != nil {
						t.Fatal(err)
					}
					wrote(from)
				}
			case x == 77 && rnd.IntN(4) == 0:
				c.RemoveBucket(bucket)
				wrote(math.MinInt64)
				if from, _ := c.ChangedSince(bucket, 0); from != math.MinInt64 {
					t.Fatal("of a bucket that is not there nothing is known")
				}
			case x == 78 && rnd.IntN(4) == 0:
				f := c.Fingerprint(labelsOf(i))
				c.SetRetention(bucket, f, 1000)
				if from, _ := c.ChangedSince(bucket, 0); from != math.MinInt64 {
					t.Fatal("with another retention nothing stays as it is")
				}
				c.SetRetention(bucket, f, 0)
				wrote(math.MinInt64)
			case x == 79 && rnd.IntN(4) == 0:
				was := map[string]map[string]string{}
				for _, name := range buckets {
					was[name] = everything(name)
				}
				c.Pop()
				for name := range was {
					is := everything(name)
					for k := range was[name] {
						if _, ok := is[k]; !ok {
							wroteTo(name, timeOf(k))
						}
					}
				}
			case x < 90:
				_, at := c.ChangedSince(bucket, 0)
				l := look{bucket, at, everything(bucket), noChange}
				if c.findBucket(bucket) == nil {
					l.earliest = math.MinInt64
				}
				looks = append(looks, l)
			default:
				is := everything(bucket)
				for _, l := range looks {
					if l.bucket != bucket {
						continue
					}
					from, _ := c.ChangedSince(bucket, l.at)
					if l.earliest < math.MaxInt64-changesApart && (from > l.earliest || from < l.earliest-changesApart && l.earliest != math.MinInt64) || l.earliest == noChange && from != noChange {
						t.Fatalf("seed %d: changed from %d, written from %d", seed, from, l.earliest)
					}
					for _, pair := range [][2]map[string]string{{l.points, is}, {is, l.points}} {
						for k, v := range pair[0] {
							at := timeOf(k)
							if at < from && pair[1][k] != v {
								t.Fatalf("seed %d: changed from %d, and %s is %q, %q", seed, from, k, v, pair[1][k])
							}
						}
					}
				}
				if len(looks) > 20 {
					looks = looks[10:]
				}
			}
		}
	}
}

func timeOf(key string) (at int64) {
	for i := len(key) - 1; ; i-- {
		if key[i] == ' ' {
			fmt.Sscan(key[i+1:], &at)
			return at
		}
	}
}

// A log that is full tells of what is long ago more coarsely, and never too late.
func TestChangesAreBounded(t *testing.T) {
	var x changeLog
	exact := []int64{}
	for i := range 20_000 {
		from := int64(i) * 2 * changesApart
		x.note(Stamp(i+1), from)
		exact = append(exact, from)
		if len(x) > maxChanges {
			t.Fatalf("%d entries", len(x))
		}
	}
	for since := range exact {
		from := x.since(Stamp(since))
		if from > exact[since] {
			t.Fatalf("since %d it changed from %d, said was %d", since, exact[since], from)
		}
		if len(exact)-since <= maxChanges/2 && from != exact[since] {
			t.Fatalf("since %d, of late, it changed from %d, said was %d", since, exact[since], from)
		}
	}
	now := Stamp(len(exact))
	if from := x.since(now); from != noChange {
		t.Fatal(from)
	}
	x.note(now+1, math.MinInt64)
	if from := x.since(now); from != math.MinInt64 || len(x) != 1 {
		t.Fatal(from, len(x))
	}
}
