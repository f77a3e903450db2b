package route

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mcached/mcache"
	"mcached/remotewrite/wire"
	"mcached/remotewrite/writetest"
)

// linkedTo is a Router that sends everything to one other node, and sends by it a request
// with a series of which a label has so many bytes.
func linkedTo(t *testing.T, url string, timeout time.Duration) (r *Router, send func(bytes int) wire.Answer) {
	t.Helper()
	r = newRouter(t, Options{Timeout: timeout, Cluster: &testCluster{table: &table{ids: []string{"n0#1"}, urls: []string{url}, self: -1, copies: 1, orders: [][]uint16{{0}}}}})
	t.Cleanup(func() { r.Close(t.Context()) })
	return r, func(bytes int) wire.Answer {
		body := writetest.Marshal(t, writetest.RequestV1(writetest.Series{Labels: writetest.Named("m", "a", strings.Repeat("x", bytes)), Samples: []mcache.Sample{writetest.Sample(0, 1)}}))
		return r.Route(t.Context(), wire.Part{Protocol: wire.V1, Bucket: "b", Body: body, MaxSamples: 10}, nil, func([]byte) {})
	}
}

// taken is the answer of a node that has taken so many parts.
func taken(parts int) string {
	b := wire.AppendAnswers(nil)
	for range parts {
		b = wire.AppendAnswer(b, &wire.Answer{Status: http.StatusNoContent, Written: wire.Elements{Samples: 1}})
	}
	return string(b)
}

// links are those of the outbox, of which none may be under way.
func (r *Router) links() (all []*link) {
	for _, o := range r.boxes.Load().by {
		o.mu.Lock()
		all = append(all, o.idle...)
		o.mu.Unlock()
	}
	return all
}

// restingLinks waits until no outbox is at work.
func (r *Router) restingLinks() []*link {
	r.active.Wait()
	return r.links()
}

// A bundle arrives as it was cut, over a connection that is used again, and over a new
// one if the node closed it, before or with its answer.
func TestLink(t *testing.T) {
	var connections, bytesSent, last atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		parts := 0
		err2 := wire.Parts(b, func(p wire.Part) bool {
			parts++
			bytesSent.Store(int32(len(p.Body)))
			return p.Bucket == "b" && p.Protocol == wire.V1
		})
		if err != nil || err2 != nil || parts != 1 || r.Method != http.MethodPost || r.URL.RequestURI() != "/api/v1/write" || r.ContentLength != int64(len(b)) ||
			r.Header.Get(testHeader) != fmt.Sprint("secret ", len(b)) || r.Header.Get("Content-Type") != wire.ContentTypeBundle || r.Header.Get("Content-Encoding") != "identity" {
			t.Errorf("%s %s %v: %d bytes of %d, %d parts, %v, %v", r.Method, r.URL, r.Header, len(b), r.ContentLength, parts, err, err2)
		}
		if last.Load() != 0 {
			w.Header().Set("Connection", "close")
		}
		w.Header().Set("Content-Type", wire.ContentTypeAnswers)
		_, _ = io.WriteString(w, taken(1))
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	r, send := linkedTo(t, s.URL, time.Minute)
	for i, c := range []struct {
		bytes       int
		last        int32
		connections int32
	}{{1, 0, 1}, {100, 0, 1}, {16 << 20, 0, 1}, {10, 1, 1}, {10, 0, 2}, {10, 0, 2}} {
		last.Store(c.last)
		if a := send(c.bytes); a.Status != http.StatusNoContent {
			t.Fatalf("%d: %+v", i, a)
		}
		if n := int(bytesSent.Load()); n <= c.bytes || n > c.bytes+100 {
			t.Errorf("%d: %d bytes came of a series with a label of %d", i, n, c.bytes)
		}
		if n := connections.Load(); n != c.connections {
			t.Errorf("%d: over %d connections, want %d", i, n, c.connections)
		}
		if n := len(r.restingLinks()); n != 1-int(c.last) {
			t.Errorf("%d: %d links are kept", i, n)
		}
	}
	// Closed while it was idle, at the node's end: as it is noticed, or before.
	s.CloseClientConnections()
	if a := send(1); a.Status != http.StatusNoContent || connections.Load() != 3 {
		t.Errorf("a connection that the node closed is not made anew: %+v, %d connections", a, connections.Load())
	}
	if s := r.Stats(); s.FailedFrames != 0 {
		t.Errorf("%d frames failed", s.FailedFrames)
	}
}

// A node that is silent, or takes nothing, costs as long as it may, and the connection
// is not used again.
func TestLinkTimesOut(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r, send := linkedTo(t, "http://"+l.Addr().String(), 50*time.Millisecond)
	for _, bytes := range []int{1, 32 << 20} {
		if a := send(bytes); a.Status != http.StatusServiceUnavailable || !strings.Contains(a.Retry, context.DeadlineExceeded.Error()) {
			t.Errorf("%d bytes: %+v", bytes, a)
		}
		if n := len(r.restingLinks()); n != 0 {
			t.Errorf("%d bytes: the connection is kept", bytes)
		}
	}
}

// A deadline that a link has from an earlier bundle does not end a later one, and an idle
// link is closed at the second.
func TestLinkDeadlines(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		entered <- struct{}{}
		<-leave
		w.Header().Set("Content-Type", wire.ContentTypeAnswers)
		_, _ = io.WriteString(w, taken(1))
	}))
	defer s.Close()
	r, send := linkedTo(t, s.URL, time.Minute)
	var l *link
	expire := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.setDeadlineLocked(time.Now())
	}
	putOff := func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return time.Until(l.until) > 0
	}
	for i := range 3 {
		done := make(chan wire.Answer)
		go func() { done <- send(1) }()
		<-entered
		if l != nil { // it is under way
			for expire(); !putOff(); {
				time.Sleep(time.Millisecond)
			}
		}
		leave <- struct{}{}
		if a := <-done; a.Status != http.StatusNoContent {
			t.Fatalf("%d: %+v", i, a)
		}
		all := r.restingLinks()
		if len(all) != 1 || l != nil && all[0] != l {
			t.Fatalf("%d: the link was made anew: %d of them", i, len(all))
		}
		l = all[0]
	}
	for expire(); !putOff(); { // a first time while nothing is under way
		time.Sleep(time.Millisecond)
	}
	if n := len(r.links()); n != 1 {
		t.Fatalf("%d links, want one that rests", n)
	}
	for expire(); len(r.links()) > 0; { // the second: until it has noticed
		time.Sleep(time.Millisecond)
	}
}

// What is no answer of HTTP, or not one to a bundle, or longer than any, is an error.
func TestLinkBadAnswers(t *testing.T) {
	good := "HTTP/1.1 200 OK\r\nContent-Type: " + wire.ContentTypeAnswers + "\r\n"
	for what, answer := range map[string]string{
		"no HTTP": "good morning\r\n\r\n", "ends early": good + "Content-Length: 20\r\n\r\nabc", "ends at once": "",
		"too long":                 good + "\r\n" + string(make([]byte, maxAnswerBytes+1)),
		"said to be too long":      good + "Content-Length: 99999999\r\n\r\n" + string(make([]byte, maxAnswerBytes+1)),
		"a head too long":          good + strings.Repeat("A: b\r\n", maxAnswerBytes/6+1) + "\r\n",
		"a head without an end":    good + "A: " + strings.Repeat("b", maxAnswerBytes) + "\r\n\r\n",
		"announced forever":        strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", maxAnswerBytes/28+1) + good + "\r\n",
		"chunks without an answer": good + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
		"of another type":          "HTTP/1.1 200 OK\r\nContent-Length: " + fmt.Sprint(len(taken(1))) + "\r\n\r\n" + taken(1),
		"too many answers":         good + "Content-Length: " + fmt.Sprint(len(taken(2))) + "\r\n\r\n" + taken(2),
		"two lengths":              good + "Content-Length: " + fmt.Sprint(len(taken(1))) + "\r\nContent-Length: 1\r\n\r\n" + taken(1),
		"403":                      "HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nlies",
	} {
		url, ended := serveOnce(t, answer)
		if _, send := linkedTo(t, url, time.Minute); send(1).Status != http.StatusServiceUnavailable {
			t.Errorf("%s: it is taken for an answer", what)
		}
		<-ended
	}
}

// serveOnce answers a request so, and ends.
func serveOnce(t *testing.T, answers ...string) (url string, ended chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		conn, err := l.Accept()
		_ = l.Close()
		if err != nil {
			return
		}
		defer conn.Close()
		r := bufio.NewReader(conn)
		for _, answer := range answers {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			_, _ = io.WriteString(conn, answer)
		}
		_ = conn.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
	}()
	return "http://" + l.Addr().String(), ended
}

// However the head of an answer is written, what net/http makes of it is what is read: a
// link that reads it itself never takes another length for it.
func TestLinkAnswers(t *testing.T) {
	one := taken(1)
	length := fmt.Sprint(len(one))
	kind := "Content-Type: " + wire.ContentTypeAnswers + "\r\n"
	for what, c := range map[string]struct {
		answer string
		kept   bool // the link is
	}{
		"as ours":                  {"HTTP/1.1 200 OK\r\n" + kind + "X-Mcached-Packed: 1\r\nX-Mcached-Prints: check\r\nDate: now\r\nContent-Length: " + length + "\r\n\r\n" + one, true},
		"with others":              {"HTTP/1.1 200 OK\r\nX-Other: chunked\r\nContent-Length:" + length + "\r\n" + kind + "\r\n" + one, true},
		"announced":                {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n" + kind + "Content-Length: " + length + "\r\n\r\n" + one, false},
		"in chunks":                {"HTTP/1.1 200 OK\r\n" + kind + "Transfer-Encoding: chunked\r\nTrailer: A\r\n\r\n1\r\n" + one[:1] + "\r\n" + fmt.Sprintf("%x", len(one)-1) + "\r\n" + one[1:] + "\r\n0\r\nA: b\r\n\r\n", false},
		"in chunks, with a length": {"HTTP/1.1 200 OK\r\n" + kind + "transfer-encoding:chunked\r\nContent-Length: 3\r\n\r\n" + fmt.Sprintf("%x", len(one)) + "\r\n" + one + "\r\n0\r\n\r\n", false},
		"to its end":               {"HTTP/1.1 200 OK\r\n" + kind + "\r\n" + one, false},
		"in small letters":         {"HTTP/1.1 200 OK\r\n" + strings.ToLower(kind) + "content-length: " + length + "\r\n\r\n" + one, false},
		"of another release":       {"HTTP/1.0 200 Fine\r\n" + kind + "Content-Length: " + length + "\r\n\r\n" + one, false},
		"the last":                 {"HTTP/1.1 200 OK\r\n" + kind + "Connection: close\r\nContent-Length: " + length + "\r\n\r\n" + one, false},
		"with more behind it":      {"HTTP/1.1 200 OK\r\n" + kind + "Content-Length: " + length + "\r\n\r\n" + one + "HTTP/1.1 200 OK\r\n", false},
	} {
		unasked := make(chan struct{})
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			defer close(unasked)
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			req, err := http.ReadRequest(bufio.NewReader(conn))
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			_, _ = io.WriteString(conn, c.answer)
			if what == "to its end" {
				_ = conn.(*net.TCPConn).CloseWrite()
			}
			_, _ = io.Copy(io.Discard, conn)
		}()
		r, send := linkedTo(t, "http://"+l.Addr().String(), time.Minute)
		if a := send(1); a.Status != http.StatusNoContent {
			t.Errorf("%s: %+v", what, a)
		}
		if kept := len(r.restingLinks()) == 1; kept != c.kept {
			t.Errorf("%s: the link is kept: %v", what, kept)
		}
		o := r.boxes.Load().by[0]
		if named := what == "as ours"; o.packs.Load() != named || o.knows.takes.Load() != named {
			t.Errorf("%s: it takes packed parts: %v, prints: %v", what, o.packs.Load(), o.knows.takes.Load())
		}
		r.Close(t.Context())
		_ = l.Close()
		<-unasked
	}
}

// Many requests over few links have each its own answers: which series a node did not take
// is told to who sent it, whatever else is under way.
func TestLinksAreNotConfused(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		answers := wire.AppendAnswers(nil)
		_ = wire.Parts(b, func(p wire.Part) bool {
			a := wire.Answer{Status: http.StatusNoContent, Written: wire.Elements{Samples: 1}}
			if bytes.Contains(p.Body, []byte("bad")) {
				a = wire.Answer{Status: http.StatusBadRequest, Whole: true, Reasons: []string{"it is bad"}}
			}
			answers = wire.AppendAnswer(answers, &a)
			return true
		})
		w.Header().Set("Content-Type", wire.ContentTypeAnswers)
		_, _ = w.Write(answers)
	}))
	defer s.Close()
	r, _ := linkedTo(t, s.URL, time.Minute)
	var senders sync.WaitGroup
	for i := range 8 {
		senders.Go(func() {
			for k := range 200 {
				value, want := "good", http.StatusNoContent
				if (i+k)%3 == 0 {
					value, want = "bad", http.StatusBadRequest
				}
				body := writetest.Marshal(t, writetest.RequestV1(writetest.Series{Labels: writetest.Named("m", "a", value+fmt.Sprint(i, k)), Samples: []mcache.Sample{writetest.Sample(0, 1)}}))
				if a := r.Route(t.Context(), wire.Part{Protocol: wire.V1, Bucket: "b", Body: body, MaxSamples: 10}, nil, func([]byte) {}); a.Status != want {
					t.Errorf("sender %d, request %d: %+v, want %d", i, k, a, want)
				}
			}
		})
	}
	senders.Wait()
	if n := len(r.restingLinks()); n == 0 || n > maxUnderWay {
		t.Errorf("%d links", n)
	}
	if s := r.Stats(); s.Requests >= s.Frames {
		t.Errorf("%d bundles of %d frames: nothing was joined", s.Requests, s.Frames)
	}
}

// While a bundle is under way small frames wait, and go together; large ones do not wait
// for the answer, unless as many bundles are under way as may be.
func TestSmallFramesAreJoined(t *testing.T) {
	var came atomic.Int32
	leave := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		came.Add(1)
		<-leave
		parts := 0
		_ = wire.Parts(b, func(wire.Part) bool { parts++; return true })
		w.Header().Set("Content-Type", wire.ContentTypeAnswers)
		_, _ = io.WriteString(w, taken(parts))
	}))
	defer s.Close()
	r, send := linkedTo(t, s.URL, time.Minute)
	var senders sync.WaitGroup
	post := func(bytes int) {
		senders.Go(func() {
			if a := send(bytes); a.Status != http.StatusNoContent {
				t.Errorf("%+v", a)
			}
		})
	}
	waiting := func() int {
		o := r.boxes.Load().by[0]
		o.mu.Lock()
		defer o.mu.Unlock()
		return len(o.waiting)
	}
	until := func(is func() bool) {
		for !is() {
			time.Sleep(time.Millisecond)
		}
	}
	post(1)
	until(func() bool { return came.Load() == 1 })
	for range 5 {
		post(100)
	}
	until(func() bool { return waiting() == 5 }) // small ones wait
	post(joinBytes)
	until(func() bool { return came.Load() == 2 && waiting() == 0 }) // they go with a large one
	post(2 * joinBytes)
	until(func() bool { return waiting() == 1 })
	close(leave)
	senders.Wait()
	r.active.Wait()
	if s := r.Stats(); s.Requests != 3 || s.Frames != 8 {
		t.Errorf("%d bundles of %d frames, want 3 of 8", s.Requests, s.Frames)
	}
	if o := r.boxes.Load().by[0]; o.waits != 0 || o.bytes != 0 {
		t.Errorf("%d bytes wait, %d are held", o.waits, o.bytes)
	}
}
