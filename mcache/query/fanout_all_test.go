package query

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage"

	"mcached/mcache"
)

// TestFanOutOtherDoors: remote reads in both forms, federation, what is known of a
// bucket, and histograms are those of all members.
func TestFanOutOtherDoors(t *testing.T) {
	tc := newTestCluster(t, 2, FanOutOptions{}, "a", "b", "c")
	one := newTestCluster(t, 1, FanOutOptions{}, "one")
	fillCluster(t, tc, 50, 30)
	fillCluster(t, one, 50, 30)
	for _, c := range []*testCluster{tc, one} {
		var b mcache.Batch
		for i := range int64(20) {
			ls := seriesOf(t, "h")
			for _, name := range c.owners("default", ls)[:c.copies] {
				n := c.nodes[name]
				b.Reset("default")
				b.Series(n.cache.Fingerprint(pairsToLabels([]string{"__name__", "h"})))
				h := prompb.Histogram{Count: &prompb.Histogram_CountInt{CountInt: uint64(2 * i)}, Sum: float64(i), ZeroCount: &prompb.Histogram_ZeroCountInt{}, Timestamp: t0 + i*15_000,
					PositiveSpans: []prompb.BucketSpan{{Length: 1}}, PositiveDeltas: []int64{2 * i}}
				value, err := h.Marshal()
				if err != nil {
					t.Fatal(err)
				}
				b.Record(h.Timestamp, value)
				if _, err := n.cache.Append(&b); err != nil {
					t.Fatal(err)
				}
				for _, k := range b.Missing() {
					if _, err := n.cache.AppendNew(&b, k, pairsToLabels([]string{"__name__", "h"})); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	single := NewAPI(one.nodes["one"].cache, one.api)
	read := func(h http.Handler, types ...prompb.ReadRequest_ResponseType) []byte {
		request := prompb.ReadRequest{AcceptedResponseTypes: types, Queries: []*prompb.Query{
			{StartTimestampMs: t0 + 30_000, EndTimestampMs: t0 + 400_000, Matchers: []*prompb.LabelMatcher{{Type: prompb.LabelMatcher_RE, Name: "__name__", Value: "h|m_total"}}},
		}}
		raw, err := request.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		w := send(t, h, httptest.NewRequest(http.MethodPost, "/api/v1/read", bytes.NewReader(snappy.Encode(nil, raw))))
		if w.Code != http.StatusOK {
			t.Fatal(w.Body)
		}
		if len(types) > 0 {
			return w.Body.Bytes()
		}
		body, err := snappy.Decode(nil, w.Body.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		var all prompb.ReadResponse
		if err := all.Unmarshal(body); err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(all.Results[0].Timeseries, func(a, b *prompb.TimeSeries) int {
			return bytes.Compare([]byte(fmt.Sprint(a.Labels)), []byte(fmt.Sprint(b.Labels)))
		})
		body, _ = all.Marshal()
		return body
	}
	federate := func(h http.Handler) string {
		return send(t, h, httptest.NewRequest(http.MethodGet, `/federate?match[]={__name__=~".%2B"}`, nil)).Body.String()
	}
	for _, n := range tc.lives() {
		if !bytes.Equal(read(n.api), read(single)) {
			t.Errorf("a remote read of %s is another one", n.name)
		}
		if got, want := read(n.api, prompb.ReadRequest_STREAMED_XOR_CHUNKS), read(single, prompb.ReadRequest_STREAMED_XOR_CHUNKS); !bytes.Equal(got, want) {
			t.Errorf("a streamed read of %s has %d bytes, want %d", n.name, len(got), len(want))
		}
		if got, want := federate(n.api), federate(single); got != want || len(got) < 1000 {
			t.Errorf("%s federates %s\nwant %s", n.name, got, want)
		}
		for _, r := range [][]string{
			{"query_range", "query", "rate(h[1m])", "start", seconds(t0), "end", seconds(t0 + 300_000), "step", "7"},
			{"query_range", "query", "sum(h)", "start", seconds(t0), "end", seconds(t0 + 300_000), "step", "15"},
			{"query", "query", "h[1m]", "time", seconds(t0 + 200_000)},
			{"status/tsdb"},
		} {
			got, want := get(t, n.api, r[0], r[1:]...).Body.String(), get(t, single, r[0], r[1:]...).Body.String()
			if r[0] == "status/tsdb" { // chunks and bytes are of all copies, and values are told apart at each
				continue
			}
			if got != want {
				t.Errorf("%s of %s: %.400s\nwant %.400s", r, n.name, got, want)
			}
		}
		if c := n.fan.Cardinality("default", 5); c.Series != 51 || c.ByMetric[0] != (mcache.Count{Name: "m_total", Count: 50}) {
			t.Errorf("%s counts %+v", n.name, c)
		}
		if e := n.fan.ChunkStats("default"); e.MinTime != t0 || e.MaxTime != t0+29*15_000 {
			t.Errorf("%s spans %+v", n.name, e)
		}
	}
}

type exemplarsOfTest []exemplar.QueryResult

func (e exemplarsOfTest) Select(from, to int64, _ ...[]*labels.Matcher) ([]exemplar.QueryResult, error) {
	return e, nil
}

// TestFanOutMetadata: metadata and exemplars that members have in common are there once.
func TestFanOutMetadata(t *testing.T) {
	tc := newTestCluster(t, 2, FanOutOptions{}, "a", "b")
	for i, n := range tc.lives() {
		n.fan.metadata = func(bucket, metric string) map[string][]metadata.Metadata {
			return map[string][]metadata.Metadata{"m": {{Type: "counter", Help: "Help."}}, n.name: {{Type: "gauge", Help: bucket + metric}}}
		}
		n.fan.exemplars = func(context.Context, string) (storage.ExemplarQuerier, error) {
			return exemplarsOfTest{{SeriesLabels: labels.FromStrings("__name__", "m"), Exemplars: []exemplar.Exemplar{
				{Labels: labels.FromStrings("trace", "both"), Value: math.Inf(1), Ts: t0, HasTs: true},
				{Labels: labels.FromStrings("trace", n.name), Value: 2, Ts: t0 + int64(i), HasTs: true},
			}}}, nil
		}
	}
	for _, n := range tc.lives() {
		wantBody(t, get(t, n.api, "metadata"), http.StatusOK, success(`{"a":[{"type":"gauge","unit":"","help":"default"}],"b":[{"type":"gauge","unit":"","help":"default"}],"m":[{"type":"counter","unit":"","help":"Help."}]}`))
		wantBody(t, get(t, n.api, "query_exemplars", "query", "m", "start", seconds(t0), "end", seconds(t0+1000)), http.StatusOK, success(
			`[{"seriesLabels":{"__name__":"m"},"exemplars":[{"labels":{"trace":"a"},"value":"2","timestamp":1795208700},{"labels":{"trace":"both"},"value":"+Inf","timestamp":1795208700},{"labels":{"trace":"b"},"value":"2","timestamp":1795208700.001}]}]`))
	}
}

// TestFanOutCutHealed: each side of a cut has what was written to it, and says so;
// afterwards all members have all of it, and say nothing.
func TestFanOutCutHealed(t *testing.T) {
	const minute = 60_000
	tc := newTestCluster(t, 2, FanOutOptions{}, "a", "b", "c")
	write := func(i int) {
		tc.write("default", seriesOf(t, fmt.Sprintf("m{i=%d}", i)), mcache.Sample{T: tc.now, V: math.Float64bits(1)})
	}
	count := func(n *testNode) (points string, warned bool) {
		// From the beginning on, the first minute included.
		a := ask(t, n.api, "query", "query", "sum(count_over_time(m[4m]))", "time", seconds(t0+4*minute-1))
		return string(a.Data), len(a.Warnings) > 0
	}
	for i := range 40 {
		write(i)
	}
	tc.pass(minute)
	whole := tc.eras[0].owners
	cut := tc.now
	side := func(names ...string) Era {
		tc.table = names
		tc.eras = []Era{NewEra(0, t0, cut, whole), NewEra(0, cut, math.MaxInt64, NewOwners(names, tc.slots, func(slot uint16) []uint16 {
			return rendezvous(names, slot)[:min(2, len(names))]
		}))}
		for i := range 40 {
			write(i)
		}
		return tc.eras[1]
	}
	left := side("a")
	if points, warned := count(tc.nodes["a"]); !warned {
		t.Errorf("a has %s of a cut cluster, without a warning", points)
	}
	tc.pass(1)
	right := side("b", "c")
	if points, warned := count(tc.nodes["b"]); warned {
		t.Errorf("b and c have a copy of all that was before: %s", points)
	}
	tc.pass(minute)
	left.To, right.To = tc.now, tc.now
	tc.table = []string{"a", "b", "c"}
	tc.eras = []Era{NewEra(0, t0, cut, whole), left, right, NewEra(0, tc.now, math.MaxInt64, whole)}
	for i := range 40 {
		write(i)
	}
	for _, n := range tc.lives() {
		if points, warned := count(n); warned || !bytes.Contains([]byte(points), []byte(`"160"`)) {
			t.Errorf("%s has %s, warned: %t", n.name, points, warned)
		}
	}
}
