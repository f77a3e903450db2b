package mcache

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"unsafe"
)

// loader takes in the frames of a file. A frame is read whole, and checked,
// before the first of its series is written: they are then written by shard,
// under one hold of each shard's lock, in the order of the file. That is also
// what keeps the order in which they were made, by which batches find them.
type loader struct {
	cache   *Cache
	version uint32
	in      []byte
	bad     bool
	codec   codec
	out     [blockMax]Sample
	bucket  *bucket // that of the series before

	// All of one frame. Texts and blocks are views of its payload.
	series  []savedSeries
	labels  []Label
	hashes  []labelHash  // of labels
	blocks  []savedBlock // samples and start times
	records []Record
	sorted  bool // the labels of the series read last are in order

	order []int32 // places in series, by shard
	ends  []int32 // by shard
	busy  []int   // shards
	life  uint32  // of the first in series, less one
}

// savedSeries is a series that was read and found sound.
type savedSeries struct {
	bucket     *bucket
	fp         Fingerprint // in the bucket
	flags      seriesFlags
	dirty      bool
	unsentFrom int64
	complete   int64 // from when on nothing is missing; math.MinInt64 if nothing is known to be
	labels     span32
	samples    span32 // of loader.blocks
	starts     span32 // of loader.blocks
	records    span32
}

// span32 is a part of one of the loader's arrays.
type span32 struct{ from, to int32 }

// labelHash is the hashes of a label.
type labelHash struct{ name, value Hash }

// savedBlock is a block that was inspected and found sound.
type savedBlock struct {
	bytes       []byte
	first, last int64
	n           int
	step        uint32 // common step of its samples, 0 if there is none
}

func (l *loader) labelsOf(x *savedSeries) []Label       { return l.labels[x.labels.from:x.labels.to] }
func (l *loader) hashesOf(x *savedSeries) []labelHash   { return l.hashes[x.labels.from:x.labels.to] }
func (l *loader) samplesOf(x *savedSeries) []savedBlock { return l.blocks[x.samples.from:x.samples.to] }
func (l *loader) startsOf(x *savedSeries) []savedBlock  { return l.blocks[x.starts.from:x.starts.to] }
func (l *loader) recordsOf(x *savedSeries) []Record     { return l.records[x.records.from:x.records.to] }

// frame loads all series of a frame. Those before one that is damaged are
// loaded, too.
func (l *loader) frame(f loadFrame) (_ loadFrame, series, points uint64, err error) {
	if err := f.check(); err != nil {
		return f, 0, 0, err
	}
	for l.in = f.payload; len(l.in) > 0 && err == nil; {
		readErr := l.read()
		n, p, e := l.write()
		series, points = series+n, points+p
		if err = e; err == nil {
			err = readErr
		}
	}
	if err != nil {
		err = fmt.Errorf("frame that ends at %d: %w", f.end, err)
	}
	return f, series, points, err
}

// maxLabelsAtOnce bounds, with MaxLabels, what is read before it is written: some
// three times what a frame has whose series have ten labels.
const maxLabelsAtOnce = 32 << 10

// read reads series, up to the first that is damaged.
func (l *loader) read() error {
	clear(l.records)
	l.series, l.labels, l.hashes, l.blocks, l.records = l.series[:0], l.labels[:0], l.hashes[:0], l.blocks[:0], l.records[:0]
	l.bad, l.sorted = false, false
	for len(l.in) > 0 && len(l.labels) < maxLabelsAtOnce {
		var err error
		switch kind := l.in[0]; {
		case kind == saveSize && l.version >= 3:
			err = l.readSizes()
		case kind == saveGone && l.version >= 3:
			err = l.readGone()
		default:
			err = l.readSeries()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readSizes makes room for what follows.
func (l *loader) readSizes() error {
	l.in = l.in[1:]
	var z saveSizes
	for _, v := range z.fields() {
		if *v = l.uvarint(); *v > maxSize {
			l.bad = true
		}
	}
	if l.bad || z.shards == 0 {
		return errSizes
	}
	l.cache.makeReady(&z)
	return nil
}

// readGone notes what a bucket has lost with series that left whole.
func (l *loader) readGone() error {
	l.in = l.in[1:]
	name := l.view()
	n := l.uvarint()
	if l.bad || n > goneGroups {
		return errGoneMarks
	}
	b, err := l.cache.openBucket(strings.Clone(name), widthHPTS)
	if err != nil {
		return err
	}
	for ; n > 0; n-- {
		group, t := l.uvarint(), l.start()
		if l.bad || group >= goneGroups || t > MaxTime+1 {
			return errGoneMarks
		}
		b.note(int(group), t)
	}
	return nil
}

var (
	errSizes     = fmt.Errorf("%w: sizes", ErrDamaged)
	errGoneMarks = fmt.Errorf("%w: what is gone", ErrDamaged)
)

// maxSize bounds a size that is read, so that sums do not overflow.
const maxSize = 1 << 48

func (l *loader) uvarint() uint64 {
	if len(l.in) > 0 && l.in[0] < 0x80 { // nearly all
		v := l.in[0]
		l.in = l.in[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(l.in)
	if n <= 0 {
		l.bad, l.in = true, nil
		return 0
	}
	l.in = l.in[n:]
	return v
}

func (l *loader) text() []byte {
	n := l.uvarint()
	if n > uint64(len(l.in)) {
		l.bad, l.in = true, nil
		return nil
	}
	b := l.in[:n] // with what is behind it, which inspect may read
	l.in = l.in[n:]
	return b
}

func (l *loader) start() int64 {
	u := l.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

var errSeries = fmt.Errorf("%w: series", ErrDamaged)

// view is text as a string that is valid as long as the payload is.
func (l *loader) view() string {
	b := l.text()
	return unsafe.String(unsafe.SliceData(b), len(b))
}

// readSeries reads one series behind the others.
func (l *loader) readSeries() (err error) {
	x := savedSeries{complete: math.MinInt64}
	kind := l.in[0]
	l.in = l.in[1:]
	bucket := l.view()
	sorted := l.readLabels(&x)
	if l.version >= 2 {
		what := l.uvarint()
		if x.dirty = what&savedDirty != 0; x.dirty {
			x.unsentFrom = l.start()
		}
		if what&savedLost != 0 {
			x.complete = l.start()
		}
		if what > savedDirty|savedLost || x.complete > MaxTime+1 {
			return errSeries
		}
	}
	if x.samples, err = l.readBlocks(); err != nil {
		return err
	}
	if x.starts, err = l.readBlocks(); err != nil {
		return err
	}
	x.records.from = int32(len(l.records))
	for n := l.uvarint(); n > 0 && !l.bad; n-- {
		start, b := l.start(), l.text()
		if l.bad || !checkChunk(b) {
			return errSeries
		}
		l.records = appendRecords(l.records, b, start)
	}
	x.records.to = int32(len(l.records))
	if l.bad {
		return errSeries
	}
	width := uint32(widthHPTS)
	switch kind {
	case saveLabelled:
		if !sorted { // not as Save wrote them
			if err := l.sortLabels(&x); err != nil {
				return err
			}
		}
	case saveRaw, saveRawPairs:
		if labels := l.labelsOf(&x); len(labels) != 1 || labels[0].Name != rawName {
			return errSeries
		}
		x.flags = flagRaw
		if kind == saveRaw {
			width = widthValue
		}
	default:
		return errSeries
	}
	b := l.bucket
	if b == nil || b.name != bucket || b.width.Load() != width || l.cache.findBucket(bucket) != b {
		if b, err = l.cache.openBucket(strings.Clone(bucket), width); err != nil {
			return err
		}
		l.bucket = b
	}
	x.bucket = b
	for _, h := range l.hashesOf(&x) {
		x.fp.Add(h.name, h.value)
	}
	x.fp = x.fp.in(b)
	l.series = append(l.series, x)
	return nil
}

// readLabels reads the labels of a series and hashes them. Most have the same
// name, and many the same value, as in the series before: they have its hashes,
// and what holds for their order. It reports whether checkLabels would leave
// them as they are.
func (l *loader) readLabels(x *savedSeries) (sorted bool) {
	var before span32
	if n := len(l.series); n > 0 {
		before = l.series[n-1].labels
	}
	inherits := l.sorted // as the series before, as long as the names are its
	x.labels.from = int32(len(l.labels))
	k := before.from
	sorted = true
	n := l.uvarint()
	if l.bad = l.bad || n > MaxLabels; l.bad {
		l.in = nil
	}
	for ; n > 0 && !l.bad; n-- {
		y := Label{l.view(), l.view()}
		var h labelHash
		if k < before.to && l.labels[k].Name == y.Name {
			h.name = l.hashes[k].name
			sorted = sorted && (inherits || l.mayFollow(x, y.Name))
			inherits = l.sorted
		} else {
			h.name = l.cache.HashString(y.Name)
			sorted = sorted && l.mayFollow(x, y.Name)
			inherits = false
		}
		if k < before.to && l.labels[k].Value == y.Value {
			h.value = l.hashes[k].value
		} else {
			h.value = l.cache.HashString(y.Value)
		}
		sorted = sorted && y.Value != ""
		l.labels, l.hashes = append(l.labels, y), append(l.hashes, h)
		k++
	}
	x.labels.to = int32(len(l.labels))
	l.sorted = sorted && x.labels.to > x.labels.from
	return l.sorted
}

// mayFollow reports whether a label of that name may stand behind those that x
// has by now.
func (l *loader) mayFollow(x *savedSeries, name string) bool {
	if name == bucketName || name == rawName {
		return false
	}
	n := len(l.labels)
	return n == int(x.labels.from) || l.labels[n-1].Name < name
}

// sortLabels does for the series read last what checkLabels asks for.
func (l *loader) sortLabels(x *savedSeries) error {
	labels, err := checkLabels(l.labelsOf(x))
	if err != nil {
		return err
	}
	l.labels = append(l.labels[:x.labels.from], labels...) // a copy, or they themselves
	l.hashes = l.hashes[:x.labels.from]
	for _, y := range labels {
		l.hashes = append(l.hashes, labelHash{l.cache.HashString(y.Name), l.cache.HashString(y.Value)})
	}
	x.labels.to = int32(len(l.labels))
	return nil
}

// readBlocks reads a list of blocks and inspects each.
func (l *loader) readBlocks() (part span32, err error) {
	part.from = int32(len(l.blocks))
	last := int64(-MaxTime - 1)
	for n := l.uvarint(); n > 0 && !l.bad; n-- {
		start, b := l.start(), l.text()
		if l.bad {
			return part, errSeries
		}
		l.blocks = append(l.blocks, savedBlock{bytes: b, first: start})
		x := &l.blocks[len(l.blocks)-1]
		if err := l.inspect(x); err != nil {
			return part, fmt.Errorf("%w: %w", errSeries, err)
		}
		if start <= last || x.last > MaxTime {
			return part, fmt.Errorf("%w: block from %d to %d after %d", errSeries, start, x.last, last)
		}
		last = x.last
	}
	part.to = int32(len(l.blocks))
	return part, nil
}

// inspect finds out whether a block can be decoded, and what it holds. Only
// times that are on no grid are decoded for that.
func (l *loader) inspect(x *savedBlock) error {
	b, start := x.bytes, x.first
	if n, last, step, ok := inspect(b[:len(b)+unpackSlack], start); ok {
		x.n, x.last = n, last
		if n >= stepSamples && step <= math.MaxUint32 {
			x.step = uint32(step)
		}
		return nil
	}
	n, err := l.decode(b, start)
	if err != nil {
		return err
	}
	for i, y := range l.out[1:n] {
		if y.T <= l.out[i].T {
			return fmt.Errorf("time %d after %d", y.T, l.out[i].T)
		}
	}
	if l.out[0].T != start {
		return fmt.Errorf("it begins at %d, not %d", l.out[0].T, start)
	}
	x.n, x.last, x.step = n, l.out[n-1].T, commonStepOr(l.out[:n], 0)
	return nil
}

func (l *loader) decode(b []byte, start int64) (int, error) {
	return l.codec.decode(&l.out, b[:len(b)+unpackSlack], start)
}

// checkChunk reports whether b is a chunk of records as appendChunk makes it.
func checkChunk(b []byte) bool {
	if len(b) < recordHeader || recordBytes(b) != len(b) || recordCount(b) == 0 {
		return false
	}
	rest := b[recordHeader:]
	for i := range recordCount(b) {
		d, n := binary.Uvarint(rest)
		if n <= 0 || (d == 0) != (i == 0) || d > MaxTime {
			return false
		}
		size, m := binary.Uvarint(rest[n:])
		if m <= 0 || size > uint64(len(rest)-n-m) {
			return false
		}
		rest = rest[n+m+int(size):]
	}
	return len(rest) == 0
}
