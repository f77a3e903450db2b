package remotewrite

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

// now is the clock of every receiver in these tests.
var now = time.UnixMilli(1_795_208_747_864)

// receiver is a Handler with its cache.
type receiver struct {
	t testing.TB
	*Handler
	cache  *mcache.Cache
	memory *kvcache.Memory
}

func newReceiver(t testing.TB, o Options) receiver {
	t.Helper()
	return newReceiverWith(t, o, mcache.Options{})
}

// newReceiverWith has a cache with options of its own, but for its Memory.
func newReceiverWith(t testing.TB, o Options, cache mcache.Options) receiver {
	t.Helper()
	memory, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 64 << 20, ReserveBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	cache.Memory = memory
	c, err := mcache.New(cache)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		memory.Close()
	})
	if o.Now == nil {
		o.Now = func() time.Time { return now }
	}
	return receiver{t, NewHandler(c, o), c, memory}
}

// send posts body, compressed, as protocol p.
func (r receiver) send(p wire.Protocol, body []byte) *httptest.ResponseRecorder {
	return r.post(contentType(p), "snappy", snappy.Encode(nil, body))
}

func contentType(p wire.Protocol) string {
	if p == wire.V2 {
		return wire.ContentTypeV2
	}
	return wire.ContentTypeV1
}

func (r receiver) post(contentType, encoding string, body []byte) *httptest.ResponseRecorder {
	req := httptest.NewRequest("POST", "/api/v1/write", bytes.NewReader(body))
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if encoding != "" {
		req.Header.Set("Content-Encoding", encoding)
	}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return w
}

// contents reads all of a bucket, as lines `{a="b", …} time:bits …`.
func (r receiver) contents(bucket string) []string {
	return r.contentsBy(bucket, func(record []byte) string { return fmt.Sprintf("%x", record) })
}

// contentsBy is contents with records shown by show.
func (r receiver) contentsBy(bucket string, show func(record []byte) string) []string {
	r.t.Helper()
	ids, err := r.cache.Select(bucket, nil, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	var lines []string
	for _, id := range ids {
		ls, ok := r.cache.Labels(id, nil)
		var s mcache.Snapshot
		if !ok || !r.cache.Snapshot(id, math.MinInt64, math.MaxInt64, &s) {
			r.t.Fatalf("series %d is gone", id)
		}
		line := labelText(ls)
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

// holds fails unless the default bucket holds exactly the given series.
func (r receiver) holds(want ...string) {
	r.t.Helper()
	slices.Sort(want)
	if got := r.contents("default"); !slices.Equal(got, want) {
		r.t.Errorf("the cache holds\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func labelText(ls []mcache.Label) string {
	var s []string
	for _, l := range ls {
		s = append(s, l.Name+"="+strconv.Quote(l.Value))
	}
	return "{" + strings.Join(s, ", ") + "}"
}

// line is what contents says of a series.
func line(labels string, samples ...mcache.Sample) string {
	for _, s := range samples {
		labels += fmt.Sprintf(" %d:%x", s.T, s.V)
	}
	return labels
}

// answered fails unless w has the status and the text among its body.
func answered(t testing.TB, w *httptest.ResponseRecorder, status int, text string) {
	t.Helper()
	if w.Code != status || !strings.Contains(w.Body.String(), text) {
		t.Errorf("answer is %d %q, want %d with %q", w.Code, w.Body.String(), status, text)
	}
	if status == http.StatusNoContent && w.Body.Len() > 0 {
		t.Errorf("a 204 has a body: %q", w.Body.String())
	}
}

// wrote fails unless the Written headers say samples, histograms and
// exemplars; what is left out is 0. No numbers at all mean no headers.
func wrote(t testing.TB, w *httptest.ResponseRecorder, counts ...int) {
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

// sample is value v so many seconds after the clock.
func sample(seconds float64, v float64) mcache.Sample {
	return mcache.Sample{T: now.UnixMilli() + int64(seconds*1000), V: math.Float64bits(v)}
}

// labels makes pairs of its arguments.
func labels(pairs ...string) []mcache.Label {
	var ls []mcache.Label
	for i := 0; i < len(pairs); i += 2 {
		ls = append(ls, mcache.Label{Name: pairs[i], Value: pairs[i+1]})
	}
	return ls
}

func named(name string, pairs ...string) []mcache.Label {
	return append(labels("__name__", name), labels(pairs...)...)
}

// encode makes a request of protocol p with Prometheus' own encoder.
func encode(t testing.TB, p wire.Protocol, series ...Series) []byte {
	t.Helper()
	if p == wire.V1 {
		return marshal(t, requestV1(series...))
	}
	return marshal(t, requestV2(series...))
}

func requestV1(series ...Series) *prompb.WriteRequest {
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

func requestV2(series ...Series) *writev2.Request {
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

func marshal(t testing.TB, m proto.Marshaler) []byte {
	t.Helper()
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// both runs a test for each protocol.
func both(t *testing.T, f func(t *testing.T, p wire.Protocol)) {
	for _, p := range []wire.Protocol{wire.V1, wire.V2} {
		t.Run("v"+p.String(), func(t *testing.T) { f(t, p) })
	}
}
