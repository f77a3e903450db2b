package remotewrite

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"

	"mcached/remotewrite/wire"
)

// A long request whose series are known is read through a window, and with it what it
// says of some that are new; whatever is unusual is read as a whole. All is written.
func TestReadThrough(t *testing.T) {
	usual := func(seconds float64) *prompb.WriteRequest {
		var m prompb.WriteRequest
		if err := m.Unmarshal(benchRequest(t, wire.V1, seconds)); err != nil {
			t.Fatal(err)
		}
		return &m
	}
	label := func(name, value string) prompb.Label { return prompb.Label{Name: name, Value: value} }
	for _, x := range []struct {
		name    string
		change  func(m *prompb.WriteRequest)
		through bool
		missing int
	}{
		{"nothing", func(*prompb.WriteRequest) {}, true, 0},
		{"values of zero", func(m *prompb.WriteRequest) { m.Timeseries[1000].Samples[0].Value = 0 }, true, 0},
		{"many samples", func(m *prompb.WriteRequest) {
			s := &m.Timeseries[1000].Samples
			for i := range 2000 {
				*s = append(*s, prompb.Sample{Timestamp: (*s)[0].Timestamp - int64(1+i), Value: 1})
			}
		}, true, 0},
		{"other labels", func(m *prompb.WriteRequest) {
			for i := 3; i < 1999; i += 7 {
				m.Timeseries[i].Labels = m.Timeseries[i].Labels[:i%5+2]
			}
		}, true, 286},
		{"new series", func(m *prompb.WriteRequest) {
			for i := range 5 {
				s := &m.Timeseries[i*399]
				s.Labels = append(slices.Clone(s.Labels), label("zone", fmt.Sprint(i)))
			}
		}, true, 5},
		{"a series as long as a window", func(m *prompb.WriteRequest) {
			m.Timeseries[700].Labels = append(slices.Clone(m.Timeseries[700].Labels), label("zone", strings.Repeat("z", 1000)))
			s := &m.Timeseries[700].Samples
			for i := range 12_000 {
				*s = append(*s, prompb.Sample{Timestamp: (*s)[0].Timestamp - int64(1+i), Value: float64(i)})
			}
		}, false, 0},
		{"a late label", func(m *prompb.WriteRequest) {
			m.Timeseries[1999].XXX_unrecognized = []byte{wire.TagV1SeriesLabel, 6, wire.TagLabelName, 1, 'z', wire.TagLabelValue, 1, 'z'}
		}, false, 0},
		{"an empty value", func(m *prompb.WriteRequest) {
			m.Timeseries[1500].Labels = append(slices.Clone(m.Timeseries[1500].Labels), label("zone", ""))
		}, false, 0},
		{"no sample", func(m *prompb.WriteRequest) { m.Timeseries[1500].Samples = nil }, false, 0},
		{"an early time", func(m *prompb.WriteRequest) { m.Timeseries[1500].Samples[0].Timestamp = 7 }, false, 0},
		{"a late time", func(m *prompb.WriteRequest) { m.Timeseries[1500].Samples[0].Timestamp *= 2 }, false, 0},
		{"an exemplar", func(m *prompb.WriteRequest) {
			m.Timeseries[1999].Exemplars = []prompb.Exemplar{{Labels: []prompb.Label{label("trace_id", "x")}, Value: 1, Timestamp: now.UnixMilli()}}
		}, false, 0},
		{"a histogram", func(m *prompb.WriteRequest) {
			m.Timeseries[1500].Histograms = []prompb.Histogram{{Count: &prompb.Histogram_CountInt{}, ZeroCount: &prompb.Histogram_ZeroCountInt{}, Timestamp: now.UnixMilli()}}
		}, false, 0},
		{"metadata", func(m *prompb.WriteRequest) {
			m.Metadata = []prompb.MetricMetadata{{MetricFamilyName: "up", Help: "It is."}}
		}, false, 0},
	} {
		t.Run(x.name, func(t *testing.T) {
			m := usual(15)
			x.change(m)
			body := marshal(t, m)
			var answers, contents [2]string
			var lent [2]int64
			for i, piece := range []int{pieceBytes, 1 << 30} { // of the second no request is two long
				a := &admission{limit: 1 << 30}
				r := newReceiver(t, Options{Admission: a.open})
				var made []*intake
				newIntake := r.intakes.New
				r.intakes.New = func() any {
					in := newIntake().(*intake)
					in.through.piece = piece
					made = append(made, in)
					return in
				}
				if w := r.Send(wire.V1, marshal(t, usual(0))); w.Code != http.StatusNoContent {
					t.Fatal(w.Body.String())
				}
				for _, in := range made {
					in.through.waits = 0
				}
				before := r.Stats()
				w := r.Send(wire.V1, body)
				_, lent[i] = a.lent()
				answers[i] = fmt.Sprint(w.Code, w.Body, w.Header(), r.Stats().DecodedBytes-before.DecodedBytes, r.Stats().SeriesUnknown-before.SeriesUnknown)
				contents[i] = strings.Join(r.Contents("default"), "\n")
				if i > 0 {
					continue
				}
				in := r.intake()
				defer r.putBack(in)
				in.reset(wire.V1, "other", nil)
				in.through.waits = 0
				if got := in.readThrough(snappyBlock, snappy.Encode(nil, body), len(body)); got != x.through {
					t.Errorf("it was read through a window: %v", got)
				}
				if got := r.Stats().SeriesUnknown - before.SeriesUnknown; x.through && got != uint64(x.missing) {
					t.Errorf("%d series were new, not %d: no test", got, x.missing)
				}
			}
			if answers[0] != answers[1] {
				t.Errorf("the answer is %s, as a whole %s", answers[0], answers[1])
			}
			if contents[0] != contents[1] {
				t.Error("the cache holds something else")
			}
			if lent[0] > lent[1]+lent[1]/20 { // of tables, which pools may have had
				t.Errorf("%d bytes were lent, as a whole %d", lent[0], lent[1])
			}
		})
	}
}

// A body that ends early, or does not end where it says, is told as ever.
func TestReadThroughDamaged(t *testing.T) {
	plain := benchRequest(t, wire.V1, 0)
	packed := snappy.Encode(nil, plain)
	for name, b := range map[string][]byte{
		"cut":                 packed[:len(packed)-40],
		"with more behind it": append(slices.Clone(packed), 0, 'x'),
		"in the middle":       slices.Concat(packed[:len(packed)/2], []byte{3, 3, 3}, packed[len(packed)/2+3:]),
		"not protobuf":        snappy.Encode(nil, slices.Concat(plain[:300_000], []byte("\xff\xff\xff\xff\xff"), plain[300_000:])),
		"of a cut request":    snappy.Encode(nil, plain[:len(plain)-1]),
	} {
		r := newReceiver(t, Options{})
		if w := r.Send(wire.V1, benchRequest(t, wire.V1, -15)); w.Code != http.StatusNoContent {
			t.Fatal(w.Body)
		}
		before := r.Contents("default")
		for range waitsThrough + 1 { // as a whole, and through a window
			if w := r.Post(contentType(wire.V1), "snappy", b); w.Code != http.StatusBadRequest || w.Body.Len() == 0 {
				t.Errorf("%s: %d %q", name, w.Code, w.Body)
			}
		}
		r.Holds(before...)
	}
}

// A bound on series holds through a window, too.
func TestReadThroughBounds(t *testing.T) {
	r := newReceiver(t, Options{MaxSeries: 1999})
	for range waitsThrough + 2 {
		answered(t, r.Send(wire.V1, benchRequest(t, wire.V1, 0)), http.StatusRequestEntityTooLarge, "more than 1999 series")
	}
	r.Holds()
}

// After one that was read twice, some are not tried.
func TestReadThroughWaits(t *testing.T) {
	r := newReceiver(t, Options{})
	in := r.intake()
	defer r.putBack(in)
	var tried []int
	odd := benchSeries(0)
	odd[1999].Samples = nil
	for i := range 2*waitsThrough + 5 {
		body := benchRequest(t, wire.V1, float64(15*i))
		if i == 2 {
			body = encode(t, wire.V1, odd...)
		}
		in.reset(wire.V1, "default", nil)
		if waits := in.through.waits; in.readThrough(snappyBlock, snappy.Encode(nil, body), len(body)) {
			tried = append(tried, i)
			if waits > 0 {
				t.Errorf("request %d was tried", i)
			}
		} else if in.decoded != nil {
			t.Errorf("request %d: decoded is the window still", i)
		}
		in.closeWindow()
	}
	var want []int
	for i := range 2*waitsThrough + 5 {
		if i < 2 || i > 2+waitsThrough {
			want = append(want, i)
		}
	}
	if !slices.Equal(tried, want) {
		t.Errorf("read through were %v, want %v", tried, want)
	}
}
