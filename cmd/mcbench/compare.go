package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"mcached/remotewrite/wire"
)

// peer is a server that can be started for a comparison.
type peer struct {
	name      string
	binary    string // a name to look up, or a path
	version   string // argument that prints it
	protocols []string
	write     string // path of the receiver
	ready     string // path that answers 200 when it is up
	flush     string // path that makes what was written visible; none if empty
	// files by name that it needs in its directory
	files map[string]string
	args  func(dir, address string) []string
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

func compareCommand(app *kingpin.Application) (string, func(context.Context, io.Writer) error) {
	c := app.Command("compare", "Start mcached and the peers that are installed, one after the other, write the same load to each and print one table.")
	f := fieldFlags(c)
	perRequest := c.Flag("per-request", "Samples in a request.").Default("2000").Int()
	connections := c.Flag("connections", "How many send at a time.").Default("2").Int()
	times := c.Flag("times", "How often each query is asked; 0 asks none.").Default("30").Int()
	header := c.Flag("header", "'Name: value' to send with each query, as 'Accept-Encoding: identity' for answers that nobody compresses. Repeatable.").Strings()
	check := c.Flag("check", "Read all samples back and compare.").Bool()
	data := loadFlags(c)
	return c.FullCommand(), func(ctx context.Context, out io.Writer) error {
		l, err := data()
		if err != nil {
			return err
		}
		if *perRequest < 1 || *connections < 1 || *connections > 1024 {
			return usageError{fmt.Errorf("--per-request must be positive and --connections from 1 to 1024, got %d and %d", *perRequest, *connections)}
		}
		h, err := headers(*header)
		if err != nil {
			return err
		}
		k := comparison{load: l, header: h, perRequest: *perRequest, connections: *connections, times: *times, check: *check}
		all, err := f.contestants(out)
		if err != nil {
			return err
		}
		for _, p := range all {
			if err := k.measure(ctx, p.peer, p.protocol); err != nil {
				return fmt.Errorf("%v: %w", p, err)
			}
		}
		return k.print(out)
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

// comparison collects the rows of the tables.
type comparison struct {
	load                    load
	perRequest, connections int
	times                   int
	header                  http.Header // of queries
	check                   bool

	rows []row
}

type row struct {
	name    string
	version string
	report  report
	queries []asked // in the order of questions
}

// measure starts p, writes the load to it, asks its queries, and stops it.
func (k *comparison) measure(ctx context.Context, p peer, protocol string) error {
	s, err := start(ctx, p)
	if err != nil {
		return err
	}
	defer s.stop()
	r := row{name: p.name + " v" + protocol, version: version(ctx, p)}
	r.report = report{Series: k.load.series, SamplesPerSeries: k.load.samples, Protocol: protocol, StartMs: k.load.startMs}
	w := writer{load: k.load, url: s.url + p.write, protocol: wire.V1, perRequest: k.perRequest, connections: k.connections}
	if protocol == "2" {
		w.protocol = wire.V2
	}
	proc := process{"/proc", s.cmd.Process.Pid}
	if err := r.report.write(ctx, &w, proc); err != nil {
		return err
	}
	if p.flush != "" {
		if err := s.get(ctx, p.flush); err != nil {
			return err
		}
	}
	if k.check {
		c := checker{load: k.load, url: s.url + "/api/v1", http: &http.Client{Timeout: 2 * time.Minute}}
		if r.report.Check, err = c.run(ctx); err != nil {
			return err
		}
		r.report.Checked = true
	}
	if k.times > 0 {
		client := &http.Client{Timeout: 2 * time.Minute}
		defer client.CloseIdleConnections()
		for _, q := range questions(k.load) {
			a, err := ask(ctx, client, s.url+"/api/v1", k.header, q, k.times, proc)
			if err != nil {
				return fmt.Errorf("%s: %w", q.name, err)
			}
			r.queries = append(r.queries, a)
		}
	}
	k.rows = append(k.rows, r)
	return nil
}

func (k *comparison) print(out io.Writer) error {
	if len(k.rows) == 0 {
		return errors.New("nothing to compare")
	}
	fmt.Fprintf(out, "%d series × %d samples, %d samples a request, %d connections, %v %% late\n",
		k.load.series, k.load.samples, k.perRequest, k.connections, k.load.latePct)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "server\tsamples/s\tCPU µs/1,000\tp50 ms\tp99 ms\tB/series\twire B/sample\tread back\t")
	for _, r := range k.rows {
		back := "-"
		if r.report.Checked {
			back = "all, exactly"
			if c := r.report.Check; !c.ok() {
				back = fmt.Sprintf("%d missing, %d wrong, %d extra", c.missing, c.wrong, c.extra)
			}
		}
		fmt.Fprintf(t, "%s\t%.0f\t%.0f\t%.1f\t%.1f\t%.0f\t%.1f\t%s\t\n", r.name, r.report.SamplesPerS, r.report.CPUUsPer1000,
			r.report.P50Ms, r.report.P99Ms, r.report.RSSPerSeries, r.report.BytesPerSample, back)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if k.times > 0 {
		fmt.Fprint(out, "\nqueries: p50 ms / server CPU ms\n")
		t = tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprint(t, "query\t")
		for _, r := range k.rows {
			fmt.Fprintf(t, "%s\t", r.name)
		}
		fmt.Fprintln(t)
		for i, q := range questions(k.load) {
			fmt.Fprintf(t, "%s\t", q.name)
			for _, r := range k.rows {
				fmt.Fprintf(t, "%v\t", r.queries[i])
			}
			fmt.Fprintln(t)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	fmt.Fprintln(out)
	for _, r := range k.rows {
		fmt.Fprintf(out, "%s: %s\n", r.name, r.version)
	}
	return nil
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

// freeAddress is a port of the loopback interface that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
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
