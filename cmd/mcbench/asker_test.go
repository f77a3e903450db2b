package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestAsker: it reads what http.Client reads, however that comes, over one
// connection for as long as the server keeps it.
func TestAsker(t *testing.T) {
	t.Parallel()
	long := bytes.Repeat([]byte("an answer that takes some chunks "), 10_000)
	mux := http.NewServeMux()
	say := func(path string, how func(w http.ResponseWriter, r *http.Request)) { mux.HandleFunc(path, how) }
	say("/short", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	say("/long", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(long) })
	say("/gzip", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "gzip" {
			t.Errorf("accepts %q", r.Header.Get("Accept-Encoding"))
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = z.Write(long)
		_ = z.Close()
		w.(http.Flusher).Flush()
	})
	say("/none", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
	say("/wrong", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "wrong", http.StatusBadRequest) })
	say("/last", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Connection", "close") })
	say("/silent", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // from then on net/http looks whether the client is there
		<-r.Context().Done()
	})
	clients := map[string]int{} // by address; the server answers one at a time
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		clients[r.RemoteAddr]++
		mux.ServeHTTP(w, r)
	}))
	defer server.Close()

	a := asker{timeout: time.Minute}
	defer a.close()
	ask := func(ctx context.Context, path string) (reply, error) {
		r, err := http.NewRequest(http.MethodPost, server.URL+path, bytes.NewReader([]byte("what was asked")))
		if err != nil {
			t.Fatal(err)
		}
		return a.do(ctx, r)
	}
	for _, want := range []struct {
		path   string
		status int
		body   []byte
	}{
		{"/short", 200, []byte("what was asked")}, {"/gzip", 200, long}, {"/long", 200, long}, {"/none", 204, nil}, {"/gzip", 200, long},
		{"/wrong", 400, []byte("wrong\n")}, {"/last", 200, nil}, {"/short", 200, []byte("what was asked")},
	} {
		got, err := ask(context.Background(), want.path)
		if err != nil || got.status != want.status || !bytes.Equal(got.body, want.body) || got.took <= 0 {
			t.Errorf("%s: %d, %d bytes in %v, %v; want %d, %d bytes", want.path, got.status, len(got.body), got.took, err, want.status, len(want.body))
		}
	}
	if len(clients) != 2 {
		t.Errorf("%d connections, want one, and one behind the last of that: %v", len(clients), clients)
	}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := ask(ctx, "/silent"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
