package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestE2EReadBehind: what another daemon forwarded is read from the store behind,
// what came since from memory, in one remote read: of a Prometheus, which has
// remote read, and of a VictoriaMetrics, which has none.
func TestE2EReadBehind(t *testing.T) {
	for _, c := range []struct {
		name   string
		start  func(t testing.TB) string
		source string
		stored func(b *book, base string, from, to int64) error
	}{
		{"Prometheus", startPeer, "upstream", func(b *book, base string, from, to int64) error { return b.addRead(base, "fed", from, to) }},
		{"VictoriaMetrics", startVictoria, "both", func(b *book, base string, _, _ int64) error { return b.addExport(base, "fed") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			store := c.start(t)
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			f := newFeed("fed", 50)
			const rounds = 60
			end := time.Now().UnixMilli()
			from := end - rounds*15_000
			before := startServer(t, "--self-scrape.interval=0", "--forward.url="+store+"/api/v1/write", "--forward.max-dirty-age=1s")
			for i := range rounds / 2 {
				if err := f.write(ctx, before, from+int64(i)*15_000); err != nil {
					t.Fatal(err)
				}
			}
			if code := before.stop(); code != exitOK {
				t.Fatalf("code %d: %s", code, before.output())
			}
			eventually(t, "the store has it", func() error {
				var stored book
				if err := c.stored(&stored, store, from, end); err != nil {
					return err
				}
				if n := f.acked.missing(&stored, nil); n > 0 {
					return fmt.Errorf("%d of %d points are missing", n, f.acked.len())
				}
				return nil
			})
			// What comes now is not forwarded: only memory has it.
			s := startServer(t, "--self-scrape.interval=0", "--query.upstream="+store)
			for i := rounds / 2; i < rounds; i++ {
				if err := f.write(ctx, s, from+int64(i)*15_000); err != nil {
					t.Fatal(err)
				}
			}
			var got book
			if err := got.addRead(s.url, "fed", from, end); err != nil {
				t.Fatal(err)
			}
			want := f.acked.len()
			if c.source == "upstream" { // handed on as a whole
				want /= 2
			}
			if n := f.acked.missing(&got, nil); got.len() != want || n != f.acked.len()-want {
				t.Errorf("%d points, %d of %d are missing", got.len(), n, f.acked.len())
			}
			// Since when memory has all is told by each door.
			stats, err := s.redis().Do(ctx, "MC.STATS", "default").Result()
			if err != nil || !strings.Contains(fmt.Sprint(stats), "covered.from") {
				t.Errorf("MC.STATS: %v, %v", stats, err)
			}
			var status struct{ Data map[string]any }
			if err := s.get("/api/v1/status/tsdb?coverage=true", &status); err != nil || status.Data["coverage"] == nil {
				t.Errorf("status/tsdb: %v, %v", status, err)
			}
			if since := s.metric(`mcached_bucket_covered_from_timestamp_seconds{bucket="default"}`); since < float64(end)/1000-1 {
				t.Errorf("covered since %v", since)
			}
			// The same query, as a matrix.
			res, err := http.Get(s.url + fmt.Sprintf("/api/v1/query?query=count(fed)&time=%d", from/1000+60))
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if source := res.Header.Get("X-Mcached-Source"); source != "upstream" {
				t.Errorf("a query of what memory does not have is from %q", source)
			}
		})
	}
}
