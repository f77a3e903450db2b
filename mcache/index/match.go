package index

import "slices"

// clause is one condition that a series must meet: to have (or to lack, if
// not is set) one of the pairs.
type clause struct {
	pairs []uint32
	cost  int // ids in their postings
	not   bool
}

// Picker is what match needs beside its result, used again for every shard.
type Picker struct {
	have, other Set // other: of ids, or of pairs
	clauses     []clause
}

// Match returns the series that have the pair own and that all matchers match;
// dead ones may be among them. ids are below n, and pairs says where those of one are, and
// how many. Each
// matcher becomes a clause over pairs: one that the empty value fails says which pairs
// a series must have, any other says which it must not. The clause with the
// fewest ids begins; the others are intersected with it, their postings passed over
// where it has none, or tested series by series once few are left. The set is
// the Picker's, and good until its next use.
func (x *Index) Match(own uint32, ms []Matcher, n int, pairs func(id uint32) (Place, int), k *Picker) Set {
	x.settle()
	ofOwn := clause{pairs: []uint32{own}, cost: int(x.pairs.At(own).n)}
	clauses := append(k.clauses[:0], ofOwn)
	for i := range ms {
		m := &ms[i]
		c := clause{}
		if m.Decide("") {
			inverse := m.inverse()
			c.not = true
			c.pairs = x.matching(&inverse)
		} else {
			c.pairs = x.matching(m)
			if len(c.pairs) == 0 {
				return Set{}
			}
		}
		for _, p := range c.pairs {
			c.cost += int(x.pairs.At(p).n)
		}
		clauses = append(clauses, c)
	}
	// What must be there first, and of that the rarest.
	slices.SortStableFunc(clauses, func(a, b clause) int {
		if a.not != b.not {
			if a.not {
				return 1
			}
			return -1
		}
		return a.cost - b.cost
	})
	k.clauses = clauses
	k.have = k.have.empty(n)
	have := k.have
	for _, p := range clauses[0].pairs {
		x.mark(p, have, nil)
	}
	for i := range clauses[1:] {
		if c := &clauses[1+i]; c.not || c.pairs[0] != own { // the caller looks at that
			x.narrow(k, c, pairs)
		}
	}
	return have
}

// testCost is about how many ids of a posting are read in the time that
// testing the pairs of one series takes.
const testCost = 10

// narrow takes out what the clause excludes.
func (x *Index) narrow(k *Picker, c *clause, pairs func(id uint32) (Place, int)) {
	have := k.have
	if c.cost > testCost*have.Count() {
		if len(c.pairs) == 1 { // nearly always
			only := newFinder(c.pairs[0])
			have.Each(func(id uint32) {
				if p, n := pairs(id); only.in(x, p, n) == c.not {
					have.Remove(id)
				}
			})
			return
		}
		wanted := k.other.empty(x.pairs.Len())
		k.other = wanted
		for _, p := range c.pairs {
			wanted.Add(p)
		}
		have.Each(func(id uint32) {
			if p, n := pairs(id); slices.ContainsFunc(x.Set(p, n), wanted.Has) == c.not {
				have.Remove(id)
			}
		})
		return
	}
	k.other = k.other.empty(len(have.words) * 64)
	for _, p := range c.pairs {
		x.mark(p, k.other, &have)
	}
	have.retain(k.other, c.not)
}

// matching lists the pairs of m's name whose value m matches.
func (x *Index) matching(m *Matcher) []uint32 {
	name := x.FindName(x.hasher.HashString(m.Name), m.Name)
	if name == None {
		return nil
	}
	var pairs []uint32
	if values, ok := m.Candidates(); ok && m.Positive() {
		for _, v := range values {
			if v == "" {
				continue
			}
			if p := x.FindPair(name, x.hasher.HashString(v), v); p != None && x.pairs.At(p).live > 0 {
				pairs = append(pairs, p)
			}
		}
		slices.Sort(pairs)
		return slices.Compact(pairs)
	}
	if m.Syntax != "" && m.Type >= MatchRegexp {
		return x.remembered(name, m)
	}
	for p := x.names.At(name).firstPair; p != None; p = x.pairs.At(p).nextPair {
		if x.pairs.At(p).live > 0 && x.matchesPair(m, p) {
			pairs = append(pairs, p)
		}
	}
	return pairs
}
