package ingest

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
)

// looped is how many connections are served by loops.
func looped(s *Server) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.slots) - len(s.vacant)
}

// TestSlowCommandsLeaveTheLoop mixes them with others in one pipeline: answers
// stay in order, and those who ask for nothing slow stay in the loop.
func TestSlowCommandsLeaveTheLoop(t *testing.T) {
	s, addr := newServer(t, nil)
	plain := dial(t, addr)
	send(t, plain, "PING\r\n")
	expect(t, plain, "+PONG\r\n")
	if n := looped(s); n != 1 {
		t.Fatalf("%d connections in loops, want 1", n)
	}
	for _, slow := range []string{"KEYS none", "RANDOMKEY", "FLUSHALL", "TS.QUERYINDEX a=b", "MC.BUCKETS", "MEMORY PURGE", "SCAN 0 COUNT 100000", "CLIENT LIST TYPE replica", "EXISTS" + strings.Repeat(" k", loopArgs)} {
		c := dial(t, addr)
		send(t, c, "ECHO a\r\n")
		expect(t, c, "$1\r\na\r\n")
		if n := looped(s); n != 2 {
			t.Fatalf("before %.20s there are %d connections in loops, want 2", slow, n)
		}
		send(t, c, "ECHO b\r\n"+slow+"\r\nECHO c\r\n")
		_ = c.CloseWrite()
		got, err := io.ReadAll(c)
		if err != nil || !strings.HasPrefix(string(got), "$1\r\nb\r\n") || !strings.HasSuffix(string(got), "$1\r\nc\r\n") || len(got) == 14 {
			t.Fatalf("%.20s: got %q, %v", slow, got, err)
		}
		waitFor(t, "the connection to leave", func() bool { return looped(s) == 1 && s.Stats().Connections == 1 })
		send(t, plain, "PING\r\n")
		expect(t, plain, "+PONG\r\n")
	}
}

// TestWhoHasGoneHasAnAddress has a client that resets its connection before a slow
// command of it leaves the loop: from then on the kernel tells of no peer, and what
// logs the command must know of it all the same.
func TestWhoHasGoneHasAnAddress(t *testing.T) {
	held, gone := make(chan struct{}), make(chan struct{})
	var holds atomic.Bool // the next look at the parameter
	s, addr := newServer(t, func(o *Options) {
		o.Parameters = []Parameter{{Name: "hold", Set: func(string) error { return nil }, Get: func() string {
			if holds.CompareAndSwap(true, false) {
				close(held)
				<-gone
			}
			return ""
		}}}
	})
	if got := talk(t, addr, bulks("CONFIG", "SET", "slowlog-log-slower-than", "0")); got != "+OK\r\n" {
		t.Fatalf("got %q", got)
	}
	c := dial(t, addr)
	from := c.LocalAddr().String()
	holds.Store(true)
	send(t, c, "CONFIG GET hold\r\nKEYS none\r\n")
	<-held
	if err := errors.Join(c.SetLinger(0), c.Close()); err != nil {
		t.Fatal(err)
	}
	close(gone)
	waitFor(t, "the connection to end", func() bool { return s.Stats().Connections == 0 })
	if got := talk(t, addr, bulks("SLOWLOG", "GET")); strings.Count(got, from) != 2 || !strings.Contains(got, "KEYS") {
		t.Errorf("from %s: %q", from, got)
	}
}

// TestReadersOfNothingLeaveTheLoop has clients that do not take their answers,
// and then do: not a byte is missing, and others are served meanwhile.
func TestReadersOfNothingLeaveTheLoop(t *testing.T) {
	s, addr := newServer(t, nil)
	const gets, clients = 2000, 4
	value := strings.Repeat("v", 10_000)
	if got := talk(t, addr, bulks("SET", "k", value)); got != "+OK\r\n" {
		t.Fatalf("got %q", got)
	}
	conns := make([]*net.TCPConn, clients)
	for i := range conns {
		conns[i] = dial(t, addr)
		go func() {
			_, _ = io.WriteString(conns[i], strings.Repeat(bulks("GET", "k"), gets))
			_ = conns[i].CloseWrite()
		}()
	}
	waitFor(t, "all of them to leave", func() bool { return s.Stats().Connections == clients && looped(s) == 0 })
	alive(t, addr)
	for _, c := range conns {
		_ = c.SetDeadline(lastly(t))
		got, err := io.ReadAll(c)
		if want := strings.Repeat(bulks(value)[4:], gets); string(got) != want || err != nil {
			t.Fatalf("got %d bytes, want %d, %v", len(got), len(want), err)
		}
	}
}

// TestTurnsAreBounded gives one connection of a loop more than a turn's worth.
func TestTurnsAreBounded(t *testing.T) {
	c := newSession(t, nil)
	c.loop = &loop{srv: c.srv}
	c.takeInput()
	c.end = copy(c.in, strings.Repeat("PING\r\n", 3*turnCommands))
	for turn := 1; turn <= 3; turn++ {
		c.consume()
		if int(c.commands) != turn*turnCommands || c.more != (turn < 3) || len(c.B) != turn*turnCommands*len("+PONG\r\n") {
			t.Fatalf("turn %d: %d commands, %d bytes, more: %v", turn, c.commands, len(c.B), c.more)
		}
	}
	if c.in != nil {
		t.Error("the input is kept when it is used up")
	}
	c.freeOutput()
}

// TestKilledInTheLoop closes connections from outside, in every state.
func TestKilledInTheLoop(t *testing.T) {
	s, addr := newServer(t, nil)
	idle, half := dial(t, addr), dial(t, addr)
	send(t, idle, "PING\r\n")
	expect(t, idle, "+PONG\r\n")
	send(t, half, "PING\r\n*2\r\n$4\r\nECHO\r\n$10\r\nabc")
	expect(t, half, "+PONG\r\n")
	admin := dial(t, addr)
	for _, c := range []net.Conn{idle, half} {
		send(t, admin, "CLIENT KILL ADDR "+c.LocalAddr().String()+"\r\n")
		expect(t, admin, ":1\r\n")
		expectEnd(t, c, "")
	}
	waitFor(t, "their places to be free", func() bool { return looped(s) == 1 && s.Stats().Connections == 1 })
	// The places are used again.
	for range 3 {
		alive(t, addr)
	}
}
