package remotewrite

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strings"
	"testing"

	"github.com/golang/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// limits are small, and have the names of flags.
func limits() Options {
	return Options{MaxLabels: 4, MaxLabelNameBytes: 20, MaxLabelValueBytes: 30, MaxSamples: 6, MaxSeries: 4, MaxDecodedBytes: 10000, MaxBodyBytes: 9000,
		Flags: map[string]string{"MaxLabels": "--max-labels", "MaxLabelNameBytes": "--max-name", "MaxLabelValueBytes": "--max-value", "MaxSamples": "--max-samples",
			"MaxDecodedBytes": "--max-decoded", "MaxBodyBytes": "--max-body", "MaxAhead": "--max-ahead", "Limits.Series": "--bucket.series",
			"Limits.SeriesPerMetric": "--bucket.metric", "MaxNewSeriesPerSecond": "--max-new"}}
}

// Senders log the first line of an answer and nothing else: it says how many
// samples, why, by which flag that can be changed, and which series by its
// metric's name, wherever that lies.
func TestFirstLine(t *testing.T) {
	one := []mcache.Sample{sample(0, 1)}
	many := labels("a", "1", "b", "2", "c", "3", "d", "4", "zz", "5", "__name__", "the_metric")
	for name, c := range map[string]struct {
		o      func(*Options)
		cache  mcache.Options
		series []Series
		status int
		want   string // of the first line; of 2.0 as of 1.0
	}{
		"too many labels": {series: []Series{{Labels: many, Samples: one}, {Labels: named("good"), Samples: one}}, status: 400,
			want: `1 of 2 samples were not written, the others were: a series has 6 labels, more than 4 (--max-labels), for the_metric{a="1", b="2", c="3", d="4", zz="5"}`},
		"a thousand labels": {series: []Series{{Labels: append(labels(strings.Fields(strings.Repeat("l v ", 1000))...), named("the_metric")...), Samples: one}}, status: 400,
			want: `1 of 1 samples were not written: a series has 1001 labels, more than 4 (--max-labels), for the_metric{l="v", l="v", l="v", l="v", l="v", l="v", l="v", l="v", l="v", l="v", l="v", l="v", …}`},
		"a long name": {series: []Series{{Labels: named("m", strings.Repeat("n", 21), "v"), Samples: one}}, status: 400,
			want: `1 of 1 samples were not written: a label name has 21 bytes, more than 20 (--max-name): "nnnnnnnnnnnnnnnnnnnnn", for m{nnnnnnnnnnnnnnnnnnnnn="v"}`},
		"a long value": {series: []Series{{Labels: named("m", "n", strings.Repeat("v", 31)), Samples: append(one, sample(1, 1))}}, status: 400,
			want: `2 of 2 samples were not written: the value of label "n" has 31 bytes, more than 30 (--max-value), for m{n="` + strings.Repeat("v", 31) + `"}`},
		"a duplicate": {series: []Series{{Labels: named("m", "n", "1", "n", "2"), Samples: one}}, status: 400,
			want: `1 of 1 samples were not written: label "n" occurs twice, for m{n="1", n="2"}`},
		"no name": {series: []Series{{Labels: labels("n", "1"), Samples: one}}, status: 400,
			want: `1 of 1 samples were not written: a series without a metric name, for {n="1"}`},
		"ahead": {series: []Series{{Labels: named("m", "n", "1"), Samples: []mcache.Sample{sample(601, 1), sample(0, 1)}}}, status: 400,
			want: `1 of 2 samples were not written, the others were: a time of 1795209348864 ms (2026-11-20T21:15:48.864Z) is more than 10m0s (--max-ahead) ahead of the clock, for m{n="1"}`},
		"microseconds": {series: []Series{{Labels: named("m"), Samples: []mcache.Sample{{T: now.UnixMicro()}}}}, status: 400,
			want: `1 of 1 samples were not written: a time of 1795208747864000 ms is more than 10m0s (--max-ahead) ahead of the clock: it looks like microseconds and not milliseconds, for m{}`},
		"nanoseconds": {series: []Series{{Labels: named("m"), Samples: []mcache.Sample{{T: now.UnixNano()}}}}, status: 400,
			want: `1 of 1 samples were not written: a time of 1795208747864000000 ms is more than 10m0s (--max-ahead) ahead of the clock: it looks like nanoseconds and not milliseconds, for m{}`},
		"the end of time": {series: []Series{{Labels: named("m"), Samples: []mcache.Sample{{T: math.MaxInt64}}}}, status: 400,
			want: `1 of 1 samples were not written: a time of 9223372036854775807 ms is more than 10m0s (--max-ahead) ahead of the clock, for m{}`},
		"before all times": {series: []Series{{Labels: named("m"), Samples: []mcache.Sample{{T: math.MinInt64}}}}, status: 400,
			want: `1 of 1 samples were not written: a time of -9223372036854775808 ms, before all times that are kept, for m{}`},
		"too many samples": {series: []Series{{Labels: named("m"), Samples: append([]mcache.Sample{sample(0, 1)}, make([]mcache.Sample, 6)...)}}, status: 413,
			want: `nothing of it was written: more than 6 samples in one request (--max-samples)`},
		"too many series": {series: []Series{{Labels: named("a"), Samples: one}, {Labels: named("b"), Samples: one}, {Labels: named("c"), Samples: one}, {Labels: named("d"), Samples: one}, {Labels: named("e"), Samples: one}}, status: 413,
			want: `nothing of it was written: more than 4 series in one request`},
		"too long": {series: []Series{{Labels: named("a", "x", strings.Repeat("x", 10000)), Samples: one}}, status: 413,
			want: `nothing of it was written: a body of 100`},
		"the bucket is full": {cache: mcache.Options{Limits: mcache.Limits{Series: 1}}, series: []Series{{Labels: named("a"), Samples: one}, {Labels: named("b"), Samples: one}}, status: 400,
			want: `1 of 2 samples were not written, the others were: too many series: bucket "default" has 1, its limit is 1 (--bucket.series), for b{}`},
		"the metric has too many": {cache: mcache.Options{Limits: mcache.Limits{SeriesPerMetric: 1}}, series: []Series{{Labels: named("a", "i", "1"), Samples: one}, {Labels: named("a", "i", "2"), Samples: one}}, status: 400,
			want: `1 of 2 samples were not written, the others were: too many series of one metric: "a" of bucket "default" has 1, its limit is 1 (--bucket.metric), for a{i="2"}`},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, p wire.Protocol) {
				o := limits()
				r := newReceiverWith(t, o, c.cache)
				w := r.Send(p, encode(t, p, c.series...))
				first, _, _ := strings.Cut(w.Body.String(), "\n")
				if w.Code != c.status || !strings.HasPrefix(first, c.want) {
					t.Errorf("answer is %d\n%s\nwant %d\n%s", w.Code, first, c.status, c.want)
				}
				for _, p := range []string{"mcache", "remotewrite", "kvcache", "snappy: ", "proto:"} {
					if strings.Contains(w.Body.String(), p) {
						t.Errorf("%q is a word of ours: %s", p, w.Body)
					}
				}
			})
		})
	}
}

// A 503 says what is not there yet, too.
func TestFirstLineOfA503(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		o := limits()
		o.MaxNewSeriesPerSecond = 1
		r := newReceiver(t, o)
		r.fresh.burst = 1
		one := []mcache.Sample{sample(0, 1)}
		w := r.Send(p, encode(t, p, Series{Labels: named("a"), Samples: one}, Series{Labels: named("b", "x", "1"), Samples: one}, Series{Labels: named("c"), Samples: one}))
		answered(t, w, 503, "2 of 3 samples were not written, the others were: too many new series: more than 1 a second (--max-new), for b{x=\"1\"}; send it again\n")

		r.Cache.Close()
		answered(t, r.Send(p, encode(t, p, Series{Labels: named("a"), Samples: one})), 503, "1 of 1 samples were not written: closed; send it again\n")
	})
}

// What a body looks like that is not what its Content-Encoding says.
func TestWhatABodyLooksLike(t *testing.T) {
	s := Series{Labels: named("x", "a", "b"), Samples: []mcache.Sample{sample(0, 1)}}
	both(t, func(t *testing.T, p wire.Protocol) {
		plain := encode(t, p, s, s)
		framed, gzipped, deflated := new(bytes.Buffer), new(bytes.Buffer), new(bytes.Buffer)
		for to, w := range map[*bytes.Buffer]io.WriteCloser{framed: snappy.NewBufferedWriter(framed), gzipped: gzip.NewWriter(gzipped), deflated: zlib.NewWriter(deflated)} {
			w.Write(plain)
			w.Close()
			if to.Len() == 0 {
				t.Fatal("nothing was written")
			}
		}
		z, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		block := snappy.Encode(nil, plain)
		for name, c := range map[string]struct {
			encoding string
			body     []byte
			want     string
		}{
			"nothing":           {"snappy", nil, "the body is empty"},
			"nothing, of zstd":  {"zstd", nil, "the body is empty"},
			"framed":            {"snappy", framed.Bytes(), "is not a block of snappy: it looks like framed snappy, which is for streams"},
			"gzip":              {"snappy", gzipped.Bytes(), "is not a block of snappy: it looks like gzip"},
			"gzip, of zstd":     {"zstd", gzipped.Bytes(), "is not zstd: it looks like gzip"},
			"zlib":              {"snappy", deflated.Bytes(), "is not a block of snappy: it looks like zlib"},
			"zlib, of zstd":     {"zstd", deflated.Bytes(), "is not zstd: it looks like zlib"},
			"zstd":              {"snappy", z.EncodeAll(plain, nil), "is not a block of snappy: it looks like zstd, which is taken with Content-Encoding: zstd"},
			"zstd, of nothing":  {"", z.EncodeAll(plain, nil), "it looks like zstd"},
			"protobuf":          {"snappy", plain, "is not a block of snappy: it looks like protobuf that is not compressed"},
			"protobuf, of zstd": {"zstd", plain, "is not zstd: it looks like protobuf that is not compressed"},
			"snappy, of zstd":   {"zstd", block, "is not zstd: it looks like a block of snappy, which is taken with Content-Encoding: snappy"},
			"JSON":              {"snappy", []byte(`{"streams": []}`), `is not a block of snappy: it looks like text: "{\"streams\": []}"`},
			"damaged":           {"snappy", append(bytes.Clone(block[:len(block)-2]), 0xff, 0xff), fmt.Sprintf("the body, of %d bytes, is not a block of snappy, or damaged", len(block))},
		} {
			w := newReceiver(t, Options{}).Post(contentType(p), c.encoding, c.body)
			if answered(t, w, 400, c.want); t.Failed() {
				t.Fatal(name)
			}
		}
	})
}

// Times in seconds, 0 and negative ones are taken, because nothing forbids
// them, but they are counted, and the log says whose they are.
func TestEarlyTimesAreSaid(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		var log bytes.Buffer
		r := newReceiver(t, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		seconds := Series{Labels: named("x", "job", "a"), Samples: []mcache.Sample{{T: now.Unix(), V: 1}, {T: now.UnixMilli(), V: 1}}}
		zero := Series{Labels: named("y"), Samples: []mcache.Sample{{T: 0, V: 1}, {T: -1000, V: 2}, {T: earlyMs, V: 3}}}
		for range 3 {
			answered(t, r.Send(p, encode(t, p, seconds, zero)), 204, "")
		}
		if n := r.Stats().EarlySamples; n != 9 {
			t.Errorf("%d samples are counted, want 9", n)
		}
		said := log.String()
		if strings.Count(said, "\n") != 1 || !strings.Contains(said, `the first at 1795208747 ms (1970-01-21T18:40:08.747Z), which looks like seconds and not milliseconds, for x{job=\"a\"}`) {
			t.Errorf("the log says %s", said)
		}
		slices := []mcache.Sample{{T: -1000, V: 2}, {T: 0, V: 1}, {T: earlyMs, V: 3}}
		r.Holds(line(`{__name__="x", job="a"}`, seconds.Samples...), line(`{__name__="y"}`, slices...))

		// Histograms, too.
		h := validHistograms()["integer"]
		h.Timestamp = now.Unix()
		answered(t, r.Send(p, withHistograms(t, p, []writev2.Histogram{h})), 204, "")
		if n := r.Stats().EarlySamples; n != 10 {
			t.Errorf("with a histogram %d are counted, want 10", n)
		}
	})
}

// An exemplar of 1.0 that is not kept is counted and logged.
func TestToleratedExemplarsAreLogged(t *testing.T) {
	var log bytes.Buffer
	r := newReceiver(t, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	m := requestV1(Series{Labels: named("x"), Samples: []mcache.Sample{sample(0, 1)}})
	m.Timeseries[0].Exemplars = []prompb.Exemplar{{Timestamp: now.UnixMilli(), Labels: []prompb.Label{{Name: "trace", Value: strings.Repeat("x", 129)}}}}
	answered(t, r.Send(wire.V1, marshal(t, m)), 204, "")
	if !strings.Contains(log.String(), "exemplars that are not valid: its labels have 134 characters, more than 128, for x{}") {
		t.Errorf("the log says %s", &log)
	}
}
