package route

import "mcached/remotewrite/wire"

// change is a label of a series in protocol 1.0 that is other than the one at
// its place in the series before.
type change struct {
	from, to uint32 // in the body, with tag and length
	place    uint32
}

// labels are those of the series before.
type labels struct {
	spelt  []byte   // as they lie in the body
	ends   []uint32 // where each of them ends, from the beginning of the first
	hashes []sums
	sum    sums // of hashes
	last   int  // the place of the one that changed last
}

// forget is for when there is no series before.
func (l *labels) forget() {
	*l = labels{ends: l.ends[:0], hashes: l.hashes[:0]}
}

// pass is how many labels at the beginning of b are those of the series before,
// and what of these there is behind them. As a rule one label changes from
// series to series, and then the same one again: those before it are compared as
// one, and it is left to the caller.
func (l *labels) pass(b []byte) (n int, before []byte) {
	if k := l.last; 0 < k && k < len(l.ends) {
		head := int(l.ends[k-1])
		if len(b) >= head && string(b[:head]) == string(l.spelt[:head]) {
			return k, l.spelt[head:]
		}
	}
	return l.passMore(0, l.spelt, b)
}

// passMore is pass for the labels from the n-th on: before is what there is of
// the series before from there on, and b begins with the first of its labels.
func (l *labels) passMore(n int, before, b []byte) (int, []byte) {
	at := 0
	if n > 0 {
		at = int(l.ends[n-1])
	}
	rest := b[at:]
	if len(rest) >= len(before) && string(rest[:len(before)]) == string(before) {
		return len(l.ends), nil
	}
	limit := uint32(at + wire.CommonPrefix(before, rest))
	for n < len(l.ends) && l.ends[n] <= limit {
		n++
	}
	if n > 0 {
		before = before[int(l.ends[n-1])-at:]
	}
	return n, before
}

// replace puts a label, which lies from at to end, in the n-th place, and returns
// what there is of before behind the one that was there.
func (l *labels) replace(n, at, end int, hash *sums, before []byte) []byte {
	l.last = n
	if n == len(l.ends) {
		l.ends, l.hashes = append(l.ends, uint32(end)), append(l.hashes, *hash)
		l.sum.add(hash)
		return before
	}
	before = before[int(l.ends[n])-at:]
	if d := uint32(end) - l.ends[n]; d != 0 {
		for k := range l.ends[n:] {
			l.ends[n+k] += d
		}
	}
	l.sum.remove(&l.hashes[n])
	l.sum.add(hash)
	l.hashes[n] = *hash
	return before
}

// keep makes the first n labels, which are spelt so, those of the series before.
func (l *labels) keep(n int, spelt []byte) {
	for k := n; k < len(l.hashes); k++ {
		l.sum.remove(&l.hashes[k])
	}
	l.ends, l.hashes, l.spelt = l.ends[:n], l.hashes[:n], spelt
}
