package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"mcached/remotewrite/wire"

	"github.com/alecthomas/kingpin/v2"
)

// peer is a server that can be started for a comparison.
type peer struct {
	name      string
	binary    string // a name to look up, or a path
	version   string // argument that prints it
	protocols []string
	write     string // path of the receiver
	ready     string // path that answers 200 when it is up; empty if it is when it listens
	flush     string // path that makes what was written visible; none if empty
	// files by name that it needs in its directory
	files map[string]string
	args  func(dir, address string) []string
}

// with is p with more flags, of which each takes the place of one of its name.
func (p peer) with(flags ...string) peer {
	args := p.args
	p.args = func(dir, address string) []string {
		before := slices.DeleteFunc(args(dir, address), func(arg string) bool {
			name, _, _ := strings.Cut(arg, "=")
			return slices.ContainsFunc(flags, func(f string) bool { return strings.HasPrefix(f, name+"=") })
		})
		return append(before, flags...)
	}
	return p
}

func protocolOf(version string) wire.Protocol {
	if version == "2" {
		return wire.V2
	}
	return wire.V1
}

// peers are all that a comparison knows. Those that are not installed are left
// out, and said to be; PROMETHEUS and VICTORIA in the environment name others
// than those of the PATH.
func peers(self string) []peer {
	named := func(variable, name string) string { return cmp.Or(os.Getenv(variable), name) }
	return []peer{
		{
			name: "mcached", binary: self, version: "--version", protocols: []string{"1", "2"}, write: "/api/v1/write", ready: "/-/ready",
			args: func(_, address string) []string {
				return []string{"--web.listen-address=" + address, "--resp.listen-address=127.0.0.1:0", "--memory.size=2GiB", "--self-scrape.interval=0s", "--log.level=warn"}
			},
		}, {
			name: "prometheus", binary: named("PROMETHEUS", "prometheus"), version: "--version", protocols: []string{"1"}, write: "/api/v1/write", ready: "/-/ready",
			// Without the window it refuses late samples.
			files: map[string]string{"prometheus.yml": "storage:\n  tsdb:\n    out_of_order_time_window: 2h\n"},
			args: func(dir, address string) []string {
				return []string{"--config.file=" + filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path=" + filepath.Join(dir, "data"),
					"--web.listen-address=" + address, "--web.enable-remote-write-receiver", "--log.level=warn"}
			},
		}, {
			name: "victoria-metrics", binary: named("VICTORIA", "victoria-metrics"), version: "-version", protocols: []string{"1"}, write: "/api/v1/write", ready: "/health", flush: "/internal/force_flush",
			args: func(dir, address string) []string {
				return []string{"-storageDataPath=" + filepath.Join(dir, "data"), "-httpListenAddr=" + address, "-search.latencyOffset=0s", "-search.maxStalenessInterval=5m", "-loggerLevel=WARN"}
			},
		},
	}
}

// mcachedFlag is the mcached beside this program, unless another is named.
func mcachedFlag(c *kingpin.CmdClause) *string {
	self, err := os.Executable()
	if err != nil {
		self = "mcbench"
	}
	return c.Flag("mcached", "Which mcached to start.").Default(filepath.Join(filepath.Dir(self), "mcached")).String()
}

// installed finds the program of p.
func installed(p peer) (peer, error) {
	path, err := exec.LookPath(p.binary)
	if err != nil {
		return p, fmt.Errorf("%s is not installed (%s) and left out", p.name, p.binary)
	}
	p.binary, err = filepath.Abs(path) // it runs in a directory of its own
	return p, err
}

// server is a peer that runs.
type server struct {
	cmd    *exec.Cmd
	dir    string
	url    string
	log    *os.File
	exited chan struct{} // closed when it has
}

// startTimeout and stopTimeout are how long a peer may take.
const (
	startTimeout = 30 * time.Second
	stopTimeout  = 20 * time.Second
)

// start runs p in a directory of its own and waits until it is ready.
func start(ctx context.Context, p peer) (*server, error) {
	dir, err := os.MkdirTemp("", "mcbench-")
	if err != nil {
		return nil, err
	}
	s := &server{dir: dir, exited: make(chan struct{})}
	ok := false
	defer func() {
		if !ok {
			s.stop()
		}
	}()
	for name, text := range p.files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	s.url = "http://" + address
	if s.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		return nil, err
	}
	s.cmd = exec.Command(p.binary, p.args(dir, address)...)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = dir, s.log, s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // when this process panics or is killed
	if err := s.cmd.Start(); err != nil {
		s.cmd = nil
		return nil, err
	}
	go func() { // ends with the process, which stop ends
		s.cmd.Wait()
		close(s.exited)
	}()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		if err = s.get(ctx, p.ready); err == nil {
			ok = true
			return s, nil
		}
		select {
		case <-s.exited:
			return nil, fmt.Errorf("it ended while it was started: %s", s.tail())
		default:
		}
		if e := sleep(ctx, 50*time.Millisecond); e != nil {
			return nil, fmt.Errorf("it is not ready after %v: %w; %s", startTimeout, err, s.tail())
		}
	}
}

func (s *server) get(ctx context.Context, path string) error {
	if path == "" {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			return err
		}
		return conn.Close()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s answers %s", path, resp.Status)
	}
	return nil
}

// tail is the end of what the server has said.
func (s *server) tail() string {
	b, _ := os.ReadFile(s.log.Name())
	return strings.TrimSpace(string(b[max(0, len(b)-500):]))
}

// stop ends the server and removes its directory.
func (s *server) stop() {
	if s.cmd != nil {
		s.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-s.exited:
		case <-time.After(stopTimeout):
			s.cmd.Process.Kill()
			<-s.exited
		}
	}
	if s.log != nil {
		s.log.Close()
	}
	os.RemoveAll(s.dir)
}

// freeAddress is a port of the loopback interface that nobody listens on. The kernel
// gives ports of this range to nobody who does not ask for one, so that it stays free
// until the server has started.
func freeAddress() (address string, err error) {
	const from, to, tries = 10_000, 30_000, 1000
	for range tries {
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprint("127.0.0.1:", from+rand.IntN(to-from))); err == nil {
			return l.Addr().String(), l.Close()
		}
	}
	return "", fmt.Errorf("of %d ports tried none is free: %w", tries, err)
}

// version is the first line that p prints about itself.
func version(ctx context.Context, p peer) string {
	out, err := exec.CommandContext(ctx, p.binary, p.version).CombinedOutput()
	if err != nil {
		return "unknown: " + err.Error()
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if line == "" {
		return "it does not tell its version"
	}
	return line
}

// metric reads one series of an mcached's /metrics.
func (s *server) metric(ctx context.Context, series string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), series+" "); ok {
			return strconv.ParseFloat(v, 64)
		}
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("/metrics has no %s", series)
}
