package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

const root = "../../.." // of the module, from this package

// What clients know of the daemon.
const (
	exitOK    = 0
	exitError = 1 // a failure, which a restart may mend
	exitUsage = 2 // a wrong command line, which none does

	minMemoryBytes = 8 << 20  // it never holds less
	maxHeaderBytes = 64 << 10 // of an HTTP request
	maxCells       = 4096     // of a map of regions
	forwardedBy    = "X-Mcached-Forwarded-By"
	pagePolicy     = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

// patience bounds every wait for something that should happen soon: a quarter
// of the time that go test gives the package. It is long because machines that
// run tests are slow or busy, which is nobody's fault; nothing waits for it to
// pass unless something is broken.
var patience time.Duration

var built struct {
	sync.Once
	dir, path string
	err       error
}

// atATime is how many tests run at a time at least, if that is not said: one alone
// has processors wait two thirds of the time.
const atATime = 6

// TestMain lets the test binary be a neighbour, too, and removes the daemon
// and the clients that end-to-end tests built.
func TestMain(m *testing.M) {
	if os.Getenv("E2E_ROLE") == "neighbour" {
		beNeighbour()
		return
	}
	flag.Parse()
	patience = 10 * time.Minute // of who has turned time limits off
	if d := flag.Lookup("test.timeout").Value.(flag.Getter).Get().(time.Duration); d > 0 {
		patience = d / 4
	}
	if p := flag.Lookup("test.parallel"); p.Value.String() == p.DefValue {
		_ = p.Value.Set(strconv.Itoa(max(atATime, runtime.GOMAXPROCS(0))))
	}
	code := m.Run()
	for _, dir := range []string{built.dir, clientsMade.dir} {
		if dir != "" {
			_ = os.RemoveAll(dir)
		}
	}
	os.Exit(code)
}

// daemonBinary builds the daemon once, or is the one that MCACHED_TEST_BINARY names.
func daemonBinary(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("MCACHED_TEST_BINARY"); path != "" {
		return path
	}
	built.Do(func() {
		dependOnSources()
		if built.dir, built.err = os.MkdirTemp("", "mcached-e2e-"); built.err != nil {
			return
		}
		built.path = filepath.Join(built.dir, "mcached")
		if out, err := goBuild(built.path, "./cmd/mcached"); err != nil {
			built.err = fmt.Errorf("%w: %s", err, out)
		}
	})
	if built.err != nil {
		t.Fatalf("building the daemon: %v", built.err)
	}
	return built.path
}

// dependOnSources lists the module's directories, but for what git and make
// keep there: go test, which knows nothing of the daemon that is built here,
// then does not show the result of an older one from its cache.
func dependOnSources() {
	_ = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && path != root && (e.Name() == "bin" || e.Name()[0] == '.') {
			return fs.SkipDir
		}
		return nil // what cannot be listed cannot be built either
	})
}

// goBuild builds a program of this module.
func goBuild(path, program string) (output []byte, err error) {
	c := exec.Command("go", "build", "-o", path, program)
	c.Dir = root
	return c.CombinedOutput()
}

// process is a program that a test started; its output is shown if the test fails.
type process struct {
	t      testing.TB
	name   string
	cmd    *exec.Cmd
	exited chan struct{} // closed when Wait has returned
	err    error         // of Wait

	mu  sync.Mutex
	out bytes.Buffer // stdout and stderr
}

// Write collects output.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// start runs a program until the test ends.
func start(t testing.TB, path string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: filepath.Base(path), cmd: exec.Command(path, args...), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // nothing outlives a test that was killed
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.stop()
		for _, sign := range []string{"DATA RACE", "panic:", "fatal error:"} {
			if strings.Contains(p.output(), sign) {
				t.Errorf("%s: %s", p.name, sign)
			}
		}
		if t.Failed() {
			t.Logf("output of %s:\n%s", p.name, tail(p.output(), 60))
		}
	})
	return p
}

// stop asks the process to end and waits for it; its exit code is returned.
func (p *process) stop() int {
	p.t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	return p.wait()
}

// wait returns the exit code of a process that is about to end.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.t.Errorf("%s did not end within %v", p.name, patience)
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
	return p.cmd.ProcessState.ExitCode()
}

// alive fails the test if the process has ended.
func (p *process) alive() {
	p.t.Helper()
	select {
	case <-p.exited:
		p.t.Fatalf("%s has ended: %v\n%s", p.name, p.err, tail(p.output(), 40))
	default:
	}
}

// rssBytes is what the process has resident.
func (p *process) rssBytes() int64 {
	p.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		p.t.Fatal("no VmRSS in /proc")
	}
	kib, _ := strconv.ParseInt(string(m[1]), 10, 64)
	return kib << 10
}

// server is a running daemon.
type server struct {
	*process
	url  string // of HTTP
	resp string // host:port, empty if off
}

var (
	urlInOutput  = regexp.MustCompile(`{url: (https?://[0-9.:\[\]a-z]+)/api/v1/write`)
	respInOutput = regexp.MustCompile(`redis-cli -h (\S+) -p (\d+)`)
)

// startServer runs the daemon with 64 MiB on ports of its own, and more flags, until the test ends.
func startServer(t testing.TB, args ...string) *server {
	t.Helper()
	return startServerBy(t, nil, args...)
}

// startServerBy is startServer by way of another program, which is given the
// daemon's path and arguments behind its own.
func startServerBy(t testing.TB, by []string, args ...string) *server {
	t.Helper()
	for _, byDefault := range []string{"--web.listen-address=127.0.0.1:0", "--resp.listen-address=127.0.0.1:0", "--memory.size=64MiB", "--memory.heap-limit=128MiB"} {
		flag, _, _ := strings.Cut(byDefault, "=")
		if !slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, flag+"=") }) {
			args = append(args, byDefault)
		}
	}
	line := append(append(slices.Clone(by), daemonBinary(t)), args...)
	s := &server{process: start(t, line[0], line[1:]...)}
	eventually(t, "the daemon says where it listens", func() error {
		s.alive()
		m := urlInOutput.FindStringSubmatch(s.output())
		if m == nil {
			return errors.New("no URL in its output")
		}
		s.url = m[1]
		// The lines may come one by one.
		m = respInOutput.FindStringSubmatch(s.output())
		if m == nil && !withoutResp(args) {
			return errors.New("no Redis port in its output")
		}
		if m != nil {
			s.resp = net.JoinHostPort(m[1], m[2])
		}
		return nil
	})
	eventually(t, "the daemon is ready", func() error {
		return s.get("/-/ready", nil)
	})
	return s
}

// redis is a client that tries nothing twice and waits long, until the test ends.
func (s *server) redis() *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: s.resp, MaxRetries: -1, DialTimeout: patience, ReadTimeout: patience, WriteTimeout: patience, PoolTimeout: patience})
	s.t.Cleanup(func() { c.Close() })
	return c
}

// withoutResp reports whether the arguments turn Redis clients off, or have
// the welcome printed as a log record, which does not spell the port that way.
func withoutResp(args []string) bool {
	return slices.ContainsFunc(args, func(a string) bool {
		return a == "--resp.listen-address=" || a == "--resp.listen-address=off" || a == "--log.format=json"
	})
}

// get fetches a path and, unless v is nil, decodes the JSON answer into it.
func (s *server) get(path string, v any) error {
	return getJSON(s.url+path, v)
}

// statusWith is that of a request with a header.
func statusWith(t *testing.T, method, u, header, value string) int {
	t.Helper()
	req, err := http.NewRequest(method, u, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(header, value)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}

func getJSON(u string, v any) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", u, res.Status, b)
	}
	if v == nil {
		return nil
	}
	return json.Unmarshal(b, v)
}

// instant is the answer to an instant query: a value for each label set.
func (s *server) instant(expr string) (map[string]string, error) {
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := s.get("/api/v1/query?query="+url.QueryEscape(expr), &answer); err != nil {
		return nil, err
	}
	values := map[string]string{}
	for _, r := range answer.Data.Result {
		b, err := json.Marshal(r.Metric)
		if err != nil {
			return nil, err
		}
		values[string(b)] = fmt.Sprint(r.Value[1])
	}
	return values, nil
}

// metric reads one series of /metrics, which must be there.
func (s *server) metric(series string) float64 {
	s.t.Helper()
	v, ok := s.hasMetric(series)
	if !ok {
		s.t.Fatalf("/metrics has no %s", series)
	}
	return v
}

// hasMetric reads one series of /metrics that may not be there yet.
func (s *server) hasMetric(series string) (v float64, ok bool) {
	s.t.Helper()
	res, err := http.Get(s.url + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), series+" "); ok {
			if v, err = strconv.ParseFloat(text, 64); err != nil {
				s.t.Fatal(err)
			}
			return v, true
		}
	}
	if lines.Err() != nil {
		s.t.Fatal(lines.Err())
	}
	return 0, false
}

// eventually tries f until it succeeds, for as long as patience lasts, and
// never so long that go test ends everything before it can say what it waited for.
func eventually(t testing.TB, what string, f func() error) {
	t.Helper()
	began := time.Now()
	deadline := began.Add(patience)
	if t, ok := t.(*testing.T); ok {
		if last, ok := t.Deadline(); ok && last.Add(-5*time.Second).Before(deadline) {
			deadline = last.Add(-5 * time.Second)
		}
	}
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %v until %s: %v", time.Since(began).Round(time.Second), what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// more waits until a count is greater by n than it is now, or the test has failed.
func more(t testing.TB, what string, count *atomic.Int64, n int64) {
	t.Helper()
	from := count.Load()
	eventually(t, what, func() error {
		if now := count.Load(); now < from+n && !t.Failed() {
			return fmt.Errorf("%d of %d", now-from, n)
		}
		return nil
	})
}

// realServer finds a program that a test cannot do without. Where it is
// missing the test is skipped, but not in CI, which installs it.
func realServer(t testing.TB, program, debianPackage string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	missing := fmt.Sprintf("needs %s: apt-get install %s", program, debianPackage)
	if os.Getenv("CI") == "true" {
		t.Fatal(missing)
	}
	t.Skip(missing)
	return ""
}

// tail gives the last lines of s.
func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
