package main

import (
	"encoding/binary"
	"errors"
	"slices"

	"mcached/remotewrite/send"
	"mcached/remotewrite/wire"
)

// bodies makes the bodies of one connection's requests, not compressed. What does not
// change between two requests of the same series, which is all but times and values, it
// encodes once: the client shares the processors with the server. It belongs to one
// goroutine.
type bodies struct {
	load     *load
	protocol wire.Protocol
	names    *namer
	v2       send.EncoderV2
	series   []send.Series // scratch
	text     []byte        // scratch

	frames   map[int]*frame // by the first series of a request
	bytes    int            // of all frames
	maxBytes int            // beyond it frames are made anew for each request, as they are when series come late
}

// maxFrameBytes bounds the frames of all connections.
const maxFrameBytes = 128 << 20

// frame is a request of one sample of each of some series, without the samples.
type frame struct {
	of     []successor
	head   []byte  // what is before the series: symbols
	labels []byte  // of the series, one behind the other, as they stand before the samples
	ends   []int32 // of each in labels
}

// successor is a series of a target that others may have been before.
type successor struct{ series, successors int }

func newBodies(l *load, protocol wire.Protocol, maxBytes int) *bodies {
	return &bodies{load: l, protocol: protocol, names: l.namer(), frames: map[int]*frame{}, maxBytes: maxBytes}
}

// append appends a request of some samples, of which there is one at least.
func (b *bodies) append(dst []byte, samples []lateSample) ([]byte, error) {
	f, err := b.frame(samples)
	if err != nil {
		return dst, err
	}
	tag, at := b.tag(), int32(0)
	dst = append(dst, f.head...)
	var text [32]byte
	for i, x := range samples {
		labels, sample := f.labels[at:f.ends[i]], send.AppendSample(text[:0], x.Sample)
		at = f.ends[i]
		dst = binary.AppendUvarint(append(dst, tag), uint64(len(labels)+len(sample)))
		dst = append(append(dst, labels...), sample...)
	}
	return dst, nil
}

// tag is that of a series in a request.
func (b *bodies) tag() byte {
	if b.protocol == wire.V2 {
		return wire.TagV2Series
	}
	return wire.TagV1Series
}

// frame is the frame of a request of these samples.
func (b *bodies) frame(samples []lateSample) (*frame, error) {
	first := samples[0].series
	f := b.frames[first]
	if f != nil && b.fits(f, samples) {
		return f, nil
	}
	if f == nil {
		f = &frame{}
	} else {
		b.bytes -= f.bytes()
		delete(b.frames, first)
	}
	if err := b.fill(f, samples); err != nil {
		return nil, err
	}
	if n := f.bytes(); b.bytes+n <= b.maxBytes {
		b.frames[first] = f
		b.bytes += n
	}
	return f, nil
}

func (f *frame) bytes() int { return cap(f.head) + cap(f.labels) + 4*cap(f.ends) + 16*cap(f.of) }

// fits reports whether a frame is that of these samples.
func (b *bodies) fits(f *frame, samples []lateSample) bool {
	return slices.EqualFunc(f.of, samples, func(y successor, x lateSample) bool { return y == b.successor(x) })
}

func (b *bodies) successor(x lateSample) successor {
	return successor{x.series, b.load.successors(x.series/seriesPerTarget, x.T)}
}

// fill makes f the frame of these samples.
func (b *bodies) fill(f *frame, samples []lateSample) error {
	b.series = slices.Grow(b.series[:0], len(samples))[:len(samples)]
	f.of = f.of[:0]
	for i, x := range samples {
		b.series[i].Labels = b.names.labels(x.series, x.T, b.series[i].Labels[:0])
		f.of = append(f.of, b.successor(x))
	}
	if b.protocol == wire.V2 {
		b.text = b.v2.Append(b.text[:0], b.series)
	} else {
		b.text = send.AppendV1(b.text[:0], b.series)
	}
	// Symbols first, then series: a field each.
	f.head, f.labels, f.ends = f.head[:0], f.labels[:0], f.ends[:0]
	for at := 0; at < len(b.text); {
		from, to := wire.Bytes(b.text, at+1)
		if from < 0 {
			return errors.New("a body that was just encoded cannot be read")
		}
		if b.text[at] == b.tag() {
			f.labels = append(f.labels, b.text[from:to]...)
			f.ends = append(f.ends, int32(len(f.labels)))
		} else {
			f.head = append(f.head, b.text[at:to]...)
		}
		at = to
	}
	f.head, f.labels = slices.Clip(f.head), slices.Clip(f.labels)
	return nil
}
