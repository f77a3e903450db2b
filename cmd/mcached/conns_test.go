package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
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
