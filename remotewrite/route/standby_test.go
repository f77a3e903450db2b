package route

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"mcached/mcache"
	"mcached/remotewrite"
	"mcached/remotewrite/send"
	"mcached/remotewrite/wire"
	"mcached/remotewrite/writetest"
)

// forwardedBy is how many nodes would forward each line of Contents now.
func forwardedBy(nodes []*node) map[string]int {
	n := make(map[string]int)
	for _, x := range nodes {
		for shard := range x.Cache.Shards() {
			var p mcache.Pass
			var out mcache.Outgoing
			for more := true; more; {
				more = x.Cache.Collect(shard, &p, mcache.Due{Since: mcache.AllTicks}, math.MaxInt, &out)
			}
			for i := range out.Len() {
				r := out.Run(i)
				var ls []mcache.Label
				for _, k := range r.Labels {
					ls = append(ls, out.Labels()[k])
				}
				for _, s := range r.Samples {
					n[writetest.Line(writetest.LabelText(ls), s)]++
				}
			}
			x.Cache.Return(&out)
		}
	}
	return n
}

// Of the nodes that hold a sample one forwards it.
func TestOneForwards(t *testing.T) {
	writetest.Both(t, func(t *testing.T, p wire.Protocol) {
		nodes := newNodes(t, 4, 3, Options{Acks: 3, Timeout: time.Minute, Forwards: true}, remotewrite.Options{}, mcache.Options{WriteBack: true})
		var all []writetest.Series
		for i, x := range nodes {
			some := metrics(100, 1000*i)
			all = append(all, some...)
			writetest.Answered(t, x.Send(p, writetest.Encode(t, p, some...)), http.StatusNoContent, "")
		}
		have, forwarded := copiesOf(nodes, "default"), forwardedBy(nodes)
		for _, line := range linesOf(all) {
			if have[line] != 3 || forwarded[line] != 1 {
				t.Fatalf("%s is held by %d nodes and forwarded by %d", line, have[line], forwarded[line])
			}
		}
	})
}

// A store that cannot take what it is to forward, or none of it, leaves that to others.
func TestAnotherForwardsWhatTheFirstOwnerDoesNotTake(t *testing.T) {
	nodes := newNodes(t, 2, 2, Options{Timeout: time.Minute, Forwards: true}, remotewrite.Options{}, mcache.Options{WriteBack: true})
	nodes[1].fault.Store(busy)
	all := metrics(100, 0)
	writetest.Answered(t, nodes[0].Send(wire.V2, writetest.Encode(t, wire.V2, all...)), http.StatusNoContent, "")
	forwarded := forwardedBy(nodes)
	for _, line := range linesOf(all) {
		if forwarded[line] != 1 {
			t.Fatalf("%s is forwarded by %d nodes", line, forwarded[line])
		}
	}
}

// Whatever nodes do, a sample that was acknowledged is forwarded by a node that
// has it.
func TestAcknowledgedIsForwarded(t *testing.T) {
	for _, c := range []struct{ nodes, copies, acks int }{{2, 2, 1}, {4, 2, 1}, {5, 3, 2}} {
		t.Run(fmt.Sprintf("%d nodes, %d copies, %d acks", c.nodes, c.copies, c.acks), func(t *testing.T) {
			o := Options{Acks: c.acks, Timeout: 150 * time.Millisecond, MaxOutboxBytes: 16 << 10, MaxBundleBytes: 4 << 10, Forwards: true}
			nodes := newNodes(t, c.nodes, c.copies, o, remotewrite.Options{}, mcache.Options{WriteBack: true})
			acknowledged := map[string]bool{}
			writeAmongFaults(t, nodes, uint64(c.nodes), 3, deaf, func(lines []string, w *httptest.ResponseRecorder) {
				for _, line := range lines {
					acknowledged[line] = acknowledged[line] || w.Code == http.StatusNoContent
				}
			})
			forwarded := forwardedBy(nodes)
			n := 0
			for line, is := range acknowledged {
				if is {
					n++
				}
				if is && forwarded[line] == 0 {
					t.Fatalf("%s was acknowledged, and nobody forwards it", line)
				}
			}
			if n == 0 || met(nodes) == 0 {
				t.Fatalf("%d were acknowledged, %d requests met a fault: no test", n, met(nodes))
			}
		})
	}
}

// testForwarding is a clock and what a judge was asked.
type testForwarding struct {
	now, age time.Duration
	settled  []send.StandbyRules
}

func (f *testForwarding) Elapsed() time.Duration                { return f.now }
func (f *testForwarding) SentAge() time.Duration                { return f.age }
func (f *testForwarding) SettleStandby(rules send.StandbyRules) { f.settled = append(f.settled, rules) }

// What is on standby waits for the first owners of all tables that held when it
// came, and is taken over when this node is next after those that are gone.
func TestStandbyJudgement(t *testing.T) {
	const slack = standbySlack
	owned := func(self int, copies int, ids ...string) *table {
		t := &table{self: self, copies: min(copies, len(ids)), ids: ids}
		order := make([]uint16, len(ids))
		for i := range order {
			order[i] = uint16(i)
		}
		t.orders, t.urls = [][]uint16{order}, make([]string, len(ids))
		return t
	}
	f := &testForwarding{}
	r := newRouter(t, Options{Cluster: &testCluster{}, Forwards: true})
	s := r.NewStandby(f, 0)
	at := func(now time.Duration, tab *table) {
		f.now = now
		s.see(tab)
	}
	judge := func(from, to time.Duration) string {
		f.settled = nil
		s.settle(s.tables[len(s.tables)-1].table)
		before, mine := f.settled[0].Judge(0, from, to)
		return fmt.Sprint(before, mine)
	}
	check := func(what string, from, to time.Duration, want string) {
		t.Helper()
		if got := judge(from, to); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	at(0, owned(1, 3, "a", "b", "c"))
	check("nothing was heard of a", 10, 20, "0s false")
	s.heard = map[string]sent{"a": {70 * time.Second, true}}
	check("a has forwarded", 10, 20, "1m10s false")
	s.heard["a"] = sent{-1, true}
	check("a has another table", 10, 20, "0s false")
	s.heard["a"] = sent{0, false}
	check("a does not forward", 10, 20, "0s true")

	at(100*time.Second, owned(2, 3, "a", "d", "b", "c")) // another comes, and is not the first
	s.heard = map[string]sent{"a": {120 * time.Second, true}}
	check("a has forwarded", 10, 110*time.Second, "2m0s false")

	at(200*time.Second, owned(2, 3, "0", "a", "b")) // now one that is
	s.heard = map[string]sent{"a": {220 * time.Second, true}, "0": {210 * time.Second, true}}
	check("of before the change", 10, 200*time.Second-slack-1, "3m40s false")
	check("of near to it", 10, 200*time.Second-slack, "3m30s false")
	check("of after it", 200*time.Second+slack+1, 210*time.Second, "3m30s false")

	at(300*time.Second, owned(1, 3, "0", "b"))
	s.heard = map[string]sent{"0": {310 * time.Second, true}}
	check("a is gone, this node is next", 10, 20, "0s true")
	check("of after its time", 300*time.Second+slack+1, 310*time.Second, "5m10s false")

	// Of c's: a is gone, b is next and is waited for.
	r = newRouter(t, Options{Cluster: &testCluster{}, Forwards: true})
	s = r.NewStandby(f, 0)
	at(0, owned(2, 3, "a", "b", "c"))
	at(100*time.Second, owned(1, 3, "b", "c"))
	check("b has said nothing of this table", 10, 20, "0s false")
	s.heard = map[string]sent{"b": {120 * time.Second, true}}
	check("b has forwarded", 10, 20, "2m0s false")
	at(200*time.Second, owned(0, 3, "c"))
	check("all are gone", 10, 20, "0s true")

	for range maxHeldTables {
		at(f.now+time.Second, owned(1, 2, "x", "c"))
	}
	s.heard = map[string]sent{"x": {time.Hour, true}}
	check("of before all tables that are known", 10, 20, "0s true")
}

// Nodes ask each other, over the wire and with proof.
func TestStandbyAsks(t *testing.T) {
	nodes := newNodes(t, 3, 2, Options{Timeout: time.Minute, Forwards: true}, remotewrite.Options{}, mcache.Options{WriteBack: true})
	fs := make([]*testForwarding, len(nodes))
	ss := make([]*Standby, len(nodes))
	for i, x := range nodes {
		fs[i] = &testForwarding{now: time.Hour, age: time.Duration(i) * time.Minute}
		if i < 2 {
			ss[i] = x.router.NewStandby(fs[i], 0)
		}
	}
	ss[0].see(nodes[0].cluster.Table())
	ss[0].round(t.Context())
	if got := ss[0].heard["n1#1"]; got != (sent{-1, true}) {
		t.Errorf("one that has seen no table says %v", got)
	}
	if got := ss[0].heard["n2#1"]; got != (sent{}) {
		t.Errorf("one that does not forward says %v", got)
	}
	ss[1].see(nodes[1].cluster.Table())
	ss[1].round(t.Context())
	ss[0].round(t.Context())
	if got, want := ss[0].heard["n1#1"], (sent{time.Hour - time.Minute - time.Millisecond - standbySlack, true}); got != want {
		t.Errorf("it says %v, want %v", got, want)
	}
	nodes[1].fault.Store(dead)
	ss[0].round(t.Context())
	if _, ok := ss[0].heard["n1#1"]; ok {
		t.Error("what it said is believed forever")
	}
}
