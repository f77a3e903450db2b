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

// connected returns a Conn, the connection that it is of, and the other end.
func connected(t *testing.T) (raw *Conn, of, other *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var ends [2]net.Conn
	if ends[0], err = net.Dial("tcp", l.Addr().String()); err == nil {
		ends[1], err = l.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ends[0].Close()
		ends[1].Close()
	})
	of, other = ends[0].(*net.TCPConn), ends[1].(*net.TCPConn)
	if raw, err = New(of); err != nil {
		t.Fatal(err)
	}
	return raw, of, other
}

// A Conn is its connection: what comes, the end, deadlines, and that it is closed.
func TestConn(t *testing.T) {
	t.Parallel()
	raw, c, client := connected(t)
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
		_ = client.CloseWrite()
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
	client.SetLinger(0)
	client.Close() // reset
	var err error
	for err == nil {
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
	raw, client, c := connected(t)
	waited := 0
	raw.Full = func() { waited++ }
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

// WriteSome writes what there is room for, and says how much that is.
func TestWriteSome(t *testing.T) {
	t.Parallel()
	raw, c, client := connected(t)
	pieces := [][]byte{[]byte("head"), nil, bytes.Repeat([]byte("more than a socket holds"), 1<<20)}
	want := bytes.Join(pieces, nil)
	n, err := raw.WriteSome(pieces)
	if err != nil || n == 0 || n >= len(want) || len(raw.pieces) != 0 {
		t.Fatalf("%d of %d bytes, %v; %d pieces are kept", n, len(want), err, len(raw.pieces))
	}
	if more, err := raw.WriteSome(pieces); more != 0 || err != nil {
		t.Errorf("%d bytes were written into a socket that is full, %v", more, err)
	}
	_ = c.CloseWrite()
	if b, err := io.ReadAll(client); err != nil || !bytes.Equal(b, want[:n]) {
		t.Errorf("%d bytes came of %d, %v", len(b), n, err)
	}
	if n, err := raw.WriteSome(pieces); n != 0 || err == nil {
		t.Errorf("%d bytes were written into a closed one", n)
	}
}
