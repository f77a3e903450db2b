package cluster

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Members that were dropped and come back as what they were: they stood still, or were
// cut off, and not restarted. Others had their slots meanwhile. Their own table may
// never have changed, so they cannot know, and what they have of keys may have been
// written over. So each member counts how often it drops and takes back which other,
// by its own tables, and tells the one concerned: at once when it is back, and with
// each history. Who hears of a drop that it has not heard of yet was displaced.
//
// A cut of the network has both sides drop each other. If both gave up what they have
// whoever is cut off would empty the whole cluster: the larger side is not displaced
// by the smaller. Sides of one size displace each other.

// drops are what this member knows of that. It is safe for concurrent use.
type drops struct {
	mu    sync.Mutex
	of    map[string]*drop  // by member; at most dropMost
	heard map[string]uint64 // by the member that dropped this one: the newest count
}

// drop is a member that was dropped once or more.
type drop struct {
	count uint64    // odd while it is gone
	side  int       // the least members there were in the tables without it
	at    time.Time // when count changed
}

const (
	// dropMost bounds what is remembered, some 50 bytes in each history.
	dropMost = 256
	// mutualFor is how long after members took each other back one may hear from the
	// other of the cut between them: an exchange of all they know, and one that failed.
	mutualFor = 30 * time.Second
	// tellTries is how often a member that is back is told at once, tellAgain apart.
	// Histories say it again.
	tellTries = 3
	tellAgain = 200 * time.Millisecond
	// reassureMost bounds Reassure, askFor how long it waits for the others when one
	// has answered, and askRounds is how often one is asked: it tells what it thought of
	// this member, is told that it lives, and tells what it thought till then.
	reassureMost = 10 * time.Second
	askFor       = time.Second
	askRounds    = 3
)

// wireDrops goes with a history. Members that do not know of it ignore it.
type wireDrops struct {
	By    string     `json:"o,omitempty"` // who dropped them
	Drops []wireDrop `json:"d,omitempty"`
}

type wireDrop struct {
	ID    string `json:"i"`
	Count uint64 `json:"n"`
	Side  int    `json:"s"`
}

// follow notes whom a table lacks, or has again, and returns the latter. A member that
// leaves is not dropped: it owns nothing.
func (d *drops) follow(now time.Time, old, members []Member) (back []string) {
	is := func(of []Member, id string) bool {
		return slices.ContainsFunc(of, func(m Member) bool { return m.ID == id })
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range old {
		if m.State == Leaving || is(members, m.ID) {
			continue
		}
		g := d.of[m.ID]
		if g == nil {
			g = d.addLocked(now, m.ID)
		}
		g.count, g.side, g.at = g.count+1, len(members), now
	}
	for id, g := range d.of {
		switch {
		case !g.gone():
		case is(members, id):
			g.count, g.at = g.count+1, now
			back = append(back, id)
		default:
			g.side = min(g.side, len(members))
		}
	}
	return back
}

func (g *drop) gone() bool { return g.count%2 != 0 }

// addLocked makes room for a member, at the cost of the one that changed first. Counts
// begin with the time, so that one that was forgotten and comes again is news.
func (d *drops) addLocked(now time.Time, id string) *drop {
	if d.of == nil {
		d.of = map[string]*drop{}
	}
	if len(d.of) >= dropMost {
		first := ""
		for id, g := range d.of {
			if first == "" || g.at.Before(d.of[first].at) {
				first = id
			}
		}
		delete(d.of, first)
	}
	g := &drop{count: uint64(now.UnixMilli()) &^ 1}
	d.of[id] = g
	return g
}

// told is what others are told.
func (d *drops) told(by string) wireDrops {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := wireDrops{By: by}
	for id, g := range d.of {
		w.Drops = append(w.Drops, wireDrop{id, g.count, g.side})
	}
	return w
}

// hear reports whether another member says that it dropped this one, which is news,
// and not because it was on the smaller side of a cut.
func (d *drops) hear(now time.Time, self string, w wireDrops) (displaced bool) {
	i := slices.IndexFunc(w.Drops, func(t wireDrop) bool { return t.ID == self })
	if i < 0 || w.By == "" || w.By == self {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	t := &w.Drops[i]
	if t.Count <= d.heard[w.By] {
		return false
	}
	if d.heard == nil || len(d.heard) >= MaxMembers {
		d.heard = map[string]uint64{}
	}
	d.heard[w.By] = t.Count
	mine := d.of[w.By]
	mutual := mine != nil && (mine.gone() || now.Sub(mine.at) < mutualFor)
	return !mutual || mine.side <= t.Side
}

// hearDrops has OnDisplaced called if another member says that it is due.
func (c *Cluster) hearDrops(w wireDrops) {
	if c.drops.hear(time.Now(), c.o.Self.ID, w) {
		c.displaced.Store(true)
		c.wake()
	}
}

// displace calls OnDisplaced if it is due. When it returns no call is under way.
func (c *Cluster) displace() {
	c.displaceMu.Lock()
	defer c.displaceMu.Unlock()
	if c.displaced.Swap(false) && c.o.OnDisplaced != nil {
		c.o.OnDisplaced()
	}
}

// tellBack tells a member that was dropped, and is back, that it was.
func (c *Cluster) tellBack(id string) {
	b := encodeHistory(nil, c.drops.told(c.o.Self.ID))
	for range tellTries {
		if c.send(id, b) {
			return
		}
		select {
		case <-time.After(tellAgain):
		case <-c.stop:
			return
		}
	}
}

// Reassure is for a member that did not run for a while. It returns when another one
// has said whether it dropped this one, and what OnDisplaced does has been done; when
// there are no others, as far as is known; or after 10 s: members that do not answer
// are dropped by then.
func (c *Cluster) Reassure(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, reassureMost)
	defer cancel()
	for ctx.Err() == nil && !c.askOthers(ctx) {
		select {
		case <-time.After(tellAgain):
		case <-ctx.Done():
		case <-c.stop:
			cancel()
		}
	}
	c.displace()
}

// askOthers exchanges all that is known with some other members, and reports whether
// one answered, or there is none.
func (c *Cluster) askOthers(ctx context.Context) bool {
	var others []string
	c.thereMu.Lock()
	for _, p := range c.there {
		others = append(others, p.gossip.String())
	}
	c.thereMu.Unlock()
	if len(others) == 0 {
		return true
	}
	rand.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	others = others[:min(len(others), tellMost)]
	answers := make(chan bool, len(others))
	for _, a := range others {
		go func() { // for some seconds at the most, as TCPTimeout has it
			n := 1
			for i := 0; i < askRounds && n > 0; i++ {
				n, _ = c.ml.Join([]string{a})
			}
			answers <- n > 0
		}()
	}
	any, late := false, time.After(askFor)
	for range others {
		select {
		case ok := <-answers:
			any = any || ok
		case <-late:
			return any
		case <-ctx.Done():
			return any
		}
	}
	return any
}
