package query

import "sync"

// chores are what goroutines do beside requests. An end asks those that run to
// hurry, waits for them, and has none begun again.
type chores struct {
	quit chan struct{} // closed by the end

	mu      sync.Mutex // of what follows
	ended   bool
	running sync.WaitGroup
}

func newChores() chores { return chores{quit: make(chan struct{})} }

// begin reports whether another may run. It must say when it is done.
func (c *chores) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.running.Add(1)
	}
	return !c.ended
}

func (c *chores) done() { c.running.Done() }

func (c *chores) end() {
	c.mu.Lock()
	if !c.ended {
		c.ended = true
		close(c.quit)
	}
	c.mu.Unlock()
	c.running.Wait()
}
