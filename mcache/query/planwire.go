package query

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// wirePlan is a plan on its way.
type wirePlan struct {
	Start, Interval int64 // unix ms, ms
	Steps           int
	Lookback        int64 // ms
	Range, Offset   int64 // ms; a range of 0: the latest sample counts
	PerSec          bool
	Op              string // "": series stay as they are
	Without         bool
	Grouping        [][]byte
}

// aggregations are those that a plan can have, by their names.
var aggregations = map[string]parser.ItemType{
	"": 0, "sum": parser.SUM, "avg": parser.AVG, "min": parser.MIN, "max": parser.MAX, "count": parser.COUNT, "group": parser.GROUP,
}

func (c *computer) toWire(p *plan) *wirePlan {
	w := &wirePlan{
		Start: c.start, Interval: c.interval, Steps: c.n, Lookback: c.lookback,
		Range: p.rangeMs, Offset: p.offsetMs(), PerSec: p.perSec, Without: p.without,
	}
	for name, op := range aggregations {
		if op == p.op {
			w.Op = name
		}
	}
	for _, g := range p.grouping {
		w.Grouping = append(w.Grouping, []byte(g))
	}
	return w
}

// plan is what the wire plan is of, and what carries it out.
func (w *wirePlan) plan(ms []*labels.Matcher, maxSamples int, r *room) (*computer, *plan, error) {
	op, ok := aggregations[w.Op]
	const farthest = math.MaxInt64 / 8 / maxPoints
	if !ok || w.Steps < 1 || w.Steps > maxPoints+1 || w.Interval < 1 || w.Lookback < 0 || w.Range < 0 ||
		max(w.Interval, w.Lookback, w.Range, w.Offset, -w.Offset, w.Start, -w.Start) > farthest {
		return nil, nil, fmt.Errorf("%w: a plan of %+v", errNotSpoken, *w)
	}
	p := &plan{
		selector: &parser.VectorSelector{LabelMatchers: ms, OriginalOffset: time.Duration(w.Offset) * time.Millisecond},
		rangeMs:  w.Range, perSec: w.PerSec, aggregate: aggregate{op: op, without: w.Without},
	}
	for _, g := range w.Grouping {
		p.grouping = append(p.grouping, string(g))
	}
	return &computer{
		steps:      steps{start: w.Start, interval: w.Interval, n: w.Steps, lookback: w.Lookback},
		maxSamples: maxSamples, room: r,
	}, p, nil
}

// digest tells one list of samples from another.
type digest struct {
	hash         uint64 // of the labels
	sum          uint64
	completeFrom int64 // of the copy, in unix ms
	slot         uint16
	evaluated    bool
}

// digestBytes is what one takes.
const digestBytes = 32

// addDigest adds a sample to a digest, in any order.
func addDigest(sum uint64, t int64, v uint64) uint64 {
	x := (uint64(t)*0x9e3779b97f4a7c15 ^ v) * 0xbf58476d1ce4e5b9
	return sum + (x ^ x>>31)
}

// putDigests writes, of each: hash, sum, eight bytes each; a byte, 1 if it was
// evaluated, 2 if the copy lacks something of the time from from on; then from
// when on it is complete, varint, and its slot, uvarint.
func (f *frames) putDigests(list []digest, from int64) error {
	const inFrame = 4096
	for part := range slices.Chunk(list, inFrame) {
		for _, d := range part {
			b := binary.LittleEndian.AppendUint64(f.frame, d.hash)
			b = binary.LittleEndian.AppendUint64(b, d.sum)
			flags := byte(0)
			if d.evaluated {
				flags = 1
			}
			if d.completeFrom > from {
				flags |= 2
			}
			if b = append(b, flags); flags&2 != 0 {
				b = binary.AppendVarint(b, d.completeFrom)
				b = binary.AppendUvarint(b, uint64(d.slot))
			}
			f.frame = b
		}
		if err := f.end(frameDigests); err != nil {
			return err
		}
	}
	return nil
}

func takeDigests(list []digest, b []byte) ([]digest, error) {
	for len(b) > 0 {
		if len(b) < 17 {
			return nil, fmt.Errorf("%w: digests break off", errWire)
		}
		d := digest{hash: binary.LittleEndian.Uint64(b), sum: binary.LittleEndian.Uint64(b[8:]), evaluated: b[16]&1 != 0, completeFrom: math.MinInt64}
		lacks := b[16]&2 != 0
		if b = b[17:]; lacks {
			var err error
			var slot uint64
			if d.completeFrom, b, err = takeVarint(b); err != nil {
				return nil, err
			}
			if slot, b, err = takeUvarint(b); err != nil || slot > math.MaxUint16 {
				return nil, fmt.Errorf("%w: a slot of %d", errWire, slot)
			}
			d.slot = uint16(slot)
		}
		list = append(list, d)
	}
	return list, nil
}

func (l localSink) putDigests(list []digest, _ int64) error { l.digests = list; return nil }

// putGroup writes the labels of a group, the step of its first value, uvarint, and
// its values, what rounding lost of them, and their counts, each a list.
func (f *frames) putGroup(g *group) error {
	f.appendLabels(g.labels)
	b := binary.AppendUvarint(f.frame, uint64(g.first))
	b = appendFloats(b, g.value)
	b = appendFloats(b, g.carry)
	f.frame = appendFloats(b, g.count)
	return f.end(frameGroup)
}

func (f *frameReader) takeGroup(b []byte, p *wirePlan) (g group, err error) {
	if g.labels, b, err = f.takeLabels(b); err != nil {
		return g, err
	}
	first, b, err := takeUvarint(b)
	if err != nil || first >= uint64(p.Steps) {
		return g, fmt.Errorf("%w: a group from step %d on", errWire, first)
	}
	g.first = int(first)
	n := p.Steps - g.first
	var zeros int
	if g.value, zeros, b, err = takeFloats(b, n); err != nil {
		return g, err
	}
	if g.value == nil {
		g.value = make([]float64, zeros)
	}
	if g.carry, _, b, err = takeFloats(b, n); err != nil {
		return g, err
	}
	g.count, _, _, err = takeFloats(b, n)
	for _, list := range [][]float64{g.carry, g.count} {
		if list != nil && len(list) != len(g.value) {
			return g, fmt.Errorf("%w: a group of %d and %d values", errWire, len(g.value), len(list))
		}
	}
	return g, err
}

func (l localSink) putGroup(g *group) error {
	l.groups = append(l.groups, group{labels: g.labels, first: g.first, value: slices.Clone(g.value), carry: slices.Clone(g.carry), count: slices.Clone(g.count)})
	return nil
}
