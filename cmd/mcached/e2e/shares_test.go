package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/redis/go-redis/v9"
)

// TestE2EShares gives metrics a share that is too little for what is written:
// series are evicted and PromQL finds their samples all the same, all of them,
// until a client wants the room and evicted series are above their own share.
func TestE2EShares(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--self-scrape.interval=0", "--memory.size=64MiB", "--memory.metrics-share=5%", "--memory.overflow-share=10%", "--memory.blobs-share=90%")
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	const series, samples, each = 16_000, 60, 2000
	end := time.Now().Add(-time.Minute).Truncate(time.Second)
	for from := 0; from < series; from += each {
		var all []prompb.TimeSeries
		for i := from; i < from+each; i++ {
			ts := oneSeries(0, 0, "__name__", "spread", "i", strconv.Itoa(i))
			ts.Samples = ts.Samples[:0]
			for k := range samples {
				ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: end.Add(time.Duration(k-samples+1) * time.Second).UnixMilli(), Value: float64(i * k)})
			}
			all = append(all, ts)
		}
		if code, said, err := s.post(ctx, snappy.Encode(nil, body(t, all...))); err != nil || code != http.StatusNoContent {
			t.Fatal(code, said, err)
		}
	}
	held := func() (live, evicted float64) {
		for _, g := range []string{"1", "2", "3"} {
			live += s.metric(`mcached_series_points{generation="` + g + `"}`)
		}
		return live, s.metric(`mcached_series_points{generation="overflow"}`)
	}
	if live, evicted := held(); live+evicted != series*samples || evicted < series*samples/2 {
		t.Fatalf("%v samples live and %v evicted of %d", live, evicted, series*samples)
	}
	count := fmt.Sprintf("sum(count_over_time(spread[2m] @ %d))", end.Unix())
	counted := func() string {
		t.Helper()
		got, err := s.instant(count)
		if err != nil {
			t.Fatal(err)
		}
		return got["{}"]
	}
	if got := counted(); got != strconv.Itoa(series*samples) {
		t.Errorf("%s is %s, want %d", count, got, series*samples)
	}
	if n := s.metric("mcached_overflow_read_total"); n < series/2 {
		t.Errorf("%v reads of evicted series", n)
	}

	c := s.redis()
	if got, err := c.ConfigGet(ctx, "memory-*-share").Result(); err != nil || len(got) != 4 || got["memory-metrics-share"] != "5%" {
		t.Errorf("CONFIG GET: %v, %v", got, err)
	}
	if err := c.ConfigSet(ctx, "memory-metrics-share", "0%").Err(); err == nil || !strings.Contains(err.Error(), "not a share") {
		t.Errorf("a share of nothing: %v", err)
	}
	if err := c.ConfigSet(ctx, "memory-overflow-share", "1%").Err(); err != nil {
		t.Error(err)
	}
	budget := s.metric("mcached_memory_budget_bytes")
	if v := s.metric(`mcached_memory_account_share_bytes{account="overflow"}`); v < budget/101 || v > budget/99 {
		t.Errorf("a share of 1 %% is %v bytes of %v", v, budget)
	}
	// A client fills the memory. The metrics that are left are those within their share.
	value := strings.Repeat("x", 4000)
	for i := 0; i < 20_000; i += 500 {
		_, err := c.Pipelined(ctx, func(p redis.Pipeliner) error {
			for j := range 500 {
				p.Set(ctx, "k"+strconv.Itoa(i+j), value, 0)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	used := func(account string) float64 {
		return s.metric(`mcached_memory_account_bytes{account="` + account + `"}`)
	}
	if v := used("overflow"); v > budget/50 {
		t.Errorf("evicted series hold %v bytes of %v", v, budget)
	}
	if v := used("blobs"); v < budget/2 {
		t.Errorf("a client holds %v bytes of %v", v, budget)
	}
	// Regions are still made ready for the client: the books agree once that is over.
	eventually(t, "the books agree, and with what is read", func() error {
		live, evicted := held()
		if lost := s.metric("mcached_overflow_samples_lost_total"); live+evicted+lost != series*samples || lost == 0 {
			return fmt.Errorf("%v samples live, %v evicted, %v lost of %d", live, evicted, lost, series*samples)
		}
		if got := counted(); got != strconv.FormatFloat(live+evicted, 'f', -1, 64) {
			return fmt.Errorf("%s samples are read of %v", got, live+evicted)
		}
		return nil
	})
}
