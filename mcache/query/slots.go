package query

import "sync"

// slots are turns, of which there are a number that can change: those under way
// are let end, and that many fewer begin.
type slots struct {
	// free has an element for each that nobody has. Elements have no size, so that
	// room for any number costs nothing.
	free chan struct{}

	mu     sync.Mutex
	n      int // how many there are
	excess int // of those that are had, how many go when they are given back
}

// maxSlots is more than any machine has a use for, and counted in no time.
const maxSlots = 1 << 20

func newSlots(n int) *slots {
	s := &slots{free: make(chan struct{}, maxSlots)}
	s.set(n)
	return s
}

// set changes how many there are.
func (s *slots) set(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = min(n, maxSlots)
	for ; s.n < n; s.n++ {
		if s.excess > 0 {
			s.excess--
		} else {
			s.free <- struct{}{}
		}
	}
	for ; s.n > n; s.n-- {
		select {
		case <-s.free:
		default:
			s.excess++
		}
	}
}

// leave gives one back that was received from free.
func (s *slots) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.excess > 0 {
		s.excess--
	} else {
		s.free <- struct{}{}
	}
}

// total is how many there are.
func (s *slots) total() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

// taken is how many are had.
func (s *slots) taken() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n + s.excess - len(s.free)
}
