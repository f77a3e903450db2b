package remotewrite

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/klauspost/compress/zstd"

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

	protocol    wire.Protocol
	bucket      string
	nowMs       int64                // the clock
	shared      bool                 // not all series are alike in the next two
	skip        []bool               // by place in the request: series that are of another node; nil: none
	standby     wire.Bits            // by place in the request: series that another node forwards
	duty        mcache.Duty          // of the series in hand
	teaches     []byte               // prints of series by place in the request, to be learned
	names       []wire.Named         // of the series to come that are not skipped
	found       []mcache.Fingerprint // of names, and of those before
	print       wire.Print           // of the series in hand, to be learned; zero: nothing is
	takesBlocks bool                 // it is a part of protocol wire.Blocks
	learned     []printed
	maxT        int64  // ms; samples after it are refused
	usual       uint64 // ms from earlyMs to behind maxT: times in there need no second look

	decoded          []byte        // everything below points into it
	through          through       // the window that decoded may be
	zstd, zstdStream *zstd.Decoder // nil until a body needs one: of announced length, of any

	batch mcache.Batch
	at    []place // by index in batch

	// Of the series in hand, the samples of which are the last in batch:
	starts        []int64 // start times of the first samples; the others have none
	blocks        []mcache.SoundBlock
	reader        *mcache.BlockReader // of blocks; nil until there is one
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
	ends       []uint32  // where each of them ends, from the beginning of the first
	before     []byte    // protocol 1.0: as they lie in decoded
	pairs      []pair    // protocol 1.0: one by one
	changed    int       // place of the last that was another than in the series before that; -1: none
	refsBefore []byte    // protocol 2.0: the references of the series before
	refPairs   []refPair // protocol 2.0: the labels of the series before
	refs       []uint32  // protocol 2.0: labels_refs, on the slow path
	series     []piece   // protocol 2.0: all series of the request
	syms       []symbol

	lease  *lease // of the request
	lent   int    // of it for the tables, see look
	lookAt int    // index in decoded

	most     int // samples, histograms and exemplars that the request may have
	left     int // of them, that may still come
	problems problems

	sent    struct{ samples, histograms int } // in the batch
	refused int                               // samples and histograms that are not
	early   int                               // samples and histograms of sent before earlyMs

	written           int // samples
	writtenHistograms int
	writtenExemplars  int
}

// place is where a series of the batch lies in decoded, and how much of it is
// in the batch.
type place struct {
	piece
	samples, histograms uint32
	refused             bool // so are its exemplars
}

// piece is a part of the decoded body. 32 bits suffice: see Options.MaxDecodedBytes.
type piece struct{ from, to uint32 }

func (in *intake) reset(p wire.Protocol, bucket string, l *lease) {
	in.lease, in.lent, in.lookAt = l, 0, lookBytes
	now := in.o.Now()
	in.shared, in.skip, in.standby, in.duty = false, nil, nil, mcache.Mine
	in.takesBlocks = false
	in.teaches, in.names, in.print, in.learned = nil, nil, wire.Print{}, in.learned[:0]
	in.protocol, in.bucket, in.nowMs, in.maxT = p, bucket, now.UnixMilli(), now.Add(in.o.MaxAhead).UnixMilli()
	in.usual = uint64(max(in.maxT+1-earlyMs, 0))
	in.batch.Reset(bucket)
	in.at, in.series = in.at[:0], in.series[:0]
	in.syms = in.syms[:0]
	in.before, in.pairs, in.changed = nil, in.pairs[:0], -1
	in.forgetRefs()
	clear(in.exemplars)
	in.exemplars, in.hand = in.exemplars[:0], 0
	in.bound(in.o.MaxSamples)
	in.sent.samples, in.sent.histograms = 0, 0
	in.refused, in.early = 0, 0
	in.written, in.writtenHistograms, in.writtenExemplars = 0, 0, 0
	in.beginSeries()
	in.problems.reset()
}

// bound sets how many samples, histograms and exemplars the request may have.
func (in *intake) bound(most int) { in.most, in.left = most, most }

// size is how long the body is when it is decompressed.
func (in *intake) size() int {
	if in.through.reads() {
		return in.through.n
	}
	return len(in.decoded)
}

// write decodes the body, but where readThrough has, and writes what is valid. The
// error is about the request as a whole: nothing was written then. What is wrong with
// single series or samples ends up in problems.
func (in *intake) write(ctx context.Context) error {
	err := error(nil)
	switch {
	case in.through.reads():
	case in.protocol == wire.V1:
		err = in.decodeV1()
	default:
		err = in.decodeV2()
	}
	if n := in.size(); err == nil && n >= lookBytes {
		err = in.look(n, 0)
	}
	if err != nil {
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
		in.problems.cache(err, in.o, func() string { return "one of those that are known" })
		samples, histograms = max(0, n-histograms), max(0, n-samples)
	}
	in.written += samples
	in.writtenHistograms += histograms
	if len(in.batch.Missing()) > 0 && in.through.reads() { // their labels are out of the window
		if err := in.decodeWhole(); err != nil {
			return err
		}
	}
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

// create writes series i of the batch, which the cache does not know.
func (in *intake) create(i int) {
	if in.problems.retry != nil {
		// The sender is going to try again. To go on would evict what was
		// just written for the sake of series that may not fit either.
		return
	}
	at := &in.at[i]
	if err := in.decodeLabels(at.piece); err != nil {
		in.problems.add(reasonLabels, 1, in.because(err, at.piece))
		return
	}
	if !in.fresh.take(in.o.Now()) {
		in.problems.retry = fmt.Errorf("%w: more than %d a second%s, for %s", errNewSeries,
			in.o.MaxNewSeriesPerSecond, in.o.flag("MaxNewSeriesPerSecond"), describe(in.labels))
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
	if err != nil {
		in.problems.cache(err, in.o, func() string { return describe(in.labels) })
	}
}

// because is why something of the series at e was not written, for problems.
func (in *intake) because(why error, e piece) func() string {
	return func() string {
		labels := in.labelsOf(e)
		if why == errTooManyLabels {
			n := 0
			for range labels {
				n++
			}
			why = fmt.Errorf("a series has %d labels, more than %d%s", n, in.o.MaxLabels, in.o.flag("MaxLabels"))
		}
		return fmt.Sprintf("%v, for %s", why, wire.Describe(labels))
	}
}

// labelsOf yields the labels of the series at e, valid or not, of which there
// may be millions. The strings are views into decoded.
func (in *intake) labelsOf(e piece) iter.Seq2[string, string] {
	if in.protocol == wire.V1 {
		return eachLabelV1(in.decoded[e.from:e.to])
	}
	return in.eachLabelV2(in.decoded[e.from:e.to])
}

// decodeLabels fills labels with the valid label set of the series at e. The
// strings are views into decoded.
func (in *intake) decodeLabels(e piece) error {
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
	in.starts, in.blocks = in.starts[:0], in.blocks[:0]
	if len(in.histograms) > 0 || in.whyBad != nil {
		clear(in.histograms)
		in.histograms = in.histograms[:0]
		in.badHistograms, in.badExemplars, in.whyBad = 0, 0, nil
	}
	in.hand = len(in.exemplars)
}

// endSeries is what both protocols do when a series has been read: what is
// good of it stays in the batch. samples are those of the batch, from first on
// those of the series in hand. odd says that not all of their times are usual.
func (in *intake) endSeries(f mcache.Fingerprint, e piece, suspect bool, samples []mcache.Sample, first int, odd bool) {
	if in.through.reads() && (odd || suspect || len(samples) == first) {
		in.through.giveUp()
		return
	}
	in.left -= len(samples) - first
	if len(in.histograms) > 0 || len(in.exemplars) > in.hand || in.whyBad != nil {
		in.endRareSeries(f, e)
	}
	if odd {
		samples = in.oddTimes(e, samples, first)
	}
	if len(samples)-first+len(in.histograms)+len(in.blocks) == 0 {
		in.batch.SetSamples(samples)
		if !odd && in.whyBad == nil && len(in.exemplars) == in.hand {
			in.emptySeries(e)
		}
		return
	}
	if suspect {
		if err := in.decodeLabels(e); err != nil {
			in.refuseLabels(e, err, samples, first)
			return
		}
	}
	sent := len(samples) - first + in.inBlocks()
	in.at = append(in.at, place{piece: e, samples: uint32(sent), histograms: uint32(len(in.histograms))})
	in.sent.samples += sent
	in.sent.histograms += len(in.histograms)
	in.batch.SetSamples(samples)
	in.batch.SeriesFrom(first, f, in.starts)
	if in.duty != mcache.Mine {
		in.batch.Duty(in.duty)
	}
	if in.print != (wire.Print{}) {
		in.learned, in.print = append(in.learned, printed{in.print, f}), wire.Print{}
	}
	for _, h := range in.histograms {
		in.batch.Record(h.t, h.value)
	}
	in.batch.Blocks(in.blocks)
}

// endRareSeries sees to what few series have: histograms and exemplars.
func (in *intake) endRareSeries(f mcache.Fingerprint, e piece) {
	in.left -= len(in.histograms) + len(in.exemplars) - in.hand
	for i := in.hand; i < len(in.exemplars); i++ {
		in.exemplars[i].series, in.exemplars[i].fp = e, f
	}
	if in.badHistograms > 0 {
		in.refused += in.badHistograms
		in.problems.add(reasonHistograms, in.badHistograms, in.because(fmt.Errorf("histograms that are not valid: %w", in.whyBad), e))
	}
	if in.badExemplars > 0 {
		in.refuseExemplars(in.badExemplars, in.because(fmt.Errorf("exemplars that are not valid: %w", in.whyBad), e))
	}
	good := in.histograms[:0]
	for _, h := range in.histograms {
		if in.isBadTime(h.t) {
			in.refused++
			in.whyBad = errTime
			in.problems.add(reasonFuture, 1, func() string { return in.because(in.badTime(h.t), e)() })
			continue
		}
		good = append(good, h)
		in.noteEarly(h.t, e)
	}
	in.histograms = good
}

// refuseExemplars counts n that are not kept. A sender of protocol 1.0 cannot
// be told so without being told that its samples were not written, and drops
// or sends them again; one of 2.0 reads in the headers what was written.
func (in *intake) refuseExemplars(n int, why func() string) {
	if in.protocol == wire.V1 {
		in.problems.tolerate(reasonExemplars, n, why)
		return
	}
	in.problems.add(reasonExemplars, n, why)
}

// emptySeries is for a series without anything. The specification of protocol
// 2.0 forbids it; in 1.0 nothing is wrong with it, and nothing to be written.
func (in *intake) emptySeries(e piece) {
	why := in.because(errEmptySeries, e)
	if in.protocol == wire.V1 {
		in.problems.tolerate(reasonEmpty, 1, why)
		return
	}
	in.problems.add(reasonEmpty, 1, why)
}

var errEmptySeries = errors.New("a series without samples or histograms")

// refuseLabels is for the series in hand, the labels of which are not valid.
func (in *intake) refuseLabels(e piece, why error, samples []mcache.Sample, first int) {
	in.batch.SetSamples(samples[:first])
	in.refused += len(samples) - first + len(in.histograms)
	in.problems.add(reasonLabels, 1, in.because(why, e))
	in.exemplars = in.exemplars[:in.hand] // counted with their series
}

// oddTimes looks at the samples from first on, some of which have times that
// are out of bounds or early, and takes out those that are refused.
func (in *intake) oddTimes(e piece, samples []mcache.Sample, first int) []mcache.Sample {
	good, bad := first, int64(0)
	for i := first; i < len(samples); i++ {
		t := samples[i].T
		if in.isBadTime(t) {
			if good == i {
				bad = t // the first of them
			}
			continue
		}
		in.noteEarly(t, e)
		if samples[good] = samples[i]; i-first < len(in.starts) {
			in.starts[good-first] = in.starts[i-first]
		}
		good++
	}
	if out := len(samples) - good; out > 0 {
		in.starts = in.starts[:min(len(in.starts), good-first)]
		in.refused += out
		in.problems.add(reasonFuture, out, func() string { return in.because(in.badTime(bad), e)() })
	}
	return samples[:good]
}

var errTime = errors.New("time out of bounds")

// isBadTime reports whether no sample may have a time.
func (in *intake) isBadTime(t int64) bool { return t > in.maxT || t < -mcache.MaxTime }

// earlyMs is in March 1973. No metric is that old: a time before it was meant
// as seconds, or never set.
const earlyMs = 100_000_000_000

// noteEarly counts a sample of the series at e if its time is early. It is
// written all the same, since nothing forbids it.
func (in *intake) noteEarly(t int64, e piece) {
	if t >= earlyMs {
		return
	}
	in.early++
	in.problems.note(func() string {
		looks := ""
		if near(t, in.nowMs/1000) {
			looks = ", which looks like seconds and not milliseconds"
		}
		return fmt.Sprintf("samples of long ago were written, the first at %s%s, for %s", timeText(t), looks, wire.Describe(in.labelsOf(e)))
	})
}

// badTime says what is wrong with a time that is bad.
func (in *intake) badTime(t int64) error {
	if t < -mcache.MaxTime {
		return fmt.Errorf("a time of %d ms, before all times that are kept", t)
	}
	looks := ""
	switch {
	case near(t/1000, in.nowMs):
		looks = ": it looks like microseconds and not milliseconds"
	case near(t/1_000_000, in.nowMs):
		looks = ": it looks like nanoseconds and not milliseconds"
	}
	return fmt.Errorf("a time of %s is more than %v%s ahead of the clock%s", timeText(t), in.o.MaxAhead, in.o.flag("MaxAhead"), looks)
}

// near reports whether two times, of which b is of the clock, are less than
// some ten years apart, whatever their unit is.
func near(a, b int64) bool { return a > b-b/5 && a < b+b/5 }

// timeText is a time in ms, and what that is in words if words go that far.
func timeText(t int64) string {
	if t < -62135596800000 || t > 253402300799999 { // years 1 to 9999
		return fmt.Sprintf("%d ms", t)
	}
	return fmt.Sprintf("%d ms (%s)", t, time.UnixMilli(t).UTC().Format("2006-01-02T15:04:05.999Z"))
}

// tooMany is the error for a request that holds more than it may.
func (o *Options) tooMany(what string, limit int, option string) error {
	return fmt.Errorf("%w: more than %d %s in one request%s", errTooLarge, limit, what, o.flag(option))
}

// errTooLarge marks the bounds that are answered 413.
var errTooLarge = errors.New("nothing of it was written")
