package e2e

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
)

// BenchmarkClusterWrite is what a sample costs all daemons of a cluster
// together, of the processor's time, beside a single daemon: scrapes of 2000
// series with 11 labels, sent to the members in turn.
//
//	go test -run '^$' -bench ClusterWrite -benchtime 1000x ./cmd/mcached/e2e
func BenchmarkClusterWrite(b *testing.B) {
	const series = 2000
	for _, v2 := range []bool{false, true} {
		for _, c := range []struct{ members, copies int }{{1, 1}, {3, 1}, {3, 2}} {
			b.Run(fmt.Sprintf("v2=%v/members=%d/copies=%d", v2, c.members, c.copies), func(b *testing.B) {
				var members []*server
				if c.members == 1 {
					members = []*server{startServer(b, "--self-scrape.interval=0", "--memory.size=512MiB")}
				} else {
					members = startCluster(b, c.members, fmt.Sprint("--cluster.copies=", c.copies), "--memory.size=512MiB").members
				}
				start := time.Now().UnixMilli() - 3_600_000
				sent := 0
				var headers []string
				if v2 {
					headers = []string{"Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"}
				}
				var bodies [][]byte // before the time is taken: what is measured are daemons that have no rest
				for sent := range b.N + 3*len(members) {
					var all []prompb.TimeSeries
					for i := range series {
						all = append(all, oneSeries(start+int64(sent)*1000+int64(i%15), float64(i+sent), "__name__", fmt.Sprintf("http_requests_total_%d", i/200), "cluster", "production-eu-1",
							"container", "web", "endpoint", "metrics", "handler", fmt.Sprintf("/api/v1/things/%d", i%200), "instance", "10.23.45.67:9090", "job", "kubernetes-pods",
							"method", "GET", "namespace", "storefront", "pod", "web-5f7c6d8b9-x2x7k", "status", "200"))
					}
					body := body(b, all...)
					if v2 {
						body = encodeV2(b, all)
					}
					bodies = append(bodies, snappy.Encode(nil, body))
				}
				scrape := func() {
					code, said, err := members[sent%len(members)].post(context.Background(), bodies[sent], headers...)
					if err != nil || code != http.StatusNoContent {
						b.Fatalf("%d %s, %v", code, said, err)
					}
					sent++
				}
				for range 3 * len(members) {
					scrape() // all series are known
				}
				time.Sleep(time.Second)
				used := func() (t float64) {
					for _, s := range members {
						t += s.metric("process_cpu_seconds_total")
					}
					return t
				}
				before := used()
				b.ResetTimer()
				for range b.N {
					scrape()
				}
				b.StopTimer()
				b.ReportMetric((used()-before)*1e9/float64(b.N*series), "daemons-cpu-ns/sample")
				rerouted := 0.0
				for _, s := range members {
					if n, ok := s.hasMetric("mcached_cluster_write_rerouted_series_total"); ok {
						rerouted += n
					}
				}
				b.ReportMetric(rerouted/float64(b.N*series), "rerouted/sample")
			})
		}
	}
}
