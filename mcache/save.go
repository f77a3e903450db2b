package mcache

import (
	"cmp"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math"
	"slices"
)

// Save and Load carry a cache over a restart, through a file of frames:
//
//	header: magic (16 bytes) | version (4) | time of saving in ms (8)
//	frame: length of the payload (4) | CRC-32C of it (4) | payload
//	payload: series, one behind the other; the last is empty but for
//	         counts of series (8) and points (8), so that a cut file shows
//	first of all: saveSize (1) | see saveSizes, each a uvarint
//	last of all: for each bucket of which series left whole: saveGone (1) | bucket |
//	        number of groups of names, for each: group (uvarint), time (varint) from
//	        which on nothing of the group is missing
//	series: kind (1) | bucket | labels (uvarint), each name and value |
//	        what follows (1) | with savedDirty: the time (varint) from which on it
//	        has points that a downstream store has not acknowledged | with
//	        savedLost: that from which on nothing of it is missing |
//	        chunks: of blocks, of start times, of records, each a count (uvarint) of
//	        time of the first point (varint), length (uvarint), bytes
//
// Text is its length (uvarint) and bytes. Blocks are as they lie in memory; a
// head is written as one more block. Everything is checked when it is read.
//
// Series are written in the order in which they were made, over all shards: so
// they have most of their labels in common with those before, which spares
// Load most of the work, and batches go on finding them in order (find.go).
const (
	saveMagic     = "mcached series\x00\x01"
	saveVersion   = 3
	saveOldest    = 1 // which has nothing of what was not acknowledged; 2 has no sizes and nothing of what is gone
	saveHeader    = len(saveMagic) + 4 + 8
	frameHeader   = 8
	frameBytes    = 256 << 10 // a frame ends with the series that reaches it
	maxFrameBytes = 1 << 30   // what Load will allocate for one
	savedDirty    = 1
	savedLost     = 2
	saveLabelled  = 'L'
	saveRaw       = 'R'
	saveRawPairs  = 'P'
	saveSize      = 'N'
	saveGone      = 'G'
	saveEndBytes  = 16
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
	buf = c.appendSizes(buf)
	if err := flush(frameHeader); err != nil {
		return st, err
	}
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
					buf = append(buf, window.encoded[x.from:x.to]...)
					st.Series++
					st.Points += x.points
				}
				if len(buf) >= frameBytes {
					if err := flush(frameHeader); err != nil {
						return st, err
					}
				}
			}
		}
		after = before
	}
	if buf = c.appendGone(buf); len(buf) > frameHeader {
		if err := flush(frameHeader); err != nil {
			return st, err
		}
	}
	buf = le.AppendUint64(buf, st.Series)
	buf = le.AppendUint64(buf, st.Points)
	return st, flush(frameHeader)
}

// seriesLife is a series in the order in which they were made.
type seriesLife struct{ id, life uint32 }

// byLife lists the series of a shard in the order in which they were made, of
// those that were made after the series `after`.
func (s *shard) byLife(after uint32) (list []seriesLife) {
	s.mu.Lock()
	for id, r := range s.inUse {
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
			if int(x.id) < s.recs.n && s.recs.view[x.id].flags&flagInUse != 0 && s.recs.view[x.id].flags&flagShadow == 0 {
				w.encoded, x.points = s.appendSeries(w.encoded, x.id)
			}
			x.to = len(w.encoded)
		}
		if n > 0 {
			s.mu.Unlock()
		}
	}
}

// appendSeries encodes one series, or nothing if it holds nothing.
func (s *shard) appendSeries(dst []byte, id uint32) ([]byte, uint64) {
	r := &s.recs.view[id]
	if !s.prune(r) {
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
	pairs := x.set(r.pairs, int(r.nPairs))[1:] // without the bucket
	dst = binary.AppendUvarint(dst, uint64(len(pairs)))
	for _, p := range pairs {
		name, value := x.name(p), x.value(p)
		dst = append(binary.AppendUvarint(dst, uint64(len(name))), name...)
		dst = append(binary.AppendUvarint(dst, uint64(len(value))), value...)
	}
	what := len(dst)
	dst = append(dst, 0)
	if t, dirty := s.unsentFrom(id); dirty {
		dst[what] |= savedDirty
		dst = binary.AppendVarint(dst, t)
	}
	if r.completeFrom != math.MinInt64 {
		dst[what] |= savedLost
		dst = binary.AppendVarint(dst, r.completeFrom)
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

// saveSizes is what Load makes room for before it begins: of the index, over
// all shards. It is a hint; without memory for it Load goes on without.
type saveSizes struct {
	shards, series, setBytes, textBytes, pairs, postingBytes uint64
}

func (z *saveSizes) fields() []*uint64 {
	return []*uint64{&z.shards, &z.series, &z.setBytes, &z.textBytes, &z.pairs, &z.postingBytes}
}

func (c *Cache) appendSizes(dst []byte) []byte {
	z := saveSizes{shards: uint64(len(c.shards))}
	for _, s := range c.shards {
		s.mu.Lock()
		z.series += uint64(s.live)
		z.setBytes += uint64(s.index.sets.used)
		z.textBytes += uint64(s.index.text.used)
		z.pairs += uint64(s.index.pairs.n)
		z.postingBytes += uint64(s.index.chunks.used)
		s.mu.Unlock()
	}
	dst = append(dst, saveSize)
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
		dst = appendText(append(dst, saveGone), b.name)
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
