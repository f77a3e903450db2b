package query

import (
	"bufio"
	"context"
	"net/http"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// federate answers with the latest sample of each series that any match[]
// selects, in the formats that Prometheus scrapes: another Prometheus reads it
// as it would read an exporter. What it does follows Prometheus' handler:
//
//   - A sample counts for as long as an instant query would look back. A series
//     that is marked as ended is left out.
//   - All is of an unknown type, but native histograms, which only the formats
//     of protobuf can hold. Those with buckets of their own become classic ones.
//   - A series without a label "instance" gets an empty one, so that the one
//     who scrapes does not take it for one of this server.
func (a *API) federate(w http.ResponseWriter, r *http.Request) {
	a.counts.lookups.Add(1)
	if err := a.parseForm(w, r); err != nil {
		a.federateError(w, asAPIError(err))
		return
	}
	sets, err := a.parser.ParseMetricSelectors(r.Form["match[]"])
	if err != nil {
		a.federateError(w, badData(err))
		return
	}
	ctx, cancel, err := a.withTimeout(r)
	if err != nil {
		a.federateError(w, asAPIError(err))
		return
	}
	defer cancel()
	q := a.queryable(r)
	latest, err := a.latest(ctx, q, sets)
	if err != nil {
		a.federateError(w, asAPIError(err))
		return
	}
	a.counts.series.Add(uint64(q.selected.Load()))
	a.noteMissing(w.Header(), q)
	format := expfmt.NegotiateAccept(r.Header, expfmt.NewFormat(expfmt.TypeProtoDelim), expfmt.NewFormat(expfmt.TypeProtoText),
		expfmt.NewFormat(expfmt.TypeProtoCompact), expfmt.NewFormat(expfmt.TypeTextPlain))
	out := sender{api: a, w: w, gzip: a.compresses(r), contentType: string(format)}
	buffered := bufio.NewWriterSize(partWriter{&out}, flushBytes)
	err = encodeFamilies(expfmt.NewEncoder(buffered, format), latest, format)
	if err == nil {
		err = buffered.Flush()
	}
	if err == nil {
		err = out.end()
	}
	a.counts.bytes.Add(uint64(out.bytes))
	if err != nil {
		a.o.Logger.Debug("answer was not taken", "path", r.URL.Path, "bytes", out.bytes, "err", err)
		if out.begun {
			panic(http.ErrAbortHandler) // half of an answer must not pass for a whole one
		}
	}
}

// federateError answers as text, which is what those who scrape log.
func (a *API) federateError(w http.ResponseWriter, e *apiError) {
	a.counts.errors.Add(1)
	setRetryAfter(w.Header(), e)
	http.Error(w, e.err.Error(), e.typ.status)
}

// partWriter sends what is written to it.
type partWriter struct{ to *sender }

func (p partWriter) Write(b []byte) (int, error) { return len(b), p.to.part(b) }

// latest finds the latest samples, in the order of the names of their metrics.
func (a *API) latest(ctx context.Context, q *Queryable, sets [][]*labels.Matcher) (promql.Vector, error) {
	if err := a.lookups.enter(ctx); err != nil {
		return nil, err
	}
	defer a.lookups.leave()
	to := a.o.Now().UnixMilli()
	hints := &storage.SelectHints{Start: to - a.limits.Load().lookback.Milliseconds(), End: to}
	querier := querier{q: q, mint: hints.Start, maxt: hints.End}
	found := make([]storage.SeriesSet, len(sets))
	for i, ms := range sets {
		found[i] = querier.Select(ctx, true, hints, ms...)
	}
	var latest promql.Vector
	var it chunkenc.Iterator
	set := storage.NewMergeSeriesSet(found, 0, storage.ChainedSeriesMerge)
	for n := 0; set.Next(); n++ {
		if n%checkEverySeries == 0 {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
		}
		s := set.At()
		it = s.Iterator(it)
		sample, ok, err := lastSample(it)
		if err != nil {
			return nil, err
		}
		if sample.Metric = s.Labels(); ok {
			latest = append(latest, sample)
		}
	}
	if err := set.Err(); err != nil {
		return nil, err
	}
	slices.SortStableFunc(latest, func(a, b promql.Sample) int {
		return strings.Compare(a.Metric.Get(model.MetricNameLabel), b.Metric.Get(model.MetricNameLabel))
	})
	return latest, nil
}

// lastSample is the last that it has, unless it marks the end of the series.
func lastSample(it chunkenc.Iterator) (s promql.Sample, ok bool, err error) {
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		ok = true
		if kind == chunkenc.ValFloat {
			s.T, s.F = it.At()
			s.H = nil
		} else {
			s.T, s.H = it.AtFloatHistogram(nil)
		}
	}
	ended := value.IsStaleNaN(s.F)
	if s.H != nil {
		ended = value.IsStaleNaN(s.H.Sum)
	}
	return s, ok && !ended, it.Err()
}

// holdsHistograms reports whether a format has native histograms.
func holdsHistograms(f expfmt.Format) bool {
	switch f.FormatType() {
	case expfmt.TypeProtoDelim, expfmt.TypeProtoText, expfmt.TypeProtoCompact:
		return true
	}
	return false
}

// encodeFamilies writes samples that are sorted by their metric's name. A name
// that has samples of several types has a family of each, one after the other,
// which no exposition should have and every Prometheus reads.
func encodeFamilies(to expfmt.Encoder, samples promql.Vector, format expfmt.Format) error {
	var family *dto.MetricFamily
	histograms := holdsHistograms(format)
	for i := range samples {
		s := &samples[i]
		name := s.Metric.Get(model.MetricNameLabel)
		if name == "" || s.H != nil && !s.H.UsesCustomBuckets() && !histograms {
			continue
		}
		typ := familyType(s.H)
		if family == nil || family.GetName() != name || family.GetType() != typ {
			if family != nil {
				if err := to.Encode(family); err != nil {
					return err
				}
			}
			family = &dto.MetricFamily{Name: &name, Type: &typ}
		}
		family.Metric = append(family.Metric, metricOf(s))
	}
	if family == nil {
		return nil
	}
	return to.Encode(family)
}

func familyType(h *histogram.FloatHistogram) dto.MetricType {
	switch {
	case h == nil:
		return dto.MetricType_UNTYPED
	case h.CounterResetHint == histogram.GaugeType:
		return dto.MetricType_GAUGE_HISTOGRAM
	default:
		return dto.MetricType_HISTOGRAM
	}
}

func metricOf(s *promql.Sample) *dto.Metric {
	m := &dto.Metric{TimestampMs: &s.T}
	s.Metric.Range(func(l labels.Label) {
		if l.Name != model.MetricNameLabel && l.Value != "" {
			m.Label = append(m.Label, &dto.LabelPair{Name: &l.Name, Value: &l.Value})
		}
	})
	if !s.Metric.Has(model.InstanceLabel) {
		name, empty := model.InstanceLabel, ""
		m.Label = append(m.Label, &dto.LabelPair{Name: &name, Value: &empty})
	}
	switch {
	case s.H == nil:
		m.Untyped = &dto.Untyped{Value: &s.F}
	case s.H.UsesCustomBuckets():
		m.Histogram = classicHistogram(s.H)
	default:
		m.Histogram = nativeHistogram(s.H)
	}
	return m
}

// nativeHistogram is for the schemas of exponential buckets.
func nativeHistogram(h *histogram.FloatHistogram) *dto.Histogram {
	return &dto.Histogram{
		SampleCountFloat: &h.Count, SampleSum: &h.Sum,
		Schema: &h.Schema, ZeroThreshold: &h.ZeroThreshold, ZeroCountFloat: &h.ZeroCount,
		PositiveSpan: spansOf(h.PositiveSpans), PositiveCount: h.PositiveBuckets,
		NegativeSpan: spansOf(h.NegativeSpans), NegativeCount: h.NegativeBuckets,
	}
}

func spansOf(in []histogram.Span) []*dto.BucketSpan {
	var out []*dto.BucketSpan
	for i := range in {
		out = append(out, &dto.BucketSpan{Offset: &in[i].Offset, Length: &in[i].Length})
	}
	return out
}

// classicHistogram is for a histogram with buckets of its own. The bucket that
// has everything is left to the encoder.
func classicHistogram(h *histogram.FloatHistogram) *dto.Histogram {
	out := &dto.Histogram{SampleCountFloat: &h.Count, SampleSum: &h.Sum, Bucket: make([]*dto.Bucket, len(h.CustomValues))}
	buckets, sum := h.PositiveBucketIterator(), 0.0
	more := buckets.Next()
	for i := range h.CustomValues {
		for ; more && int(buckets.At().Index) <= i; more = buckets.Next() {
			sum += buckets.At().Count
		}
		cumulative := sum
		out.Bucket[i] = &dto.Bucket{UpperBound: &h.CustomValues[i], CumulativeCountFloat: &cumulative}
	}
	return out
}
