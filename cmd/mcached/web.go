package main

import (
	"io"
	"net/http"
	"net/http/pprof"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// handler sends each path to the package that answers it.
func (d *daemon) handler() http.Handler {
	mux := http.NewServeMux()
	writes := d.http.count("write", d.writeHandler())
	for _, p := range writePaths {
		mux.Handle(p, writes)
	}
	d.handle(mux, "query", d.queries, "/api/v1/", "GET /federate")
	d.handle(mux, "query", d.selfAPI(), selfPath+"/api/v1/")
	d.handle(mux, "page", servePage(), append([]string{"GET /page/{file}"}, pageViews...)...)
	d.handle(mux, "page", http.HandlerFunc(redirectToExplore), prometheusViews...)
	d.handle(mux, "page", http.HandlerFunc(d.serveRegions), "GET /api/v1/status/regions")
	d.handle(mux, "page", http.HandlerFunc(d.serveSelf), "GET /api/v1/status/self")
	d.handle(mux, "page", http.HandlerFunc(d.serveCluster), "GET /api/v1/status/cluster")
	d.handle(mux, "cluster", http.HandlerFunc(d.serveOwed), "POST "+owedPath)
	d.handle(mux, "metrics", promhttp.HandlerFor(d.registry, promhttp.HandlerOpts{Registry: d.registry, EnableOpenMetrics: true}), "/metrics")
	d.handle(mux, "health", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "mcached is healthy.\n")
	}), "/-/healthy")
	d.handle(mux, "health", http.HandlerFunc(d.serveReady), "/-/ready")
	d.handle(mux, "admin", http.NewCrossOriginProtection().Handler(d.allowAdmin(http.HandlerFunc(d.serveSnapshot))), "POST /-/snapshot")
	d.handle(mux, "admin", d.allowAdmin(http.HandlerFunc(d.serveSnapshotProgress)), "GET /-/snapshot/progress")
	d.handle(mux, "admin", http.NewCrossOriginProtection().Handler(d.allowAdmin(http.HandlerFunc(d.serveReload))), "POST /-/reload", "PUT /-/reload")
	if d.config.webDebug {
		d.handle(mux, "debug", http.HandlerFunc(pprof.Index), "/debug/pprof/")
		d.handle(mux, "debug", http.HandlerFunc(pprof.Profile), "/debug/pprof/profile")
		d.handle(mux, "debug", http.HandlerFunc(pprof.Symbol), "/debug/pprof/symbol")
		d.handle(mux, "debug", http.HandlerFunc(pprof.Trace), "/debug/pprof/trace")
	}
	// Finding one of so many patterns is the fortieth part of a small remote write. The
	// mux has these, too: it redirects other spellings of their paths.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if slices.Contains(writePaths, r.URL.Path) {
			writes.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// writeHandler answers remote writes. Web pages of others may not write: a
// browser would let them, without a content type.
func (d *daemon) writeHandler() http.Handler {
	return http.NewCrossOriginProtection().Handler(d.circle.refuse(d.keepSelf(d.writes)))
}

// writePaths take remote writes; the last two are Cortex' and old Prometheus'.
var writePaths = []string{"/api/v1/write", "/api/v1/push", "/write"}

// readPaths begin so: those of Prometheus' API.
const readPaths = "/api/v1/"

// serveReady answers whether requests are welcome: not before every listener
// is open, and not once the end has begun, so that a load balancer looks
// elsewhere while the last requests finish.
func (d *daemon) serveReady(w http.ResponseWriter, _ *http.Request) {
	if !d.ready.Load() {
		http.Error(w, "mcached is starting or stopping.", http.StatusServiceUnavailable)
		return
	}
	if !d.node.met() {
		http.Error(w, "mcached looks for the other members of its cluster.", http.StatusServiceUnavailable)
		return
	}
	if !d.node.ready() {
		http.Error(w, "mcached is being sent what it owns by the other members of its cluster.", http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, "mcached is ready.\n")
}

// handle routes paths to h and counts what passes under one name, so that the
// series do not multiply with what clients ask for.
func (d *daemon) handle(mux *http.ServeMux, name string, h http.Handler, paths ...string) {
	counted := d.http.count(name, h)
	for _, p := range paths {
		mux.Handle(p, counted)
	}
}

// httpMetrics are the metrics that HTTP requests make as they go by, rather
// than Stats that are read when someone asks.
type httpMetrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	inFlight *prometheus.GaugeVec
	underWay atomic.Int64 // sum of inFlight
}

// httpRows describe them; rows cannot, because they are not read from Stats.
var httpRows = [...]struct {
	name, kind, help string
	labels           []string
}{
	{"mcached_http_requests_total", "counter", "HTTP requests answered, by status code.", []string{"handler", "code"}},
	{"mcached_http_request_duration_seconds", "histogram", "Time from the request's head to the end of its answer.", []string{"handler"}},
	{"mcached_http_requests_in_flight", "gauge", "HTTP requests being answered.", []string{"handler"}},
}

func newHTTPMetrics() *httpMetrics {
	requests, seconds, inFlight := httpRows[0], httpRows[1], httpRows[2]
	return &httpMetrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: requests.name, Help: requests.help}, requests.labels),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: seconds.name, Help: seconds.help,
			// From what one series takes to what a slow network takes, in steps of about three.
			Buckets: []float64{.0003, .001, .003, .01, .03, .1, .3, 1, 3, 10}}, seconds.labels),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: inFlight.name, Help: inFlight.help}, inFlight.labels),
	}
}

func (m *httpMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.seconds, m.inFlight}
}

// count wraps h. The series of a handler exist from the start, with zeros, so
// that a rate over the first request is not lost.
func (m *httpMetrics) count(name string, h http.Handler) http.Handler {
	seconds, inFlight := m.seconds.WithLabelValues(name), m.inFlight.WithLabelValues(name)
	requests := codeCounter{of: m.requests, handler: name}
	requests.with(http.StatusOK)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		inFlight.Inc()
		m.underWay.Add(1)
		cw := &codeWriter{ResponseWriter: w, code: http.StatusOK}
		defer func() { // a panic is net/http's to log; the request is counted all the same
			inFlight.Dec()
			m.underWay.Add(-1)
			seconds.Observe(time.Since(start).Seconds())
			requests.with(cw.code).Inc()
		}()
		h.ServeHTTP(cw, r)
	})
}

// codeCounter counts the requests of one handler by status code. It remembers the
// counter of the last code, which is that of the next, too.
type codeCounter struct {
	of      *prometheus.CounterVec
	handler string
	last    atomic.Pointer[codeCount]
}

type codeCount struct {
	code int
	prometheus.Counter
}

func (c *codeCounter) with(code int) prometheus.Counter {
	if last := c.last.Load(); last != nil && last.code == code {
		return last.Counter
	}
	n := &codeCount{code, c.of.WithLabelValues(c.handler, strconv.Itoa(code))}
	c.last.Store(n)
	return n.Counter
}

// codeWriter remembers the status code. http.ResponseController finds flushing
// and deadlines through Unwrap.
type codeWriter struct {
	http.ResponseWriter
	code  int
	wrote bool
}

// WriteHeader implements http.ResponseWriter.
func (w *codeWriter) WriteHeader(code int) {
	if !w.wrote && code >= 200 {
		w.code, w.wrote = code, true
	}
	w.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (w *codeWriter) Write(b []byte) (int, error) {
	w.wrote = true
	return w.ResponseWriter.Write(b)
}

// Flush implements http.Flusher, for streamed answers that ask for it the old way.
func (w *codeWriter) Flush() {
	w.wrote = true
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController.
func (w *codeWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
