package rawio

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// A Conn is its connection: what comes, the end, deadlines, and that it is closed.
func TestConn(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := New(c.(*net.TCPConn))
	if err != nil {
		t.Fatal(err)
	}
	large := bytes.Repeat([]byte("more than a socket holds"), 1<<20)
	came := make(chan []byte)
	go func() {
		b := make([]byte, len(large))
		_, _ = io.ReadFull(client, b)
		came <- b
	}()
	if n, err := raw.Write(large); n != len(large) || err != nil || !bytes.Equal(<-came, large) {
		t.Fatalf("%d of %d bytes were written: %v", n, len(large), err)
	}
	go func() {
		_, _ = client.Write(large)
		_ = client.(*net.TCPConn).CloseWrite()
	}()
	if b, err := io.ReadAll(raw); err != nil || !bytes.Equal(b, large) {
		t.Fatalf("%d of %d bytes came: %v", len(b), len(large), err)
	}
	_ = c.SetDeadline(time.Unix(1, 0))
	if _, err := raw.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read behind its deadline: %v", err)
	}
	if _, err := raw.Write(large); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("written behind its deadline: %v", err)
	}
	_ = c.SetDeadline(time.Time{})
	client.(*net.TCPConn).SetLinger(0)
	client.Close() // reset
	for err = nil; err == nil; {
		_, err = raw.Write(large)
	}
	if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("written to one who has gone: %v", err)
	}
	c.Close()
	if _, err := raw.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read from what is closed: %v", err)
	}
}
