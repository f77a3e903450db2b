package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/redis/go-redis/v9"
)

// instanceOf is the label that a daemon's own series should have by default.
func instanceOf(t testing.TB, s *server) string {
	t.Helper()
	u, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort(host, u.Port())
}

// send writes one sample of now.
func (s *server) send(v float64, labels ...string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b := snappy.Encode(nil, body(s.t, oneSeries(time.Now().UnixMilli(), v, labels...)))
	if code, said, err := s.post(ctx, b); err != nil || code != http.StatusNoContent {
		s.t.Fatalf("%d %s %v", code, said, err)
	}
}

// has fails until a query has an answer.
func (s *server) has(expr string) error {
	v, err := s.instant(expr)
	if err == nil && len(v) == 0 {
		err = fmt.Errorf("there is no %s yet", expr)
	}
	return err
}

// TestE2EInstance: the daemon's own series say which daemon they are of.
func TestE2EInstance(t *testing.T) {
	t.Parallel()
	byDefault := startServer(t, "--self-scrape.interval=1s", "--web.listen-address=[::]:0")
	named := startServer(t, "--self-scrape.interval=1s", "--self-scrape.instance=cache-1")
	for s, want := range map[*server]string{byDefault: instanceOf(t, byDefault), named: "cache-1"} {
		eventually(t, "its own series are of "+want, func() error {
			return s.has(fmt.Sprintf(`scrape_series_added{job="mcached",instance=%q}`, want))
		})
		if v, err := s.instant(fmt.Sprintf(`{job="mcached",instance!=%q}`, want)); err != nil || len(v) > 0 {
			t.Errorf("others are there, too: %v, %v", v, err)
		}
	}
}

// TestE2EOwnMetricsStay: a daemon that forwards keeps its own metrics to itself, unless it is told otherwise.
func TestE2EOwnMetricsStay(t *testing.T) {
	t.Parallel()
	for _, forward := range []bool{false, true} {
		store := startServer(t, "--self-scrape.interval=0")
		s := startServer(t, "--self-scrape.interval=1s", "--forward.url="+store.url+"/api/v1/write", "--forward.max-dirty-age=1s", fmt.Sprintf("--self-scrape.forward=%v", forward))
		eventually(t, "its own metrics are stored", func() error { return s.has(`scrape_series_added`) })
		s.send(1, "__name__", "of_others")
		eventually(t, "what others wrote arrives", func() error { return store.has("of_others") })
		if forward {
			eventually(t, "its own metrics arrive", func() error { return store.has(`mcached_memory_budget_bytes`) })
			continue
		}
		s.stop() // what waits is sent now
		if v, err := store.instant(`count by (__name__) ({__name__=~".+",__name__!="of_others"})`); err != nil || len(v) > 0 {
			t.Errorf("beside what others wrote arrived %v, %v", v, err)
		}
	}
}

// TestE2EStatsAreOwn: `mcached stats` and the page show the daemon's own
// numbers whatever is stored under the names of its metrics: what a Prometheus
// scraped of it and wrote back, another daemon's, and somebody's lies.
func TestE2EStatsAreOwn(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--self-scrape.interval=1s", "--tenancy.header=X-Scope-OrgID")
	code, out, errs := invoke(t, "stats", "--url="+s.url) // at once: no history yet
	for _, row := range []string{"memory budget", "series", "samples in, per second", "commands, per second", "up for"} {
		if code != exitOK || strings.Count(out, row+" ") != 1 {
			t.Errorf("in the first second: code %d, %s, no %q in\n%s", code, errs, row, out)
		}
	}
	own := instanceOf(t, s)
	eventually(t, "a history", func() error { return s.has(`rate(mcached_bucket_samples_total[1m])`) })
	for _, instance := range []string{own, "other:9201"} {
		for _, name := range []string{"mcached_memory_budget_bytes", "mcached_memory_used_bytes", "mcached_resp_connections", "process_resident_memory_bytes", "mcached_series"} {
			s.send(123e15, "__name__", name, "job", "mcached", "instance", instance)
		}
		s.send(123e15, "__name__", "mcached_series", "job", "mcached", "instance", instance, "bucket", "default")
		for _, v := range []float64{0, 123e15} { // a rate
			s.send(v, "__name__", "mcached_bucket_samples_total", "job", "mcached", "instance", instance, "bucket", "default")
			time.Sleep(2 * time.Millisecond) // another time
		}
	}
	code, out, errs = invoke(t, "stats", "--url="+s.url)
	for _, want := range []string{`(?m)^ *memory budget +64 MiB$`, `samples in, per second `} {
		if code != exitOK || len(regexp.MustCompile(want).FindAllString(out, -1)) != 1 {
			t.Errorf("code %d, %s, want one %q in\n%s", code, errs, want, out)
		}
	}
	// As numbers are written short, whole, or as bytes; 123 alone is what any of its own may begin with.
	if regexp.MustCompile(`(?m)123(,000|000000)|P$|[TP]iB`).MatchString(out) {
		t.Errorf("lies are shown:\n%s", out)
	}
	var answer struct {
		Data struct {
			Instance string
			Result   []struct{ Metric map[string]string }
		}
	}
	if err := s.get("/api/v1/status/self", &answer); err != nil || answer.Data.Instance != own || len(answer.Data.Result) < 100 {
		t.Errorf("%v, of %q, %d series", err, answer.Data.Instance, len(answer.Data.Result))
	}
	// Its history has its own points alone, and nobody else can write there.
	history := *s
	history.url += "/-/self"
	if v, err := history.instant(`mcached_memory_budget_bytes`); err != nil || len(v) != 1 || !strings.Contains(fmt.Sprint(v), ":67108864") {
		t.Errorf("the history has %v, %v", v, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	lie := snappy.Encode(nil, body(t, oneSeries(time.Now().UnixMilli(), 1, "__name__", "lie")))
	if code, said, err := s.post(ctx, lie, "X-Scope-OrgID", "mcached-self"); err != nil || code != http.StatusBadRequest || !strings.Contains(said, "own metrics") {
		t.Errorf("writing there by remote write: %d %s %v", code, said, err)
	}
	c := redis.NewClient(&redis.Options{Addr: s.resp})
	defer c.Close()
	if err := c.Do(ctx, "MC.INSERT", "mcached-self", "k", 0, "12345678").Err(); err == nil || !strings.Contains(err.Error(), "own series") {
		t.Errorf("writing there by RESP: %v", err)
	}
	if err := history.has(`lie`); err == nil {
		t.Error("a lie is in the history")
	}
}

// TestE2EPageIsOwn is the same of the page, as a browser shows it.
func TestE2EPageIsOwn(t *testing.T) {
	browser := realServer(t, "chromium", "chromium")
	t.Parallel()
	s := startServer(t, "--self-scrape.interval=1s")
	eventually(t, "there are rates to draw", func() error { return s.has(`rate(mcached_bucket_samples_total[1m])`) })
	for _, instance := range []string{instanceOf(t, s), "other:9201"} {
		for _, name := range []string{"mcached_memory_budget_bytes", "mcached_memory_used_bytes", "process_resident_memory_bytes", "mcached_forward_runs_total"} {
			s.send(123e15, "__name__", name, "job", "mcached", "instance", instance)
		}
		s.send(123e15, "__name__", "mcached_series", "job", "mcached", "instance", instance, "bucket", "lie")
	}
	w := openWindow(t, browser)
	page := w.shows(s.url+"/status", "used of a budget of 64 MiB", "<td>default</td>", "<canvas")
	for _, lie := range []string{"123,000,000", "123P", "<td>lie</td>", "PiB"} {
		if strings.Contains(page, lie) {
			t.Errorf("the page shows %q", lie)
		}
	}
	if !strings.Contains(page, `id="forward" aria-labelledby="forward-h" hidden`) {
		t.Error("the page shows that it forwards, which it does not")
	}

	silent := startServer(t, "--self-scrape.interval=0")
	page = w.shows(silent.url+"/status", "used of a budget of 64 MiB", "keeps no history") // what there is now
	if !strings.Contains(page, `id="notice" role="status" hidden`) {
		t.Error("without a history, the page shows an error")
	}
}
