package ingest

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Every input that is known to have crashed, hung or confused a server built
// on redcon 1.6.2 has a test here.

func TestHugeBulkLength(t *testing.T) {
	_, addr := newServer(t, nil)
	for _, n := range []string{"9223372036854775807", "9223372036854775806", "2147483647", "99999999999999999999", "1073741824"} {
		got := talk(t, addr, "*1\r\n$"+n+"\r\nx")
		if !strings.HasPrefix(got, "-ERR Protocol error: invalid bulk length") {
			t.Errorf("$%s: %q", n, got)
		}
	}
	alive(t, addr)
}

func TestHugeMultibulkCount(t *testing.T) {
	_, addr := newServer(t, nil)
	// Who would do anything for each of so many never came to an end.
	for _, n := range []string{"1000000000", "9000000000000000000", "1048577", "99999999999999999999"} {
		got := talk(t, addr, "*"+n+"\r\n$4\r\nPING\r\n")
		if !strings.HasPrefix(got, "-ERR Protocol error: invalid multibulk length") {
			t.Errorf("*%s: %q", n, got)
		}
	}
	alive(t, addr)
}

// A count within the limit is not believed before the arguments come.
func TestLargeCountAllocatesNothing(t *testing.T) {
	_, addr := newServer(t, nil)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 50 {
		c := dial(t, addr)
		send(t, c, "*1048576\r\n$4194304\r\n")
	}
	alive(t, addr)
	runtime.ReadMemStats(&after)
	if grown := int64(after.TotalAlloc) - int64(before.TotalAlloc); grown > 8<<20 {
		t.Fatalf("50 announcements of 4 MiB made the server allocate %d bytes", grown)
	}
}

func TestCommandsAfterQuitDoNotRun(t *testing.T) {
	_, addr := newServer(t, nil)
	if got := talk(t, addr, "SET a 1\r\nQUIT\r\nSET a 2\r\nGET a\r\n"); got != "+OK\r\n+OK\r\n" {
		t.Fatalf("got %q", got)
	}
	if got := talk(t, addr, "GET a\r\n"); got != "$1\r\n1\r\n" {
		t.Fatalf("a command after QUIT ran: %q", got)
	}
}

func TestProtocolErrorKeepsEarlierReplies(t *testing.T) {
	_, addr := newServer(t, nil)
	got := talk(t, addr, bulks("SET", "k", "v")+bulks("GET", "k")+"*1\r\n!4\r\n")
	if want := "+OK\r\n$1\r\nv\r\n-ERR Protocol error: expected '$', got '!'\r\n"; got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestEmptyMultibulkIsIgnored(t *testing.T) {
	_, addr := newServer(t, nil)
	got := talk(t, addr, "*0\r\n*-1\r\n*-10\r\n\r\n\n"+bulks("PING")+"*0\r\n")
	if got != "+PONG\r\n" {
		t.Fatalf("got %q", got)
	}
}

func TestGarbageBeforeAuth(t *testing.T) {
	_, addr := newServer(t, func(o *Options) { o.Password = "secret" })
	for in, want := range map[string]string{
		"*11\r\n":                            "-ERR Protocol error: invalid multibulk length (11 arguments, the limit is 10)\r\n",
		"*2\r\n$3\r\nGET\r\n$16385\r\n":      "-ERR Protocol error: invalid bulk length (16385 bytes, the limit is 16384)\r\n",
		"GET k\r\n":                          "-NOAUTH Authentication required.\r\n",
		"FOO\r\n":                            "-ERR unknown command 'FOO', with args beginning with: \r\n",
		"AUTH wrong\r\nPING\r\n":             "-WRONGPASS invalid username-password pair or user is disabled.\r\n-NOAUTH Authentication required.\r\n",
		"AUTH other secret\r\n":              "-WRONGPASS invalid username-password pair or user is disabled.\r\n",
		"AUTH secret\r\nPING\r\n":            "+OK\r\n+PONG\r\n",
		"AUTH default secret\r\nPING\r\n":    "+OK\r\n+PONG\r\n",
		"AUTH secret\r\nRESET\r\nPING\r\n":   "+OK\r\n+RESET\r\n-NOAUTH Authentication required.\r\n",
		"QUIT\r\n":                           "+OK\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\r\n\n": "-ERR unknown command '\x16\x03\x01\x02', with args beginning with: '\x01' \r\n",
	} {
		if got := talk(t, addr, in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	if got := talk(t, addr, "HELLO 3\r\n"); !strings.HasPrefix(got, "-NOAUTH HELLO must be called") {
		t.Errorf("HELLO 3: %q", got)
	}
	if got := talk(t, addr, "HELLO 3 AUTH default secret SETNAME n\r\nCLIENT GETNAME\r\n"); !strings.HasPrefix(got, "%7\r\n") || !strings.HasSuffix(got, "$1\r\nn\r\n") {
		t.Errorf("HELLO 3 AUTH: %q", got)
	}
	// Random bytes of every kind: whatever the answer, the server stays.
	for i := range 64 {
		in := make([]byte, 300)
		for j := range in {
			in[j] = byte(i*7 + j*j*13 + j>>2)
		}
		in[0] = "*$\r\n\x00+-:A%~,#_"[i%14]
		_ = talk(t, addr, string(in))
	}
	alive2 := talk(t, addr, "AUTH secret\r\nPING\r\n")
	if alive2 != "+OK\r\n+PONG\r\n" {
		t.Fatalf("got %q", alive2)
	}
}

func TestHTTPIsHungUpOn(t *testing.T) {
	_, addr := newServer(t, nil)
	if got := talk(t, addr, "POST / HTTP/1.1\r\nHost: x\r\n\r\nSET a 1\r\n"); got != "" {
		t.Fatalf("POST: %q", got)
	}
	if got := talk(t, addr, "GET a\r\n"); got != "$-1\r\n" {
		t.Fatalf("the body of a POST ran: %q", got)
	}
}

func TestOversizedInput(t *testing.T) {
	_, addr := newServer(t, func(o *Options) {
		o.MaxArgs, o.MaxBulkBytes, o.MaxInlineBytes, o.MaxCommandBytes = 16, 1000, 200, 1500
	})
	long := strings.Repeat("x", 1001)
	for name, c := range map[string]struct{ in, want string }{
		"args":    {bulks("DEL", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"), "invalid multibulk length (17 arguments, the limit is 16)"},
		"bulk":    {bulks("SET", "k", long) + "*1\r\n$536870913\r\n", "invalid bulk length (536870913 bytes, the limit is 1000)"},
		"behind":  {"*3\r\n$3\r\nSET\r\n$1001\r\n" + long + "\r\n$-1\r\n", "invalid bulk length"},
		"command": {bulks("MSET", "k", long[:800], "l", long[:800]), "command too long (1606 bytes, the limit is 1500)"},
		"inline":  {"SET k " + long + "\r\n", "too big inline request (1008 bytes, the limit is 200)"},
		"endless": {long, "too big inline request (more than 200 bytes)"},
		"count":   {"*" + long, "too big mbulk count string"},
		"length":  {"*1\r\n$" + long, "too big bulk count string"},
		"quotes":  {"SET k \"v\r\n", "unbalanced quotes in request"},
		"crlf":    {"*1\r\n$4\r\nPINGxx", "a bulk is not followed by CRLF"},
		"lf":      {"*1\n$4\r\nPING\r\n", "invalid multibulk length"},
		"sign":    {"*+1\r\n$4\r\nPING\r\n", "invalid multibulk length"},
		"minus":   {"*1\r\n$-1\r\n", "invalid bulk length"},
	} {
		got := strings.TrimPrefix(talk(t, addr, c.in), "-ERR an argument of 1001 bytes is too long, the limit is 1000\r\n")
		if got != "-ERR Protocol error: "+c.want+"\r\n" {
			t.Errorf("%s: %q", name, got)
		}
	}
	alive(t, addr)
}

func TestValueAndKeyTooLarge(t *testing.T) {
	s, addr := newServer(t, func(o *Options) { o.MaxBulkBytes = 9 << 20 })
	if s.o.Blobs.At(0).MaxLarge() >= 9<<20 {
		t.Fatal("the test means a value that framing passes and the cache refuses")
	}
	got := talk(t, addr, bulks("SET", "k", strings.Repeat("v", 9<<20))+bulks("SET", strings.Repeat("k", 1<<16), "v")+bulks("PING"))
	lines := strings.Split(got, "\r\n")
	if len(lines) != 4 || !strings.Contains(lines[0], "value size") || !strings.Contains(lines[1], "key size") || lines[2] != "+PONG" {
		t.Fatalf("got %q", got)
	}
}

// shortTimeouts are for tests that wait for a timeout.
func shortTimeouts(o *Options) {
	o.IdleTimeout, o.CommandTimeout, o.WriteTimeout = 400*time.Millisecond, 100*time.Millisecond, 200*time.Millisecond
}

func TestHalfOpenConnections(t *testing.T) {
	s, addr := newServer(t, shortTimeouts)
	idle, half, partial := dial(t, addr), dial(t, addr), dial(t, addr)
	send(t, half, "*2\r\n$4\r\nECHO\r\n$100\r\nabc")
	send(t, partial, "PI")
	for _, c := range []net.Conn{half, partial, idle} {
		expectEnd(t, c, "")
	}
	if n := s.Stats().ConnectionsTimedOut; n != 3 {
		t.Fatalf("%d connections timed out, want 3", n)
	}
	// One that goes on asking is left alone for longer than all timeouts, by the
	// clock that they are measured with.
	busy := dial(t, addr)
	for start := s.tick.Load(); s.tick.Load()-start < 2*s.ticks(s.o.IdleTimeout); {
		send(t, busy, "PING\r\n")
		expect(t, busy, "+PONG\r\n")
	}
}

// TestSlowReader asks for far more than the sockets hold and reads nothing:
// the server waits with little in hand, then closes.
func TestSlowReader(t *testing.T) {
	s, addr := newServer(t, shortTimeouts)
	value := strings.Repeat("v", 100_000)
	if got := talk(t, addr, bulks("SET", "k", value)); got != "+OK\r\n" {
		t.Fatalf("got %q", got)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c := dial(t, addr)
	go func() {
		for range 100 {
			if _, err := io.WriteString(c, strings.Repeat(bulks("GET", "k"), 100)); err != nil {
				return
			}
		}
	}()
	waitFor(t, "the slow reader to be gone", func() bool {
		alive(t, addr)
		return s.Stats().ConnectionsTimedOut == 1
	})
	runtime.ReadMemStats(&after)
	if grown := int64(after.TotalAlloc) - int64(before.TotalAlloc); grown > 32<<20 {
		t.Fatalf("1 GB of answers made the server allocate %d bytes", grown)
	}
	// The same for one answer that is long in itself.
	keys := make([]string, 5001)
	keys[0] = "MGET"
	for i := range keys[1:] {
		keys[i+1] = "k"
	}
	d := dial(t, addr)
	send(t, d, bulks(keys...))
	waitFor(t, "the slow reader of one answer to be gone", func() bool { return s.Stats().ConnectionsTimedOut == 2 })
}

func TestHugePipeline(t *testing.T) {
	_, addr := newServer(t, nil)
	const n = 100_000
	c := dial(t, addr)
	go func() {
		for i := range n {
			if _, err := fmt.Fprintf(c, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\n%05d\r\n", i); err != nil {
				return
			}
		}
		_, _ = io.WriteString(c, bulks("GET", "k"))
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if want := strings.Repeat("+OK\r\n", n) + "$5\r\n99999\r\n"; string(got) != want || err != nil {
		t.Fatalf("got %d bytes, want %d, %v", len(got), len(want), err)
	}
}

// Who sends on behind what ends the connection, more than the kernel keeps, reads why.
func TestSendsOnAfterTheEnd(t *testing.T) {
	for _, alone := range []bool{false, true} {
		_, addr := newServerOf(t, alone, nil)
		for _, x := range []struct{ first, last string }{
			{"*1\r\n$-5\r\n", "-ERR Protocol error: invalid bulk length\r\n"},
			{bulks("QUIT"), "+OK\r\n"},
		} {
			c := dial(t, addr)
			if _, err := io.WriteString(c, x.first+strings.Repeat("x", 16<<20)); err != nil {
				t.Errorf("after %q: %v", x.first, err)
			}
			_ = c.CloseWrite()
			if got, err := io.ReadAll(c); string(got) != x.last || err != nil {
				t.Errorf("after %q: %q, %v", x.first, got, err)
			}
		}
	}
}
