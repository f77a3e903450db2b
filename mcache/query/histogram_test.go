package query

import (
	"bytes"
	"fmt"
	"math"
	"testing"

	jsoniter "github.com/json-iterator/go"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/jsonutil"

	"github.com/golang/snappy"

	"mcached/mcache"
)

// fillRecords appends a series of records, a step apart from t0 on.
func fillRecords(t testing.TB, c *mcache.Cache, step int64, records [][]byte, pairs ...string) {
	t.Helper()
	ls := pairsToLabels(pairs)
	var b mcache.Batch
	b.Reset("default")
	b.Series(c.Fingerprint(ls))
	for i, r := range records {
		if r != nil {
			b.Record(t0+int64(i)*step, r)
		}
	}
	if _, err := c.Append(&b); err != nil {
		t.Fatal(err)
	}
	for _, i := range b.Missing() {
		if _, err := c.AppendNew(&b, i, ls); err != nil {
			t.Fatal(err)
		}
	}
}

func marshalHistogram(t testing.TB, m writev2.Histogram) []byte {
	t.Helper()
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// countsOf is a histogram with these counts in its buckets.
func countsOf(hint histogram.CounterResetHint, schema int32, counts ...int64) *histogram.Histogram {
	h := &histogram.Histogram{CounterResetHint: hint, Schema: schema, PositiveSpans: []histogram.Span{{Length: uint32(len(counts))}}, ZeroThreshold: 0.001}
	last := int64(0)
	for _, n := range counts {
		h.Count += uint64(n)
		h.PositiveBuckets = append(h.PositiveBuckets, n-last)
		last = n
	}
	h.Sum = float64(h.Count) / 4
	return h
}

// TestResetHints reads one series from every time on, and by seeking, and wants
// the same hints each time.
func TestResetHints(t *testing.T) {
	const (
		unknown  = histogram.UnknownCounterReset
		notReset = histogram.NotCounterReset
		gauge    = histogram.GaugeType
		reset    = histogram.CounterReset
	)
	stale := &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}
	points := []struct {
		h     *histogram.Histogram // nil: a sample
		float bool
		want  histogram.CounterResetHint
	}{
		{countsOf(unknown, 0, 1, 2), false, unknown},
		{countsOf(unknown, 0, 1, 3), false, notReset},
		{countsOf(unknown, 0, 1, 3, 1), false, notReset},
		{countsOf(unknown, 0, 1, 1, 1), false, unknown}, // reset
		{countsOf(reset, 0, 2, 2, 2), false, unknown},   // said to be
		{countsOf(notReset, 0, 1, 2, 2), false, unknown},
		{countsOf(unknown, 1, 1, 2, 2), false, unknown}, // another layout
		{stale, false, notReset},
		{countsOf(unknown, 1, 5, 5, 5), false, unknown},
		{countsOf(gauge, 1, 5, 5, 5), false, gauge},
		{countsOf(unknown, 1, 5, 5, 5), false, unknown},
		{countsOf(unknown, 1, 6, 6, 6), true, unknown}, // of floats now
		{countsOf(unknown, 1, 6, 7, 6), true, notReset},
		{nil, false, 0},
		{countsOf(unknown, 1, 6, 8, 6), true, unknown},
		{countsOf(unknown, 1, 6, 9, 6), true, notReset},
	}
	c := newCache(t)
	const step = 60_000
	var records [][]byte
	for i, p := range points {
		at := t0 + int64(i)*step
		switch {
		case p.h == nil:
			records = append(records, nil)
		case p.float:
			records = append(records, marshalHistogram(t, writev2.FromFloatHistogram(at-1, at, p.h.ToFloat(nil))))
		default:
			records = append(records, marshalHistogram(t, writev2.FromIntHistogram(at-1, at, p.h)))
		}
	}
	fillRecords(t, c, step, records, "__name__", "h")
	if err := c.AppendSamples("default", pairsToLabels([]string{"__name__", "h"}), mcache.Sample{T: t0 + 13*step, V: math.Float64bits(1)}); err != nil {
		t.Fatal(err)
	}
	q := NewQueryable(FromCache(c, nil), "default", QueryableOptions{})
	check := func(how string, i int, it chunkenc.Iterator, kind chunkenc.ValueType) {
		t.Helper()
		p, at := points[i], t0+int64(i)*step
		if it.AtT() != at {
			t.Fatalf("%s: at %d, want %d", how, it.AtT(), at)
		}
		switch {
		case p.h == nil:
			if kind != chunkenc.ValFloat {
				t.Errorf("%s: point %d is a %s", how, i, kind)
			}
			return
		case p.float != (kind == chunkenc.ValFloatHistogram):
			t.Errorf("%s: point %d is a %s", how, i, kind)
		}
		_, fh := it.AtFloatHistogram(nil)
		want := p.h.ToFloat(nil)
		want.CounterResetHint = p.want
		if !fh.Equals(want) || fh.CounterResetHint != p.want || it.AtST() != at-1 {
			t.Errorf("%s: point %d is %s since %d, want %s", how, i, fh, it.AtST(), want)
		}
		if kind == chunkenc.ValHistogram {
			if _, h := it.AtHistogram(&histogram.Histogram{Count: 99}); h.CounterResetHint != p.want || h.Count != p.h.Count {
				t.Errorf("%s: point %d is %s", how, i, h)
			}
		}
	}
	for from := range points {
		querier, _ := q.Querier(t0+int64(from)*step, t0+int64(len(points))*step)
		set := querier.Select(t.Context(), false, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", "h"))
		if !set.Next() {
			t.Fatal("no series")
		}
		it := set.At().Iterator(nil)
		for i := from; i < len(points); i++ {
			check(fmt.Sprintf("from %d", from), i, it, it.Next())
		}
		if it.Next() != chunkenc.ValNone || it.Err() != nil {
			t.Errorf("more than there is: %v", it.Err())
		}
		for to := from; to < len(points); to++ {
			it = set.At().Iterator(it)
			check(fmt.Sprintf("from %d to %d", from, to), to, it, it.Seek(t0+int64(to)*step))
			check(fmt.Sprintf("from %d to %d again", from, to), to, it, it.Seek(t0))
			if to+1 < len(points) {
				check(fmt.Sprintf("from %d to %d and on", from, to), to+1, it, it.Next())
			}
		}
	}
}

func TestHistogramAnswers(t *testing.T) {
	c := newCache(t)
	var records [][]byte
	for i := range int64(200) {
		records = append(records, marshalHistogram(t, writev2.FromIntHistogram(0, t0+i*3000, countsOf(0, 0, i, 2*i, 0, i%50))))
	}
	fillRecords(t, c, 3000, records, "__name__", "h")
	fillRecords(t, c, 3000, [][]byte{{0xff}}, "__name__", "broken")
	a := NewAPI(c, testOptions())
	wantBody(t, get(t, a, "query", "query", "h", "time", seconds(t0+3000)), 200,
		success(`{"resultType":"vector","result":[{"metric":{"__name__":"h"},"histogram":[1795208703,{"count":"4","sum":"1","buckets":[[0,"0.5","1","1"],[0,"1","2","2"],[0,"4","8","1"]]}]}]}`))
	wantBody(t, get(t, a, "query_range", "query", "sum(h)", "start", seconds(t0), "end", seconds(t0+3000), "step", "3"), 200,
		success(`{"resultType":"matrix","result":[{"metric":{},"histograms":[[1795208700,{"count":"0","sum":"0"}],[1795208703,{"count":"4","sum":"1","buckets":[[0,"0.5","1","1"],[0,"1","2","2"],[0,"4","8","1"]]}]]}]}`))
	wantBody(t, get(t, a, "query", "query", "broken", "time", seconds(t0)), 422, failure("execution", "stored histogram: unexpected EOF"))

	request := &prompb.ReadRequest{Queries: []*prompb.Query{{StartTimestampMs: t0, EndTimestampMs: t0 + 600_000, Matchers: []*prompb.LabelMatcher{{Name: "__name__", Value: "h"}}}}}
	raw, err := snappy.Decode(nil, readRequest(t, a, request).Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	var response prompb.ReadResponse
	if err := response.Unmarshal(raw); err != nil {
		t.Fatal(err)
	}
	got := response.Results[0].Timeseries[0].Histograms
	for i, h := range got {
		if want := countsOf(0, 0, int64(i), 2*int64(i), 0, int64(i)%50); h.Timestamp != t0+int64(i)*3000 || !h.ToIntHistogram().Equals(want) {
			t.Fatalf("histogram %d at %d is %s, want %s", i, h.Timestamp, h.ToIntHistogram(), want)
		}
	}
	if len(got) != 200 {
		t.Errorf("%d histograms were read", len(got))
	}
}

// TestHistogramJSONIsPrometheus compares with Prometheus' own function.
func TestHistogramJSONIsPrometheus(t *testing.T) {
	for _, h := range []*histogram.FloatHistogram{
		{},
		countsOf(0, 3, 1, 0, 5).ToFloat(nil),
		{Schema: -1, Count: 1e22, Sum: math.Inf(-1), ZeroThreshold: 0.5, ZeroCount: 2.5, NegativeSpans: []histogram.Span{{Offset: -2, Length: 2}, {Offset: 3, Length: 1}}, NegativeBuckets: []float64{1e-7, 0, 3}},
		{Schema: histogram.CustomBucketsSchema, Count: 6, Sum: 1.5, CustomValues: []float64{-1, 0, 1}, PositiveSpans: []histogram.Span{{Length: 4}}, PositiveBuckets: []float64{1, 2, 3, 4}},
	} {
		want := reference(func(s *jsoniter.Stream) { jsonutil.MarshalHistogram(h, s) })
		var w jsonWriter
		w.histogram(h)
		if string(w.buf) != want {
			t.Errorf("%s\nwant %s", w.buf, want)
		}
		if int64(len(w.buf)) > maxHistogramBytes(h) {
			t.Errorf("%d bytes, said to be at most %d", len(w.buf), maxHistogramBytes(h))
		}
	}
}

func FuzzHistogramRecord(f *testing.F) {
	f.Add(marshalHistogram(f, writev2.FromIntHistogram(0, 1, countsOf(0, 0, 1, 2))))
	f.Add(marshalHistogram(f, writev2.FromFloatHistogram(0, 1, countsOf(0, 0, 1, 2).ToFloat(nil))))
	f.Fuzz(func(t *testing.T, record []byte) {
		var d histogramDecoder
		if d.decode(record, nil, false) != (d.err == nil) {
			t.Fatal("an error that is none, or none that is one")
		}
		if d.err == nil && !bytes.Equal(record, nil) {
			d.inFloats()
		}
	})
}
