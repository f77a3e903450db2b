package send

import (
	"math/bits"

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
	e.beginTable(len(r.out.Labels()))
	e.last.forget()
	before := -1
	for _, i := range r.places {
		run, plain := r.out.Plain(i)
		if i != before+1 {
			run.Labels, run.Changed = r.out.Numbers(i), mcache.AllChanged
		}
		before = i
		fit := e.learn(r, &run)
		if plain {
			e.packPlain(p, &run, fit)
			continue
		}
		s := r.one(i)
		s.Metadata = e.metadataOf(s.Numbers)
		e.packSeries(p, &s, nil)
		e.last.forget()
	}
	p.prepend(e.endTable(p.table[:0]))
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

// learn notes the labels of the next run, with symbols and metadata of those that are new, and
// how the references to labels that changed differ from those of the last message. It reports
// whether all are as long, and none but that of the name is a name.
func (e *EncoderV2) learn(r *runs, run *mcache.PlainRun) (fit bool) {
	l, table, name := &e.last, r.out.Labels(), -1 // the number of a name that is new
	if run.Changed == mcache.AllChanged {
		l.numbers = append(l.numbers[:0], run.Labels...)
		for _, n := range run.Labels {
			if e.numbered[n].bytes == 0 && e.number(&table[n], n) {
				name = int(n)
			}
		}
	} else {
		fit, l.differ = l.isThere(), l.differ[:0]
		c := run.Changed
		for _, n := range run.Labels {
			k := bits.TrailingZeros32(c)
			c &= c - 1
			l.numbers[k] = n
			x := &e.numbered[n]
			named := x.described > 0
			if x.bytes == 0 && e.number(&table[n], n) {
				name, named = int(n), true
			}
			fit = fit && l.setRefs(k, x) && (!named || k == l.named)
		}
	}
	if name >= 0 {
		e.describe(name, r.metadata(table[name].Value))
	}
	return fit
}

// number notes the symbols of the label with number n. It reports whether that is the
// name of a metric.
func (e *EncoderV2) number(l *mcache.Label, n uint32) bool {
	e.numbered[n] = refsOf(e.symbol(l.Name), e.symbol(l.Value))
	return l.Name == wire.MetricName
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

// metadataText is the metadata of a label that is the name of a metric, as it is written.
func (e *EncoderV2) metadataText(number uint32) []byte {
	if k := e.numbered[number].described; k > 0 {
		return e.described[k-1].text
	}
	return nil
}
