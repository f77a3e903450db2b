package wire

import (
	"net/http"
	"time"
)

// Part is a request after decompression, or as much of it as goes to one node
// of a cluster.
type Part struct {
	Protocol Protocol
	Bucket   string
	Body     []byte // a message of the protocol
	// Standby says of which series, by their place in the part, another node
	// forwards what is in it; who gets the part does so if that node is lost.
	Standby Bits
	// Settled says that nobody has to forward any of it.
	Settled bool
	// Prints are those of the series of the part, by their place in it, for its receiver
	// to learn; zero for one that is not to be learned.
	Prints []byte
	// MaxSamples bounds what a request that is not cut yet may hold, as its receiver
	// has the bound when it comes, who says so when there are more.
	MaxSamples int
}

// Bits is a set of small numbers.
type Bits []byte

// Has reports whether i is in the set.
func (b Bits) Has(i int) bool { return i>>3 < len(b) && b[i>>3]>>(i&7)&1 != 0 }

// Add puts i into the set.
func (b *Bits) Add(i int) {
	for i>>3 >= len(*b) {
		*b = append(*b, 0)
	}
	(*b)[i>>3] |= 1 << (i & 7)
}

// Answer is what came of a Part.
type Answer struct {
	// Status is what a sender would be told: 204, 400, 413 or 503. 429 is 503
	// for a reason that lies in the request, so that no other node would take
	// it either. It is never sent to anybody but nodes.
	Status int
	// Written are the samples, histograms and exemplars that were.
	Written Elements
	// Lost is the sum of Losses. It does not go over the wire.
	Lost Elements
	// Whole says that nothing was written because the part as a whole is wrong:
	// malformed, or too large.
	Whole bool
	// Failed are the elements or series that make the status 400, and Reasons
	// what is wrong with the first of them.
	Failed  int
	Reasons []string
	// Retry is why the rest should be sent again, and RetryAfter when.
	Retry      string
	RetryAfter time.Duration
	// Losses are the series of which not all was written, in ascending order,
	// if the status is 400.
	Losses []Loss
	// Unknown are the series of a Printed part of which nothing was written, because they
	// are to be sent with their labels: places in the part, in ascending order. The rest
	// of the answer is about the others.
	Unknown []int
}

// Elements are numbers of what series hold.
type Elements struct{ Samples, Histograms, Exemplars int }

// Add adds.
func (e *Elements) Add(o Elements) {
	e.Samples += o.Samples
	e.Histograms += o.Histograms
	e.Exemplars += o.Exemplars
}

// Loss is what of a series was not written.
type Loss struct {
	Series int // its place among the series of the part
	Elements
}

// Refused reports whether the node did not take the part, and another may.
func (a *Answer) Refused() bool { return a.Status == http.StatusServiceUnavailable }

// Count counts what a TimeSeries message of protocol p holds, as far as it is
// well-formed.
func Count(p Protocol, series []byte) (n Elements) {
	sample, histogram, exemplar := uint64(TagV1SeriesSample), uint64(TagV1SeriesHistogram), uint64(TagV1SeriesExemplar)
	if p == V2 {
		sample, histogram, exemplar = TagV2SeriesSample, TagV2SeriesHistogram, TagV2SeriesExemplar
	}
	for i := 0; i < len(series); {
		t, at := Tag(series, i)
		if at < 0 {
			return n
		}
		if i = Skip(series, t, at); i < 0 {
			return n
		}
		switch t {
		case sample:
			n.Samples++
		case histogram:
			n.Histograms++
		case exemplar:
			n.Exemplars++
		}
	}
	return n
}
