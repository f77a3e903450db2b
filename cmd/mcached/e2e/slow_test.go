package e2e

import (
	"strings"
	"testing"
)

// TestE2ESlowQueries: the flag reaches the log, a line for each query.
func TestE2ESlowQueries(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--query.log-slower-than=1ms", "--self-scrape.interval=1h")
	const heavy = `count(max_over_time(vector(1)[1d:1s]))` // 86,400 steps
	if _, err := s.instant(heavy); err != nil {
		t.Fatal(err)
	}
	if n := s.metric("mcached_query_slow_total"); n != 1 {
		t.Errorf("%v slow queries are counted", n)
	}
	if !strings.Contains(s.output(), `msg="Slow query."`) || !strings.Contains(s.output(), "expr="+heavy) {
		t.Errorf("it says:\n%s", s.output())
	}
	quiet := startServer(t, "--query.log-slower-than=0", "--self-scrape.interval=1h")
	if _, err := quiet.instant(heavy); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(quiet.output(), "Slow") {
		t.Errorf("it says:\n%s", quiet.output())
	}
}
