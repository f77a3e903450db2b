package main

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"mcached/kvcache"
	"mcached/mcache"
)

// week is what a store has, and a cache before it has the end of: counters under
// one name, m, in ten groups, g, of which each has a sample a minute.
type week struct {
	series     int
	long, held time.Duration // what the store and the cache have
	endMs      int64         // of the last samples
}

const weekStepMs = 60_000

// labels of series i.
func (k *week) labels(i int) []mcache.Label {
	return []mcache.Label{{Name: "__name__", Value: "m"}, {Name: "g", Value: strconv.Itoa(i % 10)}, {Name: "instance", Value: fmt.Sprintf("10.0.%d.%d:9100", i>>8, i&0xff)}, {Name: "job", Value: "node"}}
}

// each calls put with the samples of each minute of the last so long: the same
// ones whoever asks. values are by series, and valid until it returns.
func (k *week) each(long time.Duration, put func(t int64, values []float64) error) error {
	rnd := rand.New(rand.NewPCG(17, 17))
	values := make([]float64, k.series)
	for t := k.endMs - k.long.Milliseconds(); t <= k.endMs; t += weekStepMs {
		for i := range values {
			values[i] += float64(rnd.IntN(1000)) / 8
		}
		if t >= k.endMs-long.Milliseconds() {
			if err := put(t, values); err != nil {
				return err
			}
		}
	}
	return nil
}

// minutesPerRequest of all series go into one request.
const minutesPerRequest = 10

// write sends everything to a receiver of remote write.
func (k *week) write(ctx context.Context, url string) error {
	var request prompb.WriteRequest
	for i := range k.series {
		var ts prompb.TimeSeries
		for _, l := range k.labels(i) {
			ts.Labels = append(ts.Labels, prompb.Label{Name: l.Name, Value: l.Value})
		}
		request.Timeseries = append(request.Timeseries, ts)
	}
	client := &http.Client{Timeout: time.Minute}
	send := func() error {
		err := post(ctx, client, url, &request)
		for i := range request.Timeseries {
			request.Timeseries[i].Samples = request.Timeseries[i].Samples[:0]
		}
		return err
	}
	err := k.each(k.long, func(t int64, values []float64) error {
		for i, v := range values {
			ts := &request.Timeseries[i]
			ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: t, Value: v})
		}
		if len(request.Timeseries[0].Samples) < minutesPerRequest {
			return nil
		}
		return send()
	})
	if err == nil && len(request.Timeseries[0].Samples) > 0 {
		err = send()
	}
	return err
}

// snapshotLag is how much of its end a snapshot does not claim to have all of.
const snapshotLag = time.Minute

// snapshot is one of a cache that has run for as long as the week is held, and
// has had every sample when it was due: a daemon that is started with it covers
// all of that time, which it would otherwise have to run for.
func (k *week) snapshot() ([]byte, error) {
	memory, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 1 << 30})
	if err != nil {
		return nil, err
	}
	defer memory.Close()
	now := int64(0)
	c, err := mcache.New(mcache.Options{Memory: memory, Now: func() int64 { return now }})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	err = k.each(k.held, func(t int64, values []float64) error {
		now = t
		for i, v := range values {
			if err := c.AppendSamples("default", k.labels(i), mcache.Sample{T: t, V: math.Float64bits(v)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	now += snapshotLag.Milliseconds()
	var b bytes.Buffer
	_, err = c.Save(&b, now, nil)
	return b.Bytes(), err
}
