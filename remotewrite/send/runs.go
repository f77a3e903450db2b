package send

import (
	"encoding/binary"

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
	for _, i := range r.places {
		if numbers, samples, ok := r.out.Plain(i); ok {
			e.packPlain(p, numbers, samples)
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
	for _, i := range r.places {
		name := -1 // number of a name that is new
		for _, n := range r.out.Numbers(i) {
			if e.numbered[n].bytes != 0 {
				continue
			}
			l := &table[n]
			e.numbered[n] = refsOf(e.symbol(l.Name), e.symbol(l.Value))
			if l.Name == wire.MetricName {
				name = int(n)
			}
		}
		if name >= 0 {
			e.describe(name, r.metadata(table[name].Value))
		}
	}
	return e.endTable(dst)
}

// describe notes the metadata of the metric whose name is the label with number n.
func (e *EncoderV2) describe(n int, m wire.Metadata) {
	if m == (wire.Metadata{}) {
		return
	}
	e.symbol(m.Help)
	e.symbol(m.Unit)
	x := e.measureMetadata(m)
	e.described = append(e.described, described{m, x.appendMetadata(nil)})
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

// packPlain packs a series that has samples only. The references are written where
// they would be if what is before them took as much as in the last series, as it
// mostly does.
func (e *EncoderV2) packPlain(p *packer, numbers []uint32, samples []mcache.Sample) {
	shape := p.shapeOf(samples)
	at := len(p.text)
	p.grow(maxHeadBytes + maxRefsBytes*len(numbers))
	b := p.text[:cap(p.text)]
	from := at + e.headBytes
	n, k := from, uint32(0)
	for _, number := range numbers {
		refs := &e.numbered[number]
		binary.LittleEndian.PutUint64(b[n:], refs.text)
		n += int(refs.bytes)
		k |= refs.described // one of them is the name
	}
	refsBytes := n - from
	bytes := 1 + sized(refsBytes) + samplesBytes(samples, nil, shape)
	var metadata []byte
	if k > 0 {
		metadata = e.described[k-1].text
		bytes += len(metadata)
	}
	head := appendHead(appendHead(e.head[:0], wire.TagV2Series, bytes), wire.TagV2SeriesRefs, refsBytes)
	if len(head) != e.headBytes {
		copy(b[at+len(head):], b[from:n])
		e.headBytes = len(head)
	}
	copy(b[at:], head)
	p.text = b[:at+len(head)+refsBytes]
	p.text = append(p.samples(samples, nil, shape), metadata...)
}
