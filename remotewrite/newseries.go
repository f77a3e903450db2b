package remotewrite

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// errNewSeries says that too many new series have come lately. It is answered
// 503: what is refused now is welcome later, and the sender keeps it.
var errNewSeries = errors.New("too many new series")

// allowance is how many series may be created: perSecond, and what was not
// used of the last burst's worth. It keeps a flood of new series, a deployment
// gone wrong or a label that never repeats, from taking the memory of those
// that are read.
type allowance struct {
	bounded atomic.Bool

	mu               sync.Mutex
	perSecond, burst float64
	left             float64
	last             time.Time // zero: nothing was taken since the bound was set
}

// burstSeconds of new series may come at once: a restart of everything that is
// scraped, in an interval of 15 s, and then some.
const burstSeconds = 30

// bound sets how many may come in a second, 0 for any number.
func (a *allowance) bound(perSecond int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := float64(perSecond); n != a.perSecond {
		a.perSecond, a.burst, a.last = n, n*burstSeconds, time.Time{}
		a.bounded.Store(n > 0)
	}
}

func (a *allowance) take(now time.Time) bool {
	if !a.bounded.Load() {
		return true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last.IsZero() {
		a.left = a.burst
	} else if d := now.Sub(a.last); d > 0 {
		a.left = min(a.left+d.Seconds()*a.perSecond, a.burst)
	}
	a.last = now
	if a.left < 1 {
		return false
	}
	a.left--
	return true
}

// giveBack is for a series that was not created after all.
func (a *allowance) giveBack() {
	if !a.bounded.Load() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.left = min(a.left+1, a.burst)
}
