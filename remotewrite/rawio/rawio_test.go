package rawio

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"slices"
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

// Pieces arrive as one, however many there are, and in how many calls they are written.
func TestWriteBuffers(t *testing.T) {
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
	raw, err := New(client.(*net.TCPConn))
	if err != nil {
		t.Fatal(err)
	}
	waited := 0
	raw.Full = func() { waited++ }
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, n := range []int{0, 1, 2, 3*maxPieces + 1} {
		var pieces [][]byte
		for i := range n {
			pieces = append(pieces, bytes.Repeat([]byte{byte(i), byte(i >> 8), 7}, i%5*1000))
		}
		want, same := bytes.Join(pieces, nil), slices.Clone(pieces)
		came := make(chan []byte)
		go func() {
			b := make([]byte, len(want))
			_, _ = io.ReadFull(c, b)
			came <- b
		}()
		if err := raw.WriteBuffers(pieces); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(<-came, want) {
			t.Errorf("what came of %d pieces, %d bytes, is something else", n, len(want))
		}
		if !slices.EqualFunc(pieces, same, bytes.Equal) || len(raw.pieces) != 0 {
			t.Errorf("of %d pieces some were changed, or kept", n)
		}
	}
	if waited == 0 {
		t.Error("nothing was ever more than the socket has room for")
	}
	_ = client.SetDeadline(time.Unix(1, 0))
	if err := raw.WriteBuffers([][]byte{{1}}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("written behind its deadline: %v", err)
	}
}
