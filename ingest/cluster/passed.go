package cluster

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Members that are passed over. A member that does not take writes is passed over
// long before gossip drops it, or though gossip never does. It lacks what was
// written then, and does not know it; the next in order has it. To remember that,
// who passes members over notes an era without them (history.passOver), which is
// what there will be if they are gone. From then on it is
//
//   - read like any era: if nobody has what was written in it answers say so,
//   - handed over like any era, to the owners of now, who may claim it then.
//
// Others hear of it with the rest of the history, in the end. So that it does not
// die with the one who passed them over, some are told at once, and again while it
// lasts: to them the era ends when they heard of it last. Who hears of an era that it
// did not know tells some others, too. After a cut each side knows the eras of its own,
// and two members are the first to meet: if one of a side died before histories are
// exchanged the next time, the other side would not know that it lacks anything.

// passed keeps those who route from saying the same with each request.
type passed struct {
	news chan news // to be told

	mu   sync.Mutex
	said map[string]saying // by the table, and the members that are left
}

// news is an era, and members some of whom are to be told of it.
type news struct {
	era *Era
	to  []Member
}

// saying is when something was said last, and when others were told, in unix ms.
type saying struct{ at, told int64 }

const (
	// passedSets bounds passed.said.
	passedSets = 64
	// tellMost is how many others are told at once, and tellEvery how often while it
	// lasts: an era may still have been written in for 2 s after its end (mcache/query).
	tellMost  = 5
	tellEvery = 1000 // ms
	// passedNews is how many eras may wait to be told.
	passedNews = 16
)

// PassedOver says that a request is routed as if a table were without some of its
// members: with is who is left. It does not wait for anybody.
func (c *Cluster) PassedOver(t *Table, with func(member int) bool) {
	key := binary.LittleEndian.AppendUint64(make([]byte, 0, 64), t.Version)
	var left []Member
	for i := range t.members {
		if with(i) {
			left = append(left, t.members[i])
			key = binary.LittleEndian.AppendUint16(key, uint16(i))
		}
	}
	now := time.Now().UnixMilli()
	if len(left) == 0 {
		return
	}
	again, tell := c.passed.say(key, now)
	if !again {
		return
	}
	t.Use()
	e := c.history.passOver(now, left, c.o.Layout)
	if tell {
		c.spread(e, e.Members)
	}
}

// spread has some members told of an era.
func (c *Cluster) spread(e *Era, to []Member) {
	select {
	case c.passed.news <- news{e, to}:
	default: // they will hear of it in the end
	}
}

// say reports whether it is time to say it again, and to tell others.
func (p *passed) say(key []byte, nowMs int64) (again, tell bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	due := func(at, every int64) bool { return nowMs-at >= every || nowMs < at }
	s := p.said[string(key)]
	if !due(s.at, passedEvery) {
		return false, false
	}
	if p.said == nil || len(p.said) >= passedSets {
		p.said = make(map[string]saying)
	}
	if s.at, tell = nowMs, due(s.told, tellEvery); tell {
		s.told = nowMs
	}
	p.said[string(key)] = s
	return true, tell
}

// tellPassed tells others who is passed over, until the cluster is closed.
func (c *Cluster) tellPassed() {
	for {
		select {
		case <-c.stop:
			return
		case n := <-c.passed.news:
			c.tell(n)
		}
	}
}

// tell tells some members of an era: of those that are left, and if there is none of
// them but this one, of the others. They may hear what they do not answer.
func (c *Cluster) tell(n news) {
	b := encodeHistory([]*Era{n.era}, wireDrops{By: c.o.Self.ID})
	to := c.notSelf(n.to)
	if len(to) == 0 {
		to = c.others()
		rand.Shuffle(len(to), func(i, j int) { to[i], to[j] = to[j], to[i] })
		to = to[:min(len(to), tellMost)] // each may take as long as TCPTimeout
	}
	told := 0
	for _, i := range rand.Perm(len(to)) {
		if told == tellMost {
			return
		}
		if c.send(to[i].ID, b) {
			told++
		}
	}
}

func (c *Cluster) notSelf(members []Member) []Member {
	return slices.DeleteFunc(slices.Clone(members), func(m Member) bool { return m.ID == c.o.Self.ID })
}
