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
	samplesOnly, alike, otherTimes, described, far, farther := 0, 0, 0, 0, 0, 0
	for round := range 60 {
		up := newWriteBack(t, remotewrite.Options{})
		length, many := 1+rng.IntN(1+rng.IntN(90)), 1+rng.IntN(400)
		if round%12 == 11 {
			many = 60
		}
		for i := range many {
			seldom := func() bool { return rng.IntN(9) == 0 }
			at := now.UnixMilli() - 10_000_000
			if seldom() {
				at++
			}
			ls := named(fmt.Sprintf("m%d", i/20+rng.IntN(2)), "i", fmt.Sprint(rng.IntN(50)), "job", "a job")
			if seldom() {
				ls = named(fmt.Sprintf("m%d", i/20), "A", "before the name", "i", fmt.Sprint(i))
			}
			if seldom() { // as many labels, but no name
				ls = []mcache.Label{{Name: "a", Value: fmt.Sprint(i)}, {Name: "i", Value: "1"}, {Name: "job", Value: "a job"}}
			}
			if seldom() {
				h := writev2.Histogram{Count: &writev2.Histogram_CountInt{CountInt: 3}, ZeroCount: &writev2.Histogram_ZeroCountInt{ZeroCountInt: 3}, Sum: 1, Timestamp: at}
				ls = append(named(fmt.Sprintf("m%d", i/20), "i", fmt.Sprint(i)), mcache.Label{Name: "z", Value: "h"})
				body := (&EncoderV2{}).Append(nil, []Series{{Labels: ls, Samples: []mcache.Sample{{T: at + 1, V: 5}}, Starts: []int64{at - 5}, Records: []mcache.Record{{T: at, Value: must(h.Marshal())}}}})
				answered(t, up.Send(wire.V2, body), 204, "")
				continue
			}
			var ss []mcache.Sample
			n := 1 + rng.IntN(length)
			if rng.IntN(3) > 0 {
				n = length
			}
			if round%12 == 11 { // one is longer than a copy reaches back
				n = maxCopyBack/regularBytes + i%2
			}
			for k := range n {
				ss = append(ss, mcache.Sample{T: at + int64(k)*15_000, V: math.Float64bits(math.Trunc(rng.Float64() * 1e4))})
			}
			if seldom() {
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
			if i > from && rng.IntN(40) == 0 {
				continue // it is of another bucket, say
			}
			r.places = append(r.places, i)
			run, ok := out.Plain(i)
			if ok {
				samplesOnly++
			}
			if i == from || !ok || run.Changed == mcache.AllChanged {
				continue
			}
			if before, ok := out.Plain(i - 1); ok && len(run.Samples) == len(before.Samples) {
				alike++
				if run.Samples[0].T != before.Samples[0].T {
					otherTimes++
				}
				if len(run.Samples)*regularBytes > maxCopyBack-100 {
					farther++
				}
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
	t.Logf("%d runs of samples only, %d like the one before, %d with other times, %d that are longer than a copy reaches back; %d requests with metadata, %d longer than that",
		samplesOnly, alike, otherTimes, farther, described, far)
	if samplesOnly < 1000 || alike < 1000 || otherTimes < 100 || farther < 10 || described < 10 || far < 5 {
		t.Errorf("seed %d: few of some kind", seed)
	}
}

// Of runs that are like the one before them little is written: 3 bytes for 64 that are copied,
// and what differs.
func TestPackAlike(t *testing.T) {
	const series, samples = 300, 60
	for every, most := range map[int]int{samples: 80, 6: 110} { // one of so many values differs; bytes a run
		up := newReceiverWith(t, remotewrite.Options{}, mcache.Options{WriteBack: true, Shards: 1})
		for i := range series {
			var ss []mcache.Sample
			for k := range samples {
				value := 5.0
				if k%every == every-1 {
					value = float64(i)
				}
				ss = append(ss, mcache.Sample{T: now.UnixMilli() - 10_000_000 + int64(k)*15_000, V: math.Float64bits(value)})
			}
			if err := up.Cache.AppendSamples("default", named("m", "i", fmt.Sprint(1000+i), "job", "a job"), ss...); err != nil {
				t.Fatal(err)
			}
		}
		var out mcache.Outgoing
		up.Cache.Collect(0, new(mcache.Pass), mcache.Due{Since: mcache.AllTicks}, 1<<20, &out)
		r := runs{out: &out, metadata: func(string) wire.Metadata { return wire.Metadata{Type: "gauge", Help: "help"} }}
		for i := range out.Len() {
			r.places = append(r.places, i)
		}
		var p packer
		r.packV2(new(EncoderV2), &p)
		if n := len(p.block()); n > series*most {
			t.Errorf("one of %d values differs: %d bytes a run, want %d", every, n/series, most)
		}
		up.Cache.Acknowledge(&out)
	}
}
