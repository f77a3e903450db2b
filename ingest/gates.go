package ingest

import (
	"runtime"
	"sync"
)

// gates are what holds all commands off; multi.go says how.
type gates struct {
	mu     sync.Mutex // held by the transaction that is run
	shared sync.RWMutex
	all    []*sync.RWMutex // shared and those of the loops, constant while anything is served
}

// gateTries is how often a loop looks whether others have ended their commands.
const gateTries = 16

// enterGate is called before commands are run, leaveGate after. Where a script
// keeps it waiting for long it returns without the gate, and waits is set: then
// next to nothing is to be run.
func (c *conn) enterGate() {
	c.gate = c.gateOf()
	if c.waits = c.srv.enters(c.gate); c.waits != nil {
		c.gate = nil
	}
}

// enterGateAgain is for who has let go of the gate in the middle of a command.
func (c *conn) enterGateAgain() {
	c.gate = c.gateOf()
	c.gate.RLock()
}

func (c *conn) gateOf() *sync.RWMutex {
	if c.loop != nil {
		return &c.loop.gate
	}
	return &c.srv.gates.shared
}

// enters takes a gate, or returns the script that holds all of them and has for
// so long that others are told.
func (s *Server) enters(gate *sync.RWMutex) *scriptRun {
	for !gate.TryRLock() {
		run := s.scripts.now.Load()
		if run == nil {
			gate.RLock()
			return nil
		}
		select {
		case <-run.over:
		case <-run.busy:
			return run
		}
	}
	return nil
}

func (c *conn) leaveGate() {
	c.waits = nil
	if c.gate != nil {
		c.gate.RUnlock()
		c.gate = nil
	}
}

// alone runs f while no other connection runs a command.
func (c *conn) alone(f func()) {
	if c.holdsBack() {
		f() // inside of a transaction, which is alone
		return
	}
	g := &c.srv.gates
	behind := c.gate != nil
	c.leaveGate()
	g.mu.Lock()
	for _, gate := range g.all {
		gate.Lock()
	}
	f()
	for _, gate := range g.all {
		gate.Unlock()
	}
	g.mu.Unlock()
	if behind {
		c.enterGateAgain()
	}
}

// aloneAtOnce is alone for a connection in a loop, whose others must not wait. It
// reports false, and does not call f, if another connection is alone, or one
// outside of the loops does not end its command at once.
func (c *conn) aloneAtOnce(f func()) bool {
	g := &c.srv.gates
	if !g.mu.TryLock() {
		return false
	}
	defer g.mu.Unlock()
	if !tryFor(&g.shared, gateTries) {
		return false
	}
	defer g.shared.Unlock()
	c.gate.RUnlock()
	loops := g.all[1:]
	for _, gate := range loops {
		gate.Lock()
	}
	f()
	for _, gate := range loops {
		gate.Unlock()
	}
	c.gate.RLock() // at once: who is to be alone needs g.mu
	return true
}

func tryFor(gate *sync.RWMutex, times int) bool {
	for range times {
		if gate.TryLock() {
			return true
		}
		runtime.Gosched()
	}
	return false
}
