package main

import (
	"context"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// plainContext is the context of a request of a plainConn. Most handlers only ask
// it for values and for Err, which cost nothing to make.
type plainContext struct {
	context.Context // of the connection
	c               *plainConn

	mu     sync.Mutex
	waited context.Context // which ends with the request, or the client; nil as long as nobody asked for Done
	cancel context.CancelFunc
	ended  bool
}

// end says that the request is answered.
func (x *plainContext) end() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ended = true; x.cancel != nil {
		x.cancel()
		if x.c != nil {
			x.c.server.watched.remove(x)
		}
	}
}

// hangUp says that the client has hung up.
func (x *plainContext) hangUp() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.cancel()
}

// lookEvery is how often a plainServer looks whether the clients are still there
// that requests are worked on for.
const lookEvery = 100 * time.Millisecond

// idleLooks at nobody, and a plainServer looks no more. A timer that is begun wakes a
// thread, so one is not begun for each request.
const idleLooks = 50

// watched are the requests under way of which someone waits for the end.
type watched struct {
	mu    sync.Mutex
	of    map[*plainContext]struct{}
	timer *time.Timer // nil: nobody looks
	idle  int         // looks since the last was added
	ended bool
}

func (w *watched) add(x *plainContext) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of == nil {
		w.of = map[*plainContext]struct{}{}
	}
	w.of[x] = struct{}{}
	if w.idle = 0; w.timer == nil && !w.ended {
		w.timer = time.AfterFunc(lookEvery, w.look)
	}
}

func (w *watched) remove(x *plainContext) {
	w.mu.Lock()
	delete(w.of, x)
	w.mu.Unlock()
}

// look tells those whose clients have hung up.
func (w *watched) look() {
	w.mu.Lock()
	all := slices.Collect(maps.Keys(w.of))
	if w.idle++; w.ended || len(all) == 0 && w.idle > idleLooks {
		w.timer = nil
	} else {
		w.timer.Reset(lookEvery)
	}
	w.mu.Unlock()
	for _, x := range all {
		if x.c.gone() {
			x.hangUp()
		}
	}
}

// stop ends looking.
func (w *watched) stop() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
}

// Done implements context.Context.
func (x *plainContext) Done() <-chan struct{} {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.waited == nil {
		x.waited, x.cancel = context.WithCancel(x.Context)
		if x.ended {
			x.cancel()
		} else if x.c != nil {
			x.c.server.watched.add(x)
		}
	}
	return x.waited.Done()
}

// Value implements context.Context. What asked for Done is told of the context
// behind it, so that package context needs no goroutine to wait.
func (x *plainContext) Value(key any) any {
	x.mu.Lock()
	of := x.waited
	x.mu.Unlock()
	if of == nil {
		of = x.Context
	}
	return of.Value(key)
}

// Err implements context.Context.
func (x *plainContext) Err() error {
	if err := x.Context.Err(); err != nil {
		return err
	}
	x.mu.Lock()
	ended := x.ended
	x.mu.Unlock()
	if ended || x.c.gone() {
		return context.Canceled
	}
	return nil
}

// gone reports whether the client sends no more: nothing is read by that.
func (c *plainConn) gone() (is bool) {
	t, ok := c.Conn.(*net.TCPConn)
	if !ok {
		return false
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return true
	}
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		is = n == 0 && err == nil || err != nil && err != unix.EAGAIN && err != unix.EINTR
	})
	return is || err != nil
}
