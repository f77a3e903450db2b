package mcache

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"runtime"
	"strings"
	"sync"
	"unsafe"
)

// Load adds what Save wrote. Series that are there already keep what they
// have, and what is read is written over it. An error that is ErrDamaged, or
// of r, leaves in the cache what else was read; other errors are Append's.
//
// Frames are independent of each other: as many as there are processors are
// checked and written at once. Blocks are not decoded but inspected: what
// passes can be decoded, and has its times in order.
func (c *Cache) Load(r io.Reader) (Saved, error) {
	var st Saved
	br := bufio.NewReaderSize(r, frameBytes)
	header := make([]byte, saveHeader)
	if _, err := io.ReadFull(br, header); err != nil || string(header[:len(saveMagic)]) != saveMagic {
		return st, fmt.Errorf("%w: it does not begin as one", ErrDamaged)
	}
	version := le.Uint32(header[len(saveMagic):])
	if version < saveOldest || version > saveVersion {
		return st, fmt.Errorf("%w: version %d, this program reads %d to %d", ErrDamaged, version, saveOldest, saveVersion)
	}
	st.TimeMs = int64(le.Uint64(header[len(saveMagic)+4:]))
	st.Bytes = int64(saveHeader)

	workers := runtime.GOMAXPROCS(0)
	p := loadPool{frames: make(chan loadFrame), free: make(chan []byte, workers+2)}
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			l := loader{cache: c, version: version}
			for f := range p.frames {
				p.done(l.frame(f))
				p.free <- f.payload
			}
		})
	}
	for range cap(p.free) {
		p.free <- nil
	}
	end, err := p.read(br, &st)
	close(p.frames)
	running.Wait()
	st.Series, st.Points = p.series, p.points
	switch {
	case p.err != nil:
		return st, p.err
	case err != nil:
		return st, err
	}
	if series, points := le.Uint64(end), le.Uint64(end[8:]); series != st.Series || points != st.Points {
		return st, fmt.Errorf("%w: %d series and %d points read, its end mark says %d and %d", ErrDamaged, st.Series, st.Points, series, points)
	}
	return st, nil
}

// loadFrame is a frame on its way to a worker.
type loadFrame struct {
	payload  []byte
	checksum uint32
	at, end  int64 // in the file
}

// loadPool hands frames to workers and sums up what they did. At most as many
// payloads exist as fit free.
type loadPool struct {
	frames chan loadFrame
	free   chan []byte

	mu             sync.Mutex
	series, points uint64
	err            error // of the frame that is first in the file
	errAt          int64
}

func (p *loadPool) done(f loadFrame, series, points uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.series += series
	p.points += points
	if err != nil && (p.err == nil || f.at < p.errAt) {
		p.err, p.errAt = err, f.at
	}
}

func (p *loadPool) failed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err != nil
}

// read hands out all frames up to the end mark, which it returns, or to the
// first that fails.
func (p *loadPool) read(r io.Reader, st *Saved) (end []byte, err error) {
	for !p.failed() {
		var head [frameHeader]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return nil, fmt.Errorf("%w: it ends after %d bytes, before its end mark", ErrDamaged, st.Bytes)
		}
		n := le.Uint32(head[:])
		if n > maxFrameBytes {
			return nil, fmt.Errorf("%w: frame of %d bytes at %d, limit %d", ErrDamaged, n, st.Bytes, maxFrameBytes)
		}
		f := loadFrame{payload: <-p.free, checksum: le.Uint32(head[4:]), at: st.Bytes}
		if f.payload, err = readFrame(r, f.payload, int(n)); err != nil {
			return nil, fmt.Errorf("%w: it is cut in the frame at %d", ErrDamaged, st.Bytes)
		}
		st.Bytes += int64(frameHeader + len(f.payload))
		f.end = st.Bytes
		if len(f.payload) == saveEndBytes {
			return f.payload, f.check()
		}
		p.frames <- f
	}
	return nil, nil
}

// readFrame reads n bytes into buf and leaves room for unpackSlack more behind
// them. A frame that says to be large and is not there costs no more than what
// there is.
func readFrame(r io.Reader, buf []byte, n int) ([]byte, error) {
	buf = buf[:0]
	for len(buf) < n || cap(buf) < n+unpackSlack {
		if len(buf)+unpackSlack >= cap(buf) {
			buf = append(make([]byte, 0, unpackSlack+min(n, max(2*len(buf), 2*frameBytes))), buf...)
		}
		at := len(buf)
		buf = buf[:min(n, cap(buf)-unpackSlack)]
		if _, err := io.ReadFull(r, buf[at:]); err != nil {
			return buf, err
		}
	}
	return buf, nil
}

func (f *loadFrame) check() error {
	if crc32.Checksum(f.payload, castagnoli) != f.checksum {
		return fmt.Errorf("%w: wrong checksum of the frame at %d", ErrDamaged, f.at)
	}
	return nil
}

// loader reads series from a payload.
type loader struct {
	cache   *Cache
	version uint32
	in      []byte
	bad     bool
	codec   codec
	out     [blockMax]Sample
	bucket  *bucket // that of the series before
	// What one series is to get. Texts are views of the payload.
	labels     []Label
	hashes     []labelHash // of labels; and, behind, of the series before, if it had more
	unsentFrom int64
	dirty      bool
	complete   int64 // from when on nothing is missing; math.MinInt64 if nothing is known to be
	samples    []savedBlock
	starts     []savedBlock
	records    []Record
}

// savedBlock is a block that was inspected and found sound.
type savedBlock struct {
	bytes       []byte
	first, last int64
	n           int
	step        uint32 // common step of its samples, 0 if there is none
}

// frame loads all series of a frame.
func (l *loader) frame(f loadFrame) (_ loadFrame, series, points uint64, err error) {
	if err := f.check(); err != nil {
		return f, 0, 0, err
	}
	// The texts of the series before lay in a payload that may be overwritten now.
	l.hashes = l.hashes[:0]
	for l.in = f.payload; len(l.in) > 0; series++ {
		n, err := l.series()
		if err != nil {
			return f, series, points, fmt.Errorf("frame that ends at %d: %w", f.end, err)
		}
		points += n
	}
	return f, series, points, nil
}

func (l *loader) uvarint() uint64 {
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

// series reads one series and writes it to the cache.
func (l *loader) series() (points uint64, err error) {
	kind := l.in[0]
	l.in = l.in[1:]
	bucket := l.view()
	l.readLabels()
	l.dirty, l.complete = false, math.MinInt64
	if l.version >= 2 {
		what := l.uvarint()
		if l.dirty = what&savedDirty != 0; l.dirty {
			l.unsentFrom = l.start()
		}
		if what&savedLost != 0 {
			l.complete = l.start()
		}
		if what > savedDirty|savedLost || l.complete > MaxTime+1 {
			return 0, errSeries
		}
	}
	if l.samples, err = l.blocks(l.samples[:0]); err != nil {
		return 0, err
	}
	if l.starts, err = l.blocks(l.starts[:0]); err != nil {
		return 0, err
	}
	l.records = l.records[:0]
	for n := l.uvarint(); n > 0 && !l.bad; n-- {
		start, b := l.start(), l.text()
		if l.bad || !checkChunk(b) {
			return 0, errSeries
		}
		l.records = appendRecords(l.records, b, start)
	}
	if l.bad {
		return 0, errSeries
	}
	width, flags := uint32(widthHPTS), seriesFlags(0)
	switch kind {
	case saveLabelled:
	case saveRaw, saveRawPairs:
		if len(l.labels) != 1 || l.labels[0].Name != rawName {
			return 0, errSeries
		}
		flags = flagRaw
		if kind == saveRaw {
			width = widthValue
		}
	default:
		return 0, errSeries
	}
	b := l.bucket
	if b == nil || b.name != bucket || b.width.Load() != width || l.cache.findBucket(bucket) != b {
		if b, err = l.cache.openBucket(strings.Clone(bucket), width); err != nil {
			return 0, err
		}
		l.bucket = b
	}
	written, err := l.write(b, flags)
	l.cache.insertedInto(b, written)
	l.cache.evict()
	return uint64(written), err
}

// labelHash is the hashes of a label, as of the last series that had its place.
type labelHash struct {
	Label
	name, value Hash
}

// readLabels reads the labels of a series and hashes them. Most have the same
// name, and many the same value, as in the series before.
func (l *loader) readLabels() {
	l.labels = l.labels[:0]
	for n := l.uvarint(); n > 0 && !l.bad; n-- {
		x := Label{l.view(), l.view()}
		k := len(l.labels)
		l.labels = append(l.labels, x)
		if k == len(l.hashes) {
			l.hashes = append(l.hashes, labelHash{x, l.cache.HashString(x.Name), l.cache.HashString(x.Value)})
			continue
		}
		h := &l.hashes[k]
		if h.Name != x.Name {
			h.name = l.cache.HashString(x.Name)
		}
		if h.Value != x.Value {
			h.value = l.cache.HashString(x.Value)
		}
		h.Label = x
	}
}

// fingerprint is that of the labels, if none has an empty value.
func (l *loader) fingerprint() (f Fingerprint) {
	for i := range l.labels {
		f.Add(l.hashes[i].name, l.hashes[i].value)
	}
	return f
}

// write gives the series its blocks as they are if it is new, and otherwise
// sample by sample.
func (l *loader) write(b *bucket, flags seriesFlags) (points int, err error) {
	f, hashes := l.fingerprint(), l.hashes[:len(l.labels)]
	if flags&flagRaw == 0 {
		labels, err := checkLabels(l.labels)
		if err != nil {
			return 0, err
		}
		if len(labels) != len(l.labels) || &labels[0] != &l.labels[0] { // not as Save wrote them
			f, hashes = l.cache.Fingerprint(labels), nil
			l.labels = append(l.labels[:0], labels...)
		}
	}
	f = f.in(b)
	s := l.cache.shardOf(f)
	s.mu.Lock()
	defer func() {
		s.settle()
		s.mu.Unlock()
	}()
	if l.dirty {
		s.stampNow() // what may not have been sent is pinned from here on
	}
	id, err := s.findOrCreate(b, f, flags|flagHeld, l.labels, hashes)
	if err != nil {
		return 0, err
	}
	if s.recs.view[id].points > 0 || s.recs.view[id].flags&(flagStarts|flagBlob) != 0 {
		points, err = s.writeClean(&id, b, f, content{samples: l.decoded(l.samples), starts: l.startTimes(), records: l.records})
	} else if points, err = s.adoptAll(&id, f, l.samples); err == nil {
		if len(l.starts) > 0 {
			err = s.adoptStarts(&id, b, f, l.starts)
		}
		if err == nil && len(l.records) > 0 {
			var n int
			n, err = s.writeClean(&id, b, f, content{records: l.records})
			points += n
		}
	}
	if id != noID {
		r := &s.recs.view[id]
		r.completeFrom = max(r.completeFrom, l.complete)
		s.loaded(id, l.unsentFrom, l.dirty)
	}
	return points, err
}

// adoptStarts makes the shadow of a series and gives it its blocks.
func (s *shard) adoptStarts(id *uint32, b *bucket, f Fingerprint, blocks []savedBlock) error {
	shadow := uint32(noID)
	if err := s.retry(id, f, func() bool {
		var err error
		if shadow, err = s.create(b, shadowOf(f), flagShadow, nil, nil); err == nil {
			s.recs.view[*id].flags |= flagStarts
		}
		return err == nil
	}); err != nil {
		return err
	}
	_, err := s.adoptAll(&shadow, shadowOf(f), blocks)
	return err
}

// adoptAll gives blocks to a series that has none.
func (s *shard) adoptAll(id *uint32, f Fingerprint, blocks []savedBlock) (points int, err error) {
	if n := len(blocks); n <= maxDir(s.fix.MaxValue()) {
		if err := s.retry(id, f, func() bool { return s.dirReserve(*id, n) }); err != nil {
			return 0, err
		}
	}
	for i := range blocks {
		if !s.adopt(*id, &blocks[i], i == len(blocks)-1) {
			if err = s.retry(id, f, func() bool { return s.adopt(*id, &blocks[i], i == len(blocks)-1) }); err != nil {
				return points, err
			}
		}
		points += blocks[i].n
	}
	return points, nil
}

// adopt puts a block behind all others. The last one may take more samples.
func (s *shard) adopt(id uint32, b *savedBlock, last bool) bool {
	if !s.dirReserve(id, 1) {
		return false
	}
	r := &s.recs.view[id]
	partial := last && b.n <= blockPartial
	tables := s.log
	if partial {
		tables = s.hot
	}
	ref, dst, ok := tables.Alloc(len(b.bytes), kindBlock, id, b.n)
	if !ok {
		return false
	}
	copy(dst, b.bytes)
	s.account(r, int(entryBytes(len(dst))))
	s.dirReplace(r, int(r.dirLen), 0, dirEntry{ref, b.first})
	r.setPartial(partial)
	r.sealedEnd = b.last
	if b.step != 0 {
		r.step = b.step
	}
	r.points += uint32(b.n)
	s.inserted += uint64(b.n)
	s.relist(id)
	return true
}

// blocks reads a list of blocks, inspects each, and appends them to dst.
func (l *loader) blocks(dst []savedBlock) ([]savedBlock, error) {
	last := int64(-MaxTime - 1)
	for n := l.uvarint(); n > 0 && !l.bad; n-- {
		start, b := l.start(), l.text()
		if l.bad {
			return dst, errSeries
		}
		x, err := l.inspect(b, start)
		if err != nil {
			return dst, fmt.Errorf("%w: %w", errSeries, err)
		}
		if start <= last || x.last > MaxTime {
			return dst, fmt.Errorf("%w: block from %d to %d after %d", errSeries, start, x.last, last)
		}
		last = x.last
		dst = append(dst, x)
	}
	return dst, nil
}

// inspect finds out whether b, which begins at start, can be decoded, and what
// it holds. Only times that are on no grid are decoded for that.
func (l *loader) inspect(b []byte, start int64) (savedBlock, error) {
	x := savedBlock{bytes: b, first: start}
	if n, last, step, ok := inspect(b[:len(b)+unpackSlack], start); ok {
		x.n, x.last = n, last
		if n >= stepSamples && step <= math.MaxUint32 {
			x.step = uint32(step)
		}
		return x, nil
	}
	n, err := l.decode(b, start)
	if err != nil {
		return x, err
	}
	for i, y := range l.out[1:n] {
		if y.T <= l.out[i].T {
			return x, fmt.Errorf("time %d after %d", y.T, l.out[i].T)
		}
	}
	if l.out[0].T != start {
		return x, fmt.Errorf("it begins at %d, not %d", l.out[0].T, start)
	}
	x.n, x.last, x.step = n, l.out[n-1].T, commonStepOr(l.out[:n], 0)
	return x, nil
}

func (l *loader) decode(b []byte, start int64) (int, error) {
	return l.codec.decode(&l.out, b[:len(b)+unpackSlack], start)
}

// decoded is the samples of blocks that were decoded without an error before.
func (l *loader) decoded(blocks []savedBlock) (all []Sample) {
	for _, b := range blocks {
		n, _ := l.decode(b.bytes, b.first)
		all = append(all, l.out[:n]...)
	}
	return all
}

// startTimes lines the start times up with the samples.
func (l *loader) startTimes() (all []int64) {
	if len(l.starts) == 0 {
		return nil
	}
	starts := l.decoded(l.starts)
	for _, x := range l.decoded(l.samples) {
		for len(starts) > 0 && starts[0].T < x.T {
			starts = starts[1:]
		}
		var start int64
		if len(starts) > 0 && starts[0].T == x.T {
			start = int64(math.Float64frombits(starts[0].V))
		}
		all = append(all, start)
	}
	return all
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
