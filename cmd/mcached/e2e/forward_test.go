package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"golang.org/x/crypto/bcrypt"

	"mcached/remotewrite/wire"
)

// book holds points by series and time, each as a text that no two different
// points share. It is safe for concurrent use.
type book struct {
	mu     sync.Mutex
	points map[string]map[int64]string
	n      int
}

func (b *book) add(series string, t int64, point string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.points == nil {
		b.points = map[string]map[int64]string{}
	}
	if b.points[series] == nil {
		b.points[series] = map[int64]string{}
	}
	if _, ok := b.points[series][t]; !ok {
		b.n++
	}
	b.points[series][t] = point
}

func (b *book) len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.n
}

// missing calls f for every point of b that other does not have as it is.
func (b *book) missing(other *book, f func(series string, t int64)) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	other.mu.Lock()
	defer other.mu.Unlock()
	for series, points := range b.points {
		for t, p := range points {
			if other.points[series][t] != p {
				n++
				if f != nil {
					f(series, t)
				}
			}
		}
	}
	return n
}

func bits(v float64) string { return fmt.Sprintf("%x", math.Float64bits(v)) }

func histogramText(h writev2.Histogram) string {
	if h.IsFloatHistogram() {
		return h.ToFloatHistogram().String()
	}
	return h.ToIntHistogram().String()
}

// addRead adds the answer of a server's remote read.
func (b *book) addRead(base, name string, from, to int64) error {
	request, err := (&prompb.ReadRequest{Queries: []*prompb.Query{{StartTimestampMs: from, EndTimestampMs: to,
		Matchers: []*prompb.LabelMatcher{{Type: prompb.LabelMatcher_EQ, Name: "__name__", Value: name}}}}}).Marshal()
	if err != nil {
		return err
	}
	res, err := http.Post(base+"/api/v1/read", "application/x-protobuf", bytes.NewReader(snappy.Encode(nil, request)))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	packed, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return fmt.Errorf("remote read: %s %q, %v", res.Status, packed, err)
	}
	plain, err := snappy.Decode(nil, packed)
	if err != nil {
		return err
	}
	var answer prompb.ReadResponse
	if err := answer.Unmarshal(plain); err != nil {
		return err
	}
	for _, ts := range answer.Results[0].Timeseries {
		key := ""
		for _, l := range ts.Labels {
			key += l.Name + "=" + l.Value + ","
		}
		for _, s := range ts.Samples {
			b.add(key, s.Timestamp, bits(s.Value))
		}
		for _, h := range ts.Histograms {
			text := ""
			if h.IsFloatHistogram() {
				text = h.ToFloatHistogram().String()
			} else {
				text = h.ToIntHistogram().String()
			}
			b.add(key, h.Timestamp, text)
		}
	}
	return nil
}

// addExport adds what VictoriaMetrics exports.
func (b *book) addExport(base, name string) error {
	_ = getJSON(base+"/internal/force_flush", nil) // what came is not found by a search at once; the answer is empty
	res, err := http.Get(base + "/api/v1/export?" + url.Values{"match[]": {name}}.Encode())
	if err != nil {
		return err
	}
	defer res.Body.Close()
	for d := json.NewDecoder(res.Body); ; {
		var line struct {
			Metric     map[string]string
			Values     []float64
			Timestamps []int64
		}
		if err := d.Decode(&line); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		key := "__name__=" + line.Metric["__name__"] + ",i=" + line.Metric["i"] + ","
		for i, v := range line.Values {
			b.add(key, line.Timestamps[i], bits(v))
		}
	}
}

// addRequest adds the points of a remote-write request of either protocol, with
// start times where the protocol has them, and returns their number.
func (b *book) addRequest(contentType string, body []byte, refuse func(series string, t int64) bool) (n, refused int, err error) {
	plain, err := snappy.Decode(nil, body)
	if err != nil {
		return 0, 0, err
	}
	add := func(key string, t int64, point string) {
		if refuse != nil && refuse(key, t) {
			refused++
			return
		}
		n++
		b.add(key, t, point)
	}
	if contentType != wire.ContentTypeV2 {
		var request prompb.WriteRequest
		if err := request.Unmarshal(plain); err != nil {
			return 0, 0, err
		}
		for _, ts := range request.Timeseries {
			key := ""
			for _, l := range ts.Labels {
				key += l.Name + "=" + l.Value + ","
			}
			for _, s := range ts.Samples {
				add(key, s.Timestamp, bits(s.Value))
			}
		}
		return n, refused, nil
	}
	var request writev2.Request
	if err := request.Unmarshal(plain); err != nil {
		return 0, 0, err
	}
	for _, ts := range request.Timeseries {
		key := ""
		for i := 0; i < len(ts.LabelsRefs); i += 2 {
			key += request.Symbols[ts.LabelsRefs[i]] + "=" + request.Symbols[ts.LabelsRefs[i+1]] + ","
		}
		for _, s := range ts.Samples {
			add(key, s.Timestamp, bits(s.Value))
			if s.StartTimestamp != 0 {
				b.add(key+"start", s.Timestamp, fmt.Sprint(s.StartTimestamp)) // belongs to the sample: receivers do not count it
			}
		}
		for _, h := range ts.Histograms {
			add(key, h.Timestamp, histogramText(h))
		}
	}
	return n, refused, nil
}

// oddValues are what samples are made of now and then. Negative zero is not
// among them because Prometheus' encoder, which writes and reads here, has none.
var oddValues = []uint64{0x7ff0000000000002, 0x7ff8000000000001, 0xfff8000000000123, 0, 0x7ff0000000000000, 0xfff0000000000000, 1}

// feed makes requests of protocol 2.0: one point for each of some series, all
// at one time. What was acknowledged is in its book.
type feed struct {
	name       string
	series     int
	odd        bool // NaNs and infinities among the values
	histograms bool // every sixth series
	starts     bool // every sixth series
	rng        *rand.Rand
	acked      book
	refused    int // answers 503
}

func newFeed(name string, series int) *feed {
	return &feed{name: name, series: series, rng: rand.New(rand.NewPCG(1, uint64(series)))}
}

// request is one round at time t, and what it is in a book.
func (f *feed) request(t int64) ([]byte, *book) {
	m := writev2.Request{Symbols: []string{"", "__name__", f.name, "i"}}
	var b book
	for i := range f.series {
		m.Symbols = append(m.Symbols, fmt.Sprint(i))
		ts := writev2.TimeSeries{LabelsRefs: []uint32{1, 2, 3, uint32(4 + i)}}
		key := fmt.Sprintf("__name__=%s,i=%d,", f.name, i)
		if f.histograms && i%6 == 5 {
			h := writev2.Histogram{Count: &writev2.Histogram_CountInt{CountInt: 7}, Sum: f.rng.Float64(), ZeroThreshold: 1e-9,
				ZeroCount: &writev2.Histogram_ZeroCountInt{ZeroCountInt: 1}, PositiveSpans: []writev2.BucketSpan{{Offset: int32(i), Length: 2}},
				PositiveDeltas: []int64{2, 2}, Timestamp: t}
			ts.Histograms = []writev2.Histogram{h}
			b.add(key, t, histogramText(h))
		} else {
			v := math.Round(f.rng.Float64()*1e6) / 1000
			if f.odd && f.rng.IntN(5) == 0 {
				v = math.Float64frombits(oddValues[f.rng.IntN(len(oddValues))])
			}
			ts.Samples = []writev2.Sample{{Value: v, Timestamp: t}}
			b.add(key, t, bits(v))
			if f.starts && i%6 == 4 {
				ts.Samples[0].StartTimestamp = t - 1000
				b.add(key+"start", t, fmt.Sprint(t-1000))
			}
		}
		m.Timeseries = append(m.Timeseries, ts)
	}
	plain, err := m.Marshal()
	if err != nil {
		panic(err)
	}
	return snappy.Encode(nil, plain), &b
}

// write sends one round until it is acknowledged, and books it. The error is
// that of the network: nobody knows what became of the round then.
func (f *feed) write(ctx context.Context, s *server, t int64) error {
	request, points := f.request(t)
	for {
		code, said, err := s.post(ctx, request, "Content-Type", wire.ContentTypeV2)
		switch {
		case err != nil:
			return err
		case code == http.StatusNoContent:
			points.missing(&book{}, func(series string, t int64) { f.acked.add(series, t, points.points[series][t]) })
			return nil
		case code != http.StatusServiceUnavailable:
			return fmt.Errorf("answered %d %q", code, said)
		}
		f.refused++
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// forwarded waits until nothing of the daemon's waits.
func (s *server) forwarded(t testing.TB) {
	t.Helper()
	eventually(t, "everything was forwarded", func() error {
		if n := s.metric("mcached_forward_dirty_samples"); n != 0 {
			return fmt.Errorf("%v samples wait, the oldest for %v s", n, s.metric("mcached_forward_dirty_age_seconds"))
		}
		return nil
	})
}

// startPeer runs a Prometheus that takes remote write, late samples and native
// histograms included.
func startPeer(t testing.TB) string {
	dir := t.TempDir()
	address := freeAddress(t)
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte("storage: {tsdb: {out_of_order_time_window: 1h}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, realServer(t, "prometheus", "prometheus"), "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address, "--web.enable-remote-write-receiver", "--enable-feature=native-histograms", "--log.level=warn")
	eventually(t, "Prometheus is ready", func() error {
		p.alive()
		return getJSON("http://"+address+"/-/ready", nil)
	})
	return "http://" + address
}

// startVictoria runs a VictoriaMetrics.
func startVictoria(t testing.TB) string {
	address := freeAddress(t)
	p := start(t, realServer(t, "victoria-metrics", "victoria-metrics"), "-storageDataPath="+t.TempDir(), "-httpListenAddr="+address,
		"-loggerLevel=WARN", "-retentionPeriod=100y", "-memory.allowedBytes=64MB")
	eventually(t, "VictoriaMetrics is ready", func() error {
		p.alive()
		res, err := http.Get("http://" + address + "/health")
		if err == nil {
			res.Body.Close()
		}
		return err
	})
	return "http://" + address
}

// TestE2EForward: every sample arrives, to the bit, late ones too: at another
// daemon, at a Prometheus and at a VictoriaMetrics, which is found to speak 1.0.
func TestE2EForward(t *testing.T) {
	for _, c := range []struct {
		name     string
		start    func(t testing.TB) string
		read     func(b *book, base string, from, to int64) error
		protocol string
		odd      bool
		native   bool
	}{
		{"mcached", func(t testing.TB) string { return startServer(t, "--self-scrape.interval=0").url },
			func(b *book, base string, from, to int64) error { return b.addRead(base, "fed", from, to) }, "2.0", true, true},
		{"Prometheus", startPeer,
			func(b *book, base string, from, to int64) error { return b.addRead(base, "fed", from, to) }, "1.0", true, false},
		{"VictoriaMetrics", startVictoria,
			func(b *book, base string, _, _ int64) error { return b.addExport(base, "fed") }, "1.0", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			base := c.start(t)
			s := startServer(t, "--self-scrape.interval=0", "--forward.url="+base+"/api/v1/write", "--forward.max-dirty-age=1s", "--forward.max-samples-per-request=500")
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			f := newFeed("fed", 120)
			f.odd, f.histograms = c.odd, c.native
			const rounds = 60
			end := time.Now().UnixMilli()
			order := make([]int, rounds) // in which they come: every seventh a little late
			for i := range order {
				order[i] = i
			}
			for i := 0; i+5 < rounds; i += 7 {
				order[i], order[i+5] = order[i+5], order[i]
			}
			for n, i := range order {
				if err := f.write(ctx, s, end-int64(rounds-i)*15_000+int64(i%3)); err != nil {
					t.Fatal(err)
				}
				if n%20 == 19 {
					s.forwarded(t)
				}
			}
			s.forwarded(t)
			var arrived book
			eventually(t, "all is found where it went", func() error {
				if err := c.read(&arrived, base, end-rounds*15_000, end+1000); err != nil {
					return err
				}
				if n := f.acked.missing(&arrived, nil); n > 0 {
					return fmt.Errorf("%d of %d points are missing", n, f.acked.len())
				}
				return nil
			})
			requests := s.metric("mcached_forward_requests_total")
			if v := s.metric(`mcached_forward_samples_total{result="rejected"}`); v != 0 || f.acked.len() != 120*rounds || arrived.len() != f.acked.len() {
				t.Errorf("%v rejected, %d acknowledged, %d arrived", v, f.acked.len(), arrived.len())
			}
			if taken := s.metric(`mcached_forward_samples_total{result="taken"}`); taken < float64(f.acked.len()) || taken > 3*float64(f.acked.len()) || requests > taken/20 {
				t.Errorf("%v points in %v requests", taken, requests)
			}
		})
	}
}

// TestE2EForwardHistograms: a Prometheus, which speaks 1.0, has the native
// histograms that the daemon has.
func TestE2EForwardHistograms(t *testing.T) {
	t.Parallel()
	base := startPeer(t)
	s := startServer(t, "--self-scrape.interval=0", "--forward.url="+base+"/api/v1/write", "--forward.max-dirty-age=1s")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	f := newFeed("fed", 12)
	f.histograms = true
	end := time.Now().UnixMilli()
	for i := range int64(20) {
		if err := f.write(ctx, s, end+(i-20)*15_000); err != nil {
			t.Fatal(err)
		}
	}
	s.forwarded(t)
	q := "/api/v1/query?" + url.Values{"query": {"fed[1h]"}, "time": {stamp(time.UnixMilli(end + 1))}}.Encode()
	if compare(t, q, s.url, base, q) != 1 {
		t.Error("there was nothing to compare")
	}
	if a, err := fetch(base + q); err != nil || strings.Count(fmt.Sprint(a.Data), "buckets") != 2*20 {
		t.Errorf("Prometheus has %v, %v", a.Data, err)
	}
	if v := s.metric(`mcached_forward_samples_total{result="rejected"}`); v != 0 {
		t.Errorf("%v points rejected", v)
	}
}

// TestE2EForwardStarts: start times go along in protocol 2.0, and so do the
// headers that were asked for.
func TestE2EForwardStarts(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	s := startServer(t, "--self-scrape.interval=0", "--forward.url="+r.url(), "--forward.max-dirty-age=1s", "--forward.header=X-Secret: hush", "--forward.header=X-Two:2")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	f := newFeed("fed", 30)
	f.starts, f.histograms = true, true
	for i := range int64(20) {
		if err := f.write(ctx, s, time.Now().UnixMilli()+(i-20)*15_000); err != nil {
			t.Fatal(err)
		}
	}
	s.forwarded(t)
	if n := f.acked.missing(&r.book, nil); n > 0 || f.acked.len() != 20*35 {
		t.Errorf("%d of %d points and start times did not arrive", n, f.acked.len())
	}
	if h := r.header.Load(); h.Get("X-Secret") != "hush" || h.Get("X-Two") != "2" || len(h.Get(forwardedBy)) < 16 {
		t.Errorf("the requests carried %v", h)
	}
	var flags struct{ Data map[string]string }
	if err := s.get("/api/v1/status/flags", &flags); err != nil || strings.Contains(fmt.Sprint(flags), "hush") || !strings.Contains(flags.Data["forward.header"], "X-Secret") {
		t.Errorf("the flags show %q, %v", flags.Data["forward.header"], err)
	}
	if strings.Contains(s.output(), "hush") {
		t.Error("the log shows a header's value")
	}
}

// TestE2EForwardRefusals: what cannot work is said in one line, before anything
// starts, and check-config says the same.
func TestE2EForwardRefusals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const to = "--forward.url=http://127.0.0.1:9999/api/v1/write"
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--forward.url=127.0.0.1:9999"}, "--forward.url"},
		{[]string{"--forward.url=ftp://127.0.0.1/"}, "--forward.url"},
		{[]string{"--forward.url=http://me:hush@127.0.0.1/"}, "--forward.http-config-file"},
		{[]string{"--web.listen-address=127.0.0.1:9301", "--forward.url=http://localhost:9301/api/v1/write"}, "itself"},
		{[]string{"--web.listen-address=:9301", "--forward.url=http://127.0.0.1:9301/api/v1/write"}, "itself"},
		{[]string{"--web.listen-address=127.0.0.1:80", "--forward.url=http://127.0.0.1/api/v1/write"}, "itself"},
		{[]string{to, "--forward.protocol=3"}, "--forward.protocol"},
		{[]string{to, "--forward.max-dirty-age=10ms"}, "--forward.max-dirty-age"},
		{[]string{to, "--forward.max-dirty-size=1KiB"}, "--forward.max-dirty-size"},
		{[]string{to, "--forward.lanes=1000"}, "--forward.lanes"},
		{[]string{to, "--forward.lanes=0"}, "--forward.lanes"},
		{[]string{to, "--forward.max-samples-per-request=2000000"}, "--forward.max-samples-per-request"},
		{[]string{to, "--forward.timeout=0"}, "--forward.timeout"},
		{[]string{to, "--forward.header=hush"}, "--forward.header"},
		{[]string{to, "--forward.header=Content-Type: hush"}, "--forward.header"},
		{[]string{to, "--tenancy.header=X-Scope-OrgID", "--forward.header=x-scope-orgid: hush"}, "--tenancy.header"},
		{[]string{"--forward.header=X-A: hush"}, "--forward.url"},
		{[]string{to, "--forward.http-config-file=" + filepath.Join(dir, "none")}, "--forward.http-config-file"},
		{[]string{to, "--forward.http-config-file=" + file("a.yml", "basic_auth: {username: me, password_file: none}")}, "--forward.http-config-file"},
		{[]string{to, "--forward.http-config-file=" + file("b.yml", "basic_oauth: {}\nmore: {}")}, "--forward.http-config-file"},
		{[]string{to, "--forward.http-config-file=" + file("c.yml", "tls_config: {ca_file: none}")}, "--forward.http-config-file"},
	} {
		for _, command := range [][]string{nil, {"check-config"}} {
			code, said := refusal(t, append(command, c.args...)...)
			if code != exitUsage || !strings.Contains(said, c.says) || strings.Count(said, "\n") != 1 || strings.Contains(said, "hush") {
				t.Errorf("mcached %v: exit code %d and %q; want %d and one line with %s", c.args, code, said, exitUsage, c.says)
			}
		}
	}
	if code, said := refusal(t, "check-config", to, "--forward.http-config-file="+file("d.yml", "basic_auth: {username: me, password_file: a.yml}")); code != exitOK {
		t.Errorf("check-config: exit code %d and %q", code, said)
	}
}

// TestE2EForwardAuthenticated: TLS and a password, from a file, to a daemon that wants both.
func TestE2EForwardAuthenticated(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	certFile, keyFile, _ := certificate(t, dir)
	hash, err := bcrypt.GenerateFromPassword([]byte("swordfish"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"web.yml":  fmt.Sprintf("tls_server_config: {cert_file: %q, key_file: %q}\nbasic_auth_users: {writer: %q}\n", certFile, keyFile, hash),
		"http.yml": "basic_auth: {username: writer, password_file: password}\ntls_config: {ca_file: cert.pem}\n",
		"password": "wrong",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	down := start(t, daemonBinary(t), "--web.listen-address=127.0.0.1:0", "--resp.listen-address=off", "--memory.size=64MiB", "--self-scrape.interval=0",
		"--web.config.file="+filepath.Join(dir, "web.yml"))
	base := ""
	eventually(t, "the daemon says where it listens", func() error {
		down.alive()
		if m := urlInOutput.FindStringSubmatch(down.output()); m != nil {
			base = m[1]
			return nil
		}
		return errors.New("not yet")
	})
	s := startServer(t, "--self-scrape.interval=0", "--forward.url="+base+"/api/v1/write", "--forward.max-dirty-age=1s", "--forward.http-config-file="+filepath.Join(dir, "http.yml"))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	f := newFeed("fed", 10)
	if err := f.write(ctx, s, time.Now().UnixMilli()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the wrong password is refused", func() error {
		if s.metric("mcached_forward_retries_total") == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	if n := s.metric("mcached_forward_dirty_samples"); n != 10 {
		t.Errorf("%v samples wait, not 10: a password can be mended", n)
	}
	if err := os.WriteFile(filepath.Join(dir, "password"), []byte("swordfish"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.forwarded(t)
	for _, p := range []*process{s.process, down} {
		if strings.Contains(p.output(), "swordfish") {
			t.Errorf("the password is in the log of %s", p.name)
		}
	}
}

// TestE2EForwardCircle: two daemons that forward to each other detect it, and
// keep what they hold instead of sending it round without end.
func TestE2EForwardCircle(t *testing.T) {
	t.Parallel()
	a := freeAddress(t)
	b := startServer(t, "--self-scrape.interval=0", "--forward.url=http://"+a+"/api/v1/write", "--forward.max-dirty-age=1s", "--shutdown.timeout=1s")
	s := startServer(t, "--self-scrape.interval=0", "--web.listen-address="+a, "--forward.url="+b.url+"/api/v1/write", "--forward.max-dirty-age=1s", "--shutdown.timeout=1s")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := newFeed("fed", 10).write(ctx, s, time.Now().UnixMilli()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the loop is detected", func() error {
		if !strings.Contains(b.output(), "508") || !strings.Contains(b.output(), "forwarding loop") {
			return errors.New("nothing said")
		}
		return nil
	})
	if v := s.metric("mcached_remote_write_samples_total"); v != 10 {
		t.Errorf("%v samples came to the first daemon, want the 10 that it began with", v)
	}
}
