package e2e

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestE2EQueryFlood: far more clients than there are connections ask what takes
// long. Some are answered and others rejected; meanwhile the daemon is healthy
// and takes samples; and when they all go away it works for none of them.
func TestE2EQueryFlood(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--web.max-connections=64", "--query.max-concurrency=1", "--self-scrape.interval=0", "--query.log-slower-than=0")
	const clients = 600
	const slow = `/api/v1/query?query=count(max_over_time(vector(1)%5B2d:1s%5D))` // some 30 ms
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	var answered, turnedAway, late, other atomic.Int64
	for range clients {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		all.Go(func() {
			for ctx.Err() == nil {
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+slow, nil)
				if err != nil {
					t.Error(err)
					return
				}
				res, err := client.Do(req)
				if err != nil {
					// On a busy machine a client may be so late with its first byte that
					// its connection has made way: it comes again.
					if ctx.Err() == nil {
						late.Add(1)
					}
					continue
				}
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
				switch {
				case res.StatusCode == http.StatusOK:
					answered.Add(1)
				case res.StatusCode == http.StatusServiceUnavailable && res.Header.Get("Retry-After") != "":
					turnedAway.Add(1)
					time.Sleep(100 * time.Millisecond) // sooner than it says
				default:
					other.Add(1)
				}
			}
		})
	}
	// Others come in between, on connections of their own.
	healthy := 0
	eventually(t, "some are answered and some turned away", func() error {
		if err := s.get("/-/healthy", nil); err != nil {
			return err
		}
		healthy++
		if answered.Load() < 5 || turnedAway.Load() < 100 || healthy < 10 {
			return errors.New("too few")
		}
		return nil
	})
	cancel()
	all.Wait()
	eventually(t, "the daemon works for nobody", func() error {
		if s.metric(`mcached_query_requests{state="running"}`)+s.metric(`mcached_query_requests{state="waiting"}`) > 0 {
			return errors.New("it does")
		}
		return nil
	})
	if n := s.metric("mcached_query_rejected_total"); n < float64(turnedAway.Load()) || other.Load() > 0 {
		t.Errorf("%v rejected, %d were told; %d got something else", n, turnedAway.Load(), other.Load())
	}
	t.Logf("%d answered, %d turned away, %d connections made way, healthy %d times", answered.Load(), turnedAway.Load(), late.Load(), healthy)
}

// TestE2EClientGone: who hangs up in the middle of an answer, or before it, is
// worked for no longer.
func TestE2EClientGone(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--self-scrape.interval=0", "--query.log-slower-than=0", "--query.timeout=10m")
	const long = `/api/v1/query_range?query=quantile_over_time(0.5,vector(time())%5B1h:1s%5D)&start=1000000&end=1011000&step=1` // minutes, of 40 million steps
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET "+long+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	running := `mcached_query_requests{state="running"}`
	eventually(t, "the query runs", func() error {
		if s.metric(running) != 1 {
			return errors.New("not yet")
		}
		return nil
	})
	conn.Close()
	eventually(t, "it ends with its client", func() error {
		if s.metric(running) != 0 {
			return errors.New("not yet")
		}
		return nil
	})
}
