package cluster

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"
)

// delegate is what memberlist calls. None of it may block, nor call memberlist.
type delegate struct{ c *Cluster }

// NodeMeta is what the others get to know of this member.
func (d *delegate) NodeMeta(int) []byte {
	self := d.c.Self()
	b, err := self.encode()
	if err != nil {
		panic("cluster: a member that could be described cannot be with another state: " + err.Error())
	}
	return b
}

// NotifyMsg takes over what another member tells at once: see passed.
func (d *delegate) NotifyMsg(b []byte) { d.MergeRemoteState(b, false) }

// GetBroadcasts sends none.
func (d *delegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState is the history, for a member that is met.
func (d *delegate) LocalState(bool) []byte {
	return encodeHistory(d.c.history.told(), d.c.drops.told(d.c.o.Self.ID))
}

// MergeRemoteState takes over what another member knows of eras, by its clock.
func (d *delegate) MergeRemoteState(b []byte, _ bool) {
	eras, drops, err := decodeHistory(b)
	if err != nil {
		d.c.counts.refused.Add(1)
		d.c.gossip.once("A member's history was not taken over.", err)
		return
	}
	shift(eras, d.c.aheadMs(drops.By))
	for _, e := range d.c.history.merge(time.Now().UnixMilli(), eras) {
		d.c.spread(e, d.c.others())
	}
	d.c.hearDrops(drops)
}

// NotifyJoin notes that a member is there, and how it describes itself.
func (d *delegate) NotifyJoin(n *memberlist.Node) {
	m, err := decodeMember(n.Meta)
	if err != nil || m.ID == d.c.o.Self.ID {
		return // NotifyAlive lets none in that it cannot read
	}
	d.c.thereMu.Lock()
	d.c.there[m.ID] = presence{Member: m, gossip: gossipAddress(n), probe: d.c.there[m.ID].probe}
	d.c.thereMu.Unlock()
	d.c.wake()
}

// NotifyUpdate notes that a member describes itself otherwise.
func (d *delegate) NotifyUpdate(n *memberlist.Node) { d.NotifyJoin(n) }

// NotifyLeave notes that a member is gone. One that did not say that it goes may have
// been taken for dead by mistake: it has a moment to refute that (bury). It may also be
// cut off, and memberlist would never ask it again: it becomes a seed.
func (d *delegate) NotifyLeave(n *memberlist.Node) {
	d.c.thereMu.Lock()
	switch p, ok := d.c.there[n.Name]; {
	case ok && p.State != Leaving:
		p.dead = time.Now()
		d.c.there[n.Name] = p
	default:
		delete(d.c.there, n.Name)
	}
	d.c.thereMu.Unlock()
	d.c.wake()
}

// errTooMany is why a member more is not let in.
var errTooMany = errors.New("cluster: it has as many members as it can have")

// NotifyAlive refuses members that do not say well who they are.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	m, err := decodeMember(n.Meta)
	if err == nil && m.ID != n.Name {
		err = fmt.Errorf("%w: it goes by the name of %.100q and calls itself %.100q", ErrMember, n.Name, m.ID)
	}
	if t := d.c.Table(); err == nil && t != nil && len(t.members) >= MaxMembers && !slices.ContainsFunc(t.members, func(o Member) bool { return o.ID == m.ID }) {
		err = errTooMany
	}
	if err != nil {
		d.c.counts.refused.Add(1)
		d.c.gossip.once("A member was not let in.", err)
	}
	return err
}

// NotifyMerge refuses more members than there may be, at once.
func (d *delegate) NotifyMerge(peers []*memberlist.Node) error {
	if len(peers) > MaxMembers {
		return errTooMany
	}
	return nil
}
