package mcache

import (
	"fmt"
	"testing"
)

// TestGone evicts whole series, some of which are written again, and asks from
// when on nothing is missing: by the name of their metric, and of all.
func TestGone(t *testing.T) {
	m := newTestMemory(t, 8<<20, 64<<10)
	c := newTestCache(t, Options{Memory: m, Shards: 2})
	write := func(bucket, name string, i int, at int64) {
		t.Helper()
		if err := c.AppendSamples(bucket, []Label{{"__name__", name}, {"i", fmt.Sprint(i)}}, Sample{T: at, V: 1}, Sample{T: at + 1000, V: 2}); err != nil {
			t.Fatal(err)
		}
	}
	is := func(name string) []Matcher { return []Matcher{{Type: MatchEqual, Name: "__name__", Value: name}} }
	want := func(bucket string, ms []Matcher, until int64) {
		t.Helper()
		got, ok := c.GoneUntil(bucket, ms)
		if ok != (until != 0) || ok && got != until {
			t.Errorf("%s %v: gone until %d, %v; want %d", bucket, ms, got, ok, until)
		}
	}
	for i := range 20 {
		write("b", "old", i, int64(5000+i))
	}
	want("b", is("old"), 0)
	c.Age("b")
	c.Age("b")
	write("b", "new", 0, 90_000)
	write("other", "old", 0, 10)
	if err := c.Insert("raw", []byte("key"), 1, make([]byte, 8)); err != nil {
		t.Fatal(err)
	}

	before := c.Stats().Evictions
	c.SetMaxBytes(c.allocated() - 1)
	if n := c.Stats().Evictions - before; n == 0 {
		t.Fatal("nothing was evicted")
	}
	c.SetMaxBytes(c.allocated() * 2 / 3)
	write("b", "old", 3, 80_000) // a series begins anew, and knows of no past
	if n := c.Stats().Evictions - before; n < 5 || n > 19 {
		t.Fatalf("%d of 20 series were evicted", n)
	}
	until, ok := c.GoneUntil("b", is("old"))
	if !ok || until <= 6000 || until > 6000+20 {
		t.Errorf("gone until %d, %v", until, ok)
	}
	set, err := NewMatcher(MatchRegexp, "__name__", "new|old")
	if err != nil {
		t.Fatal(err)
	}
	any, err := NewMatcher(MatchRegexp, "__name__", ".+w")
	if err != nil {
		t.Fatal(err)
	}
	not := Matcher{Type: MatchNotEqual, Name: "__name__", Value: "old"}
	for _, ms := range [][]Matcher{nil, {set}, {any}, {not}, {{Type: MatchEqual, Name: "i", Value: "3"}}} {
		want("b", ms, until)
	}
	want("b", is("new"), 0)
	want("other", nil, 0)
	want("raw", nil, 0)
	want("none", nil, 0)

	// Memory for nothing at all takes everything, whatever its name.
	m.SetBudget(0)
	if n := c.Stats().Series; n != 0 {
		t.Fatalf("%d series are left", n)
	}
	want("b", is("new"), 91_001)
	want("b", nil, 91_001)
	want("other", is("none of the kind"), 1011)
	want("raw", nil, 0)
}

// TestGoneReclaimed drops regions from under series until some have nothing
// left: the walk that removes them says until when they were.
func TestGoneReclaimed(t *testing.T) {
	m := newTestMemory(t, 8<<20, 16<<10)
	c := newTestCache(t, Options{Memory: m, Shards: 1})
	const last = 3_000_000
	for i := range 10 {
		samples := make([]Sample, 3000)
		for k := range samples {
			samples[k] = Sample{T: int64(k+1) * 1000, V: uint64(i*k) * 0x9e3779b97f4a7c15}
		}
		if err := c.AppendSamples("b", []Label{{"__name__", "m"}, {"i", fmt.Sprint(i)}}, samples...); err != nil {
			t.Fatal(err)
		}
	}
	for c.Stats().Series == 10 {
		if _, ok := c.GoneUntil("b", nil); ok {
			t.Fatal("none has gone yet")
		}
		m.SetBudget(m.Used() - int64(m.RegionBytes()))
		c.Maintain()
	}
	if n := m.Stats().OwnersDropped; n != 0 {
		t.Fatalf("a shard was dropped whole, which is another case")
	}
	if until, ok := c.GoneUntil("b", nil); !ok || until != last+1 {
		t.Errorf("gone until %d, %v; want %d", until, ok, last+1)
	}
}
