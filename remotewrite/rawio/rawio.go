// Package rawio reads and writes sockets at less cost than package net, for
// connections that requests follow one another on.
package rawio

import (
	"io"
	"net"
	"syscall"
	"unsafe"
)

// Conn reads and writes a socket by system calls of which the Go scheduler is
// not told. The socket does not block, so none takes longer than the kernel takes
// to copy; where there is nothing to read, or no room to write, the goroutine
// waits as it does elsewhere. What is saved is the scheduler's monitor thread,
// which is woken by any call that it is told of when all else is idle, and then
// looks for long ones every 20 µs: with few senders of small requests that was a
// seventh of all processor time.
//
// Deadlines are those of the connection, which remains its owner's to close. A Conn
// belongs to one goroutine at a time. NetConn is for those who need a net.Conn.
type Conn struct {
	// Full, if not nil, is called whenever room to write is about to be waited for.
	Full func()

	conn syscall.RawConn

	// Of the call under way, made once, so that none allocates:
	b                         []byte
	pieces                    []syscall.Iovec // that are not written yet
	n                         int
	errno                     syscall.Errno
	read, write, writev, some func(fd uintptr) bool
}

// maxPieces of a call are the kernel's bound.
const maxPieces = 1 << 10

// New returns one for a connection.
func New(c *net.TCPConn) (*Conn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	r := &Conn{conn: raw}
	r.read = func(fd uintptr) bool {
		return r.call(syscall.SYS_READ, fd, unsafe.Pointer(unsafe.SliceData(r.b)), len(r.b))
	}
	r.write = func(fd uintptr) bool {
		return r.full(r.call(syscall.SYS_WRITE, fd, unsafe.Pointer(unsafe.SliceData(r.b)), len(r.b)))
	}
	r.writev = func(fd uintptr) bool {
		some := r.pieces[:min(len(r.pieces), maxPieces)]
		return r.full(r.call(syscall.SYS_WRITEV, fd, unsafe.Pointer(unsafe.SliceData(some)), len(some)))
	}
	r.some = func(fd uintptr) bool { // though it may have no room
		some := r.pieces[:min(len(r.pieces), maxPieces)]
		r.call(syscall.SYS_WRITEV, fd, unsafe.Pointer(unsafe.SliceData(some)), len(some))
		return true
	}
	return r, nil
}

// full passes on whether a call to write is done.
func (r *Conn) full(done bool) bool {
	if !done && r.Full != nil {
		r.Full()
	}
	return done
}

// call moves bytes between memory and the socket. It reports false if it must wait.
func (r *Conn) call(number, fd uintptr, at unsafe.Pointer, length int) bool {
	for {
		n, _, errno := syscall.RawSyscall(number, fd, uintptr(at), uintptr(length))
		switch errno {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return false
		case 0:
			r.n = int(n)
		}
		r.errno = errno
		return true
	}
}

// Read implements io.Reader.
func (r *Conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	r.b, r.n, r.errno = b, 0, 0
	err := r.conn.Read(r.read)
	r.b = nil
	switch {
	case err != nil:
		return 0, err
	case r.errno != 0:
		return 0, r.errno
	case r.n == 0:
		return 0, io.EOF
	}
	return r.n, nil
}

// Write implements io.Writer.
func (r *Conn) Write(b []byte) (written int, err error) {
	for written < len(b) {
		r.b, r.n, r.errno = b[written:], 0, 0
		err := r.conn.Write(r.write)
		r.b = nil
		if err == nil && r.errno != 0 {
			err = r.errno
		}
		if err != nil {
			return written, err
		}
		written += r.n
	}
	return written, nil
}

// WriteBuffers writes pieces as if they were one, and keeps none of them.
func (r *Conn) WriteBuffers(pieces [][]byte) error {
	_, err := r.writePieces(pieces, r.writev)
	return err
}

// WriteSome is WriteBuffers for as much as there is room for: it does not wait. It
// returns how many bytes it has written.
func (r *Conn) WriteSome(pieces [][]byte) (n int, err error) {
	return r.writePieces(pieces, r.some)
}

// writePieces writes pieces by a call, until it writes nothing.
func (r *Conn) writePieces(pieces [][]byte, call func(fd uintptr) bool) (n int, err error) {
	all := r.pieces[:0]
	for _, p := range pieces {
		if len(p) > 0 {
			v := syscall.Iovec{Base: unsafe.SliceData(p)}
			v.SetLen(len(p))
			all = append(all, v)
		}
	}
	defer func() {
		clear(all)
		r.pieces = all[:0]
	}()
	for r.pieces = all; len(r.pieces) > 0; {
		r.n, r.errno = 0, 0
		err := r.conn.Write(call)
		if err == nil && r.errno != 0 {
			err = r.errno
		}
		if err != nil || r.n == 0 {
			return n, err
		}
		n += r.n
		r.pass(r.n)
	}
	return n, nil
}

// pass drops what was written of the pieces.
func (r *Conn) pass(n int) {
	for n > 0 {
		v := &r.pieces[0]
		if length := int(v.Len); n < length {
			v.Base = (*byte)(unsafe.Add(unsafe.Pointer(v.Base), n))
			v.SetLen(length - n)
			return
		}
		n -= int(v.Len)
		r.pieces = r.pieces[1:]
	}
}
