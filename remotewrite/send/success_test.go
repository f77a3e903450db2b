package send

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mcached/mcache"
	"mcached/remotewrite"
	"mcached/remotewrite/wire"
)

// What is not the answer of a receiver that has every sample leaves them dirty,
// whatever the status says; when the receiver itself is back, it gets them all.
func TestOnlyAReceiversAnswerIsSuccess(t *testing.T) {
	const login = "<!DOCTYPE html><html><body>Please log in.</body></html>"
	counts := func(samples string) []string { return []string{wire.HeaderSamplesWritten, samples} }
	type answer struct {
		status int
		header []string
		body   string
	}
	both, v1, v2 := []wire.Protocol{0, wire.V1, wire.V2}, []wire.Protocol{0, wire.V1}, []wire.Protocol{wire.V2}
	for name, c := range map[string]struct {
		answer
		of []wire.Protocol // that the client is told to speak; 0: to detect it
	}{
		"200 with a page":                   {answer{200, []string{"Content-Type", "text/html; charset=utf-8"}, login}, both},
		"200 with a page, called otherwise": {answer{200, []string{"Content-Type", "application/octet-stream"}, login}, both},
		"200 with text of type HTML":        {answer{200, []string{"Content-Type", "Text/HTML"}, "Please log in."}, both},
		"200 with JSON":                     {answer{200, []string{"Content-Type", "application/json"}, `{"error":"unauthorized"}`}, both},
		"201":                               {answer{201, nil, ""}, both},
		"203, of a proxy":                   {answer{203, nil, ""}, both},
		"205":                               {answer{205, nil, ""}, both},
		"206":                               {answer{206, nil, ""}, both},
		"206 with counts":                   {answer{206, counts("1000"), ""}, both},
		"207":                               {answer{207, nil, ""}, both},
		"204 without counts":                {answer{204, nil, ""}, v2},
		"200 without counts":                {answer{200, nil, ""}, v2},
		"204 with no counts but exemplars'": {answer{204, []string{wire.HeaderExemplarsWritten, "1000"}, ""}, v2},
		"0 of 1000":                         {answer{204, counts("0"), ""}, v2},
		"1 of 1000":                         {answer{204, counts("1"), ""}, v2},
		"999 of 1000":                       {answer{204, counts("999"), ""}, v2},
		"1001 of 1000":                      {answer{204, counts("1001"), ""}, v2},
		"a count that is no number":         {answer{204, counts("all"), ""}, v2},
		"a negative count":                  {answer{204, counts("-1000"), ""}, v2},
		"400 with a page":                   {answer{400, nil, "<html>The plain HTTP request was sent to HTTPS port</html>"}, v1},
		"400 of Go's server for TLS":        {answer{400, nil, "Client sent an HTTP request to an HTTPS server.\n"}, v1},
		"422 with a page":                   {answer{422, nil, login}, v1},
		"300":                               {answer{300, []string{"Location", "/elsewhere"}, ""}, both},
		"301":                               {answer{301, []string{"Location", "https://elsewhere/"}, ""}, both},
		"302 to a page":                     {answer{302, []string{"Location", "/login"}, ""}, both},
		"303":                               {answer{303, []string{"Location", "/login"}, ""}, both},
		"304":                               {answer{304, nil, ""}, both},
		"305":                               {answer{305, []string{"Location", "http://proxy/"}, ""}, both},
		"307":                               {answer{307, []string{"Location", "/elsewhere"}, ""}, both},
		"308":                               {answer{308, []string{"Location", "/elsewhere"}, ""}, both},
		"308 without a place":               {answer{308, nil, ""}, both},
		"307 to what is no URL":             {answer{307, []string{"Location", "http://[::1"}, ""}, both},
		"399":                               {answer{399, nil, ""}, both},
		"302 with counts":                   {answer{302, append(counts("1000"), "Location", "/login"), ""}, both},
	} {
		for _, p := range c.of {
			t.Run(fmt.Sprint(name, ", ", p), func(t *testing.T) {
				down := newReceiver(t, remotewrite.Options{})
				var wrong atomic.Bool
				wrong.Store(true)
				asked := make(chan string, 1000)
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					switch {
					case r.URL.Path != "/write": // whoever follows a redirect finds a page that is content
						asked <- r.Method + " " + r.URL.Path
						io.WriteString(w, login)
					case wrong.Load():
						asked <- "write"
						for i := 0; i < len(c.header); i += 2 {
							w.Header().Set(c.header[i], c.header[i+1])
						}
						w.WriteHeader(c.status)
						io.WriteString(w, c.body)
					default:
						down.ServeHTTP(w, r)
					}
				}))
				defer server.Close()
				up := newWriteBack(t, remotewrite.Options{})
				f := up.forwarderTo(server.URL+"/write", p, ForwarderOptions{Lanes: 1})
				for i := range 1000 {
					if err := up.Cache.AppendSamples("default", named("x", "i", fmt.Sprint(i%10)), sample(float64(i-1000), float64(i))); err != nil {
						t.Fatal(err)
					}
				}
				ctx, cancel := context.WithCancel(t.Context())
				left := make(chan Left)
				go func() { left <- f.Drain(ctx) }()
				for range 4 { // enough for what comes of an answer to show
					if got := <-asked; got != "write" {
						t.Fatalf("a redirect was followed: %s", got)
					}
				}
				cancel()
				if n := (<-left).Points; n != 1000 {
					t.Errorf("%d of 1000 samples are kept; %+v", n, f.Stats())
				}
				if st := f.Stats(); st.Sent != 0 || st.Rejected != 0 || !st.LastSuccess.IsZero() {
					t.Errorf("%+v", st)
				}
				wrong.Store(false)
				drained(t, f)
				if got, want := down.Contents("default"), up.Contents("default"); len(want) != 10 || strings.Join(got, "\n") != strings.Join(want, "\n") {
					t.Errorf("%d series arrived of %d, or others", len(got), len(want))
				}
				if st := f.Stats(); st.Sent != 1000 || st.Rejected != 0 {
					t.Errorf("at last %+v", st)
				}
			})
		}
	}
}

// What receivers in use answer to what they have taken is success.
func TestSuccessesOfReceivers(t *testing.T) {
	one := []Series{{Labels: named("x"), Samples: []mcache.Sample{sample(0, 1)}}}
	for _, c := range []struct {
		p      wire.Protocol
		status int
		header []string
	}{
		{wire.V1, 204, nil}, {wire.V1, 200, nil}, {wire.V1, 202, nil},
		{wire.V1, 200, []string{"Content-Type", "text/html"}}, // of nothing
		{wire.V2, 204, []string{wire.HeaderSamplesWritten, "1"}},
		{wire.V2, 200, []string{wire.HeaderSamplesWritten, "1", wire.HeaderHistogramsWritten, "0", wire.HeaderExemplarsWritten, "0"}},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for i := 0; i < len(c.header); i += 2 {
				w.Header().Set(c.header[i], c.header[i+1])
			}
			w.WriteHeader(c.status)
		}))
		client, err := NewClient(ClientOptions{URL: server.URL, Protocol: c.p})
		if err != nil {
			t.Fatal(err)
		}
		if r, err := client.Send(t.Context(), one, nil); err != nil || r.Written != 1 {
			t.Errorf("%v %d: %+v, %v", c.p, c.status, r, err)
		}
		server.Close()
	}
}

// A receiver whose counts of 2.0 cannot be right is spoken to in 1.0, if the
// options leave that open.
func TestClientDoesNotTrustWrongCounts(t *testing.T) {
	var spoken []wire.Protocol
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := wire.ProtocolOf(r.Header.Get("Content-Type"))
		if spoken = append(spoken, p); p == wire.V2 {
			w.Header().Set(wire.HeaderSamplesWritten, "7")
		}
		w.WriteHeader(204)
	}))
	defer server.Close()
	client, err := NewClient(ClientOptions{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	r, err := client.Send(t.Context(), []Series{{Labels: named("x"), Samples: []mcache.Sample{sample(0, 1)}}}, nil)
	if err != nil || r.Written != 1 || fmt.Sprint(spoken) != "[2.0 1.0]" {
		t.Errorf("it spoke %v: %+v, %v", spoken, r, err)
	}
}

// A receiver behind a proxy that sends http on to https: nothing is lost, the
// log says once where to, and when the proxy lets requests through they arrive.
func TestForwarderIsRedirectedToHTTPS(t *testing.T) {
	for _, code := range []int{301, 302, 307, 308} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			down := newReceiver(t, remotewrite.Options{})
			var reached atomic.Int64
			secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				reached.Add(1)
				down.ServeHTTP(w, r)
			}))
			defer secure.Close()
			var redirecting atomic.Bool
			redirecting.Store(true)
			var asked atomic.Int64
			plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				if redirecting.Load() {
					http.Redirect(w, r, strings.Replace(secure.URL, "https://", "https://user:secret@", 1)+r.URL.Path+"?token=secret", code)
					return
				}
				down.ServeHTTP(w, r)
			}))
			defer plain.Close()

			up := newWriteBack(t, remotewrite.Options{})
			client, err := NewClient(ClientOptions{URL: plain.URL + "/api/v1/write", HTTP: secure.Client()}) // which trusts it
			if err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			f, err := NewForwarder(ForwarderOptions{Cache: up.Cache, Client: client, Lanes: 1, MinBackoff: time.Millisecond, MaxBackoff: time.Millisecond,
				// Each look at the clock is a minute later: what is said again after a while would be.
				Now: steps(now, time.Minute), Logger: slog.New(slog.NewTextHandler(&log, nil))})
			if err != nil {
				t.Fatal(err)
			}
			for i := range 100 {
				if err := up.Cache.AppendSamples("default", named("x", "i", fmt.Sprint(i)), sample(0, float64(i))); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			left := make(chan Left)
			go func() { left <- f.Drain(ctx) }()
			waitFor(t, "it to be tried again and again", func() bool { return asked.Load() >= 20 })
			cancel()
			if n := (<-left).Points; n != 100 || reached.Load() != 0 {
				t.Errorf("%d of 100 samples are kept, %d requests followed the redirect", n, reached.Load())
			}
			said := strings.Count(log.String(), "redirects")
			if said != 1 || strings.Contains(log.String(), "secret") || !strings.Contains(log.String(), "to="+secure.URL+"/api/v1/write") {
				t.Errorf("the log has it %d times:\n%s", said, log.String())
			}
			redirecting.Store(false)
			drained(t, f)
			if got := len(down.Contents("default")); got != 100 {
				t.Errorf("%d series arrived of 100", got)
			}
		})
	}
}

// steps is a clock that goes on by d at each look.
func steps(from time.Time, d time.Duration) func() time.Time {
	var n atomic.Int64
	return func() time.Time { return from.Add(time.Duration(n.Add(1)) * d) }
}

// A RedirectError tells where to, and is an ErrUnavailable.
func TestRedirectError(t *testing.T) {
	server := httptest.NewServer(http.RedirectHandler("https://example.org/"+strings.Repeat("x", 1000), 301))
	defer server.Close()
	client, err := NewClient(ClientOptions{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	r, err := client.Send(t.Context(), []Series{{Labels: named("x"), Samples: []mcache.Sample{sample(0, 1)}}}, nil)
	var to *RedirectError
	if !errors.As(err, &to) || !errors.Is(err, ErrUnavailable) || to.Status != 301 || len(to.To) != maxPlaceBytes || r.Written != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}
