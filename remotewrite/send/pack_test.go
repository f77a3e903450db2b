package send

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/golang/snappy"
	"github.com/klauspost/compress/s2"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// randomRuns are series as a cache gives them out: neighbours share most of
// their labels, and samples are regular more often than not.
func randomRuns(rng *rand.Rand) []Series {
	all := make([]Series, rng.IntN(12))
	grid := minRegularTime + rng.Int64N(maxRegularTime-minRegularTime)
	for i := range all {
		s := &all[i]
		for k := range 1 + rng.IntN(6) {
			s.Labels = append(s.Labels, mcache.Label{Name: fmt.Sprint("name", k), Value: strings.Repeat(string(rune('a'+rng.IntN(26))), rng.IntN(100))})
		}
		if i > 0 && rng.IntN(4) > 0 {
			s.Labels = append(s.Labels[:0:0], all[i-1].Labels...)
			s.Labels[rng.IntN(len(s.Labels))].Value = fmt.Sprint(rng.IntN(5))
		}
		n := rng.IntN(70)
		if rng.IntN(20) == 0 {
			n = rng.IntN(5000) // more than a copy reaches back
		}
		t, step, kind, v := grid, 1+rng.Int64N(1<<(1+rng.IntN(26))), rng.IntN(6), rng.NormFloat64()
		if rng.IntN(3) == 0 {
			t = rng.Int64()>>rng.IntN(40) - 1<<40
		}
		for range n {
			switch kind {
			case 0:
				v = math.Trunc(v + rng.Float64()*1000)
			case 1:
				v = math.Round(rng.NormFloat64()*1e5) / 1000
			case 2:
				v = math.Float64frombits(rng.Uint64() >> rng.IntN(64) << rng.IntN(64))
			case 3:
				v = float64(rng.IntN(2))
			}
			s.Samples = append(s.Samples, mcache.Sample{T: t, V: math.Float64bits(v)})
			t += step
			if rng.IntN(20) == 0 {
				t += rng.Int64N(5)
			}
		}
		if n > 0 && rng.IntN(30) == 0 {
			s.Samples[rng.IntN(n)].T = rng.Int64() >> rng.IntN(64)
		}
		if rng.IntN(3) == 0 {
			s.Metadata = wire.Metadata{Type: "gauge", Help: fmt.Sprint("help", rng.IntN(9))}
		}
	}
	return all
}

// What a packer writes, decoders of snappy take for what the encoders write.
func TestPack(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 3))
	rounds := 600
	if testing.Short() {
		rounds = 200
	}
	var v2 EncoderV2
	var p packer
	plain, packed, far := 0, 0, 0
	check := func(what string, want []byte) {
		t.Helper()
		b := p.block()
		for name, decode := range map[string]func(dst, src []byte) ([]byte, error){"snappy": snappy.Decode, "s2": s2.Decode} {
			if got, err := decode(nil, b); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%s: %s decodes %d bytes, %v; want %d", what, name, len(got), err, len(want))
			}
		}
		plain, packed = plain+len(want), packed+len(b)
		if len(want) > maxCopyBack {
			far++
		}
	}
	for i := range rounds {
		series := randomRuns(rng)
		if i%3 == 0 {
			series = append(series, randomSeries(rng)...)
			rng.Shuffle(len(series), func(i, j int) { series[i], series[j] = series[j], series[i] })
		}
		packV1(&p, series)
		check(fmt.Sprint("v1, round ", i), AppendV1(nil, series))
		v2.pack(&p, series)
		want := v2.Append(nil, series)
		check(fmt.Sprint("v2, round ", i), want)
		numbered := number(rng, series)
		packV1(&p, numbered)
		check(fmt.Sprint("v1, numbered, round ", i), AppendV1(nil, series))
		v2.pack(&p, numbered)
		check(fmt.Sprint("v2, numbered, round ", i), want)
		if got := v2.Append(nil, numbered); !bytes.Equal(got, want) {
			t.Fatalf("round %d: other bytes when labels are numbered", i)
		}
	}
	if packed > plain*3/4 || far < 20 {
		t.Errorf("%d bytes are packed to %d; %d requests were longer than a copy reaches back", plain, packed, far)
	}
}

// number is the same series with labels in a table, as of an Outgoing: with a
// source of chance only those of most, and not each label once.
func number(rng *rand.Rand, series []Series) []Series {
	var table []mcache.Label
	numbers := map[mcache.Label]uint32{}
	all := slices.Clone(series)
	for i := range all {
		if rng != nil && i%7 == 6 {
			continue
		}
		for _, l := range all[i].Labels {
			n, ok := numbers[l]
			if !ok || rng != nil && rng.IntN(20) == 0 {
				n = uint32(len(table))
				table, numbers[l] = append(table, l), n
			}
			all[i].Numbers = append(all[i].Numbers, n)
		}
		all[i].Labels = nil
	}
	for i := range all {
		all[i].Table = table
	}
	return all
}

// BenchmarkPack is encoding and compressing requests of series with so many
// samples each, as mcbench makes them: 40 % counters, 40 % gauges, 20 %
// constants. "search" is what a compressor does that is told nothing.
func BenchmarkPack(b *testing.B) {
	for _, run := range []int{1, 2, 4, 8, 20, 60} {
		rng := rand.New(rand.NewPCG(1, 1))
		var series []Series
		for n := range 10_000 / run {
			target, k := n/100, n%100
			s := Series{Labels: named(fmt.Sprintf("checkout_http_request_%02d_total", k/10), "cluster", "eu-central-1-production",
				"container", "checkout-api", "endpoint", "http-metrics", "handler", fmt.Sprintf("/api/v1/orders/%d", k%10),
				"instance", fmt.Sprintf("10.0.0.%d:9100", target), "job", "kubernetes-pods", "method", "GET", "namespace", "checkout",
				"node", "ip-10-0-0-1.internal", "pod", fmt.Sprintf("checkout-api-7d9f8b6c5d-%06x", target))}
			v := math.Trunc(rng.Float64() * 1e6)
			for i := range run {
				switch n % 5 {
				case 0, 1:
					v += math.Trunc(rng.Float64() * 100)
				case 2, 3:
					v = math.Round(rng.NormFloat64()*1e5) / 100
				}
				s.Samples = append(s.Samples, mcache.Sample{T: now.UnixMilli() + int64(i)*15_000, V: math.Float64bits(v)})
			}
			series = append(series, s)
		}
		series = number(nil, series)
		for _, protocol := range []wire.Protocol{wire.V1, wire.V2} {
			var v2 EncoderV2
			var p packer
			var plain, packed []byte
			name := fmt.Sprintf("v%s/run=%d/", protocol, run)
			report := func(b *testing.B, bytes int) {
				n := float64(len(series) * run)
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/sample")
				b.ReportMetric(float64(bytes)/n, "B/sample")
			}
			encode := func() {
				if plain = plain[:0]; protocol == wire.V2 {
					plain = v2.Append(plain, series)
				} else {
					plain = AppendV1(plain, series)
				}
			}
			b.Run(name+"search", func(b *testing.B) {
				for b.Loop() {
					encode()
					packed = snappy.Encode(packed[:cap(packed)], plain)
				}
				report(b, len(packed))
			})
			b.Run(name+"s2", func(b *testing.B) {
				for b.Loop() {
					encode()
					packed = s2.EncodeSnappy(packed[:cap(packed)], plain)
				}
				report(b, len(packed))
			})
			b.Run(name+"pack", func(b *testing.B) {
				for b.Loop() {
					if protocol == wire.V2 {
						v2.pack(&p, series)
					} else {
						packV1(&p, series)
					}
					packed = p.block()
				}
				report(b, len(packed))
			})
		}
	}
}
