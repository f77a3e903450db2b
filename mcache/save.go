package mcache

import (
	"encoding/binary"
	"errors"
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
//	series: kind (1) | bucket | labels (uvarint), each name and value |
//	        what follows (1) | with savedDirty: the time (varint) from which on it
//	        has points that a downstream store has not acknowledged | with
//	        savedLost: that from which on nothing of it is missing |
//	        chunks: of blocks, of start times, of records, each a count (uvarint) of
//	        time of the first point (varint), length (uvarint), bytes
//
// Text is its length (uvarint) and bytes. Blocks are as they lie in memory; a
// head is written as one more block. Everything is checked when it is read.
const (
	saveMagic      = "mcached series\x00\x01"
	saveVersion    = 2
	saveOldest     = 1 // which has nothing of what was not acknowledged
	saveHeader     = len(saveMagic) + 4 + 8
	frameHeader    = 8
	frameBytes     = 256 << 10 // a frame ends with the series that reaches it
	maxFrameBytes  = 1 << 30   // what Load will allocate for one
	savedDirty     = 1
	savedLost      = 2
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
