package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"mcached/remotewrite/wire"
)

// receiver is a downstream store that has faults when it is told to. What it
// took is in its book.
type receiver struct {
	book
	t       testing.TB
	address string
	mood    atomic.Pointer[mood]
	header  atomic.Pointer[http.Header] // of the last request
	faults  atomic.Int64                // requests that met one
	lost    book                        // points refused for good, each once though its request came twice

	mu     sync.Mutex
	server *http.Server
}

// mood answers in the receiver's place, and reports whether it did.
type mood func(w http.ResponseWriter, r *http.Request, body []byte) bool

func newReceiver(t testing.TB) *receiver {
	r := &receiver{t: t, address: freeAddress(t)}
	r.feel(nil)
	r.header.Store(&http.Header{})
	r.up()
	t.Cleanup(r.down)
	return r
}

func (r *receiver) url() string { return "http://" + r.address + "/api/v1/write" }

func (r *receiver) feel(m mood) { r.mood.Store(&m) }

// up listens at the receiver's address, down ends that and cuts what is open.
func (r *receiver) up() {
	r.mu.Lock()
	defer r.mu.Unlock()
	var l net.Listener
	eventually(r.t, "the port is free", func() (err error) {
		l, err = net.Listen("tcp", r.address)
		return err
	})
	r.server = &http.Server{Handler: r}
	go r.server.Serve(l)
}

func (r *receiver) down() {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.server.Close()
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	h := req.Header.Clone()
	r.header.Store(&h)
	if m := *r.mood.Load(); m != nil && m(w, req, body) {
		r.faults.Add(1)
		return
	}
	r.take(w, req, body, nil)
}

// take books a request, but for the series that are to be refused.
func (r *receiver) take(w http.ResponseWriter, req *http.Request, body []byte, refuse func(series string) bool) {
	n, refused, err := r.addRequest(req.Header.Get("Content-Type"), body, func(series string, t int64) bool {
		no := refuse != nil && refuse(series)
		if no {
			r.lost.add(series, t, "")
		}
		return no
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if req.Header.Get("Content-Type") == wire.ContentTypeV2 {
		w.Header().Set("X-Prometheus-Remote-Write-Samples-Written", strconv.Itoa(n))
	}
	if refused > 0 {
		http.Error(w, "I do not like some of it", http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// moods by name.
func answers(code int, header ...string) mood {
	return func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		http.Error(w, "no", code)
		return true
	}
}

// stream writes rounds to a daemon until it is stopped, from one goroutine.
type stream struct {
	*feed
	stop   context.CancelFunc
	ended  chan struct{}
	err    error
	mu     sync.Mutex
	ackAt  map[int64]time.Time // by the round's time: when its acknowledgement came
	rounds atomic.Int64
}

func (f *feed) start(s *server, pause time.Duration) *stream {
	ctx, cancel := context.WithCancel(context.Background())
	st := &stream{feed: f, stop: cancel, ended: make(chan struct{}), ackAt: map[int64]time.Time{}}
	go func() {
		defer close(st.ended)
		last := int64(0)
		for ctx.Err() == nil {
			at := max(time.Now().UnixMilli(), last+1)
			last = at
			if st.err = f.write(ctx, s, at); st.err != nil {
				return
			}
			st.mu.Lock()
			st.ackAt[at] = time.Now()
			st.mu.Unlock()
			st.rounds.Add(1)
			time.Sleep(pause)
		}
	}()
	return st
}

// end stops the stream; it fails if that had ended by itself.
func (st *stream) end(t testing.TB) {
	t.Helper()
	st.stop()
	<-st.ended
	if st.err != nil && !errors.Is(st.err, context.Canceled) {
		t.Errorf("the stream ended: %v", st.err)
	}
}

// TestE2EFaultyReceiver: whatever a receiver does for a while, nothing that was
// acknowledged is lost, and what it refuses for good is counted.
func TestE2EFaultyReceiver(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	s := startServer(t, "--self-scrape.interval=0", "--forward.url="+r.url(), "--forward.max-dirty-age=1s", "--forward.timeout=1s", "--forward.max-samples-per-request=200")
	f := newFeed("fed", 100)
	f.odd = true
	st := f.start(s, 5*time.Millisecond)
	var hung sync.WaitGroup
	for _, c := range []struct {
		name string
		mood mood
	}{
		{"500", answers(500)},
		{"429 with Retry-After", answers(429, "Retry-After", "1")},
		{"401", answers(401)},
		{"slow", func(w http.ResponseWriter, req *http.Request, body []byte) bool {
			time.Sleep(300 * time.Millisecond)
			r.take(w, req, body, nil)
			return true
		}},
		{"no answer in time", func(w http.ResponseWriter, req *http.Request, body []byte) bool {
			hung.Add(1)
			defer hung.Done()
			<-req.Context().Done()
			return true
		}},
		{"connections cut", func(http.ResponseWriter, *http.Request, []byte) bool { panic(http.ErrAbortHandler) }},
		{"taken, then cut", func(w http.ResponseWriter, req *http.Request, body []byte) bool {
			_, _, _ = r.addRequest(req.Header.Get("Content-Type"), body, nil)
			r.faults.Add(1)
			panic(http.ErrAbortHandler)
		}},
	} {
		if c.name == "connections cut" {
			c.mood = func(http.ResponseWriter, *http.Request, []byte) bool {
				r.faults.Add(1)
				panic(http.ErrAbortHandler)
			}
		}
		before, faults := s.metric("mcached_forward_samples_total{result=\"taken\"}"), r.faults.Load()
		r.feel(c.mood)
		eventually(t, c.name+" has been met", func() error {
			if r.faults.Load() < faults+2 {
				return errors.New("not yet")
			}
			return nil
		})
		r.feel(nil)
		eventually(t, "it goes on after "+c.name, func() error {
			if s.metric("mcached_forward_samples_total{result=\"taken\"}") < before+500 {
				return errors.New("not yet")
			}
			return nil
		})
	}
	hung.Wait()
	r.down()
	retries := s.metric("mcached_forward_retries_total")
	eventually(t, "its absence is noticed", func() error {
		if s.metric("mcached_forward_retries_total") < retries+3 {
			return errors.New("not yet")
		}
		return nil
	})
	if s.metric("mcached_forward_dirty_samples") == 0 {
		t.Error("nothing waits for a receiver that is away")
	}
	r.up()
	st.end(t)
	s.forwarded(t)
	if n := f.acked.missing(&r.book, nil); n > 0 || f.acked.len() < 5000 {
		t.Errorf("%d of %d points are missing", n, f.acked.len())
	}
	if v := s.metric(`mcached_forward_samples_total{result="rejected"}`); v != 0 {
		t.Errorf("%v points count as rejected", v)
	}

	// What it rejects is lost, and counted, and nothing else is.
	bad := func(series string) bool { return strings.Contains(series, "i=7,") }
	r.feel(func(w http.ResponseWriter, req *http.Request, body []byte) bool {
		r.take(w, req, body, bad)
		return true
	})
	st = f.start(s, 5*time.Millisecond)
	eventually(t, "something was refused", func() error {
		if r.lost.len() < 20 {
			return errors.New("not yet")
		}
		return nil
	})
	st.end(t)
	s.forwarded(t)
	missing := f.acked.missing(&r.book, func(series string, _ int64) {
		if !bad(series) {
			t.Errorf("a point of %s is missing", series)
		}
	})
	if v := s.metric(`mcached_forward_samples_total{result="rejected"}`); int(v) != r.lost.len() || missing == 0 || missing > int(v) {
		t.Errorf("%v points count as rejected, %d were, %d are missing", v, r.lost.len(), missing)
	}
	if !strings.Contains(s.output(), "I do not like some of it") {
		t.Error("the log does not say what the receiver said")
	}
}

// TestE2EBackPressure: when as much waits as may, writes get 503 with
// Retry-After; when the receiver is back, they go on, and nothing is lost.
func TestE2EBackPressure(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	r.feel(answers(500))
	s := startServer(t, "--self-scrape.interval=0", "--forward.url="+r.url(), "--forward.max-dirty-age=1s", "--forward.max-dirty-size=1MiB")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	f := newFeed("fed", 2000)
	at := time.Now().UnixMilli()
	sent := 0
	for ; ; sent++ {
		at++
		request, points := f.request(at)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/api/v1/write", strings.NewReader(string(request)))
		if err != nil {
			t.Fatal(err)
		}
		wire.SetHeaders(req.Header, wire.V2)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode == http.StatusServiceUnavailable && res.Header.Get("Retry-After") != "" {
			break
		}
		if res.StatusCode != http.StatusNoContent {
			t.Fatal(res.Status)
		}
		points.missing(&book{}, func(series string, t int64) { f.acked.add(series, t, points.points[series][t]) })
	}
	limit := s.metric("mcached_forward_dirty_limit_samples")
	dirty := s.metric("mcached_forward_dirty_samples")
	if dirty < limit || dirty > limit+2000 || s.metric("mcached_forward_refused_total") == 0 || sent < 30 {
		t.Errorf("refused after %d rounds, with %v of %v samples waiting", sent, dirty, limit)
	}
	eventually(t, "it says how long the oldest has waited", func() error {
		if v := s.metric("mcached_forward_dirty_age_seconds"); v < 1 {
			return fmt.Errorf("%v s", v)
		}
		return nil
	})
	st := f.start(s, 0)
	told := s.metric("mcached_forward_refused_total")
	eventually(t, "writes of the stream are rejected", func() error {
		if s.metric("mcached_forward_refused_total") < told+2 { // or it has nothing to come back from
			return errors.New("not yet")
		}
		return nil
	})
	r.feel(nil)
	eventually(t, "writes go on", func() error {
		if st.rounds.Load() < 20 {
			return errors.New("not yet")
		}
		return nil
	})
	st.end(t)
	s.forwarded(t)
	if n := f.acked.missing(&r.book, nil); n > 0 || f.refused == 0 {
		t.Errorf("%d of %d points are missing; %d answers of 503 in between", n, f.acked.len(), f.refused)
	}
}

// stalls runs until the test ends and returns what tells how long the machine
// has kept this process waiting at the most: how much too late it woke.
func stalls(t testing.TB) (worst func() time.Duration) {
	const nap = time.Millisecond
	var most atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for t.Context().Err() == nil {
			began := time.Now()
			time.Sleep(nap)
			most.Store(max(most.Load(), int64(time.Since(began)-nap)))
		}
	}()
	t.Cleanup(func() { <-ended })
	return func() time.Duration { return time.Duration(most.Load()) }
}

// TestE2EKill: kill -9 loses no more than came within --forward.max-dirty-age,
// and what is missing is of that time.
func TestE2EKill(t *testing.T) {
	t.Parallel()
	const maxAge = 2 * time.Second
	r := newReceiver(t)
	address := freeAddress(t)
	args := []string{"--web.listen-address=" + address, "--self-scrape.interval=0", "--forward.url=" + r.url(), "--forward.max-dirty-age=" + maxAge.String()}
	f := newFeed("fed", 50)
	worst := stalls(t)
	for _, c := range []struct {
		name  string
		pause time.Duration // between rounds
		waits time.Duration // how long the oldest sample has, at least, when the daemon is killed
	}{
		{"runs go when they are sealed", 2 * time.Millisecond, 0},
		{"no head is ever full", 700 * time.Millisecond, maxAge / 2},
	} {
		for kills, inDanger := 1, false; !inDanger; kills++ {
			s := startServer(t, args...)
			began, before := time.Now(), r.len()
			st := f.start(s, c.pause)
			eventually(t, "samples have gone, and others wait", func() error {
				age := time.Duration(s.metric("mcached_forward_dirty_age_seconds") * float64(time.Second))
				waiting, gone := s.metric("mcached_forward_dirty_samples"), r.len()-before
				if time.Since(began) < maxAge*3/2 || age < c.waits || waiting == 0 || float64(gone) < 2*waiting {
					return fmt.Errorf("%s: %v samples wait, the oldest for %v, %d have gone", c.name, waiting, age, gone)
				}
				return nil
			})
			killed := time.Now()
			if err := s.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			<-s.exited
			<-st.ended
			oldest, lost := time.Duration(0), 0
			st.mu.Lock()
			f.acked.missing(&r.book, func(series string, at int64) {
				if acked, ok := st.ackAt[at]; ok {
					lost++
					oldest = max(oldest, killed.Sub(acked))
				}
			})
			acked := len(st.ackAt) * f.series
			st.mu.Unlock()
			// What waited may just have gone, but not every time.
			inDanger = lost > 0 && oldest >= c.waits/2
			if !inDanger && kills == 10 {
				t.Fatalf("%s: nothing was in danger in %d kills: samples do not wait as they should", c.name, kills)
			}
			t.Logf("%s: %d of %d points lost, the oldest acknowledged %v before; the machine stalled for %v",
				c.name, lost, acked, oldest.Round(time.Millisecond), worst())
			// The daemon has the same machine, and a few steps to go.
			if bound := maxAge + 10*worst(); oldest > bound {
				t.Errorf("%s: a point was lost %v after it was acknowledged, more than %v", c.name, oldest, bound)
			}
			if lost > acked/2 {
				t.Errorf("%s: %d of %d points lost", c.name, lost, acked)
			}
		}
	}
}

// TestE2EDrain: SIGTERM sends what waits, and says so; when it cannot, it says
// how much is left, in time, and the next start sends it from the snapshot.
func TestE2EDrain(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	s := startServer(t, "--self-scrape.interval=0", "--forward.url="+r.url(), "--forward.max-dirty-age=1h")
	f := newFeed("fed", 200)
	st := f.start(s, time.Millisecond)
	eventually(t, "enough waits", func() error {
		if st.rounds.Load() < 100 {
			return errors.New("not yet")
		}
		return nil
	})
	if r.len() != 0 {
		t.Errorf("%d points were forwarded before they had to", r.len())
	}
	// It is stopped under load: the stream ends when the port is closed.
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := s.wait(); code != exitOK || !strings.Contains(s.output(), "Everything was forwarded") {
		t.Errorf("exit code %d:\n%s", code, s.output())
	}
	<-st.ended
	if n := f.acked.missing(&r.book, nil); n > 0 || f.acked.len() < 20_000 {
		t.Errorf("%d of %d points are missing", n, f.acked.len())
	}

	// Away when it ends: the snapshot has what is left.
	r.down()
	args := []string{"--self-scrape.interval=0", "--forward.url=" + r.url(), "--forward.max-dirty-age=1h", "--shutdown.timeout=1s",
		"--snapshot.path=" + filepath.Join(t.TempDir(), "snapshot")}
	s = startServer(t, args...)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := f.write(ctx, s, time.Now().UnixMilli()); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if code := s.stop(); code != exitOK || !strings.Contains(s.output(), "Not everything was forwarded") || !strings.Contains(s.output(), "left_samples=200 ") {
		t.Errorf("exit code %d:\n%s", code, s.output())
	}
	if took := time.Since(began); took > patience/4 {
		t.Errorf("it took %v to give up after 1 s", took)
	}

	// Back, and the daemon, too: what was left is sent, and nothing else.
	r.up()
	before := r.len()
	s = startServer(t, args...)
	if n := s.metric("mcached_forward_dirty_samples"); n != 200 {
		t.Errorf("%v samples wait after the start, want the 200 that were left", n)
	}
	if code := s.stop(); code != exitOK || !strings.Contains(s.output(), "Everything was forwarded") {
		t.Errorf("exit code %d:\n%s", code, s.output())
	}
	if n := f.acked.missing(&r.book, nil); n > 0 || r.len() != before+200 {
		t.Errorf("%d points are missing; %d came after the start, want 200", n, r.len()-before)
	}
}

// TestE2ESnapshotDiskFull: a snapshot that does not fit the disk leaves the old
// one as it was, no rubbish, and one line in the log; the daemon goes on.
func TestE2ESnapshotDiskFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := fmt.Sprintf("mount -t tmpfs -o size=64k tmpfs %s && exec \"$@\"", dir)
	if out, err := exec.Command("unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh", "true").CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no small disk can be made here: %v %s", err, out)
		}
		t.Skipf("no small disk can be made here: %v %s", err, out)
	}
	path := filepath.Join(dir, "snapshot")
	address := freeAddress(t)
	p := start(t, "unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh", daemonBinary(t), "--web.listen-address="+address,
		"--resp.listen-address=off", "--memory.size=64MiB", "--self-scrape.interval=0", "--snapshot.path="+path)
	s := &server{process: p, url: "http://" + address}
	eventually(t, "the daemon is ready", func() error {
		p.alive()
		return s.get("/-/ready", nil)
	})
	// The mount is the daemon's own; this is its view of it.
	view := fmt.Sprintf("/proc/%d/root%s", p.cmd.Process.Pid, dir)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	f := newFeed("fed", 20)
	now := time.Now().UnixMilli()
	if err := f.write(ctx, s, now); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	var small []byte
	eventually(t, "a snapshot that fits", func() (err error) {
		small, err = os.ReadFile(filepath.Join(view, "snapshot"))
		return err
	})
	for i := range int64(400) {
		if err := newFeed(fmt.Sprint("more", i), 20).write(ctx, s, now+i); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the log says that it does not fit", func() error {
		if !strings.Contains(p.output(), "no space left on device") {
			return errors.New("not yet")
		}
		return nil
	})
	if now, err := os.ReadFile(filepath.Join(view, "snapshot")); err != nil || string(now) != string(small) {
		t.Errorf("the old snapshot is another, or gone: %v", err)
	}
	left, err := os.ReadDir(view)
	if err != nil || len(left) != 2 { // it and its lock
		t.Errorf("left on the disk: %v, %v", left, err)
	}
	if err := f.write(ctx, s, now+1); err != nil {
		t.Error(err)
	}
	if code := p.stop(); code != exitError || strings.Count(tail(p.output(), 2), "no space left") != 1 { // told once
		t.Errorf("exit code %d: %s", code, tail(p.output(), 3))
	}
}
