package ingest

import (
	"syscall"
	"unsafe"
)

// flush writes the answers.
func (c *conn) flush() error {
	if c.changes != nil && !c.copied() {
		c.freeOutput()
		return errPassedOver
	}
	if len(c.B) == 0 {
		c.freeOutput()
		return nil
	}
	c.out = c.B
	written := len(c.B)
	var err error
	if c.loop != nil {
		err = c.loopWrite()
	}
	if len(c.out) > 0 && err == nil {
		gated := c.gate != nil
		c.leaveGate() // the client may take its time
		began := c.srv.nanos()
		err = c.waitWrite()
		c.span.since += c.srv.nanos() - began // which is not the command's
		if gated {
			c.enterGateAgain()
		}
	}
	c.srv.counters.bytesOut.Add(uint64(written))
	c.out = nil
	c.freeOutput()
	return err
}

// waitWrite writes all of c.out, for as long as that takes.
func (c *conn) waitWrite() error {
	if c.isBehind() {
		return c.behind()
	}
	if c.raw != nil {
		err := c.raw.Write(c.writeFn)
		if err == nil {
			err = c.ioErr
		}
		if err == nil && len(c.out) > 0 {
			err = c.behind()
		}
		return err
	}
	if c.under != nil && !c.takes(len(c.out)) {
		return c.behind()
	}
	return c.writeAll(c.out)
}

// takes reports whether the socket below TLS surely takes n bytes without
// waiting for the client: they are few, and all that was sent has arrived. A
// write by TLS cannot be begun and given up.
func (c *conn) takes(n int) bool {
	const few = 16 << 10 // less than any socket's buffer
	if n > few {
		return false
	}
	unsent := int32(-1)
	err := c.under.Control(func(fd uintptr) {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&unsent))); errno != 0 {
			unsent = -1
		}
	})
	return err == nil && unsent == 0
}

// writeAll writes b to what is not a plain socket.
func (c *conn) writeAll(b []byte) error {
	for len(b) > 0 {
		c.writing.Store(c.srv.tick.Load())
		n := min(len(b), bufferBytes)
		if _, err := c.nc.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	c.writing.Store(0)
	return nil
}

// loopWrite writes what a socket in a loop takes. If that is not all, the
// connection has left the loop.
func (c *conn) loopWrite() error {
	for len(c.out) > 0 {
		n, errno := sendTo(c.fd, c.out)
		switch errno {
		case 0:
			c.out = c.out[n:]
		case syscall.EINTR:
		case syscall.EAGAIN:
			if !c.leave() {
				return errno
			}
			return nil
		default:
			return errno
		}
	}
	return nil
}

// rawWrite writes what a socket takes now.
func (c *conn) rawWrite(fd uintptr) bool {
	for len(c.out) > 0 {
		n, err := syscall.Write(int(fd), c.out)
		switch err {
		case nil:
			c.out = c.out[n:]
		case syscall.EINTR:
		case syscall.EAGAIN:
			c.ioErr = nil
			return true
		default:
			c.ioErr = err
			return true
		}
	}
	c.ioErr = nil
	return true
}

// buffer is an output buffer of the server's pool, or a piece of a long answer.
type buffer struct {
	b     []byte
	piece bool
}

func (c *conn) takeOutput() {
	if c.outBuf == nil {
		c.outBuf = c.srv.outputs.Get().(*buffer)
		c.B = c.outBuf.b
	}
}

// freeOutput gives the buffer back, unless one large value has blown it up.
func (c *conn) freeOutput() {
	if c.outBuf != nil {
		c.srv.putOutput(c.outBuf, c.B)
	}
	c.outBuf, c.B = nil, nil
}

// putOutput takes back a buffer that has become b.
func (s *Server) putOutput(o *buffer, b []byte) {
	if o.piece {
		s.putPiece(b)
		return
	}
	poison(b)
	if cap(b) <= 4*s.o.MaxOutputBytes {
		o.b = b[:0]
		s.outputs.Put(o)
	}
}

// spill writes what was answered so far, from inside a long answer. Commands that write
// what has copies do not call it: their answers wait until heirs have what they did.
func (c *conn) spill() {
	switch {
	case len(c.B) < c.srv.o.MaxOutputBytes:
	case c.holdsBack():
	case c.silent || c.skip > 0:
		c.B = c.B[:c.at]
	default:
		c.writeOut()
	}
}

// writeOut writes what was answered so far. When the client does not take it,
// the connection ends.
func (c *conn) writeOut() {
	if err := c.flush(); err != nil {
		c.quit = true
	}
	c.takeOutput()
	c.at = 0
}
