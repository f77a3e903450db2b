package remotewrite

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// A body costs what has come of it. A sender that announces much, or nothing,
// and then takes its time holds neither memory nor bytes of admission for what
// it has not sent; and what it says that a body decompresses to is looked at
// only when the body is whole.

// lease is what admission has lent to a request.
type lease struct {
	h    *Handler
	loan Loan // nil without admission

	mu   sync.Mutex
	wait func(until time.Time) error // sets until when the body is waited for; nil while it is not
}

func (h *Handler) lease() *lease {
	l := &lease{h: h}
	if h.o().Admission != nil {
		l.loan = h.o().Admission(l.cut)
	}
	return l
}

// cut ends the wait for the rest of a body: its room is needed, and the sender
// does not use it.
func (l *lease) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wait != nil {
		_ = l.wait(time.Unix(1, 0)) // it is the deadline of a connection that is there
	}
}

// waits says how to end the wait for the body, or that there is none any more.
func (l *lease) waits(how func(until time.Time) error) {
	l.mu.Lock()
	l.wait = how
	l.mu.Unlock()
}

// take asks for n more bytes. A nil lease is given whatever it asks for.
func (l *lease) take(n int) error {
	if l == nil || l.loan == nil {
		return nil
	}
	return l.refusal(l.loan.Try(int64(n)))
}

// begin says that the request is whole, and asks whether it may be worked on.
func (l *lease) begin() error {
	if l.loan == nil {
		return nil
	}
	return l.refusal(l.loan.Begin())
}

// refusal is what the sender is told of an error of admission.
func (l *lease) refusal(err error) error {
	if err == nil {
		return nil
	}
	l.h.counters.notAdmitted.Add(1)
	var later interface {
		RetryAfter() (after time.Duration, ok bool)
	}
	if errors.As(err, &later) {
		after, ok := later.RetryAfter()
		if !ok { // it would never be admitted
			return refused{http.StatusRequestEntityTooLarge, 0, err}
		}
		return refused{http.StatusServiceUnavailable, max(after, time.Second), err}
	}
	return refused{http.StatusServiceUnavailable, l.h.o().RetryAfter, err}
}

// release gives back everything.
func (l *lease) release() {
	if l.loan != nil {
		l.loan.Release()
	}
}

// read reads the body, which must be whole within BodyTimeout, into b.
func (h *Handler) read(w http.ResponseWriter, r *http.Request, b *[]byte, l *lease) error {
	return h.readUpTo(h.o().MaxBodyBytes, w, r, b, l)
}

// readUpTo reads a body of that many bytes at the most.
func (h *Handler) readUpTo(limit int, w http.ResponseWriter, r *http.Request, b *[]byte, l *lease) (err error) {
	want := r.ContentLength
	if want > int64(limit) {
		return refused{http.StatusRequestEntityTooLarge, 0, fmt.Errorf("%w: a body of %d bytes, more than %d%s", errTooLarge, want, limit, h.o().flag("MaxBodyBytes"))}
	}
	// Not every ResponseWriter has a deadline to set, those of tests have none.
	rc := http.NewResponseController(w)
	if rc.SetReadDeadline(time.Now().Add(h.o().BodyTimeout)) == nil {
		l.waits(rc.SetReadDeadline)
		defer func() {
			l.waits(nil)
			if err == nil {
				rc.SetReadDeadline(time.Time{})
				return
			}
			// The server would read on to save the connection. The deadline,
			// and this, keep it from waiting for the same slow sender.
			w.Header().Set("Connection", "close")
		}()
	}
	if want >= 0 {
		*b, err = readAll((*b)[:0], r.Body, int(want), l)
		if err == nil && len(*b) < int(want) {
			err = io.ErrUnexpectedEOF
		}
	} else {
		*b, err = readAll((*b)[:0], r.Body, limit+1, l)
		if err == nil && len(*b) > limit {
			return refused{http.StatusRequestEntityTooLarge, 0, fmt.Errorf("%w: a body of more than %d bytes%s", errTooLarge, limit, h.o().flag("MaxBodyBytes"))}
		}
	}
	h.counters.bodyBytes.Add(uint64(len(*b)))
	switch {
	case err == nil:
		return nil
	case errors.As(err, new(refused)):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		// A stalled network is no fault of the request: it may be retried.
		h.counters.slowBodies.Add(1)
		return refused{http.StatusServiceUnavailable, h.o().RetryAfter, fmt.Errorf("%d bytes of the body came within %v", len(*b), h.o().BodyTimeout)}
	default:
		return refused{http.StatusBadRequest, 0, fmt.Errorf("reading the body, after %d bytes: %w", len(*b), err)}
	}
}

const (
	// firstBodyBytes are lent before any have come: most bodies are not larger.
	firstBodyBytes = 64 << 10
	// freeBodyBytes is the size of a body that admission is not asked for, so that
	// halves of large ones do not keep it out: no more than the server's own
	// buffer of the connection, and bounded as connections are.
	freeBodyBytes = 4 << 10
)

// readAll appends to b, which is empty, until the end, or until it has limit
// bytes. Beyond firstBodyBytes there is never more lent than twice what has come.
func readAll(b []byte, r io.Reader, limit int, l *lease) ([]byte, error) {
	for lent := 0; len(b) < limit; {
		if len(b) == lent {
			more := min(max(lent, firstBodyBytes), limit-lent)
			if limit > freeBodyBytes {
				if err := l.take(more); err != nil {
					return b, err
				}
			}
			if lent += more; cap(b) < lent {
				b = append(make([]byte, 0, lent), b...)
			}
		}
		n, err := r.Read(b[len(b):lent])
		b = b[:len(b)+n]
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return b, err
		}
	}
	return b, nil
}

// Buffers that grew for a request beyond these are not kept for the next.
const (
	keepBytes   = 8 << 20
	keepSeries  = 64 << 10
	keepSamples = 256 << 10
)

func (h *Handler) putBackBody(b *[]byte) {
	poison(*b)
	if cap(*b) <= keepBytes {
		h.bodies.Put(b)
	}
}

func (h *Handler) putBack(in *intake) {
	in.closeWindow()
	poison(in.decoded)
	in.lease = nil
	if cap(in.decoded) > keepBytes || cap(in.series)+cap(in.at)+cap(in.syms) > 3*keepSeries ||
		cap(in.batch.Samples()) > keepSamples || in.batch.Len() > keepSeries || in.most-in.left > keepSamples {
		return
	}
	h.intakes.Put(in)
}
