//go:build kvdebug

package kvcache

import (
	"sync"
	"time"
)

// scrubFreed makes freed bytes unreadable, to catch whoever still reads them.
const scrubFreed = true

// checks are what a debug build does beside its work.
type checks struct {
	mu   sync.Mutex
	next time.Time // no check begins before
}

// now panics where check finds an invariant broken. It spends a tenth of the
// time at the most; a call that comes sooner does nothing.
func (c *checks) now(check func() error) {
	if !c.mu.TryLock() {
		return
	}
	defer c.mu.Unlock()
	began := time.Now()
	if began.Before(c.next) {
		return
	}
	if err := check(); err != nil {
		panic("kvcache: " + err.Error())
	}
	c.next = time.Now().Add(9 * time.Since(began))
}
