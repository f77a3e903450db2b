package query

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage"
)

// TestUpstreamLookups unites what both know, and cuts it afterwards.
func TestUpstreamLookups(t *testing.T) {
	answers := map[string]string{
		"labels":                `["__name__","a","zone"]`,
		"label/__name__/values": `["a","m","z"]`,
		"series":                `[{"__name__":"m"},{"__name__":"m","x":"y"}]`,
		"metadata":              `{"m":[{"type":"gauge","help":"h","unit":""}],"n":[{"type":"counter","help":"","unit":""}]}`,
		"query_exemplars":       `[{"seriesLabels":{"__name__":"m"},"exemplars":[{"labels":{"id":"1"},"value":"1","timestamp":1795208700.5},{"labels":{"id":"0"},"value":"0","timestamp":1795208600}]},{"seriesLabels":{"__name__":"a"},"exemplars":[{"labels":{},"value":"2","timestamp":1}]}]`,
	}
	status := 200
	a, asked, _ := storeBehind(t, UpstreamOptions{}, func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, "/prefix/api/v1/")
		get := strings.HasSuffix(path, "/values") || path == "metadata"
		if (r.Method == http.MethodGet) != get {
			t.Errorf("%s %s", r.Method, path)
		}
		answerJSON(status, success(answers[path]))(w, r)
	})
	a.o.Metadata = func(string, string) map[string][]metadata.Metadata {
		return map[string][]metadata.Metadata{"m": {{Type: "gauge", Help: "h"}}}
	}
	a.o.Exemplars = func(context.Context, string) (storage.ExemplarQuerier, error) {
		return exemplarsOfM{{SeriesLabels: labels.FromStrings("__name__", "m"), Exemplars: []exemplar.Exemplar{{Labels: labels.FromStrings("id", "1"), Value: 1, Ts: 1795208700500}, {Labels: labels.FromStrings("id", "2"), Value: 3, Ts: 1795208800000}}}}, nil
	}
	for _, c := range []struct {
		path   string
		params []string
		here   string // of memory alone
		both   string
	}{
		{"labels", nil, `["__name__"]`, `["__name__","a","zone"]`},
		{"label/__name__/values", nil, `["m"]`, `["a","m","z"]`},
		{"label/__name__/values", []string{"limit", "2"}, `["m"]`, `["a","m"]`},
		{"series", []string{"match[]", "m"}, `[{"__name__":"m"}]`, `[{"__name__":"m"},{"__name__":"m","x":"y"}]`},
		{"series", []string{"match[]", "m", "limit", "1"}, `[{"__name__":"m"}]`, `[{"__name__":"m"}]`},
		{"metadata", nil, `{"m":[{"type":"gauge","unit":"","help":"h"}]}`, `{"m":[{"type":"gauge","unit":"","help":"h"}],"n":[{"type":"counter","unit":"","help":""}]}`},
		{"query_exemplars", []string{"query", "m"}, `[{"seriesLabels":{"__name__":"m"},"exemplars":[{"labels":{"id":"1"},"value":"1","timestamp":1795208700.500},{"labels":{"id":"2"},"value":"3","timestamp":1795208800}]}]`,
			`[{"seriesLabels":{"__name__":"a"},"exemplars":[{"labels":{},"value":"2","timestamp":0.001}]},{"seriesLabels":{"__name__":"m"},"exemplars":[{"labels":{"id":"0"},"value":"0","timestamp":1795208600},{"labels":{"id":"1"},"value":"1","timestamp":1795208700.500},{"labels":{"id":"2"},"value":"3","timestamp":1795208800}]}]`},
	} {
		if c.path == "query_exemplars" {
			answers[c.path] = strings.Replace(answers[c.path], `"timestamp":1}`, `"timestamp":0.001}`, 1)
		}
		before := asked.Load()
		old := append([]string{"start", seconds(t0 - 60_000), "end", seconds(t0 + 600_000)}, c.params...)
		w := get(t, a, c.path, old...)
		if !strings.Contains(w.Body.String(), `"data":`+c.both) || w.Header().Get(sourceHeader) != sourceBoth || asked.Load() != before+1 || strings.Contains(w.Body.String(), "may be missing") {
			t.Errorf("%s %v: %s %s\nwant %s", c.path, c.params, w.Header().Get(sourceHeader), w.Body, c.both)
		}
		if cut := len(c.params) > 0 && c.params[len(c.params)-2] == "limit"; cut != strings.Contains(w.Body.String(), "truncated") {
			t.Errorf("%s %v: %s", c.path, c.params, w.Body)
		}
		for name, params := range map[string][]string{"never": append([]string{whenParam, "never"}, old...), "covered": append([]string{"start", seconds(t0 + 1000), "end", seconds(t0 + 600_000)}, c.params...)} {
			if name == "covered" && c.path == "metadata" {
				continue // it has no time
			}
			before := asked.Load()
			if w := get(t, a, c.path, params...); !strings.Contains(w.Body.String(), `"data":`+c.here) || asked.Load() != before || w.Header().Get(sourceHeader) != sourceMemory {
				t.Errorf("%s %s: %s, want %s", name, c.path, w.Body, c.here)
			}
		}
	}
	// What the store cannot say, memory does.
	status = 500
	if w := get(t, a, "labels", "start", seconds(t0-60_000)); !strings.Contains(w.Body.String(), `"data":["__name__"]`) || !strings.Contains(w.Body.String(), "the store behind did not answer") || w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	status, answers["labels"] = 400, `[]},"status":"error","error":"it does not like that`
	if w := get(t, a, "labels", "start", seconds(t0-60_000)); !strings.Contains(w.Body.String(), `"data":["__name__"]`) || w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	r := httptest.NewRequest(http.MethodGet, "/api/v1/labels?start=1", nil)
	r.Header.Set(hopHeader, "1")
	if w := send(t, a, r); w.Code != http.StatusLoopDetected {
		t.Errorf("from another daemon: %d %s", w.Code, w.Body)
	}
}

// exemplarsOfM answers every question alike.
type exemplarsOfM []exemplar.QueryResult

func (e exemplarsOfM) Select(_, _ int64, _ ...[]*labels.Matcher) ([]exemplar.QueryResult, error) {
	return append([]exemplar.QueryResult(nil), e...), nil
}

// TestUpstreamReads hands remote reads on of a time that is not covered.
func TestUpstreamReads(t *testing.T) {
	const theirs = "what the store says"
	status, breaksOff := 200, false
	a, asked, _ := storeBehind(t, UpstreamOptions{}, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		raw, err := snappy.Decode(nil, body)
		if err != nil {
			t.Error(err)
		}
		var q prompb.ReadRequest
		if err := q.Unmarshal(raw); err != nil || len(q.Queries) != 1 || r.URL.Path != "/prefix/api/v1/read" {
			t.Errorf("%v, %v at %s", err, &q, r.URL.Path)
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
		w.Header().Set("Content-Encoding", "snappy")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, theirs)
		if breaksOff {
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	})
	read := func(from int64) *httptest.ResponseRecorder {
		return readRequest(t, a, &prompb.ReadRequest{Queries: []*prompb.Query{{StartTimestampMs: from, EndTimestampMs: t0 + 600_000, Matchers: []*prompb.LabelMatcher{{Name: "__name__", Value: "m"}}}}})
	}
	if w := read(t0); w.Header().Get(sourceHeader) != sourceMemory || asked.Load() != 0 || w.Code != 200 {
		t.Errorf("covered: %d %v", w.Code, w.Header())
	}
	if w := read(t0 - 1); w.Body.String() != theirs || w.Header().Get(sourceHeader) != sourceUpstream || w.Header().Get("Content-Encoding") != "snappy" {
		t.Errorf("not covered: %d %v %s", w.Code, w.Header(), w.Body)
	}
	breaksOff = true
	if w := read(t0 - 1); w.Code != 200 || w.Header().Get(sourceHeader) != sourceMemory {
		t.Errorf("an answer that breaks off: %d %v", w.Code, w.Header())
	}
	breaksOff = false
	// A store that fails is passed over, one without remote read is not: see TestUpstreamReadsRaw.
	status = 503
	for range breakerFailures {
		read(t0 - 1)
	}
	before := asked.Load()
	if read(t0 - 1); asked.Load() != before {
		t.Error("a store that fails is asked")
	}
}

// TestUpstreamReadsWhen: a remote read says when the store is asked as others do.
func TestUpstreamReadsWhen(t *testing.T) {
	a, asked, _ := storeBehind(t, UpstreamOptions{}, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	raw, err := (&prompb.ReadRequest{Queries: []*prompb.Query{{StartTimestampMs: t0 - 1, EndTimestampMs: t0, Matchers: []*prompb.LabelMatcher{{Name: "__name__", Value: "m"}}}}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for when, want := range map[string]int{"never": 200, "missing": 200, "always": 200, "perhaps": 400} {
		r := httptest.NewRequest(http.MethodPost, "/api/v1/read?upstream="+when, bytes.NewReader(snappy.Encode(nil, raw)))
		if w := send(t, a, r); w.Code != want {
			t.Errorf("%s: %d %s", when, w.Code, w.Body)
		}
	}
	if asked.Load() != 2 {
		t.Errorf("the store was asked %d times, want 2", asked.Load())
	}
}
