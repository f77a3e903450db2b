package query

import (
	"context"
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

// bucketExemplars has one exemplar, whose series says of which bucket it is.
type bucketExemplars string

func (b bucketExemplars) Select(_, _ int64, sets ...[]*labels.Matcher) ([]exemplar.QueryResult, error) {
	for _, ms := range sets {
		for _, m := range ms {
			if m.Name == tenantLabel {
				panic("the tenant's matcher was handed on")
			}
		}
	}
	return []exemplar.QueryResult{{SeriesLabels: labels.FromStrings("bucket", string(b))}}, nil
}

// TestTenants reads several buckets as one, by every kind of request.
func TestTenants(t *testing.T) {
	c := newCache(t)
	for _, tenant := range []string{"a", "b", "c"} {
		fill(t, c, tenant, 15_000, ramp(41, float64(tenant[0]), 1), "__name__", "m_total", "of", tenant)
		fill(t, c, tenant, 15_000, ramp(41, 1, 0), "__name__", "shared")
	}
	fill(t, c, "b", 15_000, ramp(41, 5, 0), "__name__", "own", tenantLabel, "mine")
	o := testOptions()
	o.TenancyHeader = "X-Scope-OrgID"
	o.Metadata = func(bucket, _ string) map[string][]metadata.Metadata {
		return map[string][]metadata.Metadata{"shared": {{Type: "gauge", Help: "the same"}}, "m_total": {{Type: "counter", Help: "of " + bucket}}}
	}
	o.Exemplars = func(_ context.Context, bucket string) (storage.ExemplarQuerier, error) {
		return bucketExemplars(bucket), nil
	}
	a := NewAPI(c, o)
	ask := func(header, path string, pairs ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, path+"?"+form(pairs), nil)
		r.Header.Set("X-Scope-OrgID", header)
		return send(t, a, r)
	}
	end := seconds(t0 + 600_000)
	rangeOf := func(query string) []string { return []string{"query", query, "start", end, "end", end, "step", "15"} }
	vector := func(result string) string { return success(`{"resultType":"vector","result":[` + result + `]}`) }
	matrix := func(result string) string { return success(`{"resultType":"matrix","result":[` + result + `]}`) }
	for _, c := range []struct {
		header, path string
		params       []string
		want         string
	}{
		{"b|a", "/api/v1/query", []string{"query", "m_total"}, vector(`{"metric":{"__name__":"m_total","__tenant_id__":"a","of":"a"},"value":[1795209300,"137"]},{"metric":{"__name__":"m_total","__tenant_id__":"b","of":"b"},"value":[1795209300,"138"]}`)},
		{"a|b|a", "/api/v1/query", []string{"query", "sum(shared)"}, vector(`{"metric":{},"value":[1795209300,"2"]}`)},
		{"a|a", "/api/v1/query", []string{"query", "shared"}, vector(`{"metric":{"__name__":"shared"},"value":[1795209300,"1"]}`)},
		{"a", "/api/v1/query", []string{"query", "shared"}, vector(`{"metric":{"__name__":"shared"},"value":[1795209300,"1"]}`)},
		{"a|b|c", "/api/v1/query", []string{"query", `count by (__tenant_id__) (shared{__tenant_id__!="b"})`}, vector(`{"metric":{"__tenant_id__":"a"},"value":[1795209300,"1"]},{"metric":{"__tenant_id__":"c"},"value":[1795209300,"1"]}`)},
		{"a|b", "/api/v1/query", []string{"query", `own{original___tenant_id__="mine"}`}, vector(`{"metric":{"__name__":"own","__tenant_id__":"b","original___tenant_id__":"mine"},"value":[1795209300,"5"]}`)},
		{"a|b", "/api/v1/query", []string{"query", `shared{__tenant_id__="c"}`}, vector(``)},
		{"a|nobody", "/api/v1/query", []string{"query", `count(shared)`}, vector(`{"metric":{},"value":[1795209300,"1"]}`)},
		{"a|b", "/api/v1/query_range", rangeOf("sum by (__tenant_id__) (m_total)"), matrix(`{"metric":{"__tenant_id__":"a"},"values":[[1795209300,"137"]]},{"metric":{"__tenant_id__":"b"},"values":[[1795209300,"138"]]}`)},
		{"a|b", "/api/v1/query_range", rangeOf("sum(rate(m_total[5m]))"), matrix(`{"metric":{},"values":[[1795209300,"0.13333333333333333"]]}`)},
		{"a|b", "/api/v1/series", []string{"match[]", "m_total"}, success(`[{"__name__":"m_total","__tenant_id__":"a","of":"a"},{"__name__":"m_total","__tenant_id__":"b","of":"b"}]`)},
		{"a|b", "/api/v1/labels", nil, success(`["__name__","__tenant_id__","of","original___tenant_id__"]`)},
		{"a|c", "/api/v1/labels", []string{"start", seconds(t0), "end", end, "limit", "2"}, strings.TrimSuffix(success(`["__name__","__tenant_id__"]`), "}") + `,"warnings":["results truncated due to limit"]}`},
		{"c|b", "/api/v1/label/__tenant_id__/values", nil, success(`["b","c"]`)},
		{"c|b", "/api/v1/label/__tenant_id__/values", []string{"match[]", `{__tenant_id__=~"c|d"}`}, success(`["c"]`)},
		{"c|b", "/api/v1/label/original___tenant_id__/values", nil, success(`["mine"]`)},
		{"a|b|c", "/api/v1/label/of/values", []string{"match[]", `{__tenant_id__!="b",of!=""}`}, success(`["a","c"]`)},
		{"a|b", "/api/v1/metadata", nil, success(`{"m_total":[{"type":"counter","unit":"","help":"of a"},{"type":"counter","unit":"","help":"of b"}],"shared":[{"type":"gauge","unit":"","help":"the same"}]}`)},
		{"a|b", "/api/v1/query_exemplars", []string{"query", "m_total"}, success(`[{"seriesLabels":{"__tenant_id__":"a","bucket":"a"},"exemplars":[]},{"seriesLabels":{"__tenant_id__":"b","bucket":"b"},"exemplars":[]}]`)},
		{"a|b", "/api/v1/query_exemplars", []string{"query", `m_total{__tenant_id__="b"}`}, success(`[{"seriesLabels":{"__tenant_id__":"b","bucket":"b"},"exemplars":[]}]`)},
	} {
		if w := ask(c.header, c.path, c.params...); w.Code != 200 || w.Body.String() != c.want {
			t.Errorf("%s %s %q\ngot  %d %s\nwant %s", c.header, c.path, c.params, w.Code, w.Body, c.want)
		}
	}
	if w := ask("a|b", "/api/v1/status/tsdb"); !strings.Contains(w.Body.String(), `"numSeries":5,`) || !strings.Contains(w.Body.String(), `"seriesCountByMetricName":[{"name":"m_total","value":2},{"name":"shared","value":2},{"name":"own","value":1}]`) {
		t.Errorf("status: %s", w.Body)
	}
	if w := ask("a|c", "/federate", "match[]", "m_total"); !strings.Contains(w.Body.String(), `m_total{__tenant_id__="a",of="a",instance=""} 137`) {
		t.Errorf("federation: %d %s", w.Code, w.Body)
	}
	for _, header := range []string{"a|", "|", "a||b", "|a"} {
		wantBody(t, ask(header, "/api/v1/query", "query", "1"), 400, failure("bad_data", "X-Scope-OrgID: a tenant without a name"))
	}
	for _, header := range []string{"a| b", "b |a", "a|\tb", "a| "} {
		if w := ask(header, "/api/v1/query", "query", "1"); w.Code != 400 || !strings.Contains(w.Body.String(), "X-Scope-OrgID: a tenant whose name begins or ends with a space: ") {
			t.Errorf("%q: %d %s", header, w.Code, w.Body)
		}
	}
	var many []string
	for i := range maxTenants + 1 {
		many = append(many, "t"+strings.Repeat("x", i))
	}
	wantBody(t, ask(strings.Join(many, "|"), "/api/v1/query", "query", "1"), 400, failure("bad_data", "X-Scope-OrgID: 101 tenants, at most 100"))

	// Remote reads, in both forms, have the same series.
	for _, types := range [][]prompb.ReadRequest_ResponseType{nil, {prompb.ReadRequest_STREAMED_XOR_CHUNKS}} {
		o.DefaultBucket, o.TenancyHeader = "a|b", ""
		w := readRequest(t, NewAPI(c, o), &prompb.ReadRequest{AcceptedResponseTypes: types, Queries: []*prompb.Query{{StartTimestampMs: t0, EndTimestampMs: t0 + 600_000,
			Matchers: []*prompb.LabelMatcher{{Name: "__name__", Value: "m_total"}}}}})
		if w.Code != 200 {
			t.Fatalf("remote read: %d %s", w.Code, w.Body)
		}
		if types != nil {
			if got := w.Body.String(); strings.Count(got, tenantLabel) != 2 {
				t.Errorf("chunks: %q", got)
			}
			continue
		}
		message, err := snappy.Decode(nil, w.Body.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		var response prompb.ReadResponse
		if err := response.Unmarshal(message); err != nil {
			t.Fatal(err)
		}
		for i, tenant := range []string{"a", "b"} {
			s := response.Results[0].Timeseries[i]
			if len(s.Samples) != 41 || s.Samples[0].Value != float64(tenant[0]) || s.Labels[1].Name != tenantLabel || s.Labels[1].Value != tenant {
				t.Errorf("samples of %s: %v", tenant, s)
			}
		}
	}
}
