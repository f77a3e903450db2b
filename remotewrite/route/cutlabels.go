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
	varied varied
}

// varied is the label that changed last, of which mostly the next value follows. It is
// there if the label is as any sender writes it: with a name and a value, both short.
type varied struct {
	there  bool
	place  int
	name   nameHash
	base   sums // of all labels but this one
	begin  int  // of the label, with tag and length, from the beginning of the first
	value  int  // of its value
	behind int  // it
}

// vary notes the label that has changed, whose name was hashed last.
func (l *labels) vary(name *nameHash) {
	v := &l.varied
	*v = varied{place: l.last, behind: int(l.ends[l.last])}
	if l.last > 0 {
		v.begin = int(l.ends[l.last-1])
	}
	b := l.spelt[v.begin:v.behind] // a tag and a length are before name and value, too
	if v.value = v.begin + 2 + 2 + len(name.text) + 2; !name.set || v.value >= v.behind || len(b) >= 2+0x80 || int(b[1]) != len(b)-2 ||
		b[2] != wire.TagLabelName || int(b[3]) != len(name.text) || string(b[4:4+len(name.text)]) != name.text ||
		b[4+len(name.text)] != wire.TagLabelValue || int(b[4+len(name.text)+1]) != v.behind-v.value {
		return
	}
	v.there, v.name, v.base = true, *name, l.sum
	v.base.remove(&l.hashes[l.last])
}

// varyRefs is vary for a list of references: that to the value of the label lies at value.
func (l *labels) varyRefs(name *nameHash, value int) {
	v := &l.varied
	*v = varied{there: name.set, place: l.last, name: *name, base: l.sum, value: value, behind: int(l.ends[l.last])}
	v.base.remove(&l.hashes[l.last])
}

// anotherRef is, of a list of references that is the one before with another value of the
// label that varies, the reference to that value, and where it ends: 0 for any other list.
func (l *labels) anotherRef(b []byte) (ref uint32, behind int) {
	v := &l.varied
	if !v.there {
		return 0, 0
	}
	tail := l.spelt[v.behind:]
	behind = len(b) - len(tail)
	switch behind - v.value {
	case 1:
		ref = uint32(b[v.value])
	case 2:
		if ref = uint32(b[v.value])&0x7f | uint32(b[v.value+1])<<7; b[v.value] < 0x80 {
			return 0, 0
		}
	default:
		return 0, 0
	}
	if b[behind-1] >= 0x80 || string(b[:v.value]) != string(l.spelt[:v.value]) || string(b[behind:]) != string(tail) {
		return 0, 0
	}
	return ref, behind
}

// take makes labels that are those of the series before, but for the value of the one that
// varies, which has such a hash, the series before.
func (l *labels) take(spelt []byte, behind int, hash *sums) {
	v := &l.varied
	l.sum = v.base
	l.sum.add(hash)
	l.hashes[v.place] = *hash
	if behind != v.behind {
		d := uint32(behind - v.behind)
		v.behind = behind
		for n := range l.ends[v.place:] {
			l.ends[v.place+n] += d
		}
	}
	l.spelt = spelt
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
