package index

import (
	"math/bits"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
)

// pairOf makes the pair of a name and a value, both given by numbers.
func pairOf(t *testing.T, x *Index, name, value int) uint32 {
	t.Helper()
	text := strconv.Itoa(name)
	n, err := x.AddName(x.hasher.HashString(text), text)
	if err != nil {
		t.Fatal(err)
	}
	text = strconv.Itoa(value)
	p, err := x.AddPair(n, x.hasher.HashString(text), text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// plainBases chooses bases as PutSet does, by comparing each set with all others.
type plainBases struct {
	of, last []plainSet // the one that was used or stored last is the first
	regret   int
}

type plainSet struct {
	at    Place
	pairs []uint32
}

// choose returns the base that the next set is derived from, and where it differs; or no
// place, if it is stored whole.
func (b *plainBases) choose(x *Index, pairs []uint32) (base Place, differ uint32) {
	n, k, mask := len(pairs), -1, uint32(0)
	least, found := n/2+1, false
	for i, of := range b.of {
		if m, ok := of.differs(x, pairs); ok && uint32(x.sets.Len()/4)-uint32(of.at>>1) <= maxBack && bits.OnesCount32(m) < least {
			k, mask, least = i, m, bits.OnesCount32(m)
			if found = least <= max(n/6, 1); found {
				break
			}
		}
	}
	if k >= 0 && !found {
		near := least
		for _, last := range b.last {
			if m, ok := last.differs(x, pairs); ok && near > n/6 {
				near = min(near, bits.OnesCount32(m))
			}
		}
		b.regret += least - near
	}
	if k < 0 || b.regret >= n/2 {
		b.regret = 0
		return NoPlace, 0
	}
	used := b.of[k]
	b.of = slices.Insert(slices.Delete(b.of, k, k+1), 0, used)
	return used.at, mask
}

// stored takes in the set that was stored.
func (b *plainBases) stored(p Place, pairs []uint32) {
	x := plainSet{p, slices.Clone(pairs)}
	if p&derivedBit == 0 {
		b.of = slices.Insert(b.of, 0, x)
		b.of = b.of[:min(len(b.of), keptBases)]
	}
	b.last = slices.Insert(b.last, 0, x)
	b.last = b.last[:min(len(b.last), lastSets)]
}

// differs says where s has other pairs; it is not ok if these are not of the same names.
func (s *plainSet) differs(x *Index, pairs []uint32) (mask uint32, ok bool) {
	if len(s.pairs) != len(pairs) {
		return 0, false
	}
	for i, p := range pairs {
		if x.NameOf(p) != x.NameOf(s.pairs[i]) {
			return 0, false
		}
		if p != s.pairs[i] {
			mask |= 1 << i
		}
	}
	return mask, true
}

// TestPairSets stores sets as senders make them, some by turns, some unlike all others,
// of all lengths, and reads them in all ways, at once and when there are many more.
func TestPairSets(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10) {
		rng := rand.New(rand.NewPCG(seed, 7))
		x := New(newTestMemory(t, 32<<20), NewHasher())
		var sets [][]uint32
		var places []Place
		derived, wholes := 0, map[Place]int{} // pairs of each
		var plain plainBases
		check := func(i int) {
			want, p, n := sets[i], places[i], len(sets[i])
			if got := x.Set(p, n); !slices.Equal(got, want) {
				t.Fatalf("seed %d: set %d of %d is %d, want %d", seed, i, len(sets), got, want)
			}
			for k := range n {
				if got := x.PairAt(p, k); got != want[k] {
					t.Fatalf("seed %d: pair %d of set %d is %d, want %d", seed, k, i, got, want)
				}
			}
			base, differ := x.Base(p)
			for k, b := range x.Set(base, n) {
				if differ>>k&1 == 0 && b != want[k] || x.NameOf(b) != x.NameOf(want[k]) {
					t.Fatalf("seed %d: pair %d of set %d has the name %d, that of its base %d", seed, k, i, x.NameOf(want[k]), x.NameOf(b))
				}
			}
		}
		var c Cursor
		var before []uint32
		moved := 0
		move := func(i int) {
			got, changed, known := c.Move(&x, places[i], len(sets[i]))
			if !slices.Equal(got, sets[i]) || known != (len(before) == len(got)) {
				t.Fatalf("seed %d: the cursor reads %d at set %d, want %d", seed, got, i, sets[i])
			}
			if known {
				moved++
				if want := difference(before, got); changed != want {
					t.Fatalf("seed %d: from %d to %d, and changed are said to be %b, want %b", seed, before, got, changed, want)
				}
			}
			before = sets[i]
		}
		senders := make([][]uint32, 1+rng.IntN(2*keptBases))
		for range 20_000 {
			s := rng.IntN(len(senders))
			if rng.IntN(100) == 0 || senders[s] == nil { // another target, with other labels
				senders[s] = make([]uint32, 1+rng.IntN(maskBits+4))
				for k := range senders[s] {
					senders[s][k] = pairOf(t, &x, k, 50+rng.IntN(10))
				}
			}
			set := senders[s]
			for range rng.IntN(1 + len(set)/2) {
				k := rng.IntN(len(set))
				set[k] = pairOf(t, &x, k, rng.IntN(50))
				if len(set) > 2 && k == len(set)-1 && rng.IntN(20) == 0 { // under another name
					set[k] = pairOf(t, &x, len(set)+2, rng.IntN(50))
				}
			}
			chosen := len(set) > wholeWords && len(set) <= maskBits
			base, differ := NoPlace, uint32(0)
			if chosen {
				base, differ = plain.choose(&x, set)
			}
			p, err := x.PutSet(set)
			if err != nil {
				t.Fatal(err)
			}
			if chosen {
				plain.stored(p, set)
			}
			if base == NoPlace {
				base = p
			}
			if b, d := x.Base(p); b != base || d != differ {
				t.Fatalf("seed %d: set %d is derived from that at %d but for %b, want %d, %b", seed, len(sets), b, d, base, differ)
			}
			if p&derivedBit == 0 {
				wholes[p] = len(set)
			} else {
				derived++
				if base, _ := x.Base(p); wholes[base] != len(set) {
					t.Fatalf("seed %d: set %d is derived from what is no whole set of as many pairs, at %d", seed, len(sets), base)
				}
			}
			sets, places = append(sets, slices.Clone(set)), append(places, p)
			check(len(sets) - 1)
		}
		for range 10_000 {
			check(rng.IntN(len(sets)))
			move(rng.IntN(len(sets)))
		}
		for i := range sets {
			if rng.IntN(50) == 0 {
				c.Reset()
				before = nil
			}
			move(i)
		}
		for range 50 {
			set := sets[rng.IntN(len(sets))]
			f := newFinder(set[rng.IntN(len(set))])
			for i := range sets {
				if got := f.in(&x, places[i], len(sets[i])); got != slices.Contains(sets[i], f.pair) {
					t.Fatalf("seed %d: that set %d has the pair %d: %v", seed, i, f.pair, got)
				}
			}
		}
		if derived < 1000 || len(wholes) < 1000 || moved < 1000 {
			t.Errorf("seed %d: too little happened: %d sets derived, %d whole, %d read behind one of as many pairs", seed, derived, len(wholes), moved)
		}
	}
}

// TestPairSetsAreSmall has what most series are: those of targets, two of which are
// written by turns, and such that differ in a third of their labels from all others.
func TestPairSetsAreSmall(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name            string
		differ, targets int // pairs that each series has for itself; targets that are written by turns
		each            int // series of a target
		most            int // bytes of a set
	}{{"one", 2, 1, 125, 13}, {"two by turns", 2, 2, 125, 14}, {"eight by turns", 2, keptBases, 125, 16}, {"one for all", 2, 1, 10_000, 13}, {"a third", 4, 1, 125, 26}, {"all", 12, 1, 125, 48}} {
		x := New(newTestMemory(t, 32<<20), NewHasher())
		const sets, pairs = 10_000, 12
		next, far := 1000, Place(0)
		set := make([]uint32, pairs)
		for i := range sets {
			target := i/(c.each*c.targets)*c.targets + i%c.targets
			for k := range set {
				set[k] = pairOf(t, &x, k, 0)
				if k < 3 {
					set[k] = pairOf(t, &x, k, target)
				}
			}
			for k := range c.differ {
				next++
				set[pairs-1-k] = pairOf(t, &x, pairs-1-k, next)
			}
			p, err := x.PutSet(set)
			if err != nil || !slices.Equal(x.Set(p, pairs), set) {
				t.Fatalf("%s: set %d is %d, want %d; %v", c.name, i, x.Set(p, pairs), set, err)
			}
			if p&derivedBit != 0 {
				base, _ := x.Base(p)
				far = max(far, p>>1-base>>1)
			}
		}
		if c.each == sets && far < maxBack*9/10 {
			t.Errorf("%s: the base is at most %d words back", c.name, far)
		}
		if n := x.sets.Len(); n > c.most*sets {
			t.Errorf("%s: a set takes %.1f bytes, want at most %d", c.name, float64(n)/sets, c.most)
		}
	}
}

// TestPutSetWithoutMemory fails and leaves what is there.
func TestPutSetWithoutMemory(t *testing.T) {
	t.Parallel()
	x := New(newTestMemory(t, 256<<10), NewHasher())
	var set []uint32
	for k := range 7 {
		set = append(set, pairOf(t, &x, min(k, 3), k))
	}
	var places []Place
	for i := 0; ; i++ {
		p, err := x.PutSet(append(set[:3:3], set[3+i%4]))
		if err != nil {
			break
		}
		places = append(places, p)
	}
	if len(places) < 10_000 {
		t.Fatalf("full with %d sets", len(places))
	}
	for i, p := range places {
		if got := x.Set(p, 4); !slices.Equal(got, append(set[:3:3], set[3+i%4])) {
			t.Fatalf("set %d is %d", i, got)
		}
	}
}
