package query

import (
	"math"
	"sync"
	"time"
)

// breaker leaves a server alone that has failed several times running: for a
// second, and then twice as long each time, until one request has succeeded. It
// tells when the server is away, and when it is back, once each, to be logged.
type breaker struct {
	mu       sync.Mutex
	failures int
	until    time.Time // while it is open
	trying   bool      // one request looks whether it is better
	heard    bool      // the server has answered
	away     bool      // so it was told
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

// answered reports whether requests had failed before, and whether the server is back.
func (b *breaker) answered() (failedBefore, back bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	failedBefore, back = b.failures > 0, b.away
	b.failures, b.trying, b.heard, b.away = 0, false, true, false
	return failedBefore, back
}

// failed reports whether the server is away from now on.
func (b *breaker) failed(now time.Time) (gone bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trying = false
	b.failures++
	if more := b.failures - breakerFailures; more >= 0 {
		wait := float64(breakerMin) * math.Pow(2, float64(min(more, 10)))
		b.until = now.Add(min(time.Duration(wait), breakerMax))
		gone, b.away = !b.away, true
	}
	return gone
}

// silent is told that the server did not say what it is. One that has not answered
// anything yet is away.
func (b *breaker) silent() (gone bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if gone = !b.heard && !b.away; gone {
		b.away = true
	}
	return gone
}

// spoke is told that the server said what it is. Requests may fail all the same.
func (b *breaker) spoke() (back bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.heard = true; b.failures < breakerFailures {
		back, b.away = b.away, false
	}
	return back
}

// renew forgets all, as of another server.
func (b *breaker) renew() {
	b.mu.Lock()
	b.failures, b.trying, b.heard, b.away = 0, false, false, false
	b.mu.Unlock()
}

// forget is for a request that says nothing of the server.
func (b *breaker) forget() {
	b.mu.Lock()
	b.trying = false
	b.mu.Unlock()
}
