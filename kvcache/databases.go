package kvcache

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// MaxDatabases bounds the caches of a Databases. Each that is used has open
// regions of its own, which ageing takes from those that are not written any more.
const MaxDatabases = 256

// otherShards: databases other than 0 have a quarter of its shards. What is open
// of all of 16 is then at most a fourteenth of the budget.
const otherShards = 4

// Databases are caches in one Memory that know nothing of each other's keys, by
// number, as Redis' databases are. They hold regions on one account, so that
// what is oldest goes first, whichever of them it is in.
//
// A cache is made when it is first asked for, and takes some kilobytes of Go heap
// until something is written to it. That nothing but At is between a caller and
// a cache is why they are caches and not a prefix of each key: number 0 costs
// what a lone cache costs, and all of a database is counted, walked and
// forgotten without a look at the others.
//
// A Databases is safe for concurrent use.
type Databases struct {
	o  CacheOptions
	at []atomic.Pointer[Cache]
	mu sync.Mutex // held to make and to exchange
}

// NewDatabases returns n databases, of which number 0 is made. Close it.
func NewDatabases(o CacheOptions, n int) (*Databases, error) {
	if n < 1 || n > MaxDatabases {
		return nil, fmt.Errorf("kvcache: databases must be from 1 to %d, got %d", MaxDatabases, n)
	}
	first, err := NewCache(o)
	if err != nil {
		return nil, err
	}
	o.Shards = max(1, len(first.shards)/otherShards)
	d := &Databases{o: o, at: make([]atomic.Pointer[Cache], n)}
	d.at[0].Store(first)
	return d, nil
}

// Len is how many databases there are, made or not.
func (d *Databases) Len() int { return len(d.at) }

// At is a database, made if need be. After Swap it may be another one.
func (d *Databases) At(n int) *Cache {
	if c := d.at[n].Load(); c != nil {
		return c
	}
	return d.make(n)
}

// Made is a database, or nil if nobody has asked for it yet, and so there is
// nothing in it.
func (d *Databases) Made(n int) *Cache { return d.at[n].Load() }

func (d *Databases) make(n int) *Cache {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.at[n].Load(); c != nil {
		return c
	}
	c, err := NewCache(d.o)
	if err != nil {
		panic(err) // the same options made number 0
	}
	d.at[n].Store(c)
	return c
}

// Swap has two databases change their numbers. Callers that must not see it
// half done wait elsewhere.
func (d *Databases) Swap(i, j int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a, b := d.at[i].Load(), d.at[j].Load()
	d.at[i].Store(b)
	d.at[j].Store(a)
}

// Clear forgets everything in all of them.
func (d *Databases) Clear() {
	for n := range d.at {
		if c := d.Made(n); c != nil {
			c.Clear()
		}
	}
}

// Stats is the sum over all of them.
func (d *Databases) Stats() CacheStats {
	var sum CacheStats
	for n := range d.at {
		if c := d.Made(n); c != nil {
			c.addTo(&sum)
		}
	}
	return sum
}

// Close closes those that were made. None may be used or made afterwards.
func (d *Databases) Close() {
	for n := range d.at {
		if c := d.Made(n); c != nil {
			c.Close()
		}
	}
}
