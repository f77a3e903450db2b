package send

import (
	"errors"
	"net/http"
	"time"
)

// A receiver that serves several tenants may refuse what is of one of them: it
// sends too much, or is not known. The lane then holds the bucket for a while,
// longer each time, and goes on with the others. What it holds stays dirty.

// errHeld says that a bucket is held.
var errHeld = errors.New("the bucket is held")

// isTenants says whether a status is about the tenant, where there are some,
// and not about the receiver.
func isTenants(status int) bool {
	switch status {
	case http.StatusTooManyRequests, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		return true
	}
	return false
}

// holds are the buckets that a lane holds; there are never more than the cache
// has had buckets. Times are those of the forwarder's stopwatch.
type holds struct {
	held map[string]hold
	list []string // what now returns
}

type hold struct {
	until   time.Duration
	backoff time.Duration // of the next hold
}

// begin holds a bucket for as long as the receiver asks, and at least for a
// back-off that is doubled each time.
func (h *holds) begin(bucket string, now, retryAfter time.Duration, o *ForwarderOptions) {
	if h.held == nil {
		h.held = make(map[string]hold)
	}
	backoff := max(h.held[bucket].backoff, o.MinBackoff)
	h.held[bucket] = hold{until: now + max(backoff, retryAfter), backoff: min(2*backoff, o.MaxBackoff)}
}

// end is for a bucket that the receiver has taken something of.
func (h *holds) end(bucket string) {
	if len(h.held) > 0 {
		delete(h.held, bucket)
	}
}

// now lists the buckets that are held. The list is valid until the next call.
func (h *holds) now(now time.Duration) []string {
	h.list = h.list[:0]
	for bucket, x := range h.held {
		if x.until > now {
			h.list = append(h.list, bucket)
		}
	}
	return h.list
}

// first is how long it takes until the first of them is not held any more.
func (h *holds) first(now time.Duration) (rest time.Duration, held bool) {
	for _, x := range h.held {
		if d := x.until - now; d > 0 && (!held || d < rest) {
			rest, held = d, true
		}
	}
	return rest, held
}
