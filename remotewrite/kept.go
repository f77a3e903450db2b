package remotewrite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// What a Handler keeps beside samples, descriptions and exemplars, goes into a
// snapshot as parts, each with a name that says what it is and how it is
// written, and at most keptPart bytes or one entry. Text is its length (uvarint) and bytes.
//
//	metadata.1   bucket | metric | type | help | unit, again and again
//	exemplars.1  'S' bucket | labels (uvarint), each name and value: the series of
//	             those that follow, and again and again
//	             'E' time in ms (varint) | bits of the value (8) | labels, as above
const (
	keptMetadata  = "metadata.1"
	keptExemplars = "exemplars.1"
	keptPart      = 256 << 10
	// maxKeptEntry bounds an entry, so that no part is beyond what a snapshot takes.
	maxKeptEntry = 4 << 20

	keptSeries = 'S'
	keptOne    = 'E'
)

// errKept says that a part is not as Kept makes them.
var errKept = errors.New("remotewrite: damaged part of a snapshot")

// Kept are the parts that TakeKept takes: what is kept beside samples now. A
// part is valid until the next.
func (h *Handler) Kept() iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		_ = h.meta.parts(yield) && h.ring.parts(yield)
	}
}

// parts yields all descriptions.
func (d *metadata) parts(yield func(string, []byte) bool) bool {
	d.mu.RLock()
	buckets := maps.Clone(d.buckets)
	for name, metrics := range buckets {
		buckets[name] = maps.Clone(metrics)
	}
	d.mu.RUnlock()
	p := partWriter{name: keptMetadata, yield: yield}
	for _, bucket := range slices.Sorted(maps.Keys(buckets)) {
		metrics := buckets[bucket]
		for _, metric := range slices.Sorted(maps.Keys(metrics)) {
			m := metrics[metric]
			if len(bucket)+len(metric)+len(m.Help)+len(m.Unit) > maxKeptEntry {
				continue
			}
			for _, s := range [...]string{bucket, metric, m.Type, m.Help, m.Unit} {
				p.text(s)
			}
			if !p.entry() {
				return false
			}
		}
	}
	return p.flush()
}

// parts yields all exemplars, by series.
func (r *ring) parts(yield func(string, []byte) bool) bool {
	r.mu.Lock()
	all := slices.Clone(r.kept) // which change no more
	r.mu.Unlock()
	slices.SortFunc(all, func(a, b *keptExemplar) int {
		if a.series == b.series {
			return a.rank.compare(b.rank)
		}
		if c := strings.Compare(a.series.bucket, b.series.bucket); c != 0 {
			return c
		}
		return compareLabels(a.series.labels, b.series.labels)
	})
	p := partWriter{name: keptExemplars, yield: yield}
	var series *exemplarSeries
	for _, x := range all {
		if x.series.bytes+x.bytes > maxKeptEntry {
			continue
		}
		if x.series != series || len(p.buf) == 0 {
			series = x.series
			p.buf = append(p.buf, keptSeries)
			p.text(series.bucket)
			p.labels(series.labels)
		}
		p.buf = append(p.buf, keptOne)
		p.buf = binary.AppendVarint(p.buf, x.T)
		p.buf = binary.LittleEndian.AppendUint64(p.buf, x.V)
		p.labels(x.Labels)
		if !p.entry() {
			return false
		}
	}
	return p.flush()
}

// partWriter collects entries of one kind.
type partWriter struct {
	name  string
	buf   []byte
	yield func(string, []byte) bool
}

func (p *partWriter) text(s string) {
	p.buf = append(binary.AppendUvarint(p.buf, uint64(len(s))), s...)
}

func (p *partWriter) labels(ls []mcache.Label) {
	p.buf = binary.AppendUvarint(p.buf, uint64(len(ls)))
	for _, l := range ls {
		p.text(l.Name)
		p.text(l.Value)
	}
}

// entry ends an entry, and the part if that is long enough.
func (p *partWriter) entry() bool { return len(p.buf) < keptPart || p.flush() }

func (p *partWriter) flush() bool {
	if len(p.buf) == 0 {
		return true
	}
	ok := p.yield(p.name, p.buf)
	p.buf = p.buf[:0]
	return ok
}

// TakeKept takes a part that Kept made. What a sender would be refused is left
// out, and what is kept already is not kept again. The error says that the part
// is not as Kept makes them; what was read before is kept. A part of another
// name is none of the Handler's, and left alone.
func (h *Handler) TakeKept(name string, part []byte) error {
	p := partReader{in: part}
	entry := h.takeMetadata
	switch name {
	case keptMetadata:
	case keptExemplars:
		var s keptOf
		entry = func(p *partReader) { h.takeExemplar(p, &s) }
	default:
		return nil
	}
	for len(p.in) > 0 {
		if entry(&p); p.bad {
			return fmt.Errorf("%w: %s", errKept, name)
		}
	}
	return nil
}

func (h *Handler) takeMetadata(p *partReader) {
	bucket, metric, kind, help, unit := p.text(), p.text(), p.text(), p.text(), p.text()
	if !p.bad && metric != "" {
		h.PutMetadata(bucket, metric, wire.Metadata{Type: wire.MetricType(int32(wire.MetricTypeNumber(kind))), Help: help, Unit: unit})
	}
}

// keptOf is the series of the exemplars that follow.
type keptOf struct {
	there  bool
	bucket string
	labels []mcache.Label // nil: they are refused
}

// takeExemplar takes a series or an exemplar of it.
func (h *Handler) takeExemplar(p *partReader, s *keptOf) {
	kind := p.in[0]
	p.in = p.in[1:]
	switch kind {
	case keptSeries:
		s.there, s.bucket = true, p.text()
		var err error
		if s.labels, err = validate(p.labels(), h.o()); err != nil {
			s.labels = nil
		}
	case keptOne:
		x := Exemplar{T: p.varint(), V: p.uint64(), Labels: p.labels()}
		if p.bad = p.bad || !s.there; p.bad || s.labels == nil || x.T < -mcache.MaxTime || x.T > h.o().Now().Add(h.o().MaxAhead).UnixMilli() {
			return
		}
		if checkExemplarLabels(x.Labels) == nil {
			h.PutExemplars(s.bucket, SeriesExemplars{Labels: s.labels, Exemplars: []Exemplar{x}})
		}
	default:
		p.fail()
	}
}

// partReader reads a part. What it reads are copies.
type partReader struct {
	in  []byte
	bad bool
}

func (p *partReader) fail() {
	p.in, p.bad = nil, true
}

func (p *partReader) uvarint() uint64 {
	v, n := binary.Uvarint(p.in)
	if n <= 0 {
		p.fail()
		return 0
	}
	p.in = p.in[n:]
	return v
}

func (p *partReader) varint() int64 {
	u := p.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (p *partReader) uint64() uint64 {
	if len(p.in) < 8 {
		p.fail()
		return 0
	}
	v := binary.LittleEndian.Uint64(p.in)
	p.in = p.in[8:]
	return v
}

func (p *partReader) text() string {
	n := p.uvarint()
	if n > uint64(len(p.in)) {
		p.fail()
		return ""
	}
	s := string(p.in[:n])
	p.in = p.in[n:]
	return s
}

func (p *partReader) labels() (ls []mcache.Label) {
	n := p.uvarint()
	if n > mcache.MaxLabels {
		p.fail()
		return nil
	}
	for ; n > 0 && !p.bad; n-- {
		ls = append(ls, mcache.Label{Name: p.text(), Value: p.text()})
	}
	return ls
}
