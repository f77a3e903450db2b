package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// seenBy serves as remote write does, and says what it was asked. The answer is
// what the body says: 400, unread, closed, or nothing.
type seenBy struct {
	plain  atomic.Int64
	errors sync.Map // of parts, by text
}

func (s *seenBy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, ok := w.(*plainAnswer); ok {
		s.plain.Add(1)
	}
	if r.Header.Get("X-Unread") != "" {
		http.Error(w, "unread", http.StatusUnauthorized)
		return
	}
	if parts := r.Header.Get("X-Parts"); parts != "" {
		s.inParts(w, r, strings.Fields(parts))
		return
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(time.Minute))
	body, err := io.ReadAll(r.Body)
	_ = rc.SetReadDeadline(time.Time{})
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	w.Header()["X-Seen"] = []string{fmt.Sprintf("%s %s %s %q host %s, %d announced, %d bytes, %v, last %q, remote %v, local %v",
		r.Method, r.RequestURI, r.URL.Path, fmt.Sprint(r.Header), r.Host, r.ContentLength, len(body), err != nil, body[max(0, len(body)-8):],
		r.RemoteAddr != "", local != nil)}
	switch {
	case err != nil:
		w.Header().Set("Connection", "close")
		http.Error(w, "short", http.StatusBadRequest)
	case strings.HasPrefix(string(body), "bad"):
		http.Error(w, "bad\nindeed", http.StatusBadRequest)
	case strings.HasPrefix(string(body), "close"):
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusServiceUnavailable)
	case strings.HasPrefix(string(body), "panic"):
		panic(http.ErrAbortHandler)
	case strings.HasPrefix(string(body), "ok"):
	default:
		w.WriteHeader(http.StatusNoContent)
		w.Header().Set("X-Late", "is not sent")
	}
}

// inParts answers by what parts say: a number is as many bytes, flush and others are
// what a handler can do.
func (s *seenBy) inParts(w http.ResponseWriter, r *http.Request, parts []string) {
	w.Header().Set("X-Seen", fmt.Sprint(r.Method, r.RequestURI, r.URL, r.Host, r.Header, r.ContentLength, r.Body == http.NoBody))
	rc := http.NewResponseController(w)
	for i, p := range parts {
		what, text, _ := strings.Cut(p, "=")
		n := 0
		if u, err := strconv.ParseUint(text, 10, 31); err == nil {
			n = int(u)
		}
		var err error
		switch what {
		case "type":
			w.Header().Set("Content-Type", text)
		case "length":
			w.Header().Set("Content-Length", text)
		case "encoding":
			w.Header().Set("Content-Encoding", text)
		case "close":
			w.Header().Set("Connection", "close")
		case "code":
			w.WriteHeader(n)
		case "flush":
			err = rc.Flush()
		case "deadline":
			err = rc.SetWriteDeadline(time.Now().Add(time.Minute))
		case "panic":
			panic(http.ErrAbortHandler)
		case "read":
			_, err = io.Copy(io.Discard, r.Body)
		case "bytes":
			_, err = w.Write([]byte(strings.Repeat(fmt.Sprintf("<html>%d ", i), n/8+1)[:n]))
		}
		if err != nil {
			w.Header().Set("X-Error", err.Error())
			s.errors.Store(err.Error(), true)
		}
	}
}

// twoServers are a plainServer and the http.Server that it stands before, with
// handlers that do the same.
func twoServers(t *testing.T) (dial map[string]func() net.Conn, seen *seenBy) {
	dial, seen = map[string]func() net.Conn{}, &seenBy{}
	for name, paths := range map[string][]string{"net/http": nil, "plainServer": {"/write", "/api/v1/write"}} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := newPlainServer(&http.Server{ConnState: connState, ReadHeaderTimeout: time.Minute, ReadTimeout: time.Minute, IdleTimeout: time.Minute, MaxHeaderBytes: maxHeaderBytes, Handler: seen}, paths...)
		s.varies = "X-Varies"
		if paths != nil {
			s.reads = "/api/v1/"
		}
		done := make(chan error, 1)
		go func() { done <- s.Serve(limitConns(l, 100)) }()
		t.Cleanup(func() {
			if err := s.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
			if err := <-done; err != http.ErrServerClosed {
				t.Error(err)
			}
		})
		dial[name] = func() net.Conn {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
	}
	return dial, seen
}

// talk sends the pieces and returns all that is answered, in a form that can be
// compared.
func talk(t *testing.T, c net.Conn, pieces []string) (answers []string) {
	defer c.Close()
	var sending sync.WaitGroup
	defer sending.Wait()
	sending.Go(func() {
		for _, p := range pieces {
			if _, err := io.WriteString(c, p); err != nil {
				return // the server has closed
			}
		}
		_ = c.(*net.TCPConn).CloseWrite()
	})
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	for in := bufio.NewReader(c); ; {
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			if err != io.ErrUnexpectedEOF && err != io.EOF && !strings.Contains(err.Error(), "reset") {
				t.Error(err)
			}
			return answers
		}
		body, _ := io.ReadAll(res.Body) // what is behind it may be reset
		if res.Header.Get("Date") == "" && res.StatusCode < 500 && res.StatusCode != 100 && res.Header.Get("X-Seen") != "" {
			t.Error("no date")
		}
		res.Header.Del("Date")
		answers = append(answers, fmt.Sprint(res.Proto, res.Status, res.Header, res.ContentLength, res.Close, string(body)))
	}
}

const plainHead = "POST /write HTTP/1.1\r\nHost: localhost:9201\r\nUser-Agent: Prometheus/3.0\r\nContent-Length: %d\r\nContent-Type: application/x-protobuf\r\n\r\n"

func plainRequest(body string) string { return fmt.Sprintf(plainHead, len(body)) + body }

// Whatever comes over a connection is answered as net/http answers it; what is
// plain, without it.
func TestPlainServerIsNetHTTP(t *testing.T) {
	t.Parallel()
	dial, seen := twoServers(t)
	one, long := plainRequest("body"), strings.Repeat("long body ", 20_000)
	head := func(lines string) string { return "POST /write HTTP/1.1\r\nHost: x\r\n" + lines + "\r\n\r\n" }
	varies := func(value string) string { return head("Content-Length: 4\r\nX-Varies"+value) + "body" }
	for _, c := range []struct {
		what, say string
		plain     int64
	}{
		{"nothing", "", 0},
		{"one", one, 1},
		{"three", one + one + one, 3},
		{"of other lengths", one + plainRequest("b") + plainRequest(long) + plainRequest("a body of 20 bytes  ") + one, 5},
		{"of other heads", one + head("Content-Length: 1") + "1" + strings.ReplaceAll(one, "/write", "/api/v1/write") + one, 4},
		{"header names in other cases", head("content-length: 3\r\nX-lower: 1") + "abc", 1},
		{"refused", plainRequest("bad") + one, 2},
		{"with a body", plainRequest("ok") + one, 2},
		{"closed by the handler", plainRequest("close") + one, 1},
		{"a panic", one + plainRequest("panic") + one, 2},
		{"a body that is not read", head("X-Unread: 1\r\nContent-Length: 4") + "body" + one, 2},
		{"a large body that is not read", head("X-Unread: 1\r\nContent-Length: 200000") + long + one, 2},
		{"one that is just too large for that", head("X-Unread: 1\r\nContent-Length: 262144") + (long + long)[:262144] + one, 1},
		{"one that is larger", head("X-Unread: 1\r\nContent-Length: 600000") + long + long + long + one, 1},
		{"a body that ends early", head("Content-Length: 10") + "12345", 1},
		{"a head that ends early", one + one[:30], 1},
		{"three bytes behind one", one + "POS", 1},
		{"three bytes", "POS", 0},
		{"one that is no method's", one + "x", 1},
		{"four bytes behind one", one + "POST", 1},
		{"no body", head("Content-Length: 0") + one, 0},
		{"no length", head("X-A: 1") + one, 0},
		{"another method", one + "GET /write HTTP/1.1\r\nHost: x\r\n\r\n" + one, 1},
		{"another path", strings.Replace(one, "/write", "/writes", 1) + one, 0},
		{"a query", strings.Replace(one, "/write", "/write?a=b", 1) + one, 0},
		{"an absolute address", strings.Replace(one, "/write", "http://localhost/write", 1) + one, 0},
		{"HTTP/1.0", strings.Replace(one, "HTTP/1.1", "HTTP/1.0", 1) + one, 0},
		{"HTTP/3.0", strings.Replace(one, "HTTP/1.1", "HTTP/3.0", 1) + one, 0},
		{"chunks", one + head("Transfer-Encoding: chunked") + "4\r\nbody\r\n0\r\n\r\n" + one, 1},
		{"chunks and a length", one + head("Content-Length: 4\r\nTransfer-Encoding: chunked") + "4\r\nbody\r\n0\r\n\r\n" + one, 1},
		{"to be continued", one + head("Content-Length: 4\r\nExpect: 100-continue") + "body" + one, 1},
		{"expects what is unknown", head("Content-Length: 4\r\nExpect: more") + "body" + one, 0},
		{"the last", one + head("Content-Length: 4\r\nConnection: close") + "body" + one, 1},
		{"to be kept", head("Content-Length: 4\r\nConnection: keep-alive") + "body" + one, 2},
		{"two lengths", head("Content-Length: 4\r\nContent-Length: 5") + "body" + one, 0},
		{"the same length twice", head("Content-Length: 4\r\nContent-Length: 4") + "body" + one, 0},
		{"twice, then not the same", head("Content-Length: 4\r\nContent-Length: 4") + "body" + head("Content-Length: 5\r\nContent-Length: 4") + "body" + one, 0},
		{"two lengths in one", head("Content-Length: 4, 4") + "body" + one, 0},
		{"a length with a sign", head("Content-Length: +4") + "body" + one, 0},
		{"a negative one", head("Content-Length: -4") + "body" + one, 0},
		{"one with zeros", head("Content-Length: 0004") + "body" + one, 0},
		{"then one with zeros", one + strings.Replace(one, "Length: 4", "Length: 0004", 1) + one, 1},
		{"one without a space", head("Content-Length:4") + "body" + one, 2},
		{"one with spaces", head("Content-Length:   4  ") + "body" + one, 0},
		{"a tab", head("Content-Length:\t4") + "body" + one, 0},
		{"a space before the colon", head("Content-Length : 4") + "body" + one, 0},
		{"one too large for anybody", head("Content-Length: 99999999999999999999") + "body", 0},
		{"then one too large", one + strings.Replace(one, "Length: 4", "Length: 99999999999999999999", 1), 1},
		{"then none", one + strings.Replace(one, "Length: 4", "Length: ", 1) + one, 1},
		{"then zero", one + strings.Replace(one, "Length: 4", "Length: 0", 1) + one, 1},
		{"a length within a value", head("X-Length: Content-Length: 9\r\nX-Content-Length: 8\r\nContent-Length: 4") + "body" + one, 2},
		{"no host", "POST /write HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody" + one, 0},
		{"an empty host", strings.Replace(one, "localhost:9201", "", 1) + one, 0},
		{"two hosts", head("Host: y\r\nContent-Length: 4") + "body" + one, 0},
		{"an odd host", strings.Replace(one, "localhost:9201", "a b/c", 1) + one, 0},
		{"a header on two lines", head("X-A: 1\r\n 2\r\nContent-Length: 4") + "body" + one, 0},
		{"a header twice", head("X-A: 1\r\nX-A: 2\r\nContent-Length: 4") + "body" + one, 0},
		{"a header without a colon", head("X-A\r\nContent-Length: 4") + "body" + one, 0},
		{"a header without a name", head(": 1\r\nContent-Length: 4") + "body" + one, 0},
		{"a header that is not ASCII", head("X-A: \xc3\xa4\r\nContent-Length: 4") + "body" + one, 0},
		{"a header with a null", head("X-A: \x00\r\nContent-Length: 4") + "body" + one, 0},
		{"line feeds alone", strings.ReplaceAll(one, "\r\n", "\n") + one, 0},
		{"a line feed within", head("X-A: 1\nX-B: 2\r\nContent-Length: 4") + "body" + one, 0},
		{"a second length behind one", head("X-A: 1\nContent-Length: 4\r\nContent-Length: 4") + "body" + one, 0},
		{"a carriage return within", head("X-A: 1\rX-B: 2\r\nContent-Length: 4") + "body" + one, 0},
		{"empty lines before", one + "\r\n\r\n" + one + "\n" + one, 3},
		{"more of them", one + "\r\n\r\n\r\n" + one, 1},
		{"some before the first", "\r\n" + one, 0},
		{"a large head", head("Cookie: "+strings.Repeat("x", 1500)+"\r\nContent-Length: 4") + "body" + one, 2},
		{"a larger head", head("Cookie: "+strings.Repeat("x", 6000)+"\r\nContent-Length: 4") + "body" + one, 0},
		{"the largest", head("Cookie: "+strings.Repeat("x", 30_000)+"\r\nContent-Length: 4") + "body" + one, 0},
		{"one that is too large", head("Cookie: "+strings.Repeat("x", 100_000)+"\r\nContent-Length: 4") + "body" + one, 0},
		{"a header that varies", varies(": 1 ab") + varies(": 2 a longer one") + varies(": 3 ab") + one + varies(": 4 ab"), 5},
		{"one that is before the length", head("X-Varies: 1\r\nContent-Length: 4") + "body" + head("X-Varies: 2\r\nContent-Length: 4") + "body", 2},
		{"one with spaces, or without", varies(": 1 ab") + varies(":  2 ab") + varies(": 3 ab") + varies(": 4 ab ") + varies(":5 ab") + varies(": 6 ab"), 6},
		{"one that is empty", varies(": 1") + varies(": ") + varies(":") + varies(": 2"), 4},
		{"one that is empty at first", varies(": ") + varies(": 1"), 2},
		{"one that is there twice", varies(": 1") + varies(": 2\r\nX-Varies: 3") + varies(": 4"), 1},
		{"one behind which there is another", varies(": 1\r\nX-A: 1") + varies(": 2\r\nX-A: 1") + varies(": 3\r\nX-A: 2") + varies(": 4\r\nConnection: close") + one, 3},
		{"one on two lines", varies(": 1") + varies(": 2\r\n 3") + one, 1},
		{"one that is not ASCII", varies(": 1") + varies(": \xc3\xa4") + one, 1},
		{"one with a tab", varies(": 1") + varies(": 2\t3") + one, 1},
		{"one with a line feed", varies(": 1") + varies(": 2\nX-A: 3") + one, 1},
		{"one with a carriage return", varies(": 1") + varies(": 2\rX-A: 3") + one, 1},
		{"one that is large", varies(": 1") + varies(": "+strings.Repeat("x", 1500)) + varies(": 3"), 3},
		{"one that is larger", varies(": 1") + varies(": "+strings.Repeat("x", 3000)) + varies(": 3"), 1},
		{"something else", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0},
		{"noise", "\x16\x03\x01\x02\x00\x01\x00", 0},
	} {
		t.Run(c.what, func(t *testing.T) { sameAsNetHTTP(t, dial, seen, c.say, c.plain, 700, 50) })
	}
}

// sameAsNetHTTP says what is to be said at once, and in pieces of as many bytes at
// most, to both servers: so many requests are plain, and all are answered alike.
func sameAsNetHTTP(t *testing.T, dial map[string]func() net.Conn, seen *seenBy, say string, plain int64, cuts ...int) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, cut := range append([]int{len(say) + 1}, cuts...) {
		const most = 2000
		var pieces []string
		for rest := say; rest != "" && len(pieces) < most; {
			n := min(len(rest), 1+rng.IntN(cut))
			if cut > len(say) || len(pieces) == most-1 {
				n = len(rest)
			}
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		want := talk(t, dial["net/http"](), pieces)
		before := seen.plain.Load()
		got := talk(t, dial["plainServer"](), pieces)
		if !slices.Equal(got, want) {
			t.Errorf("in pieces of %d it is answered\n%.3000s\nand by net/http\n%.3000s", cut, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		// A head that comes in pieces may be for net/http, never the other way round.
		if n := seen.plain.Load() - before; n != plain && (cut > len(say) || n > plain) {
			t.Errorf("in pieces of %d, %d are plain, not %d", cut, n, plain)
		}
	}
}

// Reads are answered as net/http answers them, whatever the handler does.
func TestPlainServerReads(t *testing.T) {
	t.Parallel()
	dial, seen := twoServers(t)
	get := func(target, lines string) string {
		return "GET " + target + " HTTP/1.1\r\nHost: x\r\n" + lines + "\r\n"
	}
	parts := func(list string) string { return get("/api/v1/query", "X-Parts: "+list+"\r\n") }
	post := func(body, lines string) string {
		return fmt.Sprintf("POST /api/v1/query?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n%s", len(body), lines, body)
	}
	one, long := parts("bytes=3"), strings.Repeat("long body ", 20_000)
	for _, c := range []struct {
		what, say string
		plain     int64
	}{
		{"one", get("/api/v1/query?query=up", ""), 1},
		{"two that are alike", one + one, 2},
		{"of other targets", one + strings.Replace(one, "query", "series?match[]=a%20b&%zz=&x=\"<>{}|^`", 1) + strings.Replace(one, "query", "label/a/values", 1) + one, 4},
		{"of other headers", one + get("/api/v1/query", "X-Parts: bytes=4\r\nX-A: 1\r\n") + one, 3},
		{"a wrong escape", one + get("/api/v1/%zz", "X-Parts: bytes=4\r\n") + one, 1},
		{"a wrong escape at first", get("/api/v1/%zz", "") + one, 0},
		{"a fragment", one + strings.Replace(one, "query", "query#x", 1), 2},
		{"a target with a space", one + strings.Replace(one, "query", "query x", 1) + one, 1},
		{"a target with two spaces at the end", one + strings.Replace(one, "query", "query ", 1) + one, 1},
		{"a target that is not ASCII", one + strings.Replace(one, "query", "\xc3\xa4", 1) + one, 1},
		{"another path", one + strings.Replace(one, "/api/v1/", "/api/v2/", 1) + one, 1},
		{"the path alone", strings.Replace(one, "/api/v1/query", "/api/v1/", 1) + strings.Replace(one, "/api/v1/query", "/api/v1", 1), 1},
		{"dots", strings.Replace(one, "query", "../../metrics", 1), 1},
		{"HTTP/1.0", strings.Replace(one, "HTTP/1.1", "HTTP/1.0", 1), 0},
		{"then HTTP/1.0", one + strings.Replace(one, "HTTP/1.1", "HTTP/1.0", 1), 1},
		{"HEAD", one + strings.Replace(one, "GET", "HEAD", 1), 1},
		{"OPTIONS", one + strings.Replace(one, "GET", "OPTIONS", 1) + one, 1},
		{"to be kept", get("/api/v1/query", "Connection: Keep-Alive\r\n") + get("/api/v1/query", "connection: keep-alive\r\n"), 2},
		{"to be closed", get("/api/v1/query", "Connection: close\r\n") + one, 0},
		{"to be kept and something else", get("/api/v1/query", "Connection: keep-alive, Upgrade\r\nUpgrade: h2c\r\n") + one, 0},
		{"with a body", strings.Replace(post("body", "X-Parts: read bytes=5\r\n"), "POST", "GET", 1) + one, 2},
		{"with a body, and then alike", strings.Repeat(strings.Replace(post("body", "X-Parts: read bytes=5\r\n"), "POST", "GET", 1), 2), 2},
		{"with a length of zero", get("/api/v1/query", "Content-Length: 0\r\nX-Parts: bytes=5\r\n") + one, 0},
		{"with chunks", get("/api/v1/query", "Transfer-Encoding: chunked\r\n") + "4\r\nbody\r\n0\r\n\r\n" + one, 0},
		{"a form", post("query=up", "Content-Type: application/x-www-form-urlencoded\r\nX-Parts: read bytes=5\r\n") + one + post("query=down", ""), 3},
		{"forms that are alike", strings.Repeat(post("query=up", "X-Parts: read bytes=5\r\n"), 3), 3},
		{"a form, then none with its lines", post("query=up", "X-Parts: read bytes=5\r\n") + strings.Replace(post("query=up", "X-Parts: read bytes=5\r\n"), "POST", "GET", 1) + one, 3},
		{"a GET, then a POST with its lines", one + strings.Replace(one, "GET", "POST", 1), 1},
		{"a form that is not read", post("query=up", "X-Parts: bytes=5\r\n") + one, 2},
		{"a form that is not read before much is said", post("query=up", "X-Parts: bytes=5000 bytes=4\r\n") + one, 2},
		{"a large form that is not read before much is said", post(long+long, "X-Parts: bytes=5000 bytes=4\r\n") + one, 1},
		{"empty lines behind a form", post("query=up", "X-Parts: read bytes=5\r\n") + "\r\n\n" + one, 2},
		{"an empty line behind a GET", one + "\r\n" + one, 1},
		{"writes and reads", plainRequest("body") + one + plainRequest("other body") + one, 4},
		{"nothing is said", parts("none") + one, 2},
		{"2048 bytes", parts("bytes=2048") + one, 2},
		{"a byte more", parts("bytes=2049") + one, 2},
		{"in two", parts("bytes=1024 bytes=1024") + parts("bytes=1025 bytes=1024") + one, 3},
		{"in many", parts("bytes=100 bytes=3000 bytes=10 bytes=70000 bytes=1 flush bytes=1") + one, 2},
		{"more than a socket takes", parts("bytes=9000000") + one, 2},
		{"the length is known", parts("length=9000000 bytes=9000000") + parts("length=4 bytes=4") + one, 3},
		{"less than that is said", parts("length=5000 bytes=4999") + one, 1},
		{"less, and little", parts("length=50 bytes=49") + one, 1},
		{"nothing, of a length", parts("length=50") + one, 1},
		{"more than that", parts("length=50 bytes=40 bytes=40") + one, 1},
		{"more than that at once", parts("length=50 bytes=80"), 1},
		{"a type", parts("type=text/x bytes=40") + parts("type=text/x bytes=4000") + one, 3},
		{"an encoding", parts("encoding=gzip bytes=40") + one, 2},
		{"flushed", parts("flush") + parts("flush flush bytes=1 flush") + one, 3},
		{"flushed, of a length", parts("length=4 flush bytes=4") + one, 2},
		{"a code", parts("code=503 bytes=40") + parts("code=404 type=late bytes=4000") + one, 3},
		{"no content", parts("code=204 bytes=40") + parts("code=204 flush") + parts("code=304 bytes=40") + one, 4},
		{"two codes", parts("code=404 code=200 bytes=40") + one, 2},
		{"closed", parts("close bytes=40") + one, 1},
		{"closed in parts", parts("close bytes=4000 bytes=1") + one, 1},
		{"closed when all is said", parts("bytes=4000 close bytes=1") + one, 2},
		{"a panic", parts("bytes=40 panic") + one, 1},
		{"a panic in parts", parts("bytes=4000 panic") + one, 1},
		{"a panic behind a length", parts("length=4000 bytes=3000 panic") + one, 1},
		{"a deadline", parts("deadline bytes=4000 bytes=100") + one, 2},
		{"a target that is large", strings.Replace(one, "query", "query?query="+strings.Repeat("a", 1500), 1) + one, 2},
		{"one that is larger", strings.Replace(one, "query", "query?query="+strings.Repeat("a", 6000), 1) + one, 0},
		{"a head that ends early", one + one[:30], 1},
	} {
		t.Run(c.what, func(t *testing.T) { sameAsNetHTTP(t, dial, seen, c.say, c.plain, 7) })
	}
	for _, want := range []error{http.ErrContentLength, http.ErrBodyNotAllowed} {
		if _, ok := seen.errors.Load(want.Error()); !ok {
			t.Errorf("no handler was told %q", want)
		}
	}
}

// A head is like the one before if only its length and the header that varies are
// others: it is not parsed again.
func TestLikeness(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		varies, first, next string
		value               string
		like                bool
	}{
		{"", "Content-Length: 4\r\nX-A: 1", "Content-Length: 50\r\nX-A: 1", "", true},
		{"", "Content-Length: 4\r\nX-A: 1", "Content-Length: 50\r\nX-A: 2", "", false},
		{"X-A", "Content-Length: 4\r\nX-A: 1", "Content-Length: 50\r\nX-A: 2 of them", "2 of them", true},
		{"X-A", "Content-Length: 4\r\nX-A: 1\r\nX-B: 1", "Content-Length: 50\r\nX-A: 2\r\nX-B: 1", "2", true},
		{"X-A", "Content-Length: 4\r\nX-A: 1\r\nX-B: 1", "Content-Length: 50\r\nX-A: 2\r\nX-B: 2", "", false},
		{"X-A", "Content-Length: 4\r\nX-A: 1", "Content-Length: 50\r\nX-A: ", "", false},
		{"X-A", "Content-Length: 4\r\nX-B: 1", "Content-Length: 50\r\nX-B: 1", "", true},
		{"X-A", "X-A: 1\r\nContent-Length: 4", "X-A: 2\r\nContent-Length: 50", "", false},
	} {
		ours, other := net.Pipe()
		defer ours.Close()
		defer other.Close()
		s := newPlainServer(&http.Server{}, "/write")
		s.varies = c.varies
		conn := &plainConn{limitedConn: &limitedConn{Conn: ours}, server: s}
		head := func(lines string) []byte { return []byte("POST /write HTTP/1.1\r\nHost: x\r\n" + lines + "\r\n\r\n") }
		if r := conn.parse(head(c.first)); r.length != 4 || r.head != len(head(c.first)) {
			t.Fatalf("%q: a length of %d, a head of %d bytes", c.first, r.length, r.head)
		}
		length, value, n := conn.like.match(append(head(c.next), "body"...))
		if like := n == len(head(c.next)) && length == 50; like != c.like || string(value) != c.value {
			t.Errorf("%q behind %q: a length of %d, %q, a head of %d bytes", c.next, c.first, length, value, n)
		}
	}
}

// Heads that differ by a byte or three from plain ones are answered as net/http
// answers them.
func TestPlainServerMutated(t *testing.T) {
	t.Parallel()
	const seed = 11
	rng := rand.New(rand.NewPCG(seed, 1))
	dial, seen := twoServers(t)
	rounds := 2000
	if testing.Short() {
		rounds = 300
	}
	answers := map[string]int{}
	for round := range rounds {
		request := func(body string, value int) string {
			return strings.Replace(plainRequest(body), "\r\n\r\n", fmt.Sprintf("\r\nX-Varies: %d\r\n\r\n", value), 1)
		}
		one, other := request("a body of 20 bytes  ", 1), request("another one", round)
		if round%2 > 0 { // reads
			const read = "GET /api/v1/query?query=%d HTTP/1.1\r\nHost: localhost:9201\r\nAccept-Encoding: gzip\r\nX-Parts: bytes=100 bytes=3000\r\n\r\n"
			one, other = fmt.Sprintf(read, 1), fmt.Sprintf(read, round)
		}
		b := []byte(one + other)
		first := len(one)
		for range 1 + rng.IntN(3) {
			at := rng.IntN(len(b) - 12)
			if rng.IntN(2) == 0 { // in the second head, which is compared
				at = first + rng.IntN(len(b)-12-first)
			}
			odd := "\r\n :;,0159aAL-\t\x00\x7f\xff"[rng.IntN(18)]
			switch rng.IntN(3) {
			case 0:
				b[at] = odd
			case 1:
				b = slices.Delete(b, at, at+1)
			default:
				b = slices.Insert(b, at, odd)
			}
		}
		want := talk(t, dial["net/http"](), []string{string(b)})
		if got := talk(t, dial["plainServer"](), []string{string(b)}); !slices.Equal(got, want) {
			t.Fatalf("seed %d, round %d: %q is answered\n%s\nand by net/http\n%s", seed, round, b, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		for _, a := range want {
			answers[a[:12]]++
		}
	}
	if seen.plain.Load() < int64(rounds)/4 || answers["HTTP/1.1204 "] == 0 || answers["HTTP/1.1400 "] == 0 {
		t.Errorf("%d were plain, the answers were %v", seen.plain.Load(), answers)
	}
}

// startPlain has a plainServer serve paths by h, and returns it with its address and
// what Serve will return.
func startPlain(t testing.TB, readTimeout time.Duration, h http.HandlerFunc, paths ...string) (s *plainServer, address string, served chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s = newPlainServer(&http.Server{ConnState: connState, ReadHeaderTimeout: time.Minute, ReadTimeout: readTimeout, IdleTimeout: time.Minute, Handler: h}, paths...)
	s.lingers = time.Minute
	served = make(chan error, 1)
	go func() { served <- s.Serve(limitConns(l, 10)) }()
	return s, l.Addr().String(), served
}

// Who hangs up is worked for no longer by those who look, and not before.
func TestPlainServerClientGone(t *testing.T) {
	t.Parallel()
	testClientGone(t, func(ctx context.Context) {
		deadline := time.Now().Add(time.Minute)
		for ctx.Err() == nil && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
	})
}

// And no longer by those who wait, in a context of their own.
func TestPlainServerClientGoneMeanwhile(t *testing.T) {
	t.Parallel()
	testClientGone(t, func(ctx context.Context) {
		inner, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		<-inner.Done()
	})
}

func testClientGone(t *testing.T, wait func(context.Context)) {
	looked, ended := make(chan error), make(chan error, 1)
	s, address, served := startPlain(t, time.Minute, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		looked <- r.Context().Err()
		<-looked
		wait(r.Context())
		ended <- r.Context().Err()
	}, "/write")
	for range 2 { // when nobody has looked, and again
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, plainRequest("body"))
		if err := <-looked; err != nil {
			t.Errorf("it is there: %v", err)
		}
		c.Close()
		looked <- nil
		if err := <-ended; err != context.Canceled {
			t.Errorf("it has gone: %v", err)
		}
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	<-served
}

// Who waits for the end of a request is told of it, through a context made of its own,
// too, and so is who asks when it has come.
func TestPlainServerContextEnds(t *testing.T) {
	t.Parallel()
	contexts := make(chan context.Context, 2)
	s, address, served := startPlain(t, time.Minute, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		inner, cancel := context.WithTimeout(r.Context(), time.Hour)
		t.Cleanup(cancel)
		if inner.Value(http.ServerContextKey) == nil || inner.Err() != nil {
			t.Errorf("server %v, %v", inner.Value(http.ServerContextKey), inner.Err())
		}
		contexts <- inner
		contexts <- r.Context()
	}, "/write")
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewReader(c)
	for range 2 {
		_, _ = io.WriteString(c, plainRequest("body"))
		if _, err := http.ReadResponse(in, nil); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			x := <-contexts
			select {
			case <-x.Done():
			case <-time.After(time.Minute):
				t.Fatal("the request has ended, its context has not")
			}
			if x.Err() != context.Canceled {
				t.Errorf("it ended with %v", x.Err())
			}
		}
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	<-served
	late := &plainContext{Context: context.Background()}
	late.end()
	<-late.Done()
	if late.Err() != context.Canceled {
		t.Errorf("what had ended before anybody waited ends with %v", late.Err())
	}
	over, cancel := context.WithDeadline(context.Background(), time.Now())
	defer cancel()
	x := &plainContext{Context: over}
	<-x.Done()
	if x.Err() != context.DeadlineExceeded {
		t.Errorf("the connection's context is over, and the request's says %v", x.Err())
	}
}

// Shutdown closes what waits for a request, and waits for those that are being
// answered, as long as it may.
func TestPlainServerShutdown(t *testing.T) {
	for _, patient := range []bool{true, false} {
		t.Run(fmt.Sprint("patient ", patient), func(t *testing.T) {
			begun, finish := make(chan bool, 1), make(chan bool)
			s, address, served := startPlain(t, time.Minute, func(w http.ResponseWriter, r *http.Request) {
				begun <- true
				_, _ = io.Copy(io.Discard, r.Body)
				<-finish
				w.WriteHeader(http.StatusNoContent)
			}, "/write")
			stopped := make(chan error, 1)
			dial := func() net.Conn {
				c, err := net.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				_ = c.SetReadDeadline(time.Now().Add(time.Minute))
				return c
			}
			fresh, idle, busy := dial(), dial(), dial()
			_, _ = io.WriteString(idle, plainRequest("body"))
			<-begun
			finish <- true
			answered := func(c net.Conn) (string, error) {
				b := make([]byte, 12)
				_, err := io.ReadFull(c, b)
				return string(b), err
			}
			if got, err := answered(idle); got != "HTTP/1.1 204" {
				t.Fatalf("%q, %v", got, err)
			}
			_, _ = io.WriteString(busy, plainRequest("body"))
			<-begun
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			go func() { stopped <- s.Shutdown(ctx) }()
			if err := <-served; err != http.ErrServerClosed {
				t.Fatal(err)
			}
			for _, c := range []net.Conn{fresh, idle} {
				if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
					t.Fatal(err)
				}
			}
			if patient {
				select {
				case err := <-stopped:
					t.Fatalf("it did not wait: %v", err)
				default:
				}
				finish <- true
				if got, err := io.ReadAll(busy); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 204") || !strings.Contains(string(got), "\r\nConnection: close\r\n") {
					t.Errorf("%q, %v", got, err)
				}
				if err := <-stopped; err != nil {
					t.Error(err)
				}
				return
			}
			cancel()
			if err := <-stopped; err != context.Canceled {
				t.Error(err)
			}
			finish <- true
			if got, err := answered(busy); err == nil {
				t.Errorf("%q", got)
			}
		})
	}
}

// deadlineConn notes the deadline of reads that is in force when it is read from.
type deadlineConn struct {
	net.Conn
	deadlineRead
	reads chan deadlineRead
}

type deadlineRead struct {
	deadline time.Time
	set      int // times that any was
}

func (c *deadlineConn) SetReadDeadline(t time.Time) error {
	c.deadline = t
	c.set++
	return c.Conn.SetReadDeadline(t)
}

func (c *deadlineConn) Read(b []byte) (int, error) {
	c.reads <- c.deadlineRead
	return c.Conn.Read(b)
}

// deadlineListener is one whose connections tell of their reads.
type deadlineListener struct {
	net.Listener
	reads chan deadlineRead
}

func (l *deadlineListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &deadlineConn{Conn: c, reads: l.reads}, nil
}

// Each wait of a connection has a deadline of its own: that for the first byte,
// for the rest of a head, and for a body, of which the handler may say another.
// A request that comes at once sets none.
func TestPlainServerDeadlines(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	reads := make(chan deadlineRead)
	s := newPlainServer(&http.Server{ConnState: connState, ReadHeaderTimeout: time.Hour, IdleTimeout: 10 * time.Hour, ReadTimeout: 100 * time.Hour, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Own") != "" {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(5 * time.Hour))
		}
		http.Error(w, "unread", http.StatusUnauthorized)
	})}, "/write")
	served := make(chan error, 1)
	go func() { served <- s.Serve(limitConns(&deadlineListener{l, reads}, 10)) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	request := plainRequest("a body of 20 bytes  ")
	head := len(request) - 20
	set := 0
	read := func(what string, want time.Duration) {
		t.Helper()
		got := <-reads
		set = got.set
		if left := time.Until(got.deadline); left > want || left < want-30*time.Minute {
			t.Errorf("%s has %v, not %v", what, left, want)
		}
	}
	const idle = 10*time.Hour + 10*time.Hour/16
	say := func(text string) {
		t.Helper()
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
	}
	read("a new connection", time.Hour)
	say(request[:head])
	read("the body behind a head", 100*time.Hour)
	say(request[head:])
	read("an idle connection", idle)
	say(request[:head-7])
	read("the rest of a head", time.Hour)
	say(request[head-7 : head])
	read("the body behind that", 100*time.Hour)
	say(request[head:])
	read("an idle connection", idle)
	say(request + request[:5])
	read("the rest of a head that began with the request before", time.Hour)
	say(request[5:])
	read("an idle connection", idle)
	own := strings.Replace(request, "\r\n\r\n", "\r\nX-Own: 1\r\n\r\n", 1)
	say(own[:len(own)-20])
	read("a body of which the handler says how long", 5*time.Hour)
	say(own[len(own)-20:])
	read("an idle connection", idle)
	before := set
	say(own)
	read("an idle connection", idle)
	if set != before {
		t.Errorf("of a request that came at once %d deadlines were set", set-before)
	}
	c.Close()
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	<-served
}

// Who asks on and on and reads no answer is not waited for.
func TestPlainServerUnread(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	s, address, served := startPlain(t, 200*time.Millisecond, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		_, _ = w.Write(make([]byte, 64<<10))
	}, "/write")
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetWriteDeadline(time.Now().Add(time.Minute))
	for err = nil; err == nil; {
		_, err = io.WriteString(c, plainRequest("1"))
	}
	if errors.Is(err, os.ErrDeadlineExceeded) || asked.Load() < 3 {
		t.Errorf("after %d requests: %v", asked.Load(), err)
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	<-served
}

// Who sends all of a body that was refused at once reads why.
func TestPlainServerRefusedBody(t *testing.T) {
	t.Parallel()
	s, address, served := startPlain(t, time.Hour, func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
	}, "/write")
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, plainRequest(strings.Repeat("x", 16<<20))); err != nil {
		t.Error(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || res.StatusCode != http.StatusRequestEntityTooLarge || !res.Close {
		t.Errorf("%v, %v", res, err)
	}
	c.Close()
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	<-served
}

// Who reads no answer has as long for it as the handler says.
func TestPlainServerHandlersDeadline(t *testing.T) {
	t.Parallel()
	failed := make(chan error, 1)
	s, address, served := startPlain(t, time.Hour, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		for err := error(nil); ; {
			_ = rc.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			if _, err = w.Write(make([]byte, 64<<10)); err != nil {
				failed <- err
				return
			}
		}
	}, "/write")
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, plainRequest("1"))
	if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("it failed with %v", err)
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection is open")
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	<-served
}

// What the daemon answers remote writes with leaves a request's head alone, which
// all requests of a connection share, and asks for a password from the moment on
// that there is one.
func TestPlainServerOfDaemon(t *testing.T) {
	t.Parallel()
	d := newSnapshotDaemon(t, "")
	d.config.tenancyHeader, d.http, d.circle = "X-Scope-OrgID", newHTTPMetrics(), newCircleGuard("fedcba9876543210")
	d.webSecurity = newWebSecurity(&webSettings{})
	inner := d.checkHost(d.webSecurity.guard(d.http.count("write", d.writeHandler())))
	var plain atomic.Int64
	s, address, served := startPlain(t, time.Minute, func(w http.ResponseWriter, r *http.Request) {
		if _, ok := w.(*plainAnswer); ok {
			plain.Add(1)
		}
		header, url := r.Header.Clone(), *r.URL
		inner.ServeHTTP(w, r)
		if !maps.EqualFunc(header, r.Header, slices.Equal) || *r.URL != url {
			t.Errorf("%v, %v were changed to %v, %v", header, &url, r.Header, r.URL)
		}
	}, writePaths...)
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	ask := func(header, body string, want int) {
		t.Helper()
		_, _ = fmt.Fprintf(c, "POST /api/v1/write HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n%s\r\n%s", len(body), header, body)
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		if res.StatusCode != want {
			t.Errorf("%d, not %d", res.StatusCode, want)
		}
	}
	const (
		proto    = "Content-Encoding: snappy\r\nContent-Type: application/x-protobuf\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\n"
		tenant   = "X-Scope-OrgID: a\r\n"
		password = "Authorization: Basic dTpw\r\n" // u:p
		empty    = "\x00"                          // in snappy
	)
	ask(proto, empty, http.StatusNoContent)
	ask(proto+tenant+forwardedBy+": 0123456789abcdef\r\n", empty, http.StatusNoContent)
	ask(proto, "no snappy", http.StatusBadRequest)
	ask("Content-Type: text/plain\r\n", empty, http.StatusUnsupportedMediaType)
	ask(proto+"Sec-Fetch-Site: cross-site\r\n", empty, http.StatusForbidden)
	ask(proto, empty, http.StatusNoContent)
	hash, err := bcrypt.GenerateFromPassword([]byte("p"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.webSecurity.replace(&webSettings{users: map[string]string{"u": string(hash)}}); err != nil {
		t.Fatal(err)
	}
	ask(proto, empty, http.StatusUnauthorized)
	ask(proto+password, empty, http.StatusNoContent)
	ask(proto, empty, http.StatusUnauthorized)
	if plain.Load() != 9 {
		t.Errorf("%d were plain", plain.Load())
	}
	c.Close()
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	<-served
}

// BenchmarkPlainServer is what a small request costs beside what is in it, its
// client included, which says as little as can be.
func BenchmarkPlainServer(b *testing.B) {
	for name, paths := range map[string][]string{"net-http": nil, "plainServer": {"/write"}} {
		b.Run("by="+name, func(b *testing.B) {
			s, address, served := startPlain(b, time.Minute, func(w http.ResponseWriter, r *http.Request) {
				rc := http.NewResponseController(w)
				_ = rc.SetReadDeadline(time.Now().Add(time.Minute))
				var body [2600]byte
				if _, err := io.ReadFull(r.Body, body[:]); err != nil {
					b.Error(err)
				}
				_ = rc.SetReadDeadline(time.Time{})
				w.WriteHeader(http.StatusNoContent)
			}, paths...)
			c, err := net.Dial("tcp", address)
			if err != nil {
				b.Fatal(err)
			}
			request := []byte(plainRequest(strings.Repeat("x", 2600)))
			answer := make([]byte, 4096)
			b.ReportAllocs()
			b.ResetTimer()
			var began, ended syscall.Rusage
			_ = syscall.Getrusage(syscall.RUSAGE_SELF, &began)
			for range b.N {
				if _, err := c.Write(request); err != nil {
					b.Fatal(err)
				}
				if n, err := c.Read(answer); err != nil || !strings.HasSuffix(string(answer[:n]), "\r\n\r\n") {
					b.Fatal(string(answer[:n]), err)
				}
			}
			_ = syscall.Getrusage(syscall.RUSAGE_SELF, &ended)
			cpu := ended.Utime.Nano() + ended.Stime.Nano() - began.Utime.Nano() - began.Stime.Nano()
			b.ReportMetric(float64(cpu)/float64(b.N), "cpu-ns/op")
			c.Close()
			_ = s.Shutdown(context.Background())
			<-served
		})
	}
}
