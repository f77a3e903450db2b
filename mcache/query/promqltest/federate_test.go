package promqltest

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"

	"mcached/mcache/query"
)

// TestFederateIsPrometheus scrapes Prometheus' own server and ours, in every
// format. Samples lie well within and without what counts, as Prometheus'
// clock is the machine's.
func TestFederateIsPrometheus(t *testing.T) {
	theirs, ours := teststorage.New(t), newCacheStorage(t, 1)
	t.Cleanup(func() { ours.Close() })
	now := time.Now().UnixMilli()
	a, b := theirs.AppenderV2(t.Context()), ours.AppenderV2(t.Context())
	write := func(ago time.Duration, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, pairs ...string) {
		for _, app := range []storage.AppenderV2{a, b} {
			if _, err := app.Append(0, labels.FromStrings(pairs...), 0, now-ago.Milliseconds(), v, h, fh, storage.AppendV2Options{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	stale := math.Float64frombits(value.StaleNaN)
	native := &histogram.Histogram{Schema: 1, ZeroThreshold: 1e-6, ZeroCount: 2, Count: 9, Sum: 12.5,
		PositiveSpans: []histogram.Span{{Offset: -3, Length: 2}, {Offset: 1, Length: 1}}, PositiveBuckets: []int64{1, 1, 0}, NegativeSpans: []histogram.Span{{Offset: 1, Length: 1}}, NegativeBuckets: []int64{2}}
	gauge := native.Copy()
	gauge.CounterResetHint = histogram.GaugeType
	custom := &histogram.Histogram{Schema: histogram.CustomBucketsSchema, Count: 9, Sum: 3, CustomValues: []float64{0.1, 1, 10, 100},
		PositiveSpans: []histogram.Span{{Offset: 0, Length: 1}, {Offset: 1, Length: 3}}, PositiveBuckets: []int64{2, 1, -2, 2}}
	for _, instance := range []string{"a", "b", "c"} {
		for _, ago := range []time.Duration{3 * time.Minute, 2 * time.Minute, time.Minute} {
			write(ago, ago.Seconds(), nil, nil, "__name__", "counter_total", "job", "j", "instance", instance)
			write(ago, 1e-9*ago.Seconds(), nil, nil, "__name__", "Upper", "A", "before the name", "quoted", "a \"b\"\n\\", "no", instance)
			write(ago, 0, native, nil, "__name__", "native_seconds", "instance", instance)
			write(ago, 0, nil, native.ToFloat(nil), "__name__", "float_seconds", "i", instance)
			write(ago, 0, gauge, nil, "__name__", "gauge_hist", "i", instance)
			write(ago, 0, custom, nil, "__name__", "custom_seconds", "i", instance)
		}
	}
	for name, v := range map[string]float64{"nan": math.NaN(), "inf": math.Inf(1), "ninf": math.Inf(-1), "negzero": math.Copysign(0, -1), "big": 1e300} {
		write(time.Minute, v, nil, nil, "__name__", "odd", "v", name)
	}
	write(2*time.Minute, 5, nil, nil, "__name__", "ended", "i", "1")
	write(time.Minute, stale, nil, nil, "__name__", "ended", "i", "1")
	write(2*time.Minute, 5, nil, nil, "__name__", "ended", "i", "2")
	write(10*time.Minute, 5, nil, nil, "__name__", "old")
	write(2*time.Minute, 5, nil, nil, "__name__", "old", "i", "not")
	write(time.Minute, 5, nil, nil, "nameless", "yes")
	write(2*time.Minute, 5, nil, nil, "__name__", "mixed", "i", "1")
	write(time.Minute, 0, native, nil, "__name__", "mixed", "i", "2")
	write(time.Minute, 7, nil, nil, "__name__", "mixed", "i", "3")
	write(time.Minute, 7, nil, nil, "__name__", "name.with dots", "läbel", "wärt")
	write(time.Minute, 7, nil, nil, "__name__", "empty_instance", "instance", "")
	if err := a.Commit(); err != nil {
		t.Fatal(err)
	}
	server := startPrometheus(t, theirs)
	api := query.NewAPI(ours.cache, query.Options{DefaultBucket: bucket})

	accepts := []string{"", "*/*", "text/plain",
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2",
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=compact-text",
		"text/plain;version=1.0.0;escaping=allow-utf-8", "text/plain;version=0.0.4;escaping=underscores", "application/openmetrics-text"}
	asked, filled := 0, 0
	for _, accept := range accepts {
		for _, match := range [][]string{nil, {"counter_total"}, {`{__name__=~".+"}`}, {"ended", "old"}, {`{i="1"}`, `{i=~"1|2"}`, "mixed"}, {`{nameless="yes"}`}, {`{__name__=~".*seconds"}`},
			{"{"}, {`{a=~".*"}`}, {"nothing"}, {`{"name.with dots"}`}, {"odd", "Upper"}, {`sum(up)`}, {"native_seconds", "custom_seconds", "gauge_hist"}} {
			target := "/federate?" + url.Values{"match[]": match}.Encode()
			r, err := http.NewRequest(http.MethodGet, server+target, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Accept", accept)
			r.Header.Set("Accept-Encoding", "identity")
			res, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			q := httptest.NewRequest(http.MethodGet, target, nil)
			q.Header.Set("Accept", accept)
			w := httptest.NewRecorder()
			api.ServeHTTP(w, q)
			got := fmt.Sprint(w.Code, w.Header().Get("Content-Type"), "\n", families(t, w.Header(), w.Body.Bytes()))
			want := fmt.Sprint(res.StatusCode, res.Header.Get("Content-Type"), "\n", families(t, res.Header, body))
			if got != want {
				t.Errorf("%q as %q\nPrometheus: %.1500s\nours:       %.1500s", match, accept, want, got)
			}
			if asked++; res.StatusCode == 200 && len(body) > 0 {
				filled++
			}
		}
	}
	if filled < 60 {
		t.Errorf("%d of %d answers had content", filled, asked)
	}
}

// families puts an answer in an order of its own: Prometheus sorts the series
// of a name in a way that keeps no order.
func families(t *testing.T, h http.Header, body []byte) []string {
	if strings.Contains(h.Get("Content-Type"), "encoding=compact-text") { // a family is a line
		body = bytes.ReplaceAll(body, []byte("metric:{"), []byte("\nmetric:{"))
		body = bytes.ReplaceAll(body, []byte(" name:"), []byte("\nname:"))
	}
	format := expfmt.ResponseFormat(h)
	if format.FormatType() != expfmt.TypeProtoDelim {
		lines := bytes.Split(body, []byte("\n"))
		out := make([]string, len(lines))
		for i, l := range lines {
			out[i] = string(bytes.TrimSpace(l))
		}
		slices.Sort(out)
		return out
	}
	var out []string
	decoder := expfmt.NewDecoder(bytes.NewReader(body), format)
	for {
		var f dto.MetricFamily
		if err := decoder.Decode(&f); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		for _, m := range f.Metric {
			out = append(out, f.GetName()+f.GetType().String()+m.String())
		}
	}
	slices.Sort(out)
	return out
}
