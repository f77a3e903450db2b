package send

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// A run is as a rule like the one before it: it has the same labels but for one or two, as
// many samples, and the times of these if both were scraped together. Its message is then as
// long, and differs in some references, in values, and in metadata if the metric is another:
//
//	2a length 0a length │ ref ref … ref ref │ 12 10 09 v0 … v7 10 t0 … t5 │ … │ metadata
//	                          └─┘    └─┘               └── v ──┘                └──────┘
//
// So it is not written to be compared with that: what differs is a literal, and all between
// is copied from as many bytes back as the message has.

// lastMessage is the message that was packed last, if it is there: if it was that of a plain run
// with regular samples.
type lastMessage struct {
	numbers  []uint32 // of the labels of the run before, whatever that is
	refs     []byte   // references as they are written, and maxRefsBytes behind them
	at       []int    // where those of each label begin, and the last end; empty: there is no message
	named    int      // place of the label that is the name, noName if none is
	metadata []byte   // of that, what is written behind the samples
	samples  int

	bytes       int // of all
	refsAt      int // where refs begin
	firstSample int // where that begins

	differ []difference // of the next from it
}

// noName is behind all labels that may have changed.
const noName = 32

func (l *lastMessage) forget()       { l.at = l.at[:0] }
func (l *lastMessage) isThere() bool { return len(l.at) > 0 }

// difference is where a message is other than that before it, in 1 to 8 bytes.
type difference struct {
	at, bytes uint32
	text      uint64 // the first of it
}

// differ notes that of the bytes from place at on, of which there are so many, up to 8, those
// are now where bits of x are set, which are not all zero.
func differ(at uint32, now, x uint64, bytes uint32) difference {
	from := uint32(bits.TrailingZeros64(x)) / 8
	return difference{at + from, bytes - from, now >> (8 * from & 63)}
}

// setRefs makes references those of label k, if they are as long. It reports whether they are.
func (l *lastMessage) setRefs(k int, refs *numberedRefs) bool {
	at := l.at[k]
	if l.at[k+1]-at != int(refs.bytes) {
		return false
	}
	text := l.refs[at:][:maxRefsBytes]
	was := binary.LittleEndian.Uint64(text)
	unused := (64 - 8*refs.bytes) & 63
	if x := (was ^ refs.text) << unused >> unused; x != 0 {
		binary.LittleEndian.PutUint64(text, was^x)
		l.differ = append(l.differ, differ(uint32(l.refsAt+at), refs.text, x, refs.bytes))
	}
	return true
}

// setValues notes the differences of values.
func (l *lastMessage) setValues(ss, before []mcache.Sample) {
	l.differ = slices.Grow(l.differ, len(ss))
	n, all := len(l.differ), l.differ[:cap(l.differ)]
	at := uint32(l.firstSample) + regularBytes - regularTimeBytes - 8
	before = before[:len(ss)]
	for i := range ss {
		if x := ss[i].V ^ before[i].V; x != 0 {
			bytes := uint32(8) // the highest are often the same; to count how many takes longer
			if x < 1<<56 {
				bytes = 7
			}
			if x < 1<<48 {
				bytes = 6
			}
			all[n] = differ(at, ss[i].V, x, bytes)
			n++
		}
		at += regularBytes
	}
	l.differ = all[:n]
}

// setMetadata makes the metadata these, which are as long.
func (l *lastMessage) setMetadata(text []byte) {
	if bytes.Equal(text, l.metadata) {
		return
	}
	l.metadata = text
	for at := l.bytes - len(text); len(text) > 0; at += 8 {
		var b [8]byte
		n := copy(b[:], text)
		l.differ = append(l.differ, difference{uint32(at), uint32(n), binary.LittleEndian.Uint64(b[:])})
		text = text[n:]
	}
}

// packPlain packs a run. fit is what learn has said of it.
func (e *EncoderV2) packPlain(p *packer, r *mcache.PlainRun, fit bool) {
	l := &e.last
	if fit && len(r.Samples) == l.samples && l.bytes <= maxCopyBack {
		metadata := l.metadata
		if r.Changed>>l.named&1 != 0 {
			metadata = e.metadataText(l.numbers[l.named])
		}
		before := p.run
		if sameTimes := before.sameTimes(r.Samples); len(metadata) == len(l.metadata) && (sameTimes || areRegular(r.Samples)) {
			start := p.here()
			if !sameTimes {
				p.packDifferences(l.differ, l.bytes, l.firstSample)
				l.metadata = metadata
				p.text = append(p.samples(r.Samples, nil, regular), metadata...)
				return
			}
			p.run = run{r.Samples, start + l.firstSample}
			l.setValues(r.Samples, before.samples)
			l.setMetadata(metadata)
			p.packDifferences(l.differ, l.bytes, l.bytes)
			return
		}
	}
	e.writeRefs()
	shape, refs := p.shapeOf(r.Samples), l.refs[:l.at[len(l.numbers)]]
	bytes := 1 + sized(len(refs)) + samplesBytes(r.Samples, nil, shape) + len(l.metadata)
	p.text = appendHead(appendHead(p.text, wire.TagV2Series, bytes), wire.TagV2SeriesRefs, len(refs))
	p.text = append(p.text, refs...)
	p.text = append(p.samples(r.Samples, nil, shape), l.metadata...)
	if shape == irregular {
		l.forget()
		return
	}
	l.samples, l.bytes = len(r.Samples), 1+sized(bytes)
	l.firstSample = l.bytes - len(l.metadata) - len(r.Samples)*regularBytes
	l.refsAt = l.firstSample - len(refs)
}

// writeRefs writes the references and metadata of a message.
func (e *EncoderV2) writeRefs() {
	l := &e.last
	l.refs = slices.Grow(l.refs[:0], maxRefsBytes*(len(l.numbers)+1))
	l.at, l.metadata, l.named = append(l.at[:0], 0), nil, noName
	for k, n := range l.numbers {
		r := &e.numbered[n]
		l.refs = binary.LittleEndian.AppendUint64(l.refs, r.text)[:len(l.refs)+int(r.bytes)]
		l.at = append(l.at, len(l.refs))
		if r.described > 0 {
			l.metadata, l.named = e.metadataText(n), k
		}
	}
	l.refs = l.refs[:len(l.refs)+maxRefsBytes]
}

// packDifferences packs the bytes before end of a message that follows at once on one of as
// many bytes, and differs from it so.
func (p *packer) packDifferences(differ []difference, bytes, end int) {
	done, start := 0, p.here() // done of the message; if negative, as much of what is before that is to be copied, too
	if n := p.copied.to - p.copied.from; n > 0 && len(p.text) == 0 && p.n-p.copied.from == bytes {
		done = -n
		p.copied = stretch{}
	} else {
		p.flush()
	}
	const (
		copyBytes = 3 // that stand for 64 that are copied, or fewer
		most      = copyBytes + 1 + 8
	)
	p.out = slices.Grow(p.out, len(differ)*most+(bytes/32+2)*copyBytes)
	n, out := len(p.out), p.out[:cap(p.out)]
	back := uint32(bytes)<<8 | 2
	for i := range differ {
		d := &differ[i]
		same := int(d.at) - done
		for ; same > 64; same -= 64 {
			binary.LittleEndian.PutUint32(out[n:], 63<<2|back)
			n += copyBytes
		}
		b := out[n : n+most]
		if same > 0 {
			binary.LittleEndian.PutUint32(b, uint32(same-1)<<2|back|(d.bytes-1)<<26)
			binary.LittleEndian.PutUint64(b[copyBytes+1:], d.text)
			n += copyBytes
		} else {
			b[0] = byte(d.bytes-1) << 2
			binary.LittleEndian.PutUint64(b[1:], d.text)
		}
		n += 1 + int(d.bytes)
		done = int(d.at + d.bytes)
	}
	p.out, p.n = out[:n], start+done
	p.copied = stretch{p.n - bytes, start + end - bytes}
}
