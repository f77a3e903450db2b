package ingest

import (
	"net"
	"testing"
	"time"
)

// TestIdleConnections looks at connections as the sweeper does, when an hour, a day or a year
// has passed: without a timeout idle ones stay, with one those that listen.
func TestIdleConnections(t *testing.T) {
	for _, alone := range []bool{false, true} {
		s, addr := newServerOf(t, alone, nil)
		open := func() net.Conn {
			c := dial(t, addr)
			send(t, c, "PING\r\n")
			expect(t, c, "+PONG\r\n")
			return c
		}
		// pass is when there are n connections, none of which is about to read or write.
		pass := func(n int, d time.Duration) {
			t.Helper()
			waitFor(t, "the connections to rest", func() bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				for c := range s.conns {
					if c.half.Load() != 0 || c.writing.Load() != 0 {
						return false
					}
				}
				return len(s.conns) == n
			})
			s.closeOverdue(s.tick.Load() + s.ticks(d))
		}
		idle, ears := open(), open()
		send(t, ears, "SUBSCRIBE c\r\n")
		expect(t, ears, "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")
		config := func(answer string, args ...string) {
			t.Helper()
			if got := talk(t, addr, bulks(append([]string{"CONFIG"}, args...)...)); got != answer {
				t.Errorf("CONFIG %v: %q, want %q", args, got, answer)
			}
		}
		closed := func(want uint64) {
			t.Helper()
			if n := s.Stats().ConnectionsTimedOut; n != want {
				t.Errorf("%d connections were closed, want %d", n, want)
			}
		}
		config("*2\r\n$7\r\ntimeout\r\n$1\r\n0\r\n", "GET", "timeout")
		pass(2, 365*24*time.Hour)
		closed(0)

		config("+OK\r\n", "SET", "timeout", "86400")
		config("*2\r\n$7\r\ntimeout\r\n$5\r\n86400\r\n", "GET", "timeout")
		pass(2, 23*time.Hour)
		closed(0)
		pass(2, 25*time.Hour)
		closed(1)
		expectEnd(t, idle, "")

		for value, why := range map[string]string{
			"-1": "argument must be between 0 and 2147483647 inclusive", "2147483648": "argument must be between 0 and 2147483647 inclusive", "soon": "argument couldn't be parsed into an integer",
		} {
			config("-ERR CONFIG SET failed (possibly related to argument 'timeout') - "+why+"\r\n", "SET", "timeout", value)
		}
		config("*2\r\n$7\r\ntimeout\r\n$5\r\n86400\r\n", "GET", "timeout")
		config("+OK\r\n", "SET", "timeout", "2147483647")
		idle = open()
		pass(2, 60*365*24*time.Hour)
		config("+OK\r\n", "SET", "timeout", "0")
		pass(2, 100*365*24*time.Hour)
		closed(1)

		s.SetIdleTimeout(time.Hour + time.Millisecond)
		config("*2\r\n$7\r\ntimeout\r\n$4\r\n3601\r\n", "GET", "timeout")
		pass(2, 2*time.Hour)
		closed(2)
		expectEnd(t, idle, "")

		spy := open()
		send(t, spy, "MONITOR\r\n")
		expect(t, spy, "+OK\r\n")
		pass(2, 2*time.Hour)
		closed(2)
	}
}
