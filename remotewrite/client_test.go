package remotewrite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"mcached/mcache"
)

// randomSeries has empty strings, unsorted names and odd values among it: the
// encoders pass on what they are given.
func randomSeries(rng *rand.Rand) []Series {
	var all []Series
	for range rng.IntN(20) {
		var s Series
		for range rng.IntN(5) {
			word := func() string { return strings.Repeat(string(rune('a'+rng.IntN(26))), rng.IntN(200)) }
			s.Labels = append(s.Labels, mcache.Label{Name: word(), Value: word()})
		}
		for range rng.IntN(4) {
			s.Samples = append(s.Samples, mcache.Sample{T: int64(rng.Uint64() >> rng.IntN(64)), V: rng.Uint64() >> rng.IntN(64)})
		}
		all = append(all, s)
	}
	return all
}

// Prometheus' decoder reads what our encoders write.
func TestEncodersAgainstPrometheus(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	samples := 0
	var v2 EncoderV2
	for range 300 {
		want := randomSeries(rng)
		var m1 prompb.WriteRequest
		if err := m1.Unmarshal(AppendV1(nil, want)); err != nil {
			t.Fatal(err)
		}
		var m2 writev2.Request
		if err := m2.Unmarshal(v2.Append(nil, want)); err != nil {
			t.Fatal(err)
		}
		if len(m1.Timeseries) != len(want) || len(m2.Timeseries) != len(want) || m2.Symbols[0] != "" {
			t.Fatalf("%d and %d series of %d", len(m1.Timeseries), len(m2.Timeseries), len(want))
		}
		for i, s := range want {
			var got1, got2 Series
			for _, l := range m1.Timeseries[i].Labels {
				got1.Labels = append(got1.Labels, mcache.Label{Name: l.Name, Value: l.Value})
			}
			for _, x := range m1.Timeseries[i].Samples {
				got1.Samples = append(got1.Samples, mcache.Sample{T: x.Timestamp, V: math.Float64bits(x.Value)})
			}
			refs := m2.Timeseries[i].LabelsRefs
			for j := 0; j < len(refs); j += 2 {
				got2.Labels = append(got2.Labels, mcache.Label{Name: m2.Symbols[refs[j]], Value: m2.Symbols[refs[j+1]]})
			}
			for _, x := range m2.Timeseries[i].Samples {
				got2.Samples = append(got2.Samples, mcache.Sample{T: x.Timestamp, V: math.Float64bits(x.Value)})
			}
			for p, got := range map[Protocol]Series{V1: got1, V2: got2} {
				if !slices.Equal(got.Labels, s.Labels) || !slices.Equal(got.Samples, s.Samples) {
					t.Fatalf("protocol %v: got %v, want %v", p, got, s)
				}
			}
			samples += len(s.Samples)
		}
	}
	if samples < 1000 {
		t.Errorf("only %d samples were compared", samples)
	}
}

// script answers requests with what it holds, then with 204.
type script struct {
	mu    sync.Mutex
	steps []func(w http.ResponseWriter)
	got   []Protocol
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	io.Copy(io.Discard, r.Body)
	p, err := protocolOf(r.Header.Get("Content-Type"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnsupportedMediaType)
		return
	}
	n := len(s.got)
	s.got = append(s.got, p)
	if n < len(s.steps) {
		s.steps[n](w)
		return
	}
	if p == V2 {
		setWritten(w.Header(), 1, 0, 0)
	}
	w.WriteHeader(204)
}

func status(code int, header ...string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		io.WriteString(w, "because")
	}
}

const samplesWritten = "X-Prometheus-Remote-Write-Samples-Written"

func TestClientSend(t *testing.T) {
	one := []Series{{named("x"), []mcache.Sample{sample(0, 1)}}}
	second := time.Second
	for name, c := range map[string]struct {
		protocol Protocol
		steps    []func(http.ResponseWriter)
		spoken   []Protocol
		slept    []time.Duration
		err      error
		written  int
	}{
		"at once":                    {0, nil, []Protocol{V2}, nil, nil, 1},
		"1.0 only":                   {V1, nil, []Protocol{V1}, nil, nil, 1},
		"415 means 1.0":              {0, []func(http.ResponseWriter){status(415)}, []Protocol{V2, V1}, nil, nil, 1},
		"400 without counts, 1.0":    {0, []func(http.ResponseWriter){status(400)}, []Protocol{V2, V1}, nil, nil, 1},
		"204 without counts, 1.0":    {0, []func(http.ResponseWriter){status(204)}, []Protocol{V2, V1}, nil, nil, 1},
		"415, but 2.0 only":          {V2, []func(http.ResponseWriter){status(415)}, []Protocol{V2}, nil, ErrRejected, 0},
		"204 without counts, 2.0":    {V2, []func(http.ResponseWriter){status(204)}, []Protocol{V2}, nil, ErrRejected, 0},
		"204 with nothing written":   {0, []func(http.ResponseWriter){status(204, samplesWritten, "0")}, []Protocol{V2}, nil, ErrRejected, 0},
		"400 with counts is refusal": {0, []func(http.ResponseWriter){status(400, samplesWritten, "1")}, []Protocol{V2}, nil, ErrRejected, 1},
		"404":                        {V1, []func(http.ResponseWriter){status(404)}, []Protocol{V1}, nil, ErrRejected, 0},
		"500 twice":                  {V1, []func(http.ResponseWriter){status(500), status(502)}, []Protocol{V1, V1, V1}, []time.Duration{second / 10, second / 5}, nil, 1},
		"503 with Retry-After":       {V1, []func(http.ResponseWriter){status(503, "Retry-After", "7")}, []Protocol{V1, V1}, []time.Duration{7 * second}, nil, 1},
		"503 with too long a wait":   {V1, []func(http.ResponseWriter){status(503, "Retry-After", "99999999999")}, []Protocol{V1, V1}, []time.Duration{20 * second}, nil, 1},
		"429":                        {V1, []func(http.ResponseWriter){status(429)}, []Protocol{V1, V1}, []time.Duration{second / 10}, nil, 1},
		"500 for ever": {V1, []func(http.ResponseWriter){status(500), status(500), status(500), status(500)}, []Protocol{V1, V1, V1, V1},
			[]time.Duration{second / 10, second / 5, second / 4}, ErrUnavailable, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := &script{steps: c.steps}
			server := httptest.NewServer(s)
			defer server.Close()
			var slept []time.Duration
			client, err := NewClient(ClientOptions{
				URL: server.URL, Protocol: c.protocol, MaxAttempts: 4, MinBackoff: second / 10, MaxBackoff: second / 4, MaxRetryAfter: 20 * second,
				Sleep: func(_ context.Context, d time.Duration) error { slept = append(slept, d); return nil },
			})
			if err != nil {
				t.Fatal(err)
			}
			r, err := client.Send(t.Context(), one)
			if !errors.Is(err, c.err) || r.Written != c.written || r.Attempts != len(c.spoken) {
				t.Errorf("Send returns %+v, %v; want %d written, %v", r, err, c.written, c.err)
			}
			if !slices.Equal(s.got, c.spoken) || !slices.Equal(slept, c.slept) {
				t.Errorf("it spoke %v and slept %v, want %v and %v", s.got, slept, c.spoken, c.slept)
			}
			// What was learnt about the protocol is kept.
			if last := c.spoken[len(c.spoken)-1]; c.err == nil {
				if _, err := client.Send(t.Context(), one); err != nil || s.got[len(s.got)-1] != last {
					t.Errorf("the next Send spoke %v, %v", s.got, err)
				}
			}
		})
	}
}

func TestClientWithoutAServer(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	attempts := 0
	client, err := NewClient(ClientOptions{URL: server.URL, MaxAttempts: 3, Sleep: func(context.Context, time.Duration) error { attempts++; return nil }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Send(t.Context(), nil); !errors.Is(err, ErrUnavailable) || attempts != 2 {
		t.Errorf("%v after %d waits", err, attempts)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.Send(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that of the context", err)
	}
	for _, u := range []string{"", "localhost:9201", "ftp://x/", "http://"} {
		if _, err := NewClient(ClientOptions{URL: u}); err == nil {
			t.Errorf("%q passes for a URL", u)
		}
	}
}

// Everything that goes through a queue into our own receiver is there, in
// both protocols, although the receiver is away at times.
func TestQueueDelivers(t *testing.T) {
	both(t, func(t *testing.T, p Protocol) {
		r := newReceiver(t, Options{})
		var away, requests atomic.Int64
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if requests.Add(1)%5 == 2 {
				away.Add(1)
				http.Error(w, "away", http.StatusServiceUnavailable)
				return
			}
			r.ServeHTTP(w, req)
		}))
		defer server.Close()
		client, err := NewClient(ClientOptions{URL: server.URL, Protocol: p, Sleep: func(context.Context, time.Duration) error { return nil }})
		if err != nil {
			t.Fatal(err)
		}
		q, err := NewQueue(QueueOptions{Client: client, Lanes: 3, MaxSamples: 50, MaxPerRequest: 20})
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		var done atomic.Int64
		const series, samples = 40, 30
		for i := range series {
			s := Series{Labels: named("x", "i", fmt.Sprint(i))}
			for j := range samples {
				s.Samples = append(s.Samples, sample(float64(j-samples), float64(i*j)))
			}
			want = append(want, line(labelText(s.Labels), s.Samples...))
			for _, part := range [][]mcache.Sample{s.Samples[:7], s.Samples[7:8], s.Samples[8:]} {
				err := q.Put(t.Context(), Series{s.Labels, part}, func(err error) {
					if err != nil {
						t.Error(err)
					}
					done.Add(1)
				})
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := q.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.holds(want...)
		if done.Load() != 3*series || away.Load() == 0 || requests.Load() < series*samples/50 {
			t.Errorf("%d of %d done, away %d times in %d requests", done.Load(), 3*series, away.Load(), requests.Load())
		}
		if err := q.Put(t.Context(), Series{}, nil); !errors.Is(err, ErrQueueClosed) {
			t.Errorf("a closed queue says %v", err)
		}
	})
}

// A full queue makes Put wait, and lets it go when its context ends; Close
// with a context that ends gives up, and says so to every done.
func TestQueueIsBounded(t *testing.T) {
	block := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-block:
		case <-r.Context().Done():
		}
		http.Error(w, "no", http.StatusServiceUnavailable)
	}))
	defer server.Close()
	defer close(block)
	client, err := NewClient(ClientOptions{URL: server.URL, Protocol: V1})
	if err != nil {
		t.Fatal(err)
	}
	q, err := NewQueue(QueueOptions{Client: client, Lanes: 1, MaxSamples: 10, MaxPerRequest: 5})
	if err != nil {
		t.Fatal(err)
	}
	s := Series{named("x"), []mcache.Sample{sample(0, 1)}}
	var failed atomic.Int64
	put := func(ctx context.Context) error {
		return q.Put(ctx, s, func(err error) {
			if err != nil {
				failed.Add(1)
			}
		})
	}
	for range 10 {
		if err := put(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := put(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the 11th sample of 10: %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := q.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close returns %v", err)
	}
	if failed.Load() != 10 {
		t.Errorf("%d of 10 were told that they failed", failed.Load())
	}
}

// A receiver that understands only protocol 1.0, as most do.
func TestClientFallsBackAgainstAnOldReceiver(t *testing.T) {
	r := newReceiver(t, Options{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		// It takes any body for one of 1.0, finds nothing it knows, and is content.
		body, _ := io.ReadAll(req.Body)
		plain, err := snappy.Decode(nil, body)
		var m prompb.WriteRequest
		if err != nil || m.Unmarshal(plain) != nil {
			http.Error(w, "bad", 400)
			return
		}
		for _, ts := range m.Timeseries {
			for _, x := range ts.Samples {
				var ls []mcache.Label
				for _, l := range ts.Labels {
					ls = append(ls, mcache.Label{Name: l.Name, Value: l.Value})
				}
				r.cache.AppendSamples("default", ls, mcache.Sample{T: x.Timestamp, V: math.Float64bits(x.Value)})
			}
		}
		w.WriteHeader(204)
	}))
	defer server.Close()
	client, err := NewClient(ClientOptions{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	result, err := client.Send(t.Context(), []Series{{named("x"), []mcache.Sample{sample(0, 1)}}})
	if err != nil || result != (Result{V1, 2, 1}) {
		t.Errorf("Send returns %+v, %v", result, err)
	}
	r.holds(line(`{__name__="x"}`, sample(0, 1)))
}
