package rawio

import (
	"context"
	"net"
	"sync"
)

// NetConn is a connection that is read and written by Conns. As any net.Conn it may be
// used by several goroutines.
type NetConn struct {
	net.Conn
	reading, writing sync.Mutex
	in, out          *Conn // of Conn; each under its lock
}

// Dial connects as a net.Dialer does. Where there is no TCP, the connection is an
// ordinary one.
func Dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	tcp, ok := conn.(*net.TCPConn)
	if err != nil || !ok {
		return conn, err
	}
	c, err := NewNetConn(tcp)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

// NewNetConn returns one for a connection.
func NewNetConn(c *net.TCPConn) (*NetConn, error) {
	in, err := New(c)
	if err != nil {
		return nil, err
	}
	out, err := New(c)
	if err != nil {
		return nil, err
	}
	return &NetConn{Conn: c, in: in, out: out}, nil
}

// Read implements io.Reader.
func (c *NetConn) Read(b []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	return c.in.Read(b)
}

// Write implements io.Writer.
func (c *NetConn) Write(b []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.out.Write(b)
}
