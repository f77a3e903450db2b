package query

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestSetUpstream: labels to drop and the number of requests at a time change
// while queries come in.
func TestSetUpstream(t *testing.T) {
	hold := make(chan struct{})
	var here atomic.Int64
	a, _, _ := storeBehind(t, UpstreamOptions{MaxConcurrency: 1}, func(w http.ResponseWriter, r *http.Request) {
		here.Add(1)
		select {
		case <-hold:
		case <-r.Context().Done():
		}
		answerJSON(200, storesAnswer)(w, r)
	})
	fill(t, a.source.(cacheSource).Cache, "default", 15_000, ramp(41, 0, 1), "__name__", "own", "cluster", "eu")
	series := func(want string) {
		t.Helper()
		if w := get(t, a, "query", "query", "own"); !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s, want %s", w.Body, want)
		}
	}
	series(`{"__name__":"own","cluster":"eu"}`)
	done := make(chan struct{})
	ask := func() {
		get(t, a, "query", "query", "m[1h]")
		done <- struct{}{}
	}
	go ask()
	go ask()
	waitFor(t, "the store is asked", func() bool { return here.Load() == 1 && a.upstream.slots.taken() == 1 })
	o := *a.upstream.opts()
	o.MaxConcurrency, o.DropLabels = 2, []string{"cluster"}
	a.SetUpstream(o)
	waitFor(t, "the store is asked twice at a time", func() bool { return here.Load() == 2 })
	series(`"metric":{"__name__":"own"}`)
	o.MaxConcurrency, o.DropLabels = 1, nil
	a.SetUpstream(o)
	series(`{"__name__":"own","cluster":"eu"}`)
	close(hold)
	<-done
	<-done
	if n := a.upstream.slots.taken(); n != 0 || a.upstream.slots.total() != 1 {
		t.Errorf("%d of %d slots are taken", n, a.upstream.slots.total())
	}
}

// TestSetUpstreamAnother: nothing that was learnt of a store is said of another,
// be it that it failed, or what it said while it was replaced.
func TestSetUpstreamAnother(t *testing.T) {
	asked, say := make(chan struct{}), make(chan struct{})
	first := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/buildinfo") {
			asked <- struct{}{}
			<-say
			answerJSON(200, success(`{"version":"3.14.0"}`))(w, r)
			return
		}
		http.NotFound(w, r)
	}))
	defer first.Close()
	a, _, _ := storeBehind(t, UpstreamOptions{}, answerJSON(200, storesAnswer))
	anonymous := *a.upstream.opts()
	prometheus := anonymous
	var err error
	if prometheus.URL, err = url.Parse(first.URL); err != nil {
		t.Fatal(err)
	}
	for _, during := range []bool{false, true} {
		a.SetUpstream(prometheus)
		for range breakerFailures {
			a.upstream.breaker.failed(a.o.Now())
		}
		learnt := make(chan Dialect)
		go func() { learnt <- a.Upstream(t.Context()) }()
		<-asked
		if during {
			a.SetUpstream(anonymous)
			say <- struct{}{}
			if d := <-learnt; d.Kind != kindUnknown {
				t.Errorf("of a store that was replaced: %+v", d)
			}
		} else {
			say <- struct{}{}
			if d := <-learnt; d.Kind != kindPrometheus {
				t.Errorf("the first: %+v", d)
			}
			a.SetUpstream(anonymous)
		}
		if d := a.Upstream(t.Context()); d.Kind != kindUnknown {
			t.Errorf("the second: %+v", d)
		}
		if w := get(t, a, "query", "query", "m[1h]"); w.Body.String() != storesAnswer {
			t.Errorf("the second is not asked: %s", w.Body)
		}
	}
}

// TestUpstreamOver: a request to the store that ends because memory's part of the
// query is an error has not failed.
func TestUpstreamOver(t *testing.T) {
	a, _, _ := storeBehind(t, UpstreamOptions{}, func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		if r.Form.Get("end") == seconds(t0+600_000) { // the whole
			answerJSON(422, failure("execution", "the store's own words"))(w, r)
			return
		}
		<-r.Context().Done()
	})
	a.upstream.dialect.known, a.upstream.dialect.until = dialect{Dialect: Dialect{Kind: kindPrometheus, Splits: splitsAll}}, time.UnixMilli(t0+10*3_600_000)
	for _, x := range []string{"1", "2"} {
		fill(t, a.source.(cacheSource).Cache, "default", 15_000, ramp(41, 0, 1), "__name__", "n", "x", x)
	}
	w := get(t, a, "query_range", "query", "m * on() n", "start", seconds(t0-60_000), "end", seconds(t0+600_000), "step", "15")
	if w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), "own words") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if s := a.Stats(); s.UpstreamRefused != 1 || s.UpstreamFailed != 0 || a.upstream.breaker.failures != 0 {
		t.Errorf("%+v, the breaker counts %d", s, a.upstream.breaker.failures)
	}
}
