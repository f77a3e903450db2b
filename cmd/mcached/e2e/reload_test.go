package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/redis/go-redis/v9"
	"golang.org/x/crypto/bcrypt"
)

// write puts content into a file of a test.
func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// basicAuth is a web.config.file for one user, without TLS.
func basicAuth(t testing.TB, user, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("basic_auth_users: {%s: %q}\n", user, hash)
}

// said waits for something in the log after what was there already.
func (p *process) said(after int, what string) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("the log says %q", what), func() error {
		if !strings.Contains(p.output()[after:], what) {
			return errors.New(tail(p.output()[after:], 5))
		}
		return nil
	})
}

// TestE2ESignals: the signals that would end a process that knows nothing of
// them end nothing: what was acknowledged is there, whatever terminal closes.
func TestE2ESignals(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--self-scrape.interval=0")
	s.send(1, "__name__", "kept")
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE, syscall.SIGHUP} {
		before := len(s.output())
		if err := s.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		switch sig {
		case syscall.SIGHUP:
			s.said(before, "Reloaded.")
		case syscall.SIGUSR1:
			s.said(before, "--snapshot.path")
		}
		if err := s.has("kept"); err != nil {
			t.Errorf("after %v: %v", sig, err)
		}
	}
	if code := s.stop(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

// TestE2EClosedTerminal: a log that nobody reads any more ends nothing either,
// and a stop is as orderly as any.
func TestE2EClosedTerminal(t *testing.T) {
	t.Parallel()
	snapshot := filepath.Join(t.TempDir(), "snapshot")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(daemonBinary(t), "--web.listen-address=127.0.0.1:0", "--resp.listen-address=off", "--memory.size=16MiB", "--snapshot.path="+snapshot)
	c.Stdout, c.Stderr = w, w
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	s := &server{process: &process{t: t}}
	for lines := bufio.NewScanner(r); s.url == "" && lines.Scan(); {
		if m := urlInOutput.FindStringSubmatch(lines.Text()); m != nil {
			s.url = m[1]
		}
	}
	eventually(t, "the daemon is ready", func() error { return s.get("/-/ready", nil) })
	s.send(1, "__name__", "kept")
	r.Close() // what the daemon writes from here on is a broken pipe
	if err := c.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if res, err := http.Post(s.url+"/-/reload", "", nil); err != nil { // the signal's reload comes before, or waits
		t.Error(err)
	} else {
		res.Body.Close()
	}
	if err := s.has("kept"); err != nil {
		t.Error(err)
	}
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("it ended by %v", err)
	}
	if _, err := os.Stat(snapshot); err != nil {
		t.Error(err)
	}
}

// TestE2EReloadRESP: the Redis port takes a new certificate and password, at
// once when asked and soon by itself, and keeps those it has when the new ones
// are wrong.
func TestE2EReloadRESP(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	certFile, keyFile, pool := certificate(t, dir)
	passwordFile := filepath.Join(dir, "password")
	write(t, passwordFile, "first\n")
	s := startServer(t, "--resp.tls-cert-file="+certFile, "--resp.tls-key-file="+keyFile, "--resp.password-file="+passwordFile)
	try := func(password string, pool *x509.CertPool) error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		c := redis.NewClient(&redis.Options{Addr: s.resp, Password: password, TLSConfig: &tls.Config{RootCAs: pool}, MaxRetries: -1})
		defer c.Close()
		return c.Set(ctx, "k", "v", 0).Err()
	}
	if err := try("first", pool); err != nil {
		t.Fatal(err)
	}
	write(t, passwordFile, "second\n")
	_, _, next := certificate(t, dir)
	code, out, errs := invoke(t, "reload", "--url="+s.url)
	if code != exitOK || !strings.Contains(out, "changed: --resp.password-file") || !strings.Contains(out, "changed: --resp.tls-cert-file") {
		t.Errorf("mcached reload: code %d, %q, %q", code, out, errs)
	}
	if err := try("second", next); err != nil {
		t.Errorf("after the reload: %v", err)
	}
	if try("first", next) == nil || try("second", pool) == nil {
		t.Error("what was before is still right")
	}
	// Wrong ones are warned of, and leave all as it is; also those that nobody asks to be read.
	before := len(s.output())
	write(t, passwordFile, "")
	write(t, certFile, "no certificate")
	s.said(before, "--resp.password-file")
	s.said(before, "--resp.tls-cert-file")
	if strings.Count(s.output()[before:], "level=WARN") != 2 || strings.Contains(s.output()[before:], "second") {
		t.Errorf("it says\n%s", s.output()[before:])
	}
	if code, out, errs := invoke(t, "reload", "--url="+s.url); code != exitError || !strings.Contains(errs, "empty") || !strings.Contains(errs, "--resp.tls-cert-file") {
		t.Errorf("mcached reload: code %d, %q, %q", code, out, errs)
	}
	if err := try("second", next); err != nil {
		t.Errorf("with broken files: %v", err)
	}
	// Right ones are taken without being asked.
	_, _, third := certificate(t, dir)
	write(t, passwordFile, "third\n")
	eventually(t, "what is right is taken", func() error { return try("third", third) })
}

// TestE2EReloadWeb is the same of HTTP: a web.config.file that is broken, or
// that names a certificate which is, fails no request.
func TestE2EReloadWeb(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	certFile, keyFile, pool := certificate(t, dir)
	config := filepath.Join(dir, "web.yml")
	tlsLine := fmt.Sprintf("tls_server_config: {cert_file: %q, key_file: %q}\n", filepath.Base(certFile), filepath.Base(keyFile))
	write(t, config, tlsLine+basicAuth(t, "u", "first"))
	p := start(t, daemonBinary(t), "--web.listen-address=127.0.0.1:0", "--resp.listen-address=off", "--memory.size=16MiB", "--web.config.file="+config)
	var url string
	eventually(t, "the daemon says where it listens", func() error {
		p.alive()
		if m := urlInOutput.FindStringSubmatch(p.output()); m != nil {
			url = m[1]
			return nil
		}
		return errors.New(p.output())
	})
	try := func(path, password string, pool *x509.CertPool) (int, error) {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
		defer transport.CloseIdleConnections()
		req, err := http.NewRequest(http.MethodGet, url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if password != "" {
			req.SetBasicAuth("u", password)
		}
		res, err := (&http.Client{Transport: transport, Timeout: patience}).Do(req)
		if err != nil {
			return 0, err
		}
		res.Body.Close()
		return res.StatusCode, nil
	}
	expect := func(when, path, password string, pool *x509.CertPool, want int) {
		t.Helper()
		if code, err := try(path, password, pool); err != nil || code != want {
			t.Errorf("%s: %s with %q: %d, %v, want %d", when, path, password, code, err, want)
		}
	}
	expect("at first", "/metrics", "first", pool, 200)
	expect("at first", "/metrics", "wrong", pool, 401)
	// Probes have no password.
	expect("a probe", "/-/healthy", "", pool, 200)
	expect("a probe", "/-/ready", "", pool, 200)
	if code, out, errs := invoke(t, "healthy", "--ready", "--url="+url); code != exitOK || !strings.Contains(out, "ready") {
		t.Errorf("mcached healthy: code %d, %q, %q", code, out, errs)
	}

	for what, break_ := range map[string]func(){
		"the file":        func() { write(t, config, "tls_server_config: {") },
		"the certificate": func() { write(t, config, tlsLine+basicAuth(t, "u", "other")); write(t, certFile, "x") },
	} {
		before := len(p.output())
		break_()
		p.said(before, "--web.config.file")
		if n := strings.Count(p.output()[before:], "level=WARN"); n != 1 {
			t.Errorf("%s is broken: %d warnings\n%s", what, n, p.output()[before:])
		}
		expect(what+" is broken", "/metrics", "first", pool, 200)
		expect(what+" is broken", "/metrics", "wrong", pool, 401)
	}
	// Turning TLS off is no change that a reload makes; nor one that opens what was closed.
	before := len(p.output())
	write(t, config, "")
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	p.said(before, "restart")
	expect("without TLS in the file", "/metrics", "first", pool, 200)

	before = len(p.output())
	_, _, next := certificate(t, dir)
	write(t, config, tlsLine+basicAuth(t, "u", "second"))
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	p.said(before, "Reloaded.")
	expect("after the reload", "/metrics", "second", next, 200)
	expect("after the reload", "/metrics", "first", next, 401)
	// Whoever does not trust the new certificate is heard of.
	before = len(p.output())
	if _, err := try("/metrics", "second", pool); err == nil {
		t.Error("the certificate is the one before")
	}
	p.said(before, "A TLS handshake failed.")
}

// TestE2EReloadFlags: of an @file on the command line what can change does, and
// what cannot is told; a mistake changes nothing.
func TestE2EReloadFlags(t *testing.T) {
	t.Parallel()
	args := filepath.Join(t.TempDir(), "args")
	write(t, args, "# limits\n--bucket.max-series=3\n--bucket.max-buckets=100\n")
	s := startServer(t, "@"+args, "--self-scrape.interval=0")
	fits := func() (n int) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for i := range 20 {
			b := snappy.Encode(nil, body(t, oneSeries(time.Now().UnixMilli(), 1, "__name__", "x", "i", fmt.Sprint(i))))
			switch code, said, err := s.post(ctx, b); {
			case err == nil && code == http.StatusNoContent:
				n++
			case err != nil || code != http.StatusBadRequest:
				t.Fatalf("%d %s %v", code, said, err)
			}
		}
		return n
	}
	if n := fits(); n != 3 {
		t.Errorf("%d series fit, want 3", n)
	}
	reload := func(content string) (code int, out, errs string) {
		write(t, args, content)
		return invoke(t, "reload", "--url="+s.url)
	}
	if code, out, errs := reload("--bucket.max-series=12\n--bucket.max-buckets=200\n--log.level=debug\n"); code != exitOK ||
		!strings.Contains(out, `changed: --bucket.max-series from "3" to "12"`) || !strings.Contains(out, "changed: --log.level") || !strings.Contains(out, "needs a restart: --bucket.max-buckets") {
		t.Errorf("code %d, %q, %q", code, out, errs)
	}
	if n := fits(); n != 12 {
		t.Errorf("%d series fit, want 12", n)
	}
	const limits = "--admission.max-in-flight-size=300MiB\n--admission.max-requests=7\n--resp.max-clients=77\n--resp.idle-timeout=7m\n"
	if code, out, errs := reload("--bucket.max-series=12\n--bucket.max-buckets=100\n--log.level=debug\n" + limits); code != exitOK || strings.Contains(out, "needs a restart") || strings.Count(out, "changed: ") != 4 {
		t.Errorf("code %d, %q, %q", code, out, errs)
	}
	if n := s.metric(`mcached_admission_limit_bytes{kind="write"}`); n != 300<<20 {
		t.Errorf("%v bytes may be in flight, want 300 MiB", n)
	}
	if v, err := s.redis().ConfigGet(t.Context(), "maxclients").Result(); err != nil || v["maxclients"] != "77" {
		t.Errorf("maxclients: %v, %v", v, err)
	}
	if v, err := s.redis().ConfigGet(t.Context(), "timeout").Result(); err != nil || v["timeout"] != "420" {
		t.Errorf("timeout: %v, %v", v, err)
	}
	const base = "--bucket.max-series=12\n--bucket.max-buckets=100\n--log.level=debug\n" + limits
	bounds := base + "--remote-write.max-labels=1\n--query.max-samples=1\n--query.lookback-delta=30s\n--query.max-concurrency=3\n"
	if code, out, errs := reload(bounds); code != exitOK || strings.Contains(out, "needs a restart") || strings.Count(out, "changed: ") != 4 {
		t.Errorf("code %d, %q, %q", code, out, errs)
	}
	if code, said, err := s.post(t.Context(), snappy.Encode(nil, body(t, oneSeries(time.Now().UnixMilli(), 1, "__name__", "x", "i", "0")))); err != nil || code != http.StatusBadRequest || !strings.Contains(said, "--remote-write.max-labels") {
		t.Errorf("two labels where one may be: %d %s %v", code, said, err)
	}
	if _, err := s.instant("sum_over_time(vector(1)[5m:1s])"); err == nil || !strings.Contains(err.Error(), "too many samples") {
		t.Errorf("a query of 300 samples where one may be: %v", err)
	}
	var flags struct{ Data map[string]string }
	if err := s.get("/api/v1/status/flags", &flags); err != nil || flags.Data["query.max-samples"] != "1" || flags.Data["query.lookback-delta"] != "30s" || flags.Data["query.max-concurrency"] != "3" || flags.Data["bucket.max-series"] != "12" {
		t.Errorf("status/flags: %v, %v", flags, err)
	}
	if code, out, errs := reload(base); code != exitOK || strings.Count(out, "changed: ") != 4 {
		t.Errorf("code %d, %q, %q", code, out, errs)
	}
	for _, wrong := range []string{"--bucket.max-series=many\n", "--bucket.max-serie=20\n", "--bucket.max-series=20\n--web.listen-address=nowhere\n"} {
		if code, out, errs := reload(wrong); code != exitError || strings.Contains(out, "changed") || strings.Count(errs, "\n") != 1 {
			t.Errorf("%q: code %d, %q, %q", wrong, code, out, errs)
		}
		if n := fits(); n != 12 {
			t.Errorf("after %q %d series fit, want 12", wrong, n)
		}
	}
	if code, out, errs := reload("--bucket.max-series=12\n--bucket.max-buckets=100\n--log.level=debug\n" + limits); code != exitOK || !strings.Contains(out, "Nothing has changed") {
		t.Errorf("code %d, %q, %q", code, out, errs)
	}
}

// TestE2EReloadCluster: what a request may hold changes in a cluster, too, and a
// request that is as large as it may be now is spread as any other.
func TestE2EReloadCluster(t *testing.T) {
	t.Parallel()
	args := filepath.Join(t.TempDir(), "args")
	write(t, args, "--remote-write.max-samples=3\n")
	g := startCluster(t, 2, "@"+args, "--cluster.copies=1")
	const samples = 40 // so many that each member owns some
	var series []prompb.TimeSeries
	for i := range samples {
		series = append(series, oneSeries(time.Now().UnixMilli(), 1, "__name__", "x", "i", fmt.Sprint(i)))
	}
	all := snappy.Encode(nil, body(t, series...))
	bounded := func(to string, want int, says string) {
		t.Helper()
		write(t, args, "--remote-write.max-samples="+to+"\n")
		for _, s := range g.members {
			if code, out, errs := invoke(t, "reload", "--url="+s.url); code != exitOK || strings.Contains(out, "needs a restart") {
				t.Fatalf("code %d, %q, %q", code, out, errs)
			}
		}
		for _, s := range g.members {
			if code, said, err := s.post(t.Context(), all); err != nil || code != want || !strings.Contains(said, says) {
				t.Errorf("%d samples where %s may be: %d %s %v", samples, to, code, said, err)
			}
		}
	}
	bounded("3", http.StatusRequestEntityTooLarge, "--remote-write.max-samples")
	bounded(fmt.Sprint(samples), http.StatusNoContent, "")
	here, there := g.members[0].metric(`mcached_series{bucket="default"}`), g.members[1].metric(`mcached_series{bucket="default"}`)
	if here == 0 || there == 0 || here+there != samples {
		t.Errorf("of %d series the members have %v and %v", samples, here, there)
	}
	bounded("39", http.StatusRequestEntityTooLarge, "--remote-write.max-samples")
}

// TestE2EReloadUpstream: what is said of a store behind changes with a reload, and
// what cannot is told.
func TestE2EReloadUpstream(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/query" {
			http.NotFound(w, r)
			return
		}
		asked.Add(1)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"vector","result":[]}}`)
	}))
	defer store.Close()
	args := filepath.Join(t.TempDir(), "args")
	base := "--query.upstream=" + store.URL + "\n"
	write(t, args, base+"--query.upstream.when=never\n")
	s := startServer(t, "@"+args, "--self-scrape.interval=0")
	ask := func(when string, want int64) {
		t.Helper()
		before := asked.Load()
		if _, err := s.instant("m"); err != nil {
			t.Error(err)
		}
		if n := asked.Load() - before; n != want {
			t.Errorf("%s: the store was asked %d times, want %d", when, n, want)
		}
	}
	ask("at first", 0)
	reload := func(content string, changed, restart int) {
		t.Helper()
		write(t, args, base+content)
		code, out, errs := invoke(t, "reload", "--url="+s.url)
		if code != exitOK || strings.Count(out, "changed: --query.upstream") != changed || strings.Count(out, "needs a restart: --query.upstream") != restart {
			t.Errorf("code %d, %q, %q", code, out, errs)
		}
	}
	const all = "--query.upstream.when=always\n--query.upstream.settled=2h\n--query.upstream.audit=5%\n--query.upstream.authoritative={job=\"node\"}\n"
	reload(all, 4, 0)
	ask("always", 1)
	reload(all+"--query.upstream.max-concurrency=3\n--query.upstream.drop-labels=cluster\n", 2, 0)
	reload("--query.upstream.when=never\n", 6, 0)
	ask("never", 0)
}

// TestE2EReloadForward: a new password for the receiver is sent, a broken file is not.
func TestE2EReloadForward(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := filepath.Join(dir, "http.yml")
	write(t, config, "basic_auth: {username: u, password: first}\n")
	passwords := make(chan string, 1000)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, password, _ := r.BasicAuth()
		passwords <- password
		w.WriteHeader(http.StatusNoContent)
	}))
	defer receiver.Close()
	s := startServer(t, "--self-scrape.interval=0", "--forward.url="+receiver.URL, "--forward.http-config-file="+config, "--forward.max-dirty-age=1s", "--forward.protocol=1")
	next := func(want string) {
		t.Helper()
		s.send(1, "__name__", "x")
		select {
		case got := <-passwords:
			if got != want {
				t.Errorf("sent with the password %q, want %q", got, want)
			}
		case <-t.Context().Done():
		}
	}
	next("first")
	write(t, config, "basic_auth: {")
	before := len(s.output())
	s.said(before, "--forward.http-config-file")
	next("first")
	write(t, config, "basic_auth: {username: u, password: second}\n")
	if code, out, errs := invoke(t, "reload", "--url="+s.url); code != exitOK || !strings.Contains(out, config) {
		t.Errorf("mcached reload: code %d, %q, %q", code, out, errs)
	}
	next("second")
	if strings.Contains(s.output(), "password: ") {
		t.Error("a secret is in the log")
	}
}

// TestE2EReloadIsForAdmins: not for web pages, nor for strangers.
func TestE2EReloadIsForAdmins(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	for _, c := range []struct {
		method, header, value string
		code                  int
	}{
		{http.MethodPost, "X-Nothing", "", http.StatusOK},
		{http.MethodPut, "X-Nothing", "", http.StatusOK},
		{http.MethodPost, "Sec-Fetch-Site", "cross-site", http.StatusForbidden},
		{http.MethodPost, "X-Forwarded-For", "203.0.113.7", http.StatusForbidden},
		{http.MethodGet, "X-Nothing", "", http.StatusMethodNotAllowed},
	} {
		if code := statusWith(t, c.method, s.url+"/-/reload", c.header, c.value); code != c.code && !(c.code == http.StatusMethodNotAllowed && code == http.StatusNotFound) {
			t.Errorf("%+v: %d", c, code)
		}
	}
}

// TestE2EHealthy: a probe's exit code says whether the daemon answers.
func TestE2EHealthy(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	for _, args := range [][]string{{"healthy", "--url=" + s.url}, {"healthy", "--ready", "--url=" + strings.TrimPrefix(s.url, "http://")}} {
		if code, out, errs := invoke(t, args...); code != exitOK || !strings.HasPrefix(out, "mcached is ") {
			t.Errorf("%v: code %d, %q, %q", args, code, out, errs)
		}
	}
	s.stop()
	if code, _, errs := invoke(t, "healthy", "--url="+s.url); code != exitError || strings.Count(errs, "\n") != 1 {
		t.Errorf("of a daemon that has ended: code %d, %q", code, errs)
	}
	// What answers late is not healthy.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if code, _, errs := invoke(t, "healthy", "--timeout=100ms", "--url="+l.Addr().String()); code != exitError || strings.Count(errs, "\n") != 1 {
		t.Errorf("of one that does not answer: code %d, %q", code, errs)
	}
}
