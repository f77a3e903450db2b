package remotewrite

import (
	"bytes"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"mcached/mcache"
	"mcached/remotewrite/send"
	"mcached/remotewrite/wire"
)

// The tests of this file are the rules for receivers, one by one.

func TestRuleMethod(t *testing.T) {
	r := newReceiver(t, Options{})
	for _, method := range []string{"GET", "PUT", "HEAD", "DELETE"} {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest(method, "/api/v1/write", nil))
		answered(t, w, http.StatusMethodNotAllowed, method)
		if w.Header().Get("Allow") != "POST" {
			t.Errorf("Allow is %q", w.Header().Get("Allow"))
		}
	}
}

func TestRuleContentType(t *testing.T) {
	s := Series{Labels: named("up"), Samples: []mcache.Sample{sample(0, 1)}}
	for contentType, want := range map[string]wire.Protocol{
		"":                       wire.V1,
		"application/x-protobuf": wire.V1,
		"application/x-protobuf;proto=prometheus.WriteRequest":                  wire.V1,
		"application/x-protobuf; proto=prometheus.WriteRequest":                 wire.V1,
		"Application/X-Protobuf":                                                wire.V1,
		"application/x-protobuf;proto=io.prometheus.write.v2.Request":           wire.V2,
		"application/x-protobuf; proto=io.prometheus.write.v2.Request":          wire.V2,
		"application/x-protobuf ; proto=\"io.prometheus.write.v2.Request\"":     wire.V2,
		"application/x-protobuf;charset=x;proto=io.prometheus.write.v2.Request": wire.V2,
		"application/json": 0,
		"application/x-protobuf;proto=io.prometheus.write.v3.Request": 0,
		"application/x-protobuf;proto":                                0,
		"text/plain; proto=prometheus.WriteRequest":                   0,
	} {
		r := newReceiver(t, Options{})
		if want == 0 {
			answered(t, r.Post(contentType, "snappy", snappy.Encode(nil, encode(t, wire.V1, s))), http.StatusUnsupportedMediaType, "Content-Type must be")
			r.Holds()
			continue
		}
		answered(t, r.Post(contentType, "snappy", snappy.Encode(nil, encode(t, want, s))), http.StatusNoContent, "")
		r.Holds(line(`{__name__="up"}`, sample(0, 1)))
	}
}

func TestRuleContentEncoding(t *testing.T) {
	body := snappy.Encode(nil, encode(t, wire.V1, Series{Labels: named("up"), Samples: []mcache.Sample{sample(0, 1)}}))
	for encoding, ok := range map[string]bool{"snappy": true, "": true, "Snappy": true, "gzip": false, "br": false, "identity": false, "snappy, gzip": false} {
		r := newReceiver(t, Options{})
		if w := r.Post(wire.ContentTypeV1, encoding, body); ok {
			answered(t, w, http.StatusNoContent, "")
		} else {
			answered(t, w, http.StatusUnsupportedMediaType, "Content-Encoding")
			r.Holds()
		}
	}
}

func TestRuleOrderOfChecks(t *testing.T) {
	r := newReceiver(t, Options{MaxBodyBytes: 8})
	bad, long := []byte("not snappy"), bytes.Repeat([]byte{0xff}, 100)
	post := func(method, contentType, encoding string, body []byte) *httptest.ResponseRecorder {
		req := httptest.NewRequest(method, "/", bytes.NewReader(body))
		req.Header.Set("Content-Type", contentType)
		req.Header.Set("Content-Encoding", encoding)
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		return w
	}
	answered(t, post("GET", "text/plain", "gzip", long), 405, "")
	answered(t, post("POST", "text/plain", "gzip", long), 415, "Content-Type")
	answered(t, post("POST", "", "gzip", long), 415, "Content-Encoding")
	answered(t, post("POST", "", "snappy", long), 413, "100 bytes, more than 8")
	answered(t, post("POST", "", "snappy", bad[:8]), 400, "snappy")
	answered(t, post("POST", "", "snappy", snappy.Encode(nil, []byte("abc"))), 400, "malformed")
}

func TestRuleAllWrittenIs204(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		r := newReceiver(t, Options{})
		s := []mcache.Sample{sample(-30, 1), sample(-15, 2.5), sample(0, -3)}
		w := r.Send(p, encode(t, p, Series{Labels: named("a", "x", "1"), Samples: s}, Series{Labels: named("b"), Samples: s[:1]}))
		answered(t, w, 204, "")
		r.Holds(line(`{__name__="a", x="1"}`, s...), line(`{__name__="b"}`, s[0]))
	})
}

func TestRuleWrittenHeadersOnV2Only(t *testing.T) {
	good := Series{Labels: named("a"), Samples: []mcache.Sample{sample(-15, 1), sample(0, 2)}}
	bad := Series{Labels: labels("a", "b"), Samples: []mcache.Sample{sample(0, 1)}}
	r := newReceiver(t, Options{})
	wrote(t, r.Send(wire.V1, encode(t, wire.V1, good)))
	wrote(t, r.Send(wire.V1, encode(t, wire.V1, good, bad)))
	wrote(t, r.Send(wire.V2, encode(t, wire.V2, good)), 2)
	w := r.Send(wire.V2, encode(t, wire.V2, bad, good))
	answered(t, w, 400, "metric name")
	wrote(t, w, 2)
	w = r.Send(wire.V2, []byte{0xff})
	answered(t, w, 400, "malformed")
	wrote(t, w, 0)
	wrote(t, r.Send(wire.V2, nil), 0)
}

func TestRuleV2BodyUnderV1TypeIs400(t *testing.T) {
	r := newReceiver(t, Options{})
	s := Series{Labels: named("up"), Samples: []mcache.Sample{sample(0, 1)}}
	answered(t, r.Send(wire.V1, encode(t, wire.V2, s)), 400, "the body is of protocol 2.0")
	answered(t, r.Send(wire.V2, encode(t, wire.V1, s)), 400, "the body is of protocol 1.0")
	r.Holds()
}

func TestRuleV2References(t *testing.T) {
	request := func(refs ...uint32) *writev2.Request {
		return &writev2.Request{
			Symbols:    []string{"", "__name__", "a", "b", "c"},
			Timeseries: []writev2.TimeSeries{{LabelsRefs: refs, Samples: []writev2.Sample{{Timestamp: now.UnixMilli(), Value: 1}}}},
		}
	}
	for text, q := range map[string]*writev2.Request{
		"an odd number":                request(1, 2, 3),
		"refers to symbols 1 and 5":    request(1, 5),
		"refers to symbols 4294967295": request(math.MaxUint32, 1),
	} {
		r := newReceiver(t, Options{})
		q.Timeseries = append(q.Timeseries, request(1, 2).Timeseries...)
		w := r.Send(wire.V2, marshal(t, q))
		answered(t, w, 400, text)
		wrote(t, w, 1)
		r.Holds(line(`{__name__="a"}`, sample(0, 1)))
	}
	r := newReceiver(t, Options{})
	q := request(0, 1)
	q.Symbols = q.Symbols[1:]
	answered(t, r.Send(wire.V2, marshal(t, q)), 400, "first symbol must be the empty string")
	q = request(1, 2)
	q.Timeseries[0].Metadata.HelpRef = 9
	answered(t, r.Send(wire.V2, marshal(t, q)), 400, "metadata refers to symbols 9 and 0 of 5")
	r.Holds()
}

func TestRuleInvalidLabels(t *testing.T) {
	good := Series{Labels: named("good"), Samples: []mcache.Sample{sample(0, 1)}}
	many := named("many")
	for i := range 200 {
		many = append(many, mcache.Label{Name: fmt.Sprintf("l%03d", i), Value: "x"})
	}
	for name, c := range map[string]struct {
		labels []mcache.Label
		text   string
	}{
		"none":                      {nil, "a series without a metric name, for {}"},
		"no metric name":            {labels("a", "b"), `a series without a metric name, for {a="b"}`},
		"empty metric name":         {named("", "a", "b"), "without a metric name"},
		"only an empty metric name": {named(""), "without a metric name"},
		"duplicate name":            {named("x", "a", "1", "a", "2"), `label "a" occurs twice`},
		"duplicate pair":            {named("x", "a", "1", "a", "1"), `label "a" occurs twice`},
		"duplicate name, one empty": {named("x", "a", "1", "a", ""), `label "a" occurs twice`},
		"two metric names":          {named("x", "__name__", "x"), "occurs twice"},
		"empty name":                {named("x", "", "v"), "label without a name"},
		"empty name and value":      {named("x", "", ""), "label without a name"},
		"name not UTF-8":            {named("x", "a\xff", "v"), `not UTF-8: "a\xff"`},
		"name not UTF-8, no value":  {named("x", "a\xff", ""), `not UTF-8: "a\xff"`},
		"value not UTF-8":           {named("x", "a", "\xc3\x28"), `the value of label "a" is not UTF-8`},
		"too many":                  {many, "a series has 201 labels, more than 128, for many{l000="},
		"long name":                 {named("x", strings.Repeat("n", 1025), "v"), "has 1025 bytes, more than 1024"},
		"long value":                {named("x", "a", strings.Repeat("v", 16385)), "has 16385 bytes, more than 16384"},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, p wire.Protocol) {
				r := newReceiver(t, Options{})
				bad := Series{Labels: c.labels, Samples: []mcache.Sample{sample(0, 1)}}
				// Twice: what was refused must not have become known.
				for range 2 {
					w := r.Send(p, encode(t, p, bad, good, bad))
					answered(t, w, 400, c.text)
					if p == wire.V2 {
						wrote(t, w, 1)
					}
				}
				r.Holds(line(`{__name__="good"}`, sample(0, 1)))
				if n := r.Stats().InvalidSeries; n != 4 {
					t.Errorf("%d invalid series counted, want 4", n)
				}
			})
		})
	}
}

// A series that the cache knows is not validated again: what must be refused
// must not be taken for it.
func TestInvalidLabelsDoNotAliasAKnownSeries(t *testing.T) {
	known := Series{Labels: named("x", "a", "1"), Samples: []mcache.Sample{sample(-15, 1)}}
	for name, ls := range map[string][]mcache.Label{
		"pair twice":                   named("x", "a", "1", "a", "1"),
		"pair three times":             named("x", "a", "1", "a", "1", "a", "1"),
		"second value empty":           named("x", "a", "1", "a", ""),
		"first value empty":            named("x", "a", "", "a", "1"),
		"name of nothing":              named("x", "", "", "a", "1"),
		"invalid name without a value": named("x", "a", "1", "b\xff", ""),
		"metric name twice":            named("x", "__name__", "", "a", "1"),
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, p wire.Protocol) {
				r := newReceiver(t, Options{})
				answered(t, r.Send(p, encode(t, p, known)), 204, "")
				answered(t, r.Send(p, encode(t, p, Series{Labels: ls, Samples: []mcache.Sample{sample(0, 2)}})), 400, "")
				r.Holds(line(`{__name__="x", a="1"}`, known.Samples...))
			})
		})
	}
}

func TestRuleEmptyValueDropsTheLabel(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		r := newReceiver(t, Options{})
		answered(t, r.Send(p, encode(t, p, Series{Labels: named("x", "a", "1", "b", ""), Samples: []mcache.Sample{sample(-15, 1)}})), 204, "")
		answered(t, r.Send(p, encode(t, p, Series{Labels: named("x", "a", "1"), Samples: []mcache.Sample{sample(0, 2)}})), 204, "")
		answered(t, r.Send(p, encode(t, p, Series{Labels: named("x", "0", "", "a", "1"), Samples: []mcache.Sample{sample(15, 3)}})), 204, "")
		r.Holds(line(`{__name__="x", a="1"}`, sample(-15, 1), sample(0, 2), sample(15, 3)))
	})
}

func TestRuleUnsortedLabelsAreRepaired(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		r := newReceiver(t, Options{})
		answered(t, r.Send(p, encode(t, p, Series{Labels: labels("z", "1", "__name__", "x", "a", "2"), Samples: []mcache.Sample{sample(-15, 1)}})), 204, "")
		answered(t, r.Send(p, encode(t, p, Series{Labels: named("x", "a", "2", "z", "1"), Samples: []mcache.Sample{sample(0, 2)}})), 204, "")
		r.Holds(line(`{__name__="x", a="2", z="1"}`, sample(-15, 1), sample(0, 2)))
	})
}

func TestRuleNamesAreUTF8(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		r := newReceiver(t, Options{})
		answered(t, r.Send(p, encode(t, p, Series{Labels: named("http.requests größe", "k8s.pod/name", "é"), Samples: []mcache.Sample{sample(0, 1)}})), 204, "")
		r.Holds(line(`{__name__="http.requests größe", k8s.pod/name="é"}`, sample(0, 1)))
	})
}

// A sample more than ten minutes ahead is refused, of a series that is known
// as of one that is not; the rest of the series is written.
func TestRuleFutureSamples(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		r := newReceiver(t, Options{})
		s := Series{Labels: named("x"), Samples: []mcache.Sample{sample(600.001, 1), sample(600, 2), sample(-15, 3), sample(86400*365*3, 4)}}
		alone := Series{Labels: named("y"), Samples: []mcache.Sample{sample(700, 1)}}
		for range 2 {
			w := r.Send(p, encode(t, p, s, alone))
			answered(t, w, 400, "3 of 5 samples were not written, the others were: a time of 1795209347865 ms (2026-11-20T21:15:47.865Z) is more than 10m0s ahead of the clock, for x{}\na time of 1795209447864 ms")
			if p == wire.V2 {
				wrote(t, w, 2)
			}
			r.Holds(line(`{__name__="x"}`, sample(-15, 3), sample(600, 2)))
		}
		if n := r.Stats().SamplesInFuture; n != 6 {
			t.Errorf("%d samples in the future counted, want 6", n)
		}
	})
}

func TestRuleLateSamplesAreWelcome(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		r := newReceiver(t, Options{})
		for _, at := range []float64{0, -3600, 15, -30, -86400, -15} {
			answered(t, r.Send(p, encode(t, p, Series{Labels: named("x"), Samples: []mcache.Sample{sample(at, at)}})), 204, "")
		}
		r.Holds(line(`{__name__="x"}`, sample(-86400, -86400), sample(-3600, -3600), sample(-30, -30), sample(-15, -15), sample(0, 0), sample(15, 15)))
	})
}

func TestRuleSameTimestampLastWins(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		r := newReceiver(t, Options{})
		// Within a series, within a request, and between requests.
		answered(t, r.Send(p, encode(t, p,
			Series{Labels: named("x"), Samples: []mcache.Sample{sample(0, 1), sample(0, 2)}},
			Series{Labels: named("x"), Samples: []mcache.Sample{sample(0, 3), sample(15, 4)}})), 204, "")
		r.Holds(line(`{__name__="x"}`, sample(0, 3), sample(15, 4)))
		answered(t, r.Send(p, encode(t, p, Series{Labels: named("x"), Samples: []mcache.Sample{sample(15, 5)}})), 204, "")
		r.Holds(line(`{__name__="x"}`, sample(0, 3), sample(15, 5)))
	})
}

func TestRuleValuesSurviveBitForBit(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		r := newReceiver(t, Options{})
		var want []mcache.Sample
		for i, bits := range []uint64{
			0x7ff0000000000002, // stale marker
			0x7ff8000000000001, // Prometheus' normal NaN
			0x7ff8000000000000, 0xfff8000000000000, 0x7ff0000000000001, 0xffffffffffffffff,
			0, 1 << 63, 1, math.Float64bits(math.Inf(1)), math.Float64bits(math.Inf(-1)),
			math.Float64bits(math.MaxFloat64), math.Float64bits(0.1),
		} {
			want = append(want, mcache.Sample{T: now.UnixMilli() + int64(i-20)*15000, V: bits})
		}
		s := send.Series{Labels: named("x"), Samples: want}
		// Prometheus' encoder leaves out -0, our own does not.
		body := send.AppendV1(nil, []send.Series{s})
		if p == wire.V2 {
			body = new(send.EncoderV2).Append(nil, []send.Series{s})
		}
		answered(t, r.Send(p, body), 204, "")
		r.Holds(line(`{__name__="x"}`, want...))
	})
}

func TestRuleTimesSurviveExactly(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		r := newReceiver(t, Options{})
		s := []mcache.Sample{sample(-45.003, 1), sample(-30.001, 2), sample(-15, 3), sample(0.002, 4)}
		answered(t, r.Send(p, encode(t, p, Series{Labels: named("x"), Samples: s})), 204, "")
		zero := mcache.Sample{T: 0, V: 5}
		answered(t, r.Send(p, encode(t, p, Series{Labels: named("zero"), Samples: []mcache.Sample{zero}})), 204, "")
		r.Holds(line(`{__name__="x"}`, s...), line(`{__name__="zero"}`, zero))
	})
}

func TestRuleStartTimestamps(t *testing.T) {
	r := newReceiver(t, Options{})
	q := requestV2(Series{Labels: named("x"), Samples: []mcache.Sample{sample(0, 1), sample(15, 2), sample(30, 3)}}, Series{Labels: named("y"), Samples: []mcache.Sample{sample(0, 1)}})
	start := now.UnixMilli() - 100_000
	q.Timeseries[0].Samples[1].StartTimestamp = start
	q.Timeseries[1].Samples[0].StartTimestamp = start + 1
	for range 2 {
		w := r.Send(wire.V2, marshal(t, q))
		answered(t, w, 204, "")
		wrote(t, w, 4)
		r.Holds(
			line(`{__name__="x"}`, sample(0, 1), sample(15, 2))+fmt.Sprintf("(since %d)", start)+line("", sample(30, 3)),
			line(`{__name__="y"}`, sample(0, 1))+fmt.Sprintf("(since %d)", start+1))
	}
}

func TestRuleReservedFieldIsSkipped(t *testing.T) {
	r := newReceiver(t, Options{})
	q := requestV2(Series{Labels: named("x"), Samples: []mcache.Sample{sample(0, 1)}})
	series := marshal(t, &q.Timeseries[0])
	series = append(series, 6<<3|wire.TypeVarint, 0x80, 0x01) // once created_timestamp
	body := marshal(t, &writev2.Request{Symbols: q.Symbols})
	body = append(body, wire.TagV2Series, byte(len(series)))
	body = append(body, series...)
	w := r.Send(wire.V2, body)
	answered(t, w, 204, "")
	r.Holds(line(`{__name__="x"}`, sample(0, 1)))
}

func TestRuleSymbolsAfterSeries(t *testing.T) {
	r := newReceiver(t, Options{})
	q := requestV2(Series{Labels: named("x"), Samples: []mcache.Sample{sample(0, 1)}})
	body := marshal(t, &writev2.Request{Timeseries: q.Timeseries})
	body = append(body, marshal(t, &writev2.Request{Symbols: q.Symbols})...)
	answered(t, r.Send(wire.V2, body), 204, "")
	r.Holds(line(`{__name__="x"}`, sample(0, 1)))
}

// A series without samples is against the rules of 2.0. Those of 1.0 say
// nothing of it, and there is nothing of it that could be lost.
func TestRuleEmptySeries(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		r := newReceiver(t, Options{})
		w := r.Send(p, encode(t, p, Series{Labels: named("x")}, Series{Labels: named("y"), Samples: []mcache.Sample{sample(0, 1)}}, Series{Labels: labels("no", "name")}))
		if p == wire.V1 {
			answered(t, w, 204, "")
		} else {
			answered(t, w, 400, "all 1 samples were written, but: a series without samples or histograms, for x{}")
		}
		r.Holds(line(`{__name__="y"}`, sample(0, 1)))
		if n := r.Stats().EmptySeries; n != 2 {
			t.Errorf("%d empty series counted, want 2", n)
		}
	})
}

func TestRuleMetadataIsKept(t *testing.T) {
	v1 := requestV1(Series{Labels: named("x_total"), Samples: []mcache.Sample{sample(0, 1)}})
	v1.Metadata = []prompb.MetricMetadata{{Type: prompb.MetricMetadata_COUNTER, MetricFamilyName: "x_total", Help: "How many.", Unit: "things"}}
	v2 := requestV2(Series{Labels: named("x_total"), Samples: []mcache.Sample{sample(0, 1)}})
	v2.Symbols = append(v2.Symbols, "How many.", "things")
	n := uint32(len(v2.Symbols))
	v2.Timeseries[0].Metadata = writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_COUNTER, HelpRef: n - 2, UnitRef: n - 1}
	both(t, func(t *testing.T, p wire.Protocol) {
		r := newReceiver(t, Options{MaxMetadata: 1})
		body := marshal(t, v1)
		if p == wire.V2 {
			body = marshal(t, v2)
		}
		for range 2 {
			answered(t, r.Send(p, body), 204, "")
		}
		n := 0
		r.Metadata("default", func(metric string, m wire.Metadata) bool {
			n++
			if metric != "x_total" || m != (wire.Metadata{Type: "counter", Help: "How many.", Unit: "things"}) {
				t.Errorf("%s is described by %+v", metric, m)
			}
			return true
		})
		if n != 1 {
			t.Errorf("%d metrics are described, want 1", n)
		}
		// A second metric does not fit. That is no reason to refuse a sample.
		body = bytes.ReplaceAll(body, []byte("x_total"), []byte("y_total"))
		answered(t, r.Send(p, body), 204, "")
		if n := r.Stats().MetadataNotStored; n != 1 {
			t.Errorf("%d descriptions were not kept, want 1", n)
		}
	})
}

func TestRuleTenancyHeaderNamesTheBucket(t *testing.T) {
	r := newReceiver(t, Options{TenancyHeader: "X-Scope-OrgID"})
	for _, tenant := range []string{"", "one", "two"} {
		req := httptest.NewRequest("POST", "/", bytes.NewReader(snappy.Encode(nil, encode(t, wire.V1, Series{Labels: named("of_" + tenant), Samples: []mcache.Sample{sample(0, 1)}}))))
		req.Header.Set("X-Scope-OrgID", tenant)
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		answered(t, w, 204, "")
	}
	for bucket, name := range map[string]string{"default": "of_", "one": "of_one", "two": "of_two"} {
		want := line(fmt.Sprintf(`{__name__="%s"}`, name), sample(0, 1))
		if got := r.Contents(bucket); len(got) != 1 || got[0] != want {
			t.Errorf("bucket %s holds %q, want %q", bucket, got, want)
		}
	}
	req := httptest.NewRequest("POST", "/", nil)
	req.Header.Set("X-Scope-OrgID", strings.Repeat("x", 151))
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	answered(t, w, 400, "X-Scope-OrgID has 151 bytes, more than 150")
	req.Header.Set("X-Scope-OrgID", "one|two")
	w = httptest.NewRecorder()
	r.ServeHTTP(w, req)
	answered(t, w, 400, "X-Scope-OrgID names several tenants, which only reads can")
}

func TestRuleOverloadIs503(t *testing.T) {
	var series []Series
	for i := range 1000 {
		series = append(series, Series{Labels: named("x", "i", fmt.Sprint(i*7919)), Samples: []mcache.Sample{sample(0, 1)}})
	}
	body := encode(t, wire.V2, series...)
	packed := snappy.Encode(nil, body) // larger than what is free
	for limit, want := range map[int64]int{10: 503, int64(len(packed)): 503, int64(len(packed) + len(body) - 1): 503, int64(len(packed) + len(body)): 204} {
		a := &admission{limit: limit}
		r := newReceiver(t, Options{Admission: a.open})
		w := r.Send(wire.V2, body)
		answered(t, w, want, "")
		if want == 503 && w.Header().Get("Retry-After") != "2" {
			t.Errorf("Retry-After is %q, want 2", w.Header().Get("Retry-After"))
		}
		if a.bytes != 0 || a.requests != 0 || a.asked == 0 {
			t.Errorf("after %d questions %d bytes of %d requests are still lent", a.asked, a.bytes, a.requests)
		}
		if refused := r.Stats().NotAdmitted == 1; refused != (want == 503) {
			t.Errorf("answered %d, and counted as not admitted: %v", w.Code, refused)
		}
	}
}

// admission counts, and refuses what is beyond its limit.
type admission struct {
	limit int64

	mu              sync.Mutex
	bytes, most     int64
	requests, asked int
}

// lent is how many bytes are, and how many were at the most.
func (a *admission) lent() (now, most int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.bytes, a.most
}

// open is Options.Admission.
func (a *admission) open(func()) Loan { return &loan{a: a} }

type loan struct {
	a     *admission
	bytes int64
	begun bool
}

func (l *loan) Try(n int64) error {
	a := l.a
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked++
	if a.bytes+n > a.limit {
		return errBusy{}
	}
	a.bytes += n
	l.bytes += n
	a.most = max(a.most, a.bytes)
	return nil
}

func (l *loan) Begin() error {
	l.a.mu.Lock()
	defer l.a.mu.Unlock()
	l.begun = true
	l.a.requests++
	return nil
}

func (l *loan) Release() {
	l.a.mu.Lock()
	defer l.a.mu.Unlock()
	l.a.bytes -= l.bytes
	if l.begun {
		l.a.requests--
	}
}

type errBusy struct{}

func (errBusy) Error() string                     { return "busy" }
func (errBusy) RetryAfter() (time.Duration, bool) { return 1200 * time.Millisecond, true }
