package send

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"mcached/mcache"
	"mcached/remotewrite"
	"mcached/remotewrite/wire"
)

// forwarderTo makes a Forwarder from r to a URL.
func (r receiver) forwarderTo(url string, p wire.Protocol, o ForwarderOptions) *Forwarder {
	r.T.Helper()
	var err error
	if o.Client, err = NewClient(ClientOptions{URL: url, Protocol: p, MaxRetryAfter: 5 * time.Millisecond}); err != nil {
		r.T.Fatal(err)
	}
	o.Cache = r.Cache
	if o.MinBackoff == 0 {
		o.MinBackoff, o.MaxBackoff = time.Millisecond, 5*time.Millisecond
	}
	f, err := NewForwarder(o)
	if err != nil {
		r.T.Fatal(err)
	}
	return f
}

// waitFor looks again and again until ok, for minutes: machines that run tests
// are slow or busy.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// drained runs Drain to its end.
func drained(t testing.TB, f *Forwarder) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if left := f.Drain(ctx); left != (Left{}) {
		t.Fatalf("Drain leaves %+v", left)
	}
}

// moody answers some requests as receivers in trouble do, and passes the rest on.
type moody struct {
	to       http.Handler
	requests atomic.Int64
	moods    atomic.Int64
}

func (m *moody) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch m.requests.Add(1) % 11 {
	case 2:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "later", http.StatusServiceUnavailable)
	case 4:
		http.Error(w, "too many", http.StatusTooManyRequests)
	case 6:
		panic(http.ErrAbortHandler) // the connection is cut
	case 8:
		http.Error(w, "who are you", http.StatusUnauthorized)
	case 10: // taken, but the answer is lost
		m.to.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	default:
		m.to.ServeHTTP(w, r)
		return
	}
	m.moods.Add(1)
}

// Whatever is written while the receiver comes and goes arrives there, to the
// bit: samples, those out of order, start times and histograms.
func TestForwarderDelivers(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		const seed = 7
		rng := rand.New(rand.NewPCG(seed, uint64(p)))
		down := newReceiver(t, remotewrite.Options{})
		m := &moody{to: down}
		server := httptest.NewServer(m)
		defer server.Close()
		up := newWriteBack(t, remotewrite.Options{})
		f := up.forwarderTo(server.URL, p, ForwarderOptions{Lanes: 3, MaxDirtyAge: 200 * time.Millisecond, MaxPerRequest: 50})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()

		const series, rounds = 60, 150
		sent := uint64(0)
		for i := range rounds {
			request := writev2.Request{Symbols: []string{"", "__name__", "x", "i"}}
			for n := range series {
				request.Symbols = append(request.Symbols, fmt.Sprint(n))
				at := now.UnixMilli() + int64(i-rounds)*15_000
				if rng.IntN(10) == 0 {
					at -= rng.Int64N(40) * 5_000
				}
				ts := writev2.TimeSeries{LabelsRefs: []uint32{1, 2, 3, uint32(4 + n)}}
				switch {
				case n%6 == 5:
					ts.Histograms = []writev2.Histogram{{Count: &writev2.Histogram_CountInt{CountInt: 3}, ZeroCount: &writev2.Histogram_ZeroCountInt{ZeroCountInt: 3},
						Sum: rng.Float64(), Timestamp: at}}
				case n%6 == 4 && p == wire.V2: // 1.0 has no words for start times
					ts.Samples = []writev2.Sample{{Timestamp: at, Value: rng.Float64(), StartTimestamp: at - 1000}}
				default:
					ts.Samples = []writev2.Sample{{Timestamp: at, Value: rng.Float64()}}
				}
				request.Timeseries = append(request.Timeseries, ts)
			}
			answered(t, up.Send(wire.V2, marshal(t, &request)), 204, "")
			if i%50 == 49 { // it is sent while it is written, in parts
				waitFor(t, "more to be sent", func() bool { return f.Stats().Sent > sent })
				sent = f.Stats().Sent
			}
		}
		ran := f.Stats()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		drained(t, f)
		if got, want := down.Contents("default"), up.Contents("default"); !slices.Equal(got, want) {
			t.Errorf("seed %d: %d series arrived of %d, or others than those written", seed, len(got), len(want))
		}
		st := f.Stats()
		if ran.Sent == 0 || m.moods.Load() < 10 || st.Retries < 10 || st.Rejected != 0 || st.Sent < series*rounds*9/10 || st.DirtyPoints != 0 || st.InFlight != 0 || st.Bytes == 0 ||
			st.Requests < uint64(m.requests.Load()) || st.LastSuccess.IsZero() || st.Protocol != p {
			t.Errorf("%d moods in %d requests; while it ran %+v, then %+v", m.moods.Load(), m.requests.Load(), ran, st)
		}
	})
}

// A series' points that come in order are sent in order, although lanes, kicks
// and retries go on at the same time.
func TestForwarderKeepsOrder(t *testing.T) {
	var mu sync.Mutex
	last := map[string]int64{}
	overtaken, points := 0, 0
	m := &moody{to: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var request prompb.WriteRequest
		if err := request.Unmarshal(must(snappy.Decode(nil, body))); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, ts := range request.Timeseries {
			key := fmt.Sprint(ts.Labels)
			for i, s := range ts.Samples {
				// What was accepted before may be sent again, from the first point on.
				if i > 0 && s.Timestamp <= ts.Samples[i-1].Timestamp || i == 0 && last[key] > 0 && s.Timestamp > last[key]+1000 {
					overtaken++
				}
				last[key] = max(last[key], s.Timestamp)
				points++
			}
		}
	})}
	server := httptest.NewServer(m)
	defer server.Close()
	up := newWriteBack(t, remotewrite.Options{})
	f := up.forwarderTo(server.URL, wire.V1, ForwarderOptions{Lanes: 4, MaxDirtyAge: 100 * time.Millisecond, MaxPerRequest: 7})
	up.Cache.SetMaxDirty(2000) // half of it kicks
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	const series, rounds = 20, 300
	refused := 0
	for i := range rounds {
		if i == 60 { // more waits than is kicked for, however fast it would be
			go func() { done <- f.Run(ctx) }()
		}
		for n := range series {
			for {
				err := up.Cache.AppendSamples("default", named("x", "n", fmt.Sprint(n)), mcache.Sample{T: now.UnixMilli() + int64(i)*1000, V: 1})
				if err == nil {
					break
				}
				if !errors.Is(err, mcache.ErrDirty) {
					t.Fatal(err)
				}
				refused++
				time.Sleep(time.Millisecond)
			}
		}
	}
	cancel()
	<-done
	drained(t, f)
	if overtaken > 0 || points < series*rounds || f.Stats().Forced == 0 || m.moods.Load() == 0 {
		t.Errorf("%d of %d points came out of order; %d moods, %d refusals, %+v", overtaken, points, m.moods.Load(), refused, f.Stats())
	}
}

// For a bad point among many the receiver of protocol 1.0 refuses the whole
// request. The good ones arrive all the same, and the bad ones are counted.
func TestForwarderIsolatesWhatIsRejected(t *testing.T) {
	for name, c := range map[string]struct {
		bad      func(n, i int) bool
		atMost   uint64 // rejected
		requests int64  // for each shard
	}{
		"one":             {func(n, i int) bool { return n == 13 && i == 7 }, 1, 5},
		"none":            {func(n, i int) bool { return false }, 0, 1},
		"a few":           {func(n, i int) bool { return n%20 == 3 && i == 5 }, 5, 20},
		"a whole series":  {func(n, i int) bool { return n == 50 }, 40, 20},
		"all of them":     {func(n, i int) bool { return true }, 4000, 2*maxSplits + 1},
		"every third one": {func(n, i int) bool { return i%3 == 0 }, 4000, 2*maxSplits + 1},
	} {
		t.Run(name, func(t *testing.T) {
			down := newReceiver(t, remotewrite.Options{})
			var requests atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				body, _ := io.ReadAll(r.Body)
				var request prompb.WriteRequest
				if err := request.Unmarshal(must(snappy.Decode(nil, body))); err != nil {
					t.Error(err)
				}
				for _, ts := range request.Timeseries {
					for _, s := range ts.Samples {
						if s.Value < 0 {
							http.Error(w, "out of order sample", 400)
							return
						}
					}
				}
				answer := down.Post(wire.ContentTypeV1, "snappy", body)
				w.WriteHeader(answer.Code)
			}))
			defer server.Close()
			up := newWriteBack(t, remotewrite.Options{})
			f := up.forwarderTo(server.URL, wire.V1, ForwarderOptions{Lanes: 1})
			var want []string
			bad := uint64(0)
			const series, samples = 100, 40
			for n := range series {
				var all, good []mcache.Sample
				for i := range samples {
					s := sample(float64(i-samples), float64(n+1))
					if c.bad(n, i) {
						s = sample(float64(i-samples), -1)
						bad++
					} else {
						good = append(good, s)
					}
					all = append(all, s)
				}
				if err := up.Cache.AppendSamples("default", named("x", "n", fmt.Sprint(n)), all...); err != nil {
					t.Fatal(err)
				}
				if len(good) > 0 {
					want = append(want, line(labelText(named("x", "n", fmt.Sprint(n))), good...))
				}
			}
			drained(t, f)
			st := f.Stats()
			if st.Sent+st.Rejected != series*samples || st.Rejected < bad || st.Rejected > c.atMost || requests.Load() > c.requests*int64(len(f.lanes[0].shards)) {
				t.Errorf("%d bad points, %d requests, %+v", bad, requests.Load(), st)
			}
			if st.Splits < 100 { // it came to its end
				down.Holds(want...)
				if st.Rejected != bad {
					t.Errorf("%d points rejected, %d were bad", st.Rejected, bad)
				}
			}
		})
	}
}

// A receiver of 2.0 says how much it wrote of what it found fault with, and is
// believed: what it did not write is counted as rejected.
func TestForwarderCountsWhatIsRejected(t *testing.T) {
	down := newReceiver(t, remotewrite.Options{MaxLabels: 2})
	server := httptest.NewServer(down)
	defer server.Close()
	up := newWriteBack(t, remotewrite.Options{})
	f := up.forwarderTo(server.URL, 0, ForwarderOptions{Lanes: 1})
	for i := range 10 {
		for _, ls := range [][]mcache.Label{named("x", "a", "b"), named("x", "a", "b", "c", "d")} {
			if err := up.Cache.AppendSamples("default", ls, sample(float64(i-10), 1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	drained(t, f)
	if st := f.Stats(); st.Sent != 10 || st.Rejected != 10 {
		t.Errorf("%+v, want 10 and 10", st)
	}
}

// Buckets go under the names they came by, with what is known of their metrics.
func TestForwarderBuckets(t *testing.T) {
	down := newReceiver(t, remotewrite.Options{TenancyHeader: "X-Scope-OrgID"})
	server := httptest.NewServer(down)
	defer server.Close()
	up := newWriteBack(t, remotewrite.Options{TenancyHeader: "X-Scope-OrgID"})
	f := up.forwarderTo(server.URL, 0, ForwarderOptions{TenancyHeader: "x-scope-orgid", MaxRequestBytes: 100, Metadata: func(bucket, metric string) (wire.Metadata, bool) {
		if bucket != "b" || metric != "x" {
			return wire.Metadata{}, false
		}
		return wire.Metadata{Type: "counter", Help: "What it is.", Unit: "seconds"}, true
	}})
	for i := range 60 {
		for _, bucket := range []string{"default", "a", "b"} {
			if err := up.Cache.AppendSamples(bucket, named("x", "i", fmt.Sprint(i%20)), sample(float64(i-60), float64(len(bucket)))); err != nil {
				t.Fatal(err)
			}
		}
	}
	drained(t, f)
	for _, bucket := range []string{"default", "a", "b"} {
		if got, want := down.Contents(bucket), up.Contents(bucket); !slices.Equal(got, want) || len(got) != 20 {
			t.Errorf("bucket %s: %v, want %v", bucket, got, want)
		}
	}
	if n := f.Stats().Requests; n < 20 {
		t.Errorf("%d requests of 100 bytes", n)
	}
	known := map[string]wire.Metadata{}
	down.Metadata("b", func(metric string, m wire.Metadata) bool { known[metric] = m; return true })
	if !maps.Equal(known, map[string]wire.Metadata{"x": {Type: "counter", Help: "What it is.", Unit: "seconds"}}) {
		t.Errorf("the receiver knows %v", known)
	}
}

// Drain gives up with its context, and says what is left; that is dirty as
// before, and sent the next time.
func TestForwarderDrainGivesUp(t *testing.T) {
	down := newReceiver(t, remotewrite.Options{})
	var away atomic.Bool
	away.Store(true)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if away.Load() {
			http.Error(w, "no", http.StatusInternalServerError)
			return
		}
		down.ServeHTTP(w, r)
	}))
	defer server.Close()
	up := newWriteBack(t, remotewrite.Options{})
	clock := now
	f := up.forwarderTo(server.URL, 0, ForwarderOptions{Now: func() time.Time { return clock }})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i := range 100 {
		if err := up.Cache.AppendSamples("default", named("x", "i", fmt.Sprint(i)), sample(0, float64(i))); err != nil {
			t.Fatal(err)
		}
	}
	clock = clock.Add(10 * time.Second)
	gaveUp := make(chan Left)
	go func() { gaveUp <- f.Drain(ctx) }()
	waitFor(t, "it to try again", func() bool { return f.Stats().Retries >= 3 })
	cancel()
	left := <-gaveUp
	if left.Points != 100 || left.OldestAge < 9*time.Second || left.OldestAge > 11*time.Second {
		t.Errorf("%+v left, %+v", left, f.Stats())
	}
	away.Store(false)
	drained(t, f)
	if got, want := down.Contents("default"), up.Contents("default"); !slices.Equal(got, want) {
		t.Errorf("%d series arrived, want %d", len(got), len(want))
	}
}

// No point waits longer than it may: not when visits are as late as they can
// be, and not when the clock is set back or forward.
func TestForwarderDue(t *testing.T) {
	clock := now
	up := newWriteBack(t, remotewrite.Options{})
	f := up.forwarderTo("http://localhost/", 0, ForwarderOptions{MaxDirtyAge: 64 * time.Second, Now: func() time.Time { return clock }})
	const round = 64 * time.Second / roundsPerAge
	for name, step := range map[string]func(i int) time.Duration{
		"steady":        func(int) time.Duration { return round },
		"set back":      func(i int) time.Duration { return round - time.Duration(i%3/2)*time.Hour },
		"set forward":   func(i int) time.Duration { return round + time.Duration(i%5/4)*time.Hour },
		"back and on":   func(i int) time.Duration { return round + time.Duration(i%3-1)*time.Hour },
		"hardly at all": func(int) time.Duration { return time.Second },
	} {
		born := f.tickAt(f.age.read()) // of a point
		if f.due().Since >= born {
			t.Errorf("%s: a point is due when it comes", name)
		}
		waited := time.Duration(0)
		for i := 0; f.due().Since < born; i++ {
			d := step(i)
			clock = clock.Add(d)
			waited += max(d, 0)
			if d < 0 {
				waited += round // it passed, though the clock did not show it
			}
			if i > 1000 {
				t.Fatalf("%s: never due", name)
			}
		}
		// One more round may go by before the receiver has it.
		if waited+round > 64*time.Second+3*round && name != "set forward" && name != "back and on" || name == "steady" && waited+round > 64*time.Second {
			t.Errorf("%s: due after %v", name, waited)
		}
		if tick := f.tickAt(f.age.read()); tick < born {
			t.Errorf("%s: the tick goes back from %d to %d", name, born, tick)
		}
	}
}

// What is little goes in few requests, however many shards it lies in; what is
// much is spread over the time there is.
func TestForwarderFewRequests(t *testing.T) {
	synctest.Test(t, fewRequests)
}

func fewRequests(t *testing.T) {
	down := newReceiver(t, remotewrite.Options{})
	up := newReceiverWith(t, remotewrite.Options{}, mcache.Options{WriteBack: true, Shards: 16})
	f := up.directTo(down, ForwarderOptions{Lanes: 2, MaxDirtyAge: time.Second})
	var all []Series
	for i := range 400 {
		all = append(all, Series{Labels: named("x", "i", fmt.Sprint(i)), Samples: []mcache.Sample{sample(0, 1)}})
	}
	answered(t, up.Send(wire.V2, encode(t, wire.V2, all...)), 204, "")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	time.Sleep(time.Second)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if st := f.Stats(); st.DirtyPoints != 0 || st.Sent != 400 || st.Runs != 400 || st.Requests != 2 {
		t.Errorf("%+v: want 400 runs in a request of each lane", st)
	}
	for _, c := range []struct {
		points     float64
		want, most int
	}{{0, 8, 8}, {25_000, 8, 8}, {50_000, 4, 8}, {60_000, 3, 8}, {1e9, 1, 8}, {1e9, 1, 1}} {
		if got := f.span(c.points, c.most); got != c.want {
			t.Errorf("%v points: visits %d of %d shards at once, want %d", c.points, got, c.most, c.want)
		}
	}
}
