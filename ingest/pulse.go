package ingest

import (
	"context"
	"sync/atomic"
	"time"
)

// A node that stands still (SIGSTOP, a machine without processor time) for as long as
// the others need to drop it does not know, when it goes on, whether they served its
// slots meanwhile. What came to its sockets would be answered by what it had before, in
// the milliseconds until it is told. So it notices itself: a ticker renews a stamp,
// and who runs commands holds the time that it has read against it. From when the
// stamp was too old until others have said what they know no keys are served.
//
// The time is read after the input was. What a node runs that came before it stood
// still was under way all the time, and might have been run before.
//
// The clock is the system's monotonic one. Where it stands still with the node, as in
// most paused virtual machines, nothing is noticed here, and the node serves its keys
// until it is told.
type pulse struct {
	beat    atomic.Int64 // nanos of the last one; 0 before the first
	stopped atomic.Bool  // it was too late, and nobody has said yet what that means
}

const (
	pulseEvery = 100 * time.Millisecond
	// pulseMost is how late a beat may be. Gossip takes 1.5 s at the least from when
	// it suspects a member (ingest/cluster: tune) until it drops it.
	pulseMost = time.Second
)

// runs says whether the node did not stand still before now, in nanos.
func (p *pulse) runs(now int64) bool {
	beat := p.beat.Load() // before stopped, which is set before the beat is renewed
	return beat == 0 || now-beat <= int64(pulseMost) && !p.stopped.Load()
}

// beats renews the stamp, and reports whether it was too old.
func (p *pulse) beats(now int64) (late bool) {
	beat := p.beat.Load()
	late = beat != 0 && now-beat > int64(pulseMost)
	if late {
		p.stopped.Store(true)
	}
	p.beat.Store(now)
	return late
}

// watchPulse beats, and asks others when it was too late, until the server ends.
func (s *Server) watchPulse() {
	defer s.wg.Done()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	tick := time.NewTicker(pulseEvery)
	defer tick.Stop()
	reassured, asking, again := make(chan struct{}, 1), false, false
	ask := func() {
		asking, again = true, false
		s.wg.Go(func() {
			s.o.Cluster.Reassure(ctx)
			reassured <- struct{}{}
		})
	}
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
			switch late := s.pulse.beats(s.nanos()); {
			case late && asking:
				again = true // they may have answered before
			case late:
				s.o.Logger.Warn("This node stood still: it serves no keys until others have said whether they served them meanwhile.")
				ask()
			}
		case <-reassured:
			if asking = false; again {
				ask()
			} else {
				s.pulse.stopped.Store(false)
			}
		}
	}
}
