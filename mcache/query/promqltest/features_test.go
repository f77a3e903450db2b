package promqltest

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"

	"mcached/mcache/query"
)

// rangeParams are those of a range query over all of the data.
func rangeParams(expr string) url.Values {
	return url.Values{"query": {expr}, "start": {fmt.Sprint(dataStart / 1000)}, "end": {fmt.Sprint(dataEnd / 1000)}, "step": {"60"}}
}

// TestFeaturesArePrometheus asks for what is only there with --enable-feature,
// with all of them, with each, and with none.
func TestFeaturesArePrometheus(t *testing.T) {
	list := []string{
		`mad_over_time(temperature_celsius[5m])`, `double_exponential_smoothing(temperature_celsius[10m], 0.5, 0.5)`, `sort_by_label(up, "instance")`, `sort_by_label_desc(up, "job", "instance")`,
		`ts_of_max_over_time(load_ratio[5m])`, `ts_of_last_over_time(load_ratio[5m])`, `info(up)`, `limitk(2, up)`, `limit_ratio(0.5, temperature_celsius)`, `sum(limitk(3, http_requests_total))`,
		`histogram_quantiles(request_seconds, "q", 0.5, 0.9)`, `start_timestamp(up)`, `sum(rate(http_requests_total[5m])) + sum(mad_over_time(load_ratio[5m]))`,
		`rate(http_requests_total[5m] anchored)`, `increase(http_requests_total[5m] smoothed)`, `load_ratio smoothed`, `sum by (job) (increase(http_requests_total[3m] anchored))`,
		`up + fill(0) on(job, instance, code) http_requests_total`, `up{job="api"} + fill_left(1) up`, `sum by (job) (up{job="api"}) + fill_right(23) sum by (job) (up)`,
		`rate(http_requests_total[2m + 3m])`, `sum(up offset (1m * 2))`, `sum_over_time(up[step() * 5])`, `sum_over_time(up[max_of(step(), 2m)])`, `sum(rate(http_requests_total[1m ^ 1]))`, `avg_over_time(up[10m:step()])`, `up offset -(2m)`,
		`sum by (__name__) (rate(http_requests_total[5m]))`, `label_replace(rate(http_requests_total[5m]), "n", "$1", "__name__", "(.*)")`, `count by (__name__) (rate({__name__=~"http.*|up"}[5m]))`, `rate({__name__=~"http.*|up"}[5m])`, `sum by (__name__) (up)`, `sum without (job) (http_requests_total)`,
		`-http_requests_total`, `http_requests_total * 2`, `abs(up)`, `avg(rate(temperature_celsius[5m]))`, `rate(request_seconds[5m])`, `irate(http_requests_total[5m])`, `resets(http_requests_total[10m])`, `topk(2, rate(http_requests_total[5m]))`, `increase(up[5m])`,
	}
	s := newStores(t)
	all := query.Features{}
	choices := []query.Features{{}}
	for _, name := range query.FeatureNames() {
		var one query.Features
		if !one.Enable(name) || !all.Enable(name) {
			t.Fatalf("%s is not known", name)
		}
		choices = append(choices, one)
	}
	ok, refused := 0, 0
	for _, f := range append(choices, all) {
		p := s.pair(settings{features: f})
		for _, e := range list {
			for _, status := range []int{
				p.compare(t, "query", url.Values{"query": {e}, "time": {fmt.Sprint(dataEnd / 1000)}}),
				p.compare(t, "query_range", rangeParams(e)),
				p.compare(t, "parse_query", url.Values{"query": {e}}),
				p.compare(t, "format_query", url.Values{"query": {e}}),
			} {
				if status == http.StatusOK {
					ok++
				} else {
					refused++
				}
			}
		}
	}
	if ok < 500 || refused < 500 {
		t.Errorf("%d answers and %d errors: the features do not show", ok, refused)
	}
}
