package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/common/version"

	"mcached/kvcache"
	"mcached/mcache/query"
)

// config is what the command line and the environment say, checked as far as
// that goes without opening a port.
type config struct {
	webListen         []string
	webConfigFile     string
	webSettings       *webSettings // by webConfigFile
	webAllowedHosts   []string     // beyond what is known without
	webMaxConnections count
	webReadTimeout    duration
	webDebug          truth
	webAdmin          truth

	respListen       string // empty: no TCP for RESP
	respSocket       string // empty: no socket of the file system for RESP
	respSocketMode   permissions
	respProtected    truth
	respPasswordFile string
	respPassword     string // the content of respPasswordFile
	respTLSCertFile  string
	respTLSKeyFile   string
	respCertificate  *heldCertificate // of the two above; nil: no TLS
	respMaxClients   count
	respIdleTimeout  duration
	respMaxTracked   count
	respDatabases    count
	respMaxValue     byteSize
	scriptTimeout    duration
	scriptMemory     byteSize
	scriptSteps      count
	respMaxKeys      byteSize // 0: by the heap's limit

	memorySize   byteSize // 0: automatic
	memoryKeep   byteSize // 0: by the law's own default
	memoryShares shares
	memoryHeap   byteSize // 0: by GOMEMLIMIT, or by what the machine has

	snapshotPath string // empty: none

	forward forwardConfig
	cluster clusterConfig

	selfScrape    duration // 0: off
	selfInstance  string   // empty: host name and port
	selfForward   truth
	tenancyHeader string // empty: one bucket for all
	shutdown      duration

	queryTimeout        duration
	queryMaxSamples     count
	queryMaxConcurrency count
	queryMaxSeries      count
	queryMaxBody        byteSize
	enableFeatures      featureList
	upstream            upstreamConfig
	queryLookback       duration
	querySlow           duration // 0: none is logged
	corsOrigin          origin
	compressLocal       truth
	queryRemember       truth

	writeMaxBody       byteSize
	writeMaxDecoded    byteSize
	writeMaxSamples    count
	writeMaxNewSeries  natural // a second; 0: no bound
	writeMaxLabels     count
	writeMaxLabelName  byteSize
	writeMaxLabelValue byteSize
	writeMaxAhead      duration
	writeMaxExemplars  count
	writeExemplarSize  byteSize
	writeMaxMetadata   count
	writeMetadataSize  byteSize

	maxBuckets         count
	bucketMaxSeries    natural // 0: no bound
	bucketMaxPerMetric natural // 0: no bound
	bucketLimits       bucketLimits

	maxInFlight byteSize
	maxRequests count

	log promslog.Config

	flags map[string]string // all of the above, as spelt
	args  []string          // that all of it was read from, with the environment
}

// The least budgets that leave room for the indexes and a few regions per
// shard, the shortest time between two self-scrapes, and the longest password.
const (
	minMemoryBytes   = 8 << 20
	minHeapBytes     = 32 << 20
	minScrape        = time.Second
	maxPasswordBytes = 4 << 10
)

// addFlag declares a flag with its default in words.
type addFlag func(name, byDefault string, v kingpin.Value, help string)

// newServeApp declares the flags of the daemon. Each is also read from the
// environment, as MCACHED_WEB_LISTEN_ADDRESS for --web.listen-address.
func newServeApp(c *config) *kingpin.Application {
	app := kingpin.New("mcached", "A metrics ingestion cache: remote write in, PromQL and Redis clients out, in memory that it gives back.\n\n"+
		"Other commands: mcached query, stats, cluster, snapshot, reload, healthy, metrics, check-config, version (mcached help COMMAND).")
	app.HelpFlag.Short('h')
	app.HelpFlag.NoEnvar() // a stray MCACHED_VERSION in the environment must not end the daemon
	app.Version(version.Print("mcached"))
	app.VersionFlag.NoEnvar()
	app.UsageWriter(os.Stdout)
	app.DefaultEnvars()
	add := func(name, byDefault string, v kingpin.Value, help string) {
		f := app.Flag(name, help).Default(byDefault).PlaceHolder(byDefault)
		if words, ok := v.(*oneOf); ok {
			f.HintOptions(words.of...)
		}
		f.SetValue(namedValue{v, name})
	}

	c.addWebFlags(app, add)
	c.addRESPFlags(app, add)
	c.addMemoryFlags(add)
	app.Flag("snapshot.path", "File that the metric cache is written to at a stop, at SIGUSR1 or by mcached snapshot, and read from at a start; empty for none.").
		PlaceHolder("FILE").StringVar(&c.snapshotPath)

	c.forward.addFlags(app, add)
	c.cluster.addFlags(app, add)

	add("self-scrape.interval", "15s", &c.selfScrape,
		"How often the daemon stores its own metrics in itself; 0 turns it off.")
	app.Flag("self-scrape.instance", "Label instance of the daemon's own metrics; by default the host's name and the port.").
		PlaceHolder("HOST:PORT").StringVar(&c.selfInstance)
	add("self-scrape.forward", "false", &c.selfForward,
		"Forward the daemon's own metrics to --forward.url, too.")
	app.Flag("tenancy.header", "HTTP header that names the bucket of a request, as X-Scope-OrgID; empty puts all in one bucket. It is trusted: use it only behind a proxy that sets it.").
		PlaceHolder("NAME").StringVar(&c.tenancyHeader)

	c.addQueryFlags(add)
	c.upstream.addFlags(app, add)
	app.Flag("enable-feature", "Features of PromQL that have to be asked for, as in Prometheus: "+strings.Join(query.FeatureNames(), ", ")+". Between commas, repeatable; those that are always on change nothing.").
		PlaceHolder("NAMES").SetValue(namedValue{&c.enableFeatures, "enable-feature"})

	add("web.cors.origin", "", &c.corsOrigin,
		"Regular expression for the origins whose web pages may read, as https?://grafana\\.example; empty for none.")
	add("web.compress-local", "false", &c.compressLocal,
		"Compress answers for clients on this machine, too: for those that come through a tunnel, or a proxy that sets no X-Forwarded-For.")
	c.addWriteFlags(add)
	c.addBucketFlags(app, add)
	add("admission.max-in-flight-size", "0", &c.maxInFlight,
		"Bytes in flight for all clients together: requests before and after decompression, results, answers that are not read yet. Requests beyond it are rejected, to be retried (503, -BUSY). 0 means half of the heap's limit, and at least room for the largest write.")
	add("admission.max-requests", "1024", &c.maxRequests,
		"Writes in progress at a time; more are rejected, to be retried (503).")

	add("shutdown.timeout", "10s", &c.shutdown,
		"Longest time, when asked to stop, to finish requests in progress and to forward waiting samples.")
	c.log.Level, c.log.Format = promslog.NewLevel(), promslog.NewFormat()
	add("log.level", "info", spelt{c.log.Level, "debug, info, warn or error"}, "Least severity to log: debug, info, warn or error.")
	add("log.format", "logfmt", spelt{c.log.Format, "logfmt or json"}, "Format of log lines: logfmt or json.")
	return app
}

func (c *config) addWebFlags(app *kingpin.Application, add addFlag) {
	app.Flag("web.listen-address", "Address for remote write, queries, the status page and metrics. Repeatable.").
		Default("127.0.0.1:9201").StringsVar(&c.webListen)
	app.Flag("web.config.file", "File that turns on TLS or basic authentication for HTTP, in exporter-toolkit's format.").
		PlaceHolder("FILE").StringVar(&c.webConfigFile)
	app.Flag("web.allowed-host", "Name that requests to a loopback address may be for, beside localhost and this machine's: of a proxy that passes on the Host header. Repeatable; * for any.").
		PlaceHolder("NAME").StringsVar(&c.webAllowedHosts)
	add("web.max-connections", "1024", &c.webMaxConnections,
		"HTTP connections at a time, for each address. Beyond them, idle ones are closed.")
	add("web.read-timeout", "1m", &c.webReadTimeout,
		"Longest time to read one HTTP request, and an idle connection's life.")

	add("web.enable-debug", "false", &c.webDebug,
		"Serve profiles of the daemon at /debug/pprof/.")
	add("web.enable-admin", "false", &c.webAdmin,
		"Let clients on other machines request snapshots and reloads, not only those on this one.")
}

func (c *config) addRESPFlags(app *kingpin.Application, add addFlag) {
	app.Flag("resp.listen-address", "Address for Redis clients; off turns them off, as does an empty one.").
		Default("127.0.0.1:6379").StringVar(&c.respListen)
	app.Flag("resp.unix-socket", "Path of a socket for Redis clients on this machine, beside the address or without one.").
		PlaceHolder("PATH").StringVar(&c.respSocket)
	add("resp.unix-socket-permissions", "700", &c.respSocketMode,
		"Permissions of that socket, in octal: who may write to it may connect.")
	add("resp.protected-mode", "true", &c.respProtected,
		"Refuse to serve Redis clients beyond loopback without a password.")
	app.Flag("resp.password-file", "File with the password that Redis clients must give.").
		PlaceHolder("FILE").StringVar(&c.respPasswordFile)
	app.Flag("resp.tls-cert-file", "Certificate (PEM) for Redis clients; with --resp.tls-key-file turns TLS on.").
		PlaceHolder("FILE").StringVar(&c.respTLSCertFile)
	app.Flag("resp.tls-key-file", "Key (PEM) of --resp.tls-cert-file.").
		PlaceHolder("FILE").StringVar(&c.respTLSKeyFile)
	add("resp.max-clients", "10000", &c.respMaxClients,
		"Redis connections at a time. Beyond it connections that have not authenticated, then idle ones, are closed for new ones.")
	add("resp.idle-timeout", "0s", &c.respIdleTimeout,
		"Redis connections that ask nothing for this long are closed, unless they listen to channels or monitor; 0s closes none. CONFIG SET timeout changes it, too.")
	add("resp.databases", "16", &c.respDatabases,
		"Databases that Redis clients can SELECT, at most 256. Time series are in number 0.")

	add("resp.max-tracked-keys", "1000000", &c.respMaxTracked,
		"Keys that are remembered for clients with CLIENT TRACKING, at 256 bytes each beside their names, in at most an eighth of the heap's limit. Beyond it some are invalidated.")
	add("resp.max-value-size", "64MiB", &c.respMaxValue,
		"Longest value of a Redis client, at most 512MiB. Its memory is taken as it comes, of --admission.max-in-flight-size; a quarter of the cache's memory bounds it too.")
	add("resp.script-timeout", "5s", &c.scriptTimeout,
		"Longest time that a Lua script of a Redis client runs. Nobody else is served meanwhile; others are told so after a fifth of it.")
	add("resp.script-max-memory", "64MiB", &c.scriptMemory,
		"Bytes of Go heap that a Lua script may take. One runs at a time.")
	add("resp.script-max-instructions", "1000000000", &c.scriptSteps,
		"Instructions that a Lua script may run.")
	add("resp.max-keys-size", "0", &c.respMaxKeys,
		"Bytes for the keys that TS.CREATE and TS.ADD name, with their labels and options; 0 means an eighth of the heap's limit.")
}

func (c *config) addMemoryFlags(add addFlag) {
	add("memory.size", "0", &c.memorySize,
		"Bytes for everything cached, as 512MiB or 2GiB; 0 takes what the machine has to spare.")
	add("memory.keep-available", "0", &c.memoryKeep,
		"Bytes to leave available to the rest of the machine when --memory.size is 0; 0 means the larger of 512MiB and 5 %, but at most a quarter.")
	add("memory.metrics-share", "100%", &c.memoryShares.metrics,
		"Share of the memory that metrics may hold. Below 100%, series beyond it are moved to overflow even if memory is free.")
	add("memory.overflow-share", "25%", &c.memoryShares.overflow,
		"Share of the memory that evicted series (overflow) may hold when memory is short; until then they may use all that is free.")
	add("memory.blobs-share", "50%", &c.memoryShares.blobs,
		"Share of the memory that Redis clients' values may hold when memory is short; until then they may use all that is free.")
	add("memory.answers-share", "10%", &c.memoryShares.answers,
		"Share of the memory that what is remembered of queries may hold when memory is short, answers of --query.upstream and results computed here; until then it may use all that is free.")
	add("memory.heap-limit", "0", &c.memoryHeap,
		"Soft limit of the Go heap, which is not part of --memory.size; 0 means GOMEMLIMIT if set, else an eighth of the machine or control group between 256MiB and 2GiB, and with a fixed --memory.size at most half of what that leaves.")
}

func (c *config) addQueryFlags(add addFlag) {
	add("query.timeout", "2m", &c.queryTimeout,
		"Longest time a query may take.")
	add("query.max-samples", "50000000", &c.queryMaxSamples,
		"Samples a query may hold in memory.")
	add("query.max-concurrency", "20", &c.queryMaxConcurrency,
		"Queries at a time. More wait, up to a fifth of --web.max-connections and 1000; the rest are rejected (503).")
	add("query.max-series", "1000000", &c.queryMaxSeries,
		"Series one selector may match.")
	add("query.max-body-size", "8MiB", &c.queryMaxBody,
		"Body of one query: a panel that lists all of 100,000 pods takes about 4MiB.")
	add("query.lookback-delta", "5m", &c.queryLookback,
		"How old the last sample of a series may be for an instant value.")
	add("query.remember-results", "true", &c.queryRemember,
		"Remember what aggregations over time came to (--memory.answers-share), so that a second look computes what is new. A daemon of a cluster does not.")
	add("query.log-slower-than", "1s", &c.querySlow,
		"Log queries and remote reads that take at least this long, at most ten a second; 0 logs none.")
}

func (c *config) addWriteFlags(add addFlag) {
	add("remote-write.max-body-size", "32MiB", &c.writeMaxBody,
		"Body of one remote-write request before decompression.")
	add("remote-write.max-decoded-size", "64MiB", &c.writeMaxDecoded,
		"Body of one remote-write request after decompression.")
	add("remote-write.max-samples", "1000000", &c.writeMaxSamples,
		"Samples of one remote-write request.")
	add("remote-write.max-new-series", "0", &c.writeMaxNewSeries,
		"Series created a second; a burst may have half a minute's worth. Beyond it known series are written and new ones are rejected, to be retried (503). 0 for no bound.")
	add("remote-write.max-labels", "128", &c.writeMaxLabels,
		"Labels of one series.")
	add("remote-write.max-label-name-size", "1KiB", &c.writeMaxLabelName,
		"Bytes of a label's name.")
	add("remote-write.max-label-value-size", "16KiB", &c.writeMaxLabelValue,
		"Bytes of a label's value.")
	add("remote-write.max-time-ahead", "10m", &c.writeMaxAhead,
		"How far ahead of this machine's clock a sample may be; samples further ahead are rejected (400).")
	add("remote-write.max-exemplars", "10000", &c.writeMaxExemplars,
		"Exemplars kept, of all series together: the latest.")
	add("remote-write.max-exemplars-size", "8MiB", &c.writeExemplarSize,
		"Memory for exemplars and the labels of their series, beside --memory.size.")
	add("remote-write.max-metadata", "20000", &c.writeMaxMetadata,
		"Metrics of which type, help and unit are kept. Metadata of further ones is dropped.")
	add("remote-write.max-metadata-size", "8MiB", &c.writeMetadataSize,
		"Bytes of names, helps and units of metrics, beside --memory.size.")
}

func (c *config) addBucketFlags(app *kingpin.Application, add addFlag) {
	add("bucket.max-buckets", "1024", &c.maxBuckets,
		"Buckets at a time, at most 65535. A new one replaces one without a series; if all have series, writes to new buckets are rejected (503, -BUSY).")
	add("bucket.max-series", "0", &c.bucketMaxSeries,
		"Series of one bucket, whoever writes them. Beyond it known series are written and new ones are rejected (400). 0 for no bound.")
	add("bucket.max-series-per-metric", "0", &c.bucketMaxPerMetric,
		"Series of one metric name in one bucket, likewise. 0 for no bound.")
	app.Flag("bucket.limits", "Limits of one bucket instead of the two above, as team-a:max-series=500000,max-series-per-metric=20000. Repeatable; in the environment one a line.").
		PlaceHolder("BUCKET:LIMITS").SetValue(namedValue{&c.bucketLimits, "bucket.limits"})
}

// parseConfig reads the command line. Its errors are one line, fit to be
// printed as they are.
func parseConfig(args []string) (*config, error) {
	c := &config{args: args}
	app := newServeApp(c)
	args, err := spellBooleans(app, args)
	if err != nil {
		return nil, err
	}
	if _, err := app.Parse(args); err != nil {
		unexpected := strings.HasPrefix(err.Error(), "unexpected ")
		if unexpected {
			err = fmt.Errorf("%w; the commands are query, stats, cluster, snapshot, reload, healthy, metrics, check-config and version; without a command mcached serves", err)
		}
		if (unexpected || strings.HasPrefix(err.Error(), "unknown ")) && slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "@") }) {
			err = fmt.Errorf("%w; a file that @ names has one flag a line, as --memory.size=1GiB", err)
		}
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	c.flags = map[string]string{}
	for _, f := range app.Model().Flags {
		if !f.Hidden && f.Name != "help" && f.Name != "version" {
			c.flags[f.Name] = f.Value.String()
		}
	}
	return c, nil
}

// check holds values against each other and reads the files that flags name.
func (c *config) check() error {
	for _, a := range c.webListen {
		if _, err := hostOf(a); err != nil {
			return fmt.Errorf("--web.listen-address must be host:port as 127.0.0.1:9201, got %q", a)
		}
	}
	for _, name := range c.webAllowedHosts {
		if strings.ContainsAny(name, ":/") {
			return fmt.Errorf("--web.allowed-host must be a name without scheme and port, as metrics.example, got %q", name)
		}
	}
	if c.memorySize != 0 && c.memorySize < minMemoryBytes {
		return fmt.Errorf("--memory.size must be 0 or at least 8MiB, got %s", &c.memorySize)
	}
	if c.memorySize != 0 && c.memoryKeep != 0 {
		return fmt.Errorf("--memory.size fixes the size and --memory.keep-available lets it follow the machine: give one of them")
	}
	if c.memoryHeap != 0 && c.memoryHeap < minHeapBytes {
		return fmt.Errorf("--memory.heap-limit must be 0 or at least 32MiB, got %s", &c.memoryHeap)
	}
	if c.maxBuckets > 1<<16-1 {
		return fmt.Errorf("--bucket.max-buckets must be at most 65535, got %d", c.maxBuckets)
	}
	if c.selfScrape != 0 && time.Duration(c.selfScrape) < minScrape {
		return fmt.Errorf("--self-scrape.interval must be 0 or at least 1s, got %s", &c.selfScrape)
	}
	for _, d := range []struct {
		flag  string
		value duration
	}{
		{"web.read-timeout", c.webReadTimeout}, {"query.timeout", c.queryTimeout},
		{"query.lookback-delta", c.queryLookback}, {"shutdown.timeout", c.shutdown}, {"remote-write.max-time-ahead", c.writeMaxAhead},
	} {
		if d.value == 0 {
			return fmt.Errorf("--%s must be more than 0", d.flag)
		}
	}
	for _, s := range []struct {
		flag  string
		value byteSize
	}{
		{"remote-write.max-body-size", c.writeMaxBody}, {"remote-write.max-decoded-size", c.writeMaxDecoded},
		{"remote-write.max-label-name-size", c.writeMaxLabelName}, {"remote-write.max-label-value-size", c.writeMaxLabelValue},
		{"remote-write.max-exemplars-size", c.writeExemplarSize}, {"remote-write.max-metadata-size", c.writeMetadataSize},
		{"query.max-body-size", c.queryMaxBody},
	} {
		if s.value == 0 {
			return fmt.Errorf("--%s must be more than 0", s.flag)
		}
	}
	if largest := c.largestWrite(); c.maxInFlight != 0 && c.maxInFlight < largest {
		return fmt.Errorf("--admission.max-in-flight-size of %s is below %s, which the largest write of --remote-write.max-body-size and --remote-write.max-decoded-size needs: it would never be admitted",
			&c.maxInFlight, &largest)
	}
	if !validHeaderName(c.tenancyHeader) {
		return fmt.Errorf("--tenancy.header is not a header's name: %q", c.tenancyHeader)
	}
	if err := c.upstream.check(c.webListen); err != nil {
		return err
	}
	if err := c.forward.check(c.tenancyHeader, c.webListen); err != nil {
		return err
	}
	var err error
	if c.webSettings, err = readWebSettings(c.webConfigFile); err != nil {
		return fmt.Errorf("--web.config.file: %w", err)
	}
	if err := c.checkRESP(); err != nil {
		return err
	}
	return c.checkCluster()
}

func (c *config) checkRESP() error {
	if c.respDatabases > kvcache.MaxDatabases {
		return fmt.Errorf("--resp.databases must be at most %d, got %d", kvcache.MaxDatabases, c.respDatabases)
	}
	switch {
	case c.respMaxValue < 64<<10 || c.respMaxValue > kvcache.MaxLargeBytes:
		return fmt.Errorf("--resp.max-value-size must be from 64KiB to 512MiB, got %s", &c.respMaxValue)
	case c.scriptTimeout.std() <= 0:
		return errors.New("--resp.script-timeout must be above 0: nobody else is served while a script runs")
	case c.scriptMemory < 1<<20 || c.scriptMemory > 1<<30:
		return fmt.Errorf("--resp.script-max-memory must be from 1MiB to 1GiB, got %s", &c.scriptMemory)
	case c.scriptSteps < 1000 || c.scriptSteps > 1<<30:
		return fmt.Errorf("--resp.script-max-instructions must be from 1000 to %d, got %d", 1<<30, c.scriptSteps)
	}
	if (c.respTLSCertFile == "") != (c.respTLSKeyFile == "") {
		return fmt.Errorf("--resp.tls-cert-file and --resp.tls-key-file come together or not at all")
	}
	if c.respTLSCertFile != "" {
		c.respCertificate = &heldCertificate{certFile: c.respTLSCertFile, keyFile: c.respTLSKeyFile}
		if err := c.respCertificate.read(); err != nil {
			return fmt.Errorf("--resp.tls-cert-file and --resp.tls-key-file: %w", err)
		}
	}
	if c.respPasswordFile != "" {
		p, err := readPassword(c.respPasswordFile)
		if err != nil {
			return fmt.Errorf("--resp.password-file: %w", err)
		}
		c.respPassword = p
	}
	if c.respSocket != "" {
		if err := checkSocketPath(c.respSocket); err != nil {
			return err
		}
	}
	if c.respListen == "off" { // an empty variable of the environment counts as none
		c.respListen = ""
	}
	if c.respListen == "" {
		return nil
	}
	host, err := hostOf(c.respListen)
	if err != nil {
		return fmt.Errorf("--resp.listen-address must be host:port as 127.0.0.1:6379, or empty, got %q", c.respListen)
	}
	if bool(c.respProtected) && c.respPassword == "" && !isLoopback(host) {
		return fmt.Errorf("--resp.listen-address=%s is open to others without a password: give --resp.password-file, or allow it by --resp.protected-mode=false", c.respListen)
	}
	return nil
}

// heldCertificate is a certificate that can be read again.
type heldCertificate struct {
	certFile, keyFile string
	inForce           atomic.Pointer[tls.Certificate]
}

func (h *heldCertificate) read() error {
	c, err := tls.LoadX509KeyPair(h.certFile, h.keyFile)
	if err == nil {
		h.inForce.Store(&c)
	}
	return err
}

// config is of a server with the certificate that is in force at each handshake.
func (h *heldCertificate) config() *tls.Config {
	if h == nil {
		return nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return h.inForce.Load(), nil }}
}

// hostOf is the host of host:port, whose port is a number or the name of one.
func hostOf(address string) (host string, err error) {
	host, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	return host, err
}

// impossiblePort reports whether u names a port that no server has.
func impossiblePort(u *url.URL) bool {
	n, err := strconv.ParseUint(u.Port(), 10, 16)
	return u.Port() != "" && (err != nil || n == 0)
}

// isLoopback says whether only this machine can reach a listener on host. An
// empty host listens everywhere; a name counts if it is localhost, so that no
// resolver decides what is protected.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// readPassword gives the file's first line; the rest must be empty, so that a
// wrong file is noticed.
func readPassword(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	b = bytes.TrimRight(b, "\r\n")
	switch {
	case len(b) == 0:
		return "", fmt.Errorf("%s is empty", path)
	case len(b) > maxPasswordBytes:
		return "", fmt.Errorf("%s: a password is at most %d bytes, got %d", path, maxPasswordBytes, len(b))
	case bytes.ContainsAny(b, "\r\n"):
		return "", fmt.Errorf("%s: a password is one line, got several", path)
	}
	return string(b), nil
}

// validHeaderName accepts the empty name, which means no header.
func validHeaderName(s string) bool {
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_') {
			return false
		}
	}
	return true
}

// std is the plain value: the packages know nothing of flags.
func (d duration) std() time.Duration { return time.Duration(d) }

// queryFlags are those of the query API, for the same texts.
var queryFlags = map[string]string{"MaxSeries": "--query.max-series", "MaxReadQueries": "no setting changes it", "MaxReadBytes": "no setting changes it"}

// writeFlags are the flags that set options of the receivers, of both doors,
// and limits of the cache, for the texts that name them.
var writeFlags = map[string]string{
	"MaxBodyBytes":           "--remote-write.max-body-size",
	"MaxDecodedBytes":        "--remote-write.max-decoded-size",
	"MaxSamples":             "--remote-write.max-samples",
	"MaxNewSeriesPerSecond":  "--remote-write.max-new-series",
	"MaxLabels":              "--remote-write.max-labels",
	"MaxLabelNameBytes":      "--remote-write.max-label-name-size",
	"MaxLabelValueBytes":     "--remote-write.max-label-value-size",
	"MaxAhead":               "--remote-write.max-time-ahead",
	"MaxKeyBytes":            "--resp.max-keys-size",
	"ScriptTimeout":          "--resp.script-timeout",
	"MaxBulkBytes":           "--resp.max-value-size",
	"MaxScriptBytes":         "--resp.script-max-memory",
	"MaxScriptSteps":         "--resp.script-max-instructions",
	"MaxBuckets":             "--bucket.max-buckets",
	"Limits.Series":          "--bucket.max-series or --bucket.limits",
	"Limits.SeriesPerMetric": "--bucket.max-series-per-metric or --bucket.limits",
}
