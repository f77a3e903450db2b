package query

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"

	"mcached/mcache"
)

// rawStore is a store without remote read: it says so by a status, and answers
// queries.
type rawStore struct {
	status      int // to a remote read
	kind        string
	answer      string // to a query
	reads       int
	query, time string // that it was asked last
}

func (s *rawStore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, "/read") {
		s.reads++
		w.Header().Set("Content-Type", s.kind)
		w.WriteHeader(s.status)
		return
	}
	_ = r.ParseForm()
	s.query, s.time = r.Form.Get("query"), r.Form.Get("time")
	w.Header().Set("Content-Type", "application/stream+json; charset=utf-8") // as VictoriaMetrics has it
	_, _ = io.WriteString(w, s.answer)
}

func readOf(from int64, name string, types ...prompb.ReadRequest_ResponseType) *prompb.ReadRequest {
	return &prompb.ReadRequest{AcceptedResponseTypes: types, Queries: []*prompb.Query{{
		StartTimestampMs: from, EndTimestampMs: t0 + 600_000, Matchers: []*prompb.LabelMatcher{{Type: prompb.LabelMatcher_RE, Name: "__name__", Value: name}},
	}}}
}

// rawMatrix is an answer with these members of its list.
func rawMatrix(series ...string) string {
	return `{"status":"success","data":{"resultType":"matrix","result":[` + strings.Join(series, ",") + `]}}`
}

// TestUpstreamReadsRaw: of a store that has no remote read a remote read has the
// samples by a query, united with what memory has.
func TestUpstreamReadsRaw(t *testing.T) {
	store := &rawStore{}
	a, asked, _ := storeBehind(t, UpstreamOptions{}, store.ServeHTTP)
	from := t0 - 30_000
	point := func(ms int64, v string) string { return fmt.Sprintf(`[%s,"%s"]`, milliText(ms), v) }
	// Not in order; m has one sample too early, which a closed range has, one of a
	// time that memory has too, and one between two of memory's.
	store.answer = rawMatrix(
		`{"metric":{"__name__":"mz","a":"é\n"},"values":[`+point(from, "-0")+`,`+point(t0+7, "NaN")+`,`+point(t0+600_000, "+Inf")+`]}`,
		`{"metric":{"__name__":"m"},"values":[`+point(from-1, "9")+`,`+point(from, "1.5")+`,`+point(t0, "77")+`,`+point(t0+15_001, "2e-7")+`]}`,
	)
	want := []readSeries{{labels: `{__name__="m"}`, samples: []prompb.Sample{{Timestamp: from, Value: 1.5}}}, {labels: `{__name__="mz", a="é\n"}`}}
	for i := range int64(41) {
		want[0].samples = append(want[0].samples, prompb.Sample{Timestamp: t0 + i*15_000, Value: float64(i)})
		if i == 1 {
			want[0].samples = append(want[0].samples, prompb.Sample{Timestamp: t0 + 15_001, Value: 2e-7})
		}
	}
	want[1].samples = []prompb.Sample{{Timestamp: from, Value: math.Copysign(0, -1)}, {Timestamp: t0 + 7, Value: math.NaN()}, {Timestamp: t0 + 600_000, Value: math.Inf(1)}}
	same := func(got []readSeries) bool {
		return slices.EqualFunc(got, want, func(a, b readSeries) bool { return a.labels == b.labels && sameSamples(a.samples, b.samples) })
	}
	for _, says := range []rawStore{{status: 404}, {status: 405}, {status: 415, kind: "text/plain"}, {status: 400}, {status: 501}, {status: 200, kind: "text/html"}} {
		store.status, store.kind, store.reads = says.status, says.kind, 0
		a.upstream.dialect.known = dialect{}
		for range 2 * breakerFailures {
			w := readRequest(t, a, readOf(from, "m.*"))
			if got := decodeSamples(t, w); len(got) != 1 || !same(got[0]) || w.Header().Get(sourceHeader) != sourceBoth || w.Header().Get(completeFromHeader) != "" {
				t.Fatalf("%d: %v %v\nwant %v", says.status, w.Header(), got, want)
			}
			w = readRequest(t, a, readOf(from, "m.*", prompb.ReadRequest_STREAMED_XOR_CHUNKS))
			if got, _ := decodeStream(t, w, 1); !same(got[0]) || w.Header().Get(sourceHeader) != sourceBoth || w.Result().Trailer.Get(completeFromHeader) != "" {
				t.Fatalf("%d, streamed: %v %v\nwant %v", says.status, w.Header(), got, want)
			}
		}
		if store.query != `{__name__=~"m.*"}[630001ms]` || store.time != milliText(t0+600_000) {
			t.Errorf("it is asked for %s at %s", store.query, store.time)
		}
		if again := says.status == 400 || says.status == 415; (store.reads > breakerFailures) != again {
			t.Errorf("a store that answers %d to a remote read was sent %d", says.status, store.reads)
		}
	}
	if s := a.Stats(); s.UpstreamSkipped != 0 {
		t.Errorf("the store was passed over: %+v", s)
	}

	// What is covered is memory's; a selector of nothing here is the store's.
	before := asked.Load()
	if w := readRequest(t, a, readOf(t0, "m")); w.Header().Get(sourceHeader) != sourceMemory || asked.Load() != before {
		t.Errorf("covered: %v", w.Header())
	}
	store.answer = rawMatrix(`{"metric":{"__name__":"job:recorded"},"values":[` + point(t0+1, "3") + `]}`)
	w := readRequest(t, a, readOf(t0, "job:recorded"))
	if got := decodeSamples(t, w); w.Header().Get(sourceHeader) != sourceUpstream || len(got[0]) != 1 || !sameSamples(got[0][0].samples, []prompb.Sample{{Timestamp: t0 + 1, Value: 3}}) {
		t.Errorf("a selector of nothing here: %v %v", w.Header(), got)
	}
	store.answer = rawMatrix()
	r := httptest.NewRequest(http.MethodPost, "/api/v1/read?upstream=always", bytes.NewReader(snappyOf(t, readOf(t0, "m"))))
	if w := send(t, a, r); w.Header().Get(sourceHeader) != sourceUpstream || len(decodeSamples(t, w)[0]) != 0 {
		t.Errorf("always: %v %v", w.Header(), decodeSamples(t, w))
	}
	r = httptest.NewRequest(http.MethodPost, "/api/v1/read", bytes.NewReader(snappyOf(t, readOf(from, "m"))))
	r.Header.Set(hopHeader, "1")
	if w := send(t, a, r); w.Code != http.StatusLoopDetected {
		t.Errorf("from another daemon: %d", w.Code)
	}
}

// TestUpstreamReadsRawFails: whatever else the store answers, memory's part is
// the answer, with the header that tells what is missing.
func TestUpstreamReadsRawFails(t *testing.T) {
	for name, answer := range map[string]string{
		"native histograms": rawMatrix(`{"metric":{"__name__":"m"},"histograms":[[1795208699,{"count":"1","sum":"1"}]]}`),
		"no matrix":         storesAnswer,
		"half":              rawMatrix(`{"metric":{"__name__":"m"},"values":[[1795208699,"1"]]}`)[:90],
		"other times":       rawMatrix(`{"metric":{"__name__":"m"},"values":[[1795208000,"1"]]}`),
		"no value":          rawMatrix(`{"metric":{"__name__":"m"},"values":[[1795208699,"1-"]]}`),
		"refused":           failure("bad_data", "no"),
	} {
		store := &rawStore{status: 404, answer: answer}
		a, _, _ := storeBehind(t, UpstreamOptions{}, store.ServeHTTP)
		w := readRequest(t, a, readOf(t0-30_000, "m"))
		if got := decodeSamples(t, w); w.Code != 200 || len(got[0]) != 1 || len(got[0][0].samples) != 41 || w.Header().Get(sourceHeader) != sourceMemory || w.Header().Get(completeFromHeader) == "" {
			t.Errorf("%s: %d %v %v", name, w.Code, w.Header(), got)
		}
		if blamed := a.upstream.breaker.failures > 0; blamed == (name == "native histograms") {
			t.Errorf("%s: the breaker counts %d", name, a.upstream.breaker.failures)
		}
	}
	// Bounds: those of every remote read.
	store := &rawStore{status: 404, answer: rawMatrix(`{"metric":{"__name__":"n"},"values":[[1795208699,"1"],[1795208699.001,"1"]]}`)}
	a, _, _ := storeBehind(t, UpstreamOptions{}, store.ServeHTTP)
	a.SetLimits(Options{MaxSamples: 1})
	wantBody(t, readRequest(t, a, readOf(t0-30_000, "n")), 400, "exceeded sample limit (1)\n")
	if n := a.upstream.breaker.failures; n != 0 {
		t.Errorf("a limit of this process: the breaker counts %d", n)
	}
}

// TestUpstreamReadsRawEvicted: what memory loses between the two is told of.
func TestUpstreamReadsRawEvicted(t *testing.T) {
	f := &bothFound{here: nothingFound{}, series: []seriesOfBoth{{labels: labels.EmptyLabels(), here: 0, theirs: held(5, 6)}}}
	var s = held()
	if ok := f.Snapshot(0, 1, 9, s); !ok || s.CompleteFrom() != 10 || !s.HasPoint() {
		t.Errorf("%v, complete from %d", ok, s.CompleteFrom())
	}
}

// held is a snapshot that holds samples of these times.
func held(times ...int64) *mcache.Snapshot {
	s, list := new(mcache.Snapshot), make([]mcache.Sample, len(times))
	for i, at := range times {
		list[i].T = at
	}
	s.Hold(list...)
	return s
}

func snappyOf(t *testing.T, r *prompb.ReadRequest) []byte {
	raw, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return snappy.Encode(nil, raw)
}

// TestUpstreamReadsRawIsLent: the text of a series of the store's is taken from the
// loan as it comes, beside its samples, and nothing by how long the time is. That a
// read is too large says nothing of the store.
func TestUpstreamReadsRawIsLent(t *testing.T) {
	const points = 200_000
	text := []byte(`{"metric":{"__name__":"m"},"values":[`)
	for i := range int64(points) {
		text = append(appendTime(append(text, '['), t0+i), `,"1"],`...)
	}
	store := &rawStore{status: 404, answer: rawMatrix(string(text[:len(text)-1]) + "]}")}
	for room, source := range map[int64]string{points*pointBytes + 1<<20: sourceMemory, 1 << 30: sourceBoth} {
		a, _, _ := storeBehind(t, UpstreamOptions{}, store.ServeHTTP)
		p := &purse{limit: room}
		a.o.Admission = p.open
		for range breakerFailures {
			if w := readRequest(t, a, readOf(t0-30_000, "m")); w.Code != 200 || w.Header().Get(sourceHeader) != source {
				t.Fatalf("room for %d: %d, %v", room, w.Code, w.Header())
			}
		}
		if held, _ := p.read(); held != 0 || a.upstream.breaker.failures != 0 {
			t.Errorf("room for %d: %d are held in the end, the breaker counts %d", room, held, a.upstream.breaker.failures)
		}
	}
}

// TestRawHasNoRuns: nothing is made for each ms of a long time.
func TestRawHasNoRuns(t *testing.T) {
	a, _, _ := storeBehind(t, UpstreamOptions{}, http.NotFound)
	at := window{t0 - 30*60_000, t0}
	answer := rawMatrix(`{"metric":{},"values":[[` + milliText(t0-2) + `,"1"],[` + milliText(t0-1) + `,"2"]]}`)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n := 0
	err := a.takeRaw(t.Context(), strings.NewReader(answer), at, func(_ labels.Labels, samples []mcache.Sample) { n = len(samples) })
	runtime.ReadMemStats(&after)
	if size := after.TotalAlloc - before.TotalAlloc; err != nil || n != 2 || size > 8<<20 {
		t.Errorf("%v, %d samples of half an hour took %d bytes", err, n, size)
	}
}
