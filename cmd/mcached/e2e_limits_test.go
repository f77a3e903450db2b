package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
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
