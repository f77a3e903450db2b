package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/oklog/run"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"

	"mcached/ingest"
	"mcached/ingest/admission"
	"mcached/ingest/cluster"
	"mcached/kvcache"
	"mcached/kvcache/pressure"
	"mcached/mcache"
	"mcached/mcache/query"
	"mcached/remotewrite"
	"mcached/remotewrite/route"
	"mcached/remotewrite/send"
)

// daemon holds what has been opened.
type daemon struct {
	config   *config                           // as it was at the start
	live     atomic.Pointer[config]            // with what a reload has changed, see applicable
	flags    atomic.Pointer[map[string]string] // in force, as spelt; immutable
	reloader *reloader
	log      *slog.Logger
	warned   lastWarnings // that it logged
	progress *progress    // of long work

	snapshot *snapshotState // nil: none
	saving   sync.Mutex     // held while one is written

	pressure *pressure.Controller
	memory   *kvcache.Memory
	blobs    *kvcache.Databases
	answers  *kvcache.Cache // that are remembered: see openAnswers; nil if none are
	metrics  *mcache.Cache
	writes   *remotewrite.Handler
	router   *route.Router   // nil: alone
	handover *route.Handover // nil: alone, or nothing is to be handed over
	standby  *route.Standby  // nil: alone, or nothing is forwarded
	queries  *query.API
	registry *prometheus.Registry
	http     *httpMetrics
	started  time.Time
	instance string // label of the daemon's own metrics

	heapLimit    atomic.Int64 // bytes, soft
	ownHeapLimit int64        // the runtime's, before it was set

	sharing sharing // of memory, among its accounts

	forwarder *send.Forwarder // nil: a pure cache
	circle    *circleGuard    // of the forwarder, or nil
	forwardBy *transport      // likewise

	node *node // nil: it is alone
	// joined is that of node, for who may ask before it is there.
	joined atomic.Pointer[cluster.Cluster]

	admission *admission.Pool
	resp      *ingest.Server

	respListeners []net.Listener // none: no RESP
	webListeners  []net.Listener
	connections   connections // bounds at the start, of those that the listeners let in
	webServers    []*plainServer
	webSecurity   *webSecurity

	// ready is what /-/ready answers: true from the moment every listener
	// serves until the first sign of the end.
	ready    atomic.Bool
	deadline time.Time // of the requests under way; set when the end begins
	// outlived is set when a request was still running at its deadline, so
	// that nothing it may touch is taken away.
	outlived atomic.Bool
}

// serve runs the daemon until a signal or a failure ends it.
func serve(c *config, stdout, stderr io.Writer) int {
	d := &daemon{config: c, started: time.Now(), progress: newProgress(stderr)}
	d.live.Store(c)
	d.flags.Store(&c.flags)
	hangup, user1 := catchSignals()
	c.log.Writer = d.progress
	d.log = slog.New(warningHandler{Handler: promslog.New(&c.log).Handler(), kept: &d.warned})
	d.progress.log = d.log
	for _, w := range c.warnings(os.Environ(), machineBytes()) {
		d.log.Warn(w)
	}
	if err := d.open(); err != nil {
		d.close()
		return fail(stderr, exitError, err)
	}
	d.welcome(stdout)
	err := d.run(hangup, user1)
	d.drain()
	if d.config.snapshotPath != "" {
		err = errors.Join(err, d.followSnapshot())
	}
	d.close()
	if err != nil {
		return fail(stderr, exitError, err)
	}
	d.log.Info("Stopped.")
	return exitOK
}

// open does all that can fail, and serves nobody but other members' gossip. Listeners
// come first, but for a look at what must be this daemon's alone: a port that is
// taken is the commonest failure, and costs least to find.
func (d *daemon) open() error {
	if err := d.openSnapshot(); err != nil {
		return err
	}
	if err := d.openListeners(); err != nil {
		return err
	}
	err := d.openMemory()
	if err != nil {
		return err
	}
	if d.blobs, err = kvcache.NewDatabases(kvcache.CacheOptions{Memory: d.memory, Account: accountBlobs, MaxLargeBytes: int(d.config.respMaxValue), Lend: d.lendValue}, int(d.config.respDatabases)); err != nil {
		return err
	}
	if err := d.openAnswers(); err != nil {
		return err
	}
	limits, bucketLimits := d.seriesLimits(d.config)
	if d.metrics, err = mcache.New(mcache.Options{Memory: d.memory, Blobs: true, BlobAccount: accountOverflow, WriteBack: d.config.forward.url != "", Limits: limits, BucketLimits: bucketLimits, LocalBucket: selfBucket,
		MaxBuckets: int(d.config.maxBuckets), KeepBuckets: []string{defaultBucket},
		Now: func() int64 { return time.Now().UnixMilli() }}); err != nil {
		return err
	}
	if err := d.setShares(d.config.memoryShares); err != nil {
		return err
	}
	if err := d.openFrontDoors(); err != nil {
		return err
	}
	if err := d.loadSnapshot(); err != nil {
		return err
	}
	if err := d.openForward(); err != nil {
		return err
	}
	d.openStandby()
	if err := d.openCluster(); err != nil {
		return err
	}
	if err := d.openHandover(); err != nil {
		return err
	}
	d.instance = instanceName(d.config.selfInstance, d.webListeners[0].Addr())
	d.http = newHTTPMetrics()
	d.registry = newRegistry(d)

	d.openWeb()
	d.openReload()
	return nil
}

// openListeners listens for HTTP and for Redis clients. What comes waits until run serves it.
func (d *daemon) openListeners() error {
	d.connections = d.connectionsFor(d.config)
	for _, a := range d.config.webListen {
		l, err := listen("HTTP", a, "choose another with --web.listen-address")
		if err != nil {
			return err
		}
		d.webListeners = append(d.webListeners, limitConns(l, d.connections.web))
	}
	if a := d.config.respListen; a != "" {
		l, err := listen("Redis clients", a, "if that is redis-server, stop it or choose another port with --resp.listen-address (off for none)")
		if err != nil {
			return err
		}
		d.respListeners = append(d.respListeners, l)
	}
	if path := d.config.respSocket; path != "" {
		l, err := listenUnix(path, d.config.respSocketMode)
		if err != nil {
			return err
		}
		d.respListeners = append(d.respListeners, l)
	}
	return nil
}

// openWeb makes the servers of HTTP, one for each listener.
func (d *daemon) openWeb() {
	for _, l := range d.webListeners {
		host, _, err := net.SplitHostPort(l.Addr().String())
		if err == nil && !isLoopback(host) && d.config.webConfigFile == "" {
			d.log.Warn("Anyone who can reach this address may read and write: --web.config.file asks for a password.", "address", l.Addr())
		}
	}
	d.webSecurity = newWebSecurity(d.config.webSettings)
	handler := d.checkHost(d.webSecurity.guard(d.handler()))
	for _, l := range d.webListeners {
		l.(*connLimit).heads = d.admission
		s := newPlainServer(&http.Server{
			Handler:           handler,
			ReadHeaderTimeout: min(readHeaderTimeout, d.config.webReadTimeout.std()),
			ReadTimeout:       d.config.webReadTimeout.std(),
			IdleTimeout:       d.config.webReadTimeout.std(),
			MaxHeaderBytes:    maxHeaderBytes,
			ConnState:         connState,
			ErrorLog:          log.New(&handshakeLog{log: d.log, now: time.Now}, "", 0),
		}, writePaths...)
		s.reads, s.varies = readPaths, http.CanonicalHeaderKey(cluster.Header)
		d.webServers = append(d.webServers, s)
	}
}

// maintainEvery is how often the metric cache does the work that no caller should wait for.
const maintainEvery = time.Second

// How long an HTTP request may take to come.
const (
	readHeaderTimeout = 10 * time.Second
	writeBodyTimeout  = 30 * time.Second // the time after which Prometheus gives up by default
)

// listen opens a TCP port, and when it cannot, says which flag would help.
func listen(what, address, advice string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err == nil {
		return l, nil
	}
	reason := err
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		reason = op.Err // the rest repeats the address
	}
	return nil, cannotListen(what, address, reason, advice)
}

func cannotListen(what, address string, reason error, advice string) error {
	if errors.Is(reason, syscall.EADDRINUSE) {
		return fmt.Errorf("cannot listen for %s on %s: another program does; %s", what, address, advice)
	}
	return fmt.Errorf("cannot listen for %s on %s: %w; %s", what, address, reason, advice)
}

// oneRequestToStop is how long signals are taken for the same request to stop,
// which wrappers pass on to a process that has had it already: timeout(1), and
// make for a Ctrl-C. A later one is impatience, and ends the process at once.
const oneRequestToStop = time.Second

// run starts every actor, and returns when the first that ended has ended all.
func (d *daemon) run(hangup, user1 <-chan os.Signal) error {
	var g run.Group
	stopping, stop := context.WithCancel(context.Background())
	defer stop()

	// The group interrupts in the order of Add: readiness goes first.
	g.Add(func() error {
		<-stopping.Done()
		return nil
	}, func(reason error) {
		d.ready.Store(false)
		notifyStopping()
		timeout := d.live.Load().shutdown.std()
		d.deadline = time.Now().Add(timeout)
		d.log.Info("Stopping.", "reason", reason, "timeout", timeout)
		d.node.leave()
		d.handOver(timeout)
		stop()
	})
	// Asked for before anything serves: the first client may be the one that stops us.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	g.Add(func() error {
		select {
		case sig := <-signals:
			time.AfterFunc(oneRequestToStop, func() { signal.Stop(signals) })
			return &run.SignalError{Signal: sig}
		case <-stopping.Done(): // for another reason
			signal.Stop(signals)
			return nil
		}
	}, func(error) {})
	for i, l := range d.webListeners {
		d.addServer(&g, "HTTP", l, func(l net.Listener) error {
			return d.webSecurity.serve(l, d.webServers[i])
		}, d.webServers[i].Shutdown)
	}
	for _, l := range d.respListeners {
		d.addServer(&g, "RESP", l, d.resp.Serve, d.resp.Shutdown)
	}
	d.addLoops(&g, hangup, user1)

	finished := make(chan func(), 1)
	g.Add(func() error {
		<-stopping.Done()
		finished <- d.progress.follow("Finishing", d.underWay)
		return nil
	}, func(error) {})
	d.ready.Store(true)
	notifyReady()

	err := g.Run()
	(<-finished)()
	if errors.Is(err, run.ErrSignal) {
		return nil
	}
	return err
}

// addLoops adds what runs beside the servers.
func (d *daemon) addLoops(g *run.Group, hangup, user1 <-chan os.Signal) {
	if d.node != nil {
		d.addLoop(g, d.becomeReady)
	}
	if d.handover != nil {
		d.addLoop(g, d.handover.Run)
	}
	if d.standby != nil {
		d.addLoop(g, d.standby.Run)
	}
	d.addLoop(g, d.pressure.Run)
	if d.config.upstream.url != "" {
		d.addLoop(g, func(ctx context.Context) error {
			d.tellUpstream(ctx, func(ctx context.Context) bool {
				select {
				case <-ctx.Done():
					return false
				case <-time.After(query.AskAgainAfter):
					return true
				}
			})
			<-ctx.Done()
			return nil
		})
	}
	d.addLoop(g, func(ctx context.Context) error {
		return every(ctx, maintainEvery, func() {
			d.boundMetrics() // the budget may have changed
			d.metrics.Maintain()
			d.memory.TrimIdle()
			d.boundDirty()
		})
	})
	d.addForwarder(g)
	d.addLoop(g, func(ctx context.Context) error { return d.snapshotLoop(ctx, user1) })
	d.addReloader(g, hangup)
	if interval := d.config.selfScrape.std(); interval > 0 {
		s := &selfScraper{cache: d.metrics, gatherer: d.registry, bucket: defaultBucket, forward: bool(d.config.selfForward), job: selfJob, instance: d.instance,
			interval: interval, now: time.Now, log: d.log}
		d.addLoop(g, s.run)
	}
}

// underWay is what a stop waits for.
func (d *daemon) underWay() string {
	s := fmt.Sprintf("%d requests", d.http.underWay.Load())
	if d.resp != nil {
		s += fmt.Sprintf(", %d Redis clients", d.resp.Stats().Connections)
	}
	if d.forwarder != nil {
		s += fmt.Sprintf(", %d samples to forward", d.forwarder.Stats().DirtyPoints)
	}
	return s
}

// addLoop adds an actor that runs until its context ends.
func (d *daemon) addLoop(g *run.Group, loop func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	g.Add(func() error {
		err := loop(ctx)
		if ctx.Err() != nil {
			return nil // as asked
		}
		return err
	}, func(error) { cancel() })
}

// every calls f again and again until ctx ends.
func every(ctx context.Context, interval time.Duration, f func()) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			f()
		}
	}
}

// addServer adds a listener as an actor. It ends when serve has returned and,
// if the group asked for that, shutdown has too.
func (d *daemon) addServer(g *run.Group, what string, l net.Listener, serve func(net.Listener) error, shutdown func(context.Context) error) {
	done := make(chan struct{})
	g.Add(func() error {
		err := serve(l)
		if d.ready.Load() {
			return fmt.Errorf("%s on %s: %w", what, l.Addr(), err)
		}
		<-done
		return nil
	}, func(error) {
		go func() { // so that all servers have the same deadline; serve above waits for it
			defer close(done)
			ctx, cancel := context.WithDeadline(context.Background(), d.deadline)
			defer cancel()
			if err := shutdown(ctx); err != nil {
				d.outlived.Store(true)
				d.log.Warn("Requests were cut off.", "listener", what, "err", err)
			}
		}()
	})
}

// close takes down what open put up: what others send to first, memory last.
func (d *daemon) close() {
	d.closeRouter()
	d.node.close()
	for _, l := range d.webListeners {
		_ = l.Close() // a server that ran has closed it already
	}
	for _, l := range d.respListeners {
		_ = l.Close()
	}
	if d.resp != nil {
		_ = d.resp.Shutdown(context.Background()) // at once: nothing is served any more
	}
	if d.snapshot != nil {
		d.snapshot.lock.release()
	}
	if d.queries != nil {
		d.queries.Stop()
	}
	if d.outlived.Load() {
		return // someone may still read: the end of the process unmaps
	}
	if d.metrics != nil {
		_ = d.metrics.Close() // it has no errors to report
	}
	if d.answers != nil {
		d.answers.Close()
	}
	if d.blobs != nil {
		d.blobs.Close()
	}
	if d.memory != nil {
		if err := d.memory.Close(); err != nil {
			d.log.Warn("Memory was not unmapped.", "err", err)
		}
	}
}
