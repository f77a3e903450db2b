package mcache

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"math"
	"slices"

	"mcached/mcache/block"
)

// Saved counts what Save wrote.
type Saved struct {
	Series, Points uint64
	Bytes          int64
	TimeMs         int64 // when it was saved; 0 if Load could not tell
}

// Save writes all series to w, and behind them what extra has: names and bytes,
// each at most MaxExtra, for LoadOptions.Extra; it may be nil. Writers may go on
// meanwhile: a series is as it was at one moment, not the cache. nowMs is noted
// in the header. The format is in saveformat.go.
func (c *Cache) Save(w io.Writer, nowMs int64, extra iter.Seq2[string, []byte]) (Saved, error) {
	fw := frameWriter{w: w}
	st := Saved{TimeMs: nowMs}
	if c.closed.Load() {
		return st, ErrClosed
	}
	if err := fw.header(nowMs); err != nil {
		return st, err
	}
	fw.buf = c.appendSizes(fw.buf)
	err := fw.flush(frameSizes)
	if err == nil {
		err = c.saveSeries(&fw, &st)
	}
	if err == nil {
		if fw.buf = c.appendGone(fw.buf); len(fw.buf) > frameHeader {
			err = fw.flush(frameGone)
		}
	}
	if err == nil {
		if fw.buf = c.appendCoverage(fw.buf, nowMs); len(fw.buf) > frameHeader {
			err = fw.flush(frameCover)
		}
	}
	if extra != nil && err == nil {
		for name, b := range extra {
			if len(name)+len(b) > MaxExtra {
				return st, fmt.Errorf("mcache: extra of %d bytes, limit %d", len(name)+len(b), MaxExtra)
			}
			fw.buf = append(appendText(fw.buf, name), b...)
			if err = fw.flush(frameExtra); err != nil {
				break
			}
		}
	}
	if err == nil {
		fw.buf = le.AppendUint64(fw.buf, st.Series)
		fw.buf = le.AppendUint64(fw.buf, st.Points)
		err = fw.flush(frameEnd)
	}
	st.Bytes = fw.bytes
	return st, err
}

// MaxExtra is the most bytes of one of the extras of Save, its name included.
const MaxExtra = 16 << 20

// frameWriter writes the frames of a file.
type frameWriter struct {
	w     io.Writer
	buf   []byte // room for a frame's header, and its payload as far as it goes
	bytes int64
}

func (fw *frameWriter) header(nowMs int64) error {
	fw.buf = appendHeader(make([]byte, 0, 2*frameBytes), nowMs)
	return fw.write()
}

// flush writes the payload as a frame of that kind.
func (fw *frameWriter) flush(kind frameKind) error {
	if n := len(fw.buf) - frameHeader; n > maxFrameBytes {
		return fmt.Errorf("mcache: frame of %d bytes, limit %d", n, maxFrameBytes)
	}
	putFrameHeader(fw.buf, kind)
	return fw.write()
}

func (fw *frameWriter) write() error {
	n, err := fw.w.Write(fw.buf)
	fw.bytes += int64(n)
	fw.buf = append(fw.buf[:0], make([]byte, frameHeader)...)
	return err
}

func (c *Cache) saveSeries(fw *frameWriter, st *Saved) error {
	var window saveWindow
	for after, rounds := uint32(0), 2; rounds > 0; rounds-- {
		// The second round is for what is made in the first. What is made between
		// these two lines comes twice, which Load does not mind.
		before := c.lives.Load()
		lists := make([][]seriesLife, len(c.shards))
		for i, s := range c.shards {
			lists[i] = s.byLife(after)
		}
		for window.take(lists); len(window.series) > 0; window.take(lists) {
			window.encode(c)
			for i := range window.series {
				if x := &window.series[i]; x.points > 0 {
					fw.buf = append(fw.buf, window.encoded[x.from:x.to]...)
					st.Series++
					st.Points += x.points
				}
				if len(fw.buf) >= frameBytes {
					if err := fw.flush(frameSeries); err != nil {
						return err
					}
				}
			}
		}
		after = before
	}
	if len(fw.buf) > frameHeader {
		return fw.flush(frameSeries)
	}
	return nil
}

// seriesLife is a series in the order in which they were made.
type seriesLife struct{ id, life uint32 }

// byLife lists the series of a shard in the order in which they were made, of
// those that were made after the series `after`.
func (s *shard) byLife(after uint32) (list []seriesLife) {
	s.mu.Lock()
	for id, r := range s.inUseLocked {
		if r.flags&flagShadow == 0 && r.life > after {
			list = append(list, seriesLife{id, r.life})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(list, func(a, b seriesLife) int { return cmp.Compare(a.life, b.life) })
	return list
}

// first is the list that begins with the series that was made first, or −1 if
// all are empty.
func first(lists [][]seriesLife) int {
	k, least := -1, uint64(math.MaxUint64)
	for i, list := range lists {
		if len(list) > 0 && uint64(list[0].life) < least {
			k, least = i, uint64(list[0].life)
		}
	}
	return k
}

// saveWindow is a few series in the order in which they were made. They are
// encoded by shard: its lock is taken once for many, and what lies together in
// memory is read together.
type saveWindow struct {
	series  []savePlace
	encoded []byte
}

// savePlace is one series of a window.
type savePlace struct {
	shard    int
	id       uint32
	from, to int // in encoded
	points   uint64
}

const (
	saveWindowSeries = 512 // some 350 KB
	seriesPerPiece   = 64  // encoded under one hold of a shard's lock
)

// take takes the series that were made first off the lists.
func (w *saveWindow) take(lists [][]seriesLife) {
	w.series = w.series[:0]
	for len(w.series) < saveWindowSeries {
		k := first(lists)
		if k < 0 {
			break
		}
		w.series = append(w.series, savePlace{shard: k, id: lists[k][0].id})
		lists[k] = lists[k][1:]
	}
}

// encode encodes those that are still there.
func (w *saveWindow) encode(c *Cache) {
	w.encoded = w.encoded[:0]
	for k, s := range c.shards {
		n := 0
		for i := range w.series {
			x := &w.series[i]
			if x.shard != k {
				continue
			}
			if n%seriesPerPiece == 0 {
				if n > 0 {
					s.mu.Unlock()
				}
				s.mu.Lock()
			}
			n++
			x.from = len(w.encoded)
			if int(x.id) < s.recs.Len() && s.recs.At(x.id).flags&flagInUse != 0 && s.recs.At(x.id).flags&flagShadow == 0 {
				w.encoded, x.points = s.appendSeriesLocked(w.encoded, x.id)
			}
			x.to = len(w.encoded)
		}
		if n > 0 {
			s.mu.Unlock()
		}
	}
}

// appendSeriesLocked encodes one series. One that holds nothing any more is
// noted as gone: the file has no place for what it lost, but for what its
// bucket notes.
func (s *shard) appendSeriesLocked(dst []byte, id uint32) ([]byte, uint64) {
	r := s.recs.At(id)
	if !s.pruneLocked(r) {
		s.noteGoneLocked(r) // it is not in the file, what it lost is
		return dst, 0
	}
	b := s.cache.bucket(r.bucket)
	kind := byte(saveLabelled)
	if r.flags&flagRaw != 0 {
		kind = saveRaw
		if b.width.Load() == widthHPTS {
			kind = saveRawPairs
		}
	}
	dst = appendText(append(dst, kind), b.name)
	x := &s.index
	pairs := x.Set(r.pairs, int(r.nPairs))[1:] // without the bucket
	dst = binary.AppendUvarint(dst, uint64(len(pairs)))
	for _, p := range pairs {
		name, value := x.Name(p), x.Value(p)
		dst = append(binary.AppendUvarint(dst, uint64(len(name))), name...)
		dst = append(binary.AppendUvarint(dst, uint64(len(value))), value...)
	}
	what := len(dst)
	dst = append(dst, 0)
	if t, dirty := s.unsentFromLocked(id); dirty {
		dst[what] |= savedDirty
		dst = binary.AppendVarint(dst, t)
	}
	if r.completeFrom != math.MinInt64 {
		dst[what] |= savedLost
		dst = binary.AppendVarint(dst, r.completeFrom)
	}
	dst, points, records := s.appendBlocksLocked(dst, r)
	if shadow := s.shadowLocked(r); shadow != noID {
		s.pruneLocked(s.recs.At(shadow))
		dst, _, _ = s.appendBlocksLocked(dst, s.recs.At(shadow))
	} else {
		dst = binary.AppendUvarint(dst, 0)
	}
	entries := s.recordDirLocked(r).entries()
	dst = binary.AppendUvarint(dst, uint64(records.Len()+len(entries)))
	for records.Len() > 0 {
		start, b := records.Next()
		dst = appendText(binary.AppendVarint(dst, start), string(b))
		points += uint64(block.RecordCount(b))
	}
	for _, e := range entries {
		b := s.blockLocked(e)
		dst = binary.AppendVarint(dst, e.start)
		dst = appendText(dst, string(b[:block.RecordBytes(b)]))
		points += uint64(block.RecordCount(b))
	}
	return dst, points
}

// appendBlocksLocked encodes the blocks of r, which was pruned, those of its blob
// first, and its head. It returns the chunks of records in its blob.
func (s *shard) appendBlocksLocked(dst []byte, r *series) (_ []byte, points uint64, records block.Chunks) {
	o, _ := s.blobOfLocked(r)
	dir := s.dirOfLocked(r)
	head := headSamples(s.samples[:0], r, s.hot.Pointer(r.head))
	n := o.Blocks.Len() + len(dir)
	if len(head) > 0 {
		n++
	}
	dst = binary.AppendUvarint(dst, uint64(n))
	for o.Blocks.Len() > 0 {
		start, b := o.Blocks.Next()
		dst = binary.AppendVarint(dst, start)
		dst = binary.AppendUvarint(dst, uint64(len(b)))
		dst = append(dst, b...)
		points += uint64(block.Len(b))
	}
	for _, e := range dir {
		b := s.sealedFormLocked(r, s.blockLocked(e), e.start)
		dst = binary.AppendVarint(dst, e.start)
		dst = binary.AppendUvarint(dst, uint64(len(b)))
		dst = append(dst, b...)
		points += uint64(block.Len(b))
	}
	if len(head) > 0 {
		s.encoded = s.codec.Encode(s.encoded[:0], head, int64(r.step))
		dst = binary.AppendVarint(dst, head[0].T)
		dst = binary.AppendUvarint(dst, uint64(len(s.encoded)))
		dst = append(dst, s.encoded...)
		points += uint64(len(head))
	}
	return dst, points, o.Records
}

func (c *Cache) appendSizes(dst []byte) []byte {
	z := saveSizes{shards: uint64(len(c.shards))}
	for _, s := range c.shards {
		s.mu.Lock()
		z.series += uint64(s.live)
		x := s.index.Sizes()
		z.setBytes += uint64(x.Sets)
		z.textBytes += uint64(x.Text)
		z.pairs += uint64(x.Pairs)
		z.postingBytes += uint64(x.Postings)
		s.mu.Unlock()
	}
	for _, v := range z.fields() {
		dst = binary.AppendUvarint(dst, *v)
	}
	return dst
}

// appendGone encodes what buckets remember of series that left whole.
func (c *Cache) appendGone(dst []byte) []byte {
	for _, b := range *c.byName.Load() {
		g := b.gone.Load()
		if g == nil {
			continue
		}
		dst = appendText(dst, b.name)
		n := 0
		for i := range g {
			if g[i].Load() != notGone {
				n++
			}
		}
		dst = binary.AppendUvarint(dst, uint64(n))
		for i := range g {
			if t := g[i].Load(); t != notGone && n > 0 { // one that was noted meanwhile is left out
				dst = binary.AppendVarint(binary.AppendUvarint(dst, uint64(i)), t)
				n--
			}
		}
	}
	return dst
}
