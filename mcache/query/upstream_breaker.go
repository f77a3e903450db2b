package query

import (
	"math"
	"sync"
	"time"
)

// breaker leaves a server alone that has failed several times running: for a
// second, and then twice as long each time, until one request has succeeded.
type breaker struct {
	mu       sync.Mutex
	failures int
	until    time.Time // while it is open
	trying   bool      // one request looks whether it is better
}

const (
	breakerFailures = 3
	breakerMin      = time.Second
	breakerMax      = 30 * time.Second
)

// allows reports whether a request may be sent; answered, failed or forget must
// be called with what became of it.
func (b *breaker) allows(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures < breakerFailures {
		return true
	}
	if b.trying || now.Before(b.until) {
		return false
	}
	b.trying = true
	return true
}

// answered reports whether requests had failed before.
func (b *breaker) answered() (failedBefore bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	failedBefore = b.failures > 0
	b.failures, b.trying = 0, false
	return failedBefore
}

func (b *breaker) failed(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trying = false
	b.failures++
	if more := b.failures - breakerFailures; more >= 0 {
		wait := float64(breakerMin) * math.Pow(2, float64(min(more, 10)))
		b.until = now.Add(min(time.Duration(wait), breakerMax))
	}
}

// forget is for a request that says nothing of the server.
func (b *breaker) forget() {
	b.mu.Lock()
	b.trying = false
	b.mu.Unlock()
}
