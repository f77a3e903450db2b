package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// Options of a Cluster.
type Options struct {
	// Name of the cluster: daemons of clusters with other names never join.
	Name string
	// Self is this daemon: its ID, Name, HTTP, RESP, Zone, Weight, Common and
	// Version. State and Place are set here.
	Self Member
	// Listen is where gossip is listened for, by UDP and TCP. Port 0 is any.
	Listen netip.AddrPort
	// Advertise is how others reach Listen. Default: Listen; its port may be 0
	// for that of Listen.
	Advertise netip.AddrPort
	// Seeds are the members to look for: host:port, or dns+host:port for all
	// addresses that a name has.
	Seeds []string
	// Keys of the cluster. Required.
	Keys *Keys
	// Hash of its series. Required.
	Hash   *SeriesHash
	Layout Layout
	// OnChange is called after each change of the table, by one goroutine.
	OnChange func(*Table)
	// OnDisplaced is called when other members say that they had dropped this one:
	// they had all of its slots for a time, which its own tables do not show.
	OnDisplaced func()
	// Logger gets what an operator should know. Required.
	Logger *slog.Logger

	gossipOnly bool          // for tests: members that have met exchange all they know no more
	refuteFor  time.Duration // for tests; refuteWithin by default
}

// A Cluster is this daemon as a member. It is safe for concurrent use.
type Cluster struct {
	o       Options
	ml      *memberlist.Memberlist
	table   atomic.Pointer[Table]
	history history
	breaker breaker
	seeds   seeds
	gossip  gossipLog
	joined  atomic.Bool // another member was met, or there is none to meet
	tabled  atomic.Bool // the table is of those that were known when met was true, or later
	met     atomic.Bool // and all the others of whom that one knew
	began   time.Time
	passed  passed
	drops   drops
	lost    lost
	clock   ownClock
	apart   atomic.Int64 // of the clocks of members, in ns: see ClocksApart
	counts  counts

	displaced  atomic.Bool // OnDisplaced is due
	displaceMu sync.Mutex  // it is called

	address netip.AddrPort // where others reach the gossip of this one

	selfMu sync.Mutex
	self   Member // as the others are told of it
	acts   State  // as this member acts: it leaves when the others know that it does

	thereMu sync.Mutex
	there   map[string]presence // by ID, without this one

	changed chan struct{} // holds a token when the table may be another
	stop    chan struct{}
	done    sync.WaitGroup
	ended   sync.Once

	told struct { // only the goroutine that rebuilds
		conflict, otherwise string
	}
	skewed atomic.Bool // it was told that clocks differ
}

// presence is a member that memberlist takes for alive. What it hands out of its
// own list changes under the reader's hands, so this one is kept beside it.
type presence struct {
	Member
	gossip netip.AddrPort
	probe  Probe
	dead   time.Time // since when memberlist takes it for dead; zero while it does not
}

// Probe is the last one that a member answered.
type Probe struct {
	RTT        time.Duration
	ClockAhead time.Duration // of the member's clock, within half of RTT
}

// counts are what Stats has from the beginning on.
type counts struct {
	refused  atomic.Uint64 // descriptions and histories of members that were not acceptable
	rejoined atomic.Uint64 // times that members were met by asking seeds
	left     atomic.Uint64 // members that went without saying so
}

// What worked on a machine with less than the processors it wanted; the
// figures of memberlist's own for a LAN take 10 s to drop a member that was killed.
// From when a member is suspected until it is dropped are ProbeInterval times
// SuspicionMult at the least, 1.5 s: ingest takes a node that stood still for less as
// one that was not dropped (pulseMost). If nobody else suspects it, too, they are twice
// that: a member of three that was killed is dropped within 5 s.
func tune(c *memberlist.Config) {
	c.ProbeInterval, c.ProbeTimeout = 500*time.Millisecond, 200*time.Millisecond
	c.SuspicionMult, c.SuspicionMaxTimeoutMult = 3, 2
	c.GossipInterval = 100 * time.Millisecond
	c.PushPullInterval = 15 * time.Second
	c.TCPTimeout = 2 * time.Second
	c.AwarenessMaxMultiplier = 4
	// A daemon's next life has another name to memberlist. If clocks made them
	// the same, it gets in after this.
	c.DeadNodeReclaimTime = time.Second
}

// Start listens and begins to look for others, and does not wait for them.
func Start(o Options) (*Cluster, error) {
	if o.refuteFor == 0 {
		o.refuteFor = refuteWithin
	}
	c := &Cluster{o: o, there: map[string]presence{}, began: time.Now(), changed: make(chan struct{}, 1), stop: make(chan struct{})}
	c.breaker.now = time.Now
	c.passed.news = make(chan news, passedNews)
	c.gossip.log = o.Logger
	c.self = o.Self
	c.self.State, c.self.Place, c.self.Fills = Joining, placeOf(o.Hash, o.Layout), true
	if err := errors.Join(c.self.check(), c.self.checkAddresses()); err != nil {
		return nil, err
	}
	if _, err := c.self.encode(); err != nil {
		return nil, err
	}
	mc := memberlist.DefaultLANConfig()
	tune(mc)
	if o.gossipOnly {
		mc.PushPullInterval = 0
	}
	mc.Name, mc.Label = c.self.ID, "mcached/"+o.Name
	mc.BindAddr, mc.BindPort = o.Listen.Addr().String(), int(o.Listen.Port())
	if o.Advertise.IsValid() {
		mc.AdvertiseAddr, mc.AdvertisePort = o.Advertise.Addr().String(), int(o.Advertise.Port())
	} else {
		mc.AdvertiseAddr, mc.AdvertisePort = mc.BindAddr, mc.BindPort
	}
	ring, err := memberlist.NewKeyring(o.Keys.gossip, o.Keys.gossip[0])
	if err != nil {
		return nil, err
	}
	mc.Keyring = ring
	d := &delegate{c}
	mc.Delegate, mc.Events, mc.Alive, mc.Merge, mc.Ping = d, d, d, d, d
	mc.Logger = c.gossip.logger()
	if c.ml, err = memberlist.Create(mc); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	c.address = gossipAddress(c.ml.LocalNode())
	c.seeds = newSeeds(o.Seeds, c.ownAddresses())
	c.rebuild()
	c.done.Go(c.follow)
	c.done.Go(c.rejoin)
	c.done.Go(c.tellPassed)
	return c, nil
}

// placeOf is the fingerprint of what members must have in common.
func placeOf(h *SeriesHash, l Layout) uint32 {
	return uint32(mix(uint64(h.Place())<<32|uint64(l.Copies)<<16|uint64(l.BlobCopies)) >> 32)
}

// Address is where other members reach the gossip of this one.
func (c *Cluster) Address() netip.AddrPort { return c.address }

func gossipAddress(n *memberlist.Node) netip.AddrPort {
	a, _ := netip.AddrFromSlice(n.Addr)
	return netip.AddrPortFrom(a.Unmap(), n.Port)
}

// send sends a member a message, and reports whether it has it.
func (c *Cluster) send(id string, message []byte) bool {
	c.thereMu.Lock()
	p, ok := c.there[id]
	c.thereMu.Unlock()
	if !ok || !p.dead.IsZero() {
		return false
	}
	err := c.ml.SendReliable(&memberlist.Node{Name: id, Addr: p.gossip.Addr().AsSlice(), Port: p.gossip.Port()}, message)
	if err != nil {
		c.o.Logger.Debug("A member was not told something.", "member", id, "err", err)
	}
	return err == nil
}

// others are the members that memberlist takes for alive, without this one.
func (c *Cluster) others() (all []Member) {
	c.thereMu.Lock()
	defer c.thereMu.Unlock()
	for _, p := range c.there {
		if p.dead.IsZero() {
			all = append(all, p.Member)
		}
	}
	return all
}

// Table is the newest. It is never nil.
func (c *Cluster) Table() *Table { return c.table.Load() }

// Self is this member as it is now.
func (c *Cluster) Self() Member {
	c.selfMu.Lock()
	defer c.selfMu.Unlock()
	return c.self
}

// Keys and Hash are those of Options.
func (c *Cluster) Keys() *Keys       { return c.o.Keys }
func (c *Cluster) Hash() *SeriesHash { return c.o.Hash }

// Joined says whether another member was met, or there is none to be met: a
// daemon that cannot find its seeds is not a cluster of one.
func (c *Cluster) Joined() bool { return c.joined.Load() }

// Met says whether there is a table of all members that a seed knows, or none told of them
// for long.
func (c *Cluster) Met() bool { return c.tabled.Load() || c.waited() }

// waited says that no seed may tell of others any more.
func (c *Cluster) waited() bool { return time.Since(c.began) > meetFor }

// SetState tells all members of another state of this one, and returns when
// they were told, or after a second and a half; but not before Table says that this
// one is Leaving: who asks then what is to be handed over would find nothing.
func (c *Cluster) SetState(s State) {
	c.selfMu.Lock()
	same := c.self.State == s || c.self.State == Leaving
	if !same {
		c.self.State = s
	}
	c.selfMu.Unlock()
	if same {
		return
	}
	act := func() {
		c.selfMu.Lock()
		c.acts = s
		c.selfMu.Unlock()
		c.wake()
	}
	if s != Leaving {
		act()
	}
	c.tellState()
	if s == Leaving {
		// Until the others know, who is sent to them is sent back.
		time.Sleep(spreadFor)
		act()
		for !c.leaves() {
			select {
			case <-time.After(leavesPoll):
			case <-c.stop:
				return
			}
		}
	}
}

// leaves says whether this member's table has it as one that leaves. That may take as
// long as Options.OnChange does with the table before.
func (c *Cluster) leaves() bool {
	t := c.Table()
	return t.self >= 0 && t.members[t.self].State == Leaving
}

// tellState has gossip carry this member's state. It is called once members were
// met as well: what was told to nobody, while the first of them was being met, is
// not what that one was given, and memberlist's queue can lose it to what is queued
// next. They would see the old state until they exchange all they know, after
// PushPullInterval or, where members are many, several times that.
func (c *Cluster) tellState() {
	if err := c.ml.UpdateNode(time.Second); err != nil {
		c.o.Logger.Debug("Not every member was told.", "state", c.Self().State, "err", err)
	}
}

// meetFor is how long a member that was started may take to meet all others: until
// then it may have seen tables that nobody else has.
const meetFor = 10 * time.Second

// spreadFor is how long gossip takes to reach all members, and then some.
const spreadFor = 400 * time.Millisecond

const leavesPoll = 5 * time.Millisecond

// refuteWithin is how long a member that is said to be dead stays in the table: three
// rounds of gossip, for it to hear of that and say that it lives. One that was cut off
// or stood still thinks that of all the others, and says so as soon as it is back:
// they would drop each other on its word, and give up what they have of keys.
const refuteWithin = 300 * time.Millisecond

// Eras are those that lasted at a time, in Unix ms, or began later, in the
// order in which they began. What members saw differently may overlap.
func (c *Cluster) Eras(sinceMs int64) []*Era { return c.history.since(sinceMs) }

// Suspect says that a member, by its ID, did not answer in time or refused: it
// is passed over for a second, and for longer when it fails again.
func (c *Cluster) Suspect(member string) { c.breaker.suspect(member) }

// Trust says that a member answered.
func (c *Cluster) Trust(member string) { c.breaker.trust(member) }

// Suspected says whether to pass a member over. A member's time being up, one
// caller is told no, so that it tries, and the others yes until it succeeds.
func (c *Cluster) Suspected(member string) bool { return c.breaker.suspected(member) }

// Suspects are the members, by ID, that are passed over.
func (c *Cluster) Suspects() []string { return c.breaker.suspects() }

// Close says goodbye and ends all. The state should be Leaving since the
// requests under way began, so that nobody sends new ones.
func (c *Cluster) Close() {
	c.ended.Do(func() {
		close(c.stop)
		if err := c.ml.Leave(time.Second); err != nil {
			c.o.Logger.Debug("Not every member was told that this one leaves.", "err", err)
		}
		if err := c.ml.Shutdown(); err != nil {
			c.o.Logger.Debug("Gossip did not end well.", "err", err)
		}
		c.done.Wait()
	})
}

func (c *Cluster) wake() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// follow makes a new table whenever the members are others.
func (c *Cluster) follow() {
	var due <-chan time.Time // nil if nobody is said to be dead
	for {
		select {
		case <-c.stop:
			return
		case <-c.changed:
		case <-due:
		}
		due = nil
		if wait := c.bury(time.Now()); wait > 0 {
			due = time.After(wait)
		}
		c.rebuild()
		c.displace()
	}
}

// bury forgets who has been said to be dead for long enough, and says in how long it
// is to be called again; 0 if nobody else is said to be.
func (c *Cluster) bury(now time.Time) (wait time.Duration) {
	gone, wait := c.forgetDead(now)
	for _, p := range gone {
		c.o.Logger.Warn("A member of the cluster went without a word: others own what it owned.", "member", p.Name, "http", p.HTTP)
	}
	return wait
}

func (c *Cluster) forgetDead(now time.Time) (gone []presence, wait time.Duration) {
	c.thereMu.Lock()
	defer c.thereMu.Unlock()
	for id, p := range c.there {
		left := c.o.refuteFor - now.Sub(p.dead)
		switch {
		case p.dead.IsZero():
		case left > 0 && (wait == 0 || left < wait):
			wait = left
		case left <= 0:
			delete(c.there, id)
			c.counts.left.Add(1)
			c.seeds.lose(p.gossip)
			gone = append(gone, p)
			c.lost.add(p.Member, now)
		}
	}
	return gone, wait
}

// welcome says who is back of those that were said to be gone.
func (c *Cluster) welcome(members []Member) {
	for _, m := range c.lost.found(members) {
		c.o.Logger.Info("A member of the cluster that went without a word is back.", "member", m.Name, "http", m.HTTP)
	}
}

// rebuild makes the table of those that are there now, if that is another.
func (c *Cluster) rebuild() {
	self := c.Self()
	c.selfMu.Lock()
	self.State = c.acts
	c.selfMu.Unlock()
	met := c.met.Load()
	if met {
		defer c.tabled.Store(true)
	}
	if met || c.waited() {
		defer c.history.settle()
	}
	members := []Member{self}
	c.thereMu.Lock()
	for _, p := range c.there {
		members = append(members, p.Member)
	}
	c.thereMu.Unlock()
	old, version := c.table.Load(), uint64(1)
	if old != nil {
		slices.SortFunc(members, byID)
		if slices.Equal(old.members, members) {
			return
		}
		version = old.Version + 1
	}
	t := NewTable(version, self.ID, members, c.o.Layout)
	t.used = c.history.observe(time.Now().UnixMilli(), members, c.o.Layout)
	c.table.Store(t)
	c.breaker.keep(func(id string) bool { return slices.ContainsFunc(members, func(m Member) bool { return m.ID == id }) })
	if len(members) > 1 {
		c.joined.Store(true)
	}
	c.compareClocks()
	c.warn(members)
	c.welcome(members)
	if c.o.OnChange != nil {
		c.o.OnChange(t)
	}
	if old == nil {
		return
	}
	for _, id := range c.drops.follow(time.Now(), old.members, members) {
		c.done.Go(func() { c.tellBack(id) }) // by when this one does not have its slots any more
	}
}

// warn says, once, what of the others cannot be meant.
func (c *Cluster) warn(members []Member) {
	self, conflict, otherwise, by := c.Self(), "", "", ""
	for _, m := range members {
		switch {
		case m.ID == self.ID:
		case m.Name == self.Name && m.Start() >= self.Start() && m.State != Leaving:
			conflict = m.HTTP
		case by == "":
			if otherwise = m.Otherwise(self); otherwise != "" {
				by = m.Name
			}
		}
	}
	if conflict != "" && conflict != c.told.conflict {
		c.o.Logger.Error("Another member has the name of this one, and owns its slots: give each a name of its own by --cluster.node-name.", "name", self.Name, "other", conflict)
	}
	if otherwise != "" && otherwise != c.told.otherwise {
		c.o.Logger.Error("A member is configured otherwise: until all have the same, series are looked for in two places; with another --tenancy.header members reject each other's requests.", "member", by, "differs", otherwise)
	}
	c.told.conflict, c.told.otherwise = conflict, otherwise
}

// differing is how many members are configured otherwise than this one.
func (c *Cluster) differing() int {
	self, n := c.Self(), 0
	for _, m := range c.Table().Members() {
		if m.Otherwise(self) != "" {
			n++
		}
	}
	return n
}
