// Package bad breaks each part of the rule once, and keeps it in as many ways.
package bad

import (
	"sync"
	"sync/atomic"
)

type box struct {
	size int // fixed

	mu    sync.Mutex
	items []int
	seen  atomic.Int64
	part
}

type part struct{ n int }

// What is right.

func newBox() *box { return &box{part: part{n: 1}} }

func (b *box) room() int      { return b.size + int(b.seen.Load()) }
func (b *box) lenLocked() int { return len(b.items) + b.n }
func (p *part) moreLocked()   { p.n++ }

func (b *box) length() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lenLocked()
}

// waitLocked lets go of the
// lock for a moment.
func (b *box) waitLocked() {
	b.mu.Unlock()
	b.mu.Lock()
}

func (b *box) closeAndUnlock() {
	b.items = nil
	b.mu.Unlock()
}

func (b *box) lock() *box {
	b.mu.Lock()
	return b
}

func use(b *box) int {
	b.lock()
	n := len(b.items)
	b.mu.Unlock()
	return n
}

// What is not.

func (b *box) bare() int       { return len(b.items) }
func (b *box) viaPart() int    { return b.n }
func (p *part) partBare()      { p.n++ }
func (b *box) calls()          { b.moreLocked() }
func (b *box) freeLocked() int { return b.size }

func (b *box) takesLocked() {
	b.mu.Lock()
	b.mu.Unlock()
}

func (b *box) twiceLocked() int { return b.lenLocked() + b.length() }

func (b *box) quietLocked() {
	b.mu.Unlock()
	b.mu.Lock()
}

// laterLocked says nothing of what waitLocked does.
func (b *box) laterLocked() { b.waitLocked() }

func (b *box) before() int {
	n := len(b.items)
	b.mu.Lock()
	defer b.mu.Unlock()
	return n
}

func outside(b *box) int { return b.lenLocked() }
func allowed(b *box) int { return b.lenLocked() }
