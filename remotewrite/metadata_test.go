package remotewrite

import (
	"fmt"
	"testing"

	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// described is a request that says what a metric is.
func described(t testing.TB, p wire.Protocol, metric, help, unit string) []byte {
	t.Helper()
	s := Series{Labels: named(metric), Samples: []mcache.Sample{sample(0, 1)}}
	if p == wire.V1 {
		m := requestV1(s)
		m.Metadata = []prompb.MetricMetadata{{Type: prompb.MetricMetadata_GAUGE, MetricFamilyName: metric, Help: help, Unit: unit}}
		return marshal(t, m)
	}
	m := requestV2(s)
	n := uint32(len(m.Symbols))
	m.Symbols = append(m.Symbols, help, unit)
	m.Timeseries[0].Metadata = writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_GAUGE, HelpRef: n, UnitRef: n + 1}
	return marshal(t, m)
}

// What is said of a metric changes, as with each version of a program, while
// other requests come and use the same buffers.
func TestMetadataThatChanges(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		r := newReceiver(t, Options{})
		want := map[string]wire.Metadata{}
		bytes := 0
		for round := range 5 {
			for i := range 30 {
				name, help := fmt.Sprintf("metric_%02d", i), fmt.Sprintf("version %d of %d", round*i, i)
				answered(t, r.Send(p, described(t, p, name, help, "things")), 204, "")
				want[name] = wire.Metadata{Type: "gauge", Help: help, Unit: "things"}
			}
		}
		for name, m := range want {
			bytes += len(name) + len(m.Help) + len(m.Unit)
			if got, ok := r.Describe("default", name); !ok || got != m {
				t.Errorf("%s is described by %+v, want %+v", name, got, m)
			}
		}
		n := 0
		r.Metadata("default", func(metric string, m wire.Metadata) bool {
			if n++; want[metric] != m {
				t.Errorf("a metric %q is described by %+v", metric, m)
			}
			return true
		})
		if n != len(want) || r.meta.n != len(want) || r.meta.bytes != bytes {
			t.Errorf("%d metrics are described, %d in %d bytes are counted; want %d in %d", n, r.meta.n, r.meta.bytes, len(want), bytes)
		}
	})
}
