package admission

import (
	"context"
	"time"
)

// Lease is what one request, connection or answer holds of a Pool. The zero
// Lease holds nothing, of no pool, and is given whatever it asks for: Open
// makes it one of a pool. It belongs to one goroutine at a time, and must not
// be copied while it holds anything.
type Lease struct {
	pool  *Pool // nil: none
	kind  Kind
	bytes int64 // under Pool.mu
	// request says that it counts in MaxRequests.
	request bool
	bulk    bool // see Bulk

	// For Input and Stranger, under Pool.mu: whom to call when others need the
	// room, and the place among those who may be.
	cut        func()
	wasCut     bool
	progress   time.Time // when it took something last
	prev, next *Lease
	queued     bool
}

// Open makes l, which must hold nothing, a lease of a pool, which may be nil.
// cut is called when others need what it holds and the rest of its request does
// not come: it has to end the wait, and may be called from any goroutine. It may
// come a moment after Release has returned, and has to bear that. It is for Input
// and Stranger, and may be nil.
func (l *Lease) Open(p *Pool, k Kind, cut func()) {
	if l.queued || l.bytes != 0 {
		panic("admission: a lease that holds something is opened again")
	}
	*l = Lease{pool: p, kind: k, cut: cut}
}

// Bulk says that l has no part in what is kept for small reads, however little
// it holds yet: it is for something that grows.
func (l *Lease) Bulk() { l.bulk = true }

// Held is what it holds.
func (l *Lease) Held() int64 {
	if l.pool == nil {
		return 0
	}
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	return l.bytes
}

// Try takes n bytes more, or returns a *Refusal at once.
func (l *Lease) Try(n int64) error {
	return l.takeOr(n, func() bool { return false })
}

// Take takes n bytes more. If there is no room it waits for it, but not long,
// and not beyond ctx; then it returns a *Refusal.
func (l *Lease) Take(ctx context.Context, n int64) error {
	return l.takeOr(n, func() bool { return l.pool.waitLocked(ctx, l, n) })
}

// takeOr asks wait, with the pool locked, whether there is room after all.
func (l *Lease) takeOr(n int64, wait func() bool) error {
	p := l.pool
	if p == nil || n <= 0 {
		return nil
	}
	p.mu.Lock()
	var victims []*Lease
	defer func() {
		p.mu.Unlock()
		for _, v := range victims {
			v.cutOff()
		}
	}()
	if l.wasCut {
		return p.refuseLocked(l, n)
	}
	small := l.small(n)
	ok := (len(p.waiting[l.kind]) == 0 || small) && p.roomLocked(l, n)
	switch {
	case ok:
		p.grantLocked(l, n)
	case l.bytes+n > p.share[l.kind]:
		return p.refuseLocked(l, n) // no use to wait
	default:
		if victims = p.makeWayLocked(l, n); p.roomLocked(l, n) {
			p.grantLocked(l, n)
			break
		}
		if !wait() {
			return p.refuseLocked(l, n)
		}
	}
	l.progressLocked()
	return nil
}

// small says whether l is a small read, input or write with n bytes more.
func (l *Lease) small(n int64) bool {
	switch l.kind {
	case Read:
		return !l.bulk && l.bytes+n <= smallBytes
	case Input:
		return l.bytes+n <= smallInputBytes
	case Write:
		return l.bytes+n <= smallWriteBytes
	}
	return false
}

// Keep gives back what l holds beyond n bytes.
func (l *Lease) Keep(n int64) {
	p := l.pool
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.bytes > n {
		p.grantLocked(l, n-l.bytes)
		p.wakeLocked()
	}
}

// Begin makes the lease that of a whole request, which is worked on and waits
// for its client no more. It keeps what it holds, and counts in MaxRequests.
// Refused, it stays as it was.
func (l *Lease) Begin() error {
	p := l.pool
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.wasCut {
		return p.refuseLocked(l, 0)
	}
	if p.requests >= p.o.MaxRequests {
		p.stats.RefusedRequests++
		return &Refusal{Kind: Write, Asked: 1, InUse: int64(p.requests), Limit: int64(p.o.MaxRequests), Setting: p.o.RequestsSetting, After: p.afterLocked(), unit: "request"}
	}
	p.requests++
	p.stats.Admitted++
	l.request = true
	l.leaveLocked()
	n := l.bytes
	p.grantLocked(l, -n)
	l.kind = Write
	p.grantLocked(l, n)
	p.wakeLocked()
	return nil
}

// Release gives back everything. The lease may be used again, as it was opened.
func (l *Lease) Release() {
	p := l.pool
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	l.leaveLocked()
	l.wasCut = false
	if l.request {
		l.request = false
		p.requests--
	}
	if l.bytes > 0 {
		p.grantLocked(l, -l.bytes)
		p.wakeLocked()
	}
}

// progressLocked puts l behind all others that can be cut.
func (l *Lease) progressLocked() {
	if l.cut == nil || l.kind != Input && l.kind != Stranger {
		return
	}
	l.leaveLocked()
	l.progress = l.pool.o.Now()
	l.pool.stalling[l.kind].push(l)
}

func (l *Lease) leaveLocked() {
	if l.queued {
		l.pool.stalling[l.kind].remove(l)
	}
}

// makeWayLocked takes the bytes of those who have not sent anything for long
// until l has room for n more. The caller has to cut off those returned when
// it has let go of the lock.
func (p *Pool) makeWayLocked(l *Lease, n int64) (victims []*Lease) {
	if l.kind != Input && l.kind != Stranger {
		return nil
	}
	q := &p.stalling[l.kind]
	for late := p.o.Now().Add(-graceTime); !p.roomLocked(l, n); {
		v := q.first
		if v == l && v != nil {
			v = v.next
		}
		if v == nil || v.progress.After(late) {
			break
		}
		q.remove(v)
		p.grantLocked(v, -v.bytes)
		v.wasCut = true
		p.stats.Cut[l.kind]++
		victims = append(victims, v)
	}
	return victims
}

// cutOff calls the cut function of a victim, unless it was released meanwhile.
func (l *Lease) cutOff() {
	p := l.pool
	p.mu.Lock()
	cut := l.cut
	if !l.wasCut {
		cut = nil
	}
	p.mu.Unlock()
	if cut != nil {
		cut()
	}
}

// leaseQueue is a doubly linked list through its leases.
type leaseQueue struct{ first, last *Lease }

func (q *leaseQueue) push(l *Lease) {
	l.prev, l.next, l.queued = q.last, nil, true
	if q.last == nil {
		q.first = l
	} else {
		q.last.next = l
	}
	q.last = l
}

func (q *leaseQueue) remove(l *Lease) {
	if l.prev == nil {
		q.first = l.next
	} else {
		l.prev.next = l.next
	}
	if l.next == nil {
		q.last = l.prev
	} else {
		l.next.prev = l.prev
	}
	l.prev, l.next, l.queued = nil, nil, false
}
