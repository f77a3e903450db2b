// Package writetest is what the tests of both ends of remote write share: a
// cache with a receiver before it, requests made by Prometheus' own encoders,
// and what the cache holds in words.
package writetest

import (
	"bytes"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gogo/protobuf/proto"
	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"mcached/kvcache"
	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// Now is the clock of receivers in tests.
var Now = time.UnixMilli(1_795_208_747_864)

// Series is what a request holds.
type Series struct {
	Labels  []mcache.Label
	Samples []mcache.Sample
}

// Receiver is a cache with the handler that writes into it.
type Receiver struct {
	T      testing.TB
	Cache  *mcache.Cache
	Memory *kvcache.Memory
	To     http.Handler
}

// New makes the cache of a receiver, which is closed with the test. The Memory
// among o is made here.
func New(t testing.TB, o mcache.Options) *Receiver {
	t.Helper()
	memory, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 64 << 20, ReserveBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	o.Memory = memory
	if o.Shards == 0 {
		o.Shards = 8 // as with more memory: several at a time is what is to be tested
	}
	c, err := mcache.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		memory.Close()
	})
	return &Receiver{T: t, Cache: c, Memory: memory}
}

// Send posts body, compressed, as protocol p.
func (r *Receiver) Send(p wire.Protocol, body []byte) *httptest.ResponseRecorder {
	return r.Post(ContentType(p), "snappy", snappy.Encode(nil, body))
}

// ContentType is what a request of protocol p carries.
func ContentType(p wire.Protocol) string {
	if p == wire.V2 {
		return wire.ContentTypeV2
	}
	return wire.ContentTypeV1
}

// Post sends body as it is. Empty strings are headers left out.
func (r *Receiver) Post(contentType, encoding string, body []byte) *httptest.ResponseRecorder {
	req := httptest.NewRequest("POST", "/api/v1/write", bytes.NewReader(body))
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if encoding != "" {
		req.Header.Set("Content-Encoding", encoding)
	}
	w := httptest.NewRecorder()
	r.To.ServeHTTP(w, req)
	return w
}

// Contents reads all of a bucket, as lines `{a="b", …} time:bits …`.
func (r *Receiver) Contents(bucket string) []string {
	return r.ContentsBy(bucket, func(record []byte) string { return fmt.Sprintf("%x", record) })
}

// ContentsBy is Contents with records shown by show.
func (r *Receiver) ContentsBy(bucket string, show func(record []byte) string) []string {
	r.T.Helper()
	ids, err := r.Cache.Select(bucket, nil, nil)
	if err != nil {
		r.T.Fatal(err)
	}
	var lines []string
	for _, id := range ids {
		ls, ok := r.Cache.Labels(id, nil)
		var s mcache.Snapshot
		if !ok || !r.Cache.Snapshot(id, math.MinInt64, math.MaxInt64, &s) {
			r.T.Fatalf("series %d is gone", id)
		}
		line := LabelText(ls)
		for it := s.Iterator(); it.Next(); {
			if it.OnRecord() {
				line += fmt.Sprintf(" %d:record:%s", it.Record().T, show(it.Record().Value))
				continue
			}
			line += fmt.Sprintf(" %d:%x", it.At().T, it.At().V)
			if start := it.StartTime(); start != 0 {
				line += fmt.Sprintf("(since %d)", start)
			}
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return lines
}

// Holds fails unless the default bucket holds exactly the given series.
func (r *Receiver) Holds(want ...string) {
	r.T.Helper()
	slices.Sort(want)
	if got := r.Contents("default"); !slices.Equal(got, want) {
		r.T.Errorf("the cache holds\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// LabelText is a label set as Contents has it.
func LabelText(ls []mcache.Label) string {
	var s []string
	for _, l := range ls {
		s = append(s, l.Name+"="+strconv.Quote(l.Value))
	}
	return "{" + strings.Join(s, ", ") + "}"
}

// Line is what Contents says of a series.
func Line(labels string, samples ...mcache.Sample) string {
	for _, s := range samples {
		labels += fmt.Sprintf(" %d:%x", s.T, s.V)
	}
	return labels
}

// Answered fails unless w has the status and the text among its body.
func Answered(t testing.TB, w *httptest.ResponseRecorder, status int, text string) {
	t.Helper()
	if w.Code != status || !strings.Contains(w.Body.String(), text) {
		t.Errorf("answer is %d %q, want %d with %q", w.Code, w.Body.String(), status, text)
	}
	if status == http.StatusNoContent && w.Body.Len() > 0 {
		t.Errorf("a 204 has a body: %q", w.Body.String())
	}
}

// Wrote fails unless the Written headers say samples, histograms and
// exemplars; what is left out is 0. No numbers at all mean no headers.
func Wrote(t testing.TB, w *httptest.ResponseRecorder, counts ...int) {
	t.Helper()
	for i, name := range []string{"Samples", "Histograms", "Exemplars"} {
		key := "X-Prometheus-Remote-Write-" + name + "-Written"
		want := "0"
		if i < len(counts) {
			want = strconv.Itoa(counts[i])
		} else if len(counts) == 0 {
			want = ""
		}
		if got := w.Header().Get(key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
}

// Sample is value v so many seconds after the clock.
func Sample(seconds float64, v float64) mcache.Sample {
	return mcache.Sample{T: Now.UnixMilli() + int64(seconds*1000), V: math.Float64bits(v)}
}

// Labels makes pairs of its arguments.
func Labels(pairs ...string) []mcache.Label {
	var ls []mcache.Label
	for i := 0; i < len(pairs); i += 2 {
		ls = append(ls, mcache.Label{Name: pairs[i], Value: pairs[i+1]})
	}
	return ls
}

// Named is Labels with a metric name before them.
func Named(name string, pairs ...string) []mcache.Label {
	return append(Labels("__name__", name), Labels(pairs...)...)
}

// Encode makes a request of protocol p with Prometheus' own encoder.
func Encode(t testing.TB, p wire.Protocol, series ...Series) []byte {
	t.Helper()
	if p == wire.V1 {
		return Marshal(t, RequestV1(series...))
	}
	return Marshal(t, RequestV2(series...))
}

// RequestV1 makes a request of protocol 1.0.
func RequestV1(series ...Series) *prompb.WriteRequest {
	var r prompb.WriteRequest
	for _, s := range series {
		var ts prompb.TimeSeries
		for _, l := range s.Labels {
			ts.Labels = append(ts.Labels, prompb.Label{Name: l.Name, Value: l.Value})
		}
		for _, x := range s.Samples {
			ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: x.T, Value: math.Float64frombits(x.V)})
		}
		r.Timeseries = append(r.Timeseries, ts)
	}
	return &r
}

// RequestV2 makes a request of protocol 2.0.
func RequestV2(series ...Series) *writev2.Request {
	symbols := writev2.NewSymbolTable()
	var r writev2.Request
	for _, s := range series {
		var ts writev2.TimeSeries
		for _, l := range s.Labels {
			ts.LabelsRefs = append(ts.LabelsRefs, symbols.Symbolize(l.Name), symbols.Symbolize(l.Value))
		}
		for _, x := range s.Samples {
			ts.Samples = append(ts.Samples, writev2.Sample{Timestamp: x.T, Value: math.Float64frombits(x.V)})
		}
		r.Timeseries = append(r.Timeseries, ts)
	}
	r.Symbols = symbols.Symbols()
	return &r
}

// Marshal is the bytes of m.
func Marshal(t testing.TB, m proto.Marshaler) []byte {
	t.Helper()
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Both runs a test for each protocol.
func Both(t *testing.T, f func(t *testing.T, p wire.Protocol)) {
	for _, p := range []wire.Protocol{wire.V1, wire.V2} {
		t.Run("v"+p.String(), func(t *testing.T) { f(t, p) })
	}
}
