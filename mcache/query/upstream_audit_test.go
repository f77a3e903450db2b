package query

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// audited waits for as many audits.
func audited(t *testing.T, a *API, n uint64) Stats {
	t.Helper()
	waitFor(t, "audits", func() bool {
		s := a.Stats()
		return s.UpstreamAuditsAgreed+s.UpstreamAuditsDiffered+s.UpstreamAuditsFailed+s.UpstreamAuditsSkipped >= n && len(a.upstream.auditor.busy) == 0
	})
	return a.Stats()
}

// TestAudit: what memory answers alone is compared with what the store says.
func TestAudit(t *testing.T) {
	a, f, _ := remembering(t)
	log := &lockedBuffer{}
	a.o.Logger = slog.New(slog.NewTextHandler(log, nil))
	a.upstream.opts().Audit = 1
	n := uint64(0)
	audit := func(path string, pairs ...string) (asked [][2]int64) {
		t.Helper()
		if w := get(t, a, path, pairs...); w.Code != 200 || w.Header().Get(sourceHeader) != sourceMemory {
			t.Fatalf("%d from %s: %s", w.Code, w.Header().Get(sourceHeader), w.Body)
		}
		n++
		audited(t, a, n)
		return f.requests()
	}
	// The newest step is half a minute old: it is left out.
	ranged := []string{"query", "m", "start", seconds(t0 + 330_000), "end", seconds(t0 + 570_000), "step", "15"}
	if asked := audit("query_range", ranged...); len(asked) != 1 || asked[0] != [2]int64{t0 + 330_000, t0 + 540_000} {
		t.Errorf("the store was asked %v", asked)
	}
	// A query of this moment is asked as of a minute ago.
	if asked := audit("query", "query", "m", "time", seconds(t0+600_000)); len(asked) != 1 || asked[0] != [2]int64{t0 + 540_000, t0 + 540_000} {
		t.Errorf("the store was asked %v", asked)
	}
	// What cannot be compared is not.
	for _, expr := range []string{"m[1m]", "vector(1)", "scalar(m)", "m @ 1795209000", "m @ end()"} {
		before := a.Stats().UpstreamAuditsSkipped
		if asked := audit("query", "query", expr, "time", seconds(t0+600_000)); len(asked) != 0 || a.Stats().UpstreamAuditsSkipped != before+1 {
			t.Errorf("%s: the store was asked %v", expr, asked)
		}
	}
	s := a.Stats()
	if s.UpstreamAuditsFailed != 0 || log.String() != "" || s.UpstreamAuditsAgreed < 2 {
		t.Fatalf("%+v %s", s, log)
	}
	// The store says something else: it is counted each time and logged once.
	f.add = 0.25
	differed := s.UpstreamAuditsDiffered
	for range 3 {
		audit("query_range", ranged...)
	}
	if s := a.Stats(); s.UpstreamAuditsDiffered != differed+3 || strings.Count(log.String(), "otherwise than the store behind") != 1 || !strings.Contains(log.String(), "expr=m bucket=default") || !strings.Contains(log.String(), "22 here, \\\"22.25\\\" there") {
		t.Errorf("%+v %s", s, log)
	}
	f.down.Store(true)
	audit("query_range", ranged...)
	if s := a.Stats(); s.UpstreamAuditsFailed != 1 {
		t.Errorf("%+v", s)
	}
}

// TestAuditIsOff costs nothing, and never is there one beside a query that the
// store has answered.
func TestAuditIsOff(t *testing.T) {
	a, f, _ := remembering(t)
	get(t, a, "query", "query", "m", "time", seconds(t0+600_000))
	a.upstream.opts().Audit = 1
	panel(t, a, -3000, 600)
	panel(t, a, -3000, 600, "upstream", "never")
	a.Stop()
	if s := a.Stats(); len(f.requests()) != 2 || s.UpstreamAuditsAgreed+s.UpstreamAuditsSkipped+s.UpstreamAuditsFailed != 0 {
		t.Errorf("%+v", s)
	}
}

// TestAuditOneAtATime: an audit that hangs keeps no client and no other audit
// waiting, and ends with Stop.
func TestAuditOneAtATime(t *testing.T) {
	f := &fakeStore{version: "3.14.0"}
	arrived := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/query_range") {
			f.ServeHTTP(w, r)
			return
		}
		if err := r.ParseForm(); err != nil { // else the server does not see a client go
			t.Error(err)
		}
		arrived <- struct{}{}
		<-r.Context().Done()
	}))
	defer server.Close()
	o := testOptions()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	o.Upstream = patiently(UpstreamOptions{URL: u, Audit: 1})
	a := NewAPI(lateCache(t), o)
	ask := func() {
		if w := get(t, a, "query", "query", "m", "time", seconds(t0+600_000)); w.Code != 200 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	ask()
	<-arrived
	ask()
	if s := a.Stats(); s.UpstreamAuditsSkipped != 1 {
		t.Errorf("%+v", s)
	}
	a.Stop()
	ask()
	a.Stop()
	if s := a.Stats(); s.UpstreamAuditsSkipped != 2 || s.UpstreamAuditsFailed != 1 {
		t.Errorf("%+v", s)
	}
}
