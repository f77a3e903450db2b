package remotewrite

import (
	"bytes"
	"fmt"
	"math"
	"regexp"
	"slices"
	"testing"
	"unicode/utf8"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// decodedSeries is a series as a decoder sees it, before any rule is applied.
type decodedSeries struct {
	labels     []mcache.Label
	samples    []mcache.Sample
	histograms []writev2.Histogram
}

// expect applies the rules to what Prometheus' decoder found, naïvely: it is
// the oracle. It returns what has to be in the cache and the samples written.
func expect(all []decodedSeries, o *Options, maxT int64) (contents []string, written, histograms int) {
	held := map[string]map[int64]string{}
	put := func(key string, t int64, v string) bool {
		if t > maxT || t < -mcache.MaxTime {
			return false
		}
		if held[key] == nil {
			held[key] = map[int64]string{}
		}
		held[key][t] = v
		return true
	}
	for _, s := range all {
		names := map[string]bool{}
		valid := len(s.labels) <= o.MaxLabels
		named := false
		var kept []mcache.Label
		for _, l := range s.labels {
			valid = valid && l.Name != "" && !names[l.Name] && utf8.ValidString(l.Name) && utf8.ValidString(l.Value) &&
				len(l.Name) <= o.MaxLabelNameBytes && len(l.Value) <= o.MaxLabelValueBytes
			names[l.Name] = true
			named = named || l.Name == wire.MetricName && l.Value != ""
			if l.Value != "" {
				kept = append(kept, l)
			}
		}
		if !valid || !named {
			continue
		}
		slices.SortFunc(kept, func(a, b mcache.Label) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
		key := labelText(kept)
		for _, x := range s.samples {
			if put(key, x.T, fmt.Sprintf("%x", x.V)) {
				written++
			}
		}
		for _, h := range s.histograms {
			if h, ok := validHistogram(h); ok && put(key, h.Timestamp, "record:"+showHistogram(h)) {
				histograms++
			}
		}
	}
	for key, samples := range held {
		times := make([]int64, 0, len(samples))
		for t := range samples {
			times = append(times, t)
		}
		slices.Sort(times)
		for _, t := range times {
			key += fmt.Sprintf(" %d:%s", t, samples[t])
		}
		contents = append(contents, key)
	}
	slices.Sort(contents)
	return contents, written, histograms
}

// validHistogram is h as it is to be stored, if it is.
func validHistogram(h writev2.Histogram) (writev2.Histogram, bool) {
	if h.IsFloatHistogram() {
		f := h.ToFloatHistogram()
		if f.Schema > 8 && f.Schema <= 52 {
			if f.ReduceResolution(8) != nil {
				return h, false
			}
			h = writev2.FromFloatHistogram(h.StartTimestamp, h.Timestamp, f)
		}
		return h, f.Validate() == nil
	}
	i := h.ToIntHistogram()
	if i.Schema > 8 && i.Schema <= 52 {
		if i.ReduceResolution(8) != nil {
			return h, false
		}
		h = writev2.FromIntHistogram(h.StartTimestamp, h.Timestamp, i)
	}
	return h, i.Validate() == nil
}

// showHistogram writes h in the one way that equal ones have.
func showHistogram(h writev2.Histogram) string {
	b, err := h.Marshal()
	return fmt.Sprintf("%x %v", b, err)
}

func showRecord(b []byte) string {
	var h writev2.Histogram
	if err := h.Unmarshal(b); err != nil {
		return err.Error()
	}
	return showHistogram(h)
}

// Start times are kept as float64, and have tests of their own.
var since = regexp.MustCompile(`\(since -?[0-9]+\)`)

// compare runs body through a receiver, twice as a whole and twice through a window,
// and holds it to the oracle. The receiver serves many of them, each in an empty bucket.
func compare(t *testing.T, r receiver, p wire.Protocol, body []byte, all []decodedSeries, oracleErr error) {
	r.T = t
	in := r.intake()
	defer r.putBack(in)
	defer r.Cache.RemoveBucket("default")
	maxT := now.Add(r.o().MaxAhead).UnixMilli()
	want, written, histograms := expect(all, r.o(), maxT)
	in.through = through{unsnappy: unsnappy{piece: smallPiece}}
	for round := range 4 {
		if round == 2 {
			r.Cache.RemoveBucket("default")
		}
		in.closeWindow()
		in.decoded = bytes.Clone(body)
		in.reset(p, "default", nil)
		if in.through.waits = 0; round >= 2 {
			in.readThrough(snappyBlock, inPieces(body), len(body))
		}
		err := in.write(t.Context())
		if (err != nil) != (oracleErr != nil) {
			t.Fatalf("round %d: our error is %v, the oracle's %v", round, err, oracleErr)
		}
		if err != nil {
			return
		}
		if in.written != written || in.writtenHistograms != histograms {
			t.Errorf("round %d: %d samples and %d histograms written, want %d and %d; problems: %s", round, in.written, in.writtenHistograms, written, histograms, in.problems.text(0, 0))
		}
		got := r.ContentsBy("default", showRecord)
		for i := range got {
			got[i] = since.ReplaceAllString(got[i], "")
		}
		if !slices.Equal(got, want) {
			t.Errorf("round %d: the cache holds %q, want %q", round, got, want)
		}
		if round%2 == 1 && len(in.batch.Missing()) > 0 && in.problems.failed == 0 {
			t.Errorf("%d series are still unknown", len(in.batch.Missing()))
		}
	}
}

func FuzzV1(f *testing.F) {
	r := newReceiver(f, Options{})
	for _, h := range validHistograms() {
		f.Add(withHistograms(f, wire.V1, []writev2.Histogram{h}))
	}
	for _, m := range seedsV1() {
		b, err := m.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var m prompb.WriteRequest
		err := m.Unmarshal(body)
		var all []decodedSeries
		for _, ts := range m.Timeseries {
			var s decodedSeries
			for _, l := range ts.Labels {
				s.labels = append(s.labels, mcache.Label{Name: l.Name, Value: l.Value})
			}
			for _, x := range ts.Samples {
				s.samples = append(s.samples, mcache.Sample{T: x.Timestamp, V: math.Float64bits(x.Value)})
			}
			for _, h := range ts.Histograms {
				h.XXX_unrecognized = nil
				s.histograms = append(s.histograms, toV2(t, h))
			}
			all = append(all, s)
		}
		if err == nil && hasField(body, wire.TagV2Symbol, wire.TagV2Series) {
			err = errOtherProtocol{wire.V1, wire.V2}
		}
		compare(t, r, wire.V1, body, all, err)
	})
}

func FuzzV2(f *testing.F) {
	r := newReceiver(f, Options{})
	for _, h := range validHistograms() {
		f.Add(withHistograms(f, wire.V2, []writev2.Histogram{h}))
	}
	for _, m := range seedsV2() {
		b, err := m.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var m writev2.Request
		err := m.Unmarshal(body)
		if err == nil && len(m.Symbols) > 0 && m.Symbols[0] != "" {
			err = errMalformed
		}
		if err == nil && hasField(body, wire.TagV1Series, wire.TagV1Metadata) {
			err = errOtherProtocol{wire.V2, wire.V1}
		}
		if err == nil && straddles(body) {
			t.Skip("Prometheus' decoder reads a packed list beyond its end")
		}
		var all []decodedSeries
		for _, ts := range m.Timeseries {
			var s decodedSeries
			good := len(ts.LabelsRefs)%2 == 0 && len(ts.LabelsRefs) <= 2*DefaultMaxLabels
			for _, r := range ts.LabelsRefs {
				good = good && int(r) < len(m.Symbols)
			}
			if ts.Metadata.HelpRef != 0 || ts.Metadata.UnitRef != 0 || ts.Metadata.Type != 0 {
				good = good && int(ts.Metadata.HelpRef) < len(m.Symbols) && int(ts.Metadata.UnitRef) < len(m.Symbols)
			}
			if !good {
				continue
			}
			for i := 0; i+1 < len(ts.LabelsRefs); i += 2 {
				s.labels = append(s.labels, mcache.Label{Name: m.Symbols[ts.LabelsRefs[i]], Value: m.Symbols[ts.LabelsRefs[i+1]]})
			}
			for _, x := range ts.Samples {
				s.samples = append(s.samples, mcache.Sample{T: x.Timestamp, V: math.Float64bits(x.Value)})
			}
			s.histograms = ts.Histograms
			all = append(all, s)
		}
		compare(t, r, wire.V2, body, all, err)
	})
}

func toV2(t testing.TB, h1 prompb.Histogram) writev2.Histogram {
	t.Helper()
	var h writev2.Histogram
	if err := h.Unmarshal(marshal(t, &h1)); err != nil {
		t.Fatal(err)
	}
	return h
}

// hasField tells whether a well-formed message has one of the fields.
func hasField(b []byte, tags ...uint64) bool {
	for i := 0; i < len(b); {
		var t uint64
		if t, i = wire.Tag(b, i); i < 0 {
			return false
		}
		if slices.Contains(tags, t) {
			return true
		}
		if i = wire.Skip(b, t, i); i < 0 {
			return false
		}
	}
	return false
}

// straddles tells whether a packed list in a series of protocol 2.0 ends
// within a number.
func straddles(b []byte) bool {
	for i := 0; i < len(b); {
		t, i2 := wire.Tag(b, i)
		if i2 < 0 {
			return false
		}
		if t == wire.TagV2Series {
			from, to := wire.Bytes(b, i2)
			s := b[from:to]
			for j := 0; j < len(s); {
				t, j2 := wire.Tag(s, j)
				if j2 < 0 {
					return true
				}
				if t == wire.TagV2SeriesRefs {
					from, to := wire.Bytes(s, j2)
					if from < 0 || to > from && s[to-1] >= 0x80 {
						return true
					}
				}
				if j = wire.Skip(s, t, j2); j < 0 {
					return true
				}
			}
		}
		if i = wire.Skip(b, t, i2); i < 0 {
			return false
		}
	}
	return false
}

// FuzzBody sends whole bodies, compressed or not what they claim, through the
// handler: every one must be answered, by a status that exists.
func FuzzBody(f *testing.F) {
	r := newReceiver(f, Options{MaxDecodedBytes: 1 << 20})
	f.Add([]byte{}, false)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f}, true)
	for _, m := range seedsV1() {
		b, err := m.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(snappy.Encode(nil, b), false)
	}
	for _, m := range seedsV2() {
		b, err := m.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(snappy.Encode(nil, b), true)
	}
	f.Fuzz(func(t *testing.T, body []byte, second bool) {
		p := wire.V1
		if second {
			p = wire.V2
		}
		defer r.Cache.RemoveBucket("default")
		w := r.Post(contentType(p), "snappy", body)
		n, err := snappy.DecodedLen(body)
		if err == nil && n > 1<<20 {
			if w.Code != 413 {
				t.Errorf("a claim of %d bytes is answered %d %s", n, w.Code, w.Body)
			}
			return
		}
		_, err = snappy.Decode(nil, body)
		switch {
		case w.Code != 204 && w.Code != 400 && w.Code != 413:
			t.Errorf("answer is %d %s", w.Code, w.Body)
		case err != nil && w.Code == 204:
			t.Errorf("a body that is not snappy (%v) was taken", err)
		case w.Code == 413:
			t.Errorf("a body of %d bytes is answered %s", n, w.Body)
		}
	})
}

func seedsV1() []*prompb.WriteRequest {
	ms := now.UnixMilli()
	full := requestV1(
		Series{Labels: named("a", "x", "1"), Samples: []mcache.Sample{sample(-15, 1), sample(0, 2)}},
		Series{Labels: named("a", "x", "2"), Samples: []mcache.Sample{sample(0, 0)}},
		Series{Labels: named("a", "x", "2"), Samples: []mcache.Sample{{T: 0, V: 1}}},
		Series{Labels: named("b", "empty", "", "x", "2"), Samples: []mcache.Sample{sample(3600, 1), sample(-3600, 1)}},
		Series{Labels: labels("x", "no name"), Samples: []mcache.Sample{sample(0, 1)}},
		Series{Labels: named("dup", "x", "1", "x", "1"), Samples: []mcache.Sample{sample(0, 1)}},
		Series{Labels: named("bad\xff"), Samples: []mcache.Sample{{T: math.MinInt64, V: 1}, {T: math.MaxInt64, V: 2}}},
		Series{Labels: named("none"), Samples: nil},
	)
	full.Timeseries[0].Exemplars = []prompb.Exemplar{{Labels: []prompb.Label{{Name: "trace_id", Value: "abc"}}, Value: 1, Timestamp: ms}}
	full.Timeseries[1].Histograms = []prompb.Histogram{{Timestamp: ms, Schema: 3, Sum: 1, PositiveSpans: []prompb.BucketSpan{{Offset: -1, Length: 2}}, PositiveDeltas: []int64{1, -1}}}
	full.Metadata = []prompb.MetricMetadata{{Type: prompb.MetricMetadata_COUNTER, MetricFamilyName: "a", Help: "h", Unit: "u"}}
	return []*prompb.WriteRequest{{}, full, requestV1(Series{Labels: named("a"), Samples: []mcache.Sample{sample(0, 1)}})}
}

func seedsV2() []*writev2.Request {
	ms := now.UnixMilli()
	full := requestV2(
		Series{Labels: named("a", "x", "1"), Samples: []mcache.Sample{sample(-15, 1), sample(0, 2)}},
		Series{Labels: named("a", "x", "2"), Samples: []mcache.Sample{sample(0, 0)}},
		Series{Labels: named("b", "empty", "", "x", "2"), Samples: []mcache.Sample{sample(3600, 1), sample(-3600, 1)}},
		Series{Labels: labels("x", "no name"), Samples: []mcache.Sample{sample(0, 1)}},
		Series{Labels: named("dup", "x", "1", "x", "1"), Samples: []mcache.Sample{sample(0, 1)}},
		Series{Labels: named("bad\xff"), Samples: []mcache.Sample{{T: math.MinInt64, V: 1}, {T: math.MaxInt64, V: 2}}},
		Series{Labels: named("none"), Samples: nil},
	)
	full.Timeseries[0].Exemplars = []writev2.Exemplar{{LabelsRefs: []uint32{1, 2}, Value: 1, Timestamp: ms}}
	full.Timeseries[1].Histograms = []writev2.Histogram{{Timestamp: ms, Schema: -53, CustomValues: []float64{1, 2}, PositiveSpans: []writev2.BucketSpan{{Offset: 0, Length: 2}}, PositiveDeltas: []int64{1, -1}}}
	full.Timeseries[2].Metadata = writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_GAUGE, HelpRef: 1, UnitRef: 2}
	full.Timeseries[2].Samples[0].StartTimestamp = ms - 1000
	return []*writev2.Request{{}, full, requestV2(Series{Labels: named("a"), Samples: []mcache.Sample{sample(0, 1)}})}
}
