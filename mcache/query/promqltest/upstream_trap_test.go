package promqltest

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"mcached/mcache"
	"mcached/mcache/query"
)

// straddling are a range query's parameters, with steps on both sides of the boundaries.
func straddling(expr string) url.Values {
	return url.Values{"query": {expr}, "start": {ms(dataStart)}, "end": {ms(dataEnd)}, "step": {"30"}}
}

// TestSplitSeesOtherSeries: what the store has and memory was never sent shows
// at the seam. The answer is the store's, and the metric is not split again.
func TestSplitSeesOtherSeries(t *testing.T) {
	b := newBehind(t, 1, intervals, query.UpstreamOptions{}, func(w write) bool {
		return w.ls.Get("instance") != "host-1:9100" || w.ls.Get("__name__") != "up"
	})
	b.same(t, straddling("temperature_celsius"))
	b.same(t, straddling("sum(up)"))
	if b.sources["both"] != 1 || b.sources["upstream"] != 1 {
		t.Fatalf("answers by source: %v", b.sources)
	}
	before := b.asked.Load()
	b.same(t, straddling("up + 1"))
	if n := b.asked.Load() - before; n != 1 || b.sources["upstream"] != 2 {
		t.Errorf("the store was asked %d times for a metric that is not split: %v", n, b.sources)
	}
	b.same(t, straddling("load_ratio"))
	if b.sources["both"] != 2 {
		t.Errorf("another metric is not split either: %v", b.sources)
	}
}

// TestSplitSeesOtherLabels: a sender's external labels are in memory only.
func TestSplitSeesOtherLabels(t *testing.T) {
	list := []mcache.Interval{{From: dataStart + 1_234_567, To: mcache.MaxTime}}
	b := newBehind(t, 1, list, query.UpstreamOptions{}, func(write) bool { return false })
	for _, w := range allWrites(t) {
		if w.t >= list[0].From && w.ls.Get("__name__") == "up" {
			w.ls = labels.NewBuilder(w.ls).Set("cluster", "eu").Labels()
			appendAll(t, b.memory.AppenderV2(t.Context()), []write{w}, all)
		}
	}
	b.same(t, straddling("up"))
	if b.sources["upstream"] != 1 {
		t.Errorf("answers by source: %v", b.sources)
	}
}

// TestSplitAuthoritative: what the operator says that memory has is not looked
// for in the store, at seams or otherwise.
func TestSplitAuthoritative(t *testing.T) {
	authoritative, err := parser.NewParser(parser.Options{}).ParseMetricSelectors([]string{`{job=~"api|db"}`})
	if err != nil {
		t.Fatal(err)
	}
	b := newBehind(t, 1, intervals, query.UpstreamOptions{Authoritative: authoritative}, all)
	for _, x := range []struct {
		expr  string
		asked int64
	}{
		{`up{job="api"}`, 2},                       // the parts
		{`up`, 4},                                  // and two seams
		{`up{job="api"} + up{job="db"} * 0`, 2},    //
		{`up{job="api"} + on() up{x="none"}`, 4},   // nothing matches here, nor there
		{`up{job="api"} or never{job="api"}`, 2},   // nothing matches, and nothing does there
		{`up{job=~"a.*"}`, 4},                      // more than that may match
		{`sum(up{job=~"api|db",instance!=""})`, 2}, //
	} {
		before := b.asked.Load()
		b.same(t, straddling(x.expr))
		if n := b.asked.Load() - before; n != x.asked {
			t.Errorf("%s: the store was asked %d times, not %d", x.expr, n, x.asked)
		}
	}
}

// TestSplitSteps: steps are the same ones, however they are spelt.
func TestSplitSteps(t *testing.T) {
	b := newBehind(t, 1, intervals, query.UpstreamOptions{}, all)
	for _, step := range []string{"30", "30s", "30.001", "30001ms", "1m", "29.9999", "1e1", "0.9995e2"} {
		for _, start := range []string{ms(dataStart + 1), "1795208700.0015", "1795208700.9996", "2026-11-20T21:25:00.123456Z"} {
			p := straddling("temperature_celsius")
			p.Set("step", step)
			p.Set("start", start)
			b.same(t, p)
		}
	}
	if b.sources["both"] < 30 {
		t.Errorf("answers by source: %v", b.sources)
	}
	p := straddling("up")
	p.Set("step", "0.0001")
	p.Set("end", p.Get("start"))
	if w := send(b.ours, p); w.Code != http.StatusBadRequest {
		t.Errorf("a step of a tenth of a millisecond: %d %s", w.Code, w.Body)
	}
}

// TestSplitNotes: what both note is noted once, where the client wrote it.
func TestSplitNotes(t *testing.T) {
	b := newBehind(t, 1, intervals, query.UpstreamOptions{}, all)
	for _, e := range []string{
		`rate(temperature_celsius[5m])`, `rate(  temperature_celsius[5m] @ start()) + on(job, instance) group_right rate(load_ratio[range() / 9])`, `sum(rate(up[ step() * 4 ]) or rate(up[5m] @ end()))`,
		`quantile(2, load_ratio)`, `sort(up)`, `histogram_quantile(0.9, mixed)`, `rate(mixed[5m])`, `request_seconds + temperature_celsius`, `sum(mixed)`,
		`rate({__name__="up"}[1m]) + rate({__name__="temperature_celsius"}[1m]) + rate({__name__="load_ratio"}[2m])`,
	} {
		for range 2 {
			b.same(t, straddling(e))
		}
	}
	if b.sources["both"] < 14 {
		t.Errorf("answers by source: %v", b.sources)
	}
	// What is aggregated over steps cannot be put together again: it is said once.
	w := send(b.ours, straddling(`histogram_quantile(0.9, latency_seconds_bucket - on(job, instance, le) latency_seconds_bucket{le!="0.1"} offset 1m)`))
	if n := strings.Count(w.Body.String(), "needed to be fixed for monotonicity"); n > 1 || w.Code != 200 {
		t.Errorf("noted %d times: %s", n, w.Body)
	}
}

// TestSplitLimit: a limit is one of the whole answer.
func TestSplitLimit(t *testing.T) {
	b := newBehind(t, 1, intervals, query.UpstreamOptions{}, all)
	for _, limit := range []string{"1", "3", "5", "6", "7", "100"} {
		for _, e := range []string{"up", "load_ratio", "comes_and_goes or up", `sum by (code) (http_requests_total)`} {
			p := straddling(e)
			p.Set("limit", limit)
			b.same(t, p)
		}
	}
	if b.sources["both"] < 20 {
		t.Errorf("answers by source: %v", b.sources)
	}
}

// TestSplitWhole: what is more than its steps is asked as a whole.
func TestSplitWhole(t *testing.T) {
	b := newBehind(t, 1, intervals, query.UpstreamOptions{}, func(w write) bool { return w.ls.Get("__name__") != "version_info" })
	for i, e := range []string{
		`rate({__name__=~"http.*|up"}[5m])`, `sum(rate({__name__=~"http.*|up"}[5m]))`, `max_over_time(up[5m]) * on(job) group_left version_info{job="api"}`, `mad_over_time(up[5m])`, `up @ 1795208700`, `up{`, `sum_over_time(up[80m])`,
	} {
		before := b.asked.Load()
		b.same(t, straddling(e))
		if n := b.asked.Load() - before; n != 1 || b.sources["upstream"] != i+1 {
			t.Errorf("%s: the store was asked %d times: %v", e, n, b.sources)
		}
	}
	p := straddling("up")
	p.Set("step", "0.01")
	before := b.asked.Load()
	b.same(t, p)
	if b.asked.Load() != before {
		t.Error("the store was asked for more points than there may be")
	}
}

// TestSplitParameters are handed on, and heeded here.
func TestSplitParameters(t *testing.T) {
	b := newBehind(t, 1, intervals, query.UpstreamOptions{}, all)
	for _, set := range []url.Values{{"lookback_delta": {"20s"}}, {"lookback_delta": {"11m"}}, {"timeout": {"30s"}}} {
		for _, e := range []string{"comes_and_goes", "sum(load_ratio)", "avg_over_time(load_ratio[10m:20s])"} {
			p := straddling(e)
			for k, v := range set {
				p[k] = v
			}
			b.same(t, p)
		}
	}
	if b.sources["both"] != 9 {
		t.Errorf("answers by source: %v", b.sources)
	}
	p := straddling("up")
	p.Set("stats", "all")
	w := send(b.ours, p)
	if body := w.Body.String(); !strings.Contains(body, `"parts":{"memory":{"steps":`) || !strings.Contains(body, `"totalQueryableSamplesPerStep":[[`) {
		t.Errorf("stats=all: %d %.300s", w.Code, body[max(0, len(body)-300):])
	}
	for when, source := range map[string]string{"never": "memory", "always": "upstream", "missing": "both"} {
		p := straddling("up")
		p.Set("upstream", when)
		if w := send(b.ours, p); w.Header().Get("X-Mcached-Source") != source {
			t.Errorf("%s: %d from %s", when, w.Code, w.Header().Get("X-Mcached-Source"))
		}
	}
	p.Set("upstream", "sometimes")
	if w := send(b.ours, p); w.Code != http.StatusBadRequest {
		t.Errorf("sometimes: %d %s", w.Code, w.Body)
	}
}

// TestSplitLong has answers that are longer than what is read ahead.
func TestSplitLong(t *testing.T) {
	b := newBehind(t, 1, intervals, query.UpstreamOptions{}, all)
	for _, e := range []string{`{job=~"api|db"}`, `request_seconds`} {
		p := straddling(e)
		p.Set("step", "1")
		b.same(t, p)
	}
	if b.sources["both"] != 2 || b.bytes() < 4<<20 {
		t.Errorf("answers by source: %v, %d bytes", b.sources, b.bytes())
	}
}

// TestUnitedLookupsArePrometheus: of a time that is not covered both are asked.
func TestUnitedLookupsArePrometheus(t *testing.T) {
	b := newBehind(t, 1, intervals, query.UpstreamOptions{}, all)
	for path, sets := range map[string][]url.Values{
		"labels":                {{}, {"match[]": {"up"}}, {"limit": {"3"}}},
		"label/instance/values": {{}, {"match[]": {`{kind="1"}`}}},
		"label/__name__/values": {{}, {"limit": {"4"}}},
		"series":                {{"match[]": {`{job="api"}`}}, {"match[]": {"up", "version_info"}}, {"match[]": {"up"}, "limit": {"2"}}, {"match[]": {"nothing"}}},
	} {
		for _, p := range sets {
			p.Set("start", ms(dataStart+60_000))
			p.Set("end", ms(dataEnd))
			b.compare(t, path, p)
		}
	}
	if b.sources["both"] != 11 {
		t.Errorf("answers by source: %v", b.sources)
	}
}
