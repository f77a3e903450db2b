package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mcached/mcache/query"
)

// TestUpstreamFlags refuses what cannot be meant.
func TestUpstreamFlags(t *testing.T) {
	for flags, want := range map[string]string{
		"--query.upstream=127.0.0.1:9090":                                                "must be http://",
		"--query.upstream=ftp://host":                                                    "must be http://",
		"--query.upstream=http://":                                                       "must be http://",
		"--query.upstream=http://me:secret@host":                                         "must not hold a password",
		"--query.upstream=http://host?x=y":                                               "no parameters",
		"--query.upstream=http://127.0.0.1:9201/x":                                       "this daemon itself",
		"--query.upstream=http://host --query.upstream.timeout=0s":                       "timeout must be more than 0",
		"--query.upstream=http://host --query.upstream.max-body-size=0":                  "max-body-size must be more than 0",
		"--query.upstream=http://host --query.upstream.authoritative={":                  "query.upstream.authoritative",
		"--query.upstream=http://host --query.upstream.drop-labels=a,__name__":           "drop-labels must be names",
		"--query.upstream=http://host --query.upstream.drop-labels=a,b":                  "",
		"--query.upstream.authoritative={a=\"b\"}":                                       "is for --query.upstream",
		"--query.upstream=http://host --query.upstream.when=often":                       `--query.upstream.when: "often" is not missing, never or always`,
		"--query.upstream=http://host --query.upstream.http-config-file=/does/not/exist": "http-config-file",
		"--query.upstream.http-config-file=/does/not/exist":                              "is for --query.upstream",
		"--query.upstream=http://host/prefix --query.upstream.when=always":               "",
		"--query.upstream=http://host --query.upstream.when=never":                       "",
	} {
		c, err := parseConfig(strings.Fields(flags))
		if err == nil && want != "" || err != nil && (want == "" || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%s: %v, want %q", flags, err, want)
		}
		if err != nil {
			continue
		}
		if o := c.upstream.options(""); o == nil || string(o.When) != c.upstream.when.is {
			t.Errorf("%s: %+v", flags, o)
		}
	}
}

// TestUpstreamIsAsked has check-config ask the server what it is.
func TestUpstreamIsAsked(t *testing.T) {
	var clock atomic.Int64 // ns
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(time.Duration(clock.Load())).UTC().Format(http.TimeFormat))
		for path, data := range map[string]string{"buildinfo": `{"version":"2.42.0"}`, "flags": `{"query.lookback-delta":"5m"}`, "config": `{"yaml":"global:\n  evaluation_interval: 30s\n"}`} {
			if strings.HasSuffix(r.URL.Path, path) {
				_, _ = io.WriteString(w, `{"status":"success","data":`+data+`}`)
			}
		}
	}))
	defer s.Close()
	var out, errOut strings.Builder
	if err := checkConfigCommand(t.Context(), []string{"--query.upstream=" + s.URL, "--query.upstream.drop-labels=cluster"}, &out, &errOut); err != nil {
		t.Fatal(err)
	}
	want := "--query.upstream=" + s.URL + " is prometheus 2.42.0: range queries are split if they have no range or subquery (before Prometheus 3 a range has both of its ends); it looks back 5m0s; its evaluation interval is 30s\n"
	if !strings.HasPrefix(out.String(), want) {
		t.Errorf("%s\nwant %s", &out, want)
	}
	for by, want := range map[time.Duration]string{2 * time.Hour: " ahead of this one", -2 * time.Hour: " behind this one"} {
		clock.Store(int64(by))
		out.Reset()
		if err := checkConfigCommand(t.Context(), []string{"--query.upstream=" + s.URL}, &out, &errOut); err != nil || !strings.Contains(out.String(), "; its clock is ") || !strings.Contains(out.String(), want) {
			t.Errorf("a clock that is %s ahead: %v %s", by, err, &out)
		}
	}
	s.Close()
	out.Reset()
	if err := checkConfigCommand(t.Context(), []string{"--query.upstream=" + s.URL}, &out, &errOut); err != nil || !strings.Contains(out.String(), " is of an unknown kind: no query is split, ") {
		t.Errorf("a server that is down: %v %s", err, &out)
	}
}

// TestUpstreamIsWaitedFor: a server that is down when the daemon starts is a warning, and is
// asked again until it says what it is.
func TestUpstreamIsWaitedFor(t *testing.T) {
	up, now := false, time.Now()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
		switch {
		case !up:
			w.WriteHeader(http.StatusServiceUnavailable)
		case strings.HasSuffix(r.URL.Path, "buildinfo"):
			_, _ = io.WriteString(w, `{"status":"success","data":{"version":"3.1.0"}}`)
		default:
			http.NotFound(w, r)
		}
	}))
	defer s.Close()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	d := &daemon{config: &config{}, log: slog.New(slog.NewTextHandler(&out, nil))}
	d.config.upstream.url = s.URL
	d.queries = query.NewAPI(nil, query.Options{Now: func() time.Time { return now }, Logger: d.log, Upstream: &query.UpstreamOptions{URL: u}})
	waits := 0
	d.tellUpstream(t.Context(), func(context.Context) bool {
		now = now.Add(query.AskAgainAfter)
		waits++
		up = waits == 3
		return true
	})
	if log := out.String(); waits != 3 || strings.Count(log, "level=WARN") != 1 || strings.Count(log, "\n") != 3 ||
		!strings.Contains(log, "status 503") || !strings.Contains(log, "answers again") || !strings.Contains(log, "is prometheus 3.1.0") {
		t.Errorf("asked again %d times:\n%s", waits, log)
	}
	up, waits = false, 0
	d.queries.SetUpstream(query.UpstreamOptions{URL: u.JoinPath("other")})
	d.tellUpstream(t.Context(), func(context.Context) bool { waits++; return false }) // it stops
	if waits != 1 {
		t.Errorf("it waited %d times when the daemon stops", waits)
	}
}
