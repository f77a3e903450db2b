package route

import (
	"sync/atomic"
	"time"
)

// Stats are counters since the Router was made.
type Stats struct {
	Requests       uint64        // to other nodes
	RequestTime    time.Duration // of those that were answered, together
	Frames         uint64        // in them
	Bytes          uint64        // of their bodies
	Series         uint64        // sent to other nodes, each time
	Unknown        uint64        // of them, named by prints that the node did not know: sent again with labels
	Rerouted       uint64        // series that were sent to another node, because one had failed
	FailedFrames   uint64        // the node was silent, refused, or was not there
	RefusedFrames  uint64        // the node, or this one, had no room
	FullOutboxes   uint64        // frames that found no room in an outbox
	FewCopies      uint64        // series that came to have fewer copies than they should
	Unacknowledged uint64        // series that had too few acknowledgements when their sender was answered
	Uncut          uint64        // requests that were not cut, because they are malformed
	Forged         uint64        // requests that claimed to come from a node
	OutboxBytes    int64         // in all outboxes and on their way, now
}

type counters struct {
	requests, nanos, frames, bytes, items, unknown, rerouted, failedFrames, refusedFrames atomic.Uint64
	fullOutboxes, fewCopies, unacknowledged, uncut, forged                                atomic.Uint64
	outboxBytes                                                                           atomic.Int64
}

// Stats reads the counters, each by itself.
func (r *Router) Stats() Stats {
	c := &r.counters
	return Stats{
		Requests: c.requests.Load(), RequestTime: time.Duration(c.nanos.Load()), Frames: c.frames.Load(), Bytes: c.bytes.Load(),
		Series: c.items.Load(), Unknown: c.unknown.Load(), Rerouted: c.rerouted.Load(), FailedFrames: c.failedFrames.Load(), RefusedFrames: c.refusedFrames.Load(),
		FullOutboxes: c.fullOutboxes.Load(), FewCopies: c.fewCopies.Load(), Unacknowledged: c.unacknowledged.Load(),
		Uncut: c.uncut.Load(), Forged: c.forged.Load(), OutboxBytes: c.outboxBytes.Load(),
	}
}
