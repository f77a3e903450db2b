package query

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// killable is a store that is killed, with all that it is answering, and comes back.
type killable struct {
	store   http.Handler
	mu      sync.Mutex
	running *httptest.Server // nil while it is killed
}

func (k *killable) kill() {
	k.mu.Lock()
	s := k.running
	k.running = nil
	k.mu.Unlock()
	s.CloseClientConnections()
	s.Close()
}

func (k *killable) start() {
	k.mu.Lock()
	k.running = httptest.NewServer(k.store)
	k.mu.Unlock()
}

func (k *killable) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	k.mu.Lock()
	s := k.running
	k.mu.Unlock()
	if s == nil {
		return nil, errors.New("connection refused")
	}
	return new(net.Dialer).DialContext(ctx, "tcp", s.Listener.Addr().String())
}

// TestUpstreamKilledTenTimes kills the store ten times under queries of which
// there are 20 in a second of the API's clock: none fails, what memory has is
// whole, and everything else is whole or says that it is not.
func TestUpstreamKilledTenTimes(t *testing.T) {
	const (
		kills   = 10
		downFor = 20 // queries
		upFor   = 50
		clients = 4
	)
	f := &fakeStore{version: "3.14.0"}
	k := &killable{store: f}
	k.start()
	defer func() { k.kill() }()
	var clock atomic.Int64
	clock.Store(t0 + 600_000)
	o := testOptions()
	o.Now = func() time.Time { return time.UnixMilli(clock.Load()) }
	transport := &http.Transport{DialContext: k.dial}
	defer transport.CloseIdleConnections()
	o.Upstream = patiently(UpstreamOptions{URL: &url.URL{Scheme: "http", Host: "store"}, Client: &http.Client{Transport: transport}, Memory: &answerMap{}, Settled: 5 * time.Minute, MaxConcurrency: 2})
	a := NewAPI(lateCache(t), o)
	queries := make(chan int)
	var whole, warned, ofMemory atomic.Int64
	var wait sync.WaitGroup
	for range clients {
		wait.Go(func() {
			for i := range queries {
				from, to := []int64{300, -900 - 15*int64(i%200), -900, -3000}[i%4], []int64{600, 600, 600, -1500}[i%4]
				w := panel(t, a, from, to)
				body := w.Body.String()
				switch want := f.matrix(t0+1000*from, t0+1000*to, 15_000, 0); {
				case w.Code != 200:
					t.Errorf("%d from %d to %d: %s", w.Code, from, to, body)
				case body == want:
					whole.Add(1)
					if from == 300 {
						ofMemory.Add(1)
					}
				case from == 300:
					t.Errorf("memory has all of it: %.300s", body)
				case strings.Contains(body, `"warnings":[`) && strings.Contains(body, "the store behind did not answer"):
					warned.Add(1)
				default:
					t.Errorf("from %d to %d, neither whole nor warned: %.300s … %s", from, to, body, body[max(0, len(body)-300):])
				}
			}
		})
	}
	for i := range kills * (downFor + upFor) {
		switch i % (downFor + upFor) {
		case upFor:
			k.kill()
		case 0:
			if i > 0 {
				k.start()
			}
		}
		clock.Add(50)
		queries <- i
	}
	close(queries)
	wait.Wait()
	k.start()
	if n := kills * (downFor + upFor); whole.Load()+warned.Load() != int64(n) || ofMemory.Load() != int64(n/4) || warned.Load() < kills || whole.Load() < int64(n/2) {
		t.Errorf("of %d answers %d were whole, %d of them memory's, and %d were warned", n, whole.Load(), ofMemory.Load(), warned.Load())
	}
	if n := a.upstream.slots.taken(); n != 0 {
		t.Errorf("%d turns are not over", n)
	}
}

// vanishing is a source that has less from its second selection on.
type vanishing struct {
	dropping
	selections *atomic.Int64
	from       int64
}

func (v vanishing) Select(ctx context.Context, s Selection) (Found, error) {
	f, err := v.dropping.Select(ctx, s)
	if err != nil || v.selections.Add(1) == 1 {
		return f, err
	}
	return vanished{f, v.from}, nil
}

type vanished struct {
	Found
	from int64
}

func (v vanished) Missing() Missing {
	m := v.Found.Missing()
	m.Gone = v.from
	return m
}

// TestSplitStillComplete: what memory loses between the plan and the evaluation
// is asked of the store, alone or as the whole query.
func TestSplitStillComplete(t *testing.T) {
	for _, c := range []struct {
		gone   int64 // what memory has left begins here
		asked  string
		source string
	}{
		{t0 + 150_000, fmt.Sprint([][2]int64{{t0 - 900_000, t0 + 285_000}, {t0 + 300_000, t0 + 300_000}, {t0 + 300_000, t0 + 435_000}}), sourceBoth},
		{t0 + 10_000, fmt.Sprint([][2]int64{{t0 - 900_000, t0 + 285_000}, {t0 + 300_000, t0 + 300_000}, {t0 + 300_000, t0 + 300_000}}), sourceBoth},
		{t0 + 590_000, "", sourceUpstream},
	} {
		f := &fakeStore{version: "3.14.0"}
		server := httptest.NewServer(f)
		u, err := url.Parse(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		o := testOptions()
		o.Upstream = patiently(UpstreamOptions{URL: u})
		a := NewAPIOf(vanishing{dropping{FromCache(lateCache(t), nil), nil}, new(atomic.Int64), c.gone}, o)
		wantPanel(t, f, panel(t, a, -900, 600), -900, 600, c.source)
		asked := f.requests()
		if got := fmt.Sprint(asked); c.asked != "" && got != c.asked {
			t.Errorf("gone before %d: the store was asked %s", c.gone, got)
		}
		if c.asked == "" && !slices.Contains(asked, [2]int64{t0 - 900_000, t0 + 600_000}) {
			t.Errorf("the store was not asked for all: %v", asked)
		}
		server.Close()
	}
}
