package mcache

import (
	"math/bits"
	"slices"
	"unsafe"
)

// Labels of the series of a batch. Most are, byte for byte, those of the series before, or
// of one not long before. So each is kept once, under a number, and a series is the numbers
// of its labels: what goes by the label (to hash it, to find its pair in a shard) is done
// once for all series of the batch that have it.

// knownLabel is a label of the batch.
type knownLabel struct {
	Label
	at   int    // in the payload
	name uint32 // the first label that was seen to have that name
}

// knownLabels are the labels of a batch. Some may be there twice.
type knownLabels struct {
	of    []knownLabel
	sizes []int // of each in the payload, both lengths included
	// recent are numbers of labels by a hash of their text. Of an earlier batch, too: what
	// is found has to be compared.
	recent [recentLabels]uint32
}

// recentLabels is enough for the values that one label has in the series of a target, as the
// bounds of histograms, and those of some others.
const recentLabels = 256

const noLabel = 1<<32 - 1

// readLabels reads the labels of a series. It reports whether checkLabels would leave
// them as they are. Labels that are those of the series before are not read, but compared in
// runs, and what holds for their order there holds here, too.
func (l *savedReader) readLabels(x *savedSeries) (sorted bool) {
	var before span32 // labels of the series before that come next, if it was in order
	var at, end int   // of these, in the payload
	if n := len(l.series); n > 0 && l.sorted {
		y := &l.series[n-1]
		before, at, end = y.labels, int(y.text.from), int(y.text.to)
	}
	inherits := l.sorted // in order as the series before: by now the names are its
	sorted = true
	n := l.uvarint()
	if l.bad = l.bad || n > MaxLabels; l.bad {
		l.fail()
		n = 0
	}
	x.labels.from, x.text.from = int32(len(l.labels)), int32(l.at)
	for left := int(n); left > 0 && !l.bad; left-- {
		if before.from < before.to {
			first, from := len(l.labels), l.at
			run := l.repeat(l.labels[before.from:before.to], left, l.payload[at:min(end+8, len(l.payload))])
			if run > 0 {
				sorted = sorted && (inherits || l.mayFollow(x, first))
				inherits = true
				before.from, at = before.from+int32(run), at+l.at-from
				if left -= run; left == 0 {
					break
				}
			}
		}
		like := uint32(noLabel) // at this place in the series before
		if before.from < before.to {
			like = l.labels[before.from]
			before.from, at = before.from+1, at+l.known.sizes[like]
		}
		number := l.readLabel(like)
		l.labels = append(l.labels, number)
		y := &l.known.of[number]
		same := like != noLabel && y.name == l.known.of[like].name
		sorted = sorted && y.Value != "" && (inherits && same || l.mayFollow(x, len(l.labels)-1))
		inherits = same
	}
	x.labels.to, x.text.to = int32(len(l.labels)), int32(l.at)
	l.sorted = sorted && x.labels.to > x.labels.from
	return l.sorted
}

// repeat reads as many labels as come next in the payload as they are in old, of those given,
// and at most `most`. It returns how many. Behind the last label old has eight bytes more, if
// there are any, so that all of that one is compared.
func (l *savedReader) repeat(labels []uint32, most int, old []byte) (run int) {
	same, sizes := commonPrefix(l.payload[l.at:], old), l.known.sizes
	now, left := l.labels, same
	for _, k := range labels[:min(most, len(labels))] {
		if sizes[k] > left {
			break
		}
		left -= sizes[k]
		now = append(now, k)
	}
	run = len(now) - len(l.labels)
	l.labels, l.at = now, l.at+same-left
	return run
}

// commonPrefix is how many bytes of a and b are the same from their beginning, but
// for the last of a or b, fewer than eight, which it does not look at.
func commonPrefix(a, b []byte) (n int) {
	end := min(len(a), len(b)) - 8
	p, q := unsafe.Pointer(unsafe.SliceData(a)), unsafe.Pointer(unsafe.SliceData(b))
	// All within both, which the compiler does not see and would check each time.
	for ; n <= end; n += 8 {
		if *(*uint64)(unsafe.Add(p, n)) != *(*uint64)(unsafe.Add(q, n)) {
			return n + bits.TrailingZeros64(le.Uint64(a[n:])^le.Uint64(b[n:]))/8
		}
	}
	return n
}

// readLabel reads a label and returns its number. like is one that may have the same name,
// or noLabel.
func (l *savedReader) readLabel(like uint32) uint32 {
	at := l.at
	name, value, ok := twoTexts(l.payload[at:])
	if ok {
		l.at += 2 + len(name) + len(value)
	} else {
		name, value = l.text(), l.text()
	}
	text := l.payload[at:l.at]
	recent := &l.known.recent[labelSlot(text)]
	if k := *recent; int(k) < len(l.known.of) && string(l.payload[l.known.of[k].at:][:l.known.sizes[k]]) == string(text) {
		return k
	}
	y := knownLabel{Label{viewOf(name), viewOf(value)}, at, uint32(len(l.known.of))}
	*recent = y.name
	if like != noLabel && l.known.of[like].Name == y.Name {
		y.name = l.known.of[like].name
	}
	l.known.of, l.known.sizes = append(l.known.of, y), append(l.known.sizes, len(text))
	return *recent
}

// twoTexts are two texts that b begins with, if their lengths are a byte each, as nearly all
// are.
func twoTexts(b []byte) (name, value []byte, ok bool) {
	if len(b) == 0 || b[0] >= 0x80 || int(b[0])+2 > len(b) {
		return nil, nil, false
	}
	name, b = b[1:b[0]+1], b[b[0]+1:]
	if b[0] >= 0x80 || int(b[0])+1 > len(b) {
		return nil, nil, false
	}
	return name, b[1 : b[0]+1], true
}

// labelSlot is the place in recent of a label: by its last 16 bytes, where values differ.
func labelSlot(text []byte) uint64 {
	var a, b uint64
	if n := len(text); n >= 16 {
		a, b = le.Uint64(text[n-8:]), le.Uint64(text[n-16:])
	} else {
		for _, c := range text {
			a = a<<8 | a>>56 ^ uint64(c)
		}
	}
	return (a ^ bits.RotateLeft64(b, 29)) * 0x9e3779b97f4a7c15 >> 56 % recentLabels
}

// mayFollow reports whether the label at place k in labels may stand behind those that x has
// before it.
func (l *savedReader) mayFollow(x *savedSeries, k int) bool {
	name := l.known.of[l.labels[k]].Name
	if name == bucketName || name == rawName {
		return false
	}
	return k == int(x.labels.from) || l.known.of[l.labels[k-1]].Name < name
}

// sortLabels does for the series read last what checkLabels asks for.
func (l *savedReader) sortLabels(x *savedSeries) error {
	if _, err := checkLabels(l.appendLabels(nil, x)); err != nil {
		return err
	}
	labels := slices.DeleteFunc(l.numbersOf(x), func(k uint32) bool { return l.known.of[k].Value == "" })
	slices.SortFunc(labels, func(j, k uint32) int { return byName(l.known.of[j].Label, l.known.of[k].Label) })
	x.labels.to = x.labels.from + int32(len(labels))
	l.labels = l.labels[:x.labels.to]
	return nil
}

// numbersOf are the numbers of the labels of x.
func (l *savedReader) numbersOf(x *savedSeries) []uint32 {
	return l.labels[x.labels.from:x.labels.to]
}

// appendLabels appends the labels of x to dst.
func (l *savedReader) appendLabels(dst []Label, x *savedSeries) []Label {
	for _, k := range l.numbersOf(x) {
		dst = append(dst, l.known.of[k].Label)
	}
	return dst
}
