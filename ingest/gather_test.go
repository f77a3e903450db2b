package ingest

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

// newIdleLoop is a loop that the test drives, and a way to connect to it.
func newIdleLoop(t *testing.T) (*loop, func() *net.TCPConn) {
	t.Helper()
	s := newSession(t, nil).srv
	l, err := newLoop(s)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		listener.Close()
		go l.run() // for Shutdown, which comes next, to end
	})
	s.makeSlots()
	s.loops = []*loop{l}
	return l, func() *net.TCPConn {
		before := looped(s)
		c := dial(t, listener.Addr().String())
		nc, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if s.accept(nc); looped(s) != before+1 {
			t.Fatal("the connection is in no loop")
		}
		return c
	}
}

// until drives the loop until it has run so many commands. It returns how
// many connections were small when their turn came.
func (l *loop) until(t *testing.T, commands int) (small int) {
	t.Helper()
	for l.srv.counters.commands.Load() < uint64(commands) {
		if !l.wait() {
			t.Fatal("the loop has ended")
		}
		for _, c := range l.ready {
			if c.small {
				small++
			}
		}
		if !l.serve() {
			t.Fatal("a connection has left the loop")
		}
	}
	return small
}

// TestGathering has many clients ask at a time, for what is gathered and for
// what turns out not to be, in both protocols.
func TestGathering(t *testing.T) {
	l, connect := newIdleLoop(t)
	const clients, rounds = gatherMax + 13, 9
	conns := make([]*net.TCPConn, clients)
	commands := 0
	for i := range conns {
		conns[i] = connect()
		if i%5 == 0 {
			send(t, conns[i], "HELLO 3\r\n")
			commands++
			l.until(t, commands)
			b := make([]byte, 4096)
			if n, err := conns[i].Read(b); err != nil || b[0] != '%' {
				t.Fatalf("HELLO 3: %q %v", b[:n], err)
			}
		}
		// A turn of its own shows the loop that the client sends little.
		send(t, conns[i], bulks("SET", fmt.Sprint("k", i), fmt.Sprint("v", i)))
		commands++
		l.until(t, commands)
		expect(t, conns[i], "+OK\r\n")
	}
	small := 0
	for round := range rounds {
		want := make([]string, clients)
		for i, c := range conns {
			key, null := fmt.Sprint("k", i), "$-1\r\n"
			if i%5 == 0 {
				null = "_\r\n"
			}
			value := bulks(fmt.Sprint("v", i))[4:]
			in, n := "", 1
			switch (i + round) % rounds {
			case 0:
				in, want[i] = bulks("GET", "absent"), null
			case 1:
				in, want[i] = bulks("SET", key, fmt.Sprint("v", i)), "+OK\r\n"
			case 2:
				in, want[i] = bulks("SET", "", "v"), "+OK\r\n"
			case 3:
				in, want[i], n = bulks("GET", key)+bulks("GET", "absent")+"PING\r\n", value+null+"+PONG\r\n", 3
			case 4:
				in, want[i] = "get "+key+"\r\n", value
			case 5:
				in, want[i] = bulks("SET", "big", strings.Repeat("b", 2*smallBytes)), "+OK\r\n"
			case 6:
				in, want[i] = bulks("STRLEN", key), fmt.Sprintf(":%d\r\n", len(key))
			default:
				in, want[i] = bulks("GET", key), value
			}
			send(t, c, in)
			commands += n
		}
		small += l.until(t, commands)
		for i, c := range conns {
			expect(t, c, want[i])
		}
	}
	if small < clients*rounds/2 {
		t.Errorf("only %d of %d requests could be gathered", small, clients*rounds)
	}
	// Without memory, every gathered SET is refused for itself.
	l.srv.o.Memory.SetBudget(0)
	for i, c := range conns {
		send(t, c, bulks("SET", fmt.Sprint("k", i), "w"))
	}
	commands += clients
	l.until(t, commands)
	for _, c := range conns {
		expect(t, c, "-OOM command not allowed when used memory > 'maxmemory'.\r\n")
	}
	if failed := l.srv.counters.failed.Load(); failed != clients {
		t.Errorf("%d errors were counted, want %d", failed, clients)
	}
}

// TestGatheredHalves cuts a request where it is gathered: what follows belongs
// to it. Then the connections end in all the ways there are.
func TestGatheredHalves(t *testing.T) {
	s, addr := newServer(t, nil)
	request := bulks("SET", "key", "value")
	for cut := 1; cut < len(request); cut += 3 {
		c := dial(t, addr)
		send(t, c, request)
		expect(t, c, "+OK\r\n")
		read := s.Stats().BytesRead
		send(t, c, request[:cut])
		waitFor(t, "the first half", func() bool { return s.Stats().BytesRead == read+uint64(cut) })
		send(t, c, request[cut:]+bulks("GET", "key"))
		expect(t, c, "+OK\r\n$5\r\nvalue\r\n")
		send(t, c, bulks("GET", "key"))
		expect(t, c, "$5\r\nvalue\r\n")
		end, want := "QUIT\r\n", "+OK\r\n"
		if cut%2 == 0 {
			end, want = "*x\r\n", "-ERR Protocol error: invalid multibulk length\r\n"
		}
		send(t, c, end)
		expectEnd(t, c, want)
		c.Close()
	}
	waitFor(t, "them to be gone", func() bool { return s.Stats().Connections == 0 })
}

// TestGatheredAnswersThatDoNotFit asks for large values one by one and reads
// none, until the connection leaves the loop, and then all.
func TestGatheredAnswersThatDoNotFit(t *testing.T) {
	s, addr := newServer(t, nil)
	value := strings.Repeat("v", 200_000)
	if got := talk(t, addr, bulks("SET", "k", value)); got != "+OK\r\n" {
		t.Fatalf("got %q", got)
	}
	c := dial(t, addr)
	waitFor(t, "one connection", func() bool { return looped(s) == 1 && s.Stats().Connections == 1 })
	const gets = 100 // 20 MB, more than sockets hold
	for range gets {
		before := s.Stats().Commands
		send(t, c, bulks("GET", "k"))
		waitFor(t, "an answer", func() bool { return s.Stats().Commands > before || looped(s) == 0 })
	}
	if looped(s) != 0 {
		t.Fatal("the connection is still in the loop")
	}
	alive(t, addr)
	_ = c.CloseWrite()
	_ = c.SetDeadline(lastly(t))
	got, err := io.ReadAll(c)
	if want := strings.Repeat(bulks(value)[4:], gets); string(got) != want || err != nil {
		t.Fatalf("got %d bytes, want %d, %v", len(got), len(want), err)
	}
}
