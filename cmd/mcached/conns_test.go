package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"mcached/ingest/admission"
)

// Idle connections, and such that say nothing, keep nobody from being accepted;
// one that is being answered is not closed for another.
func TestIdleConnectionsMakeWay(t *testing.T) {
	for name, say := range map[string]string{"idle": "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "silent": ""} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			limit := limitConns(l, 3)
			release := make(chan struct{})
			s := &http.Server{ConnState: connState, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/wait" {
					<-release
				}
				fmt.Fprintln(w, "served")
			})}
			done := make(chan error, 1)
			go func() { done <- s.Serve(limit) }()
			ask := func(path string) (c net.Conn, answer func() (string, error)) {
				c, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				if path != "" {
					_, _ = io.WriteString(c, path)
				}
				return c, func() (string, error) {
					res, err := http.ReadResponse(bufio.NewReader(c), nil)
					if err != nil {
						return "", err
					}
					b, err := io.ReadAll(res.Body)
					return string(b), err
				}
			}
			_, waited := ask("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
			for range 20 {
				if _, answer := ask(say); say != "" {
					if got, err := answer(); got != "served\n" {
						t.Fatalf("%q, %v", got, err)
					}
				}
			}
			_, last := ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			if got, err := last(); got != "served\n" {
				t.Errorf("the last: %q, %v", got, err)
			}
			close(release)
			if got, err := waited(); got != "served\n" {
				t.Errorf("the one that was being answered: %q, %v", got, err)
			}
			limit.mu.Lock()
			if limit.made < 18 || len(limit.conns) > 3 {
				t.Errorf("%d made way, %d are left", limit.made, len(limit.conns))
			}
			limit.mu.Unlock()
			s.Close()
			<-done
		})
	}
}

func TestHostsOfOthersAreRefused(t *testing.T) {
	d := &daemon{config: &config{webListen: []string{"127.0.0.1:9201", "metrics.example:9201"}, webAllowedHosts: []string{"Proxy.example"}}}
	served := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {})
	h := d.checkHost(served)
	loopback, lan := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)}
	for _, c := range []struct {
		host string
		to   net.Addr
		want int
	}{
		{"127.0.0.1:9201", loopback, 200}, {"[::1]:9201", loopback, 200}, {"localhost:9201", loopback, 200}, {"LOCALHOST", loopback, 200},
		{"a.localhost:80", loopback, 200}, {"metrics.example:1", loopback, 200}, {"proxy.example", loopback, 200}, {"", loopback, 200},
		{"evil.example:9201", loopback, 403}, {"127.0.0.1.evil.example", loopback, 403}, {"localhost.evil.example:9201", loopback, 403}, {"evillocalhost", loopback, 403},
		{"mcached.monitoring.svc:9201", lan, 200},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = c.host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, c.to)))
		if w.Code != c.want {
			t.Errorf("%s at %v: %d, want %d", c.host, c.to, w.Code, c.want)
		}
	}
	d.config.webAllowedHosts = []string{"*"}
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Host = "evil.example"
	if d.checkHost(served).ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, loopback))); w.Code != 200 {
		t.Errorf("with *: %d", w.Code)
	}
}

// Heads of requests that are not whole are bounded in sum: beyond what is free,
// connections are closed, those of ordinary clients are not, and what they took
// is free again when the request is answered or they go.
func TestHeadsAreBoundedInSum(t *testing.T) {
	const most = 1 << 20
	pool, err := admission.New(admission.Options{MaxBytes: 16 * most}) // a sixteenth is strangers'
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	limit := limitConns(l, 100)
	limit.heads = pool
	answer := make(chan struct{})
	s := &http.Server{ConnState: connState, MaxHeaderBytes: maxHeaderBytes, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			<-answer
		}
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%d headers, %d bytes", len(r.Header), n)
	})}
	done := make(chan error, 1)
	go func() { done <- s.Serve(limit) }()
	defer func() {
		s.Close()
		<-done
	}()
	dial := func(text string) net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_, _ = io.WriteString(c, text) // which the server may close meanwhile
		return c
	}
	read := func(c net.Conn) (string, error) {
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return "", err
		}
		b, err := io.ReadAll(res.Body)
		return string(b), err
	}
	held := func() int64 { return pool.Stats().Bytes[admission.Stranger] }
	wait := func(what string, is func() bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s never, %d are held", what, held())
			}
		}
	}

	// One that is whole keeps what it holds until it is answered.
	large := "GET /wait HTTP/1.1\r\nHost: x\r\nCookie: " + strings.Repeat("x", 8<<10) + "\r\n\r\n"
	waits := dial(large)
	wait("a large head is charged", func() bool { return held() >= 6<<10*headFactor })
	answer <- struct{}{}
	if got, err := read(waits); got != "1 headers, 0 bytes" {
		t.Fatalf("a large head: %q, %v", got, err)
	}
	wait("it is given back", func() bool { return held() == 0 })

	// Some that come to nothing.
	var tiny strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&tiny, "%x:\n", i)
	}
	attackers := make([]net.Conn, 50)
	for i := range attackers {
		attackers[i] = dial("GET / HTTP/1.1\r\nHost: x\r\n" + tiny.String())
	}
	wait("refused", func() bool { return pool.Stats().RefusedBytes[admission.Stranger] >= uint64(len(attackers))/2 })
	if n := held(); n > most {
		t.Errorf("heads hold %d bytes of %d", n, most)
	}
	for range 20 {
		body := strings.Repeat("b", 100_000)
		got, err := read(dial(fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)))
		if got != "1 headers, 100000 bytes" {
			t.Fatalf("an ordinary client meanwhile: %q, %v", got, err)
		}
	}
	for _, c := range attackers {
		c.Close()
	}
	wait("all is given back", func() bool { return held() == 0 })
}
