package sendertest

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/http/httptest"
	"testing"
	"time"

	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"mcached/kvcache"
	"mcached/mcache"
	"mcached/remotewrite/send"
	"mcached/remotewrite/wire"
)

// TestForwarderToPrometheus: the receiver of Prometheus takes what the
// forwarder sends, in both protocols, out-of-order samples included; and has every bit.
func TestForwarderToPrometheus(t *testing.T) {
	for p, message := range map[wire.Protocol]remoteapi.WriteMessageType{
		wire.V1: remoteapi.WriteV1MessageType, wire.V2: remoteapi.WriteV2MessageType,
	} {
		t.Run(p.String(), func(t *testing.T) {
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			o := tsdb.DefaultOptions()
			o.OutOfOrderTimeWindow = time.Hour.Milliseconds()
			db, err := tsdb.Open(t.TempDir(), nil, nil, o, nil)
			must(err)
			defer db.Close()
			server := httptest.NewServer(remote.NewWriteHandler(slog.New(slog.DiscardHandler), prometheus.NewRegistry(), db, remoteapi.MessageTypes{message}, false, false, false))
			defer server.Close()

			memory, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 64 << 20, ReserveBytes: 64 << 20})
			must(err)
			defer memory.Close()
			cache, err := mcache.New(mcache.Options{Memory: memory, WriteBack: true})
			must(err)
			defer cache.Close()
			client, err := send.NewClient(send.ClientOptions{URL: server.URL}) // it detects the protocol
			must(err)
			f, err := send.NewForwarder(send.ForwarderOptions{Cache: cache, Client: client, MaxPerRequest: 100,
				Metadata: func(string, string) (wire.Metadata, bool) {
					return wire.Metadata{Type: "gauge", Help: "Of a test.", Unit: "things"}, true
				}})
			must(err)

			want := map[string]map[int64]string{}
			end := time.Now().UnixMilli()
			var batch mcache.Batch
			for i := range int64(60) {
				at := end + (i-60)*15_000
				if i%7 == 3 {
					at -= 200_000 + i // late
				}
				batch.Reset("default")
				all := make([][]mcache.Label, 0, 30)
				for n := range 30 {
					ls := []mcache.Label{{Name: "__name__", Value: "fed"}, {Name: "i", Value: fmt.Sprint(n)}}
					key := labels.FromStrings("__name__", "fed", "i", fmt.Sprint(n)).String()
					if want[key] == nil {
						want[key] = map[int64]string{}
					}
					all = append(all, ls)
					batch.Series(cache.Fingerprint(ls))
					if n%6 == 5 {
						h := writev2.Histogram{Count: &writev2.Histogram_CountInt{CountInt: 7}, Sum: float64(i), ZeroThreshold: 1e-9,
							ZeroCount: &writev2.Histogram_ZeroCountInt{ZeroCountInt: 1}, PositiveSpans: []writev2.BucketSpan{{Offset: int32(n), Length: 2}},
							PositiveDeltas: []int64{2, 2}, Timestamp: at}
						value, err := h.Marshal()
						must(err)
						batch.Record(at, value)
						want[key][at] = h.ToIntHistogram().String()
						continue
					}
					v := math.Float64bits(float64(i) / 3)
					if i%9 == 0 {
						v = 0x7ff0000000000002 // stale
					}
					batch.Sample(at, v)
					want[key][at] = fmt.Sprintf("%x", v)
				}
				_, err := cache.Append(&batch)
				must(err)
				for _, k := range append([]int(nil), batch.Missing()...) {
					_, err := cache.AppendNew(&batch, k, all[k])
					must(err)
				}
				if i%20 == 19 {
					ctx, cancel := context.WithTimeout(t.Context(), waitFor)
					if left := f.Drain(ctx); left.Points != 0 {
						t.Errorf("%+v left", left)
					}
					cancel()
				}
			}
			st := f.Stats()
			if st.Rejected != 0 || st.Protocol != p {
				t.Errorf("%+v, want protocol %v", st, p)
			}

			q, err := db.Querier(math.MinInt64, math.MaxInt64)
			must(err)
			defer q.Close()
			points := 0
			set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", "fed"))
			for set.Next() {
				key := set.At().Labels().String()
				it := set.At().Iterator(nil)
				for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
					got, at := "", int64(0)
					switch kind {
					case chunkenc.ValFloat:
						var v float64
						at, v = it.At()
						got = fmt.Sprintf("%x", math.Float64bits(v))
					default:
						t, h := it.AtHistogram(nil)
						at, got = t, h.String()
					}
					if want[key][at] != got {
						t.Errorf("%s at %d: %s, want %s", key, at, got, want[key][at])
					}
					points++
				}
				must(it.Err())
			}
			must(set.Err())
			if points != 30*60 {
				t.Errorf("Prometheus has %d points, want %d", points, 30*60)
			}
		})
	}
}
