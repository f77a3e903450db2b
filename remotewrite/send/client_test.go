package send

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"mcached/mcache"
	"mcached/remotewrite"
	"mcached/remotewrite/wire"
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
		if len(all) > 0 && rng.IntN(2) == 0 { // as neighbours are
			s.Labels = slices.Clone(all[len(all)-1].Labels)
			if len(s.Labels) > 0 {
				s.Labels[rng.IntN(len(s.Labels))].Value = fmt.Sprint(rng.IntN(5))
			}
		}
		for range rng.IntN(4) {
			s.Samples = append(s.Samples, mcache.Sample{T: int64(rng.Uint64() >> rng.IntN(64)), V: rng.Uint64() >> rng.IntN(64)})
			if rng.IntN(3) == 0 {
				s.Starts = append(s.Starts, make([]int64, len(s.Samples)-1-len(s.Starts))...)
				s.Starts = append(s.Starts, int64(rng.Uint64()>>rng.IntN(64)))
			}
		}
		for range rng.IntN(3) {
			h := writev2.Histogram{Schema: rng.Int32N(9), Sum: rng.Float64(), Timestamp: rng.Int64(), StartTimestamp: rng.Int64N(2) * rng.Int64(),
				PositiveSpans: []writev2.BucketSpan{{Offset: rng.Int32N(5), Length: 2}}, PositiveDeltas: []int64{rng.Int64N(50), 1}, CustomValues: make([]float64, rng.IntN(3))}
			value, err := h.Marshal()
			if err != nil {
				panic(err)
			}
			if rng.IntN(4) == 0 { // fields in another order
				value = append(append(binary.AppendUvarint(binary.AppendUvarint(nil, wire.TagHistogramStart), 1), value...),
					binary.AppendUvarint(binary.AppendUvarint(nil, wire.TagHistogramStart), 99)...)
			}
			s.Records = append(s.Records, mcache.Record{T: h.Timestamp, Value: value})
		}
		if rng.IntN(2) == 0 {
			s.Metadata = wire.Metadata{Type: wire.MetricType(rng.Int32N(8)), Help: fmt.Sprint("help", rng.IntN(9)), Unit: []string{"", "s"}[rng.IntN(2)]}
		}
		all = append(all, s)
	}
	return all
}

// Prometheus' decoder reads what our encoders write.
func TestEncodersAgainstPrometheus(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	samples, rare := 0, 0
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
			starts, histograms := 0, 0
			for j, x := range m2.Timeseries[i].Samples {
				if x.StartTimestamp != startAt(s.Starts, j) {
					t.Fatalf("start time %d is %d, want %d", j, x.StartTimestamp, startAt(s.Starts, j))
				}
				if x.StartTimestamp != 0 {
					starts++
				}
			}
			for j, r := range s.Records {
				var want writev2.Histogram
				if err := want.Unmarshal(r.Value); err != nil {
					t.Fatal(err)
				}
				if got := m2.Timeseries[i].Histograms[j]; !reflect.DeepEqual(got, want) {
					t.Fatalf("histogram %v, want %v", got, want)
				}
				want.StartTimestamp = 0
				var want1 prompb.Histogram
				if err := want1.Unmarshal(must(want.Marshal())); err != nil {
					t.Fatal(err)
				}
				if got := m1.Timeseries[i].Histograms[j]; !reflect.DeepEqual(got, want1) || got.XXX_unrecognized != nil {
					t.Fatalf("protocol 1.0: histogram %v, want %v", got, want1)
				}
				histograms++
			}
			if len(m1.Timeseries[i].Histograms) != histograms || len(m2.Timeseries[i].Histograms) != histograms {
				t.Fatal("there are more histograms than there were")
			}
			rare += starts + histograms
			meta := m2.Timeseries[i].Metadata
			if got := (wire.Metadata{Type: wire.MetricType(int32(meta.Type)), Help: m2.Symbols[meta.HelpRef], Unit: m2.Symbols[meta.UnitRef]}); got != s.Metadata && s.Metadata.Type != "" {
				t.Fatalf("metadata %v, want %v", got, s.Metadata)
			}
			for p, got := range map[wire.Protocol]Series{wire.V1: got1, wire.V2: got2} {
				if !slices.Equal(got.Labels, s.Labels) || !slices.Equal(got.Samples, s.Samples) {
					t.Fatalf("protocol %v: got %v, want %v", p, got, s)
				}
			}
			samples += len(s.Samples)
		}
	}
	if samples < 1000 || rare < 1000 {
		t.Errorf("only %d samples, and %d start times and histograms were compared", samples, rare)
	}
}

func startAt(starts []int64, i int) int64 {
	if i >= len(starts) {
		return 0
	}
	return starts[i]
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// script answers requests with what it holds, then with 204.
type script struct {
	mu    sync.Mutex
	steps []func(w http.ResponseWriter)
	got   []wire.Protocol
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	io.Copy(io.Discard, r.Body)
	p, err := wire.ProtocolOf(r.Header.Get("Content-Type"))
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
	if p == wire.V2 {
		w.Header().Set(wire.HeaderSamplesWritten, "1")
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

const (
	samplesWritten    = "X-Prometheus-Remote-Write-Samples-Written"
	histogramsWritten = "X-Prometheus-Remote-Write-Histograms-Written"
)

func TestClientSend(t *testing.T) {
	one := []Series{{Labels: named("x"), Samples: []mcache.Sample{sample(0, 1)}}}
	for name, c := range map[string]struct {
		protocol   wire.Protocol
		steps      []func(http.ResponseWriter)
		spoken     []wire.Protocol
		err        error
		written    int
		retryAfter time.Duration
	}{
		"at once":                    {0, nil, []wire.Protocol{wire.V2}, nil, 1, 0},
		"1.0 only":                   {wire.V1, nil, []wire.Protocol{wire.V1}, nil, 1, 0},
		"415 means 1.0":              {0, []func(http.ResponseWriter){status(415)}, []wire.Protocol{wire.V2, wire.V1}, nil, 1, 0},
		"400 without counts, 1.0":    {0, []func(http.ResponseWriter){status(400)}, []wire.Protocol{wire.V2, wire.V1}, nil, 1, 0},
		"204 without counts, 1.0":    {0, []func(http.ResponseWriter){status(204)}, []wire.Protocol{wire.V2, wire.V1}, nil, 1, 0},
		"415, but 2.0 only":          {wire.V2, []func(http.ResponseWriter){status(415)}, []wire.Protocol{wire.V2}, ErrUnavailable, 0, 0},
		"204 without counts, 2.0":    {wire.V2, []func(http.ResponseWriter){status(204)}, []wire.Protocol{wire.V2}, ErrUnavailable, 0, 0},
		"204 with nothing written":   {0, []func(http.ResponseWriter){status(204, samplesWritten, "0")}, []wire.Protocol{wire.V2}, ErrUnavailable, 0, 0},
		"204 with a histogram":       {0, []func(http.ResponseWriter){status(204, samplesWritten, "0", histogramsWritten, "1")}, []wire.Protocol{wire.V2}, nil, 1, 0},
		"400 with counts is refusal": {0, []func(http.ResponseWriter){status(400, samplesWritten, "1")}, []wire.Protocol{wire.V2}, ErrRejected, 1, 0},
		"409, as Thanos says it":     {wire.V1, []func(http.ResponseWriter){status(409)}, []wire.Protocol{wire.V1}, ErrRejected, 0, 0},
		"413":                        {wire.V1, []func(http.ResponseWriter){status(413)}, []wire.Protocol{wire.V1}, ErrRejected, 0, 0},
		"401 is mended elsewhere":    {wire.V1, []func(http.ResponseWriter){status(401)}, []wire.Protocol{wire.V1}, ErrUnavailable, 0, 0},
		"404 likewise":               {wire.V1, []func(http.ResponseWriter){status(404)}, []wire.Protocol{wire.V1}, ErrUnavailable, 0, 0},
		"500":                        {wire.V1, []func(http.ResponseWriter){status(500)}, []wire.Protocol{wire.V1}, ErrUnavailable, 0, 0},
		"503 with Retry-After":       {wire.V1, []func(http.ResponseWriter){status(503, "Retry-After", "7")}, []wire.Protocol{wire.V1}, ErrUnavailable, 0, 7 * time.Second},
		"503 with too long a wait":   {wire.V1, []func(http.ResponseWriter){status(503, "Retry-After", "99999999999")}, []wire.Protocol{wire.V1}, ErrUnavailable, 0, 20 * time.Second},
		"429":                        {wire.V1, []func(http.ResponseWriter){status(429)}, []wire.Protocol{wire.V1}, ErrUnavailable, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := &script{steps: c.steps}
			server := httptest.NewServer(s)
			defer server.Close()
			client, err := NewClient(ClientOptions{URL: server.URL, Protocol: c.protocol, MaxRetryAfter: 20 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			r, err := client.Send(t.Context(), one, nil)
			if !errors.Is(err, c.err) || r.Written != c.written || r.Requests != len(c.spoken) || r.RetryAfter != c.retryAfter || r.Bytes == 0 {
				t.Errorf("Send returns %+v, %v; want %d written, %v", r, err, c.written, c.err)
			}
			if !slices.Equal(s.got, c.spoken) {
				t.Errorf("it spoke %v, want %v", s.got, c.spoken)
			}
			// What was learnt about the protocol is kept.
			if last := c.spoken[len(c.spoken)-1]; c.err == nil {
				if _, err := client.Send(t.Context(), one, nil); err != nil || s.got[len(s.got)-1] != last {
					t.Errorf("the next Send spoke %v, %v", s.got, err)
				}
			}
		})
	}
}

// That a receiver lacks protocol 2.0 is not believed without end: not for more
// than an hour, and not when it was away in between.
func TestClientTriesV2Again(t *testing.T) {
	one := []Series{{Labels: named("x"), Samples: []mcache.Sample{sample(0, 1)}}}
	const lacking, upgraded, odd, away, busy = "lacks 2.0", "upgraded", "answers 500 to 2.0", "away", "busy"
	type step struct {
		after time.Duration
		state string
		spoke []wire.Protocol
		err   error
	}
	for name, steps := range map[string][]step{
		"upgraded": {
			{0, lacking, []wire.Protocol{wire.V2, wire.V1}, nil},
			{tryV2Again - time.Second, upgraded, []wire.Protocol{wire.V1}, nil},
			{2 * time.Second, upgraded, []wire.Protocol{wire.V2}, nil},
			{10 * tryV2Again, upgraded, []wire.Protocol{wire.V2}, nil},
		},
		"as it was": {
			{0, lacking, []wire.Protocol{wire.V2, wire.V1}, nil},
			{tryV2Again, lacking, []wire.Protocol{wire.V2, wire.V1}, nil},
			{time.Second, lacking, []wire.Protocol{wire.V1}, nil},
			{tryV2Again, odd, []wire.Protocol{wire.V2, wire.V1}, nil},
			{time.Second, odd, []wire.Protocol{wire.V1}, nil},
		},
		"away, and another": {
			{0, lacking, []wire.Protocol{wire.V2, wire.V1}, nil},
			{time.Second, away, []wire.Protocol{wire.V1}, ErrUnavailable},
			{time.Second, away, []wire.Protocol{wire.V2}, ErrUnavailable},
			{time.Second, upgraded, []wire.Protocol{wire.V2}, nil},
		},
		"away, and the same": {
			{0, lacking, []wire.Protocol{wire.V2, wire.V1}, nil},
			{time.Second, busy, []wire.Protocol{wire.V1}, ErrUnavailable},
			{time.Second, lacking, []wire.Protocol{wire.V2, wire.V1}, nil},
			{time.Second, lacking, []wire.Protocol{wire.V1}, nil},
		},
		"the clock is set back": {
			{0, lacking, []wire.Protocol{wire.V2, wire.V1}, nil},
			{-time.Hour, lacking, []wire.Protocol{wire.V2, wire.V1}, nil},
			{time.Second, lacking, []wire.Protocol{wire.V1}, nil},
		},
		"never known to speak 1.0": {
			{0, odd, []wire.Protocol{wire.V2}, ErrUnavailable},
			{0, odd, []wire.Protocol{wire.V2}, ErrUnavailable},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var state string
			var spoke []wire.Protocol
			receiver := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				p, err := wire.ProtocolOf(r.Header.Get("Content-Type"))
				if err != nil {
					t.Error(err)
				}
				spoke = append(spoke, p)
				switch {
				case state == busy:
					w.WriteHeader(503)
				case state == odd && p == wire.V2:
					w.WriteHeader(500)
				case state == upgraded && p == wire.V2:
					w.Header().Set(wire.HeaderSamplesWritten, "1")
					w.WriteHeader(204)
				default:
					w.WriteHeader(204)
				}
			})
			clock := now
			client, err := NewClient(ClientOptions{URL: "http://down/", Now: func() time.Time { return clock },
				HTTP: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
					if state == away {
						p, _ := wire.ProtocolOf(r.Header.Get("Content-Type"))
						spoke = append(spoke, p)
						return nil, errors.New("nobody is there")
					}
					return direct{receiver}.RoundTrip(r)
				})}})
			if err != nil {
				t.Fatal(err)
			}
			for i, step := range steps {
				clock = clock.Add(step.after)
				state, spoke = step.state, nil
				if _, err := client.Send(t.Context(), one, nil); !errors.Is(err, step.err) || !slices.Equal(spoke, step.spoke) {
					t.Fatalf("step %d, %s: it spoke %v, %v; want %v, %v", i, step.state, spoke, err, step.spoke, step.err)
				}
			}
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestClientWithoutAServer(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	client, err := NewClient(ClientOptions{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Send(t.Context(), nil, nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("without a server: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.Send(ctx, nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that of the context", err)
	}
	for _, u := range []string{"", "localhost:9201", "ftp://x/", "http://"} {
		if _, err := NewClient(ClientOptions{URL: u}); err == nil {
			t.Errorf("%q passes for a URL", u)
		}
	}
}

// A receiver that understands only protocol 1.0, as most do.
func TestClientFallsBackAgainstAnOldReceiver(t *testing.T) {
	r := newReceiver(t, remotewrite.Options{})
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
				r.Cache.AppendSamples("default", ls, mcache.Sample{T: x.Timestamp, V: math.Float64bits(x.Value)})
			}
		}
		w.WriteHeader(204)
	}))
	defer server.Close()
	client, err := NewClient(ClientOptions{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	result, err := client.Send(t.Context(), []Series{{Labels: named("x"), Samples: []mcache.Sample{sample(0, 1)}}}, nil)
	if err != nil || result.Protocol != wire.V1 || result.Requests != 2 || result.Written != 1 {
		t.Errorf("Send returns %+v, %v", result, err)
	}
	r.Holds(line(`{__name__="x"}`, sample(0, 1)))
}

// A transport may read on in a body after the answer is there. It must not find
// there what was sent since.
func TestABodyIsNotUsedAgainWhileItIsRead(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		var bodies []io.ReadCloser
		client, err := NewClient(ClientOptions{URL: "http://down/", Protocol: p, HTTP: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			bodies = append(bodies, r.Body)
			return &http.Response{StatusCode: 503, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
		})}})
		if err != nil {
			t.Fatal(err)
		}
		const requests = 10
		request := func(i int) []Series {
			return []Series{{Labels: named("x", "i", fmt.Sprint(i)), Samples: []mcache.Sample{sample(0, float64(i)), sample(15, float64(i))}}}
		}
		for i := range requests {
			if _, err := client.Send(t.Context(), request(i), nil); !errors.Is(err, ErrUnavailable) {
				t.Fatal(err)
			}
		}
		for i, body := range bodies {
			packed := must(io.ReadAll(body))
			got, err := snappy.Decode(nil, packed)
			want := AppendV1(nil, request(i))
			if p == wire.V2 {
				want = new(EncoderV2).Append(nil, request(i))
			}
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("request %d: another body came after the answer (%v)", i, err)
			}
			body.Close()
		}
	})
}
