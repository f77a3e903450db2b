package index

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"mcached/kvcache"
)

func newTestMemory(t testing.TB, budget int64) *kvcache.Memory {
	t.Helper()
	m, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: budget, RegionBytes: 64 << 10, ReserveBytes: 2 * budget})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// world is an Index and what should be in it.
type world struct {
	m      *kvcache.Memory
	x      Index
	places map[uint32]Place // by id
	sets   map[uint32]map[string]string
}

func newWorld(t testing.TB, budget int64) *world {
	m := newTestMemory(t, budget)
	return &world{m: m, x: New(m, NewHasher()), places: map[uint32]Place{}, sets: map[uint32]map[string]string{}}
}

// pairs is the pairs of a series, that which all have first.
func (w *world) pairs(id uint32) []uint32 { return w.x.Set(w.places[id], len(w.sets[id])+1) }

// intern makes the pairs of labels.
func (w *world) intern(labels map[string]string) (pairs []uint32, err error) {
	add := func(name, value string) {
		n, e := w.x.AddName(w.x.hasher.HashString(name), name)
		if e == nil {
			var p uint32
			if p, e = w.x.AddPair(n, w.x.hasher.HashString(value), value); e == nil {
				pairs = append(pairs, p)
			}
		}
		err = errors.Join(err, e)
	}
	add(BucketName, "bucket")
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		add(name, labels[name])
	}
	return pairs, err
}

func (w *world) add(id uint32, labels map[string]string) error {
	pairs, err := w.intern(labels)
	if err != nil {
		return err
	}
	place, err := w.x.PutSet(pairs)
	if err == nil {
		err = w.x.Post(id, pairs)
	}
	if err == nil {
		w.places[id], w.sets[id] = place, labels
	}
	return err
}

func (w *world) remove(id uint32) {
	w.x.Unpost(w.pairs(id))
	delete(w.sets, id)
}

// match is the ids that are live.
func (w *world) match(ms []Matcher, n int, k *Picker) (ids []uint32) {
	name := w.x.FindName(w.x.hasher.HashString(BucketName), BucketName)
	if name == None {
		return nil // nothing was added yet
	}
	own := w.x.FindPair(name, w.x.hasher.HashString("bucket"), "bucket")
	if own == None {
		return nil
	}
	w.x.Match(own, ms, n, func(id uint32) (Place, int) {
		if labels, live := w.sets[id]; live {
			return w.places[id], len(labels) + 1
		}
		return 0, 0
	}, k).Each(func(id uint32) {
		if _, live := w.sets[id]; live {
			ids = append(ids, id)
		}
	})
	return ids
}

// TestIndexModel adds and removes series, asks with all kinds of matchers, and
// compares with a walk over maps.
func TestIndexModel(t *testing.T) {
	seeds := uint64(3)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		rnd := rand.New(rand.NewPCG(seed, 0))
		w := newWorld(t, 64<<20)
		next, hits, removed, copied := uint32(0), 0, 0, 0
		var k Picker
		values := []string{"", "a", "ab", "abc", "b", "x.y"}
		expressions := []string{"", "a|b", "a.*", ".*b.*", "a.+|x.*", "[^a].*"}
		for op := range 6000 {
			switch x := rnd.IntN(10); {
			case x < 6:
				labels := map[string]string{"i": fmt.Sprint(rnd.IntN(200))}
				for _, name := range []string{"n", "m", "o"} {
					if v := values[rnd.IntN(len(values))]; v != "" {
						labels[name] = v
					}
				}
				if err := w.add(next, labels); err != nil {
					t.Fatal(err)
				}
				next++
			case x < 9 && len(w.sets) > 0:
				for id := range w.sets { // any
					w.remove(id)
					removed++
					break
				}
			case op%50 == 0:
				w.copy(t)
				copied++
			}
			if op%7 != 0 {
				continue
			}
			var ms []Matcher
			for range 1 + rnd.IntN(3) {
				kind, value := MatchType(rnd.IntN(4)), values[rnd.IntN(len(values))]
				if kind >= MatchRegexp {
					value = expressions[rnd.IntN(len(expressions))]
				}
				ms = append(ms, mustMatcher(t, kind, []string{"n", "m", "o", "none"}[rnd.IntN(4)], value))
			}
			var want []uint32
			for id, labels := range w.sets {
				if !slices.ContainsFunc(ms, func(m Matcher) bool { return !m.Decide(labels[m.Name]) }) {
					want = append(want, id)
				}
			}
			slices.Sort(want)
			got := w.match(ms, int(next), &k)
			if !slices.Equal(got, want) {
				t.Fatalf("seed %d op %d: %v: %d, want %d", seed, op, ms, got, want)
			}
			hits += len(got)
		}
		w.check(t)
		if hits < 1000 || removed < 500 || copied == 0 || w.x.Answers() == 0 {
			t.Errorf("seed %d: too little happened: %d hits, %d removed, %d times copied, %d answers", seed, hits, removed, copied, w.x.Answers())
		}
		w.x.Free()
		if w.x.Bytes() != 0 {
			t.Errorf("seed %d: %d bytes after Free", seed, w.x.Bytes())
		}
	}
}

// copy writes the index anew, without what is dead.
func (w *world) copy(t testing.TB) {
	fresh := *w
	fresh.x = New(w.m, w.x.hasher)
	fresh.places = map[uint32]Place{}
	for id, labels := range w.sets {
		var pairs []uint32
		for _, p := range w.pairs(id) {
			c, err := fresh.x.Copy(&w.x, p)
			if err != nil {
				t.Fatal(err)
			}
			pairs = append(pairs, c)
		}
		place, err := fresh.x.PutSet(pairs)
		if err == nil {
			err = fresh.x.Post(id, pairs)
		}
		if err != nil || len(pairs) != len(labels)+1 {
			t.Fatal(len(pairs), err)
		}
		fresh.places[id] = place
	}
	w.x.Free()
	*w = fresh
}

// check compares pairs, names and their counts with the maps.
func (w *world) check(t testing.TB) {
	t.Helper()
	live, texts := map[string]int{}, map[string]int{}
	for id, labels := range w.sets {
		got := map[string]string{}
		for _, p := range w.pairs(id)[1:] {
			got[string(w.x.Name(p))] = string(w.x.Value(p))
		}
		if !maps.Equal(got, labels) {
			t.Fatalf("series %d has %v, want %v", id, got, labels)
		}
		for name, value := range labels {
			live[name+"="+value]++
		}
	}
	for p := range uint32(w.x.Pairs()) {
		text := string(w.x.Name(p)) + "=" + string(w.x.Value(p))
		if texts[text]++; texts[text] > 1 {
			t.Errorf("%q is there twice", text)
		}
		if w.x.NameOf(p) >= uint32(w.x.Names()) || string(w.x.NameText(w.x.NameOf(p))) != string(w.x.Name(p)) {
			t.Errorf("pair %d has the name %d", p, w.x.NameOf(p))
		}
		if text != "=bucket" && w.x.Live(p) != live[text] {
			t.Errorf("%d series have %q, want %d", w.x.Live(p), text, live[text])
		}
	}
	for n := range uint32(w.x.Names()) {
		count := 0
		for p := range w.x.EachOf(n) {
			if count++; w.x.NameOf(p) != n {
				t.Errorf("pair %d is of the name %d, not %d", p, w.x.NameOf(p), n)
			}
		}
		if count != w.x.PairsOf(n) {
			t.Errorf("name %d has %d pairs, says %d", n, count, w.x.PairsOf(n))
		}
	}
}

// What fails for want of memory leaves what is there as it is.
func TestIndexWithoutMemory(t *testing.T) {
	w := newWorld(t, 8<<20)
	var err error
	for id := uint32(0); err == nil; id++ {
		err = w.add(id, map[string]string{"n": fmt.Sprint("value-", id), "m": fmt.Sprint(id % 10)})
	}
	if !errors.Is(err, kvcache.ErrNoMemory) || len(w.sets) < 1000 {
		t.Fatalf("full with %d series: %v", len(w.sets), err)
	}
	w.check(t)
	if err := w.x.Reserve(Sizes{Text: 16 << 20}); !errors.Is(err, kvcache.ErrNoMemory) {
		t.Errorf("reserved beyond the budget: %v", err)
	}
}

// TestAnswersAreBounded asks with more expressions, and such with more values,
// than an index remembers.
func TestAnswersAreBounded(t *testing.T) {
	w := newWorld(t, 64<<20)
	const n = 3000
	for i := range uint32(n) {
		if err := w.add(i, map[string]string{"i": fmt.Sprintf("%04d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	as := &w.x.answers
	var k Picker
	most, times := 0, 0
	for i := range 150 {
		value := fmt.Sprintf("%d.+|x%d", i%2, i)
		if i%5 == 4 {
			value = fmt.Sprintf(".+%d", i)
		}
		want := 0
		for j := range n {
			if text := fmt.Sprintf("%04d", j); i%5 < 4 && text[0] == '0'+byte(i%2) || i%5 == 4 && len(text) > len(fmt.Sprint(i)) && strings.HasSuffix(text, fmt.Sprint(i)) {
				want++
			}
		}
		if ids := w.match([]Matcher{mustMatcher(t, MatchRegexp, "i", value)}, n, &k); len(ids) != want {
			t.Fatalf("%s: %d series, want %d", value, len(ids), want)
		}
		kept := 0
		for _, a := range as.of {
			kept += len(a.pairs)
		}
		if kept != as.kept || kept > maxAnswerPairs || len(as.of) > maxAnswers {
			t.Fatalf("%d pairs in %d answers, counted as %d", kept, len(as.of), as.kept)
		}
		if len(as.of) < most {
			times++
		}
		most = len(as.of)
	}
	if times < 2 {
		t.Errorf("forgotten %d times: that shows too little", times)
	}
}
