package e2e

import (
	"context"
	"net/http"
	"net/url"
	"reflect"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/prompb"
)

// TestE2EExemplarsAndHistograms: what comes with samples can be asked for.
func TestE2EExemplarsAndHistograms(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	now := time.Now().UnixMilli()
	traced := oneSeries(now, 5, "__name__", "traced_total", "job", "a")
	traced.Exemplars = []prompb.Exemplar{{Labels: []prompb.Label{{Name: "trace_id", Value: "abc"}}, Value: 1.5, Timestamp: now}}
	native := prompb.TimeSeries{
		Labels: []prompb.Label{{Name: "__name__", Value: "native_seconds"}, {Name: "job", Value: "a"}},
		Histograms: []prompb.Histogram{{
			Count: &prompb.Histogram_CountInt{CountInt: 6}, Sum: 12, Schema: 0, ZeroThreshold: 1e-9, ZeroCount: &prompb.Histogram_ZeroCountInt{ZeroCountInt: 0},
			PositiveSpans: []prompb.BucketSpan{{Offset: 0, Length: 2}}, PositiveDeltas: []int64{2, 2}, Timestamp: now,
		}},
	}
	if code, said, err := s.post(ctx, snappy.Encode(nil, body(t, traced, native))); err != nil || code != http.StatusNoContent {
		t.Fatalf("%d %q %v", code, said, err)
	}

	var exemplars struct {
		Data []struct {
			SeriesLabels map[string]string
			Exemplars    []struct {
				Labels map[string]string
				Value  string
			}
		}
	}
	for query, want := range map[string]int{`traced_total`: 1, `traced_total{job="a"} + other`: 1, `rate(traced_total{job=~"b|c"}[1m])`: 0, `{missing="",job="a"}`: 1} {
		q := url.Values{"query": {query}, "start": {stamp(time.UnixMilli(now - 1000))}, "end": {stamp(time.UnixMilli(now + 1000))}}
		exemplars.Data = nil
		if err := s.get("/api/v1/query_exemplars?"+q.Encode(), &exemplars); err != nil {
			t.Fatal(err)
		}
		if len(exemplars.Data) != want {
			t.Errorf("%s: %+v, want %d series", query, exemplars.Data, want)
			continue
		}
		if want == 1 {
			got := exemplars.Data[0]
			if len(got.Exemplars) != 1 || got.Exemplars[0].Value != "1.5" || !reflect.DeepEqual(got.Exemplars[0].Labels, map[string]string{"trace_id": "abc"}) ||
				!reflect.DeepEqual(got.SeriesLabels, map[string]string{"__name__": "traced_total", "job": "a"}) {
				t.Errorf("%s: %+v", query, got)
			}
		}
	}
	for query, want := range map[string]string{`histogram_count(native_seconds)`: "6", `histogram_sum(native_seconds)`: "12", `histogram_avg(native_seconds)`: "2"} {
		v, err := s.instant(query)
		if err != nil || v[`{"job":"a"}`] != want {
			t.Errorf("%s: %v, %v; want %s", query, v, err, want)
		}
	}
}

// TestE2ETimestamps: samples come back with the times and bits they were sent
// with, whatever the order in which they came.
func TestE2ETimestamps(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	end := time.Now().Truncate(time.Second).UnixMilli()
	want := map[int64]float64{}
	var batches [][]prompb.Sample
	for i := range int64(200) { // a grid with jitter, and every seventh sample late
		at, v := end-(200-i)*1000+i*i%37, float64(i)*1.25
		want[at] = v
		batch := int(i / 10)
		if i%7 == 0 {
			batch += 5
		}
		for len(batches) <= batch {
			batches = append(batches, nil)
		}
		batches[batch] = append([]prompb.Sample{{Timestamp: at, Value: v}}, batches[batch]...)
	}
	for _, b := range batches {
		ts := prompb.TimeSeries{Labels: []prompb.Label{{Name: "__name__", Value: "late"}}, Samples: b}
		if code, said, err := s.post(ctx, snappy.Encode(nil, body(t, ts))); err != nil || code != http.StatusNoContent {
			t.Fatalf("%d %q %v", code, said, err)
		}
	}
	var answer struct {
		Data struct {
			Result []struct{ Values []model.SamplePair }
		}
	}
	if err := s.get("/api/v1/query?"+url.Values{"query": {"late[10m]"}, "time": {stamp(time.UnixMilli(end + 1000))}}.Encode(), &answer); err != nil {
		t.Fatal(err)
	}
	if len(answer.Data.Result) != 1 || len(answer.Data.Result[0].Values) != len(want) {
		t.Fatalf("got %+v, want %d samples", answer, len(want))
	}
	last := int64(0)
	for _, p := range answer.Data.Result[0].Values {
		at, value := int64(p.Timestamp), float64(p.Value)
		if v, ok := want[at]; !ok || v != value || at <= last {
			t.Errorf("%v at %d; sent was %v, %v", value, at, v, ok)
		}
		last = at
	}
}
