package send

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/golang/snappy"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"mcached/mcache"
	"mcached/remotewrite"
	"mcached/remotewrite/wire"
)

// Runs are packed where they lie to the bytes that they take as series.
func TestPackRuns(t *testing.T) {
	const seed = 11
	rng := rand.New(rand.NewPCG(seed, 1))
	var e, plain EncoderV2
	var p packer
	var out mcache.Outgoing
	samplesOnly, alike, described, far := 0, 0, 0, 0
	for round := range 60 {
		up := newWriteBack(t, remotewrite.Options{})
		length := 1 + rng.IntN(1+rng.IntN(90))
		for i := range 1 + rng.IntN(400) {
			at := now.UnixMilli() - 10_000_000
			ls := named(fmt.Sprintf("m%d", i/20), "i", fmt.Sprint(rng.IntN(50)), "job", "a job")
			if rng.IntN(9) == 0 {
				ls = named(fmt.Sprintf("m%d", i/20), "A", "before the name", "i", fmt.Sprint(i))
			}
			if rng.IntN(9) == 0 { // as many labels, but no name
				ls = []mcache.Label{{Name: "a", Value: fmt.Sprint(i)}, {Name: "i", Value: "1"}, {Name: "job", Value: "a job"}}
			}
			if rng.IntN(9) == 0 {
				h := writev2.Histogram{Count: &writev2.Histogram_CountInt{CountInt: 3}, ZeroCount: &writev2.Histogram_ZeroCountInt{ZeroCountInt: 3}, Sum: 1, Timestamp: at}
				ls = append(named(fmt.Sprintf("m%d", i/20), "i", fmt.Sprint(i)), mcache.Label{Name: "z", Value: "h"})
				body := (&EncoderV2{}).Append(nil, []Series{{Labels: ls, Samples: []mcache.Sample{{T: at + 1, V: 5}}, Starts: []int64{at - 5}, Records: []mcache.Record{{T: at, Value: must(h.Marshal())}}}})
				answered(t, up.Send(wire.V2, body), 204, "")
				continue
			}
			var ss []mcache.Sample
			for k := range 1 + rng.IntN(length) {
				ss = append(ss, mcache.Sample{T: at + int64(k)*15_000, V: math.Float64bits(math.Trunc(rng.Float64() * 1e4))})
			}
			if rng.IntN(20) == 0 {
				ss = []mcache.Sample{{T: 1_000_000, V: 1}} // irregular
			}
			if err := up.Cache.AppendSamples("default", ls, ss...); err != nil {
				t.Fatal(err)
			}
		}
		for shard := range up.Cache.Shards() {
			for pass := (mcache.Pass{}); up.Cache.Collect(shard, &pass, mcache.Due{Since: mcache.AllTicks}, 1<<20, &out); {
			}
		}
		r := runs{out: &out, metadata: func(metric string) wire.Metadata {
			if metric[len(metric)-1]%3 == 0 {
				return wire.Metadata{}
			}
			return wire.Metadata{Type: "gauge", Help: "help of " + metric, Unit: []string{"", "s"}[len(metric)%2]}
		}}
		from := rng.IntN(2) * rng.IntN(out.Len())
		for i := from; i < out.Len(); i++ {
			r.places = append(r.places, i)
			if _, ok := out.Plain(i); ok {
				samplesOnly++
			}
			if _, changed := out.Numbers(i); changed != mcache.AllChanged {
				alike++
			}
		}
		series := r.series()
		want := plain.Append(nil, series)
		r.packV2(&e, &p)
		got, err := snappy.Decode(nil, p.block())
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("seed %d, round %d: %d runs packed to other %d bytes than %d of series, %v", seed, round, len(r.places), len(got), len(want), err)
		}
		if series[0].Metadata.Help != "" {
			described++
		}
		if len(want) > maxCopyBack {
			far++
		}
		up.Cache.Acknowledge(&out)
	}
	if samplesOnly < 1000 || alike < 1000 || described < 10 || far < 5 {
		t.Errorf("seed %d: %d runs of samples only, %d with as many labels as the one before, %d with metadata, %d requests longer than a copy reaches back", seed, samplesOnly, alike, described, far)
	}
}
