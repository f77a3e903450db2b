package ingest

import (
	"math/bits"
	"sync"
)

// spares are the large buffers that are kept for the next who needs one. To allocate
// one costs more than what it is for: it is cleared, the kernel clears its pages
// before, and as the heap is small, every few of them begin a collection.
//
// Those in use are in their users' leases. What is kept is in nobody's, so it has a
// bound of its own, in sum: however many connections have sent or read one large
// value, spareBytes stay, and only for as long as they are of use.
type spares struct {
	mu    sync.Mutex
	bytes int // of free
	free  [spareSizes][][]byte
	least [spareSizes]int // how many of free nobody has needed since the last reap
}

const (
	// spareSizes are the sizes that are kept, powers of two from bufferBytes to 4 MiB.
	// The first has a pool of its own.
	spareSizes = 9
	// spareBytes bounds what is kept: two values of 4 MB that come and two that go.
	spareBytes = 16 << 20
)

// spareSize is the number of the size that n bytes fit in, if it is one of those that
// are kept.
func spareSize(n int) int { return bits.Len(uint(max(n-1, 0) / bufferBytes)) }

// take is a buffer of n bytes, or of a little more.
func (p *spares) take(n int) []byte {
	if b := p.takeSpare(n); b != nil {
		return b
	}
	if size := spareSize(n); size < spareSizes {
		n = bufferBytes << size
	}
	return make([]byte, n)
}

// takeSpare is take where there is one already, nil otherwise.
func (p *spares) takeSpare(n int) []byte {
	size := spareSize(n)
	if size >= spareSizes {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.free[size]) - 1
	if last < 0 {
		return nil
	}
	b := p.free[size][last]
	p.free[size][last] = nil
	p.free[size] = p.free[size][:last]
	p.least[size] = min(p.least[size], last)
	p.bytes -= len(b)
	return b
}

// give keeps a buffer that take gave, if there is room for it.
func (p *spares) give(b []byte) {
	size := spareSize(len(b))
	if size >= spareSizes || len(b) != bufferBytes<<size {
		return
	}
	p.mu.Lock()
	if p.bytes+len(b) <= spareBytes {
		p.free[size] = append(p.free[size], b)
		p.bytes += len(b)
	}
	p.mu.Unlock()
}

// reap lets go of what nobody has needed since it was called last.
func (p *spares) reap() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for size := range p.free {
		for range min(p.least[size], len(p.free[size])) {
			last := len(p.free[size]) - 1
			p.bytes -= len(p.free[size][last])
			p.free[size][last] = nil
			p.free[size] = p.free[size][:last]
		}
		p.least[size] = len(p.free[size])
	}
}
