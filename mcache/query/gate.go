package query

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
)

// errGateFull says that so many wait already that waiting is pointless.
var errGateFull = errors.New("too many queries wait")

// A gate lets a number of queries run and a number of others wait for that.
type gate struct {
	slots      *slots // of running queries
	waiting    atomic.Int64
	maxWaiting int64
	rejected   atomic.Uint64
}

func newGate(maxRunning, maxWaiting int) *gate {
	return &gate{slots: newSlots(maxRunning), maxWaiting: int64(maxWaiting)}
}

// enter returns nil when the caller may run; it must leave afterwards. Else it
// returns errGateFull or what ended ctx.
func (g *gate) enter(ctx context.Context) error {
	select {
	case <-g.slots.free:
		return nil
	default:
	}
	if n := g.waiting.Add(1); n > g.maxWaiting {
		g.waiting.Add(-1)
		g.rejected.Add(1)
		return fmt.Errorf("%w: %d run and %d wait, no more may", errGateFull, g.slots.total(), g.maxWaiting)
	}
	defer g.waiting.Add(-1)
	select {
	case <-g.slots.free:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gate) leave() { g.slots.leave() }
