package promqltest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
)

// TestAbsentIsPrometheus: the labels that absent() makes depend on the order of
// the matchers, which Prometheus' storage changes.
func TestAbsentIsPrometheus(t *testing.T) {
	p := newPair(t)
	for _, selector := range []string{
		`nothing{a!="b"}`, `nothing{a="b",a!="c"}`, `nothing{a!="c",a="b"}`, `nothing{a!="c",b="d",a="b"}`, `nothing{a!~"c.*",a="b"}`, `nothing{a!="",a="b"}`,
		`nothing{a=~"b"}`, `nothing{a=~"b|",a="b"}`, `nothing{a="",a="b"}`, `nothing{a="b",a=""}`, `nothing{a!="c",a="b",a="d"}`, `{a!="c",a="b",__name__="nothing"}`,
		`up{job!="api",job="x"}`, `nothing{a!="1",b!="1",c!="1",d!="1",e!="1",f!="1",g!="1",h!="1",i!="1",i="2",a="2"}`,
	} {
		for _, expr := range []string{
			"absent(%s)", "absent((%s))", "absent(sum(%s))", "absent_over_time(%s[5m])", "absent(rate(%s[5m]))", "absent(%s > 1)", "absent(-%s)",
			"absent(%s offset 5m)", "absent(%s @ end())", "sum(absent(%s))", "absent_over_time((%s)[5m:1m])", "absent(%s) or sum(up)",
		} {
			q := fmt.Sprintf(expr, selector)
			p.compare(t, "query", url.Values{"query": {q}, "time": {fmt.Sprint(dataEnd / 1000)}})
			p.compare(t, "query_range", rangeParams(q))
		}
	}
}

// TestMaxSamplesIsPrometheus: a query is refused for the samples it holds by
// the same bound, plans or not.
func TestMaxSamplesIsPrometheus(t *testing.T) {
	s := newStores(t)
	all, none := s.pair(settings{}).theirs, s.pair(settings{maxSamples: 1}).theirs // what they answer within and beyond their bound
	for _, e := range []string{
		`http_requests_total`, `sum(http_requests_total)`, `sum by (job) (http_requests_total)`, `rate(http_requests_total[5m])`, `rate(http_requests_total[40m])`, `sum(rate(http_requests_total[40m]))`,
		`max by (code) (increase(http_requests_total[20m] offset 5m))`, `sum(up) + sum(temperature_celsius)`, `temperature_celsius + on(job, instance) group_left sum by (job, instance) (rate(http_requests_total[30m]))`,
		`sum(rate(http_requests_total[30m])) / sum(rate(http_requests_total[20m]))`, `topk(2, rate(http_requests_total[30m]))`, `sum(sum by (job) (rate(http_requests_total[30m])) + sum by (job) (up))`,
		`comes_and_goes + count(comes_and_goes)`, `avg(load_ratio) > 0.5`, `-sum(rate(http_requests_total[1m]))`, `sum(rate(request_seconds[5m]))`, `count(mixed)`, `sum(rate(http_requests_total{code="500"}[1h])) or vector(0)`,
	} {
		peak := peakSamples(t, all, e)
		for _, most := range []int{3 * peak / 4, peak - 1, peak, peak + 1} {
			p := pair{theirs: none, ours: s.api(settings{maxSamples: max(1, most)})}
			if most >= peak {
				p.theirs = all
			}
			p.compare(t, "query_range", rangeParams(e))
			if t.Failed() {
				t.Fatalf("%s, when %d samples may be held, of %d", e, most, peak)
			}
		}
	}
}

// peakSamples is how many samples Prometheus says that it held at once.
func peakSamples(t *testing.T, h http.Handler, expr string) int {
	t.Helper()
	params := rangeParams(expr)
	params.Set("stats", "all")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/v1/query_range?"+params.Encode(), nil))
	var answer struct {
		Data struct {
			Stats struct {
				Samples struct {
					PeakSamples int `json:"peakSamples"`
				} `json:"samples"`
			} `json:"stats"`
		} `json:"data"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != 200 {
		t.Fatalf("%s: %v, %d %s", expr, err, w.Code, w.Body)
	}
	return answer.Data.Stats.Samples.PeakSamples
}
