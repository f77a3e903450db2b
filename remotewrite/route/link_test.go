package route

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// bundleOf is a body in pieces.
func bundleOf(pieces ...string) *bundle {
	b := &bundle{}
	for _, p := range pieces {
		b.pieces = append(b.pieces, []byte(p))
		b.size += len(p)
	}
	return b
}

func postTo(t *testing.T, ctx context.Context, client *http.Client, url string, b *bundle) (status int, text string, err error) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/path?a=b", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength, req.GetBody = int64(b.size), b.reader
	req.Body, _ = b.reader()
	req.Header.Set("X-Some", "thing")
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(all), err
}

// A bundle arrives as it was cut, over a connection that is used again, and over
// a new one if the node closed it meanwhile. Nothing reads the pieces afterwards.
func TestLink(t *testing.T) {
	var connections atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if bundle := r.Header.Get("Content-Type") == ""; err != nil || bundle && r.Header.Get("X-Some") != "thing" || r.Method != http.MethodPost || r.URL.RequestURI() != "/path?a=b" || r.ContentLength != int64(len(b)) {
			t.Errorf("%s %s %v: %d bytes of %d, %v", r.Method, r.URL, r.Header, len(b), r.ContentLength, err)
		}
		if bytes.Contains(b, []byte("last")) {
			w.Header().Set("Connection", "close")
		}
		if bytes.Contains(b, []byte("elsewhere")) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
			return
		}
		_, _ = w.Write(append([]byte("got "), b...))
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	r := newRouter(t, Options{Cluster: &testCluster{}})
	defer r.Close(t.Context())
	client := r.o.Client

	large := string(bytes.Repeat([]byte("x"), 1<<20))
	for i, c := range []struct {
		pieces      []string
		connections int32
	}{
		{[]string{"one"}, 1}, {[]string{"one", "", "two", large}, 1}, {[]string{"the ", "last"}, 1}, {[]string{"on a new one"}, 2},
	} {
		b := bundleOf(c.pieces...)
		want := "got "
		for _, p := range c.pieces {
			want += p
		}
		status, text, err := postTo(t, t.Context(), client, s.URL, b)
		if err != nil || status != http.StatusOK || text != want {
			t.Fatalf("%d: %d, %d bytes %.20q, %v", i, status, len(text), text, err)
		}
		if n := b.readers.Load(); n != 0 {
			t.Errorf("%d: %d still read it", i, n)
		}
		if n := connections.Load(); n != c.connections {
			t.Errorf("%d: over %d connections, want %d", i, n, c.connections)
		}
	}
	// Closed while it was idle, at the node's end.
	s.CloseClientConnections()
	if status, text, err := postTo(t, t.Context(), client, s.URL, bundleOf("after all")); err != nil || status != http.StatusOK || text != "got after all" {
		t.Errorf("a connection that the node closed is not made anew: %d %q, %v", status, text, err)
	}
	if n := connections.Load(); n != 3 {
		t.Errorf("over %d connections, want 3", n)
	}
	if status, _, err := postTo(t, t.Context(), client, s.URL, bundleOf("elsewhere")); err != nil || status != http.StatusTemporaryRedirect {
		t.Errorf("a redirection is followed: %d, %v", status, err)
	}
	// What is no bundle goes, too.
	resp, err := client.Post(s.URL+"/path?a=b", "text/plain", bytes.NewReader(nil))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
}

// A node that is silent, or takes nothing, costs as long as the context says, and
// the connection is not used again.
func TestLinkEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client := &http.Client{Transport: Transport()}
	defer client.CloseIdleConnections()
	for what, b := range map[string]*bundle{"silent": bundleOf("one"), "takes nothing": bundleOf(string(make([]byte, 64<<20)))} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, _, err := postTo(t, ctx, client, "http://"+l.Addr().String(), b)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", what, err)
		}
		if n := b.readers.Load(); n != 0 {
			t.Errorf("%s: %d still read it", what, n)
		}
		if n := len(client.Transport.(*links).idle); n != 0 {
			t.Errorf("%s: the connection is kept", what)
		}
	}
}

// What is no answer of HTTP, or longer than any, is an error.
func TestLinkBadAnswers(t *testing.T) {
	for what, answer := range map[string]string{
		"no HTTP": "good morning\r\n\r\n", "ends early": "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "ends at once": "",
		"too long":                 "HTTP/1.1 200 OK\r\n\r\n" + string(make([]byte, maxAnswerBytes+1)),
		"a head too long":          "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", maxAnswerBytes/6+1) + "\r\n",
		"a head without an end":    "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("b", maxAnswerBytes) + "\r\n\r\n",
		"announced forever":        strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", maxAnswerBytes/28+1) + "HTTP/1.1 200 OK\r\n\r\n",
		"chunks without an answer": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.ReadFull(conn, make([]byte, 10))
			_, _ = io.WriteString(conn, answer)
			_ = conn.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, conn)
			_ = conn.Close()
		}()
		client := &http.Client{Transport: Transport()}
		if status, _, err := postTo(t, t.Context(), client, "http://"+l.Addr().String(), bundleOf("one")); err == nil {
			t.Errorf("%s: it is taken for %d", what, status)
		}
		_ = l.Close()
		<-ended
	}
}

// An answer may be in chunks, and be announced. What a node sends unasked behind it is
// not taken for the answer to the next bundle.
func TestLinkAnswersAreToWhatWasAsked(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var connections atomic.Int32
	answers := []string{
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n2\r\nth\r\n3\r\nree\r\n0\r\nA: b\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwoHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlies",
		"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast",
	}
	go func() {
		for at := 0; at < len(answers); {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			for r := bufio.NewReader(conn); at < len(answers); at++ {
				req, err := http.ReadRequest(r)
				if err != nil {
					break
				}
				_, _ = io.Copy(io.Discard, req.Body)
				_, _ = io.WriteString(conn, answers[at])
			}
			_ = conn.Close()
		}
	}()
	client := &http.Client{Transport: Transport()}
	defer client.CloseIdleConnections()
	for i, want := range []string{"one", "three", "two", "last"} {
		if status, text, err := postTo(t, t.Context(), client, "http://"+l.Addr().String(), bundleOf("some")); err != nil || status != http.StatusOK || text != want {
			t.Errorf("answer %d is %d %q, %v, want %q", i, status, text, err, want)
		}
	}
	if n := connections.Load(); n != 2 {
		t.Errorf("over %d connections, want 2", n)
	}
}
