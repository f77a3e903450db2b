package mcache

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
)

// Save and Load carry a cache over a restart, through a file of frames:
//
//	header: magic (16 bytes) | version (4) | time of saving in ms (8)
//	frame: length of the payload (4) | CRC-32C of it (4) | payload
//	payload: series, one behind the other; the last is empty but for
//	         counts of series (8) and points (8), so that a cut file shows
//	series: kind (1) | bucket | labels (uvarint), each name and value | chunks:
//	        of blocks, of start times, of records, each a count (uvarint) of
//	        time of the first point (varint), length (uvarint), bytes
//
// Text is its length (uvarint) and bytes. Blocks are as they lie in memory; a
// head is written as one more block. Everything is checked when it is read.
const (
	saveMagic      = "mcached series\x00\x01"
	saveVersion    = 1
	saveHeader     = len(saveMagic) + 4 + 8
	frameHeader    = 8
	frameBytes     = 1 << 20 // a frame ends with the series that reaches it
	maxFrameBytes  = 1 << 30 // what Load will allocate for one
	saveLabelled   = 'L'
	saveRaw        = 'R'
	saveRawPairs   = 'P'
	saveEndBytes   = 16
	seriesPerPiece = 64 // copied under one hold of a shard's lock
)

// ErrDamaged says that what Load reads was not written by Save, by another
// version of it, or is not as it was written.
var ErrDamaged = errors.New("mcache: damaged or foreign file")

// Saved counts what Save wrote or Load read.
type Saved struct {
	Series, Points uint64
	Bytes          int64
	TimeMs         int64 // when it was saved
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Save writes all series to w. Writers may go on meanwhile: a series is as it
// was at one moment, not the cache. nowMs is noted in the header.
func (c *Cache) Save(w io.Writer, nowMs int64) (Saved, error) {
	st := Saved{TimeMs: nowMs}
	if c.closed.Load() {
		return st, ErrClosed
	}
	buf := append(make([]byte, 0, 2*frameBytes), saveMagic...)
	buf = le.AppendUint32(buf, saveVersion)
	buf = le.AppendUint64(buf, uint64(nowMs))
	flush := func(head int) error {
		if payload := buf[head:]; head == frameHeader {
			le.PutUint32(buf, uint32(len(payload)))
			le.PutUint32(buf[4:], crc32.Checksum(payload, castagnoli))
		}
		n, err := w.Write(buf)
		st.Bytes += int64(n)
		buf = append(buf[:0], make([]byte, frameHeader)...)
		return err
	}
	if err := flush(0); err != nil {
		return st, err
	}
	for _, s := range c.shards {
		for from := uint32(0); ; {
			s.mu.Lock()
			n := uint32(s.recs.n)
			for end := min(from+seriesPerPiece, n); from < end; from++ {
				if r := &s.recs.view[from]; r.flags&flagInUse != 0 && r.flags&flagShadow == 0 {
					points := uint64(0)
					if buf, points = s.appendSeries(buf, from); points > 0 {
						st.Series++
						st.Points += points
					}
				}
			}
			s.mu.Unlock()
			if len(buf) >= frameBytes {
				if err := flush(frameHeader); err != nil {
					return st, err
				}
			}
			if from >= n {
				break
			}
		}
	}
	if len(buf) > frameHeader {
		if err := flush(frameHeader); err != nil {
			return st, err
		}
	}
	buf = le.AppendUint64(buf, st.Series)
	buf = le.AppendUint64(buf, st.Points)
	return st, flush(frameHeader)
}

// appendSeries encodes one series, or nothing if it holds nothing.
func (s *shard) appendSeries(dst []byte, id uint32) ([]byte, uint64) {
	r := &s.recs.view[id]
	if !s.prune(r) {
		return dst, 0
	}
	b := s.cache.bucket(r.bucket)
	kind, labels := byte(saveLabelled), s.labels(r, nil)
	if r.flags&flagRaw != 0 {
		kind = saveRaw
		if b.width.Load() == widthHPTS {
			kind = saveRawPairs
		}
	}
	dst = appendText(append(dst, kind), b.name)
	dst = binary.AppendUvarint(dst, uint64(len(labels)))
	for _, l := range labels {
		dst = appendText(appendText(dst, l.Name), l.Value)
	}
	dst, points, records := s.appendBlocks(dst, r)
	if shadow := s.shadow(r); shadow != noID {
		s.prune(&s.recs.view[shadow])
		dst, _, _ = s.appendBlocks(dst, &s.recs.view[shadow])
	} else {
		dst = binary.AppendUvarint(dst, 0)
	}
	entries := s.recordDir(r).entries()
	dst = binary.AppendUvarint(dst, uint64(records.n+len(entries)))
	for records.n > 0 {
		start, b := records.next()
		dst = appendText(binary.AppendVarint(dst, start), string(b))
		points += uint64(recordCount(b))
	}
	for _, e := range entries {
		b := s.block(e)
		dst = binary.AppendVarint(dst, e.start)
		dst = appendText(dst, string(b[:recordBytes(b)]))
		points += uint64(recordCount(b))
	}
	return dst, points
}

// appendBlocks encodes the blocks of r, which was pruned, those of its blob
// first, and its head. It returns the chunks of records in its blob.
func (s *shard) appendBlocks(dst []byte, r *series) (_ []byte, points uint64, records blobChunks) {
	o, _ := s.blobOf(r)
	dir := s.dirOf(r)
	head := headSamples(s.scratch[:0], r, s.hot.Pointer(r.head))
	n := o.blocks.n + len(dir)
	if len(head) > 0 {
		n++
	}
	dst = binary.AppendUvarint(dst, uint64(n))
	for o.blocks.n > 0 {
		start, b := o.blocks.next()
		dst = binary.AppendVarint(dst, start)
		dst = binary.AppendUvarint(dst, uint64(len(b)))
		dst = append(dst, b...)
		points += uint64(blockLen(b))
	}
	for _, e := range dir {
		b := s.block(e)
		dst = binary.AppendVarint(dst, e.start)
		dst = binary.AppendUvarint(dst, uint64(len(b)))
		dst = append(dst, b...)
		points += uint64(blockLen(b))
	}
	if len(head) > 0 {
		s.encoded = s.codec.encode(s.encoded[:0], head, int64(r.step))
		dst = binary.AppendVarint(dst, head[0].T)
		dst = binary.AppendUvarint(dst, uint64(len(s.encoded)))
		dst = append(dst, s.encoded...)
		points += uint64(len(head))
	}
	return dst, points, o.records
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// Load adds what Save wrote. Series that are there already keep what they
// have, and what is read is written over it. An error that is ErrDamaged, or
// of r, leaves in the cache what was read before; other errors are Append's.
func (c *Cache) Load(r io.Reader) (Saved, error) {
	var st Saved
	br := bufio.NewReaderSize(r, frameBytes)
	header := make([]byte, saveHeader)
	if _, err := io.ReadFull(br, header); err != nil || string(header[:len(saveMagic)]) != saveMagic {
		return st, fmt.Errorf("%w: it does not begin as one", ErrDamaged)
	}
	if v := le.Uint32(header[len(saveMagic):]); v != saveVersion {
		return st, fmt.Errorf("%w: version %d, this program reads %d", ErrDamaged, v, saveVersion)
	}
	st.TimeMs = int64(le.Uint64(header[len(saveMagic)+4:]))
	st.Bytes = int64(saveHeader)
	var l loader
	l.cache = c
	var payload []byte
	for {
		var head [frameHeader]byte
		if _, err := io.ReadFull(br, head[:]); err != nil {
			return st, fmt.Errorf("%w: it ends after %d bytes, before its end mark", ErrDamaged, st.Bytes)
		}
		n := le.Uint32(head[:])
		if n > maxFrameBytes {
			return st, fmt.Errorf("%w: frame of %d bytes at %d, limit %d", ErrDamaged, n, st.Bytes, maxFrameBytes)
		}
		if uint32(cap(payload)) < n {
			payload = make([]byte, n)
		}
		payload = payload[:n]
		if _, err := io.ReadFull(br, payload); err != nil {
			return st, fmt.Errorf("%w: it is cut in the frame at %d", ErrDamaged, st.Bytes)
		}
		if crc32.Checksum(payload, castagnoli) != le.Uint32(head[4:]) {
			return st, fmt.Errorf("%w: wrong checksum of the frame at %d", ErrDamaged, st.Bytes)
		}
		st.Bytes += int64(frameHeader + len(payload))
		if len(payload) == saveEndBytes {
			if series, points := le.Uint64(payload), le.Uint64(payload[8:]); series != st.Series || points != st.Points {
				return st, fmt.Errorf("%w: %d series and %d points read, its end mark says %d and %d", ErrDamaged, st.Series, st.Points, series, points)
			}
			return st, nil
		}
		for l.in = payload; len(l.in) > 0; {
			points, err := l.series()
			if err != nil {
				return st, fmt.Errorf("frame that ends at %d: %w", st.Bytes, err)
			}
			st.Series++
			st.Points += points
		}
	}
}

// loader reads series from a payload.
type loader struct {
	cache *Cache
	in    []byte
	bad   bool
	codec codec
	out   [blockMax]Sample
	slack []byte
	// What one series is to get.
	labels  []Label
	samples []savedBlock
	starts  []savedBlock
	records []Record
}

// savedBlock is a block that was decoded once and found sound.
type savedBlock struct {
	bytes       []byte
	first, last int64
	n           int
	step        uint32 // common step of its samples, 0 if there is none
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
	b := l.in[:n:n]
	l.in = l.in[n:]
	return b
}

func (l *loader) start() int64 {
	u := l.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

var errSeries = fmt.Errorf("%w: series", ErrDamaged)

// series reads one series and writes it to the cache.
func (l *loader) series() (points uint64, err error) {
	kind := l.in[0]
	l.in = l.in[1:]
	bucket := string(l.text())
	n := l.uvarint()
	l.labels = l.labels[:0]
	for ; n > 0 && !l.bad; n-- {
		name := string(l.text())
		l.labels = append(l.labels, Label{name, string(l.text())})
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
	f := l.cache.Fingerprint(l.labels)
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
	b, err := l.cache.openBucket(bucket, width)
	if err != nil {
		return 0, err
	}
	written, err := l.write(b, f, flags)
	l.cache.insertedInto(b, written)
	l.cache.evict()
	return uint64(written), err
}

// write gives the series its blocks as they are if it is new, and otherwise
// sample by sample.
func (l *loader) write(b *bucket, f Fingerprint, flags seriesFlags) (points int, err error) {
	if _, err = l.cache.appendNew(b, f, flags|flagHeld, l.labels, content{}); err != nil {
		return 0, err
	}
	f = f.in(b)
	s := l.cache.shardOf(f)
	s.mu.Lock()
	defer func() {
		s.settle()
		s.mu.Unlock()
	}()
	id := s.find(f)
	if id == noID {
		return 0, fmt.Errorf("%w: series was evicted while it was loaded", ErrNoMemory)
	}
	if s.recs.view[id].points == 0 && s.recs.view[id].flags&(flagStarts|flagBlob) == 0 {
		if points, err = s.adoptAll(&id, f, l.samples); err != nil {
			return points, err
		}
		if len(l.starts) > 0 {
			if err = s.adoptStarts(&id, b, f, l.starts); err != nil {
				return points, err
			}
		}
		n, err := s.writeClean(&id, b, f, content{records: l.records})
		return points + n, err
	}
	return s.writeClean(&id, b, f, content{samples: l.decoded(l.samples), starts: l.startTimes(), records: l.records})
}

// adoptStarts makes the shadow of a series and gives it its blocks.
func (s *shard) adoptStarts(id *uint32, b *bucket, f Fingerprint, blocks []savedBlock) error {
	shadow := uint32(noID)
	if err := s.retry(id, f, func() bool {
		var err error
		if shadow, err = s.create(b, shadowOf(f), flagShadow, nil); err == nil {
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
	for i, b := range blocks {
		if err = s.retry(id, f, func() bool { return s.adopt(*id, b, i == len(blocks)-1) }); err != nil {
			return points, err
		}
		points += b.n
	}
	return points, nil
}

// adopt puts a block behind all others. The last one may take more samples.
func (s *shard) adopt(id uint32, b savedBlock, last bool) bool {
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

// blocks reads a list of blocks, decodes each once, and appends them to dst.
func (l *loader) blocks(dst []savedBlock) ([]savedBlock, error) {
	last := int64(-MaxTime - 1)
	for n := l.uvarint(); n > 0 && !l.bad; n-- {
		start, b := l.start(), l.text()
		k, err := l.decode(b, start)
		if err != nil || l.bad {
			return dst, fmt.Errorf("%w: %w", errSeries, err)
		}
		for _, x := range l.out[:k] {
			if x.T <= last || x.T > MaxTime {
				return dst, fmt.Errorf("%w: time %d after %d", errSeries, x.T, last)
			}
			last = x.T
		}
		dst = append(dst, savedBlock{b, l.out[0].T, last, k, commonStepOr(l.out[:k], 0)})
	}
	return dst, nil
}

func (l *loader) decode(b []byte, start int64) (int, error) {
	l.slack = append(append(l.slack[:0], b...), zeros[:]...)
	return l.codec.decode(&l.out, l.slack, start)
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
