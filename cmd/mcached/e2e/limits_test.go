package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/redis/go-redis/v9"
)

// numbered are n series of one metric with a sample each, as a compressed body.
func numbered(t testing.TB, metric string, from, n int) []byte {
	t.Helper()
	var series []prompb.TimeSeries
	for i := range n {
		series = append(series, oneSeries(time.Now().UnixMilli(), 1, "__name__", metric, "i", fmt.Sprint(from+i)))
	}
	return snappy.Encode(nil, body(t, series...))
}

// TestE2ENewSeriesRate: the flag reaches what it bounds.
func TestE2ENewSeriesRate(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--self-scrape.interval=0", "--remote-write.max-new-series=1")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	// Half a minute's worth may come at once.
	if code, said, err := s.post(ctx, numbered(t, "m", 0, 200)); err != nil || code != http.StatusServiceUnavailable || !strings.Contains(said, "more than 1 a second") {
		t.Errorf("a flood of new series: %d %q %v", code, said, err)
	}
	if n := s.metric("mcached_remote_write_new_series_floods_total"); n != 1 {
		t.Errorf("%v floods counted", n)
	}
	if code, said, err := s.post(ctx, numbered(t, "m", 0, 10)); err != nil || code != http.StatusNoContent {
		t.Errorf("series that are known by now: %d %q %v", code, said, err)
	}
}

// TestE2EFewFiles: where the system permits fewer open files than there may be
// connections, idle Redis clients keep nobody out of HTTP.
func TestE2EFewFiles(t *testing.T) {
	t.Parallel()
	const files = 64
	s := startServerBy(t, []string{"sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, files)}, "--self-scrape.interval=0")
	for range 2 * files { // that let in nobody when they have the last file
		c, err := net.Dial("tcp", s.resp)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	probe := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	for range 10 {
		res, err := probe.Get(s.url + "/-/healthy")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Fatal(res.Status)
		}
	}
	if !strings.Contains(s.output(), "The system permits fewer open files than there may be connections") {
		t.Error("that fewer are let in is not said")
	}
	if strings.Contains(s.output(), "too many open files") {
		t.Error("there were not enough files")
	}
}

// TestE2ELimitsNameFlags: what a Redis client is told about a limit names the
// flag that an operator raises it with.
func TestE2ELimitsNameFlags(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--resp.max-keys-size=1KiB", "--remote-write.max-labels=3", "--remote-write.max-label-name-size=10B", "--remote-write.max-label-value-size=20B")
	c := redis.NewClient(&redis.Options{Addr: s.resp})
	defer c.Close()
	long := strings.Repeat("x", 30)
	for _, x := range []struct {
		labels []any
		want   string
	}{
		{[]any{"a", 1, "b", 1, "c", 1}, "4 labels, the limit is 3 (--remote-write.max-labels)"},
		{[]any{long, 1}, "30 bytes, the limit is 10 (--remote-write.max-label-name-size)"},
		{[]any{"a", long}, "30 bytes, the limit is 20 (--remote-write.max-label-value-size)"},
		{[]any{"a", 1}, ""},
		{[]any{"a", 2}, "the limit is 1024 (--resp.max-keys-size)"},
	} {
		err := c.Do(t.Context(), append([]any{"TS.CREATE", "key" + fmt.Sprint(x.labels[1])[:1], "LABELS"}, x.labels...)...).Err()
		if x.want == "" && err != nil || x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)) {
			t.Errorf("%v: %v, want %q", x.labels, err, x.want)
		}
	}
}

// TestE2ESeriesLimits: the flags bound what remote write and Redis clients
// create in a bucket, and /metrics tells why.
func TestE2ESeriesLimits(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--self-scrape.interval=0", "--tenancy.header=X-Scope-OrgID",
		"--bucket.max-series=50", "--bucket.max-series-per-metric=20", "--bucket.limits=team-a:max-series=100,max-series-per-metric=0")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, c := range []struct {
		metric, bucket string
		n, code        int
		says           string
	}{
		{"x", "default", 20, 204, ""},
		{"x", "default", 25, 400, `"x" of bucket "default" has 20, its limit is 20`},
		{"y", "default", 20, 204, ""},
		{"z", "default", 20, 400, `bucket "default" has 50, its limit is 50`},
		{"x", "default", 20, 204, ""},
		{"x", "team-a", 100, 204, ""},
		{"y", "team-a", 1, 400, `bucket "team-a" has 100, its limit is 100`},
	} {
		code, said, err := s.post(ctx, numbered(t, c.metric, 0, c.n), "X-Scope-OrgID", c.bucket)
		if err != nil || code != c.code || !strings.Contains(said, c.says) {
			t.Errorf("%d series of %s into %s: %d %q %v, want %d %q", c.n, c.metric, c.bucket, code, said, err, c.code, c.says)
		}
	}
	conn, err := net.Dial("tcp", s.resp)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, "TS.ADD one * 1\r\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, `bucket "default" has 50, its limit is 50`) {
		t.Errorf("TS.ADD: %q %v", line, err)
	}
	for series, want := range map[string]float64{
		`mcached_series{bucket="default"}`:                                         50,
		`mcached_series{bucket="team-a"}`:                                          100,
		`mcached_bucket_max_series{bucket="default",of="metric"}`:                  20,
		`mcached_bucket_max_series{bucket="team-a",of="bucket"}`:                   100,
		`mcached_bucket_series_refused_total{bucket="default",of="metric"}`:        5,
		`mcached_bucket_series_refused_total{bucket="default",of="bucket"}`:        11,
		`mcached_bucket_series_refused_total{bucket="team-a",of="bucket"}`:         1,
		`mcached_remote_write_not_written_total{reason="series_limit"}`:            11,
		`mcached_remote_write_not_written_total{reason="series_per_metric_limit"}`: 5,
	} {
		if got := s.metric(series); got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
}
