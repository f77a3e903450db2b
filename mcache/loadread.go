package mcache

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"unsafe"

	"mcached/mcache/block"
)

// savedReader reads the payloads of frames: bytes become series, with their
// bucket's name and all they hold, found sound. There is no cache in it. What it
// hands out are views of the payload, valid until the next call.
//
// Blocks are not decoded but inspected: what passes can be decoded, and has its
// times in order.
type savedReader struct {
	version     uint32
	checkRecord func(value []byte) error // of LoadOptions; may be nil

	payload []byte // of the frame
	in      []byte // what is left of it
	bad     bool
	BlockReader

	// A batch: what the last call of read found.
	series  []savedSeries
	labels  []Label
	same    []sameAs     // of labels
	lengths []int32      // of labels: bytes in the payload
	blocks  []SoundBlock // samples and start times
	chunks  []savedChunk
	gone    []savedGone
	covers  []savedCover
	sizes   saveSizes // of an untyped file; no shards if there were none
	refused int       // chunks of records that checkRecord refused
	// refusedPoints is how many records were in these.
	refusedPoints uint64
	records       []Record // scratch
	sorted        bool     // the labels of the series read last are in order
}

// savedSeries is a series that was read and found sound.
type savedSeries struct {
	bucket     string
	width      uint32 // of a point
	flags      seriesFlags
	dirty      bool
	unsentFrom int64
	complete   int64  // from when on nothing is missing; math.MinInt64 if nothing is known to be
	labels     span32 // of savedReader.labels
	text       span32 // of the payload: its labels
	samples    span32 // of savedReader.blocks
	starts     span32 // of savedReader.blocks
	records    span32 // of savedReader.chunks
	points     uint64 // of samples and records
}

// span32 is a part of one of the reader's arrays.
type span32 struct{ from, to int32 }

// sameAs says what a label has in common with the one at its place in the
// series before.
type sameAs uint8

const (
	sameName sameAs = 1 << iota
	sameValue

	sameBoth = sameName | sameValue
)

// savedChunk is a chunk of records that was found sound.
type savedChunk struct {
	bytes []byte
	first int64
}

// savedGone says that a bucket lacks everything of a group of names before complete.
type savedGone struct {
	bucket   string
	group    int
	complete int64
}

// savedCover is the intervals of a bucket; list is nobody else's.
type savedCover struct {
	bucket string
	list   []Interval
}

func (l *savedReader) labelsOf(x *savedSeries) []Label { return l.labels[x.labels.from:x.labels.to] }
func (l *savedReader) samplesOf(x *savedSeries) []SoundBlock {
	return l.blocks[x.samples.from:x.samples.to]
}
func (l *savedReader) startsOf(x *savedSeries) []SoundBlock {
	return l.blocks[x.starts.from:x.starts.to]
}
func (l *savedReader) chunksOf(x *savedSeries) []savedChunk {
	return l.chunks[x.records.from:x.records.to]
}

// Bounds of a batch, beside one series: some three times the labels that a
// frame has whose series have ten, and what may otherwise be many times as
// large here as in the file.
const (
	maxLabelsAtOnce = 32 << 10
	maxGoneAtOnce   = 16 << 10
	maxChunksAtOnce = 64 << 10 // blocks, too
)

// begin makes f the frame that is read. Its payload was checked.
func (l *savedReader) begin(f frame) { l.payload, l.in = f.payload, f.payload }

// more reports whether there is more of the frame, of that kind, to read.
func (l *savedReader) more() bool { return len(l.in) > 0 }

// read reads a batch, up to the first series that is damaged: what is before
// it is in the batch, what is behind it cannot be read.
func (l *savedReader) read(kind frameKind) (err error) {
	l.series, l.blocks, l.chunks, l.gone, l.covers = l.series[:0], l.blocks[:0], l.chunks[:0], l.gone[:0], l.covers[:0]
	l.labels, l.same, l.lengths = l.labels[:0], l.same[:0], l.lengths[:0]
	l.bad, l.sorted, l.sizes = false, false, saveSizes{}
	l.refused, l.refusedPoints = 0, 0
	for err == nil && len(l.in) > 0 && len(l.labels) < maxLabelsAtOnce && len(l.gone)+len(l.covers) < maxGoneAtOnce && len(l.blocks)+len(l.chunks) < maxChunksAtOnce {
		switch kind {
		case frameSizes:
			err = l.readSizes()
		case frameSeries:
			err = l.readSeries()
		case frameGone:
			err = l.readGone()
		case frameCover:
			err = l.readCover()
		case frameOld:
			err = l.readOld()
		default:
			err = fmt.Errorf("%w: frame of the unknown kind %q", ErrDamaged, byte(kind))
		}
	}
	if err != nil {
		l.in = nil
	}
	return err
}

// What an item of an untyped file is, where it is no series.
const (
	oldSizes = 'N'
	oldGone  = 'G'
)

// readOld reads an item of a file whose frames do not say what they are.
func (l *savedReader) readOld() error {
	switch kind := l.in[0]; {
	case kind == oldSizes && l.version >= 3:
		l.in = l.in[1:]
		return l.readSizes()
	case kind == oldGone && l.version >= 3:
		l.in = l.in[1:]
		return l.readGone()
	default:
		return l.readSeries()
	}
}

func (l *savedReader) readSizes() error {
	for _, v := range l.sizes.fields() {
		if *v = l.uvarint(); *v > maxSize {
			l.bad = true
		}
	}
	if l.bad || l.sizes.shards == 0 {
		l.sizes = saveSizes{}
		return errSizes
	}
	return nil
}

// readGone reads what a bucket has lost with series that left whole.
func (l *savedReader) readGone() error {
	name := l.view()
	n := l.uvarint()
	if l.bad || n > goneGroups {
		return errGoneMarks
	}
	for ; n > 0; n-- {
		group, t := l.uvarint(), l.start()
		if l.bad || group >= goneGroups || t > MaxTime+1 {
			return errGoneMarks
		}
		l.gone = append(l.gone, savedGone{name, int(group), t})
	}
	return nil
}

// readCover reads the intervals of a bucket.
func (l *savedReader) readCover() error {
	x := savedCover{bucket: l.view()}
	n := l.uvarint()
	if l.bad || n > maxIntervals {
		return errCover
	}
	last := int64(-MaxTime - 1)
	for ; n > 0; n-- {
		from, length := l.start(), l.uvarint()
		if l.bad || from <= last || from >= MaxTime || length >= uint64(MaxTime-from) {
			return errCover
		}
		last = from + int64(length)
		x.list = append(x.list, Interval{from, last})
	}
	l.covers = append(l.covers, x)
	return nil
}

// appendIntervals encodes intervals that have ends.
func appendIntervals(dst []byte, list []Interval) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(list)))
	for _, x := range list {
		dst = binary.AppendUvarint(binary.AppendVarint(dst, x.From), uint64(x.To-x.From))
	}
	return dst
}

var (
	errCover     = fmt.Errorf("%w: intervals", ErrDamaged)
	errSizes     = fmt.Errorf("%w: sizes", ErrDamaged)
	errGoneMarks = fmt.Errorf("%w: what is gone", ErrDamaged)
	errSeries    = fmt.Errorf("%w: series", ErrDamaged)
)

// maxSize bounds a size that is read, so that sums do not overflow.
const maxSize = 1 << 48

func (l *savedReader) uvarint() uint64 {
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

func (l *savedReader) text() []byte {
	n := l.uvarint()
	if n > uint64(len(l.in)) {
		l.bad, l.in = true, nil
		return nil
	}
	b := l.in[:n] // with what is behind it, which inspect may read
	l.in = l.in[n:]
	return b
}

func (l *savedReader) start() int64 {
	u := l.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// view is text as a string that is valid as long as the payload is.
func (l *savedReader) view() string {
	b := l.text()
	return unsafe.String(unsafe.SliceData(b), len(b))
}

// readSeries reads one series behind the others.
func (l *savedReader) readSeries() (err error) {
	x := savedSeries{complete: math.MinInt64}
	kind := l.in[0]
	l.in = l.in[1:]
	x.bucket = l.view()
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
	if x.samples, x.points, err = l.readBlocks(); err != nil {
		return err
	}
	if x.starts, _, err = l.readBlocks(); err != nil {
		return err
	}
	if x.records, err = l.readChunks(); err != nil {
		return err
	}
	for _, c := range l.chunksOf(&x) {
		x.points += uint64(block.RecordCount(c.bytes))
	}
	switch kind {
	case saveLabelled:
		x.width = widthHPTS
		if !sorted { // not as Save wrote them
			if err := l.sortLabels(&x); err != nil {
				return err
			}
		}
	case saveRaw, saveRawPairs:
		if labels := l.labelsOf(&x); len(labels) != 1 || labels[0].Name != rawName || len(labels[0].Value) > MaxKey {
			return errSeries
		}
		x.flags = flagRaw
		x.width = widthHPTS
		if kind == saveRaw {
			x.width = widthValue
		}
	default:
		return errSeries
	}
	l.series = append(l.series, x)
	return nil
}

// readLabels reads the labels of a series. Most are, byte for byte, those of the
// series before: these are copied in runs, and what holds for their order holds
// here, too. It reports whether checkLabels would leave them as they are.
func (l *savedReader) readLabels(x *savedSeries) (sorted bool) {
	var before span32
	at := int32(0) // of label k of the series before, in the payload
	if n := len(l.series); n > 0 {
		before, at = l.series[n-1].labels, l.series[n-1].text.from
	}
	inherits := l.sorted // as the series before, as long as the names are its
	sorted = true
	n := l.uvarint()
	if l.bad = l.bad || n > MaxLabels; l.bad {
		l.in, n = nil, 0
	}
	x.labels.from, x.text.from = int32(len(l.labels)), l.at()
	for k, end := before.from, before.from+int32(n); k < end && !l.bad; k++ {
		if run, size := l.alike(k, min(before.to, end), at); run > 0 {
			sorted = sorted && (inherits || l.mayFollow(x, l.labels[k].Name))
			inherits = true
			l.repeat(k, k+run)
			l.in = l.in[size:]
			k, at = k+run, at+size
		}
		if k == end {
			break
		}
		from := l.at()
		y := Label{l.view(), l.view()}
		var same sameAs
		if k < before.to {
			same = sameness(l.labels[k], y)
			at += l.lengths[k]
		}
		sorted = sorted && y.Value != "" && (inherits && same&sameName != 0 || l.mayFollow(x, y.Name))
		inherits = l.sorted && same&sameName != 0
		l.labels, l.same, l.lengths = append(l.labels, y), append(l.same, same), append(l.lengths, l.at()-from)
	}
	x.labels.to, x.text.to = int32(len(l.labels)), l.at()
	l.sorted = sorted && x.labels.to > x.labels.from
	return l.sorted
}

// at is where in the payload the reader is.
func (l *savedReader) at() int32 { return int32(len(l.payload) - len(l.in)) }

func sameness(x, y Label) (same sameAs) {
	if x.Name == y.Name {
		same = sameName
	}
	if x.Value == y.Value {
		same |= sameValue
	}
	return same
}

// alike is how many of the labels from k to end, which are of the series before
// and begin at `at`, come next in the payload as they are there, and in how many
// bytes. It is 0 where that series was not in order: its labels have changed places since.
func (l *savedReader) alike(k, end, at int32) (run, size int32) {
	if !l.sorted || k >= end {
		return 0, 0
	}
	// Eight bytes behind the last label, so that its last ones are compared.
	old := l.payload[at:min(int(l.series[len(l.series)-1].text.to)+8, len(l.payload))]
	same := int32(commonPrefix(l.in, old))
	for _, n := range l.lengths[k:end] {
		if size+n > same {
			break
		}
		run++
		size += n
	}
	return run, size
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

// repeat appends the labels from k to end once more.
func (l *savedReader) repeat(k, end int32) {
	l.labels = append(l.labels, l.labels[k:end]...)
	for _, n := range l.lengths[k:end] {
		l.lengths, l.same = append(l.lengths, n), append(l.same, sameBoth)
	}
}

// mayFollow reports whether a label of that name may stand behind those that x
// has by now.
func (l *savedReader) mayFollow(x *savedSeries, name string) bool {
	if name == bucketName || name == rawName {
		return false
	}
	n := len(l.labels)
	return n == int(x.labels.from) || l.labels[n-1].Name < name
}

// sortLabels does for the series read last what checkLabels asks for.
func (l *savedReader) sortLabels(x *savedSeries) error {
	labels, err := checkLabels(l.labelsOf(x))
	if err != nil {
		return err
	}
	l.labels = append(l.labels[:x.labels.from], labels...) // a copy, or they themselves
	l.same = append(l.same[:x.labels.from], make([]sameAs, len(labels))...)
	l.lengths = append(l.lengths[:x.labels.from], make([]int32, len(labels))...) // alike does not ask for these
	x.labels.to = int32(len(l.labels))
	return nil
}

// readBlocks reads a list of blocks and inspects each.
func (l *savedReader) readBlocks() (part span32, points uint64, err error) {
	part.from = int32(len(l.blocks))
	last := int64(-MaxTime - 1)
	for n := l.uvarint(); n > 0 && !l.bad; n-- {
		start, b := l.start(), l.text()
		if l.bad {
			return part, 0, errSeries
		}
		l.blocks = append(l.blocks, SoundBlock{})
		x := &l.blocks[len(l.blocks)-1]
		if *x, err = l.Check(Block{start, b}); err != nil {
			return part, 0, fmt.Errorf("%w: %w", errSeries, err)
		}
		if start <= last || x.last > MaxTime {
			return part, 0, fmt.Errorf("%w: block from %d to %d after %d", errSeries, start, x.last, last)
		}
		last = x.last
		points += uint64(x.n)
	}
	part.to = int32(len(l.blocks))
	return part, points, nil
}

// readChunks reads a list of chunks of records. Those that checkRecord refuses
// are left out.
func (l *savedReader) readChunks() (part span32, err error) {
	part.from = int32(len(l.chunks))
	for n := l.uvarint(); n > 0 && !l.bad; n-- {
		start, b := l.start(), l.text()
		if l.bad || !block.CheckChunk(b, start) {
			return part, errSeries
		}
		if l.checkRecord != nil && !l.checkRecords(b) {
			l.refused++
			l.refusedPoints += uint64(block.RecordCount(b))
			continue
		}
		l.chunks = append(l.chunks, savedChunk{b, start})
	}
	if l.bad {
		return part, errSeries
	}
	part.to = int32(len(l.chunks))
	return part, nil
}

// checkRecords asks of each record of a sound chunk whether it may be kept.
func (l *savedReader) checkRecords(b []byte) bool {
	l.records = block.AppendRecords(l.records[:0], b, 0)
	for _, x := range l.records {
		if l.checkRecord(x.Value) != nil {
			return false
		}
	}
	return true
}
