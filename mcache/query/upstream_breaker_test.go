package query

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestStoreAway: that the store does not answer is logged once, by whatever it is noticed,
// and so is that it is back.
func TestStoreAway(t *testing.T) {
	const (
		gone = "level=WARN msg=\"The store behind does not answer"
		back = "level=INFO msg=\"The store behind answers again"
	)
	var down atomic.Bool
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case down.Load():
			http.Error(w, "no", http.StatusBadGateway)
		case strings.HasSuffix(r.URL.Path, "buildinfo"):
			_, _ = io.WriteString(w, `{"status":"success","data":{"version":"3.1.0"}}`)
		case strings.Contains(r.URL.Path, "/status/"):
			http.NotFound(w, r)
		default:
			_, _ = io.WriteString(w, success(`{"resultType":"vector","result":[]}`))
		}
	}))
	defer s.Close()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, downAtFirst := range []bool{false, true} {
		var (
			log   bytes.Buffer
			clock atomic.Int64
			o     = testOptions()
		)
		clock.Store(t0 + 600_000)
		o.Now = func() time.Time { return time.UnixMilli(clock.Load()) }
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		o.Upstream = patiently(UpstreamOptions{URL: u})
		a := NewAPI(lateCache(t), o)
		said := func(when string, lines ...string) {
			t.Helper()
			text := log.String()
			if log.Reset(); strings.Count(text, "\n") != len(lines) {
				t.Errorf("down at first %v, %s: %q, want %q", downAtFirst, when, text, lines)
			}
			for _, line := range lines {
				if !strings.Contains(text, line) {
					t.Errorf("down at first %v, %s: %q, want %q", downAtFirst, when, text, lines)
				}
			}
		}
		ask := func(times int) {
			for range times {
				get(t, a, "query", "query", "m[1h]")
				clock.Add(time.Minute.Milliseconds())
			}
		}
		down.Store(downAtFirst)
		if silent := a.Upstream(t.Context()).Silent; silent != downAtFirst {
			t.Errorf("down %v: silent %v", downAtFirst, silent)
		}
		if downAtFirst {
			said("when it is asked what it is", gone)
			a.Upstream(t.Context())
			clock.Add(AskAgainAfter.Milliseconds())
			a.Upstream(t.Context())
			ask(breakerFailures)
			said("later")
			down.Store(false)
			ask(1)
			said("when it is up", back)
			if a.Upstream(t.Context()).Silent {
				t.Error("it is up, and silent")
			}
		}
		ask(2)
		down.Store(true)
		ask(breakerFailures - 1)
		said("before it has failed for some time")
		ask(5)
		said("when it is down", gone)
		down.Store(false)
		ask(3)
		said("when it is back", back)
		down.Store(true)
		clock.Add(relearnEvery.Milliseconds())
		a.Upstream(t.Context())
		said("when it does not say what it is, once it has")
	}
}

// TestStoreSpeaksAndFails: a store that says what it is, and answers nothing else, is away.
func TestStoreSpeaksAndFails(t *testing.T) {
	var b breaker
	now := time.UnixMilli(t0)
	if !b.silent() || b.silent() || !b.spoke() || b.spoke() {
		t.Error("what is said of one that does not answer at first, and then does")
	}
	if b.silent() {
		t.Error("one that has answered is away for not saying what it is")
	}
	for range breakerFailures - 1 {
		if b.failed(now) {
			t.Error("it is away at once")
		}
	}
	if !b.failed(now) || b.failed(now) || b.spoke() {
		t.Error("it is away, and not back by what it says of itself")
	}
	if _, back := b.answered(); !back {
		t.Error("it is not back")
	}
	if _, back := b.answered(); back {
		t.Error("it is back once more")
	}
	b.renew()
	if !b.silent() {
		t.Error("another one is known")
	}
}
