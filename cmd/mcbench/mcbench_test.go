package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"

	"mcached/kvcache"
	"mcached/mcache"
	"mcached/mcache/query"
	"mcached/remotewrite"
)

// TestMain is also the peer of TestCompare, a server in a process of its own, and
// one who starts that and panics.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "abandon" {
		s, err := start(context.Background(), itself)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(s.url, s.dir)
		panic("on purpose")
	}
	if len(os.Args) != 3 || os.Args[1] != "serve" {
		os.Exit(m.Run())
	}
	handler, _ := newHandler(log.Fatal, nil)
	log.Fatal(http.ListenAndServe(os.Args[2], handler))
}

// itself is this program as a peer.
var itself = peer{name: "good", binary: os.Args[0], version: "-test.run=^$", protocols: []string{"1", "2"}, write: "/api/v1/write", ready: "/api/v1/status/buildinfo",
	files: map[string]string{"config": "x"}, args: func(_, address string) []string { return []string{"serve", address} }}

// TestAbandoned: a server ends with who started it, however that ends.
func TestAbandoned(t *testing.T) {
	said, err := exec.Command(os.Args[0], "abandon").Output()
	if err == nil {
		t.Fatal("it did not panic")
	}
	var url, dir string
	if _, err := fmt.Sscan(string(said), &url, &dir); err != nil {
		t.Fatalf("%q: %v", said, err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := server{url: url}
	for deadline := time.Now().Add(10 * time.Minute); s.get(t.Context(), "") == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it runs")
		}
	}
}

// testMembers is how many members a server says that it sees.
const testMembers = 2

// daemonBinary builds an mcached, for a test that starts daemons with programs of
// others beside.
func daemonBinary(t *testing.T, others ...string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("starts daemons, in which the race detector of this process finds nothing")
	}
	for _, program := range others {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	binary := filepath.Join(t.TempDir(), "mcached")
	if b, err := exec.Command("go", "build", "-o", binary, "../mcached").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return binary
}

// newServer is a receiver with the API of Prometheus, whose requests to write
// pass through change.
func newServer(t *testing.T, change func(m *prompb.WriteRequest)) *httptest.Server {
	t.Helper()
	handler, done := newHandler(t.Fatal, change)
	s := httptest.NewServer(handler)
	t.Cleanup(func() {
		s.Close()
		done()
	})
	return s
}

func newHandler(fatal func(...any), change func(m *prompb.WriteRequest)) (handler http.Handler, done func()) {
	memory, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 64 << 20, ReserveBytes: 64 << 20})
	if err != nil {
		fatal(err)
	}
	cache, err := mcache.New(mcache.Options{Memory: memory})
	if err != nil {
		fatal(err)
	}
	write := remotewrite.NewHandler(cache, remotewrite.Options{})
	mux := http.NewServeMux()
	mux.HandleFunc("/api/v1/write", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if change != nil {
			plain, err := snappy.Decode(nil, body)
			if err != nil {
				fatal(err)
			}
			var m prompb.WriteRequest
			if err := m.Unmarshal(plain); err != nil {
				fatal(err)
			}
			change(&m)
			if plain, err = m.Marshal(); err != nil {
				fatal(err)
			}
			body = snappy.Encode(nil, plain)
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		write.ServeHTTP(w, r)
	})
	mux.Handle("/api/v1/", query.NewAPI(cache, query.Options{}))
	mux.HandleFunc("/-/ready", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "mcached_cluster_members{state=\"ready\"} %d\n", testMembers)
	})
	return mux, func() {
		cache.Close()
		memory.Close()
	}
}

func bench(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), args, &out)
	return out.String(), err
}

func TestWriteAndCheck(t *testing.T) {
	for _, protocol := range []string{"1", "2"} {
		for _, more := range [][]string{nil, {"--jitter", "7ms"}, {"--late", "20", "--jitter", "2s"}, {"--rate", "100000"}} {
			s := newServer(t, nil)
			args := append([]string{"write", "--url", s.URL + "/api/v1/write", "--check", "--json", "--series", "1203", "--samples", "11",
				"--per-request", "100", "--connections", "3", "--protocol", protocol, "--pid", fmt.Sprint(os.Getpid())}, more...)
			out, err := bench(t, args...)
			if err != nil {
				t.Fatalf("%v: %v", args, err)
			}
			var r writeReport
			if err := json.Unmarshal([]byte(out), &r); err != nil {
				t.Fatal(err)
			}
			if r.Samples != 1203*11 || !r.Checked || r.Requests < 1203*11/100 || r.RSSBytes == 0 || r.P99Ms < r.P50Ms {
				t.Errorf("%v: %s", args, out)
			}
			out, err = bench(t, "query", "--api-url", s.URL+"/api/v1", "--times", "1", "--series", "1203", "--samples", "11", "--start", fmt.Sprint(r.StartMs))
			if err != nil || strings.Count(out, "\n") != 1+len(questions(load{})) {
				t.Errorf("query prints %q, %v", out, err)
			}
		}
	}
}

// With a rate, times are those of requests behind the first round, in which series are
// made, and no request is sent before it is due: these all are due at once.
func TestPace(t *testing.T) {
	s := newServer(t, nil)
	w := writer{load: load{series: 1203, samples: 11, startMs: 1_795_208_610_000, intervalMs: 15_000}, url: s.URL + "/api/v1/write",
		perRequest: 100, connections: 3, rate: 1e9, creates: true}
	done, err := w.run(t.Context())
	if err != nil || done.samples != 1203*11 {
		t.Fatalf("%d samples, %v", done.samples, err)
	}
	round := done.requests / 11
	if round*11 != done.requests || len(done.latencies) != done.requests-round || len(done.delays) != len(done.latencies) {
		t.Errorf("of %d requests in 11 rounds %d and %d times are told", done.requests, len(done.latencies), len(done.delays))
	}
	for i, took := range done.latencies {
		if took <= 0 || done.delays[i] < took {
			t.Fatalf("the %dth of the times is %v, and %v from when it was due", i, took, done.delays[i])
		}
	}
}

// A check that finds nothing wrong with what is wrong is worth nothing.
func TestCheckFindsWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*prompb.WriteRequest)
		args   []string // of the check
		want   string
	}{
		"a series dropped": {func(m *prompb.WriteRequest) { m.Timeseries = m.Timeseries[1:] }, nil, "missing at"},
		"a label changed":  {func(m *prompb.WriteRequest) { m.Timeseries[1].Labels[7].Value = "PUT" }, nil, "missing at"},
		"a value changed": {func(m *prompb.WriteRequest) {
			x := &m.Timeseries[2].Samples[0].Value
			*x = math.Nextafter(*x, 0)
		}, nil, " for "},
		"a time changed":          {func(m *prompb.WriteRequest) { m.Timeseries[3].Samples[0].Timestamp++ }, nil, "missing at"},
		"more than was written":   {nil, []string{"--samples", "11"}, "missing at 1795208760000"},
		"less than was written":   {nil, []string{"--series", "30"}, "a series that was not written"},
		"other than was written":  {nil, []string{"--seed", "2"}, " for "},
		"other times than it had": {nil, []string{"--jitter", "2s"}, "at 17952"},
		"nothing":                 {nil, nil, ""},
	} {
		s := newServer(t, c.change)
		args := []string{"--url", s.URL + "/api/v1/write", "--start", "1795208610000"}
		if _, err := bench(t, append([]string{"write", "--samples", "10", "--series", "40"}, args...)...); err != nil {
			t.Fatal(err)
		}
		for flag, value := range map[string]string{"--samples": "10", "--series": "40"} {
			if !slices.Contains(c.args, flag) {
				args = append(args, flag, value)
			}
		}
		_, err := bench(t, append(append([]string{"write", "--no-write", "--check"}, args...), c.args...)...)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: the check says %v, want %q", name, err, c.want)
		}
	}
}

func TestServersThatDoNotWrite(t *testing.T) {
	for name, c := range map[string]struct {
		protocol string
		handler  http.HandlerFunc
		want     string
	}{
		"204 to a 2.0 it does not know": {"2", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) }, `answered 204, but with "" of 2000 samples written`},
		"400":                           {"1", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "too old", 400) }, "400 too old"},
	} {
		s := httptest.NewServer(c.handler)
		if _, err := bench(t, "write", "--url", s.URL, "--protocol", c.protocol); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		s.Close()
	}
}

func TestUsageErrors(t *testing.T) {
	for _, args := range [][]string{
		{}, {"write", "--series", "0"}, {"write", "--interval", "0s"}, {"write", "--jitter", "8s"}, {"write", "--late", "101"},
		{"write", "--protocol", "3"}, {"write", "--url", "nonsense"}, {"write", "--connections", "0"}, {"write", "--header", "x"}, {"query", "--times", "0"},
	} {
		_, err := bench(t, args...)
		if _, ok := err.(usageError); !ok {
			t.Errorf("%v: %v is no usage error", args, err)
		}
	}
}

// The load is a function of its fields, and is what doc.go says it is.
func TestLoad(t *testing.T) {
	l := load{series: 5000, samples: 100, startMs: 1_795_208_610_000, intervalMs: 15_000, jitterMs: 5, latePct: 5, seed: 1}
	labelBytes, whole, late, jittered := 0, 0, 0, 0
	keys := map[string]bool{}
	names := l.namer()
	for n := range l.series {
		ls := names.labels(n, l.startMs, nil)
		for _, x := range ls {
			labelBytes += len(x.Name) + len(x.Value)
		}
		keys[labelKey(ls)] = true
		v, again := l.values(n), l.values(n)
		constant := true
		var first float64
		for i := range l.samples {
			x := v.value()
			if y := again.value(); x != y {
				t.Fatalf("series %d, sample %d is %v and %v", n, i, x, y)
			}
			if i == 0 {
				first = x
			}
			constant = constant && x == first
			if d := l.time(n, i) - l.startMs - int64(i)*l.intervalMs; d < -5 || d > 5 {
				t.Fatalf("series %d, sample %d is %d ms off", n, i, d)
			} else if d != 0 {
				jittered++
			}
			if l.late(n, i) > 0 {
				late++
			}
		}
		if constant {
			whole++
		}
	}
	total := l.series * l.samples
	if len(keys) != l.series || labelBytes/l.series < 190 || labelBytes/l.series > 260 {
		t.Errorf("%d label sets of %d bytes", len(keys), labelBytes/l.series)
	}
	if whole < l.series/5 || whole > l.series*22/100 {
		t.Errorf("%d of %d series are constant, want a fifth", whole, l.series)
	}
	if late < total*4/100 || late > total*6/100 || jittered < total*8/10 {
		t.Errorf("%d late and %d off the grid of %d", late, jittered, total)
	}
}

// A load of buckets is of histograms: of each counts are not less than at lower bounds, nor
// than before, and it has another label set for each bound.
func TestLoadOfBuckets(t *testing.T) {
	l := load{series: 2000, samples: 20, intervalMs: 15_000, seed: 1, buckets: true}
	names, keys := l.namer(), map[string]bool{}
	for first := 0; first < l.series; first += bucketsPerHistogram {
		var all [bucketsPerHistogram]values
		for i := range all {
			all[i] = l.values(first + i)
			keys[labelKey(names.labels(first+i, 0, nil))] = true
		}
		before := [bucketsPerHistogram]float64{}
		for range l.samples {
			least := 0.0
			for i := range all {
				v := all[i].value()
				if v < least || v < before[i] {
					t.Fatalf("histogram %d: %v at bound %d, %v before it, %v at the bound before", first/bucketsPerHistogram, v, i, before[i], least)
				}
				least, before[i] = v, v
			}
		}
		if before[bucketsPerHistogram-1] == 0 {
			t.Fatalf("histogram %d has seen nothing", first/bucketsPerHistogram)
		}
	}
	if len(keys) != l.series {
		t.Errorf("%d label sets of %d series", len(keys), l.series)
	}
}

func TestProcess(t *testing.T) {
	dir := t.TempDir()
	stat := filepath.Join(dir, "7", "stat")
	if err := os.Mkdir(filepath.Dir(stat), 0o755); err != nil {
		t.Fatal(err)
	}
	line := "7 (a ) b 9) S 1 1 1 0 -1 4194560 100 0 0 0 123 77 0 0 20 0 9 0 1000 99999 256 18446744073709551615"
	if err := os.WriteFile(stat, []byte(line), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := process{dir, 7}.usage()
	if want := (usage{2 * time.Second, 1230 * time.Millisecond, 256 * int64(os.Getpagesize())}); err != nil || got != want {
		t.Errorf("usage is %+v, %v, want %+v", got, err, want)
	}
	if _, err := (process{dir, 8}).usage(); err == nil {
		t.Error("a process that is not there has a usage")
	}
}

func TestCompare(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	k := comparison{writer: writer{load: load{series: 700, samples: 20, startMs: 1795208610000, intervalMs: 15_000, latePct: 5, seed: 1}, perRequest: 100, connections: 2}, times: 1, check: true}
	good := itself
	for _, protocol := range good.protocols {
		if err := k.measure(t.Context(), contestant{good, protocol}); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := k.print(&out); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "all, exactly"); n != 2 || !strings.Contains(out.String(), "good v2") || !strings.Contains(out.String(), "100 series raw") {
		t.Errorf("it prints\n%s", out.String())
	}
	for name, want := range map[string]string{"serve": "it ended while it was started", "": "no such file"} {
		bad := good
		bad.args = func(_, _ string) []string { return []string{"serve", "not an address"} }
		if name == "" {
			bad.binary = "/nonexistent"
		}
		if err := k.measure(t.Context(), contestant{bad, "1"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a server that does not start: %v, want %q", err, want)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "mcbench-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	for _, args := range [][]string{{"--round", "100ms", "--per-age", "4"}, {"--per-request", "0"}, {"--mcached", "/nonexistent"}} {
		if err := run(t.Context(), append([]string{"benefit"}, args...), &out); err == nil {
			t.Errorf("benefit %v: no error", args)
		}
	}
	out.Reset()
	if err := run(t.Context(), []string{"compare", "--only", "mcached", "--mcached", "/nonexistent"}, &out); err == nil || !strings.Contains(out.String(), "mcached is not installed") {
		t.Errorf("without a server it prints %q, %v", out.String(), err)
	}
}

// With --churn new targets take the place of some: as many as are asked for, each as
// a series that nobody had before.
func TestChurnOfLoad(t *testing.T) {
	l := load{series: 100_000, samples: 1, startMs: 1_795_208_610_000, intervalMs: 15_000, seed: 1, churnPct: 2}
	pods := map[string]int{}
	names := l.namer()
	for minute := range 11 {
		for target := range l.targets() {
			ls := names.labels(target*seriesPerTarget, l.startMs+int64(minute)*60_000, nil)
			if pod := ls[len(ls)-1].Value; pods[pod] == 0 {
				pods[pod] = target + 1
			} else if pods[pod] != target+1 {
				t.Fatalf("%s is of targets %d and %d", pod, pods[pod]-1, target)
			}
		}
	}
	if n := len(pods) - l.targets(); n < 30 || n > 50 {
		t.Errorf("in ten minutes %d of %d targets have successors, want about 40", n, l.targets())
	}
	if _, err := bench(t, "write", "--churn", "1", "--check"); err == nil {
		t.Error("what churns cannot be checked, and nobody says so")
	}
}
