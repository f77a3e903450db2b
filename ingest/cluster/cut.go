package cluster

import (
	"slices"
	"sync"
	"time"
)

// A cut of the network. When most of the members are lost at once it is likelier that
// this one is cut off than that they died. Then they are a cluster without this member,
// and what is written to them is not here: nobody tells of their eras before the cut is
// over. Who reads must say so meanwhile, and not only of the time before they were lost.

// lost remembers members that went without a word, and did not come back since.
type lost struct {
	mu sync.Mutex
	by map[string]lostMember // by name, MaxMembers at most
}

type lostMember struct {
	Member
	at time.Time
}

func (l *lost) add(m Member, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by == nil {
		l.by = make(map[string]lostMember)
	}
	if len(l.by) < MaxMembers {
		l.by[m.Name] = lostMember{m, at}
	}
}

// found forgets those that are there again, in whichever life, and returns them.
func (l *lost) found(members []Member) (back []Member) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range members {
		if _, ok := l.by[m.Name]; ok {
			delete(l.by, m.Name)
			back = append(back, m)
		}
	}
	return back
}

// since are those that were lost at a time or later and are none of the members, and
// when the first of them was.
func (l *lost) since(t time.Time, members []Member) (gone []Member, first time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, m := range l.by {
		if m.at.Before(t) || slices.ContainsFunc(members, func(x Member) bool { return x.Name == name }) {
			continue
		}
		if len(gone) == 0 || m.at.Before(first) {
			first = m.at
		}
		gone = append(gone, m.Member)
	}
	return gone, first
}

// beforeDrop is how long members may route around others before they drop them.
const beforeDrop = 10 * time.Second

// Beyond is what may be written beyond a cut of the network: an era that ends now, of
// members that were lost in the last hour, if there are more of them than of those that
// are left, or as many; nil if not. Of two members neither can tell the death of the
// other from a cut, which is rarer: they are not told of one.
func (c *Cluster) Beyond() *Era {
	now, left := time.Now(), c.Table().members
	gone, first := c.lost.since(now.Add(-lostFor), left)
	if len(gone) < max(2, len(left)) {
		return nil
	}
	return &Era{From: first.Add(-beforeDrop).UnixMilli(), Until: now.UnixMilli(), Members: owning(gone), Layout: c.o.Layout}
}
