package query

import (
	"net/http"
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
	a, _, _ := storeBehind(t, UpstreamOptions{MaxConcurrency: 1, Timeout: time.Minute}, func(w http.ResponseWriter, r *http.Request) {
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
