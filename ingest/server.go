package ingest

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"mcached/ingest/resp"
	"mcached/ingest/script"
)

// Server answers Redis clients. It is safe for concurrent use.
type Server struct {
	o        Options
	limits   resp.Limits // of clients that are past AUTH
	commands commandSet
	pass     atomic.Pointer[string] // see SetPassword
	maxConns atomic.Int64           // see SetMaxConnections
	idle     atomic.Int64           // ns, see SetIdleTimeout
	series   *directory             // nil without Options.Metrics
	started  time.Time
	runID    string
	seed     maphash.Seed // of the cursors of HSCAN and SSCAN
	base     time.Time    // of nanos
	// tick counts the sweeper's rounds: a clock that costs a load.
	tick atomic.Int64
	// every is how long a round is.
	every   time.Duration
	lingers time.Duration // how long a client may send on behind its last answer
	inputs  sync.Pool     // *[bufferBytes]byte
	outputs sync.Pool     // *buffer
	bundles sync.Pool     // *bundle
	spares  spares
	queues  sync.Pool // *queued, empty

	// slots are the connections in loops, by the number that the kernel gives back.
	slots []atomic.Pointer[conn]

	counters counters
	// toldUnread is when the log was told last of a client that does not read, in
	// unix seconds; unsaid are those it has not been told of since.
	toldUnread, unsaid atomic.Int64
	gates              gates
	watchers           watchers
	scripts            *scripting
	cluster            clusterState
	pulse              pulse
	copies             *copies // nil with one copy of each key
	// commandsPerS is that of the last second or of the last round, if those take longer.
	commandsPerS atomic.Uint64
	// inPerS and outPerS are bytes, the same.
	inPerS, outPerS atomic.Uint64
	msetnx          sync.Mutex   // held by MSETNX
	peakBytes       atomic.Int64 // the most memory that was used, as far as noticed
	slow            slowLog
	attention       attention
	pubsub          pubsub
	monitors        monitors
	tracking        tracking
	errors          errorStats

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	loops     []*loop      // made by the first Serve
	vacant    []int32      // slots without a connection
	fullAt    int64        // tick at which nobody could make way
	pause     *pause       // nil for none
	blocked   atomic.Int32 // commands that wait for the end of a pause
	lastID    int64
	closing   bool
	wg        sync.WaitGroup // a connection each
	stop      chan struct{}  // closed to end the sweeper
	swept     chan struct{}  // closed when it has ended
}

// counters are added to by connections, once for each read.
type counters struct {
	accepted, refused, madeWay atomic.Uint64 // connections
	commands, failed, protocol atomic.Uint64
	timedOut, overloaded       atomic.Uint64 // connections closed for it
	moved, proxied             atomic.Uint64 // commands for other nodes' keys
	bytesIn, bytesOut          atomic.Uint64
}

// Stats is a reading of a Server.
type Stats struct {
	Connections         int
	ConnectionsAccepted uint64
	ConnectionsRefused  uint64 // because of MaxConnections
	ConnectionsMadeWay  uint64 // closed for others: strangers, and who had been idle for long
	ConnectionsTimedOut uint64 // idle, half a command or unread answers for too long
	ConnectionsShed     uint64 // closed because Admission had no room for a command
	Commands            uint64
	CommandErrors       uint64 // answered with an error
	ProtocolErrors      uint64
	Moved               uint64 // commands whose clients were sent to another node
	Proxied             uint64 // commands that were passed on to another node
	KeysCopied          uint64 // sent to their heirs, each time
	CopiesVoided        uint64 // sessions that were complete and whose heir was passed over
	UnitsAdopted        uint64 // whose keys lived on here when their owner was lost
	UnitsDropped        uint64 // taken with nothing, though there were copies
	UnitsCopied         int    // of four slots, that have an heir with all of their keys now, which another node can confirm
	BytesRead           uint64
	BytesWritten        uint64
	ScriptsEnded        [script.Ends]uint64 // by what ended them; those that ended by themselves are not counted
}

// NewServer returns a server that serves nothing yet. Shutdown it.
func NewServer(o Options) (*Server, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	s := &Server{
		o:         o,
		limits:    o.frameLimits(),
		commands:  newCommandSet(o.Metrics != nil),
		started:   o.Now(),
		runID:     newRunID(),
		seed:      maphash.MakeSeed(),
		base:      time.Now(),
		listeners: map[net.Listener]struct{}{},
		conns:     map[*conn]struct{}{},
		stop:      make(chan struct{}),
		swept:     make(chan struct{}),
	}
	s.scripts = newScripting(&s.o)
	if o.Cluster != nil && o.Cluster.Copies > 1 {
		s.copies = newCopies(s)
	}
	s.pass.Store(&s.o.Password)
	s.maxConns.Store(int64(o.MaxConnections))
	s.idle.Store(int64(o.IdleTimeout))
	s.slow.init()
	s.tracking.most, s.tracking.mostBytes = o.MaxTrackedKeys, int64(o.MaxTrackedBytes)
	s.o.Parameters = append(slices.Clone(s.o.Parameters), s.toolParameters()...)
	if o.Metrics != nil {
		s.series = newDirectory(&o)
	}
	s.gates.all = []*sync.RWMutex{&s.gates.shared}
	s.inputs.New = func() any { return new([bufferBytes]byte) }
	s.bundles.New = func() any { return new(bundle) }
	s.queues.New = func() any { return firstQueued() }
	s.outputs.New = func() any { return &buffer{b: make([]byte, 0, bufferBytes)} }
	// A timeout is noticed at most an eighth of itself late, and any a second.
	s.every, s.lingers = time.Second, lingers
	for _, d := range []time.Duration{o.IdleTimeout, o.CommandTimeout, o.WriteTimeout} {
		if d > 0 {
			s.every = max(min(s.every, d/8), time.Millisecond)
		}
	}
	s.tick.Store(1)
	go s.sweep()
	if o.Cluster != nil && o.Cluster.Reassure != nil {
		s.wg.Add(1)
		go s.watchPulse()
	}
	return s, nil
}

// SetPassword changes what AUTH asks for. Clients that have given the one before
// stay. To begin to ask for one, or to stop, would leave clients that are
// connected as they are; it is an error.
func (s *Server) SetPassword(password string) error {
	if (password == "") != (s.password() == "") {
		return errors.New("ingest: a password can be changed, but not be given or taken away, while clients are served")
	}
	s.pass.Store(&password)
	return nil
}

func (s *Server) password() string { return *s.pass.Load() }

// SetMaxConnections changes how many clients there may be. Those that are
// connected stay.
func (s *Server) SetMaxConnections(n int) { s.maxConns.Store(int64(max(n, 1))) }

// MaxConnections is how many clients there may be.
func (s *Server) MaxConnections() int { return int(s.maxConns.Load()) }

// SetIdleTimeout changes after what time a connection that asks nothing is closed; 0 is
// never. It is for those that are connected, too.
func (s *Server) SetIdleTimeout(d time.Duration) { s.idle.Store(int64(max(d, 0))) }

// IdleTimeout is after what time a connection that asks nothing is closed; 0 is never.
func (s *Server) IdleTimeout() time.Duration { return time.Duration(s.idle.Load()) }

// Serve accepts connections from l, which it closes before it returns. It
// returns nil after Shutdown.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	if s.password() == "" && !s.o.NoProtectedMode && !loopback(l.Addr()) {
		return fmt.Errorf("%w: %s is not a loopback address", ErrProtected, l.Addr())
	}
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return nil
	}
	s.listeners[l] = struct{}{}
	s.startLoops()
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
	}()

	pause := time.Duration(0)
	for {
		nc, err := l.Accept()
		if err != nil {
			s.mu.Lock()
			closing := s.closing
			s.mu.Unlock()
			if closing {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			// Out of file descriptors, most likely: others will close theirs.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.o.Logger.Warn("accepting a RESP connection failed", "err", err, "retry_in", pause)
			select {
			case <-time.After(pause):
			case <-s.stop:
				return nil
			}
			continue
		}
		pause = 0
		s.accept(nc)
	}
}

func loopback(a net.Addr) bool {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.IP.IsLoopback()
	case *net.UnixAddr:
		return true
	}
	return false
}

// accept begins to serve a connection, or says why not.
func (s *Server) accept(nc net.Conn) {
	s.mu.Lock()
	full := int64(len(s.conns)) >= s.maxConns.Load() && !s.makeWayLocked()
	if s.closing || full {
		s.mu.Unlock()
		if full {
			s.counters.refused.Add(1)
			// A fresh socket's buffer takes this without waiting.
			_ = nc.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			_, _ = fmt.Fprintf(nc, "-ERR max number of clients reached (%d)\r\n", s.MaxConnections())
		}
		nc.Close()
		return
	}
	s.lastID++
	c := newConn(s, nc, s.lastID)
	s.conns[c] = struct{}{}
	s.wg.Add(1)
	inLoop := c.enter()
	s.mu.Unlock()
	s.counters.accepted.Add(1)
	if inLoop {
		return
	}
	go func() {
		defer c.finish()
		c.serve()
	}()
}

// When there are as many connections as there may be, one makes way for the
// next: of those that have not run a command yet (past AUTH, if there is a
// password) the one from which nothing has come for the longest time, and for
// strangerGrace at least; else of those that wait for a next command the one that
// has for the longest, and for idleGrace. So connections that somebody
// opens and leaves keep nobody out. A client that finds its connection closed
// opens another; pools do that before they use one.
const (
	strangerGrace = time.Second
	idleGrace     = time.Minute
)

// makeWayLocked closes a connection for another. It reports whether there was one.
// A round of the sweeper after a look that found none there is another.
func (s *Server) makeWayLocked() bool {
	now := s.tick.Load()
	if s.fullAt == now {
		return false
	}
	var victim *conn
	victimKnown, since := true, int64(0)
	for c := range s.conns {
		known, active, grace := c.known.Load(), c.active.Load(), strangerGrace
		if known {
			if grace = idleGrace; c.half.Load() != 0 || c.writing.Load() != 0 {
				continue // its own timeouts are shorter
			}
		}
		if now-active > s.ticks(grace) && (victim == nil || victimKnown && !known || victimKnown == known && active < since) {
			victim, victimKnown, since = c, known, active
		}
	}
	if victim == nil {
		s.fullAt = now
		return false
	}
	s.counters.madeWay.Add(1)
	s.o.Logger.Debug("closing a RESP connection", "client", addressOf(victim.accepted), "why", "it makes way for another, MaxConnections are open", "ran_a_command", victimKnown)
	delete(s.conns, victim) // finish finds nothing to do
	victim.shut()
	return true
}

// sweep closes connections that take too long. One goroutine that looks at
// all of them now and then is cheaper than a timer that is set at each read
// and write.
func (s *Server) sweep() {
	defer close(s.swept)
	t := time.NewTicker(s.every)
	defer t.Stop()
	rounds, commands, in, out := int64(0), uint64(0), uint64(0), uint64(0)
	for {
		select {
		case <-s.stop:
			return
		case <-t.C:
		}
		now := s.tick.Add(1)
		if rounds++; rounds >= s.ticks(time.Second) {
			took := float64(rounds) * s.every.Seconds()
			rate := func(at *atomic.Uint64, before *uint64, now uint64) {
				at.Store(uint64(float64(now-*before) / took))
				*before = now
			}
			rate(&s.commandsPerS, &commands, s.counters.commands.Load())
			rate(&s.inPerS, &in, s.counters.bytesIn.Load())
			rate(&s.outPerS, &out, s.counters.bytesOut.Load())
			rounds = 0
			s.spares.reap()
		}
		if s.series != nil {
			s.series.sweep()
		}
		s.sweepTracked()
		s.notePeak(s.o.Memory.Used())
		s.closeOverdue(now)
	}
}

// closeOverdue closes the connections that take too long at a tick.
func (s *Server) closeOverdue(now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if why, limit := c.overdue(now); why != "" {
			s.counters.timedOut.Add(1)
			text := fmt.Sprintf("%s for %v", why, limit)
			if why == unreadForLong {
				s.unread(c, text, c.unread.Load())
			} else {
				s.o.Logger.Debug("closing a RESP connection", "client", addressOf(c.accepted), "why", text)
			}
			c.shut()
		}
	}
}

// ticks is how many rounds of the sweeper d takes, at least one.
func (s *Server) ticks(d time.Duration) int64 { return int64((d + s.every - 1) / s.every) }

// Shutdown closes the listeners, lets every connection finish the commands
// that it has read, and waits for them until ctx is done; then it closes the
// rest and waits for their goroutines.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	first := !s.closing
	s.closing = true
	for l := range s.listeners {
		l.Close()
	}
	for c := range s.conns {
		c.drain()
	}
	s.mu.Unlock()
	if first {
		close(s.stop)
	}
	<-s.swept

	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
		s.mu.Lock()
		for c := range s.conns {
			c.shut()
		}
		s.mu.Unlock()
		s.cluster.peers.close()
		<-done
	}
	s.cluster.peers.close()
	s.endLoops()
	return err
}

// Stats reads the counters.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	n := len(s.conns)
	s.mu.Unlock()
	k := &s.counters
	var ended [script.Ends]uint64
	for by := range ended {
		ended[by] = s.scripts.ended[by].Load()
	}
	st := Stats{
		ScriptsEnded:        ended,
		Connections:         n,
		ConnectionsAccepted: k.accepted.Load(),
		ConnectionsRefused:  k.refused.Load(),
		ConnectionsMadeWay:  k.madeWay.Load(),
		ConnectionsTimedOut: k.timedOut.Load(),
		ConnectionsShed:     k.overloaded.Load(),
		Commands:            k.commands.Load(),
		CommandErrors:       k.failed.Load(),
		ProtocolErrors:      k.protocol.Load(),
		BytesRead:           k.bytesIn.Load(),
		Moved:               k.moved.Load(),
		Proxied:             k.proxied.Load(),
		BytesWritten:        k.bytesOut.Load(),
	}
	s.copies.addTo(&st)
	return st
}
