package mcache

import (
	"encoding/binary"
	"fmt"
	"math"
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
	at      int    // in it: what comes next
	bad     bool   // it ends within what was to be read; at is its end
	BlockReader

	// A batch: what the last call of read found.
	series  []savedSeries
	known   knownLabels
	labels  []uint32     // numbers in known
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
func (l *savedReader) begin(f frame) { l.payload, l.at = f.payload, 0 }

// more reports whether there is more of the frame, of that kind, to read.
func (l *savedReader) more() bool { return l.at < len(l.payload) }

// read reads a batch, up to the first series that is damaged: what is before
// it is in the batch, what is behind it cannot be read.
func (l *savedReader) read(kind frameKind) (err error) {
	l.series, l.blocks, l.chunks, l.gone, l.covers = l.series[:0], l.blocks[:0], l.chunks[:0], l.gone[:0], l.covers[:0]
	l.labels, l.known.of, l.known.sizes = l.labels[:0], l.known.of[:0], l.known.sizes[:0]
	l.bad, l.sorted, l.sizes = false, false, saveSizes{}
	l.refused, l.refusedPoints = 0, 0
	for err == nil && l.more() && len(l.labels) < maxLabelsAtOnce && len(l.gone)+len(l.covers) < maxGoneAtOnce && len(l.blocks)+len(l.chunks) < maxChunksAtOnce {
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
		l.at = len(l.payload)
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
	switch kind := l.payload[l.at]; {
	case kind == oldSizes && l.version >= 3:
		l.at++
		return l.readSizes()
	case kind == oldGone && l.version >= 3:
		l.at++
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
	if at := l.at; at < len(l.payload) && l.payload[at] < 0x80 { // nearly all
		l.at = at + 1
		return uint64(l.payload[at])
	}
	return l.longUvarint()
}

func (l *savedReader) longUvarint() uint64 {
	v, n := binary.Uvarint(l.payload[l.at:])
	if n <= 0 {
		l.fail()
		return 0
	}
	l.at += n
	return v
}

func (l *savedReader) fail() { l.bad, l.at = true, len(l.payload) }

func (l *savedReader) text() []byte {
	n, at := l.uvarint(), l.at
	if n > uint64(len(l.payload)-at) {
		l.fail()
		return nil
	}
	l.at += int(n)
	return l.payload[at:l.at] // with what is behind it, which inspect may read
}

func (l *savedReader) start() int64 {
	u := l.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// view is text as a string that is valid as long as the payload is.
func (l *savedReader) view() string { return viewOf(l.text()) }

func viewOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// readSeries reads one series behind the others.
func (l *savedReader) readSeries() (err error) {
	x := savedSeries{complete: math.MinInt64}
	kind := l.payload[l.at]
	l.at++
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
		if labels := l.numbersOf(&x); len(labels) != 1 || l.known.of[labels[0]].Name != rawName || len(l.known.of[labels[0]].Value) > MaxKey {
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
