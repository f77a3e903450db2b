package remotewrite

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/golang/snappy"
	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// benchRequest is one request as a scrape makes it: 2,000 series of 11 labels
// with some 200 bytes of text, one sample each; of 20 targets with 100 series.
func benchRequest(t testing.TB, p wire.Protocol, seconds float64) []byte {
	return encode(t, p, benchSeries(seconds)...)
}

func benchSeries(seconds float64) (series []Series) {
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
	return series
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
			in := r.intake()
			in.decoded = body
			for b.Loop() {
				in.reset(p, "default", nil)
				err := error(nil)
				if p == wire.V1 {
					err = in.decodeV1()
				} else {
					err = in.decodeV2()
				}
				if err != nil {
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

// BenchmarkSnappy decompresses a request as it comes from a sender in Go: by the
// library that is used here, by the one that senders use, and through a window. The
// requests lie in one place, or in 64 in turns, as those of a daemon that does other
// things in between.
func BenchmarkSnappy(b *testing.B) {
	for _, p := range []wire.Protocol{wire.V1, wire.V2} {
		plain := benchRequest(b, p, 0)
		packed := snappy.Encode(nil, plain)
		window := unsnappy{piece: pieceBytes}
		for name, decode := range map[string]func(dst, src []byte) error{
			"s2":     func(dst, src []byte) error { _, err := s2.Decode(dst, src); return err },
			"golang": func(dst, src []byte) error { _, err := snappy.Decode(dst, src); return err },
			"window": func(_, src []byte) error {
				for window.begin(src); !window.whole(); {
					if !window.more(window.d) {
						return errMalformed
					}
				}
				return nil
			},
		} {
			for _, places := range []int{1, 64} {
				var src, dst [][]byte
				for range places {
					src, dst = append(src, slices.Clone(packed)), append(dst, make([]byte, len(plain)))
				}
				b.Run(fmt.Sprintf("v%v/%s/places=%d", p, name, places), func(b *testing.B) {
					b.SetBytes(int64(len(plain)))
					n := 0
					for b.Loop() {
						if err := decode(dst[n%places], src[n%places]); err != nil {
							b.Fatal(err)
						}
						n++
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/2000, "ns/sample")
				})
			}
		}
	}
}

// BenchmarkHandler2000 is a whole request of known series with a new sample
// each, from the compressed body to the answer, without the network.
func BenchmarkHandler2000(b *testing.B) { benchHandler(b, 2000) }

// BenchmarkHandler100 is the same series in 20 requests.
func BenchmarkHandler100(b *testing.B) { benchHandler(b, 100) }

func benchHandler(b *testing.B, perRequest int) {
	for _, p := range []wire.Protocol{wire.V1, wire.V2} {
		b.Run("v"+p.String(), func(b *testing.B) {
			r := newReceiver(b, Options{})
			const rounds = 240 // an hour
			var packed [rounds][][]byte
			for i := range packed {
				for part := range slices.Chunk(benchSeries(float64(i-rounds)*15), perRequest) {
					packed[i] = append(packed[i], snappy.Encode(nil, encode(b, p, part...)))
				}
			}
			post := func(n int) {
				for _, body := range packed[n%rounds] {
					if w := r.Post(contentType(p), "snappy", body); w.Code != http.StatusNoContent {
						b.Fatal(w.Body.String())
					}
				}
			}
			post(0)
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if n++; n%rounds == 0 {
					// Begin anew: the same time again would be another thing to measure.
					b.StopTimer()
					r.Cache.RemoveBucket("default")
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
