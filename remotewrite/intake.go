package remotewrite

import (
	"errors"
	"fmt"
	"math"

	"mcached/mcache"
)

// Protocol is a version of remote write; the zero value is none.
type Protocol uint8

const (
	V1 Protocol = iota + 1 // prometheus.WriteRequest
	V2                     // io.prometheus.write.v2.Request
)

// String names the protocol as its specification does.
func (p Protocol) String() string {
	switch p {
	case V1:
		return "1.0"
	case V2:
		return "2.0"
	}
	return "none"
}

// intake is what one request needs while it is worked on. Intakes are pooled:
// a request for known series allocates nothing. An intake belongs to one
// request at a time.
type intake struct {
	o     *Options
	cache *mcache.Cache
	meta  *metadata

	protocol Protocol
	bucket   string
	maxT     int64 // ms; samples after it are refused

	body    []byte // compressed, as received
	decoded []byte // everything below points into it

	batch mcache.Batch
	at    []extent // by index in batch: where the series lies in decoded

	samples []mcache.Sample // of the series in hand
	labels  []mcache.Label  // of the series in hand, on the slow path

	before   []byte    // protocol 1.0: the labels of the series before, as they lie in decoded
	pairs    []pair    // protocol 1.0: the same, one by one
	refs     []uint32  // protocol 2.0: labels_refs of the series in hand
	refPairs []refPair // protocol 2.0: the labels of the series before
	series   []extent  // protocol 2.0: all series of the request
	syms     []symbol

	left     int // samples that may still come
	written  int // samples
	problems problems
}

// extent is a piece of the decoded body. 32 bits suffice: see Options.MaxDecodedBytes.
type extent struct{ from, to uint32 }

func (in *intake) reset(p Protocol, bucket string, maxT int64) {
	in.protocol, in.bucket, in.maxT = p, bucket, maxT
	in.batch.Reset(bucket)
	in.at, in.series = in.at[:0], in.series[:0]
	in.syms = in.syms[:0]
	in.before, in.pairs, in.refPairs = nil, in.pairs[:0], in.refPairs[:0]
	in.left, in.written = in.o.MaxSamples, 0
	in.problems.reset()
}

// write decodes the body and writes what is valid. The error is about the
// request as a whole: nothing was written then. What is wrong with single
// series or samples ends up in problems.
func (in *intake) write() error {
	if err := in.decode(); err != nil {
		return err
	}
	n, err := in.cache.Append(&in.batch)
	in.written += n
	if err != nil {
		in.problems.cache(err)
	}
	for _, i := range in.batch.Missing() {
		in.create(i)
	}
	return nil
}

// decode puts the body into the batch.
func (in *intake) decode() error {
	if in.protocol == V1 {
		return in.decodeV1()
	}
	return in.decodeV2()
}

// create writes series i of the batch, which the cache does not know.
func (in *intake) create(i int) {
	if in.problems.noMemory != nil {
		// The sender is going to try again. To go on would evict what was
		// just written for the sake of series that may not fit either.
		return
	}
	at := in.at[i]
	if err := in.decodeLabels(at); err != nil {
		in.problems.add(reasonLabels, err)
		return
	}
	n, err := in.cache.AppendNew(&in.batch, i, in.labels)
	in.written += n
	if err != nil {
		in.problems.cache(fmt.Errorf("%w, for %s", err, describe(in.labels)))
	}
}

// decodeLabels fills labels with the valid label set of the series at e. The
// strings are views into decoded.
func (in *intake) decodeLabels(e extent) error {
	b := in.decoded[e.from:e.to]
	var err error
	if in.protocol == V1 {
		in.labels, err = labelsV1(b, in.o.MaxLabels+1, in.labels[:0]) // one more shows that it is too many
	} else {
		in.labels, err = in.labelsV2(b, in.labels[:0])
	}
	if err != nil {
		return err
	}
	in.labels, err = validate(in.labels, in.o)
	return err
}

// finish puts the series in hand into the batch, with those of its samples
// that are not too far ahead. Both protocols end a series with it.
func (in *intake) finish(f mcache.Fingerprint, e extent, suspect bool) {
	late := 0
	for _, s := range in.samples {
		if s.T > in.maxT {
			late++
		}
	}
	if late > 0 {
		in.refuseFuture(e, late)
		if late == len(in.samples) {
			return
		}
	}
	if suspect {
		if err := in.decodeLabels(e); err != nil {
			in.problems.add(reasonLabels, err)
			return
		}
	}
	in.at = append(in.at, e)
	in.batch.Series(f)
	for _, s := range in.samples {
		if s.T <= in.maxT {
			in.batch.Sample(s.T, s.V)
		}
	}
}

func (in *intake) refuseFuture(e extent, n int) {
	in.problems.count[reasonFuture] += n
	if !in.problems.room() {
		return
	}
	var first int64 = math.MaxInt64
	for _, s := range in.samples {
		if s.T > in.maxT {
			first = min(first, s.T)
		}
	}
	name := "a series with invalid labels"
	if in.decodeLabels(e) == nil {
		name = describe(in.labels)
	}
	in.problems.say(fmt.Errorf("%d samples more than %v ahead of the clock, the first by %d ms more than that, for %s",
		n, in.o.MaxAhead, first-in.maxT, name))
}

// tooMany is the error for a request that holds more than it may.
func tooMany(what string, limit int) error {
	return fmt.Errorf("%w: more than %d %s in one request", errTooLarge, limit, what)
}

// errTooLarge marks the bounds that are answered 413.
var errTooLarge = errors.New("request too large")
