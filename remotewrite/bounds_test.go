package remotewrite

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang/snappy"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// allocated is how many bytes f takes from the heap.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestSnappyBombs(t *testing.T) {
	r := newReceiver(t, Options{})
	claim := func(n uint64, rest int) []byte {
		return append(binary.AppendUvarint(nil, n), make([]byte, rest)...)
	}
	for name, c := range map[string]struct {
		body   []byte
		status int
		text   string
	}{
		"4 GB in five bytes":     {claim(math.MaxUint32, 0), 413, "a body of 4294967295 bytes when decompressed, more than 67108864"},
		"60 MB in six bytes":     {claim(60<<20, 2), 400, "6 bytes cannot hold 62914560"},
		"more than a length has": {claim(math.MaxUint64, 0), 400, "snappy"},
		"length cut off":         {[]byte{0x80}, 400, "snappy"},
		"nothing":                {nil, 400, "the body is empty"},
		"longer than it says":    {append(snappy.Encode(nil, []byte("abc")), 1, 2, 3), 400, "snappy"},
		"shorter than it says":   {snappy.Encode(nil, []byte("abc"))[:3], 400, "snappy"},
		"framed, not a block":    {[]byte("\xff\x06\x00\x00sNaPpY"), 400, "snappy"},
	} {
		t.Run(name, func(t *testing.T) {
			n := allocated(func() { answered(t, r.Post(wire.ContentTypeV1, "snappy", c.body), c.status, c.text) })
			if n > 1<<20 {
				t.Errorf("%d bytes allocated for it", n)
			}
		})
	}
	r.Holds()
}

func TestOversizedBodies(t *testing.T) {
	good := encode(t, wire.V1, Series{Labels: named("x"), Samples: []mcache.Sample{sample(0, 1)}})
	packed := snappy.Encode(nil, good)
	r := newReceiver(t, Options{MaxBodyBytes: len(packed), MaxDecodedBytes: len(good)})
	answered(t, r.Send(wire.V1, good), 204, "")
	r = newReceiver(t, Options{MaxBodyBytes: len(packed) - 1})
	answered(t, r.Send(wire.V1, good), 413, fmt.Sprintf("a body of %d bytes, more than %d", len(packed), len(packed)-1))
	r = newReceiver(t, Options{MaxDecodedBytes: len(good) - 1})
	answered(t, r.Send(wire.V1, good), 413, fmt.Sprintf("a body of %d bytes when decompressed, more than %d", len(good), len(good)-1))

	// Without a Content-Length the end is where it is.
	for limit, want := range map[int]int{len(packed): 204, len(packed) - 1: 413} {
		r := newReceiver(t, Options{MaxBodyBytes: limit})
		req := httptest.NewRequest("POST", "/", io.MultiReader(bytes.NewReader(packed[:5]), bytes.NewReader(packed[5:])))
		req.ContentLength = -1
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		answered(t, w, want, "")
	}
}

func TestCountsOfARequestAreBounded(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		series := func(n, samples int) []Series {
			var s []Series
			for i := range n {
				s = append(s, Series{Labels: named("x", "i", fmt.Sprint(i))})
				for j := range samples {
					s[i].Samples = append(s[i].Samples, sample(float64(-j), 1))
				}
			}
			return s
		}
		r := newReceiver(t, Options{MaxSamples: 6, MaxSeries: 3})
		answered(t, r.Send(p, encode(t, p, series(3, 2)...)), 204, "")
		held := r.Contents("default")
		answered(t, r.Send(p, encode(t, p, series(4, 1)...)), 413, "more than 3 series")
		answered(t, r.Send(p, encode(t, p, series(1, 7)...)), 413, "more than 6 samples")
		r.Holds(held...)
	})
	r := newReceiver(t, Options{MaxSymbols: 3})
	answered(t, r.Send(wire.V2, encode(t, wire.V2, Series{Labels: named("x"), Samples: []mcache.Sample{sample(0, 1)}})), 204, "")
	answered(t, r.Send(wire.V2, encode(t, wire.V2, Series{Labels: named("x", "y", "z"), Samples: []mcache.Sample{sample(0, 1)}})), 413, "more than 3 symbols")
}

// TestSetLimits: every bound that can change holds for the next request as if
// the receiver had begun with it, and can be taken back.
func TestSetLimits(t *testing.T) {
	var wide Options // the defaults
	both(t, func(t *testing.T, p wire.Protocol) {
		ls := named("a_metric", "a_label", "a value", "another", "x")
		one := Series{Labels: ls, Samples: []mcache.Sample{sample(0, 1), sample(1, 1)}}
		ahead := Series{Labels: ls, Samples: []mcache.Sample{sample(5*60, 1)}}
		for name, c := range map[string]struct {
			limits Options
			series Series
			status int
			says   string
		}{
			"body":        {Options{MaxBodyBytes: 10}, one, 413, "more than 10"},
			"decoded":     {Options{MaxDecodedBytes: 20}, one, 413, "more than 20"},
			"samples":     {Options{MaxSamples: 1}, one, 413, "more than 1 samples"},
			"labels":      {Options{MaxLabels: 2}, one, 400, "3 labels, more than 2"},
			"label name":  {Options{MaxLabelNameBytes: 6}, one, 400, "more than 6"},
			"label value": {Options{MaxLabelValueBytes: 6}, one, 400, "more than 6"},
			"time ahead":  {Options{MaxAhead: time.Minute}, ahead, 400, "1m0s"},
			"new series":  {Options{MaxNewSeriesPerSecond: 1}, one, 0, ""},
		} {
			r := newReceiver(t, wide)
			for range 2 {
				r.SetLimits(c.limits)
				if c.status != 0 {
					answered(t, r.Send(p, encode(t, p, c.series)), c.status, c.says)
				} else {
					for i := range 2 * burstSeconds {
						status := 204
						if i >= burstSeconds {
							status = 503
						}
						answered(t, r.Send(p, encode(t, p, Series{Labels: named("m", "i", fmt.Sprint(i)), Samples: one.Samples})), status, "")
					}
				}
				r.SetLimits(wide)
				if w := r.Send(p, encode(t, p, c.series)); w.Code != 204 {
					t.Errorf("%s: %d after the limit is gone: %s", name, w.Code, w.Body)
				}
				r.Cache.RemoveBucket("default")
			}
		}
	})
}

func TestSetLimitsOfMetadata(t *testing.T) {
	r := newReceiver(t, Options{MaxMetadata: 1})
	put := func(metric string) { r.PutMetadata("default", metric, wire.Metadata{Type: "counter", Help: "help"}) }
	count := func() (n int) {
		r.Metadata("default", func(string, wire.Metadata) bool { n++; return true })
		return n
	}
	put("a")
	for i, c := range []struct {
		limits Options
		want   int
	}{{Options{MaxMetadata: 1}, 1}, {Options{MaxMetadata: 2}, 2}, {Options{MaxMetadataBytes: 3}, 2}, {Options{}, 3}} {
		r.SetLimits(c.limits)
		if put(fmt.Sprint("m", i)); count() != c.want {
			t.Errorf("%+v: %d are kept, want %d", c.limits, count(), c.want)
		}
	}
}

// Empty messages are two bytes each. A body full of them must not become a
// multiple of its size.
func TestBombsOfEmptyMessages(t *testing.T) {
	r := newReceiver(t, Options{MaxSamples: 10_000, MaxSeries: 10_000, MaxSymbols: 10_000})
	const n = 4 << 20
	repeat := func(head []byte, what ...byte) []byte {
		return append(head, bytes.Repeat(what, n/len(what))...)
	}
	inside := func(tag byte, what ...byte) []byte {
		body := repeat(nil, what...)
		return append(binary.AppendUvarint([]byte{tag}, uint64(len(body))), body...)
	}
	for name, c := range map[string]struct {
		p      wire.Protocol
		body   []byte
		status int
	}{
		"series of v1":           {wire.V1, repeat(nil, wire.TagV1Series, 0), 413},
		"samples of v1":          {wire.V1, inside(wire.TagV1Series, wire.TagV1SeriesSample, 0), 413},
		"labels of v1":           {wire.V1, inside(wire.TagV1Series, wire.TagV1SeriesLabel, 0), 204},
		"labels with a name, v1": {wire.V1, inside(wire.TagV1Series, wire.TagV1SeriesLabel, 6, wire.TagLabelName, 1, 'a', wire.TagLabelValue, 1, 'b'), 204},
		"metadata of v1":         {wire.V1, repeat(nil, wire.TagV1Metadata, 0), 204},
		"series of v2":           {wire.V2, repeat(nil, wire.TagV2Series, 0), 413},
		"symbols of v2":          {wire.V2, repeat(nil, wire.TagV2Symbol, 0), 413},
		"samples of v2":          {wire.V2, inside(wire.TagV2Series, wire.TagV2SeriesSample, 0), 413},
		"references of v2":       {wire.V2, inside(wire.TagV2Series, wire.TagV2SeriesRef, 0), 400},
		"packed references":      {wire.V2, append(inside(wire.TagV2Series, wire.TagV2SeriesRefs, 2, 1, 1), wire.TagV2Symbol, 0, wire.TagV2Symbol, 0), 400},
		"groups in groups":       {wire.V1, repeat(nil, 15<<3|wire.TypeGroupStart), 400},
	} {
		t.Run(name, func(t *testing.T) {
			packed := snappy.Encode(nil, c.body)
			got := allocated(func() { answered(t, r.Post(contentType(c.p), "snappy", packed), c.status, "") })
			if got > 24<<20 { // the body itself, decompressed, and 10,000 of anything
				t.Errorf("%d MiB allocated for 4 MiB", got>>20)
			}
		})
	}
	r.Holds()
}

// What takes the slow path must be bounded by the number of labels, too.
func TestHundredThousandLabels(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		r := newReceiver(t, Options{})
		bomb := Series{Labels: named("x"), Samples: []mcache.Sample{sample(0, 1)}}
		for i := range 100_000 {
			bomb.Labels = append(bomb.Labels, mcache.Label{Name: fmt.Sprintf("l%06d", i), Value: "v"})
		}
		good := Series{Labels: named("y"), Samples: []mcache.Sample{sample(0, 1)}}
		w := r.Send(p, encode(t, p, good, bomb, Series{Labels: named("z"), Samples: good.Samples}))
		answered(t, w, 400, "1 of 3 samples were not written, the others were: a series has 100001 labels, more than 128, for x{l000000=")
		if w.Body.Len() > 2000 {
			t.Errorf("the answer has %d bytes", w.Body.Len())
		}
		r.Holds(line(`{__name__="y"}`, sample(0, 1)), line(`{__name__="z"}`, sample(0, 1)))
	})
}

func TestMegabyteOfLabelValue(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		r := newReceiver(t, Options{})
		w := r.Send(p, encode(t, p,
			Series{Labels: named("x", "a", strings.Repeat("é", 1<<19)), Samples: []mcache.Sample{sample(0, 1)}},
			Series{Labels: named("y"), Samples: []mcache.Sample{sample(0, 1)}}))
		answered(t, w, 400, `the value of label "a" has 1048576 bytes, more than 16384`)
		if w.Body.Len() > 2000 {
			t.Errorf("the answer has %d bytes", w.Body.Len())
		}
		r.Holds(line(`{__name__="y"}`, sample(0, 1)))
	})
}

// A body that was cut writes nothing, unless the cut made a shorter request of it.
func TestBodiesCutAnywhere(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		body := encode(t, p,
			Series{Labels: named("x", "a", "1"), Samples: []mcache.Sample{sample(-15, 1), sample(0, 2)}},
			Series{Labels: named("y", "b", "2"), Samples: []mcache.Sample{sample(0, 3)}})
		refused := 0
		for n := range body {
			r := newReceiver(t, Options{})
			if w := r.Send(p, body[:n]); w.Code == 400 {
				refused++
				r.Holds()
			} else if w.Code != 204 {
				t.Errorf("cut at %d of %d: %d %s", n, len(body), w.Code, w.Body)
			}
		}
		if refused < len(body)-10 {
			t.Errorf("only %d of %d cut bodies were refused", refused, len(body))
		}
	})
}

func TestClocksWrongByYears(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		r := newReceiver(t, Options{})
		for _, ms := range []int64{math.MaxInt64, 1 << 62, now.UnixMilli() * 1000, now.UnixMilli() + 10*365*86400_000} {
			answered(t, r.Send(p, encode(t, p, Series{Labels: named("x"), Samples: []mcache.Sample{{T: ms, V: 1}}})), 400, "ahead of the clock")
		}
		r.Holds()
		old := []mcache.Sample{{T: -1, V: 1}, {T: 1, V: 2}, {T: now.UnixMilli() / 1000, V: 3}}
		answered(t, r.Send(p, encode(t, p, Series{Labels: named("x"), Samples: old})), 204, "")
		r.Holds(line(`{__name__="x"}`, old...))
		answered(t, r.Send(p, encode(t, p, Series{Labels: named("x"), Samples: []mcache.Sample{{T: math.MinInt64, V: 1}}})), 400, "")
		r.Holds(line(`{__name__="x"}`, old...))
	})
}

func TestClosedCacheIs503(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		r := newReceiver(t, Options{})
		r.Cache.Close()
		w := r.Send(p, encode(t, p, Series{Labels: named("x"), Samples: []mcache.Sample{sample(0, 1)}}))
		answered(t, w, 503, "closed")
		if w.Header().Get("Retry-After") != "1" {
			t.Errorf("Retry-After is %q", w.Header().Get("Retry-After"))
		}
		if p == wire.V2 {
			wrote(t, w, 0)
		}
	})
}

// A flood of new series is held back, and what is known flows on. Time lets
// the rest in.
func TestNewSeriesPerSecond(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		clock := now
		r := newReceiver(t, Options{MaxNewSeriesPerSecond: 2, Now: func() time.Time { return clock }})
		var series []Series
		for i := range 2*burstSeconds + 10 {
			series = append(series, Series{Labels: named("x", "i", fmt.Sprintf("%03d", i)), Samples: []mcache.Sample{sample(0, 1)}})
		}
		body := encode(t, p, series...)
		for _, want := range []struct{ known, status int }{{60, 503}, {60, 503}, {66, 503}, {70, 204}} {
			w := r.Send(p, body)
			answered(t, w, want.status, "")
			if got := len(r.Contents("default")); got != want.known {
				t.Errorf("%d series are known, want %d: %s", got, want.known, w.Body)
			}
			if p == wire.V2 {
				wrote(t, w, want.known)
			}
			if (w.Header().Get("Retry-After") != "") != (want.status == 503) {
				t.Errorf("Retry-After is %q of %d", w.Header().Get("Retry-After"), w.Code)
			}
			if want.known != 60 || r.Stats().NewSeriesFlood == 2 {
				clock = clock.Add(3 * time.Second)
			}
		}
		if n := r.Stats().NewSeriesFlood; n != 3 {
			t.Errorf("%d floods counted, want 3", n)
		}
	})
}

// Series that never come twice go through the memory there is and leave it as
// full as it may be; every sample that was acknowledged is there or is counted
// among those that left.
func TestNewSeriesInARow(t *testing.T) {
	const perRequest = 1000
	requests := 400
	if testing.Short() {
		requests = 300
	}
	r := newReceiver(t, Options{}) // 64 MiB: room for some 220,000
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	var series []Series
	written := 0
	for k := range requests {
		series = series[:0]
		for i := range perRequest {
			series = append(series, Series{Labels: named(fmt.Sprintf("metric_%d", k), "instance", "10.0.0.1:9100", "job", "node", "i", fmt.Sprint(k*perRequest+i)),
				Samples: []mcache.Sample{sample(float64(k), float64(i))}})
		}
		p := wire.V1 + wire.Protocol(k%2)
		answered(t, r.Send(p, encode(t, p, series...)), 204, "")
		written += perRequest
		if used, budget := r.Memory.Used(), r.Memory.Budget(); used > budget {
			t.Fatalf("after %d series %d bytes are used, of %d", written, used, budget)
		}
	}
	st := r.Cache.Stats()
	if left := st.Evicted + st.Reclaimed; st.Inserted != uint64(written) || st.Points+left != st.Inserted || left == 0 {
		t.Errorf("%d samples were acknowledged: %d inserted, %d there, %d left", written, st.Inserted, st.Points, left)
	}
	// A key each, and nothing on the heap for any of them.
	if grown := int64(heap()) - int64(before); grown > 16<<20 {
		t.Errorf("the heap grew by %d bytes for %d series", grown, written)
	}
	ids, err := r.Cache.Select("default", []mcache.Matcher{{Type: mcache.MatchEqual, Name: wire.MetricName, Value: fmt.Sprintf("metric_%d", requests-1)}}, nil)
	if err != nil || len(ids) != perRequest {
		t.Errorf("of the last request %d series are there, %v", len(ids), err)
	}
}

// A bucket that is full refuses new series, for good, and takes samples of
// those that it has.
func TestSeriesLimits(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		r := newReceiverWith(t, Options{TenancyHeader: "X-Scope-OrgID", MaxNewSeriesPerSecond: 1},
			mcache.Options{Limits: mcache.Limits{Series: 5, SeriesPerMetric: 3}})
		of := func(name string, n int, at float64) (all []Series) {
			for i := range n {
				all = append(all, Series{Labels: named(name, "i", fmt.Sprint(i)), Samples: []mcache.Sample{sample(at, 1)}})
			}
			return all
		}
		w := r.Send(p, encode(t, p, of("x", 4, 0)...))
		answered(t, w, 400, `1 of 4 samples were not written, the others were: too many series of one metric`)
		answered(t, w, 400, `too many series of one metric: "x" of bucket "default" has 3, its limit is 3, for x{i="3"}`)
		if p == wire.V2 {
			wrote(t, w, 3)
		}
		w = r.Send(p, encode(t, p, append(of("y", 4, 0), of("x", 3, 15)...)...))
		answered(t, w, 400, `bucket "default" has 5, its limit is 5, for y{i="2"}`)
		if p == wire.V2 {
			wrote(t, w, 5)
		}
		var want []string
		for i := range 3 {
			want = append(want, line(fmt.Sprintf(`{__name__="x", i="%d"}`, i), sample(0, 1), sample(15, 1)))
		}
		r.Holds(append(want, line(`{__name__="y", i="0"}`, sample(0, 1)), line(`{__name__="y", i="1"}`, sample(0, 1)))...)
		if st := r.Stats(); st.MetricOverLimit != 1 || st.SeriesOverLimit != 2 || st.InvalidSeries != 0 {
			t.Errorf("%+v", st)
		}
		// A full bucket is told so every time, and others can still grow: what
		// is refused is not taken off the rate of new series.
		for range 20 {
			answered(t, r.Send(p, encode(t, p, of("z", 4, 0)...)), 400, "its limit is 5")
		}
		req := httptest.NewRequest("POST", "/", bytes.NewReader(snappy.Encode(nil, encode(t, p, of("x", 3, 0)...))))
		req.Header.Set("Content-Type", contentType(p))
		req.Header.Set("X-Scope-OrgID", "other")
		w = httptest.NewRecorder()
		r.ServeHTTP(w, req)
		answered(t, w, 204, "")
	})
}

// New series are not created for a sender that has gone.
func TestSenderIsGone(t *testing.T) {
	r := newReceiver(t, Options{})
	answered(t, r.Send(wire.V1, encode(t, wire.V1, Series{Labels: named("known"), Samples: []mcache.Sample{sample(0, 1)}})), 204, "")
	body := snappy.Encode(nil, encode(t, wire.V1, Series{Labels: named("known"), Samples: []mcache.Sample{sample(15, 1)}}, Series{Labels: named("new"), Samples: []mcache.Sample{sample(0, 1)}}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest("POST", "/", bytes.NewReader(body)).WithContext(ctx))
	answered(t, w, 503, "canceled")
	r.Holds(line(`{__name__="known"}`, sample(0, 1), sample(15, 1)))
}

// dial starts a real server for r and opens a connection to it.
func dial(t *testing.T, r receiver) net.Conn {
	t.Helper()
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// one is a listener for one connection, the end of a pipe: a network within the
// bubble of synctest, whose clock the deadlines of both ends follow.
type one struct {
	conn   chan net.Conn
	closed chan struct{}
}

func (o *one) Accept() (net.Conn, error) {
	select {
	case c := <-o.conn:
		return c, nil
	case <-o.closed:
		return nil, net.ErrClosed
	}
}

func (o *one) Close() error {
	close(o.closed)
	return nil
}

func (o *one) Addr() net.Addr { return &net.TCPAddr{} }

// dialWithin is dial within the bubble of synctest.
func dialWithin(t *testing.T, r receiver) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	l := &one{make(chan net.Conn, 1), make(chan struct{})}
	l.conn <- theirs
	s := &http.Server{Handler: r}
	served := make(chan struct{})
	go func() { _ = s.Serve(l); close(served) }()
	t.Cleanup(func() {
		ours.Close()
		_ = s.Close()
		<-served
		time.Sleep(time.Minute) // net/http and the test's own goroutines linger for less
	})
	return ours
}

// stingy lends nothing.
type stingy struct{}

func (stingy) Try(int64) error { return errors.New("no") }
func (stingy) Begin() error    { return nil }
func (stingy) Release()        {}

// A body that the connection's own buffer would hold needs no admission: halves
// of large ones that hold all there is do not keep it out.
func TestSmallBodiesAreFree(t *testing.T) {
	l := &lease{h: newReceiver(t, Options{}).Handler, loan: stingy{}}
	for n, free := range map[int]bool{1: true, freeBodyBytes: true, freeBodyBytes + 1: false} {
		b, err := readAll(nil, strings.NewReader(strings.Repeat("x", n)), n, l)
		if (err == nil) != free || free && len(b) != n {
			t.Errorf("a body of %d bytes: %d read, %v", n, len(b), err)
		}
	}
}

// A sender that announces much and sends a byte now and then is sent away in
// time, and until then costs what it has sent, not what it announced.
func TestSlowBodyIsNotWaitedFor(t *testing.T) {
	for name, head := range map[string]string{"announced": "Content-Length: 30000000", "chunked": "Transfer-Encoding: chunked"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const timeout = 300 * time.Millisecond
				a := &admission{limit: 1 << 30}
				r := newReceiver(t, Options{BodyTimeout: timeout, Admission: a.open})
				c := dialWithin(t, r)
				began := time.Now()
				fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", head)
				go func() {
					drop := "x"
					if name == "chunked" {
						drop = "1\r\nx\r\n"
					}
					for {
						if _, err := io.WriteString(c, drop); err != nil {
							return // hung up on, as it should be
						}
						time.Sleep(10 * time.Millisecond)
					}
				}()
				resp, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took != timeout {
					t.Errorf("it was sent away after %v, want %v", took, timeout)
				}
				text := make([]byte, resp.ContentLength)
				_, _ = io.ReadFull(resp.Body, text)
				if resp.StatusCode != 503 || !regexp.MustCompile(`[1-9][0-9]* bytes of the body came within 300ms`).Match(text) || resp.Header.Get("Retry-After") == "" {
					t.Errorf("answer is %d %s", resp.StatusCode, text)
				}
				if n := r.Stats().SlowBodies; n != 1 {
					t.Errorf("%d slow bodies counted", n)
				}
				if now, most := a.lent(); most != firstBodyBytes || now != 0 {
					t.Errorf("it was lent %d bytes, want %d; %d still are", most, firstBodyBytes, now)
				}
			})
		})
	}
}

// Never more is lent than twice what has come, and what it decompresses to
// once all of it has.
func TestABodyIsLentWhatItTakes(t *testing.T) {
	var series []Series
	for i := range 40_000 {
		series = append(series, Series{Labels: named("x", "i", fmt.Sprint(i*7919)), Samples: []mcache.Sample{sample(0, float64(i)*1.1)}})
	}
	body := encode(t, wire.V1, series...)
	packed := snappy.Encode(nil, body)
	if len(packed) < 4*firstBodyBytes {
		t.Fatalf("%d bytes are too few to see a lease grow", len(packed))
	}
	for _, announced := range []bool{true, false} {
		a := &admission{limit: 1 << 30}
		r := newReceiver(t, Options{Admission: a.open})
		came := 0
		req := httptest.NewRequest("POST", "/", &tricklingReader{b: packed, came: func(n int) {
			came += n
			if now, _ := a.lent(); now > int64(max(2*came, firstBodyBytes)) {
				t.Errorf("%d bytes are lent when %d have come", now, came)
			}
		}})
		if req.ContentLength = -1; announced {
			req.ContentLength = int64(len(packed))
		}
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		answered(t, w, 204, "")
		now, most := a.lent()
		tables := int64(5 * len(body) / 2) // at the most: see TestTablesAreLent
		if least := int64(len(packed) + len(body)); most < least || most > least+int64(len(packed))+tables || now != 0 {
			t.Errorf("%d bytes were lent for %d and %d; %d still are", most, len(packed), len(body), now)
		}
	}
}

// tricklingReader gives a thousand bytes at a time.
type tricklingReader struct {
	b    []byte
	came func(n int)
}

func (r *tricklingReader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 1000)], r.b)
	r.b = r.b[n:]
	r.came(n)
	return n, nil
}

// What is worked on at a time is bounded, and whoever waits for it and goes is
// not waited for.
func TestRequestsWaitTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver(t, Options{MaxConcurrent: 1})
		r.working <- struct{}{} // another request
		body := snappy.Encode(nil, encode(t, wire.V1, Series{Labels: named("x"), Samples: []mcache.Sample{sample(0, 1)}}))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest("POST", "/", bytes.NewReader(body)).WithContext(ctx))
		answered(t, w, 503, "canceled")
		r.Holds()
		waited := make(chan *httptest.ResponseRecorder, 1)
		go func() { waited <- r.Post("", "", body) }()
		synctest.Wait()
		select {
		case w := <-waited:
			t.Fatalf("answered %d before its turn", w.Code)
		default:
		}
		<-r.working
		answered(t, <-waited, 204, "")
		r.Holds(line(`{__name__="x"}`, sample(0, 1)))
	})
}

// The deadline of a body ends with it: the next request may come later.
func TestConnectionOutlivesTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout = 50 * time.Millisecond
		r := newReceiver(t, Options{BodyTimeout: timeout})
		c := dialWithin(t, r)
		in := bufio.NewReader(c)
		for i := range 2 {
			packed := snappy.Encode(nil, encode(t, wire.V1, Series{Labels: named("x"), Samples: []mcache.Sample{sample(float64(i), 1)}}))
			fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(packed), packed)
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatalf("request %d: %v", i, err)
			}
			if resp.StatusCode != 204 {
				t.Fatalf("request %d: %s", i, resp.Status)
			}
			time.Sleep(2 * timeout)
		}
		r.Holds(line(`{__name__="x"}`, sample(0, 1), sample(1, 1)))
	})
}

func TestBodyCutInTheMiddle(t *testing.T) {
	r := newReceiver(t, Options{})
	packed := snappy.Encode(nil, encode(t, wire.V1, Series{Labels: named("x"), Samples: []mcache.Sample{sample(0, 1)}}))
	c := dial(t, r)
	fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(packed), packed[:len(packed)-1])
	c.(*net.TCPConn).CloseWrite()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 400 {
		t.Errorf("answer is %s", resp.Status)
	}
	r.Holds()
	answered(t, r.Post("", "", packed), 204, "")
}

// Views into the pooled body must not outlive the request.
func TestNothingOfABodyIsKept(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		r := newReceiver(t, Options{})
		in := r.intake()
		in.decoded = encode(t, p, Series{Labels: named("first", "a", "1"), Samples: []mcache.Sample{sample(0, 1)}})
		in.reset(p, "default", nil)
		if err := in.write(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i := range in.decoded {
			in.decoded[i] = 0xff
		}
		r.Holds(line(`{__name__="first", a="1"}`, sample(0, 1)))
	})
}

func TestKnownSeriesAllocateNothing(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		r := newReceiver(t, Options{})
		var series []Series
		for i := range 500 {
			series = append(series, Series{Labels: named(fmt.Sprintf("metric_%d", i/10), "instance", "10.0.0.1:9100", "i", fmt.Sprint(i%10)), Samples: []mcache.Sample{sample(0, float64(i))}})
		}
		in := r.intake()
		body := encode(t, p, series...)
		write := func() {
			in.decoded = body
			in.reset(p, "default", nil)
			if err := in.write(t.Context()); err != nil || in.written != len(series) {
				t.Fatalf("%d written, %v", in.written, err)
			}
		}
		write()
		// The race detector keeps one from being optimized away.
		if n := testing.AllocsPerRun(100, write); n > 1 {
			t.Errorf("%v allocations for %d series", n, len(series))
		}
		if got := len(in.batch.Missing()); got != 0 {
			t.Errorf("%d of %d series were not known", got, len(series))
		}
	})
}

// A table of buckets that is full is no fault of the request: it is welcome later.
func TestFullTableOfBucketsIs503(t *testing.T) {
	r := newReceiverWith(t, Options{TenancyHeader: "X-Scope-OrgID", Flags: map[string]string{"MaxBuckets": "--buckets"}}, mcache.Options{MaxBuckets: 2, KeepBuckets: []string{"default"}})
	for _, p := range []wire.Protocol{wire.V1, wire.V2} {
		body := encode(t, p, Series{Labels: named("x"), Samples: []mcache.Sample{sample(0, 1)}})
		for _, c := range []struct {
			bucket string
			want   int
			text   string
		}{{"a", 204, ""}, {"b", 503, "--buckets"}, {"", 204, ""}, {"a", 204, ""}} {
			req := httptest.NewRequest("POST", "/", bytes.NewReader(snappy.Encode(nil, body)))
			if p == wire.V2 {
				req.Header.Set("Content-Type", wire.ContentTypeV2)
			}
			if c.bucket != "" {
				req.Header.Set("X-Scope-OrgID", c.bucket)
			}
			w := httptest.NewRecorder()
			r.ServeHTTP(w, req)
			answered(t, w, c.want, c.text)
			if (w.Header().Get("Retry-After") != "") != (c.want == 503) {
				t.Errorf("%s: Retry-After is %q", c.bucket, w.Header().Get("Retry-After"))
			}
		}
	}
}
