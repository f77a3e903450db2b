package ingest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mcached/ingest/resp"
	"mcached/kvcache"
	"mcached/mcache"
)

// largeInTests is the longest value of a server of newServer, a quarter of its
// memory.
const largeInTests = 8 << 20

// opaque is a listener whose connections hide that they are sockets, so that
// each is served by a goroutine.
type opaque struct{ net.Listener }

func (l opaque) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	type ends interface{ CloseWrite() error }
	return struct {
		net.Conn
		ends
	}{c, c.(ends)}, nil
}

// newServer starts a server with a small cache, and checks that it can be
// shut down at the end.
func newServer(t testing.TB, change func(o *Options)) (s *Server, addr string) {
	t.Helper()
	return newServerOf(t, false, change)
}

// newServerOf is newServer, each of whose connections has a goroutine of its own if
// alone is true.
func newServerOf(t testing.TB, alone bool, change func(o *Options)) (s *Server, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().String()
	if alone {
		l = opaque{l}
	}
	return newServerOn(t, l, change), addr
}

func newServerOn(t testing.TB, l net.Listener, change func(o *Options)) (s *Server) {
	t.Helper()
	mem, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 32 << 20, RegionBytes: 256 << 10, ReserveBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := mcache.New(mcache.Options{Memory: mem, Shards: 2})
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Memory: mem, Metrics: metrics, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&o)
	}
	blobs, err := kvcache.NewDatabases(kvcache.CacheOptions{Memory: mem, Shards: 4, Now: o.Now, MaxLargeBytes: largeInTests}, 16)
	if err != nil {
		t.Fatal(err)
	}
	o.Blobs = blobs
	if s, err = NewServer(o); err != nil {
		t.Fatal(err)
	}
	s.lingers = time.Minute
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithDeadline(context.Background(), lastly(t))
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		blobs.Close()
		if err := metrics.Close(); err != nil {
			t.Errorf("mcache: %v", err)
		}
		mem.Close()
	})
	return s
}

// lastly is when a wait for something that should happen soon has been in vain:
// in minutes, because machines that run tests are slow or busy, but before go
// test ends everything.
func lastly(t testing.TB) time.Time {
	at := time.Now().Add(3 * time.Minute)
	if t, ok := t.(*testing.T); ok {
		if end, ok := t.Deadline(); ok && end.Add(-5*time.Second).Before(at) {
			return end.Add(-5 * time.Second)
		}
	}
	return at
}

// waitFor looks again and again until ok.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := lastly(t); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// dial is a client that times out rather than hangs.
func dial(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(lastly(t)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// send writes and fails the test if that fails.
func send(t testing.TB, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatalf("write: %v", err)
	}
}

// expect reads exactly want.
func expect(t testing.TB, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(c, got)
	if string(got[:n]) != want {
		t.Fatalf("got %q, want %q (%v)", got[:n], want, err)
	}
}

// expectEnd reads exactly want and then the end of the stream.
func expectEnd(t testing.TB, c net.Conn, want string) {
	t.Helper()
	got, err := io.ReadAll(c)
	if string(got) != want || err != nil {
		t.Fatalf("got %q and %v, want %q and the end", got, err, want)
	}
}

// talk sends input on a new connection, ends it, and returns all answers.
func talk(t testing.TB, addr, input string) string {
	t.Helper()
	c := dial(t, addr)
	go func() {
		_, _ = io.WriteString(c, input)
		_ = c.CloseWrite()
	}()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("after %q: %v", b, err)
	}
	return string(b)
}

// alive fails the test if the server does not answer a new client.
func alive(t testing.TB, addr string) {
	t.Helper()
	if got := talk(t, addr, "PING\r\n"); got != "+PONG\r\n" {
		t.Fatalf("server does not answer: %q", got)
	}
}

// bulks is a command as clients send it.
func bulks(args ...string) string {
	var r resp.Reply
	r.Array(len(args))
	for _, a := range args {
		r.BulkString(a)
	}
	return string(r.B)
}

// bulk is a string as it is answered.
func bulk(v string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(v), v) }

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

func TestShutdownEndsIdleConnections(t *testing.T) {
	s, addr := newServer(t, nil)
	c := dial(t, addr)
	send(t, c, "PING\r\n")
	expect(t, c, "+PONG\r\n")
	ctx, cancel := context.WithDeadline(context.Background(), lastly(t))
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	expectEnd(t, c, "")
	if n := s.Stats().Connections; n != 0 {
		t.Fatalf("%d connections are left", n)
	}
}

// TestShutdownEndsPipelines: of commands of a pipeline that wait for another node no more
// are run when the connection is ended, or each would keep the server for seconds.
func TestShutdownEndsPipelines(t *testing.T) {
	waits, goesOn := make(chan bool), make(chan bool)
	var dials atomic.Int32
	c := newTrio(t, true, func(o *Options) {
		o.Cluster.Dial = func(context.Context, string) (net.Conn, error) {
			if dials.Add(1) == 1 {
				waits <- true
				<-goesOn
			}
			return nil, errors.New("refused by the test")
		}
	})
	c.give(1)
	s := c.servers[0]
	const commands = 100
	send(t, dial(t, c.addrs[0]), strings.Repeat(bulks("INCR", "k"), commands))
	<-waits
	ended := make(chan bool)
	go func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.Shutdown(ctx)
		close(ended)
	}()
	waitFor(t, "the connection is ended", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for c := range s.conns {
			return c.killed.Load()
		}
		return false
	})
	close(goesOn)
	<-ended
	if n := s.Stats().Commands; n != 1 {
		t.Errorf("%d commands were run", n)
	}
	if n := dials.Load(); n != 1 {
		t.Errorf("the other node was dialled %d times", n)
	}
}

// TestPeersEnd: what has ended with the server's connections to others makes no new ones.
func TestPeersEnd(t *testing.T) {
	c := newTrio(t, true, func(o *Options) {
		o.Cluster.Dial = func(context.Context, string) (net.Conn, error) {
			t.Error("a connection is made that nobody ends")
			return nil, errors.New("refused by the test")
		}
	})
	s := c.servers[0]
	s.cluster.peers.close()
	if _, sent, err := s.peerAt(c.addrs[1], false).do([][]byte{[]byte("PING")}); sent || err == nil {
		t.Errorf("sent %v, %v", sent, err)
	}
}

func TestProtectedMode(t *testing.T) {
	s, _ := newServer(t, nil)
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); err == nil || !strings.Contains(err.Error(), "without a password") {
		t.Fatalf("a listener open to the world without a password: %v", err)
	}
}

// TestStrangersMakeWay fills a server with connections that say nothing: when
// they have been silent for long enough each makes way for another, and who has
// run a command does not, until it has been idle for much longer.
func TestStrangersMakeWay(t *testing.T) {
	for _, password := range []string{"", "secret"} {
		const most = 5
		s, addr := newServer(t, func(o *Options) {
			o.MaxConnections, o.Password = most, password
			o.WriteTimeout = 40 * time.Millisecond // so that a round of the sweeper is short
		})
		known := dial(t, addr)
		if password != "" {
			send(t, known, "AUTH secret\r\n")
			expect(t, known, "+OK\r\n")
		}
		ping := func(c net.Conn) {
			t.Helper()
			send(t, c, "PING\r\n")
			expect(t, c, "+PONG\r\n")
		}
		ping(known)
		for i := range most - 1 {
			c := dial(t, addr)
			if password != "" && i%2 == 0 {
				send(t, c, "GET k\r\n")
				expect(t, c, "-NOAUTH Authentication required.\r\n")
			}
		}
		waitFor(t, "all are accepted", func() bool { return s.Stats().ConnectionsAccepted == most })
		// More than there are strangers: the last of them are known themselves.
		for i := range most - 1 {
			waitFor(t, "one makes way", func() bool {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				hello := "PING\r\n"
				want := "+PONG"
				if password != "" {
					hello, want = "AUTH secret\r\nPING\r\n", "+OK"
				}
				_, _ = io.WriteString(c, hello) // it may have hung up already
				line, err := bufio.NewReader(c).ReadString('\n')
				if err != nil || !strings.HasPrefix(line, want) {
					c.Close()
					return false
				}
				t.Cleanup(func() { c.Close() })
				return true
			})
			if n := s.Stats().ConnectionsMadeWay; n != uint64(i+1) {
				t.Fatalf("%d made way, want %d", n, i+1)
			}
		}
		ping(known)
		expectEnd(t, dial(t, addr), "-ERR max number of clients reached (5)\r\n")
		// Who has been idle for long does, too: the clock of that is the sweeper's.
		s.tick.Add(s.ticks(idleGrace) + 2)
		ping(known)
		waitFor(t, "an idle one makes way", func() bool {
			dial(t, addr)
			return s.Stats().ConnectionsMadeWay >= most
		})
		ping(known)
	}
}

func TestMaxConnections(t *testing.T) {
	s, addr := newServer(t, func(o *Options) { o.MaxConnections = 2 })
	a, b := dial(t, addr), dial(t, addr)
	for _, c := range []net.Conn{a, b} {
		send(t, c, "PING\r\n")
		expect(t, c, "+PONG\r\n")
	}
	expectEnd(t, dial(t, addr), "-ERR max number of clients reached (2)\r\n")
	if s.Stats().ConnectionsRefused != 1 {
		t.Fatalf("stats: %+v", s.Stats())
	}
	a.Close()
	waitFor(t, "the place to be free again", func() bool {
		c := dial(t, addr)
		defer c.Close()
		_, _ = io.WriteString(c, "PING\r\n") // it may have hung up already
		line, err := bufio.NewReader(c).ReadString('\n')
		return err == nil && line == "+PONG\r\n"
	})
}
