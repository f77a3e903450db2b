package ingest

import (
	"bufio"
	"crypto/tls"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// TestUnixSockets are served in loops, also past a command that leaves them, and
// told as Redis tells them.
func TestUnixSockets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := newServerOn(t, l, nil)
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(lastly(t)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	say := func(line string) string {
		t.Helper()
		send(t, c, line+"\r\n")
		got, err := readReply(r)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return got
	}
	if got := say("PING"); got != "+PONG\r\n" || looped(s) != 1 {
		t.Fatalf("%q, %d connections in loops", got, looped(s))
	}
	want := "addr=" + path + ":0 laddr=" + path + ":0 "
	for _, line := range []string{"CLIENT INFO", "CLIENT LIST"} { // the second of which leaves the loop
		if got := say(line); !strings.Contains(got, want) || !strings.Contains(got, "flags=U ") {
			t.Errorf("%s: %q", line, got)
		}
	}
	if got := say("SET k v"); got != "+OK\r\n" || looped(s) != 0 {
		t.Fatalf("%q, %d connections in loops", got, looped(s))
	}
	if got := say("CLIENT KILL ADDR " + path + ":0 SKIPME no"); got != ":1\r\n" {
		t.Errorf("CLIENT KILL: %q", got)
	}
}

// TestUnixSocketsArePlain where others speak TLS.
func TestUnixSocketsArePlain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	newServerOn(t, l, func(o *Options) { o.TLS = &tls.Config{} })
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(lastly(t)); err != nil {
		t.Fatal(err)
	}
	send(t, c, "PING\r\n")
	expect(t, c, "+PONG\r\n")
}
