package query

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	jsoniter "github.com/json-iterator/go"
	"github.com/prometheus/prometheus/model/labels"

	"mcached/mcache"
)

// TestLabelCache fills a cache well beyond its bound while one set is in use
// all the time: the bound holds, what is found is right, and that set stays.
func TestLabelCache(t *testing.T) {
	const maxBytes = 1 << 20
	c := NewLabelCache(maxBytes)
	set := func(id int) labels.Labels {
		return labels.FromStrings("__name__", "m", "id", fmt.Sprint(id), "padding", strings.Repeat("x", id%200))
	}
	const series = 20_000
	favourite := mcache.SeriesID(7)
	found, missed := 0, 0
	for i := range series {
		id := mcache.SeriesID(i)
		c.put(id, set(i))
		if i >= 7 {
			if _, ok := c.get(favourite); !ok {
				t.Fatalf("the set that is in use has gone after %d others", i)
			}
		}
		back := max(i-i%1000, 0)
		if ls, ok := c.get(mcache.SeriesID(back)); ok {
			found++
			if !labels.Equal(ls, set(back)) {
				t.Fatalf("%d has the labels %s", back, ls)
			}
		} else {
			missed++
		}
	}
	bytes, sets := 0, 0
	for i := range c.shards {
		s := &c.shards[i]
		for _, generation := range []map[mcache.SeriesID]labels.Labels{s.young, s.old} {
			for _, ls := range generation {
				bytes += int(ls.ByteSize()) + labelEntryBytes
				sets++
			}
		}
	}
	if bytes > maxBytes || bytes < maxBytes/4 {
		t.Errorf("%d bytes are kept, of at most %d", bytes, maxBytes)
	}
	for i := range series {
		if _, ok := c.get(mcache.SeriesID(i)); !ok {
			missed++
		}
	}
	if found == 0 || missed < series/2 || sets >= series {
		t.Errorf("%d found, %d missed, %d kept: nothing was dropped, or all", found, missed, sets)
	}
	c.put(1, labels.FromStrings("too", strings.Repeat("long", maxBytes)))
	if ls, ok := c.get(1); ok && ls.Has("too") {
		t.Error("a set larger than the cache was kept")
	}
}

// TestLabelText writes strings as the encoder of Prometheus' labels does, and
// others as that of all other strings, whatever is in them and wherever it stands.
func TestLabelText(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	odd := []string{`"`, `\`, "\n", "\r", "\t", "\x00", "\x1f", "\x7f", "\x80", "\xff", "é", "\u2028", "<", "&", " ", "!", "#", "[", "]"}
	for range 20_000 {
		s := ""
		for range rnd.IntN(40) {
			if rnd.IntN(10) == 0 {
				s += odd[rnd.IntN(len(odd))]
			} else {
				s += string(rune('a' + rnd.IntN(26)))
			}
		}
		w := jsonWriter{}
		w.label(s)
		if want := reference(func(stream *jsoniter.Stream) { stream.WriteString(s) }); string(w.buf) != want {
			t.Fatalf("%q: got %s, want %s", s, w.buf, want)
		}
		w.buf = w.buf[:0]
		w.escaped(s)
		if want := reference(func(stream *jsoniter.Stream) { stream.WriteVal(s) }); string(w.buf) != want {
			t.Fatalf("%q: got %s, want %s", s, w.buf, want)
		}
	}
}

// A query over more series than the cache holds leaves in it what is there.
func TestLabelCacheOfManySeries(t *testing.T) {
	m := newCache(t)
	for i := range 300 {
		fill(t, m, "default", 15_000, ramp(2, 0, 1), "__name__", "m", "i", fmt.Sprint(i))
	}
	kept := NewLabelCache(100 * usualLabelBytes)
	source := FromCache(m, kept)
	read := func(matcher *labels.Matcher) (sets int) {
		t.Helper()
		found, err := source.Select(t.Context(), Selection{Bucket: "default", Matchers: []*labels.Matcher{matcher}, From: t0, To: t0 + 60_000})
		if err != nil {
			t.Fatal(err)
		}
		for i := range found.Len() {
			if ls, ok := found.Labels(i); !ok || ls.Get("__name__") != "m" {
				t.Fatalf("series %d has the labels %s", i, ls)
			}
		}
		for i := range kept.shards {
			sets += len(kept.shards[i].young) + len(kept.shards[i].old)
		}
		return sets
	}
	few := labels.MustNewMatcher(labels.MatchRegexp, "i", "1.")
	if n := read(few); n != 10 {
		t.Errorf("of 10 series %d are kept", n)
	}
	if n := read(labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")); n != 10 {
		t.Errorf("after a query over 300, %d are kept", n)
	}
}
