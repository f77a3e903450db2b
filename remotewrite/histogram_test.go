package remotewrite

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// Valid histograms of each kind, timestamps aside.
func validHistograms() map[string]writev2.Histogram {
	count := func(n uint64) *writev2.Histogram_CountInt { return &writev2.Histogram_CountInt{CountInt: n} }
	floats := func(n float64) *writev2.Histogram_CountFloat { return &writev2.Histogram_CountFloat{CountFloat: n} }
	spans := []writev2.BucketSpan{{Offset: -2, Length: 2}, {Offset: 3, Length: 1}}
	return map[string]writev2.Histogram{
		"integer": {Count: count(10), Sum: 18.4, Schema: 1, ZeroThreshold: 0.001, ZeroCount: &writev2.Histogram_ZeroCountInt{ZeroCountInt: 2},
			PositiveSpans: spans, PositiveDeltas: []int64{2, 1, -1}, NegativeSpans: spans[:1], NegativeDeltas: []int64{1, -1}},
		"float": {Count: floats(8.5), Sum: 18.4, Schema: -4, ZeroCount: &writev2.Histogram_ZeroCountFloat{ZeroCountFloat: 0.5},
			PositiveSpans: spans, PositiveCounts: []float64{2, 3, 3}, ResetHint: writev2.Histogram_RESET_HINT_GAUGE},
		"custom buckets": {Count: count(6), Sum: 100, Schema: -53, PositiveSpans: []writev2.BucketSpan{{Offset: 0, Length: 3}},
			PositiveDeltas: []int64{1, 1, 1}, CustomValues: []float64{1, 2.5, 10}},
		"empty": {Count: count(0), Schema: 0},
		"stale": {Count: count(0), Sum: math.Float64frombits(0x7ff0000000000002)},
	}
}

func toV1(t testing.TB, h writev2.Histogram) prompb.Histogram {
	t.Helper()
	h.StartTimestamp = 0
	var h1 prompb.Histogram
	if err := h1.Unmarshal(marshal(t, &h)); err != nil {
		t.Fatal(err)
	}
	return h1
}

// withHistograms is a request with one series of histograms.
func withHistograms(t testing.TB, p wire.Protocol, hs []writev2.Histogram, more ...Series) []byte {
	t.Helper()
	series := append([]Series{{Labels: named("h")}}, more...)
	if p == wire.V1 {
		m := requestV1(series...)
		for _, h := range hs {
			m.Timeseries[0].Histograms = append(m.Timeseries[0].Histograms, toV1(t, h))
		}
		return marshal(t, m)
	}
	m := requestV2(series...)
	m.Timeseries[0].Histograms = hs
	return marshal(t, m)
}

// Every kind is stored unchanged, byte by byte, in a series that is new and
// in one that is known.
func TestRuleHistogramsAreStored(t *testing.T) {
	for name, h := range validHistograms() {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, p wire.Protocol) {
				r := newReceiver(t, Options{})
				var hs []writev2.Histogram
				want := `{__name__="h"}`
				for i := range 3 {
					h := h
					h.Timestamp = now.UnixMilli() + int64(i)*15_000
					if p == wire.V2 {
						h.StartTimestamp = now.UnixMilli() - 3600_000
					}
					hs = append(hs, h)
					want += fmt.Sprintf(" %d:record:%x", h.Timestamp, marshal(t, &h))
				}
				body := withHistograms(t, p, hs, Series{Labels: named("x"), Samples: []mcache.Sample{sample(0, 1)}})
				for range 2 {
					w := r.Send(p, body)
					answered(t, w, 204, "")
					if p == wire.V2 {
						wrote(t, w, 1, 3)
					}
					r.Holds(want, line(`{__name__="x"}`, sample(0, 1)))
				}
				if s := r.Stats(); s.Histograms != 6 || s.Samples != 2 {
					t.Errorf("counted %+v", s)
				}
			})
		})
	}
}

func TestRuleInvalidHistogramsAre400(t *testing.T) {
	valid := validHistograms()
	change := func(kind string, f func(*writev2.Histogram)) writev2.Histogram {
		h := valid[kind]
		h.PositiveDeltas, h.PositiveSpans, h.CustomValues = slices.Clone(h.PositiveDeltas), slices.Clone(h.PositiveSpans), slices.Clone(h.CustomValues)
		f(&h)
		return h
	}
	for name, c := range map[string]struct {
		h    writev2.Histogram
		text string
	}{
		"count":          {change("integer", func(h *writev2.Histogram) { h.Count = &writev2.Histogram_CountInt{CountInt: 99} }), "the Count field is 99"},
		"negative count": {change("integer", func(h *writev2.Histogram) { h.PositiveDeltas[0] = -5 }), "negative"},
		"spans":          {change("integer", func(h *writev2.Histogram) { h.PositiveSpans[0].Length = 9 }), "spans"},
		"float count":    {change("float", func(h *writev2.Histogram) { h.PositiveCounts = []float64{2, -3, 3} }), "negative"},
		"custom bounds":  {change("custom buckets", func(h *writev2.Histogram) { h.CustomValues[1] = 0 }), "custom"},
		"unknown schema": {change("integer", func(h *writev2.Histogram) { h.Schema = 100 }), "schema"},
		"too large": {change("empty", func(h *writev2.Histogram) {
			h.Schema, h.CustomValues = -53, nil
			for i := range 20_000 {
				h.CustomValues = append(h.CustomValues, float64(i))
			}
		}), "bytes, more than"},
		"in the future": {change("integer", func(h *writev2.Histogram) { h.Timestamp = now.UnixMilli() + 600_001 }), "is more than 10m0s ahead of the clock, for h{}"},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, p wire.Protocol) {
				r := newReceiver(t, Options{})
				good := valid["integer"]
				if good.Timestamp = now.UnixMilli(); c.h.Timestamp == 0 {
					c.h.Timestamp = now.UnixMilli() - 15_000
				}
				w := r.Send(p, withHistograms(t, p, []writev2.Histogram{c.h, good}, Series{Labels: named("x"), Samples: []mcache.Sample{sample(0, 1)}}))
				answered(t, w, 400, c.text)
				if p == wire.V2 {
					wrote(t, w, 1, 1)
				}
				r.Holds(fmt.Sprintf(`{__name__="h"} %d:record:%x`, good.Timestamp, marshal(t, &good)), line(`{__name__="x"}`, sample(0, 1)))
				if s := r.Stats(); s.InvalidHistograms+s.SamplesInFuture != 1 || s.EmptySeries != 0 {
					t.Errorf("counted %+v", s)
				}
			})
		})
	}
}

// A schema finer than readers know is merged to the finest they do.
func TestFineHistogramsAreReduced(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		r := newReceiver(t, Options{})
		h := writev2.Histogram{Timestamp: now.UnixMilli(), Schema: 9, Sum: 3, Count: &writev2.Histogram_CountInt{CountInt: 3},
			PositiveSpans: []writev2.BucketSpan{{Offset: 1, Length: 2}}, PositiveDeltas: []int64{1, 1}}
		answered(t, r.Send(p, withHistograms(t, p, []writev2.Histogram{h})), 204, "")
		held := r.Contents("default")
		var got writev2.Histogram
		var raw []byte
		if _, err := fmt.Sscanf(held[0][strings.Index(held[0], "record:")+7:], "%x", &raw); err != nil {
			t.Fatal(err)
		}
		if err := got.Unmarshal(raw); err != nil || got.Schema != 8 || got.GetCountInt() != 3 || !slices.Equal(got.PositiveDeltas, []int64{3}) {
			t.Errorf("stored is %+v, %v", got, err)
		}
	})
}

// A histogram and a sample may meet: the later wins.
func TestHistogramAndSampleAtOneTime(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		r := newReceiver(t, Options{})
		h := validHistograms()["integer"]
		h.Timestamp = now.UnixMilli()
		float := encode(t, p, Series{Labels: named("h"), Samples: []mcache.Sample{sample(0, 1)}})
		answered(t, r.Send(p, float), 204, "")
		answered(t, r.Send(p, withHistograms(t, p, []writev2.Histogram{h})), 204, "")
		r.Holds(fmt.Sprintf(`{__name__="h"} %d:record:%x`, h.Timestamp, marshal(t, &h)))
		answered(t, r.Send(p, float), 204, "")
		r.Holds(line(`{__name__="h"}`, sample(0, 1)))
	})
}

// What of protocol 1.0 is unknown does not become a field of protocol 2.0.
func TestUnknownFieldOfAHistogram(t *testing.T) {
	r := newReceiver(t, Options{})
	h := validHistograms()["integer"]
	h.Timestamp, h.StartTimestamp = now.UnixMilli(), 12345
	h1 := toV1(t, h)
	h1.XXX_unrecognized = []byte{0x88, 0x01, 5} // field 17
	m := requestV1(Series{Labels: named("h")})
	m.Timeseries[0].Histograms = []prompb.Histogram{h1}
	answered(t, r.Send(wire.V1, marshal(t, m)), 204, "")
	h.StartTimestamp = 0
	r.Holds(fmt.Sprintf(`{__name__="h"} %d:record:%x`, h.Timestamp, marshal(t, &h)))
}

// TestCheckHistogram takes what a Handler keeps, and nothing that it would not.
func TestCheckHistogram(t *testing.T) {
	good := validHistograms()["integer"]
	encode := func(change func(h *writev2.Histogram)) []byte {
		h := good
		change(&h)
		b, err := h.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if err := CheckHistogram(encode(func(*writev2.Histogram) {})); err != nil {
		t.Error(err)
	}
	for name, b := range map[string][]byte{
		"a span of 4 G":  encode(func(h *writev2.Histogram) { h.PositiveSpans = []writev2.BucketSpan{{Length: math.MaxUint32}} }),
		"a span too far": encode(func(h *writev2.Histogram) { h.PositiveSpans = []writev2.BucketSpan{{Length: 2}} }),
		"finer":          encode(func(h *writev2.Histogram) { h.Schema = maxSchema + 1 }),
		"unknown schema": encode(func(h *writev2.Histogram) { h.Schema = 100 }),
		"no histogram":   []byte("\xff\xff"),
	} {
		if CheckHistogram(b) == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
