package cluster

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// records keeps what is logged, but for what is for who debugs.
type records struct {
	slog.Handler
	mu  sync.Mutex
	all []string
}

func (r *records) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }
func (r *records) Handle(_ context.Context, rec slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, rec.Message)
	return nil
}
func (r *records) has(s string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, m := range r.all {
		if strings.Contains(m, s) {
			n++
		}
	}
	return n
}

type node struct {
	*Cluster
	log *records
}

// start starts a member on loopback that looks for the others.
func start(t *testing.T, name string, change func(*Options), others ...*node) *node {
	t.Helper()
	n := &node{log: &records{}}
	keys := testKeys(t, "a secret of a cluster")
	o := Options{Name: "test", Self: Member{ID: MemberID(name, time.Now().UnixMilli()), Name: name, HTTP: "http://127.0.0.1:1", RESP: "127.0.0.1:2"},
		Listen: netip.MustParseAddrPort("127.0.0.1:0"), Keys: keys, Layout: Layout{Copies: 2, BlobCopies: 1}, Logger: slog.New(n.log)}
	for _, other := range others {
		o.Seeds = append(o.Seeds, other.Address().String())
	}
	if change != nil {
		change(&o)
	}
	o.Hash = NewSeriesHash(o.Keys.Series(), nil, 0)
	var err error
	if n.Cluster, err = Start(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

// eventually waits for a condition, for far longer than it takes.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within a minute: " + what)
		}
	}
}

// sees says whether a member's table has exactly these members, in these states.
func (n *node) sees(want ...string) bool { return slices.Equal(n.states(), want) }

// states are the members of n's table with their states, sorted.
func (n *node) states() (got []string) {
	for _, m := range n.Table().Members() {
		got = append(got, m.Name+" "+m.State.String())
	}
	slices.Sort(got)
	return got
}

// A member that was told to leave does so by its own table, too, when SetState returns,
// whatever keeps it from following: what it hands over is what that table asks for.
func TestLeavingIsInTheTable(t *testing.T) {
	held, let := make(chan struct{}), make(chan struct{})
	var hold atomic.Bool
	a := start(t, "a", func(o *Options) {
		o.OnChange = func(*Table) {
			if hold.Swap(false) {
				close(held)
				<-let
			}
		}
	})
	b := start(t, "b", nil, a)
	for _, n := range []*node{a, b} {
		n.SetState(Ready)
	}
	eventually(t, "both see each other ready", func() bool { return a.sees("a ready", "b ready") && b.sees("a ready", "b ready") })
	hold.Store(true)
	start(t, "c", nil, a) // something else has changed
	<-held
	left := make(chan bool)
	go func() {
		a.SetState(Leaving)
		left <- a.leaves()
	}()
	eventually(t, "b knows that a leaves", func() bool { return slices.Contains(b.states(), "a leaving") })
	go func() {
		time.Sleep(2 * spreadFor) // if it returned without, it would have done so by then
		close(let)
	}()
	if !<-left {
		t.Error("it left, and its table does not say so")
	}
}

func TestClusterLife(t *testing.T) {
	a := start(t, "a", nil)
	eventually(t, "a has no seeds and is a cluster of one", a.Joined)
	a.Table().Use() // something is written
	b := start(t, "b", nil, a)
	c := start(t, "c", nil, a)
	all := []*node{a, b, c}
	for _, n := range all {
		n.SetState(Ready)
	}
	for _, n := range all {
		eventually(t, "all three see each other ready", func() bool { return n.sees("a ready", "b ready", "c ready") && n.Joined() })
	}
	for slot := range uint16(Slots) {
		x, y := a.Table(), c.Table()
		if !slices.Equal(names(x, x.Owners(slot)), names(y, y.Owners(slot))) {
			t.Fatalf("slot %d: a and c do not agree", slot)
		}
	}
	// c came last and knows when a was alone.
	eventually(t, "c knows of the era before it", func() bool {
		return slices.ContainsFunc(c.Eras(0), func(e *Era) bool { return len(e.Members) == 1 && e.Members[0].Name == "a" })
	})
	for _, n := range all { // b and c were alone, too, and nothing was written to them
		for _, e := range n.Eras(0) {
			if !slices.Contains(idsOf(e), a.Self().ID) {
				t.Errorf("%s knows of an era of %v, in which nobody wrote", n.Self().Name, idsOf(e))
			}
		}
	}
	// Others hear at once who is passed over.
	a.PassedOver(a.Table(), func(i int) bool { return a.Table().Members()[i].Name != "b" })
	for _, n := range []*node{a, c} {
		eventually(t, "it is known that b was passed over", func() bool {
			return slices.ContainsFunc(n.Eras(0), func(e *Era) bool { return slices.Equal(idsOf(e), []string{a.Self().ID, c.Self().ID}) })
		})
	}
	b.SetState(Leaving)
	eventually(t, "b leaves and is still there", func() bool { return a.sees("a ready", "b leaving", "c ready") })
	b.SetState(Ready)
	if b.Self().State != Leaving {
		t.Error("a member that leaves is ready again")
	}
	b.Close()
	eventually(t, "b is gone", func() bool { return a.sees("a ready", "c ready") })
	a.Suspect(b.Self().ID)
	again := start(t, "b", nil, c)
	eventually(t, "b is there in its next life", func() bool {
		return a.sees("a ready", "b joining", "c ready") && again.sees("a ready", "b joining", "c ready")
	})
	if a.Suspected(b.Self().ID) {
		t.Error("a member that is gone is suspect forever")
	}
	for _, n := range all {
		if n.log.has("") != 0 {
			t.Error("warnings:", n.log.all)
		}
	}
	if s := a.Stats(); s.Members[Ready] != 2 || s.Members[Joining] != 1 || s.Lost != 0 || s.Differing != 0 || s.ShortSlots < Slots/2 || s.ShortSlots >= Slots {
		t.Errorf("%+v", s)
	}
}

// asGossiped is what memberlist hands out of n at others. What it hands out really is
// not for tests: it writes to it.
func (n *node) asGossiped() *memberlist.Node {
	return &memberlist.Node{Name: n.Self().ID, Addr: n.Address().Addr().AsSlice(), Port: n.Address().Port(), Meta: (&delegate{n.Cluster}).NodeMeta(memberlist.MetaMaxSize)}
}

// Who has met the others has a table of all of them.
func TestMet(t *testing.T) {
	a := start(t, "a", nil)
	start(t, "b", nil, a)
	eventually(t, "a has met b", func() bool { return len(a.Table().Members()) == 2 })
	c := start(t, "c", nil, a)
	eventually(t, "c has met them", c.Met)
	if n := len(c.Table().Members()); n != 3 {
		t.Error("its table is of", n)
	}
}

// A member of three that was killed is out of the others' tables within 5 s, though
// nobody confirms that it is dead.
func TestDropTime(t *testing.T) {
	c := memberlist.DefaultLANConfig()
	tune(c)
	turn := 2 * c.ProbeInterval // until it is probed: there are two to probe
	suspected := time.Duration(c.SuspicionMult*c.SuspicionMaxTimeoutMult) * c.ProbeInterval
	if most := turn + c.ProbeInterval + suspected + refuteWithin; most > 5*time.Second {
		t.Errorf("it may take %v", most)
	}
}

// A member that is said to be dead and is not stays in all tables: nothing changes hands.
func TestRefuted(t *testing.T) {
	a := start(t, "a", func(o *Options) { o.refuteFor = time.Hour })
	b := start(t, "b", nil, a)
	eventually(t, "they see each other", func() bool { return a.sees("a joining", "b joining") && b.sees("a joining", "b joining") })
	at := b.asGossiped()
	d := delegate{a.Cluster}
	d.NotifyLeave(at)
	a.SetState(Ready)
	eventually(t, "a has made a table since then", func() bool { return a.sees("a ready") || a.sees("a ready", "b joining") })
	if !a.sees("a ready", "b joining") {
		t.Error("b is dropped at once")
	}
	d.NotifyJoin(at)
	if wait := a.bury(time.Now().Add(2 * time.Hour)); wait != 0 || a.Stats().Lost != 0 {
		t.Error("b said that it lives, and is dropped")
	}
	d.NotifyLeave(at)
	if wait := a.bury(time.Now()); wait <= 0 || wait > time.Hour {
		t.Error("b is looked for again in", wait)
	}
	if wait := a.bury(time.Now().Add(2 * time.Hour)); wait != 0 || a.Stats().Lost != 1 {
		t.Error("b is said to be dead for an hour, and is there")
	}
	const gone, back = "A member of the cluster went without a word: others own what it owned.", "A member of the cluster that went without a word is back."
	if n, m := a.log.has(gone), a.log.has(back); n != 1 || m != 0 {
		t.Errorf("it was logged %d times that b is gone, and %d times that it is back", n, m)
	}
	eventually(t, "b is gone", func() bool { d.c.wake(); return a.sees("a ready") })
	d.NotifyJoin(at)
	eventually(t, "b is back", func() bool { return a.log.has(back) == 1 })
	b.SetState(Leaving)
	eventually(t, "b leaves", func() bool { return a.sees("a ready", "b leaving") })
	d.NotifyLeave(at)
	eventually(t, "b, that said so, is gone at once", func() bool { return a.sees("a ready") })
	if n := a.log.has(gone); n != 1 {
		t.Errorf("it was logged %d times that b is gone", n)
	}
}

// A state that is set while the first member is being met, and has been sent an
// older one, becomes known to all.
func TestStateWhileJoining(t *testing.T) {
	gossipOnly := func(o *Options) { o.gossipOnly = true }
	a := start(t, "a", gossipOnly)
	c := start(t, "c", gossipOnly, a)
	a.SetState(Ready)
	c.SetState(Ready)
	eventually(t, "a and c see each other", func() bool { return a.sees("a ready", "c ready") && c.sees("a ready", "c ready") })
	between, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer between.Close()
	b := start(t, "b", func(o *Options) {
		gossipOnly(o)
		o.Seeds = []string{between.Addr().String()}
	})
	in, err := between.Accept()
	if err != nil {
		t.Fatal(err)
	}
	between.Close()
	defer in.Close()
	told := make([]byte, 64<<10)
	n, err := in.Read(told) // what b says of itself: that it joins
	if err != nil {
		t.Fatal(err)
	}
	b.SetState(Ready)
	out, err := net.Dial("tcp", a.Address().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := out.Write(told[:n]); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(out, in) }()
	go func() { _, _ = io.Copy(in, out) }()
	for _, n := range []*node{a, b, c} {
		eventually(t, "all see all ready", func() bool { return n.sees("a ready", "b ready", "c ready") })
	}
}

// What a member did while it was cut off is known to all soon after it has met one
// of them: it may die before it exchanges histories with the others.
func TestErasOfOthersSpread(t *testing.T) {
	gossipOnly := func(o *Options) { o.gossipOnly = true }
	a := start(t, "a", gossipOnly)
	b := start(t, "b", gossipOnly, a)
	c := start(t, "c", gossipOnly, a, b)
	alone := start(t, "alone", gossipOnly)
	all := []*node{a, b, c, alone}
	for _, n := range all {
		n.SetState(Ready)
	}
	eventually(t, "three see each other", func() bool {
		return !slices.ContainsFunc(all[:3], func(n *node) bool { return !n.sees("a ready", "b ready", "c ready") })
	})
	alone.Table().Use()
	own := alone.Self().ID
	knows := func(n *node) bool {
		return slices.ContainsFunc(n.Eras(0), func(e *Era) bool { return len(e.Members) == 1 && e.Members[0].ID == own })
	}
	if !knows(alone) {
		t.Fatal("the one that is alone does not know what it did: no test")
	}
	if _, err := alone.ml.Join([]string{a.Address().String()}); err != nil {
		t.Fatal(err)
	}
	for _, n := range all {
		eventually(t, "all are one cluster", func() bool { return n.sees("a ready", "alone ready", "b ready", "c ready") })
		eventually(t, "all know of what was written by one alone", func() bool { return knows(n) })
	}
}

// A member that passes over all others tells them: they may hear that, though they do not
// take its writes, and what it has alone is missing from their answers.
func TestPassingOverAllIsTold(t *testing.T) {
	gossipOnly := func(o *Options) { o.gossipOnly = true }
	a := start(t, "a", gossipOnly)
	b := start(t, "b", gossipOnly, a)
	c := start(t, "c", gossipOnly, a, b)
	all := []*node{a, b, c}
	for _, n := range all {
		n.SetState(Ready)
	}
	for _, n := range all {
		eventually(t, "all see each other", func() bool { return n.sees("a ready", "b ready", "c ready") })
	}
	table := c.Table()
	c.PassedOver(table, func(i int) bool { return i == table.Self() })
	for _, n := range all {
		eventually(t, "all know of what is written to one alone", func() bool {
			return slices.ContainsFunc(n.Eras(0), func(e *Era) bool { return len(e.Members) == 1 && e.Members[0].ID == c.Self().ID })
		})
	}
}

// Clusters with other names or keys never join, and a member that nobody lets
// in says so, once.
func TestClusterStrangers(t *testing.T) {
	a := start(t, "a", nil)
	strangers := []*node{
		start(t, "other-name", func(o *Options) { o.Name = "production" }, a),
		start(t, "other-key", func(o *Options) { o.Keys = testKeys(t, "another secret of one") }, a),
	}
	friend := start(t, "friend", nil, a)
	eventually(t, "the friend joins", func() bool { return len(a.Table().Members()) == 2 && friend.Joined() })
	for _, n := range strangers {
		eventually(t, "it says that it is alone", func() bool { return n.log.has("it is alone") == 1 && n.Stats().Alone })
	}
	eventually(t, "it asked again", func() bool { return a.Stats().GossipErrors >= 4 })
	for _, n := range strangers {
		if len(n.Table().Members()) != 1 || n.Joined() || n.log.has("it is alone") != 1 {
			t.Error(n.Self().Name, "joined, or said it twice:", n.log.all)
		}
	}
	if len(a.Table().Members()) != 2 {
		t.Error("a let a stranger in")
	}
}

// The keys are replaced while the cluster runs.
func TestClusterRotation(t *testing.T) {
	const one, two = "the first secret there is", "the second secret there is"
	with := func(secrets ...string) func(*Options) {
		return func(o *Options) {
			var all [][]byte
			for _, s := range secrets {
				all = append(all, []byte(s))
			}
			o.Keys, _ = NewKeys("test", all)
		}
	}
	a := start(t, "a", with(one, two))
	b := start(t, "b", with(two, one), a)
	eventually(t, "two in the middle of a rotation join", func() bool { return len(a.Table().Members()) == 2 && len(b.Table().Members()) == 2 })
	eventually(t, "they say that places differ", func() bool { return a.log.has("configured otherwise") == 1 && a.Stats().Differing == 1 })
}

func TestClusterSameName(t *testing.T) {
	a := start(t, "twin", nil)
	b := start(t, "twin", func(o *Options) { o.Self.ID = MemberID("twin", time.Now().UnixMilli()+5000) }, a)
	eventually(t, "the first says that another has its name", func() bool { return a.log.has("has the name of this one") == 1 })
	tab := a.Table()
	for slot := range uint16(Slots) {
		if o := tab.Owners(slot); len(o) != 1 || tab.Members()[o[0]].ID != b.Self().ID {
			t.Fatal("both own, or the first does")
		}
	}
}

func TestSeeds(t *testing.T) {
	for seed, ok := range map[string]bool{"a:7946": true, "dns+mcached.default.svc:7946": true, "[::1]:7946": true, "a": false, ":7946": false, "a:0": false, "a:": false, "": false} {
		if err := CheckSeed(seed); (err == nil) != ok {
			t.Errorf("%q: %v", seed, err)
		}
	}
	own := netip.MustParseAddrPort("10.0.0.1:7946")
	s := newSeeds([]string{"dns+mcached:7946", "10.0.0.9:7946", "broken:7946"}, func(a netip.AddrPort) bool { return a == own })
	s.resolve = func(_ context.Context, host string) ([]netip.Addr, error) {
		if host == "broken" {
			return nil, errors.New("no such host")
		}
		return []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("::ffff:10.0.0.3")}, nil
	}
	s.lose(netip.MustParseAddrPort("10.0.0.4:7946"))
	s.lose(netip.MustParseAddrPort("10.0.0.2:7946"))
	there := map[netip.AddrPort]bool{netip.MustParseAddrPort("10.0.0.3:7946"): true}
	ask, err := s.addresses(there)
	slices.Sort(ask)
	if want := []string{"10.0.0.2:7946", "10.0.0.4:7946", "10.0.0.9:7946"}; !slices.Equal(ask, want) || err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("asks %v, %v; want %v and an error about broken", ask, err, want)
	}
	there[netip.MustParseAddrPort("10.0.0.4:7946")] = true
	if ask, _ := s.addresses(there); slices.Contains(ask, "10.0.0.4:7946") || len(s.lost) != 1 {
		t.Error("one that came back is still asked:", ask, s.lost)
	}
	for i := range 2 * lostMost {
		s.lose(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), 1))
	}
	if len(s.lost) > lostMost {
		t.Error(len(s.lost), "lost members are remembered")
	}
}

// TestSendWhileItChanges: what is sent to a member depends on nothing that memberlist
// writes as it hears of it, which the race detector sees.
func TestSendWhileItChanges(t *testing.T) {
	a := start(t, "a", nil)
	b := start(t, "b", nil, a)
	eventually(t, "they see each other", func() bool { return a.sees("a joining", "b joining") && b.sees("a joining", "b joining") })
	changed := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() {
		for {
			select {
			case <-changed:
				return
			default:
				a.send(b.Self().ID, encodeHistory(nil, wireDrops{}))
			}
		}
	})
	for range 5 {
		for _, s := range []State{Ready, Joining} {
			b.SetState(s)
			eventually(t, "a hears of it", func() bool { return a.sees("a joining", "b "+s.String()) })
		}
	}
	close(changed)
	sending.Wait()
	if !a.send(b.Self().ID, encodeHistory(nil, wireDrops{})) || a.send("nobody", nil) {
		t.Error("it is not sent to who is there, or to nobody")
	}
}
