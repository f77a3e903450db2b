package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/model"
)

// target is something to scrape, with series whose values are known from the
// number of the scrape.
type target struct {
	*httptest.Server
	scrapes atomic.Int64
}

// vanishes is the scrape from which on one of the target's series is gone.
const vanishes = 6

func newTarget(t testing.TB) *target {
	tg := &target{}
	tg.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := tg.scrapes.Add(1)
		var b bytes.Buffer
		fmt.Fprintf(&b, "# TYPE requests_total counter\n")
		for i, method := range []string{"get", "post", "put"} {
			for _, code := range []string{"200", "404", "500"} {
				fmt.Fprintf(&b, "requests_total{method=%q,code=%q} %d\n", method, code, n*int64(10*i+1)+int64(len(method)))
			}
		}
		fmt.Fprintf(&b, "# TYPE resets_total counter\nresets_total %d\n", n%4*100)
		fmt.Fprintf(&b, "# TYPE temperature gauge\n")
		for i := range 5 {
			fmt.Fprintf(&b, "temperature{room=\"r%d\",floor=\"%d\"} %g\n", i, i/2, 20+float64(i)+math.Sin(float64(n+int64(i))))
		}
		fmt.Fprintf(&b, "# TYPE odd gauge\nodd{v=\"nan\"} NaN\nodd{v=\"inf\"} +Inf\nodd{v=\"neg\"} -Inf\nodd{v=\"tiny\"} 5e-324\nodd{v=\"big\"} 1.7976931348623157e308\n")
		fmt.Fprintf(&b, "# TYPE text gauge\ntext{s=\"a\\\"b\\\\c\\nd é 日本\"} 1\n")
		fmt.Fprintf(&b, "# TYPE latency_seconds histogram\n")
		for i, le := range []string{"0.1", "0.5", "1", "+Inf"} {
			fmt.Fprintf(&b, "latency_seconds_bucket{le=%q} %d\n", le, n*int64(i+1)*3)
		}
		fmt.Fprintf(&b, "latency_seconds_sum %g\nlatency_seconds_count %d\n", float64(n)*3.7, n*12)
		if n < vanishes {
			fmt.Fprintf(&b, "# TYPE short_lived gauge\nshort_lived %d\n", n)
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = w.Write(b.Bytes())
	}))
	t.Cleanup(tg.Close)
	return tg
}

// startPrometheus runs a real Prometheus with a configuration in which ADDRESS
// stands for its own address, and returns its URL.
func startPrometheus(t testing.TB, path, config string) string {
	t.Helper()
	dir := t.TempDir()
	address := freeAddress(t)
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(strings.ReplaceAll(config, "ADDRESS", address)), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, path, "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address, "--log.level=warn",
		"--storage.remote.flush-deadline=1s") // a test stops receivers before it stops their sender
	u := "http://" + address
	eventually(t, "Prometheus is ready", func() error {
		p.alive()
		return getJSON(u+"/-/ready", nil)
	})
	return u
}

// host is the host and port of a URL.
func host(u string) string { return strings.TrimPrefix(u, "http://") }

// given are the ports that freeAddress has given away.
var given struct {
	sync.Mutex
	ports map[int]bool
}

// freeAddress is one that nobody listened on a moment ago, for programs that
// cannot say which port the kernel chose for them, and for those that come back
// to theirs. The kernel gives ports of this range to nobody who does not ask for
// one, so that it stays free meanwhile.
func freeAddress(t testing.TB) string {
	t.Helper()
	given.Lock()
	defer given.Unlock()
	if given.ports == nil {
		given.ports = map[int]bool{}
	}
	for range 1000 {
		port := 10_000 + rand.IntN(20_000)
		if given.ports[port] {
			continue
		}
		given.ports[port] = true
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

// expressions are evaluated by both, as instant and as range queries. Those
// beginning with an order-making function are compared in order.
var expressions = []string{
	`up`,
	`requests_total`,
	`requests_total{method="get",code!="200"}`,
	`requests_total{code=~"4..|5..",method!~"p.*"}`,
	`{__name__=~"requests_.+",code="404"}`,
	`text`,
	`odd`,
	`odd > 0`,
	`short_lived`,
	`absent(short_lived)`,
	`absent(nonesuch{a="b"})`,
	`count({job="target"})`,
	`count by (__name__) ({job="target"})`,
	`rate(requests_total[5s])`,
	`irate(requests_total[5s])`,
	`increase(requests_total{method="put"}[4s])`,
	`rate(resets_total[8s])`,
	`resets(resets_total[8s])`,
	`changes(temperature[5s])`,
	`delta(temperature[4s])`,
	`idelta(temperature[4s])`,
	`deriv(temperature[5s])`,
	`predict_linear(temperature[5s], 60)`,
	`sum(rate(requests_total[5s]))`,
	`sum by (method) (rate(requests_total[5s]))`,
	`avg without (room, floor) (temperature)`,
	`max by (floor) (temperature) - min by (floor) (temperature)`,
	`stddev(temperature)`,
	`stdvar by (floor) (temperature)`,
	`quantile(0.75, temperature)`,
	`quantile_over_time(0.5, temperature[5s])`,
	`topk(2, temperature)`,
	`bottomk(2, temperature)`,
	`sort_desc(temperature)`,
	`count_values("v", requests_total)`,
	`histogram_quantile(0.9, rate(latency_seconds_bucket[5s]))`,
	`histogram_quantile(0.5, sum by (le) (latency_seconds_bucket))`,
	`rate(latency_seconds_sum[5s]) / rate(latency_seconds_count[5s])`,
	`avg_over_time(temperature[5s])`,
	`min_over_time(temperature[5s])`,
	`sum_over_time(requests_total[3s])`,
	`stddev_over_time(temperature[6s])`,
	`last_over_time(short_lived[30s])`,
	`present_over_time(short_lived[5s])`,
	`max_over_time(rate(requests_total[3s])[6s:1s])`,
	`requests_total offset 3s`,
	`requests_total{code="200"} / on (method) group_left sum by (method) (requests_total)`,
	`requests_total{code="200"} and on (method) requests_total{code="500"} > 40`,
	`requests_total unless requests_total{code="404"}`,
	`temperature{room="r0"} or vector(1)`,
	`label_replace(temperature, "wing", "w$1", "room", "r(.*)")`,
	`label_join(temperature, "where", "/", "floor", "room")`,
	`timestamp(requests_total{method="get"})`,
	`clamp(temperature, 21, 23)`,
	`ceil(temperature) % 2 == bool 0`,
	`-temperature ^ 2`,
	`scalar(resets_total) + vector(time())`,
	`group by (code) (requests_total)`,
	`scrape_samples_scraped{job="target"}`,
	`mcached_series_samples_inserted_total{job="mcached"}`,
	`sum(go_goroutines)`,
}

// TestE2EPrometheus: a real Prometheus scrapes and writes on to the daemon; the
// same questions put to both at the same past times get the same answers.
func TestE2EPrometheus(t *testing.T) {
	path := realServer(t, "prometheus", "prometheus")
	t.Parallel()
	// Its own scrapes are off: the same series must come from Prometheus alone.
	s := startServer(t, "--self-scrape.interval=0")
	tg := newTarget(t)
	// It scrapes a target, the daemon and itself, and writes it all on to the daemon.
	prom := startPrometheus(t, path, fmt.Sprintf(`
global: {scrape_interval: 1s, scrape_timeout: 900ms}
scrape_configs:
- {job_name: target, static_configs: [{targets: ['%s']}]}
- {job_name: mcached, static_configs: [{targets: ['%s']}]}
- {job_name: prometheus, static_configs: [{targets: [ADDRESS]}]}
remote_write:
- url: %s/api/v1/write
  queue_config: {batch_send_deadline: 200ms, min_backoff: 30ms}
`, host(tg.URL), host(s.url), s.url))

	// Enough scrapes that the short-lived series went stale, and then so many
	// that all windows are full.
	eventually(t, "the target was scraped 16 times", func() error {
		if n := tg.scrapes.Load(); n < 16 {
			return fmt.Errorf("%d times", n)
		}
		return nil
	})
	at := quietTime(t, prom, 3)
	eventually(t, "the daemon has what Prometheus has", func() error {
		return sameSamples(s.url, prom, at)
	})

	rng := url.Values{"start": {stamp(at.Add(-10 * time.Second))}, "end": {stamp(at)}, "step": {"1"}}
	compared := 0
	for _, expr := range expressions {
		instant := url.Values{"query": {expr}, "time": {stamp(at)}}
		compared += compare(t, expr, s.url, prom, "/api/v1/query?"+instant.Encode())
		rng.Set("query", expr)
		compared += compare(t, expr+" as a range", s.url, prom, "/api/v1/query_range?"+rng.Encode())
	}
	rng.Del("query")
	// Prometheus lists what its head has, whenever that was; so from before the first scrape.
	rng.Set("start", stamp(at.Add(-10*time.Minute)))
	for _, path := range []string{"/api/v1/labels?", "/api/v1/label/__name__/values?", "/api/v1/label/code/values?",
		"/api/v1/series?match[]=requests_total&match[]=temperature&", "/api/v1/labels?match[]=odd&"} {
		compared += compare(t, path, s.url, prom, path+rng.Encode())
	}
	if compared < 100 {
		t.Errorf("only %d answers had something in them to compare", compared)
	}
	t.Logf("%d answers that were not empty agree, of %d expressions", compared, len(expressions))

	if v := s.metric(`mcached_remote_write_refused_total{code="400"}`); v != 0 {
		t.Errorf("%v of Prometheus' requests were refused", v)
	}
	if v := s.metric("mcached_remote_write_samples_total"); v < 5000 {
		t.Errorf("only %v samples came", v)
	}
}

// quietTime is a recent time as far as can be from the phase of every scrape
// that it can matter for, and from whole seconds: which samples a window
// includes at its very edge changed between versions of Prometheus.
func quietTime(t testing.TB, prom string, targets int) time.Time {
	t.Helper()
	var now time.Time
	phases := []int64{0} // ms within a second
	eventually(t, "Prometheus has samples of all targets", func() error {
		var answer struct {
			Data struct {
				Result []struct{ Values []model.SamplePair }
			}
		}
		now = time.Now()
		if err := getJSON(prom+"/api/v1/query?"+url.Values{"query": {"up[10m]"}, "time": {stamp(now)}}.Encode(), &answer); err != nil {
			return err
		}
		for _, r := range answer.Data.Result {
			for _, v := range r.Values {
				phases = append(phases, int64(v.Timestamp)%1000)
			}
		}
		if n := len(answer.Data.Result); n != targets {
			return fmt.Errorf("it has %d, want %d", n, targets)
		}
		return nil
	})
	best, bestDistance := int64(0), int64(-1)
	for ms := range int64(1000) {
		nearest := int64(1000)
		for _, p := range phases {
			d := (ms - p + 1000) % 1000
			nearest = min(nearest, d, 1000-d)
		}
		if nearest > bestDistance {
			best, bestDistance = ms, nearest
		}
	}
	return time.UnixMilli(now.Unix()*1000 + best).Add(-time.Second)
}

func stamp(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }

// sameSamples says whether ours has every sample up to at that a Prometheus has.
func sameSamples(daemon, prom string, at time.Time) error {
	q := "/api/v1/query?" + url.Values{"query": {`{job=~".+"}[10m]`}, "time": {stamp(at)}}.Encode()
	ours, err := fetch(daemon + q)
	if err != nil {
		return err
	}
	theirs, err := fetch(prom + q)
	if err != nil {
		return err
	}
	if d := difference(ours.Data, theirs.Data, false); d != "" {
		return errors.New(d)
	}
	return nil
}

type apiAnswer struct {
	Status, ErrorType, Error string
	Data                     any
}

func fetch(u string) (apiAnswer, error) {
	var a apiAnswer
	err := getJSON(u, &a)
	return a, err
}

// compare asks both the same and returns 1 if there was something to compare.
func compare(t testing.TB, what, ours, theirs, path string) int {
	t.Helper()
	a, err := fetch(ours + path)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return 0
	}
	b, err := fetch(theirs + path)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return 0
	}
	ordered := strings.HasPrefix(what, "sort") || strings.HasPrefix(what, "topk") || strings.HasPrefix(what, "bottomk")
	if d := difference(a.Data, b.Data, ordered && !strings.HasSuffix(what, "range")); d != "" {
		t.Errorf("%s: mcached and Prometheus differ: %s", what, d)
	}
	if m, ok := b.Data.(map[string]any); ok {
		if r, ok := m["result"].([]any); ok && len(r) == 0 {
			return 0
		}
	}
	return 1
}

// difference describes where two answers differ. Lists of series are put in
// order first, unless their order is part of the answer. Numbers may differ in
// their last digits: versions sum in different orders.
func difference(a, b any, ordered bool) string {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return fmt.Sprintf("%v is not %v", a, b)
		}
		for k := range a {
			if d := difference(a[k], b[k], ordered); d != "" {
				return k + ": " + d
			}
		}
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return fmt.Sprintf("%d elements %.300v are not %d elements %.300v", len(a), a, len(b), b)
		}
		if !ordered {
			a, b = inOrder(a), inOrder(b)
		}
		for i := range a {
			if d := difference(a[i], b[i], ordered); d != "" {
				return fmt.Sprintf("[%d]: %s", i, d)
			}
		}
	case string:
		if b, ok := b.(string); !ok || a != b && !nearly(a, b) {
			return fmt.Sprintf("%q is not %q", a, b)
		}
	default:
		if a != b {
			return fmt.Sprintf("%v is not %v", a, b)
		}
	}
	return ""
}

// inOrder sorts series by their labels, and names; samples stay as they are.
func inOrder(list []any) []any {
	key := func(v any) string {
		if m, ok := v.(map[string]any); ok {
			if labels, ok := m["metric"]; ok {
				v = labels
			}
		}
		b, err := json.Marshal(v) // sorts the keys of maps
		if err != nil {
			panic(err) // it came from JSON
		}
		return string(b)
	}
	if len(list) == 0 {
		return list
	}
	if _, sample := list[0].(float64); sample {
		return list // [time, value]
	}
	if _, samples := list[0].([]any); samples {
		return list // [[time, value], …]
	}
	sorted := slices.Clone(list)
	slices.SortFunc(sorted, func(a, b any) int { return strings.Compare(key(a), key(b)) })
	return sorted
}

// nearly says whether two numbers spelt as text are the same but for rounding.
func nearly(a, b string) bool {
	const relative = 1e-9
	x, errX := strconv.ParseFloat(a, 64)
	y, errY := strconv.ParseFloat(b, 64)
	return errX == nil && errY == nil && math.Abs(x-y) <= relative*max(math.Abs(x), math.Abs(y), 1e-3)
}
