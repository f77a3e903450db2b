package ingest

import (
	"io"
	"syscall"

	"mcached/ingest/admission"
)

// hold has Admission lend at least so many bytes for the input. Only what stays
// between two turns needs that: the rest of it is for its client to send.
func (c *conn) hold(bytes int64) error {
	if bytes <= c.held {
		return nil
	}
	if c.held == 0 {
		kind := admission.Input
		if !c.authenticated {
			kind = admission.Stranger
		}
		c.lease.Open(c.srv.o.Admission, kind, c.cut)
	}
	err := c.lease.Try(bytes - c.held)
	if err == nil {
		c.held = bytes
	}
	return err
}

// fill waits for more input and reads it behind what there is.
func (c *conn) fill() error {
	if c.in != nil {
		if c.start > 0 {
			full := c.end == len(c.in)
			c.end = copy(c.in, c.in[c.start:c.end])
			c.start = 0
			if full && c.end >= partOfCommand && len(c.in) < streamInput {
				c.widen()
			}
		}
		if c.end == len(c.in) {
			if err := c.grow(); err != nil {
				return err
			}
		}
	}
	var n int
	var err error
	if c.loop != nil {
		n, err = c.loopRead()
	} else if c.raw != nil {
		if err = c.raw.Read(c.readFn); err == nil {
			n, err = c.ioN, c.ioErr
		}
	} else {
		c.takeInput()
		n, err = c.nc.Read(c.in[c.end:])
	}
	if n > 0 {
		c.srv.counters.bytesIn.Add(uint64(n))
		c.end += n
		return nil
	}
	if err == nil {
		err = io.EOF
	}
	return err
}

// loopRead is one read of a socket in a loop.
func (c *conn) loopRead() (n int, err error) {
	c.takeInput()
	for {
		n, errno := recv(c.fd, c.in[c.end:])
		switch errno {
		case 0:
			// What was left over, if anything, is told by another event.
			c.readable = n == len(c.in)-c.end || c.hung
			return n, nil
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			c.readable = false
			if c.end == 0 {
				c.freeInput()
			}
			return 0, errAgain
		}
		return 0, errno
	}
}

// rawRead is one read of a socket. The buffer comes with the input: a
// connection that waits for its client has none.
func (c *conn) rawRead(fd uintptr) bool {
	c.takeInput()
	for {
		n, err := syscall.Read(int(fd), c.in[c.end:])
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			if c.end == 0 {
				c.freeInput()
			}
			return false
		}
		c.ioN, c.ioErr = n, err
		return true
	}
}

func (c *conn) takeInput() {
	if c.in == nil {
		c.in = c.srv.inputs.Get().(*[bufferBytes]byte)[:]
	}
}

// freeInput gives the buffer back; what is in it is lost.
func (c *conn) freeInput() {
	c.srv.giveInput(c.in)
	c.in, c.start, c.end = nil, 0, 0
	if c.held > 0 {
		c.lease.Release()
		c.held = 0
	}
}

// argBytes is what an argument takes beside its bytes: a mark and a slice, and
// as many again, as the next arguments will be there before it is counted anew.
const argBytes = 2 * (8 + 24)

// largeInput is a buffer that grows no further than what it is for.
const largeInput = 1 << 20

const (
	// partOfCommand is how much of a command has to be left over for its commands
	// to be called large: a pipeline of such is read in pieces of streamInput.
	partOfCommand = bufferBytes / 8
	streamInput   = 8 * bufferBytes
)

// giveInput takes a buffer back.
func (s *Server) giveInput(b []byte) {
	poison(b)
	if len(b) == bufferBytes {
		s.inputs.Put((*[bufferBytes]byte)(b))
	} else {
		s.spares.give(b)
	}
}

// widen makes the buffer twice as large, if there is room for that.
func (c *conn) widen() {
	if want := 2 * len(c.in); c.hold(int64(want)+argBytes*int64(c.framer.Pending())) == nil {
		c.moveInput(want)
	}
}

// moveInput moves what has come to a larger buffer.
func (c *conn) moveInput(bytes int) {
	c.moveInputTo(c.srv.spares.take(bytes))
}

func (c *conn) moveInputTo(b []byte) {
	c.end = copy(b, c.in[:c.end])
	c.srv.giveInput(c.in)
	c.in = b
}

// growSpare moves what has come to a spare buffer that all of the command fits in, if
// there is one and its user may have it.
func (c *conn) growSpare() bool {
	if c.need <= 8*len(c.in) {
		return false
	}
	b := c.srv.spares.takeSpare(c.need)
	if b == nil {
		return false
	}
	if c.hold(int64(len(b))+argBytes*int64(c.framer.Pending())) != nil {
		c.srv.spares.give(b)
		return false
	}
	c.moveInputTo(b)
	return true
}

// grow makes a larger buffer. A command's announced length is believed up to
// eight times what has come of it; framing bounds it, see MaxCommandBytes. Where a
// spare buffer is large enough, it is believed as it is: that takes no memory.
func (c *conn) grow() error {
	if c.growSpare() {
		return nil
	}
	want := min(max(2*len(c.in), c.need), 8*len(c.in))
	if want > largeInput {
		want = max(min(want, c.need), len(c.in)+largeInput/4) // one large value, and what may follow
	}
	if size := spareSize(want); size < spareSizes {
		want = bufferBytes << size
	}
	// The arguments of a command of many get a table beside them.
	if err := c.hold(int64(want) + argBytes*int64(c.framer.Pending())); err != nil {
		return err
	}
	c.moveInput(want)
	return nil
}
