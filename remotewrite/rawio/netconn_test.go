package rawio

import (
	"net"
	"testing"

	"golang.org/x/net/nettest"
)

// A NetConn is a net.Conn in all that one promises: deadlines, an end, many goroutines.
func TestNetConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, nil, nil, err
		}
		defer l.Close()
		if c1, err = Dial(t.Context(), "tcp", l.Addr().String()); err != nil {
			return nil, nil, nil, err
		}
		if c2, err = l.Accept(); err != nil {
			_ = c1.Close()
			return nil, nil, nil, err
		}
		if _, ok := c1.(*NetConn); !ok {
			t.Errorf("Dial returns a %T", c1)
		}
		return c1, c2, func() { _ = c1.Close(); _ = c2.Close() }, nil
	})
}
