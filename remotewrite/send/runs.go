package send

import (
	"encoding/binary"
	"math/bits"
	"slices"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// parcel is the content of a request.
type parcel interface {
	len() int
	points() int
	packV1(*packer)
	packV2(*EncoderV2, *packer)
	// series are the same, valid as long as the parcel.
	series() []Series
}

// seriesList is a parcel of series.
type seriesList []Series

func (l seriesList) len() int { return len(l) }

func (l seriesList) points() (n int) {
	for i := range l {
		n += l[i].Points()
	}
	return n
}

func (l seriesList) packV1(p *packer)               { packV1(p, l) }
func (l seriesList) packV2(e *EncoderV2, p *packer) { e.pack(p, l) }
func (l seriesList) series() []Series               { return l }

// runs is a parcel of what a cache gave out. It is encoded where it lies: a short
// run takes less than the Series that would describe it.
type runs struct {
	out      *mcache.Outgoing
	places   []int // in out; they are of one bucket
	sum      int   // of their points
	metadata func(metric string) wire.Metadata

	list []Series // that series and packV1 made
}

func (r *runs) len() int         { return len(r.places) }
func (r *runs) points() int      { return r.sum }
func (r *runs) packV1(p *packer) { packV1(p, r.undescribed()) }

// packV2 makes p the block of what Append appends of the series. Those that have
// samples only are packed without being one.
func (r *runs) packV2(e *EncoderV2, p *packer) {
	p.reset()
	p.text = e.appendTableOfRuns(p.text, r)
	p.flush()
	e.line.at = e.line.at[:0]
	before := -1
	for _, i := range r.places {
		if samples, ok := r.out.Plain(i); ok {
			numbers, changed := r.out.Numbers(i)
			if i != before+1 {
				changed = mcache.AllChanged
			}
			before = i
			e.writeRefs(numbers, changed)
			e.packPlain(p, samples)
			continue
		}
		s := r.one(i)
		s.Metadata = e.metadataOf(s.Numbers)
		e.packSeries(p, &s, nil)
	}
}

// one is the series of the run at place i, without metadata.
func (r *runs) one(i int) Series {
	run := r.out.Run(i)
	return Series{Numbers: run.Labels, Table: r.out.Labels(), Samples: run.Samples, Starts: run.Starts, Records: run.Records}
}

func (r *runs) series() []Series {
	list := r.undescribed()
	for i := range list {
		s := &list[i]
		for _, n := range s.Numbers {
			if l := &s.Table[n]; l.Name == wire.MetricName {
				s.Metadata = r.metadata(l.Value)
			}
		}
	}
	return list
}

// undescribed are the series without metadata, of which protocol 1.0 has none.
func (r *runs) undescribed() []Series {
	r.list = r.list[:0]
	for _, i := range r.places {
		r.list = append(r.list, r.one(i))
	}
	return r.list
}

// forget lets go of list, which are views that end with out.
func (r *runs) forget() {
	clear(r.list)
	r.list = r.list[:0]
}

// described is the metadata of a metric in a request, and its field of a series as
// it is written.
type described struct {
	metadata wire.Metadata
	text     []byte
}

// appendTableOfRuns is appendTable for runs. It asks for the metadata of a metric
// once a request and number.
func (e *EncoderV2) appendTableOfRuns(dst []byte, r *runs) []byte {
	table := r.out.Labels()
	e.beginTable(len(table))
	before := -1
	for _, i := range r.places {
		numbers, changed := r.out.Numbers(i)
		name := -1 // number of a name that is new
		if changed == mcache.AllChanged || i != before+1 {
			for _, n := range numbers {
				name = e.number(table, n, name)
			}
		} else {
			for ; changed != 0; changed &= changed - 1 {
				name = e.number(table, numbers[bits.TrailingZeros32(changed)], name)
			}
		}
		before = i
		if name >= 0 {
			e.describe(name, r.metadata(table[name].Value))
		}
	}
	return e.endTable(dst)
}

// number notes the symbols of the label with number n, if it is new. It returns n if
// that is the name of a metric, and else name.
func (e *EncoderV2) number(table []mcache.Label, n uint32, name int) int {
	if e.numbered[n].bytes != 0 {
		return name
	}
	l := &table[n]
	e.numbered[n] = refsOf(e.symbol(l.Name), e.symbol(l.Value))
	if l.Name == wire.MetricName {
		return int(n)
	}
	return name
}

// describe notes the metadata of the metric whose name is the label with number n.
func (e *EncoderV2) describe(n int, m wire.Metadata) {
	d := described{metadata: m}
	if m != (wire.Metadata{}) {
		e.symbol(m.Help)
		e.symbol(m.Unit)
		x := e.measureMetadata(m)
		d.text = x.appendMetadata(nil)
	}
	e.described = append(e.described, d)
	e.numbered[n].described = uint32(len(e.described))
}

// metadataOf is what describe was told of a label among these.
func (e *EncoderV2) metadataOf(numbers []uint32) wire.Metadata {
	for _, n := range numbers {
		if k := e.numbered[n].described; k > 0 {
			return e.described[k-1].metadata
		}
	}
	return wire.Metadata{}
}

// refsLine is the references of a series as they are written, of which the next
// has most in common.
type refsLine struct {
	text     []byte
	at       []int  // where those of each label begin, and the last end; empty: there is none
	metadata []byte // what is written behind the samples
	named    int    // place of the label that metadata is of, if there is one
}

// writeRefs makes e.line that of these numbers, of which it has all but those that changed.
func (e *EncoderV2) writeRefs(numbers []uint32, changed uint32) {
	l := &e.line
	if changed == mcache.AllChanged || len(l.at) != len(numbers)+1 {
		e.writeAllRefs(numbers)
		return
	}
	for ; changed != 0; changed &= changed - 1 {
		k := bits.TrailingZeros32(changed)
		r := &e.numbered[numbers[k]]
		at, end := l.at[k], l.at[k+1]
		if end-at != int(r.bytes) {
			e.writeAllRefs(numbers)
			return
		}
		for text := r.text; at < end; at++ {
			l.text[at] = byte(text)
			text >>= 8
		}
		if k == l.named { // it was the name
			l.metadata = nil
		}
		e.describeLine(r, k)
	}
}

// describeLine gives e.line the metadata of the metric that label k is the name of, if
// it is one.
func (e *EncoderV2) describeLine(r *numberedRefs, k int) {
	if r.described > 0 {
		e.line.metadata, e.line.named = e.described[r.described-1].text, k
	}
}

func (e *EncoderV2) writeAllRefs(numbers []uint32) {
	l := &e.line
	l.text = slices.Grow(l.text[:0], maxRefsBytes*(len(numbers)+1))
	l.at, l.metadata = append(l.at[:0], 0), nil
	for k, n := range numbers {
		r := &e.numbered[n]
		l.text = binary.LittleEndian.AppendUint64(l.text, r.text)[:len(l.text)+int(r.bytes)]
		l.at = append(l.at, len(l.text))
		e.describeLine(r, k)
	}
}

// packPlain packs a series that has samples only, and the references of e.line.
func (e *EncoderV2) packPlain(p *packer, samples []mcache.Sample) {
	shape, l := p.shapeOf(samples), &e.line
	bytes := 1 + sized(len(l.text)) + samplesBytes(samples, nil, shape) + len(l.metadata)
	p.text = appendHead(appendHead(p.text, wire.TagV2Series, bytes), wire.TagV2SeriesRefs, len(l.text))
	p.text = append(p.text, l.text...)
	p.text = append(p.samples(samples, nil, shape), l.metadata...)
}
