package ingest

import (
	"slices"
	"sync/atomic"
	"time"

	"mcached/ingest/resp"
)

// attention is what every command has to look for, a bit each, so that together
// they cost one load while there is none of them.
type attention struct{ bits atomic.Uint32 }

const (
	paused    = 1 << iota // CLIENT PAUSE
	monitored             // MONITOR
)

func (a *attention) set(bit uint32, on bool) {
	if on {
		a.bits.Or(bit)
	} else {
		a.bits.And(^bit)
	}
}

// pause is a CLIENT PAUSE in force. It changes under Server.mu.
type pause struct {
	until  time.Time
	writes bool          // only what writes waits
	ended  chan struct{} // closed when it ends before its time, or is replaced
}

// pausePoll is how often who waits looks whether it is to end.
const pausePoll = 20 * time.Millisecond

// longestPauseMs is the longest that a time.Duration can be.
const longestPauseMs = int64(1 << 62 / time.Millisecond)

func clientPause(c *conn, args [][]byte) {
	if len(args) > 4 {
		c.wrongSubArity(args)
		return
	}
	ms, ok := resp.ParseInt(args[2])
	if !ok {
		c.Fail("ERR timeout is not an integer or out of range")
		return
	}
	if ms < 0 {
		c.Fail("ERR timeout is negative")
		return
	}
	writes := false
	if len(args) == 4 {
		switch {
		case resp.EqualFold(args[3], "write"):
			writes = true
		case !resp.EqualFold(args[3], "all"):
			c.Fail("ERR CLIENT PAUSE mode must be WRITE or ALL")
			return
		}
	}
	s, until := c.srv, time.Now().Add(time.Duration(min(ms, longestPauseMs))*time.Millisecond)
	s.mu.Lock()
	if p := s.pause; p != nil && time.Now().Before(p.until) {
		// As in Redis a pause is not made shorter or weaker by another.
		writes = writes && p.writes
		if p.until.After(until) {
			until = p.until
		}
	}
	s.endPauseLocked()
	s.pause = &pause{until: until, writes: writes, ended: make(chan struct{})}
	s.attention.set(paused, true)
	s.mu.Unlock()
	c.OK()
}

func (s *Server) unpause() {
	s.mu.Lock()
	s.endPauseLocked()
	s.mu.Unlock()
}

func (s *Server) endPauseLocked() {
	if s.pause != nil {
		close(s.pause.ended)
		s.pause = nil
		s.attention.set(paused, false)
	}
}

// pauseFor is the pause that a command, which writes or not, has to wait for, or nil.
func (s *Server) pauseFor(writes bool) *pause {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pause != nil && !time.Now().Before(s.pause.until) {
		s.endPauseLocked()
	}
	if p := s.pause; p != nil && (writes || !p.writes) {
		return p
	}
	return nil
}

// mayWrite reports whether a command is one that CLIENT PAUSE WRITE holds back.
func (c *conn) mayWrite(cmd *command) bool {
	switch cmd.name {
	case "publish", "spublish", "eval", "evalsha":
		return true
	case "exec":
		return c.tx != nil && slices.ContainsFunc(c.tx.queue, func(args [][]byte) bool { return c.mayWrite(c.srv.commands.find(args[0])) })
	}
	return cmd.flags&write != 0
}

// waitPause waits until cmd may run. Commands about clients always may, as
// UNPAUSE is one of them.
func (c *conn) waitPause(cmd *command) {
	writes := c.mayWrite(cmd)
	s := c.srv
	if cmd.group == groupConnection || c.holdsBack() || s.pauseFor(writes) == nil {
		return
	}
	if c.loop != nil && !c.leave() {
		return
	}
	gated := c.gate != nil
	c.leaveGate()
	began := s.nanos()
	s.blocked.Add(1)
	defer s.blocked.Add(-1)
	for !c.killed.Load() && !c.shutting.Load() {
		p := s.pauseFor(writes)
		if p == nil {
			break
		}
		select {
		case <-p.ended:
		case <-time.After(min(time.Until(p.until), pausePoll)):
		}
	}
	c.span.since += s.nanos() - began
	if gated {
		c.enterGate()
	}
}
