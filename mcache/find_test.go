package mcache

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestGuess holds that series which come in the order in which they were made
// are found without the lookup, or near it in the order in which they came before,
// that those which do not are found all the same, and that guessing them is given up.
func TestGuess(t *testing.T) {
	const series = 400
	c := newTestCache(t, Options{Shards: 1})
	fps := fill(t, c, series)
	bk, s := c.findBucket("default"), c.shards[0]
	var places []batchPlace
	for i, f := range fps {
		places = append(places, batchPlace{fp: f.in(bk), series: int32(i)})
	}
	check := func(what string, places []batchPlace, least, most int) {
		t.Helper()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.findAllLocked(places)
		for k := range places {
			if want := s.findLocked(places[k].fp); s.found[k] != want {
				t.Fatalf("%s: place %d is series %d, not %d", what, k, s.found[k], want)
			}
		}
		if n := s.guessLocked(places); n < least || n > most {
			t.Errorf("%s: %d of %d guessed, want %d to %d", what, n, len(places), least, most)
		}
	}
	check("in order", places, series, series)
	check("the rest of a batch", places[series/2:], series/2, series/2)
	gaps := slices.Clone(places)
	for k := len(gaps) - 1; k > 0; k -= 20 {
		gaps = slices.Delete(gaps, k, k+1)
	}
	check("some are not there", gaps, len(gaps), len(gaps))
	var third []batchPlace // of one of three senders that had theirs made at the same time
	for k := 0; k < series; k += 3 {
		third = append(third, places[k])
	}
	check("every third, once written", third, len(third), len(third))
	check("every third", third, len(third), len(third))
	check("in order, once written", places, series, series)
	strangers := slices.Clone(places)
	for k := 0; k < series; k += 30 {
		strangers[k].fp = c.Fingerprint(name("stranger")).in(bk)
	}
	check("some are unknown", strangers, series, series)
	rand.New(rand.NewPCG(3, 3)).Shuffle(series, func(i, k int) { places[i], places[k] = places[k], places[i] })
	check("shuffled", places, 1, 20)
	slices.Reverse(places)
	check("shuffled and reversed", places, 1, 20)
}
