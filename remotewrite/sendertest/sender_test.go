package sendertest

import (
	"context"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	config_util "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/value"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"mcached/kvcache"
	"mcached/mcache"
	"mcached/remotewrite"
	"mcached/remotewrite/wire"
)

const (
	floatSeries     = 60
	histogramSeries = 4
	rounds          = 25
	waitFor         = 3 * time.Minute // machines that run tests are slow or busy
)

// world is a Prometheus head that sends to a receiver.
type world struct {
	t       *testing.T
	db      *tsdb.DB
	cache   *mcache.Cache
	handler *remotewrite.Handler
	refused atomic.Int64 // answers other than 2xx
}

func newWorld(t *testing.T, message remoteapi.WriteMessageType) *world {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	memory, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 64 << 20, ReserveBytes: 64 << 20})
	must(err)
	w := &world{t: t}
	w.cache, err = mcache.New(mcache.Options{Memory: memory})
	must(err)
	w.handler = remotewrite.NewHandler(w.cache, remotewrite.Options{})
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		seen := &statusWriter{ResponseWriter: rw}
		w.handler.ServeHTTP(seen, r)
		if seen.status/100 != 2 {
			w.refused.Add(1)
			t.Logf("answer %d %s", seen.status, seen.text)
		}
	}))
	u, err := url.Parse(server.URL)
	must(err)

	dir := t.TempDir()
	o := tsdb.DefaultOptions()
	o.EnableExemplarStorage, o.MaxExemplars, o.EnableMetadataWALRecords = true, 1000, true
	w.db, err = tsdb.Open(dir, nil, nil, o, nil)
	must(err)
	sender := remote.NewStorage(nil, nil, func() (int64, error) { return 0, nil }, dir, time.Second, nil, false)
	w.db.SetWriteNotified(sender)
	rw := config.DefaultRemoteWriteConfig
	rw.URL, rw.ProtobufMessage, rw.Name = &config_util.URL{URL: u}, message, "mcached"
	rw.SendExemplars, rw.SendNativeHistograms = true, true
	rw.QueueConfig.BatchSendDeadline = model.Duration(50 * time.Millisecond)
	rw.QueueConfig.MaxSamplesPerSend = 100
	must(sender.ApplyConfig(&config.Config{GlobalConfig: config.DefaultGlobalConfig, RemoteWriteConfigs: []*config.RemoteWriteConfig{&rw}}))
	t.Cleanup(func() {
		sender.Close()
		server.Close()
		w.db.Close()
		w.cache.Close()
		memory.Close()
	})
	return w
}

type statusWriter struct {
	http.ResponseWriter
	status int
	text   string
}

func (s *statusWriter) WriteHeader(code int) {
	s.status = code
	s.ResponseWriter.WriteHeader(code)
}

func (s *statusWriter) Write(b []byte) (int, error) {
	s.text += string(b)
	return s.ResponseWriter.Write(b)
}

// contents reads the cache: by series, the points in order of time.
func (w *world) contents() map[string][]string {
	ids, err := w.cache.Select("default", nil, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	all := map[string][]string{}
	for _, id := range ids {
		ls, _ := w.cache.Labels(id, nil)
		var key []string
		for _, l := range ls {
			key = append(key, l.Name+"="+l.Value)
		}
		var s mcache.Snapshot
		w.cache.Snapshot(id, math.MinInt64, math.MaxInt64, &s)
		var points []string
		for it := s.Iterator(); it.Next(); {
			if !it.OnRecord() {
				points = append(points, fmt.Sprintf("%d %x", it.At().T, it.At().V))
				continue
			}
			var h writev2.Histogram
			if err := h.Unmarshal(it.Record().Value); err != nil {
				w.t.Fatal(err)
			}
			if h.IsFloatHistogram() {
				points = append(points, fmt.Sprintf("%d %s", it.Record().T, h.ToFloatHistogram()))
			} else {
				points = append(points, fmt.Sprintf("%d %s", it.Record().T, h.ToIntHistogram()))
			}
		}
		all[strings.Join(key, ",")] = points
	}
	return all
}

func (w *world) exemplars() []string {
	var all []string
	for _, s := range w.handler.Exemplars("default", math.MinInt64, math.MaxInt64, func([]mcache.Label) bool { return true }) {
		for _, x := range s.Exemplars {
			all = append(all, fmt.Sprint(s.Labels, x.T, math.Float64frombits(x.V), x.Labels))
		}
	}
	slices.Sort(all)
	return all
}

// TestPrometheusSends appends floats, stale markers, histograms of both kinds
// and exemplars to a real head, and waits for all of it to have arrived.
func TestPrometheusSends(t *testing.T) {
	for name, message := range map[string]remoteapi.WriteMessageType{"v1": remoteapi.WriteV1MessageType, "v2": remoteapi.WriteV2MessageType} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, message)
			want := map[string][]string{}
			var wantExemplars []string
			began := time.Now().Add(3 * time.Minute).UnixMilli() // the watcher sends what is later than its start, which may take
			for round := range rounds {
				at := began + int64(round)*15_000
				app := w.db.Appender(context.Background())
				add := func(ls labels.Labels, point string) {
					var key []string
					ls.Range(func(l labels.Label) { key = append(key, l.Name+"="+l.Value) })
					k := strings.Join(key, ",")
					want[k] = append(want[k], fmt.Sprintf("%d %s", at, point))
				}
				for i := range floatSeries {
					ls := labels.FromStrings("__name__", fmt.Sprintf("metric_%d_total", i/10), "instance", "größe:9100", "i", fmt.Sprint(i))
					v := float64(i*round) / 8
					if round == rounds-1 && i%7 == 0 {
						v = math.Float64frombits(value.StaleNaN)
					}
					ref, err := app.Append(0, ls, at, v)
					if err != nil {
						t.Fatal(err)
					}
					add(ls, fmt.Sprintf("%x", math.Float64bits(v)))
					if round == 0 {
						if _, err := app.UpdateMetadata(ref, ls, metadata.Metadata{Type: model.MetricTypeCounter, Help: fmt.Sprintf("Help of metric_%d_total.", i/10), Unit: "u"}); err != nil {
							t.Fatal(err)
						}
					}
					if i%20 == 0 && round%5 == 0 {
						e := exemplar.Exemplar{Labels: labels.FromStrings("trace_id", fmt.Sprint(round)), Value: float64(i), Ts: at, HasTs: true}
						if _, err := app.AppendExemplar(ref, ls, e); err != nil {
							t.Fatal(err)
						}
						wantExemplars = append(wantExemplars, fmt.Sprint(
							[]mcache.Label{{Name: "__name__", Value: ls.Get("__name__")}, {Name: "i", Value: ls.Get("i")}, {Name: "instance", Value: ls.Get("instance")}},
							at, e.Value, []mcache.Label{{Name: "trace_id", Value: fmt.Sprint(round)}}))
					}
				}
				for i := range histogramSeries {
					ls := labels.FromStrings("__name__", "latency_seconds", "i", fmt.Sprint(i))
					var h *histogram.Histogram
					var fh *histogram.FloatHistogram
					switch i {
					case 0:
						h = tsdbutil.GenerateTestHistogram(int64(round))
					case 1:
						fh = tsdbutil.GenerateTestFloatHistogram(int64(round))
					case 2:
						h = tsdbutil.GenerateTestCustomBucketsHistogram(int64(round))
					case 3:
						fh = tsdbutil.GenerateTestCustomBucketsFloatHistogram(int64(round))
					}
					if message == remoteapi.WriteV1MessageType && i > 1 {
						continue // protocol 1.0 has no custom buckets
					}
					if _, err := app.AppendHistogram(0, ls, at, h, fh); err != nil {
						t.Fatal(err)
					}
					if h != nil {
						add(ls, h.String())
					} else {
						add(ls, fh.String())
					}
				}
				if err := app.Commit(); err != nil {
					t.Fatal(err)
				}
			}
			slices.Sort(wantExemplars)
			same := func() bool {
				return maps.EqualFunc(w.contents(), want, slices.Equal[[]string]) && slices.Equal(w.exemplars(), wantExemplars)
			}
			for deadline := time.Now().Add(waitFor); !same(); {
				if time.Now().After(deadline) {
					got := w.contents()
					for key, points := range want {
						if !slices.Equal(got[key], points) {
							t.Errorf("%s is\n%s\nwant\n%s", key, strings.Join(got[key], "\n"), strings.Join(points, "\n"))
							break
						}
					}
					t.Fatalf("%d of %d series have arrived, exemplars\n%v\nwant\n%v", len(got), len(want), w.exemplars(), wantExemplars)
				}
				time.Sleep(50 * time.Millisecond)
			}
			if n := w.refused.Load(); n > 0 {
				t.Errorf("%d requests were refused", n)
			}
			described := 0
			w.handler.Metadata("default", func(metric string, m wire.Metadata) bool {
				if described++; m != (wire.Metadata{Type: "counter", Help: "Help of " + metric + ".", Unit: "u"}) {
					t.Errorf("%s is described by %+v", metric, m)
				}
				return true
			})
			if s := w.handler.Stats(); message == remoteapi.WriteV2MessageType && (described != floatSeries/10 || s.RequestsV2 == 0) || s.Exemplars == 0 || s.Histograms == 0 {
				t.Errorf("%d metrics are described; counted %+v", described, s)
			}
		})
	}
}
