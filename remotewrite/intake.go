package remotewrite

import (
	"context"
	"errors"
	"fmt"
	"math"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// intake is what one request needs while it is worked on. Intakes are pooled:
// a request for known series allocates nothing. An intake belongs to one
// request at a time.
type intake struct {
	o     *Options
	cache *mcache.Cache
	meta  *metadata
	ring  *ring
	fresh *allowance

	protocol wire.Protocol
	bucket   string
	nowMs    int64 // the clock
	maxT     int64 // ms; samples after it are refused

	decoded []byte // everything below points into it

	batch mcache.Batch
	at    []place // by index in batch

	// Of the series in hand:
	samples       []mcache.Sample
	starts        []int64 // start times of the first samples; the others have none
	histograms    []histogram
	badHistograms int
	badExemplars  int
	whyBad        error // of the last bad one

	exemplars []pending // of the request; those from hand on of the series in hand
	hand      int
	labels    []mcache.Label // of the series in hand, on the slow path

	// Of the labels of the series before, those with an empty value not in the sum:
	sum        mcache.Fingerprint
	empty      int       // how many have an empty value
	before     []byte    // protocol 1.0: as they lie in decoded
	pairs      []pair    // protocol 1.0: one by one
	refsBefore []byte    // protocol 2.0: the references of the series before
	refPairs   []refPair // protocol 2.0: the labels of the series before
	refs       []uint32  // protocol 2.0: labels_refs, on the slow path
	series     []extent  // protocol 2.0: all series of the request
	syms       []symbol

	left     int // samples, histograms and exemplars that may still come
	problems problems

	sent struct{ samples, histograms int } // in the batch

	written           int // samples
	writtenHistograms int
	writtenExemplars  int
}

// place is where a series of the batch lies in decoded, and how much of it is
// in the batch.
type place struct {
	extent
	samples, histograms uint32
	refused             bool // so are its exemplars
}

// extent is a piece of the decoded body. 32 bits suffice: see Options.MaxDecodedBytes.
type extent struct{ from, to uint32 }

func (in *intake) reset(p wire.Protocol, bucket string) {
	now := in.o.Now()
	in.protocol, in.bucket, in.nowMs, in.maxT = p, bucket, now.UnixMilli(), now.Add(in.o.MaxAhead).UnixMilli()
	in.batch.Reset(bucket)
	in.at, in.series = in.at[:0], in.series[:0]
	in.syms = in.syms[:0]
	in.before, in.pairs = nil, in.pairs[:0]
	in.forgetRefs()
	clear(in.exemplars)
	in.exemplars, in.hand = in.exemplars[:0], 0
	in.left = in.o.MaxSamples
	in.sent.samples, in.sent.histograms = 0, 0
	in.written, in.writtenHistograms, in.writtenExemplars = 0, 0, 0
	in.beginSeries()
	in.problems.reset()
}

// write decodes the body and writes what is valid. The error is about the
// request as a whole: nothing was written then. What is wrong with single
// series or samples ends up in problems.
func (in *intake) write(ctx context.Context) error {
	if err := in.decode(); err != nil {
		return err
	}
	n, err := in.cache.Append(&in.batch)
	samples, histograms := in.sent.samples, in.sent.histograms // of known series
	for _, i := range in.batch.Missing() {
		samples -= int(in.at[i].samples)
		histograms -= int(in.at[i].histograms)
		in.at[i].refused = true // until it is created
	}
	if err != nil {
		// It tells how many points it wrote, not of which kind: no more is
		// claimed than must have been.
		in.problems.cache(err)
		samples, histograms = max(0, n-histograms), max(0, n-samples)
	}
	in.written += samples
	in.writtenHistograms += histograms
	for k, i := range in.batch.Missing() {
		if k%createsPerLook == 0 && ctx.Err() != nil {
			// Whoever sent it has gone, and is going to send it again.
			in.problems.retry = ctx.Err()
			break
		}
		in.create(i)
	}
	in.keepExemplars()
	return nil
}

// createsPerLook is how many series are created between two looks at whether
// the sender is still there: some 100 µs of work, or much more when memory has
// to be found for each.
const createsPerLook = 64

// decode puts the body into the batch.
func (in *intake) decode() error {
	if in.protocol == wire.V1 {
		return in.decodeV1()
	}
	return in.decodeV2()
}

// create writes series i of the batch, which the cache does not know.
func (in *intake) create(i int) {
	if in.problems.retry != nil {
		// The sender is going to try again. To go on would evict what was
		// just written for the sake of series that may not fit either.
		return
	}
	at := &in.at[i]
	if err := in.decodeLabels(at.extent); err != nil {
		in.problems.add(reasonLabels, err)
		return
	}
	if !in.fresh.take(in.o.Now()) {
		in.problems.retry = fmt.Errorf("%w: more than %d a second", errNewSeries, in.o.MaxNewSeriesPerSecond)
		return
	}
	n, err := in.cache.AppendNew(&in.batch, i, in.labels)
	samples := min(n, int(at.samples)) // they come first
	in.written += samples
	in.writtenHistograms += n - samples
	at.refused = err != nil && n == 0
	if errors.Is(err, mcache.ErrSeriesLimit) {
		in.fresh.giveBack() // or a bucket that is full would use up the allowance of all
	}
	if err != nil && in.problems.room() { // a flood is not described one by one
		err = fmt.Errorf("%w, for %s", err, describe(in.labels))
	}
	if err != nil {
		in.problems.cache(err)
	}
}

// decodeLabels fills labels with the valid label set of the series at e. The
// strings are views into decoded.
func (in *intake) decodeLabels(e extent) error {
	b := in.decoded[e.from:e.to]
	var err error
	if in.protocol == wire.V1 {
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

// beginSeries forgets the series in hand.
func (in *intake) beginSeries() {
	in.samples, in.starts = in.samples[:0], in.starts[:0]
	if len(in.histograms) > 0 || in.whyBad != nil {
		clear(in.histograms)
		in.histograms = in.histograms[:0]
		in.badHistograms, in.badExemplars, in.whyBad = 0, 0, nil
	}
	in.hand = len(in.exemplars)
}

// endSeries is what both protocols do when a series has been read: what is
// good of it goes into the batch.
func (in *intake) endSeries(f mcache.Fingerprint, e extent, suspect bool) {
	in.left -= len(in.samples)
	if len(in.histograms) > 0 || len(in.exemplars) > in.hand || in.whyBad != nil {
		in.endRareSeries(f, e)
	}
	out := 0
	for _, s := range in.samples {
		if s.T > in.maxT || s.T < -mcache.MaxTime {
			out++
		}
	}
	if out > 0 {
		in.refuseTimes(e, out)
	}
	if len(in.samples)+len(in.histograms) == out {
		if out == 0 && in.whyBad == nil && len(in.exemplars) == in.hand {
			in.refuse(e, reasonEmpty, 1, "a series without samples or histograms")
		}
		return
	}
	if suspect {
		if err := in.decodeLabels(e); err != nil {
			in.problems.add(reasonLabels, err)
			in.exemplars = in.exemplars[:in.hand] // counted with their series
			return
		}
	}
	in.at = append(in.at, place{extent: e, samples: uint32(len(in.samples) - out), histograms: uint32(len(in.histograms))})
	in.sent.samples += len(in.samples) - out
	in.sent.histograms += len(in.histograms)
	in.batch.Series(f)
	for i, s := range in.samples {
		if s.T > in.maxT || s.T < -mcache.MaxTime {
			continue
		}
		in.batch.Sample(s.T, s.V)
		if i < len(in.starts) {
			in.batch.StartTime(in.starts[i])
		}
	}
	for _, h := range in.histograms {
		in.batch.Record(h.t, h.value)
	}
}

// endRareSeries sees to what few series have: histograms and exemplars.
func (in *intake) endRareSeries(f mcache.Fingerprint, e extent) {
	in.left -= len(in.histograms) + len(in.exemplars) - in.hand
	for i := in.hand; i < len(in.exemplars); i++ {
		in.exemplars[i].series, in.exemplars[i].fp = e, f
	}
	if in.badHistograms > 0 {
		in.refuse(e, reasonHistograms, in.badHistograms, fmt.Sprintf("histograms are not valid (%v)", in.whyBad))
	}
	if in.badExemplars > 0 {
		in.refuse(e, reasonExemplars, in.badExemplars, fmt.Sprintf("exemplars are not valid (%v)", in.whyBad))
	}
	good := in.histograms[:0]
	for _, h := range in.histograms {
		if h.t <= in.maxT && h.t >= -mcache.MaxTime {
			good = append(good, h)
		}
	}
	if out := len(in.histograms) - len(good); out > 0 {
		in.histograms, in.whyBad = good, errTime
		in.refuse(e, reasonFuture, out, fmt.Sprintf("histograms more than %v ahead of the clock", in.o.MaxAhead))
	}
}

var errTime = errors.New("time out of bounds")

// refuseTimes counts n of the samples in hand as too far ahead, or before all times.
func (in *intake) refuseTimes(e extent, n int) {
	ahead, first := false, int64(math.MaxInt64)
	for _, s := range in.samples {
		if s.T > in.maxT {
			ahead, first = true, min(first, s.T)
		}
	}
	why := "samples earlier than the cache has times for"
	if ahead {
		why = fmt.Sprintf("samples more than %v ahead of the clock, the first by %d ms more than that", in.o.MaxAhead, first-in.maxT)
	}
	in.refuse(e, reasonFuture, n, why)
}

// refuse counts n elements of the series at e as not written.
func (in *intake) refuse(e extent, r reason, n int, why string) {
	in.problems.count[r] += n
	if !in.problems.room() {
		return
	}
	series := "a series with invalid labels"
	if in.decodeLabels(e) == nil {
		series = describe(in.labels)
	}
	in.problems.say(fmt.Errorf("%s: %d, of %s", why, n, series))
}

// tooMany is the error for a request that holds more than it may.
func tooMany(what string, limit int) error {
	return fmt.Errorf("%w: more than %d %s in one request", errTooLarge, limit, what)
}

// errTooLarge marks the bounds that are answered 413.
var errTooLarge = errors.New("request too large")
