package cluster

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// A member that did not answer is passed over for suspectFor at first, and
	// twice as long each time it fails again, up to suspectMost.
	suspectFor  = time.Second
	suspectMost = 30 * time.Second
)

// breaker is which members did not answer this one lately: long before gossip
// says that one is gone, and also of one that gossips well and serves badly.
// Safe for concurrent use; one atomic load while nobody is suspect.
type breaker struct {
	now    func() time.Time
	some   atomic.Int32 // len(byID)
	passed atomic.Uint64

	mu   sync.Mutex
	byID map[string]*suspicion
}

type suspicion struct {
	until   time.Time
	last    time.Duration
	probing bool // a caller retries
}

// suspect says that a member did not answer.
func (b *breaker) suspect(id string) {
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.byID[id]
	switch {
	case s == nil:
		if b.byID == nil {
			b.byID = map[string]*suspicion{}
		}
		s = &suspicion{last: suspectFor}
		b.byID[id] = s
		b.some.Store(int32(len(b.byID)))
	case now.Before(s.until) && !s.probing:
		return // one failure, told by each that was waiting
	default:
		s.last = min(2*s.last, suspectMost)
	}
	s.until, s.probing = now.Add(s.last), false
}

// trust says that a member answered.
func (b *breaker) trust(id string) {
	if b.some.Load() == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.byID, id)
	b.some.Store(int32(len(b.byID)))
}

// suspected says whether to pass a member over. When its time is up, one
// caller is told that it is not, to retry, and the others wait for that.
func (b *breaker) suspected(id string) bool {
	if b.some.Load() == 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.byID[id]
	if s == nil {
		return false
	}
	if now := b.now(); !now.Before(s.until) {
		// The one that tries has this long to say trust or suspect. It fails
		// again if it says nothing: then the next one tries.
		s.until, s.probing = now.Add(suspectFor), true
		return false
	}
	b.passed.Add(1)
	return true
}

// keep forgets members that are gone.
func (b *breaker) keep(is func(id string) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id := range b.byID {
		if !is(id) {
			delete(b.byID, id)
		}
	}
	b.some.Store(int32(len(b.byID)))
}

// suspects are those that are passed over.
func (b *breaker) suspects() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var ids []string
	for id := range b.byID {
		ids = append(ids, id)
	}
	return ids
}
