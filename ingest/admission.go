package ingest

import (
	"fmt"
	"sync"
	"time"
)

// AdmissionOptions bound what all front doors together have in hand; the zero
// value of a field means its default.
type AdmissionOptions struct {
	// MaxBytesInFlight bounds the bytes of requests that were read, or are
	// about to be, and not answered yet: as they came, and decompressed. The
	// largest request must fit. Default 256 MiB.
	MaxBytesInFlight int64
	// MaxRequests bounds how many requests there are at a time. Default 1,024.
	MaxRequests int
	// RetryAfter is what a refused client is told to wait at the least. The
	// hint grows to four times as much as refusals follow one another, so
	// that a crowd of senders spreads out. Default one second.
	RetryAfter time.Duration
}

// Admission decides whether there is room for one more request. It never
// makes a caller wait: senders of remote write keep what is refused and try
// again, which queues it where there is room, with them.
//
// It is safe for concurrent use.
type Admission struct {
	o AdmissionOptions

	mu       sync.Mutex
	bytes    int64
	requests int
	row      int // refusals since the last success
	stats    AdmissionStats
}

// AdmissionStats is a reading of an Admission.
type AdmissionStats struct {
	BytesInFlight    int64
	RequestsInFlight int
	Admitted         uint64
	RefusedBytes     uint64 // requests refused because of MaxBytesInFlight, half-read ones included
	RefusedRequests  uint64 // requests refused because of MaxRequests
}

// NewAdmission returns an Admission with nothing in flight.
func NewAdmission(o AdmissionOptions) (*Admission, error) {
	if o.MaxBytesInFlight < 0 || o.MaxRequests < 0 || o.RetryAfter < 0 {
		return nil, fmt.Errorf("ingest: admission limits must not be negative, got %d bytes, %d requests, retry after %v",
			o.MaxBytesInFlight, o.MaxRequests, o.RetryAfter)
	}
	if o.MaxBytesInFlight == 0 {
		o.MaxBytesInFlight = 256 << 20
	}
	if o.MaxRequests == 0 {
		o.MaxRequests = 1024
	}
	if o.RetryAfter == 0 {
		o.RetryAfter = time.Second
	}
	return &Admission{o: o}, nil
}

// Acquire asks for room for one more request, with the first of its bytes. If
// ok, the caller must Release it when it is done with. If not, the client may
// try again after retryAfter.
func (a *Admission) Acquire(bytes int64) (ok bool, retryAfter time.Duration) {
	return a.ask(1, bytes)
}

// Extend asks for more bytes for a request that was let in. If they are
// refused, it is still in, with the bytes it had.
func (a *Admission) Extend(bytes int64) (ok bool, retryAfter time.Duration) {
	return a.ask(0, bytes)
}

func (a *Admission) ask(requests int, bytes int64) (ok bool, retryAfter time.Duration) {
	bytes = max(bytes, 0)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.requests+requests > a.o.MaxRequests:
		a.stats.RefusedRequests++
	case bytes > a.o.MaxBytesInFlight-a.bytes:
		a.stats.RefusedBytes++
	default:
		a.bytes += bytes
		a.requests += requests
		a.row = 0
		a.stats.Admitted += uint64(requests)
		return true, 0
	}
	a.row++
	return false, a.o.RetryAfter * time.Duration(min(1+a.row/16, 4))
}

// Release ends a request that was let in, which had so many bytes in all.
func (a *Admission) Release(bytes int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.bytes -= max(bytes, 0)
	a.requests--
	if a.bytes < 0 || a.requests < 0 {
		panic("ingest: more was released than was acquired")
	}
}

// Stats reads the counters.
func (a *Admission) Stats() AdmissionStats {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.stats
	s.BytesInFlight, s.RequestsInFlight = a.bytes, a.requests
	return s
}
