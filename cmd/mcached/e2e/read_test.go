package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
)

// readable is a daemon with two counters of 60 samples, a second apart, the
// last of them at the time returned.
func readable(t *testing.T) (s *server, last time.Time) {
	t.Helper()
	s = startServer(t, "--self-scrape.interval=0")
	last = time.Now().Truncate(time.Second)
	var series []prompb.TimeSeries
	for i, code := range []string{"200", "500"} {
		x := oneSeries(0, 0, "__name__", "requests_total", "code", code, "odd", "\"\\\n日本")
		x.Samples = nil
		for k := range 60 {
			x.Samples = append(x.Samples, prompb.Sample{Timestamp: last.UnixMilli() - int64(59-k)*1000, Value: float64(k * (i + 1) * 10)})
		}
		series = append(series, x)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if code, said, err := s.post(ctx, snappy.Encode(nil, body(t, series...))); err != nil || code != http.StatusNoContent {
		t.Fatalf("%d %q %v", code, said, err)
	}
	return s, last
}

// TestE2ERemoteRead: a real Prometheus that has nothing of its own but a
// remote_read at the daemon answers from there as the daemon itself does.
func TestE2ERemoteRead(t *testing.T) {
	path := realServer(t, "prometheus", "prometheus")
	t.Parallel()
	s, last := readable(t)
	prom := startPrometheus(t, path, fmt.Sprintf("remote_read: [{url: '%s/api/v1/read', read_recent: true}]\n", s.url))
	at := last.Add(-1500 * time.Millisecond) // away from the edges of windows, where versions differ
	compared := 0
	for _, expr := range []string{"requests_total", `requests_total{code=~"5.."}`, "requests_total[20s]", "sum(rate(requests_total[15s]))",
		"sum by (code) (increase(requests_total[30s]))", `requests_total{code!="200"} offset 10s`, `absent(requests_total{code="404"})`, "nothing"} {
		compared += compare(t, expr, s.url, prom, "/api/v1/query?"+url.Values{"query": {expr}, "time": {stamp(at)}}.Encode())
		if strings.HasSuffix(expr, "]") {
			continue // no range query has ranges for values
		}
		compared += compare(t, expr+" as a range", s.url, prom, "/api/v1/query_range?"+
			url.Values{"query": {expr}, "start": {stamp(at.Add(-40 * time.Second))}, "end": {stamp(at)}, "step": {"3"}}.Encode())
	}
	if compared < 12 {
		t.Errorf("only %d answers had something in them", compared)
	}
	if n := s.metric(`mcached_query_requests_total{kind="remote_read"}`); n < 12 {
		t.Errorf("%v remote reads were answered", n)
	}
	if n := s.metric("mcached_query_errors_total"); n != 0 {
		t.Errorf("%v were answered with an error", n)
	}
}

// TestE2EPromtool: Prometheus' own command line asks the daemon.
func TestE2EPromtool(t *testing.T) {
	promtool := realServer(t, "promtool", "prometheus")
	t.Parallel()
	s, last := readable(t)
	from, to := fmt.Sprint(last.Add(-30*time.Second).Unix()), fmt.Sprint(last.Unix())
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"instant", "--time=" + to, s.url, "requests_total"}, []string{`requests_total{code="200", odd="\"\\\n日本"} => 590 @[`, `code="500"`, "=> 1180 @["}},
		{[]string{"instant", "--time=" + to, s.url, "sum(rate(requests_total[20s]))"}, []string{"{} => 30 @["}},
		{[]string{"range", "--start=" + from, "--end=" + to, "--step=10s", s.url, `requests_total{code="200"}`}, []string{"290 @[", "390 @[", "490 @[", "590 @["}},
		{[]string{"series", "--match=requests_total", "--start=" + from, "--end=" + to, s.url}, []string{`__name__="requests_total", code="200"`, `code="500"`}},
		{[]string{"labels", s.url, "code"}, []string{"200\n", "500\n"}},
		{[]string{"labels", s.url, "__name__"}, []string{"requests_total\n"}},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		out, err := exec.CommandContext(ctx, promtool, append([]string{"query"}, c.args...)...).CombinedOutput()
		cancel()
		for _, want := range c.want {
			if err != nil || !strings.Contains(string(out), want) {
				t.Errorf("promtool query %v: %v\n%s\nwant %q", c.args, err, out, want)
			}
		}
	}
	out, err := exec.Command(promtool, "query", "instant", s.url, "sum((").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "unclosed left parenthesis") {
		t.Errorf("a broken expression: %v\n%s", err, out)
	}
}
