package send

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"unsafe"

	"github.com/golang/snappy"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// What is sent is compressed, and a compressor spends its time on finding out
// what repeats. In a run of samples that is known beforehand. On the wire a
// sample is as a rule 18 bytes, and at least 6 of them are what they were 18
// bytes before:
//
//	12 10 09 v0 v1 v2 v3 v4 v5 v6 v7 10 t0 t1 t2 t3 t4 t5 12 10 09 v0 v1 …
//	         └──────── value ──────┘    └changes┘└─── copied ────┘
//	                                             └─ if v0 is what it was ─┘
//
// t3 to t5 change every half an hour, low bytes of values are often zero, and
// values that do not change are copied together with what is before and behind
// them. If the series before has the same times, as those of one target have,
// 10 bytes and more are copied from there instead. So a packer writes a snappy
// block without a search: it says for samples what is copied from the sample or
// the series before, and for labels what is copied from where they were last.
// The symbols of protocol 2.0 do go through a compressor; its output joins ours,
// since copies go by distance.
//
// Every decoder reads it: copies reach back no further than 64 KiB, which is
// what encoders keep to. In runs of 60 it takes 6 ns a sample where writing it
// out and compressing that take 27, and 9.1 bytes in place of 7.6; in runs of
// 4, 26 ns in place of 41, and 11.6 bytes in place of 7.9 (BenchmarkPack, 2.0).
// klauspost's s2 takes as long as golang/snappy.

// packer makes a snappy block of what is appended to text, and of samples.
type packer struct {
	out    []byte  // packed, behind room for the header
	n      int     // bytes that out stands for
	copied stretch // what comes behind out: what is there
	text   []byte  // what comes behind that

	run     run    // that was packed last
	like    []byte // the text that was packed like the one before it the last time
	likeAt  int    // where that begins
	scratch []byte
	table   []byte // that goes before all the rest; the caller's
	behind  []byte // what out was before prepend

	numbered []numberedLabel // in protocol 1.0, by the numbers of labels
}

type numberedLabel struct {
	bytes   int // that it takes; 0 if it did not occur yet
	stretch     // where it was last
}

// stretch is a range of bytes, counted unpacked.
type stretch struct{ from, to int }

const (
	packHeaderBytes = binary.MaxVarintLen32
	// maxCopyBack is the largest distance that the two bytes of a copy tell.
	maxCopyBack = 1<<16 - 1
	// compressFrom is the length from which on a text is worth a search.
	compressFrom = 1 << 10
)

func (p *packer) reset() {
	p.out = append(p.out[:0], make([]byte, packHeaderBytes)...)
	p.n, p.copied, p.text, p.like, p.run = 0, stretch{}, p.text[:0], p.like[:0], run{}
}

// prepend puts a table before all that was packed: copies go by distance. Nothing may be
// packed behind it.
func (p *packer) prepend(table []byte) {
	p.flush()
	behind, n := p.out, p.n
	p.table, p.out, p.behind = table, p.behind, behind
	p.reset()
	p.text = append(p.text, table...)
	p.flush()
	p.out, p.n = append(p.out, behind[packHeaderBytes:]...), p.n+n
}

// block is all of it as a block of snappy, valid until the next reset.
func (p *packer) block() []byte {
	p.flush()
	p.run = run{} // which are not ours to keep
	var header [packHeaderBytes]byte
	n := binary.PutUvarint(header[:], uint64(p.n))
	from := packHeaderBytes - n
	copy(p.out[from:], header[:n])
	return p.out[from:]
}

// cap is the size of the buffers that grow with what is packed.
func (p *packer) cap() int {
	return cap(p.out) + cap(p.text) + cap(p.like) + cap(p.scratch) + cap(p.table) + cap(p.behind) + cap(p.numbered)*int(unsafe.Sizeof(numberedLabel{}))
}

// here is the place of what is appended next.
func (p *packer) here() int { return p.n + p.copied.to - p.copied.from + len(p.text) }

// again repeats a stretch. It reports false, and does nothing, if that
// is too far back.
func (p *packer) again(at stretch) bool {
	if p.here()-at.from > maxCopyBack {
		return false
	}
	if len(p.text) == 0 && p.copied.to == at.from && p.copied.to > p.copied.from {
		p.copied.to = at.to
		return true
	}
	p.flush()
	p.copied = at
	return true
}

// flush packs what is not packed yet.
func (p *packer) flush() {
	p.flushCopied()
	if len(p.text) < compressFrom {
		p.out = appendLiteral(p.out, p.text)
	} else {
		p.scratch = snappy.Encode(p.scratch[:cap(p.scratch)], p.text)
		_, header := binary.Uvarint(p.scratch)
		p.out = append(p.out, p.scratch[header:]...)
	}
	p.n += len(p.text)
	p.text = p.text[:0]
}

func (p *packer) flushCopied() {
	if n := p.copied.to - p.copied.from; n > 0 {
		p.out = appendCopy(p.out, p.n-p.copied.from, n)
		p.n += n
		p.copied = stretch{}
	}
}

// flushLike is flush for a text that may be like the one that the last
// flushLike was for: most of its bytes are the same at the same places.
func (p *packer) flushLike() {
	if len(p.text) >= compressFrom {
		p.flush()
		return
	}
	p.flushCopied()
	text, before, back := p.text, p.like, p.n-p.likeAt
	from := 0 // of what is not packed yet
	if len(before) == len(text) && back <= maxCopyBack {
		for i := 0; i+8 <= len(text); {
			x := binary.LittleEndian.Uint64(text[i:]) ^ binary.LittleEndian.Uint64(before[i:])
			if x != 0 {
				i += 8 - bits.LeadingZeros64(x)/8 // behind the last that differs
				continue
			}
			end := equalTo(text, before, i+8)
			p.out = appendCopy(appendLiteral(p.out, text[from:i]), back, end-i)
			i, from = end, end
		}
	}
	p.out = appendLiteral(p.out, text[from:])
	p.text, p.like, p.likeAt = before[:0], text, p.n
	p.n += len(text)
}

// equalTo is where a and b, which are as long as the other, differ first. The 8
// bytes before i do not.
func equalTo(a, b []byte, i int) int {
	for ; i+8 <= len(a); i += 8 {
		if x := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); x != 0 {
			return i + bits.TrailingZeros64(x)/8
		}
	}
	i = len(a) - 8
	return i + bits.TrailingZeros64(binary.LittleEndian.Uint64(a[i:])^binary.LittleEndian.Uint64(b[i:]))/8
}

// appendLiteral appends bytes that stand for themselves, of which there are
// fewer than compressFrom.
func appendLiteral(dst, text []byte) []byte {
	switch n := len(text) - 1; {
	case n < 0:
		return dst
	case n < 60:
		dst = append(dst, byte(n)<<2)
	case n < 1<<8:
		dst = append(dst, 60<<2, byte(n))
	default:
		dst = append(dst, 61<<2, byte(n), byte(n>>8))
	}
	return append(dst, text...)
}

// appendCopy appends that n bytes are those from back bytes before on.
func appendCopy(dst []byte, back, n int) []byte {
	for n > 64 {
		dst = append(dst, 63<<2|2, byte(back), byte(back>>8))
		n -= 64
	}
	return append(dst, byte(n-1)<<2|2, byte(back), byte(back>>8))
}

// A regular sample has a time of six bytes, and all of its value is written,
// though it be 0: every one takes as much as the other.
const (
	regularBytes   = 18
	regularMessage = regularBytes - 2
	// regularTimeBytes is what a sample ends with: the tag and the time.
	regularTimeBytes = 7
	regularHead      = wire.TagV1SeriesSample | regularMessage<<8 | wire.TagSampleValue<<16
	minRegularTime   = 1 << 35 // February 1971
	maxRegularTime   = 1<<42 - 1
)

// shape is what is known of the samples of a series, and lets them be packed.
type shape uint8

const (
	irregular shape = iota
	regular         // all samples are
	sameTimes       // and have the times of those packed before
)

func shapeOf(ss []mcache.Sample) shape {
	if areRegular(ss) {
		return regular
	}
	return irregular
}

// shapeOf is the shape of samples that are packed next.
func (p *packer) shapeOf(ss []mcache.Sample) shape {
	if p.run.sameTimes(ss) {
		return sameTimes
	}
	return shapeOf(ss)
}

// areRegular reports whether all samples are.
func areRegular(ss []mcache.Sample) bool {
	irregular := false
	for i := range ss {
		irregular = irregular || uint64(ss[i].T-minRegularTime) > maxRegularTime-minRegularTime
	}
	return !irregular
}

// regularTime is the varint of a regular time, in six bytes.
func regularTime(t int64) uint64 {
	x := uint64(t)
	x = x&(1<<28-1) | x&^(1<<28-1)<<4
	x = x&0x00003fff_00003fff | x&0x0fffc000_0fffc000<<2
	x = x&0x007f007f_007f007f | x&0x3f803f80_3f803f80<<1
	return x | 0x8080808080
}

func appendRegular(dst []byte, x mcache.Sample) []byte {
	dst = append(dst, regularHead&0xff, regularHead>>8&0xff, regularHead>>16)
	dst = binary.LittleEndian.AppendUint64(dst, x.V)
	return binary.LittleEndian.AppendUint64(dst, wire.TagSampleTime|regularTime(x.T)<<8)[:len(dst)+7]
}

// run is where a run of regular samples is, in bytes unpacked.
type run struct {
	samples []mcache.Sample
	at      int
}

// sameTimes reports whether ss, of which there are some, have the times of the
// first samples of r.
func (r run) sameTimes(ss []mcache.Sample) bool {
	if len(ss) > len(r.samples) || len(ss) == 0 {
		return false
	}
	other := r.samples[:len(ss)]
	for i := range ss {
		if ss[i].T != other[i].T {
			return false
		}
	}
	return true
}

// samples packs samples behind the text, and returns the text that goes on
// behind them.
func (p *packer) samples(ss []mcache.Sample, starts []int64, shape shape) []byte {
	if shape == irregular || len(ss) == 0 {
		p.text = appendSamples(p.text, ss, starts, shape)
		p.flushLike()
		return p.text
	}
	before := p.run
	p.run = run{ss, p.here()}
	p.text = appendRegular(p.text, ss[0])
	if shape == sameTimes && p.run.at-before.at <= maxCopyBack {
		p.text = p.text[:len(p.text)-regularTimeBytes]
		p.flushLike()
		back := p.run.at - before.at
		p.out = packValues(slices.Grow(p.out, len(ss)*maxPackedSample), ss, before.samples, back)
		p.n += (len(ss) - 1) * regularBytes
		p.copied = stretch{p.n - back, p.n - back + regularTimeBytes}
		return p.text
	}
	// The first sample and the beginning of the second go with the text, which
	// that of the series before is like; the end of the last with what follows.
	const rest = 3 // t3 to t5
	if len(ss) == 1 {
		p.flushLike()
		return p.text
	}
	p.text = append(p.text, regularHead&0xff, regularHead>>8&0xff, regularHead>>16)
	p.flushLike()
	p.out = packSamples(slices.Grow(p.out, len(ss)*maxPackedSample), ss)
	p.n += (len(ss)-1)*regularBytes - 2*rest
	tail := regularTime(ss[len(ss)-1].T) >> 24
	return append(p.text, byte(tail), byte(tail>>8), byte(tail>>16))
}

// maxPackedSample is what packSamples and packValues write for a sample at
// most, and what they may write over behind that.
const maxPackedSample = 7 + 1 + 12 + 8

// packSamples packs what is from the value of the second sample to the third
// byte of the time of the last. dst has room for maxPackedSample for each.
func packSamples(dst []byte, ss []mcache.Sample) []byte {
	n := len(dst)
	dst = dst[:cap(dst)]
	tail := regularTime(ss[0].T) >> 24
	value := ss[0].V
	same := false // the tail of the sample before is that of the one before that
	for i := 1; i < len(ss); i++ {
		b := dst[n : n+maxPackedSample]
		time := regularTime(ss[i].T)
		x := value ^ ss[i].V
		value = ss[i].V
		switch {
		case same && x == 0:
			// Copy 15, from t3 to the tag of the time; literal 3.
			binary.LittleEndian.PutUint64(b, (15-1)<<2|2|regularBytes<<8|(3-1)<<2<<24|time<<32)
			n += 7
		case same:
			// Copy 6 to 11; literal 12 to 7.
			k := min(bits.TrailingZeros64(x)/8, 5)
			b[0], b[1], b[2] = byte(6+k-4)<<2|1, regularBytes, byte(12-k-1)<<2
			binary.LittleEndian.PutUint64(b[3:], value>>(8*k))
			binary.LittleEndian.PutUint32(b[11-k:], uint32(wire.TagSampleTime|time<<8))
			n += 15 - k
		case i == 1:
			b[0] = (12 - 1) << 2
			binary.LittleEndian.PutUint64(b[1:], value)
			binary.LittleEndian.PutUint32(b[9:], uint32(wire.TagSampleTime|time<<8))
			n += 13
		default:
			binary.LittleEndian.PutUint64(b, (18-1)<<2|tail<<8|regularHead<<32)
			binary.LittleEndian.PutUint64(b[7:], value)
			binary.LittleEndian.PutUint32(b[15:], uint32(wire.TagSampleTime|time<<8))
			n += 19
		}
		same = time>>24 == tail
		tail = time >> 24
	}
	return dst[:n]
}

// packValues packs what is from the time of the first sample to the value of
// the last, when before, so many bytes back, has the same times.
func packValues(dst []byte, ss, before []mcache.Sample, back int) []byte {
	n := len(dst)
	dst = dst[:cap(dst)]
	before = before[:len(ss)]
	const between = regularTimeBytes + 3 // from the tag of a time to that of the next value
	for i := 1; i < len(ss); i++ {
		b := dst[n : n+maxPackedSample]
		value := ss[i].V
		k := bits.TrailingZeros64(value^before[i].V) / 8 // bytes as in the series before
		own := bits.TrailingZeros64(value^ss[i-1].V) / 8 // bytes as in the sample before
		b[0], b[1], b[2] = byte(between+k-1)<<2|2, byte(back), byte(back>>8)
		switch {
		case k == 8:
			n += 3
		case own == 8:
			b[0] = (between-1)<<2 | 2
			b[3], b[4] = (8-4)<<2|1, regularBytes
			n += 5
		case own > max(k+2, 3):
			b[0] = (between-1)<<2 | 2
			b[3], b[4], b[5] = byte(own-4)<<2|1, regularBytes, byte(8-own-1)<<2
			binary.LittleEndian.PutUint64(b[6:], value>>(8*own))
			n += 14 - own
		default:
			b[3] = byte(8-k-1) << 2
			binary.LittleEndian.PutUint64(b[4:], value>>(8*k))
			n += 12 - k
		}
	}
	return dst[:n]
}
