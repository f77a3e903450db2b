package ingest

import (
	"errors"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// A loop serves many plain sockets with one goroutine, as Redis does with its
// process: one wait tells which of them have something, and each of those costs
// a read and a write. A goroutine for each would be woken, scheduled and parked
// for each request besides, a fifth of what a request costs.
//
// What a loop runs must not keep the others waiting. So it never blocks but in
// its wait: a connection whose client does not take its answers, or that asks
// for something slow, leaves. It takes the goroutine with it, as that is in the
// middle of its command, and is served by it from then on; a new goroutine
// goes on with the loop.
//
//	wait ──▶ ready: c1 c2 c3 ─ turn(c1) ─ turn(c2) ─┬─ … ──▶ wait
//	                                                └─ slow: c2 keeps this
//	                                                   goroutine, c3 … another
//
// Sockets are registered edge-triggered: the kernel need not look at them
// again at each wait. A read that does not fill its buffer has emptied the
// socket, so there is no second one that only says so, unless the client has
// hung up, of which there is no second event.
//
// No lock guards a loop: what is not of the server or constant belongs to the
// goroutine that runs it.
type loop struct {
	srv   *Server
	epoll int
	wake  int           // an eventfd, to end the loop
	ended chan struct{} // closed by the last goroutine that runs it

	events []syscall.EpollEvent
	// ready[at:round] have their turn before the next wait, those behind after it.
	ready     []*conn
	at, round int
	crowd     crowd
	gate      sync.RWMutex // held for reading while it runs commands; see gates
	gathering *gathering
}

const (
	// loopEvents bounds what one wait tells.
	loopEvents = 256
	// turnCommands bounds what a connection runs before the others of its
	// loop have their turn: 64 of the shortest take some 50 µs.
	turnCommands = 64
	// loopArgs bounds the arguments of a command that is run in a loop.
	loopArgs = 1024
	// maxSlots bounds the connections that are served in loops, at 12 bytes each.
	maxSlots = 1 << 16
	// wakeSlot is the number that the eventfd has instead of a connection's.
	wakeSlot = -1

	// edges are the events that are asked for. syscall.EPOLLET is negative.
	edges = syscall.EPOLLIN | syscall.EPOLLRDHUP | 1<<31
	hung  = syscall.EPOLLRDHUP | syscall.EPOLLHUP | syscall.EPOLLERR
	// summons is what a connection is asked for besides when it is to leave: that its
	// socket takes bytes is true already, so that the loop is told at once.
	summons = syscall.EPOLLOUT
)

// errAgain says that a socket in a loop has nothing to read.
var errAgain = errors.New("ingest: nothing to read")

// loopsFor is how many loops there are: the processors but one, which clients
// on the same machine, or everything else in the process, will want.
func loopsFor(processors int) int { return max(1, processors-1) }

// startLoops is called with Server.mu held. Without loops every connection has
// its goroutine, as it has with TLS, or where answers wait for copies of keys.
func (s *Server) startLoops() {
	if s.loops != nil || s.o.TLS != nil || s.copies != nil {
		return
	}
	s.makeSlots()
	for range loopsFor(runtime.GOMAXPROCS(0)) {
		l, err := newLoop(s)
		if err != nil {
			s.o.Logger.Warn("RESP connections are served by a goroutine each", "err", err)
			return
		}
		s.loops = append(s.loops, l)
		s.gates.all = append(s.gates.all, &l.gate)
		go l.run()
	}
}

func (s *Server) makeSlots() {
	n := min(s.o.MaxConnections, maxSlots)
	s.slots, s.vacant = make([]atomic.Pointer[conn], n), make([]int32, n)
	for i := range s.vacant {
		s.vacant[i] = int32(n - 1 - i)
	}
}

// endLoops ends the loops, which have no connections any more, and waits for
// their goroutines.
func (s *Server) endLoops() {
	s.mu.Lock()
	loops := s.loops
	s.loops = nil
	s.mu.Unlock()
	for _, l := range loops {
		l.end()
	}
}

func newLoop(s *Server) (*loop, error) {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	l := &loop{srv: s, epoll: epoll, ended: make(chan struct{}), gathering: new(gathering), events: make([]syscall.EpollEvent, loopEvents)}
	wake, _, errno := syscall.RawSyscall(syscall.SYS_EVENTFD2, 0, syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if errno != 0 {
		_ = syscall.Close(epoll)
		return nil, os.NewSyscallError("eventfd2", errno)
	}
	l.wake = int(wake)
	if err := syscall.EpollCtl(epoll, syscall.EPOLL_CTL_ADD, l.wake, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: wakeSlot}); err != nil {
		_, _ = syscall.Close(epoll), syscall.Close(l.wake)
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return l, nil
}

// end makes the loop end and waits for it.
func (l *loop) end() {
	one := [8]byte{1}
	_, _ = syscall.Write(l.wake, one[:])
	<-l.ended
	_, _ = syscall.Close(l.epoll), syscall.Close(l.wake)
}

// run is the loop. It returns when the loop has ended or this goroutine has
// become a connection's own.
func (l *loop) run() {
	pin() // until the goroutine ends or leaves
	for l.serve() && l.wait() {
	}
}

// serve gives the connections of a round their turns. It reports false when
// the goroutine has left with one of them.
func (l *loop) serve() bool {
	for l.at < l.round {
		c := l.ready[l.at]
		if c.small {
			l.gather()
			continue
		}
		l.ready[l.at] = nil
		l.at++
		if !l.turn(c) {
			return false
		}
	}
	return true
}

// wait begins the next round: connections that have something new and those
// that were not done. It reports false when the loop has ended.
func (l *loop) wait() bool {
	n := copy(l.ready, l.ready[l.round:])
	clear(l.ready[n:])
	l.ready, l.at = l.ready[:n], 0
	timeoutMs := -1
	if n > 0 {
		timeoutMs = 0
	} else if l.crowd.pause(time.Now()) {
		nap(pauseFor)
	}
	events, err := syscall.EpollWait(l.epoll, l.events, timeoutMs)
	if err != nil && err != syscall.EINTR {
		panic("ingest: epoll_wait: " + err.Error()) // its descriptor or buffer is wrong
	}
	l.crowd.begin(time.Now())
	for _, e := range l.events[:max(events, 0)] {
		if e.Fd == wakeSlot {
			close(l.ended)
			return false
		}
		if c := l.srv.slots[e.Fd].Load(); c != nil {
			c.readable = true
			c.hung = c.hung || e.Events&hung != 0
			if e.Events&summons != 0 {
				c.summoned, c.small = true, false
			}
			l.crowd.meet(&c.met)
			l.queue(c)
		}
	}
	l.round = len(l.ready)
	return true
}

// summon has the loop told of a connection that has said nothing. The caller holds
// Server.mu, and need not be the loop's goroutine.
func (l *loop) summon(c *conn) {
	event := syscall.EpollEvent{Events: edges | summons, Fd: c.slot}
	_ = syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_MOD, c.fd, &event) // c is registered until it has left
}

func (l *loop) queue(c *conn) {
	if !c.queued {
		c.queued = true
		l.ready = append(l.ready, c)
	}
}

// turn serves one connection. It reports false when the connection has left,
// and the goroutine with it.
func (l *loop) turn(c *conn) bool {
	c.queued = false
	alive := !c.killed.Load() && c.turn()
	if alive && c.summoned && c.V3 && c.loop != nil {
		if alive = c.leave(); alive {
			c.endsTurn() // it has none, and what it is to be told waits for nothing
		}
	}
	switch {
	case c.loop == nil:
		if alive {
			c.serve()
		}
		c.finish()
		return false
	case !alive:
		c.finish()
	case c.more || c.readable:
		l.queue(c)
	}
	return true
}

// enter moves a new connection to a loop, if there is one and it is a plain
// socket. The caller holds Server.mu.
func (c *conn) enter() bool {
	s := c.srv
	sc, ok := c.sock.(syscall.Conn)
	if len(s.loops) == 0 || len(s.vacant) == 0 || !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	// A descriptor of our own, because that of the net.Conn is known to the
	// runtime, which would be woken for it as well.
	fd := -1
	if raw.Control(func(p uintptr) { fd, ok = duplicate(p) }) != nil || !ok {
		return false
	}
	last := len(s.vacant) - 1
	c.loop, c.fd, c.slot = s.loops[c.id%int64(len(s.loops))], fd, s.vacant[last]
	epoll, event := c.loop.epoll, syscall.EpollEvent{Events: edges, Fd: c.slot}
	s.vacant = s.vacant[:last]
	s.slots[c.slot].Store(c)
	if err := syscall.EpollCtl(epoll, syscall.EPOLL_CTL_ADD, fd, &event); err != nil {
		s.vacateLocked(c)
		_ = syscall.Close(fd)
		return false
	}
	c.sock.Close()
	return true
}

// leave gives a connection in a loop this goroutine, and the loop another. It
// reports false when it cannot, for want of descriptors; nothing has changed
// then.
func (c *conn) leave() bool {
	s, l := c.srv, c.loop
	fd, ok := duplicate(uintptr(c.fd))
	if !ok {
		return false
	}
	f := os.NewFile(uintptr(fd), "")
	nc, err := net.FileConn(f) // with another descriptor
	f.Close()
	if err != nil {
		return false
	}
	s.mu.Lock()
	_ = syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_DEL, c.fd, nil)
	_ = syscall.Close(c.fd)
	s.vacateLocked(c)
	c.use(nc)
	// What came from outside meanwhile was done to the descriptor only.
	switch {
	case c.killed.Load():
		c.shut()
	case c.shutting.Load():
		c.drain()
	}
	s.mu.Unlock()
	if c.V3 {
		c.opensEars()
	}
	unpin()
	go l.run()
	if c.gate != nil { // that of the loop, which is held for a short time only
		c.leaveGate()
		c.enterGateAgain()
	}
	return true
}

// duplicate makes another descriptor of a socket.
func duplicate(fd uintptr) (int, bool) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, fd, syscall.F_DUPFD_CLOEXEC, 0)
	return int(n), errno == 0
}

// vacateLocked takes a connection out of its loop.
func (s *Server) vacateLocked(c *conn) {
	s.slots[c.slot].Store(nil)
	s.vacant = append(s.vacant, c.slot)
	c.loop, c.fd = nil, -1
}

// recv is a read that does not wait, and that the scheduler is not told of.
func recv(fd int, b []byte) (n int, errno syscall.Errno) {
	r, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), syscall.MSG_DONTWAIT, 0, 0)
	return int(r), errno
}

// sendTo is a write that does not wait, and that the scheduler is not told of.
func sendTo(fd int, b []byte) (n int, errno syscall.Errno) {
	r, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
	return int(r), errno
}
