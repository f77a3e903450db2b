package main

import "container/list"

// Models of policies that choose entry by entry and cost nothing but
// entryCost an entry: what a cache of regions is compared with.

// entryCost is what the models count for an entry beside its value, in bytes.
const entryCost = 50

// policy answers one request after the other: whether the key was there. It
// is afterwards, if it fits.
type policy interface {
	request(key uint64, cost int64) (hit bool)
}

var policies = []struct {
	name string
	make func(bytes int64) policy
}{
	{"LRU", func(n int64) policy { return &lru{room: n, at: map[uint64]*list.Element{}} }},
	{"SIEVE", func(n int64) policy { return &sieve{room: n, at: map[uint64]*list.Element{}} }},
	{"S3-FIFO", func(n int64) policy { return newS3FIFO(n) }},
}

// hitRatio is the share of the requests that a policy answers.
func hitRatio(p policy, all []request) float64 {
	hits := 0
	for _, q := range all {
		if p.request(q.key, int64(q.bytes)+entryCost) {
			hits++
		}
	}
	return float64(hits) / float64(max(len(all), 1))
}

// modelEntry is one of a model's.
type modelEntry struct {
	key  uint64
	cost int64
	read uint8 // how often, up to the policy's bound
	main bool  // of S3-FIFO
}

// lru drops what was not read for the longest time.
type lru struct {
	room  int64
	used  int64
	order list.List // youngest first
	at    map[uint64]*list.Element
}

func (p *lru) request(key uint64, cost int64) bool {
	if e := p.at[key]; e != nil {
		p.order.MoveToFront(e)
		return true
	}
	if cost > p.room {
		return false
	}
	for p.used+cost > p.room {
		e := p.order.Back()
		old := p.order.Remove(e).(*modelEntry)
		delete(p.at, old.key)
		p.used -= old.cost
	}
	p.at[key] = p.order.PushFront(&modelEntry{key: key, cost: cost})
	p.used += cost
	return false
}

// sieve drops what its hand finds unread on its way from the oldest to the
// youngest (Zhang et al., NSDI 2024).
type sieve struct {
	room  int64
	used  int64
	order list.List // youngest first
	at    map[uint64]*list.Element
	hand  *list.Element
}

func (p *sieve) request(key uint64, cost int64) bool {
	if e := p.at[key]; e != nil {
		e.Value.(*modelEntry).read = 1
		return true
	}
	if cost > p.room {
		return false
	}
	for p.used+cost > p.room {
		e := p.hand
		for e == nil || e.Value.(*modelEntry).read > 0 {
			if e == nil {
				e = p.order.Back()
				continue
			}
			e.Value.(*modelEntry).read = 0
			e = e.Prev()
		}
		p.hand = e.Prev()
		old := p.order.Remove(e).(*modelEntry)
		delete(p.at, old.key)
		p.used -= old.cost
	}
	p.at[key] = p.order.PushFront(&modelEntry{key: key, cost: cost})
	p.used += cost
	return false
}

// s3fifo has a small queue of a tenth of the bytes, a main one, and at most as many
// ghosts as entries, of what left the small one read once at the most (Yang et al.,
// SOSP 2023).
type s3fifo struct {
	room, small       int64
	usedSmall, usedAt int64     // bytes in the small queue, and in the main one
	queue, main       list.List // youngest first
	at                map[uint64]*list.Element
	ghosts            list.List
	ghost             map[uint64]*list.Element
}

func newS3FIFO(bytes int64) *s3fifo {
	return &s3fifo{room: bytes, small: bytes / 10, at: map[uint64]*list.Element{}, ghost: map[uint64]*list.Element{}}
}

const s3fifoMaxRead = 3

func (p *s3fifo) request(key uint64, cost int64) bool {
	if e := p.at[key]; e != nil {
		m := e.Value.(*modelEntry)
		m.read = min(m.read+1, s3fifoMaxRead)
		return true
	}
	if cost > p.room {
		return false
	}
	for p.usedSmall+p.usedAt+cost > p.room {
		p.evict()
	}
	m := &modelEntry{key: key, cost: cost}
	if g := p.ghost[key]; g != nil {
		p.ghosts.Remove(g)
		delete(p.ghost, key)
		p.pushMain(m)
	} else {
		p.pushSmall(m)
	}
	return false
}

func (p *s3fifo) pushMain(m *modelEntry) {
	m.main = true
	p.at[m.key] = p.main.PushFront(m)
	p.usedAt += m.cost
}

func (p *s3fifo) pushSmall(m *modelEntry) {
	m.main = false
	p.at[m.key] = p.queue.PushFront(m)
	p.usedSmall += m.cost
}

// evict takes one step: something leaves a queue.
func (p *s3fifo) evict() {
	if p.queue.Len() > 0 && (p.usedSmall >= p.small || p.main.Len() == 0) {
		m := p.queue.Remove(p.queue.Back()).(*modelEntry)
		p.usedSmall -= m.cost
		if m.read > 1 {
			m.read = 0
			p.pushMain(m)
			return
		}
		delete(p.at, m.key)
		p.ghost[m.key] = p.ghosts.PushFront(m.key)
		for p.ghosts.Len() > len(p.at) {
			delete(p.ghost, p.ghosts.Remove(p.ghosts.Back()).(uint64))
		}
		return
	}
	m := p.main.Remove(p.main.Back()).(*modelEntry)
	p.usedAt -= m.cost
	if m.read > 0 {
		m.read--
		p.pushMain(m)
		return
	}
	delete(p.at, m.key)
}
