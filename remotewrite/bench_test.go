package remotewrite

import (
	"fmt"
	"math"
	"net/http"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// benchRequest is one request as a scrape makes it: 2,000 series of 11 labels
// with some 200 bytes of text, one sample each; of 20 targets with 100 series.
func benchRequest(t testing.TB, p wire.Protocol, seconds float64) []byte {
	var series []Series
	for i := range 2000 {
		target, k := i/100, i%100
		series = append(series, Series{
			Labels: named(fmt.Sprintf("checkout_http_request_%02d_total", k/10), "cluster", "eu-central-1-production", "container", "checkout-api",
				"endpoint", "http-metrics", "handler", fmt.Sprintf("/api/v1/orders/%d", k%10), "instance", fmt.Sprintf("10.0.0.%d:9100", target),
				"job", "kubernetes-pods", "method", "GET", "namespace", "checkout", "node", "ip-10-0-0-1.internal",
				"pod", fmt.Sprintf("checkout-api-7d9f8b6c5d-%06x", target)),
			Samples: []mcache.Sample{sample(seconds, float64(i)+seconds)},
		})
	}
	return encode(t, p, series...)
}

// BenchmarkDecode2000 is the pass over a decompressed request of known series,
// without the cache's part. Prometheus' decoder, which makes label sets of it
// for the receiver to look up, is beside it. ns/sample is the figure to read.
func BenchmarkDecode2000(b *testing.B) {
	for _, p := range []wire.Protocol{wire.V1, wire.V2} {
		body := benchRequest(b, p, 0)
		perSample := func(b *testing.B) {
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/2000, "ns/sample")
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
		}
		b.Run("v"+p.String()+"/ours", func(b *testing.B) {
			r := newReceiver(b, Options{})
			in := r.intakes.Get().(*intake)
			in.decoded = body
			for b.Loop() {
				in.reset(p, "default", now.UnixMilli())
				if err := in.decode(); err != nil {
					b.Fatal(err)
				}
			}
			perSample(b)
		})
		b.Run("v"+p.String()+"/prometheus", func(b *testing.B) {
			var m1 prompb.WriteRequest
			var m2 writev2.Request
			for b.Loop() {
				var err error
				if p == wire.V1 {
					m1.Reset()
					err = m1.Unmarshal(body)
				} else {
					m2.Reset()
					err = m2.Unmarshal(body)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			perSample(b)
		})
	}
}

// BenchmarkHandler2000 is a whole request of known series with a new sample
// each, from the compressed body to the answer, without the network.
func BenchmarkHandler2000(b *testing.B) {
	for _, p := range []wire.Protocol{wire.V1, wire.V2} {
		b.Run("v"+p.String(), func(b *testing.B) {
			r := newReceiver(b, Options{})
			const rounds = 240 // an hour
			var packed [rounds][]byte
			for i := range packed {
				packed[i] = snappy.Encode(nil, benchRequest(b, p, float64(i-rounds)*15))
			}
			post := func(n int) {
				if w := r.post(contentType(p), "snappy", packed[n%rounds]); w.Code != http.StatusNoContent {
					b.Fatal(w.Body.String())
				}
			}
			post(0)
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if n++; n%rounds == 0 {
					// Begin anew: the same time again would be another thing to measure.
					b.StopTimer()
					r.cache.RemoveBucket("default")
					post(n)
					n++
					b.StartTimer()
				}
				post(n)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/2000, "ns/sample")
		})
	}
}

// nowhere answers requests without looking at them.
type nowhere struct{ bytes int }

func (n *nowhere) RoundTrip(r *http.Request) (*http.Response, error) {
	n.bytes += int(r.ContentLength)
	h := http.Header{}
	setWritten(h, 1, 0, 0)
	return &http.Response{StatusCode: http.StatusNoContent, Header: h, Body: http.NoBody, Request: r}, nil
}

// BenchmarkForward is all that forwarding does for a run of so many samples,
// but for the network: collecting, encoding, compressing, acknowledging.
func BenchmarkForward(b *testing.B) {
	const series = 5000
	for _, p := range []wire.Protocol{wire.V1, wire.V2} {
		for _, run := range []int{1, 4, 20, 100} {
			b.Run(fmt.Sprintf("v%s/run=%d", p, run), func(b *testing.B) {
				up := newWriteBack(b, Options{})
				to := &nowhere{}
				client, err := NewClient(ClientOptions{URL: "http://localhost/", Protocol: p, HTTP: &http.Client{Transport: to}})
				if err != nil {
					b.Fatal(err)
				}
				f, err := NewForwarder(ForwarderOptions{Cache: up.cache, Client: client, Lanes: 1, Metadata: up.Describe})
				if err != nil {
					b.Fatal(err)
				}
				at := now.UnixMilli() - 1e9
				fill := func() {
					for n := range series {
						var samples []mcache.Sample
						for i := range run {
							samples = append(samples, mcache.Sample{T: at + int64(i)*15_000, V: math.Float64bits(float64(n * i))})
						}
						target, k := n/500, n%500
						if err := up.cache.AppendSamples("default", named(fmt.Sprintf("checkout_http_request_%02d_total", k/10), "cluster", "eu-central-1-production",
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
