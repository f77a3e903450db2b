package send

import (
	"math"
	"time"

	"mcached/mcache"
)

// Where several nodes hold the same points, one of them forwards each, and the
// others keep it on standby (mcache, standby.go). Who that is, and when he has,
// is known to whoever calls what is in this file. Times are those of Elapsed.

// StandbyRules say what becomes of points on standby.
type StandbyRules struct {
	// Slot says of which kind a series is. It is asked once for each, and keeps nothing.
	Slot func(bucket string, s *Series) uint16
	// Judge says of points of a series of that kind that came between two times,
	// whether this node is to forward them, or else the time before which all
	// has been forwarded that came. It must be quick.
	Judge func(slot uint16, from, to time.Duration) (before time.Duration, mine bool)
}

// Elapsed is the time since the forwarder was made.
func (f *Forwarder) Elapsed() time.Duration { return f.age.read() }

// SentAge is how long ago the last moment was before which nothing came that is
// this node's to forward, and has yet to be.
func (f *Forwarder) SentAge() time.Duration {
	before := f.o.Cache.SentBefore()
	now := f.age.read()
	if before == math.MaxUint32 {
		return 0
	}
	return now - min(now, time.Duration(max(before, 1)-1)*f.tick)
}

// SettleStandby goes through all that is on standby.
func (f *Forwarder) SettleStandby(rules StandbyRules) {
	f.setTick() // what came until now came before the checkpoints that follow
	var s Series
	in := mcache.StandbyRules{
		Slot: func(bucket string, labels []mcache.Label) uint16 {
			s.Labels = labels
			return rules.Slot(bucket, &s)
		},
		Judge: func(slot uint16, from, to uint32) (uint32, bool) {
			before, mine := rules.Judge(slot, time.Duration(max(from, 1)-1)*f.tick, time.Duration(to)*f.tick)
			return f.tickAt(max(before, 0)), mine
		},
	}
	for shard := range f.o.Cache.Shards() {
		released, promoted := f.o.Cache.SettleStandby(shard, in)
		f.counters.released.Add(uint64(released))
		f.counters.promoted.Add(uint64(promoted))
	}
}
