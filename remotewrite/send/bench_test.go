package send

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"testing"

	"mcached/mcache"
	"mcached/remotewrite"
	"mcached/remotewrite/wire"
)

// nowhere answers that it has written what a lane has sent, without a look at it.
type nowhere struct {
	from  *lane
	bytes int
}

func (n *nowhere) RoundTrip(r *http.Request) (*http.Response, error) {
	n.bytes += int(r.ContentLength)
	r.Body.Close()
	h := http.Header{wire.HeaderSamplesWritten: {strconv.Itoa(n.from.parcel.points())}}
	return &http.Response{StatusCode: http.StatusNoContent, Header: h, Body: http.NoBody, Request: r}, nil
}

// BenchmarkForward is all that forwarding does for a run of so many samples,
// but for the network: collecting, encoding, compressing, acknowledging.
func BenchmarkForward(b *testing.B) {
	const series = 5000
	for _, p := range []wire.Protocol{wire.V1, wire.V2} {
		for _, run := range []int{1, 4, 20, 100} {
			b.Run(fmt.Sprintf("v%s/run=%d", p, run), func(b *testing.B) {
				up := newWriteBack(b, remotewrite.Options{})
				to := &nowhere{}
				client, err := NewClient(ClientOptions{URL: "http://localhost/", Protocol: p, HTTP: &http.Client{Transport: to}})
				if err != nil {
					b.Fatal(err)
				}
				f, err := NewForwarder(ForwarderOptions{Cache: up.Cache, Client: client, Lanes: 1, Metadata: up.Describe})
				if err != nil {
					b.Fatal(err)
				}
				to.from = f.lanes[0]
				at := now.UnixMilli() - 1e9
				fill := func() {
					for n := range series {
						var samples []mcache.Sample
						for i := range run {
							samples = append(samples, mcache.Sample{T: at + int64(i)*15_000, V: math.Float64bits(float64(n * i))})
						}
						target, k := n/500, n%500
						if err := up.Cache.AppendSamples("default", named(fmt.Sprintf("checkout_http_request_%02d_total", k/10), "cluster", "eu-central-1-production",
							"container", "checkout-api", "endpoint", "http-metrics", "handler", fmt.Sprintf("/api/v1/orders/%d", k%10),
							"instance", fmt.Sprintf("10.0.0.%d:9100", target), "job", "kubernetes-pods", "method", "GET", "namespace", "checkout",
							"node", "ip-10-0-0-1.internal", "pod", fmt.Sprintf("checkout-api-7d9f8b6c5d-%06x", target)), samples...); err != nil {
							b.Fatal(err)
						}
					}
					at += int64(run) * 15_000
				}
				b.ReportAllocs()
				runs := 0
				for b.Loop() {
					b.StopTimer()
					fill()
					b.StartTimer()
					if left := f.Drain(b.Context()); left.Points != 0 {
						b.Fatal(left)
					}
					runs += series
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(runs), "ns/run")
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(runs*run), "ns/sample")
				b.ReportMetric(float64(to.bytes)/float64(runs*run), "B/sample")
			})
		}
	}
}
