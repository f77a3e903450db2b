package send

import (
	"fmt"
	"reflect"
	"testing"

	"mcached/mcache"
)

// What was added stays what it was, whatever becomes of what it was copied from and
// however much is added after it, and again when the memory is used again.
func TestCopies(t *testing.T) {
	var c Copies
	for round := range 3 {
		var want []Series
		var s Series // the same memory for all, as who reads a cache has it
		for i := range 100 + 100*round {
			s = Series{Labels: s.Labels[:0], Samples: s.Samples[:0], Starts: s.Starts[:0], Records: s.Records[:0]}
			s.Labels = append(s.Labels, mcache.Label{Name: "i", Value: fmt.Sprint(round, i)})
			var w Series
			w.Labels = append(w.Labels, s.Labels...)
			for k := range i % 7 {
				at, value := int64(1000*i+k), []byte(fmt.Sprint("record", round, i, k))
				s.Samples, w.Samples = append(s.Samples, mcache.Sample{T: at, V: uint64(k)}), append(w.Samples, mcache.Sample{T: at, V: uint64(k)})
				s.Starts, w.Starts = append(s.Starts, at-1), append(w.Starts, at-1)
				s.Records, w.Records = append(s.Records, mcache.Record{T: at, Value: value}), append(w.Records, mcache.Record{T: at, Value: append([]byte(nil), value...)})
			}
			c.Add(s)
			for k := range s.Records {
				clear(s.Records[k].Value)
			}
			want = append(want, w)
		}
		if len(c.Series) != len(want) {
			t.Fatalf("%d series of %d", len(c.Series), len(want))
		}
		for i := range want {
			if g, w := fmt.Sprintf("%v", c.Series[i]), fmt.Sprintf("%v", want[i]); g != w {
				t.Fatalf("round %d, series %d is\n%s\nwant\n%s", round, i, g, w)
			}
		}
		c.Reset()
		if !reflect.DeepEqual(c.Series, []Series{}) || c.labels[:1][0].Name != "" {
			t.Fatal("something is held after Reset")
		}
	}
}

func TestCopiesAllocateNothing(t *testing.T) {
	var c Copies
	s := Series{Samples: []mcache.Sample{{T: 1}}}
	if n := testing.AllocsPerRun(10, func() {
		for range 100 {
			c.Add(s)
		}
		c.Reset()
	}); n > 0 {
		t.Errorf("%v allocations in memory that is there already", n)
	}
}
