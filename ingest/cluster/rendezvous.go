package cluster

import (
	"math/bits"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Highest random weight (Thaler and Ravishankar, 1998): each member has a
// pseudo-random number for each slot, and the members with the best numbers own
// it. Whoever goes takes its own numbers along and nobody else's, so only its
// slots change hands.
//
// Instead of a weight that is to be high there is a cost that is to be low: an
// exponentially distributed variable, whose rate is the member's weight. The
// least of several such is each one's in proportion to its rate. All of it is
// integers: a logarithm that differs in its last bit between two kinds of
// processors would give a slot two owners.

// domain keeps apart what is drawn for series and for keys.
type domain uint64

const (
	ofSlot domain = 0x9e3779b97f4a7c15
	ofKey  domain = 0x165667b19e3779f9
)

// mix is the finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// contestant is a member as far as the draw is concerned.
type contestant struct {
	seed   uint64
	rate   int // its weight
	member uint16
	zone   uint16
}

// candidate is a contestant with its cost for one thing.
type candidate struct {
	cost   uint64
	member uint16
	zone   uint16
}

func (a candidate) before(b candidate) bool {
	return a.cost < b.cost || a.cost == b.cost && a.member < b.member
}

func compareCandidates(a, b candidate) int {
	switch {
	case a == b:
		return 0
	case a.before(b):
		return -1
	}
	return 1
}

func seedOf(name string) uint64 { return xxhash.Sum64String(name) }

// cost of giving thing number n of a domain to the contestant. Costs can be
// compared within one draw.
func (d *draw) cost(c *contestant, in domain, n int) uint64 {
	v := mix(c.seed ^ mix(uint64(n)+uint64(in)))
	if d.low == d.high {
		return v // as good as its logarithm
	}
	rate := c.rate - d.low
	e := negLog(v) >> (rate / 2)
	if rate%2 != 0 {
		e, _ = bits.Mul64(e, 0xb504f333f9de6484) // 1/√2
	}
	return e
}

// negLog is -ln(1-v/2⁶⁴) in units of 2⁻⁵⁶, within 10⁻⁶ of itself: a number that
// is exponentially distributed if v is uniform.
func negLog(v uint64) uint64 {
	const ln2 = 0xb17217f7d1cf79 // in units of 2⁻⁵⁶
	// 1-v/2⁶⁴ = m/2⁶⁴·2⁻ᵏ with m in its upper half.
	u := -v // 0 means 1
	if u == 0 {
		return 0
	}
	k := bits.LeadingZeros64(u)
	d := -(u << k) // 1-m, at most a half
	// -ln(1-d) = 2·artanh(y) = 2(y + y³/3 + y⁵/5 + …) with y = d/(2-d), at most a third.
	y, _ := bits.Div64(d>>2, d<<62, 1<<63-d>>2) // both in quarters, so that they fit
	y2, _ := bits.Mul64(y, y)
	sum, term := y, y
	for n := uint64(3); n <= 13; n += 2 {
		term, _ = bits.Mul64(term, y2)
		sum += term / n
	}
	return uint64(k)*ln2 + sum>>7
}

// least puts the k best of the candidates, by cost alone, into dst in order.
func least(dst []candidate, from []candidate, k int) []candidate {
	dst = dst[:0]
	for _, c := range from {
		at := len(dst)
		if at == k {
			if !c.before(dst[k-1]) {
				continue
			}
			at--
		} else {
			dst = append(dst, c)
		}
		for at > 0 && c.before(dst[at-1]) {
			dst[at] = dst[at-1]
			at--
		}
		dst[at] = c
	}
	return dst
}

// draw is who takes part, and the working memory of one table's making.
type draw struct {
	all       []contestant
	gone      []bool // by member: who takes no part after all; nil for none
	low, high int    // the least rate of those who do, and the greatest
	zones     int    // of all
	costs     []candidate
	byZone    []candidate
	firsts    []candidate
	best      []candidate
}

func newDraw(members []Member, take func(member int) bool) *draw {
	d := &draw{}
	zones := map[string]uint16{}
	for i := range members {
		m := &members[i]
		if !take(i) {
			continue
		}
		zone, ok := zones[m.Zone]
		if !ok {
			zone = uint16(len(zones))
			zones[m.Zone] = zone
		}
		d.all = append(d.all, contestant{seed: seedOf(m.Name), rate: m.Weight, member: uint16(i), zone: zone})
	}
	d.zones = len(zones)
	d.without(nil)
	return d
}

// without leaves out members that are gone.
func (d *draw) without(gone []bool) {
	d.gone = gone
	d.low, d.high = maxWeight, 0
	for i := range d.all {
		if c := &d.all[i]; gone == nil || !gone[c.member] {
			d.low, d.high = min(d.low, c.rate), max(d.high, c.rate)
		}
	}
}

// of are the candidates for a thing, in no order; valid until the next call.
func (d *draw) of(in domain, n int) []candidate {
	d.costs = d.appendOf(d.costs[:0], in, n)
	return d.costs
}

func (d *draw) appendOf(dst []candidate, in domain, n int) []candidate {
	for i := range d.all {
		if c := &d.all[i]; d.gone == nil || !d.gone[c.member] {
			dst = append(dst, candidate{d.cost(c, in, n), c.member, c.zone})
		}
	}
	return dst
}

// winners picks k of the candidates: the best of each zone first, and when
// every zone has one, the best of the rest. Valid until the next call.
func (d *draw) winners(from []candidate, k int) []candidate {
	k = min(k, len(from))
	if d.zones <= 1 || k <= 1 {
		d.best = least(d.best, from, k)
		return d.best
	}
	const none = ^uint64(0)
	d.byZone = slices.Grow(d.byZone[:0], d.zones)[:d.zones]
	for i := range d.byZone {
		d.byZone[i] = candidate{cost: none, member: 1<<16 - 1}
	}
	for _, c := range from {
		if c.before(d.byZone[c.zone]) {
			d.byZone[c.zone] = c
		}
	}
	d.firsts = d.firsts[:0]
	for _, c := range d.byZone {
		if c.member != 1<<16-1 {
			d.firsts = append(d.firsts, c)
		}
	}
	d.best = least(d.best, d.firsts, k)
	if len(d.best) == k {
		return d.best
	}
	taken := len(d.best)
	rest := least(nil, from, k)
	for _, c := range rest {
		if len(d.best) < k && !slices.Contains(d.best[:taken], c) {
			d.best = append(d.best, c)
		}
	}
	return d.best
}
