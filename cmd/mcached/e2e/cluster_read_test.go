package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
)

// spreadSeries writes n series of 20 samples, 10 ms apart from a time on, a part of
// them to each member.
func (g *group) spreadSeries(n int, from time.Time) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	parts := make([][]prompb.TimeSeries, len(g.members))
	for i := range n {
		x := oneSeries(0, 0, "__name__", "spread_total", "i", fmt.Sprintf("%03d", i), "job", fmt.Sprint(i%3))
		x.Samples = nil
		for k := range 20 {
			x.Samples = append(x.Samples, prompb.Sample{Timestamp: from.UnixMilli() + int64(10*k), Value: float64(k * (i + 1))})
		}
		parts[i%len(parts)] = append(parts[i%len(parts)], x)
	}
	for i, s := range g.members {
		if code, said, err := s.post(ctx, snappy.Encode(nil, body(g.t, parts[i]...))); err != nil || code != http.StatusNoContent {
			g.t.Fatalf("%d %q %v", code, said, err)
		}
	}
}

// clusterAnswer is what a client reads.
type clusterAnswer struct {
	Data     any
	Warnings []string
}

func (s *server) read(path string, pairs ...string) (a clusterAnswer, err error) {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		q.Add(pairs[i], pairs[i+1])
	}
	err = s.get(path+"?"+q.Encode(), &a)
	return a, err
}

// TestClusterReads: each member answers for all; one that is killed takes its share
// along if there is one copy, and every answer says so and names it.
func TestClusterReads(t *testing.T) {
	t.Parallel()
	g := startCluster(t, 3, "--cluster.copies=1")
	from := time.Now().Truncate(time.Millisecond)
	const n = 90
	g.spreadSeries(n, from)
	at := from.Add(190 * time.Millisecond)
	look := func(s *server) (counted string, warnings string) {
		a, err := s.read("/api/v1/query", "query", "count(count_over_time(spread_total[195ms]))", "time", stamp(at))
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(a.Data), strings.Join(a.Warnings, "; ")
	}
	for _, s := range g.members {
		if counted, warnings := look(s); !strings.Contains(counted, " 90]") || warnings != "" {
			t.Errorf("%s counts %s, %q", s.url, counted, warnings)
		}
		sum, err := s.read("/api/v1/query_range", "query", "sum by (job) (spread_total)", "start", stamp(at), "end", stamp(at), "step", "1")
		if text := fmt.Sprint(sum.Data); err != nil || !strings.Contains(text, " 25935]") || !strings.Contains(text, " 25365]") || !strings.Contains(text, " 26505]") {
			// Σ 19 (i + 1) of i = 0, 3, …, 87, and so on
			t.Errorf("%s sums up to %s, %v", s.url, text, err)
		}
		values, err := s.read("/api/v1/label/i/values", "match[]", "spread_total")
		if list, ok := values.Data.([]any); err != nil || !ok || len(list) != n {
			t.Errorf("%s knows the values %v, %v", s.url, values.Data, err)
		}
		series, err := s.read("/api/v1/series", "match[]", "spread_total", "start", stamp(from), "end", stamp(at))
		if list, ok := series.Data.([]any); err != nil || !ok || len(list) != n || len(series.Warnings) > 0 {
			t.Errorf("%s knows the series %v, %v", s.url, series, err)
		}
	}
	if done := g.members[0].metric(`mcached_cluster_plans_total{how="pushed"}`) + g.members[0].metric(`mcached_cluster_plans_total{how="repaired"}`) + g.members[0].metric(`mcached_cluster_plans_total{how="merged"}`); done == 0 {
		t.Error("no plan was carried out for members")
	}

	// Who is not a member learns nothing.
	for path, body := range map[string]string{"ask": `{"Version":1,"What":"names","Bucket":"ZGVmYXVsdA=="}`, "owed": "n1#1"} {
		for _, header := range []string{"", "1795208700000 AAAA"} {
			r, err := http.NewRequest(http.MethodPost, g.members[0].url+"/api/v1/cluster/"+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if header != "" {
				r.Header.Set("X-Mcached-Cluster", header)
			}
			res, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			if res.Body.Close(); res.StatusCode != http.StatusForbidden {
				t.Errorf("a stranger with the header %q got %s to %s", header, res.Status, path)
			}
		}
	}

	_ = g.members[1].cmd.Process.Signal(syscall.SIGKILL)
	<-g.members[1].exited
	for _, s := range g.running() {
		counted, warnings := look(s)
		if strings.Contains(counted, " 90]") || !strings.Contains(warnings, "may be missing") {
			t.Errorf("at once %s counts %s, %q", s.url, counted, warnings)
		}
	}
	g.wait("n0", "n2")
	for _, s := range g.running() {
		if counted, warnings := look(s); strings.Contains(counted, " 90]") || !strings.Contains(warnings, "may be missing") {
			t.Errorf("when gossip had dropped it %s counts %s, %q", s.url, counted, warnings)
		}
	}
}
