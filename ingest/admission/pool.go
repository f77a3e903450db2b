package admission

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Kind is what bytes are held for.
type Kind uint8

const (
	Write    Kind = iota // whole requests being worked on
	Input                // requests that are not whole
	Stranger             // the same, before the password
	Read                 // results and answers
	kinds
)

// Kinds are all of them, in order.
var Kinds = [...]Kind{Write, Input, Stranger, Read}

var kindNames = [kinds]string{"write", "input", "stranger", "read"}

// String is a word for labels.
func (k Kind) String() string { return kindNames[k] }

// plural names the holders in a Refusal.
var plural = [kinds]string{"writes", "requests that are not whole", "clients without a password", "reads"}

// Options configure a Pool; the zero value of a field means its default.
type Options struct {
	// MaxBytes bounds what all leases hold together. Default 256 MiB.
	MaxBytes int64
	// MaxInputBytes is the share of requests that are not whole; the largest
	// request must fit. Default a quarter of MaxBytes, at most half.
	MaxInputBytes int64
	// MaxRequests bounds the writes being worked on at a time. Default 1,024.
	MaxRequests int
	// MaxWait is how long Take waits for room. Default one second.
	MaxWait time.Duration
	// RetryAfter is what a refused client is told to wait at the least. The
	// hint grows to four times as much as refusals follow one another, so
	// that a crowd of senders spreads out. Default one second.
	RetryAfter time.Duration
	// BytesSetting and RequestsSetting name the settings that are MaxBytes and
	// MaxRequests, for texts. Default "MaxBytes" and "MaxRequests".
	BytesSetting, RequestsSetting string
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

const (
	// smallBytes is what a small read holds at most: a selector of a hundred
	// series with its answer.
	smallBytes = 256 << 10
	// smallInputBytes is what a small input holds at most: nearly every body that
	// a remote-write sender sends, and all commands but bulk loads.
	smallInputBytes = 64 << 10
	// smallWriteBytes is what a small write holds at most, decoded: some 5,000
	// samples with their labels, more than senders put into a request by default.
	smallWriteBytes = 1 << 20
	// graceTime is how long the rest of a request may be on its way before
	// others may have its room.
	graceTime = time.Second
	// minBytes is the least that makes sense of the shares.
	minBytes = 1 << 10
)

// Pool is the bytes that all clients share. It is safe for concurrent use.
type Pool struct {
	mu       sync.Mutex
	o        Options
	share    [kinds]int64 // of MaxBytes
	small    [kinds]int64 // what is kept for small ones: of reads and inputs beyond the share of their kind, of writes within it
	used     [kinds]int64
	total    int64 // sum of used
	requests int
	row      int               // refusals since the last success
	waiting  [kinds]waiters    // in the order of asking
	stalling [kinds]leaseQueue // leases that can be cut, the one with the oldest progress first
	stats    Stats
}

// Stats is a reading of a Pool.
type Stats struct {
	Bytes    [kinds]int64 // held now, by Kind
	Limits   [kinds]int64 // what each kind may hold
	Requests int          // writes being worked on now
	Waiting  int          // that wait for room
	Admitted uint64       // writes that were let in
	// RefusedBytes counts by Kind what was refused for want of bytes.
	RefusedBytes [kinds]uint64
	// RefusedRequests counts writes refused because of MaxRequests.
	RefusedRequests uint64
	// Cut counts requests that were cut off because their rest did not come
	// while others needed the room, by Kind.
	Cut [kinds]uint64
}

// New returns a Pool of which nothing is held.
func New(o Options) (*Pool, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	p := &Pool{o: o}
	p.divideLocked() // nobody else has it yet
	return p, nil
}

// SetLimits puts MaxBytes, MaxInputBytes and MaxRequests of o in force. What is
// held beyond them stays until it is given back.
func (p *Pool) SetLimits(o Options) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := p.o
	next.MaxBytes, next.MaxInputBytes, next.MaxRequests = o.MaxBytes, o.MaxInputBytes, o.MaxRequests
	if err := next.setDefaults(); err != nil {
		return err
	}
	p.o = next
	p.divideLocked()
	p.wakeLocked()
	return nil
}

// divideLocked says what of MaxBytes each kind may hold.
func (p *Pool) divideLocked() {
	o := &p.o
	p.share = [kinds]int64{
		Write: o.MaxBytes, Read: o.MaxBytes / 2,
		Input: min(o.MaxInputBytes, o.MaxBytes/2), Stranger: o.MaxBytes / 16,
	}
	p.small = [kinds]int64{Read: o.MaxBytes / 16, Input: o.MaxBytes / 32, Write: o.MaxBytes / 32}
}

func (o *Options) setDefaults() error {
	if o.MaxBytes < 0 || o.MaxInputBytes < 0 || o.MaxRequests < 0 || o.MaxWait < 0 || o.RetryAfter < 0 {
		return fmt.Errorf("admission limits must not be negative, got %d bytes, %d of input, %d requests, to wait for %v, to retry after %v",
			o.MaxBytes, o.MaxInputBytes, o.MaxRequests, o.MaxWait, o.RetryAfter)
	}
	setDefault(&o.MaxBytes, 256<<20)
	setDefault(&o.MaxInputBytes, o.MaxBytes/4)
	setDefault(&o.MaxRequests, 1024)
	setDefault(&o.MaxWait, time.Second)
	setDefault(&o.RetryAfter, time.Second)
	setDefault(&o.BytesSetting, "MaxBytes")
	setDefault(&o.RequestsSetting, "MaxRequests")
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.MaxBytes < minBytes {
		return fmt.Errorf("%s must be at least %d bytes, got %d", o.BytesSetting, minBytes, o.MaxBytes)
	}
	return nil
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Limit is what leases of a kind may hold together.
func (p *Pool) Limit(k Kind) int64 {
	if p == nil {
		return 1<<63 - 1
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.share[k]
}

// Scarce reports whether leases of a kind hold more than half of what they may.
func (p *Pool) Scarce(k Kind) bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.used[k] > p.share[k]/2
}

// roomLocked says whether l may take n bytes more.
func (p *Pool) roomLocked(l *Lease, n int64) bool {
	free, share := p.o.MaxBytes-p.total, p.share[l.kind]
	switch small := l.small(n); {
	case l.kind == Write && !small && l.bytes+n <= p.o.MaxBytes-p.keptLocked():
		free -= p.unusedLocked() + max(0, p.small[Write]-p.used[Write])
	case l.kind != Write && small:
		free -= p.writesPartLocked()
		share += p.small[l.kind]
	case l.kind != Write:
		free -= p.writesPartLocked() + p.unusedLocked()
	}
	return n <= free && n <= share-p.used[l.kind]
}

// writesPartLocked is what writes do not have of the part that is theirs alone.
func (p *Pool) writesPartLocked() int64 { return max(0, p.o.MaxBytes*3/32-p.used[Write]) }

// keptLocked is what is kept for small requests of all kinds. A write that is
// larger than the rest may have that as well, or it would never be admitted.
func (p *Pool) keptLocked() int64 { return p.small[Read] + p.small[Input] + p.small[Write] }

// unusedLocked is what nobody has of what is kept for small reads and inputs.
func (p *Pool) unusedLocked() (n int64) {
	for _, k := range []Kind{Read, Input} {
		n += min(p.small[k], p.share[k]+p.small[k]-p.used[k])
	}
	return n
}

// grantLocked gives l n bytes more, which may be fewer.
func (p *Pool) grantLocked(l *Lease, n int64) {
	l.bytes += n
	p.used[l.kind] += n
	p.total += n
	if p.used[l.kind] < 0 || l.bytes < 0 {
		panic("admission: more was given back than was taken")
	}
	if n > 0 {
		p.row = 0
	}
}

// wakeLocked lets in those who wait, as far as there is room. Those who write
// come first: what they hold is free again soonest.
func (p *Pool) wakeLocked() {
	for k := range p.waiting {
		blocked := false // by a large one, which the small ones behind it do not wait for
		for i := 0; i < len(p.waiting[k]); {
			w := p.waiting[k][i]
			if blocked && !w.lease.small(w.bytes) || !p.roomLocked(w.lease, w.bytes) {
				blocked = true
				i++
				continue
			}
			p.grantLocked(w.lease, w.bytes)
			w.granted = true
			p.waiting[k].remove(w)
			close(w.done)
		}
	}
}

// waiter is a Take that waits. Its fields are guarded by Pool.mu.
type waiter struct {
	lease   *Lease
	bytes   int64
	granted bool
	done    chan struct{} // closed when granted
}

type waiters []*waiter

func (ws *waiters) remove(w *waiter) {
	for i := range *ws {
		if (*ws)[i] == w {
			copy((*ws)[i:], (*ws)[i+1:])
			(*ws)[len(*ws)-1] = nil
			*ws = (*ws)[:len(*ws)-1]
			return
		}
	}
}

// waitLocked queues l for n bytes and returns when it has them, or has waited for
// long enough. It lets go of Pool.mu meanwhile.
func (p *Pool) waitLocked(ctx context.Context, l *Lease, n int64) bool {
	w := &waiter{lease: l, bytes: n, done: make(chan struct{})}
	p.waiting[l.kind] = append(p.waiting[l.kind], w)
	timer := time.NewTimer(p.o.MaxWait)
	p.mu.Unlock()
	select {
	case <-w.done:
	case <-timer.C:
	case <-ctx.Done():
	}
	timer.Stop()
	p.mu.Lock()
	if !w.granted {
		p.waiting[l.kind].remove(w)
		p.wakeLocked() // it may have stood before one that fits
	}
	return w.granted
}

// refuseLocked makes the error for n bytes that l did not get.
func (p *Pool) refuseLocked(l *Lease, n int64) error {
	p.stats.RefusedBytes[l.kind]++
	r := &Refusal{Kind: l.kind, Asked: n, Held: l.bytes, InUse: p.used[l.kind], Limit: p.share[l.kind], Setting: p.o.BytesSetting, unit: "bytes"}
	if l.bytes+n > p.share[l.kind] {
		return r // and will never be granted
	}
	r.After = p.afterLocked()
	return r
}

func (p *Pool) afterLocked() time.Duration {
	p.row++
	return p.o.RetryAfter * time.Duration(min(1+p.row/16, 4))
}

// Stats reads the counters.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Bytes, s.Limits, s.Requests = p.used, p.share, p.requests
	for k := range p.waiting {
		s.Waiting += len(p.waiting[k])
	}
	return s
}

// Refusal is the error of a lease that did not get what it asked for.
type Refusal struct {
	Kind    Kind
	Asked   int64         // what was asked for
	Held    int64         // by the same lease
	InUse   int64         // by all of the kind
	Limit   int64         // of the kind
	Setting string        // the name of what sets the limit
	After   time.Duration // when to retry; 0: it would never fit
	unit    string
}

// Error implements error.
func (r *Refusal) Error() string {
	if r.After == 0 {
		return fmt.Sprintf("needs %d bytes at a time, more than the %d that all %s may have: raise %s", r.Held+r.Asked, r.Limit, plural[r.Kind], r.Setting)
	}
	return fmt.Sprintf("busy: no room for %d %s more, %s have %d of the %d that %s leaves them; try again later", r.Asked, r.unit, plural[r.Kind], r.InUse, r.Limit, r.Setting)
}

// RetryAfter is when to retry; false means that it would never fit.
func (r *Refusal) RetryAfter() (time.Duration, bool) { return r.After, r.After > 0 }
