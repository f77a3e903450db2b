package promqltest

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/grafana/regexp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/notifier"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/prometheus/prometheus/web"
)

// startPrometheus starts Prometheus' own server, without what scrapes, on a
// port of its own, and returns its URL.
func startPrometheus(t *testing.T, s *teststorage.TestStorage) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- servePrometheus(ctx, l, s.DB) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return "http://" + l.Addr().String()
}

// servePrometheus is that server, until the context ends.
func servePrometheus(ctx context.Context, l net.Listener, db *tsdb.DB) error {
	p := parser.NewParser(parser.Options{ExperimentalDurationExpr: true})
	engine := promql.NewEngine(promql.EngineOpts{
		MaxSamples: 50_000_000, Timeout: 2 * time.Minute,
		NoStepSubqueryIntervalFn: func(int64) int64 { return time.Minute.Milliseconds() },
		EnableAtModifier:         true, EnableNegativeOffset: true, Parser: p,
	})
	handler := web.New(slog.New(slog.DiscardHandler), &web.Options{
		Context: ctx, ListenAddresses: []string{l.Addr().String()}, ReadTimeout: time.Minute, MaxConnections: 512,
		LocalStorage: &tsdbAdapter{db}, Storage: db, ExemplarStorage: db, QueryEngine: engine, LookbackDelta: 5 * time.Minute,
		ScrapeManager: &scrape.Manager{}, RuleManager: &rules.Manager{}, Notifier: &notifier.Manager{},
		RoutePrefix: "/", ExternalURL: &url.URL{Scheme: "http", Host: l.Addr().String(), Path: "/"}, CORSOrigin: regexp.MustCompile("^$"),
		RemoteReadSampleLimit: 50_000_000, RemoteReadConcurrencyLimit: 10, RemoteReadBytesInFrame: 1 << 20,
		Version: &web.PrometheusVersion{Version: "3.15.0"}, Flags: map[string]string{"query.lookback-delta": "5m"},
		Gatherer: prometheus.NewRegistry(), Registerer: prometheus.NewRegistry(), Parser: p,
	})
	if err := handler.ApplyConfig(&config.Config{GlobalConfig: config.DefaultGlobalConfig}); err != nil {
		return err
	}
	handler.SetReady(web.Ready)
	return handler.Run(ctx, []net.Listener{l}, "")
}

// tsdbAdapter is what Prometheus' command makes of its storage.
type tsdbAdapter struct{ *tsdb.DB }

func (a *tsdbAdapter) BlockMetas() ([]tsdb.BlockMeta, error) { return a.DB.BlockMetas(), nil }

func (a *tsdbAdapter) Stats(label string, limit int) (*tsdb.Stats, error) {
	return a.Head().Stats(label, limit), nil
}

func (*tsdbAdapter) WALReplayStatus() (tsdb.WALReplayStatus, error) {
	return tsdb.WALReplayStatus{}, nil
}
