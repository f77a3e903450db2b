package query

import (
	"math"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/value"
)

// smallAPI reads three series in the default bucket and one in another.
func smallAPI(t testing.TB, o Options) *API {
	c := newCache(t)
	fill(t, c, "default", 15_000, ramp(41, 0, 1.5), "__name__", "requests_total", "job", "a", "path", `/<x>"\`)
	fill(t, c, "default", 15_000, ramp(41, 100, -1), "__name__", "requests_total", "job", "b", "path", "/")
	fill(t, c, "default", 15_000, []float64{1, 2, math.Float64frombits(value.StaleNaN)}, "__name__", "gone", "job", "a")
	fill(t, c, "team", 15_000, ramp(41, 7, 0), "__name__", "requests_total", "job", "t")
	return NewAPI(c, o)
}

func TestInstantQuery(t *testing.T) {
	a := smallAPI(t, testOptions())
	for _, c := range []struct {
		name   string
		params []string
		status int
		body   string
	}{
		{"scalar", []string{"query", "1+1"}, 200, success(`{"resultType":"scalar","result":[1795209300,"2"]}`)},
		{"scalar at a fraction", []string{"query", "0.5", "time", "1795208747.864"}, 200, success(`{"resultType":"scalar","result":[1795208747.864,"0.5"]}`)},
		{"string", []string{"query", `"a<b"`, "time", "0"}, 200, success(`{"resultType":"string","result":[0,"a\u003cb"]}`)},
		{"vector", []string{"query", `requests_total{job="a"}`}, 200,
			success(`{"resultType":"vector","result":[{"metric":{"__name__":"requests_total","job":"a","path":"/<x>\"\\"},"value":[1795209300,"60"]}]}`)},
		{"time as RFC 3339", []string{"query", `requests_total{job="b"}`, "time", "2026-11-20T19:45:16.5Z"}, 200,
			success(`{"resultType":"vector","result":[]}`)},
		{"between samples", []string{"query", `requests_total{job="b"}`, "time", seconds(t0 + 20_001)}, 200,
			success(`{"resultType":"vector","result":[{"metric":{"__name__":"requests_total","job":"b","path":"/"},"value":[1795208720.001,"99"]}]}`)},
		{"empty vector", []string{"query", "nothing"}, 200, success(`{"resultType":"vector","result":[]}`)},
		{"stale", []string{"query", "gone", "time", seconds(t0 + 30_000)}, 200, success(`{"resultType":"vector","result":[]}`)},
		{"before it went stale", []string{"query", "gone", "time", seconds(t0 + 29_999)}, 200,
			success(`{"resultType":"vector","result":[{"metric":{"__name__":"gone","job":"a"},"value":[1795208729.999,"2"]}]}`)},
		{"matrix", []string{"query", `gone[1m]`, "time", seconds(t0 + 60_000)}, 200,
			success(`{"resultType":"matrix","result":[{"metric":{"__name__":"gone","job":"a"},"values":[[1795208715,"2"]]}]}`)},
		{"aggregate", []string{"query", `sum(requests_total)`}, 200, success(`{"resultType":"vector","result":[{"metric":{},"value":[1795209300,"120"]}]}`)},
		{"lookback", []string{"query", `requests_total{job="b"}`, "time", seconds(t0 + 614_000), "lookback_delta", "14s"}, 200,
			success(`{"resultType":"vector","result":[]}`)},
		{"lookback in seconds", []string{"query", `count(requests_total)`, "time", seconds(t0 + 614_000), "lookback_delta", "14.1"}, 200,
			success(`{"resultType":"vector","result":[{"metric":{},"value":[1795209314,"2"]}]}`)},
		{"limit", []string{"query", `sort(requests_total)`, "limit", "1", "time", seconds(t0)}, 200,
			`{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"requests_total","job":"a","path":"/<x>\"\\"},"value":[1795208700,"0"]}]},"warnings":["results truncated due to limit"]}`},
		{"info", []string{"query", `rate(gone{job="a"}[1m])`, "time", seconds(t0 + 60_000)}, 200, success(`{"resultType":"vector","result":[]}`)},
		{"not a counter", []string{"query", `count(increase(gone[2m]))`, "time", seconds(t0 + 60_000)}, 200,
			`{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1795208760,"1"]}]},"infos":["PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"gone\" (1:16)"]}`},

		{"no query", nil, 400, failure("bad_data", `invalid parameter \"query\": unknown position: parse error: no expression found in input`)},
		{"broken", []string{"query", "a <"}, 400, failure("bad_data", `invalid parameter \"query\": 1:4: parse error: unexpected end of input`)},
		{"unknown function", []string{"query", "f(x)"}, 400, failure("bad_data", `invalid parameter \"query\": 1:1: parse error: unknown function with name \"f\"`)},
		{"bad time", []string{"query", "1", "time", "yesterday"}, 400, failure("bad_data", `invalid parameter \"time\": invalid time value for 'time': cannot parse \"yesterday\" to a valid timestamp`)},
		{"no number", []string{"query", "1", "time", "NaN"}, 400, failure("bad_data", `invalid parameter \"time\": invalid time value for 'time': cannot parse \"NaN\" to a valid timestamp`)},
		{"bad limit", []string{"query", "1", "limit", "-1"}, 400, failure("bad_data", `invalid parameter \"limit\": limit must be non-negative`)},
		{"bad timeout", []string{"query", "1", "timeout", "soon"}, 400, failure("bad_data", `invalid parameter \"timeout\": cannot parse \"soon\" to a valid duration`)},
		{"bad lookback", []string{"query", "1", "lookback_delta", "x"}, 400, failure("bad_data", `error parsing lookback delta duration: cannot parse \"x\" to a valid duration`)},
		{"execution", []string{"query", `label_replace(requests_total, "a", "$1", "job", "(")`}, 422,
			failure("execution", `invalid regular expression in label_replace(): (`)},
		{"timed out", []string{"query", "sum(requests_total)", "timeout", "0"}, 503, failure("timeout", `query timed out in query execution`)},
		{"timed out before", []string{"query", "sum(requests_total)", "timeout", "-1"}, 503, failure("timeout", `query timed out in query execution`)},
	} {
		t.Run(c.name, func(t *testing.T) {
			wantBody(t, get(t, a, "query", c.params...), c.status, c.body)
			wantBody(t, post(t, a, "query", c.params...), c.status, c.body)
		})
	}
}

func TestRangeQuery(t *testing.T) {
	a := smallAPI(t, testOptions())
	from := seconds(t0)
	for _, c := range []struct {
		name   string
		params []string
		status int
		body   string
	}{
		{"series", []string{"query", `requests_total`, "start", from, "end", seconds(t0 + 30_000), "step", "15"}, 200,
			success(`{"resultType":"matrix","result":[` +
				`{"metric":{"__name__":"requests_total","job":"a","path":"/<x>\"\\"},"values":[[1795208700,"0"],[1795208715,"1.5"],[1795208730,"3"]]},` +
				`{"metric":{"__name__":"requests_total","job":"b","path":"/"},"values":[[1795208700,"100"],[1795208715,"99"],[1795208730,"98"]]}]}`)},
		{"one step", []string{"query", `vector(1)`, "start", from, "end", from, "step", "1h"}, 200,
			success(`{"resultType":"matrix","result":[{"metric":{},"values":[[1795208700,"1"]]}]}`)},
		{"gaps differ", []string{"query", `gone or requests_total{job="b"} > 97`, "start", from, "end", seconds(t0 + 45_000), "step", "7.5"}, 200,
			success(`{"resultType":"matrix","result":[` +
				`{"metric":{"__name__":"gone","job":"a"},"values":[[1795208700,"1"],[1795208707.5,"1"],[1795208715,"2"],[1795208722.5,"2"]]},` +
				`{"metric":{"__name__":"requests_total","job":"b","path":"/"},"values":[[1795208700,"100"],[1795208707.500,"100"],[1795208715,"99"],[1795208722.500,"99"],[1795208730,"98"],[1795208737.500,"98"]]}]}`)},
		{"empty", []string{"query", `nothing`, "start", from, "end", from, "step", "15s"}, 200, success(`{"resultType":"matrix","result":[]}`)},

		{"no start", []string{"query", "1"}, 400, failure("bad_data", `invalid parameter \"start\": cannot parse \"\" to a valid timestamp`)},
		{"no end", []string{"query", "1", "start", from}, 400, failure("bad_data", `invalid parameter \"end\": cannot parse \"\" to a valid timestamp`)},
		{"no step", []string{"query", "1", "start", from, "end", from}, 400, failure("bad_data", `invalid parameter \"step\": cannot parse \"\" to a valid duration`)},
		{"inverted", []string{"query", "1", "start", from, "end", seconds(t0 - 1), "step", "1"}, 400, failure("bad_data", `invalid parameter \"end\": end timestamp must not be before start time`)},
		{"step 0", []string{"query", "1", "start", from, "end", from, "step", "0"}, 400, failure("bad_data", `invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer`)},
		{"step too large", []string{"query", "1", "start", from, "end", from, "step", "1e19"}, 400, failure("bad_data", `invalid parameter \"step\": cannot parse \"1e19\" to a valid duration. It overflows int64`)},
		{"11,001 points", []string{"query", "vector(1)", "start", "0", "end", "11001", "step", "1"}, 400, failure("bad_data", `exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)`)},
		{"a string", []string{"query", `"x"`, "start", from, "end", from, "step", "1"}, 400, failure("bad_data", `invalid parameter \"query\": invalid expression type \"string\" for range query, must be Scalar or instant Vector`)},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := strings.ReplaceAll(c.body, ".5,", ".500,")
			wantBody(t, get(t, a, "query_range", c.params...), c.status, body)
			wantBody(t, post(t, a, "query_range", c.params...), c.status, body)
		})
	}
	w := get(t, a, "query_range", "query", "vector(1)", "start", "0", "end", "11000", "step", "1")
	if n := strings.Count(w.Body.String(), `,"1"]`); w.Code != 200 || n != 11001 {
		t.Errorf("11,000 steps: %d with %d points", w.Code, n)
	}
}

func TestStats(t *testing.T) {
	a := smallAPI(t, testOptions())
	for _, value := range []string{"true", "all"} {
		w := get(t, a, "query", "query", "sum(requests_total)", "stats", value)
		m := regexp.MustCompile(`^\{"status":"success","data":\{"resultType":"vector","result":\[.*\],"stats":\{"timings":\{"evalTotalTime":[0-9.e-]+,"resultSortTime":0,"queryPreparationTime":[0-9.e-]+,"innerEvalTime":[0-9.e-]+,"execQueueTime":0,"execTotalTime":[0-9.e-]+\},"samples":\{("totalQueryableSamplesPerStep":\[\[1795209300,2\]\],)?"totalQueryableSamples":2,("samplesReadPerStep":\[\[1795209300,2\]\],)?"samplesRead":2,"peakSamples":2\}\}\}\}$`).FindStringSubmatch(w.Body.String())
		if m == nil || (m[1] != "") != (value == "all") {
			t.Errorf("stats=%s: %s", value, w.Body)
		}
	}
	w := get(t, a, "query", "query", "1", "stats", "yes")
	if !strings.Contains(w.Body.String(), `"warnings":["value \"yes\" for parameter \"stats\" is deprecated`) {
		t.Error(w.Body)
	}
	if s := a.Stats(); s.InstantQueries != 3 || s.Samples != 4 || s.Series != 4 || s.Errors != 0 {
		t.Errorf("%+v", s)
	}
}

func TestLookups(t *testing.T) {
	a := smallAPI(t, testOptions())
	both := `[{"__name__":"requests_total","job":"a","path":"/<x>\"\\"},{"__name__":"requests_total","job":"b","path":"/"}]`
	for _, c := range []struct {
		name   string
		path   string
		params []string
		status int
		body   string
	}{
		{"series", "series", []string{"match[]", "requests_total"}, 200, success(both)},
		{"series of two selectors", "series", []string{"match[]", `{job="b"}`, "match[]", "requests_total"}, 200, success(both)},
		{"series in time", "series", []string{"match[]", `{job=~".+"}`, "start", seconds(t0 + 100_000), "end", seconds(t0 + 120_000)}, 200, success(both)},
		{"series out of time", "series", []string{"match[]", `{job=~".+"}`, "start", seconds(t0 - 2), "end", seconds(t0 - 1)}, 200, success(`[]`)},
		{"series, all times", "series", []string{"match[]", "gone", "start", "-9223309901257974", "end", "9223309901257974"}, 200, success(`[{"__name__":"gone","job":"a"}]`)},
		{"series, limit", "series", []string{"match[]", "requests_total", "limit", "1"}, 200,
			`{"status":"success","data":[{"__name__":"requests_total","job":"a","path":"/<x>\"\\"}],"warnings":["results truncated due to limit"]}`},
		{"series, exact limit", "series", []string{"match[]", "requests_total", "limit", "2"}, 200, success(both)},
		{"series without selector", "series", nil, 400, failure("bad_data", "no match[] parameter provided")},
		{"series of everything", "series", []string{"match[]", `{x=~".*"}`}, 400, failure("bad_data", `invalid parameter \"match[]\": match[] must contain at least one non-empty matcher`)},

		{"labels", "labels", nil, 200, success(`["__name__","job","path"]`)},
		{"labels, limit", "labels", []string{"limit", "2"}, 200, `{"status":"success","data":["__name__","job"],"warnings":["results truncated due to limit"]}`},
		{"labels of a selector", "labels", []string{"match[]", "gone"}, 200, success(`["__name__","job"]`)},
		{"labels of two", "labels", []string{"match[]", "gone", "match[]", "requests_total"}, 200, success(`["__name__","job","path"]`)},
		{"labels of none", "labels", []string{"match[]", "nothing"}, 200, success(`[]`)},
		{"labels, bad time", "labels", []string{"start", "x"}, 400, failure("bad_data", `invalid parameter \"start\": invalid time value for 'start': cannot parse \"x\" to a valid timestamp`)},

		{"values", "label/job/values", nil, 200, success(`["a","b"]`)},
		{"values, escaped", "label/path/values", nil, 200, success(`["/","/\u003cx\u003e\"\\"]`)},
		{"values of a selector", "label/job/values", []string{"match[]", "gone"}, 200, success(`["a"]`)},
		{"values of two", "label/__name__/values", []string{"match[]", "gone", "match[]", "requests_total"}, 200, success(`["gone","requests_total"]`)},
		{"values, limit", "label/job/values", []string{"limit", "1"}, 200, `{"status":"success","data":["a"],"warnings":["results truncated due to limit"]}`},
		{"values of nothing", "label/x.y/values", nil, 200, success(`[]`)},
		{"values of an escaped name", "label/U__job/values", nil, 200, success(`["a","b"]`)},
		{"values of a bad name", "label/%ff/values", nil, 400, failure("bad_data", `invalid label name: \"\\xff\"`)},
	} {
		t.Run(c.name, func(t *testing.T) {
			wantBody(t, get(t, a, c.path, c.params...), c.status, c.body)
			if !strings.HasPrefix(c.path, "label/") {
				wantBody(t, post(t, a, c.path, c.params...), c.status, c.body)
			}
		})
	}
}

func TestOtherEndpoints(t *testing.T) {
	o := testOptions()
	o.BuildInfo = BuildInfo{Version: "2.53.0", GoVersion: "go1.26"}
	o.Flags = func() map[string]string { return map[string]string{"web.listen-address": "127.0.0.1:9201"} }
	o.Metadata = func(bucket, metric string) map[string][]metadata.Metadata {
		all := map[string][]metadata.Metadata{"up": {{Type: "gauge", Help: "Whether."}, {Type: "counter"}}}
		if metric != "" && metric != "up" || bucket != "default" {
			return nil
		}
		return all
	}
	a := smallAPI(t, o)
	for _, c := range []struct {
		path   string
		params []string
		status int
		body   string
	}{
		{"status/buildinfo", nil, 200, success(`{"version":"2.53.0","revision":"","branch":"","buildUser":"","buildDate":"","goVersion":"go1.26"}`)},
		{"status/flags", nil, 200, success(`{"web.listen-address":"127.0.0.1:9201"}`)},
		{"status/config", nil, 200, success(`{"yaml":""}`)},
		{"rules", nil, 200, success(`{"groups":[]}`)},
		{"alerts", nil, 200, success(`{"alerts":[]}`)},
		{"targets", nil, 200, success(`{"activeTargets":[],"droppedTargets":[],"droppedTargetCounts":{}}`)},
		{"query_exemplars", []string{"query", "up"}, 200, success(`[]`)},
		{"query_exemplars", []string{"query", "1"}, 204, ""},
		{"query_exemplars", []string{"query", "up", "start", "2", "end", "1"}, 400, failure("bad_data", "end timestamp must not be before start timestamp")},
		{"metadata", nil, 200, success(`{"up":[{"type":"gauge","unit":"","help":"Whether."},{"type":"counter","unit":"","help":""}]}`)},
		{"metadata", []string{"limit_per_metric", "1"}, 200, success(`{"up":[{"type":"gauge","unit":"","help":"Whether."}]}`)},
		{"metadata", []string{"limit", "0"}, 200, success(`{}`)},
		{"metadata", []string{"metric", "down"}, 200, success(`{}`)},
		{"metadata", []string{"limit", "x"}, 400, failure("bad_data", "limit must be a number")},
		{"format_query", []string{"query", "sum(x)by(a)>0"}, 200, success(`"sum by (a) (x) \u003e 0"`)},
		{"format_query", []string{"query", "("}, 400, failure("bad_data", `invalid parameter \"query\": 1:2: parse error: unclosed left parenthesis`)},
		{"parse_query", []string{"query", `-up{a!="b"}[5m] offset 1m`}, 400, failure("bad_data", `invalid parameter \"query\": 1:1: parse error: unary expression only allowed on expressions of type scalar or instant vector, got \"range vector\"`)},
		{"parse_query", []string{"query", `rate(up{a!="b"}[5m] @ end())`}, 200, success(`{"args":[{"anchored":false,"matchers":[{"name":"a","type":"!=","value":"b"},{"name":"__name__","type":"=","value":"up"}],"name":"up","offset":0,"offsetExpr":null,"range":300000,"rangeExpr":null,"smoothed":false,"startOrEnd":"end","timestamp":null,"type":"matrixSelector"}],"func":{"argTypes":["matrix"],"name":"rate","returnType":"vector","variadic":0},"type":"call"}`)},
		{"status/tsdb", []string{"limit", "1"}, 200, success(`{"headStats":{"numSeries":3,"numLabelPairs":6,"chunkCount":5,"minTime":1795208700000,"maxTime":1795209300000},"seriesCountByMetricName":[{"name":"requests_total","value":2}],"labelValueCountByLabelName":[{"name":"__name__","value":2}],"memoryInBytesByLabelName":[{"name":"__name__","value":18}],"seriesCountByLabelValuePair":[{"name":"__name__=requests_total","value":2}]}`)},
		{"status/tsdb", []string{"limit", "0"}, 400, failure("bad_data", "limit must be a positive number")},
	} {
		t.Run(c.path, func(t *testing.T) { wantBody(t, get(t, a, c.path, c.params...), c.status, c.body) })
	}
	if w := get(t, a, "nothing/here"); w.Code != http.StatusNotFound {
		t.Errorf("unknown path: %d", w.Code)
	}
	if w := post(t, a, "rules"); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST for rules: %d", w.Code)
	}
	if w := get(t, a, "status/runtimeinfo"); !strings.Contains(w.Body.String(), `"serverTime":"2026-11-20T`) {
		t.Error(w.Body)
	}
}

func TestTenancy(t *testing.T) {
	ask := func(a *API, tenant string) string {
		r := httptest.NewRequest(http.MethodGet, "/api/v1/query?query=sum(requests_total)", nil)
		if tenant != "" {
			r.Header.Set("X-Scope-OrgID", tenant)
		}
		return send(t, a, r).Body.String()
	}
	vector := func(s string) string { return success(`{"resultType":"vector","result":[` + s + `]}`) }
	ours, team := vector(`{"metric":{},"value":[1795209300,"120"]}`), vector(`{"metric":{},"value":[1795209300,"7"]}`)
	o := testOptions()
	without := smallAPI(t, o)
	o.TenancyHeader = "X-Scope-OrgID"
	with := smallAPI(t, o)
	for _, c := range []struct {
		a            *API
		tenant, want string
	}{
		{without, "", ours},
		{without, "team", ours},
		{with, "", ours},
		{with, "team", team},
		{with, "unknown", vector("")},
	} {
		if got := ask(c.a, c.tenant); got != c.want {
			t.Errorf("tenant %q: %s, want %s", c.tenant, got, c.want)
		}
	}
}
