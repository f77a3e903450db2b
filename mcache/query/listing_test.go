package query

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"mcached/mcache"
)

// TestListingsAreTheAnswers asks for series with and without listings, while series
// come and texts are dropped, and compares the answers.
func TestListingsAreTheAnswers(t *testing.T) {
	c := newCache(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	series := 0
	write := func() {
		from := t0 + rnd.Int64N(100)*60_000
		pairs := []string{"__name__", "m", "i", fmt.Sprint(series), "a", fmt.Sprint(rnd.IntN(5)), "b", fmt.Sprintf("%c\"\n<é", 'a'+rnd.IntN(4))}
		series++
		if err := c.AppendSamples("default", pairsToLabels(pairs), mcache.Sample{T: from}, mcache.Sample{T: from + 600_000}); err != nil {
			t.Fatal(err)
		}
	}
	for range 200 {
		write()
	}
	kept := NewLabelCache(8 * 40_000) // of listings 20 kB a generation
	with, without := NewAPIOf(FromCache(c, kept), testOptions()), NewAPIOf(FromCache(c, nil), testOptions())
	matches := []string{"m", `{a="1"}`, `{a=~"1|2",b=~"a.*"}`, `{i=~"1.*"}`, `{b!~"a.*",a="0"}`, "gone"}
	again, dropped := 0, 0
	for range 600 {
		if rnd.IntN(10) == 0 {
			write()
		}
		params := []string{"match[]", matches[rnd.IntN(len(matches))]}
		if rnd.IntN(3) > 0 {
			from := t0 + int64(rnd.IntN(4))*1_500_000
			params = append(params, "start", seconds(from), "end", seconds(from+int64(rnd.IntN(2))*3_000_000))
		}
		if rnd.IntN(5) == 0 {
			params = append(params, "limit", fmt.Sprint(1+rnd.IntN(20)))
		}
		if rnd.IntN(5) == 0 {
			params = append(params, "match[]", matches[rnd.IntN(len(matches))])
		}
		young, bytes := len(kept.listings.young), kept.listings.youngBytes
		got, want := get(t, with, "series", params...), get(t, without, "series", params...)
		if got.Code != want.Code || got.Body.String() != want.Body.String() {
			t.Fatalf("%q: got %d %s\nwant %d %s", params, got.Code, got.Body, want.Code, want.Body)
		}
		switch {
		case kept.listings.youngBytes < bytes:
			dropped++
		case len(kept.listings.young) == young:
			again++
		}
	}
	if again < 100 || dropped < 10 {
		t.Errorf("%d answers were those of before, %d times texts were dropped: that shows too little", again, dropped)
	}
}

// TestListingsBound: what is kept is no more than it may be, nor the text of other series.
func TestListingsBound(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	l := newListings(10_000)
	some := func() []mcache.SeriesID {
		ids := make([]mcache.SeriesID, rnd.IntN(4))
		for i := range ids {
			ids[i] = mcache.SeriesID(rnd.IntN(8))
		}
		return ids
	}
	found := 0
	for range 20_000 {
		ids := some()
		want := fmt.Sprint(ids)
		if text, ok := l.of(ids); ok {
			found++
			if string(text) != want {
				t.Fatalf("of %s there is the text %s", want, text)
			}
		} else {
			l.keep(ids, []byte(want))
		}
		for _, generation := range []map[uint64]listing{l.young, l.old} {
			bytes := 0
			for _, x := range generation {
				bytes += 8*cap(x.ids) + cap(x.text) + listingEntryBytes
			}
			if bytes > l.maxBytes {
				t.Fatalf("%d bytes are kept, of at most %d", bytes, l.maxBytes)
			}
		}
	}
	if found < 1000 {
		t.Errorf("%d were found", found)
	}
	l.keep([]mcache.SeriesID{99}, make([]byte, l.maxBytes))
	if _, ok := l.of([]mcache.SeriesID{99}); ok {
		t.Error("a text of more than all is kept")
	}
	ids := []mcache.SeriesID{1, 2, 3}
	l.young[hashOfIDs(ids)] = listing{slices.Clone(ids[:2]), []byte("others")}
	if _, ok := l.of(ids); ok {
		t.Error("series of the same hash have the same text")
	}
}
