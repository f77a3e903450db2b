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
// is copied from as many bytes back as the message has. A run that has other times, or more or
// fewer bytes, is written out and packed like any series (pack.go).

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

	differ []difference // of the references of the next from these
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
		from := uint32(bits.TrailingZeros64(x)) / 8
		l.differ = append(l.differ, difference{uint32(l.refsAt+at) + from, refs.bytes - from, refs.text >> (8 * from & 63)})
	}
	return true
}

// packPlain packs a run. fit is what learn has said of it.
func (e *EncoderV2) packPlain(p *packer, r *mcache.PlainRun, fit bool) {
	l := &e.last
	if fit && len(r.Samples) == l.samples && l.bytes <= maxCopyBack {
		metadata := l.metadata
		if r.Changed>>l.named&1 != 0 {
			metadata = e.metadataText(l.numbers[l.named])
		}
		if len(metadata) == len(l.metadata) && p.alike(l, r.Samples, metadata) {
			l.metadata = metadata
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

const (
	copyBytes = 3 // that stand for 64 that are copied, or fewer
	// maxDifference is what one takes at most, and writes over behind that, but for what more
	// than 64 bytes take that are the same.
	maxDifference = copyBytes + 1 + 8
)

// alike packs a message that follows at once on the last, is as long, and has these samples
// and metadata. It reports false, and has packed nothing, if the times are other ones.
func (p *packer) alike(l *lastMessage, ss []mcache.Sample, metadata []byte) bool {
	start, same := p.here(), 0 // so many bytes are to be copied next, all from as far back
	if n := p.copied.to - p.copied.from; len(p.text) == 0 && p.n-p.copied.from == l.bytes {
		same = n
	} else {
		p.flush()
	}
	p.out = slices.Grow(p.out, (len(l.differ)+len(ss)+len(metadata))*maxDifference+(l.bytes/32+2)*copyBytes)
	n, out, op := len(p.out), p.out[:cap(p.out)], uint32(l.bytes)<<8|2
	n, done, same := putDifferences(out, n, op, same, l.differ)
	const before = regularBytes - regularTimeBytes - 8 // a value, tags
	same += l.firstSample + before - done
	others := p.run.samples[:len(ss)] // of the last
	for i := range ss {
		if ss[i].T != others[i].T {
			return false
		}
		v := ss[i].V
		x := v ^ others[i].V
		if x == 0 {
			same += regularBytes
			continue
		}
		end := uint32(8) // the highest bytes are often the same; to count how many takes longer
		if x < 1<<56 {
			end = 7
		}
		if x < 1<<48 {
			end = 6
		}
		from := uint32(bits.TrailingZeros64(x)) / 8
		same += int(from)
		for ; same > 64; same -= 64 {
			binary.LittleEndian.PutUint32(out[n:], 63<<2|op)
			n += copyBytes
		}
		b := out[n : n+maxDifference]
		binary.LittleEndian.PutUint32(b, uint32(same-1)<<2|op|(end-from-1)<<26)
		binary.LittleEndian.PutUint64(b[copyBytes+1:], v>>(8*from&63))
		n += copyBytes + 1 + int(end-from)
		same = regularBytes - int(end)
	}
	same -= before
	if p.out = out[:n]; bytes.Equal(metadata, l.metadata) {
		same += len(metadata)
	} else {
		p.out = appendLiteral(appendCopy(p.out, l.bytes, same), metadata)
		same = 0
	}
	p.run = run{ss, start + l.firstSample}
	end := start + l.bytes
	p.n = end - same
	p.copied = stretch{p.n - l.bytes, end - l.bytes}
	return true
}

// putDifferences packs what differs to place n of out, and returns the place behind it. op is
// the tag and the distance of a copy; same how many bytes are to be copied before the message,
// and afterwards, before place done of it.
func putDifferences(out []byte, n int, op uint32, same int, differ []difference) (_, done, _ int) {
	for i := range differ {
		d := &differ[i]
		same += int(d.at) - done
		for ; same > 64; same -= 64 {
			binary.LittleEndian.PutUint32(out[n:], 63<<2|op)
			n += copyBytes
		}
		b := out[n : n+maxDifference]
		if same > 0 {
			binary.LittleEndian.PutUint32(b, uint32(same-1)<<2|op)
			b, n = b[copyBytes:], n+copyBytes
		}
		b[0] = byte(d.bytes-1) << 2
		binary.LittleEndian.PutUint64(b[1:], d.text)
		n += 1 + int(d.bytes)
		done, same = int(d.at+d.bytes), 0
	}
	return n, done, same
}
