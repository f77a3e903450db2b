package query

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"mcached/kvcache"
	"mcached/mcache"
)

// testCluster is daemons in one process, with a table made by hand and a clock
// of its own. It is used by one goroutine at a time, but for what they ask.
type testCluster struct {
	t      testing.TB
	copies int
	slots  int
	o      FanOutOptions
	api    Options

	mu    sync.Mutex
	now   int64 // unix ms
	eras  []Era
	table []string // names, in order
	nodes map[string]*testNode
}

// testNode is one of them. A new life has its name and an empty cache.
type testNode struct {
	name         string
	tc           *testCluster
	memory       *kvcache.Memory
	cache        *mcache.Cache
	fan          *FanOut
	api          *API
	began        int64 // unix ms
	dead, frozen bool
	asked        int
	claims       claimList        // of what was handed over to it
	heard        map[string]error // what became of the last request to each other
}

func newTestCluster(t testing.TB, copies int, o FanOutOptions, names ...string) *testCluster {
	tc := &testCluster{t: t, copies: copies, slots: 64, o: o, api: testOptions(), now: t0, nodes: map[string]*testNode{}}
	tc.api.Now = func() time.Time { return time.UnixMilli(tc.clock()) }
	for _, n := range names {
		tc.start(n)
	}
	tc.change(names...)
	return tc
}

func (tc *testCluster) clock() int64 {
	tc.mu.Lock()
	defer tc.mu.Unlock()
	return tc.now
}

func (tc *testCluster) pass(ms int64) {
	tc.mu.Lock()
	tc.now += ms
	tc.mu.Unlock()
}

// start begins a life.
func (tc *testCluster) start(name string) *testNode {
	tc.t.Helper()
	memory, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 8 << 20, RegionBytes: 64 << 10, ReserveBytes: 16 << 20})
	if err != nil {
		tc.t.Fatal(err)
	}
	c, err := mcache.New(mcache.Options{Memory: memory, Shards: 1, Now: tc.clock})
	if err != nil {
		tc.t.Fatal(err)
	}
	n := &testNode{name: name, tc: tc, memory: memory, cache: c, began: tc.clock()}
	o := tc.o
	o.Now, o.Began = tc.api.Now, func() int64 { return n.began }
	o.Claims = func() (uint64, []SlotClaim) { return n.claims.Version, n.claims.Claims }
	n.fan = NewFanOut(FromCache(c, nil), n, o)
	api := tc.api
	api.FanOut = n.fan
	n.api = NewAPIOf(n.fan, api)
	tc.mu.Lock()
	tc.nodes[name] = n
	tc.mu.Unlock()
	tc.t.Cleanup(n.stop)
	return n
}

func (n *testNode) stop() {
	if n.cache == nil {
		return
	}
	if err := n.cache.Close(); err != nil {
		n.tc.t.Error(err)
	}
	n.memory.Close()
	n.cache = nil
}

// kill ends a life. The table has the member until it changes.
func (tc *testCluster) kill(name string) {
	tc.mu.Lock()
	n := tc.nodes[name]
	n.dead = true
	tc.mu.Unlock()
}

// change makes a table of other members, from now on.
func (tc *testCluster) change(names ...string) {
	names = slices.Sorted(slices.Values(names))
	tc.mu.Lock()
	defer tc.mu.Unlock()
	tc.eras = slices.Clone(tc.eras)
	for i := range tc.eras {
		tc.eras[i].To = min(tc.eras[i].To, tc.now)
	}
	e := tc.eraLocked(names)
	e.From, e.To = tc.now, math.MaxInt64
	tc.eras, tc.table = append(tc.eras, e), names
}

// eraLocked is one of these members, in order, with no times.
func (tc *testCluster) eraLocked(names []string) Era {
	h := fnv.New64a()
	for _, n := range names {
		fmt.Fprintln(h, n, tc.nodes[n].began)
	}
	return NewEra(h.Sum64(), 0, 0, NewOwners(names, tc.slots, func(slot uint16) []uint16 { return rendezvous(names, slot)[:min(tc.copies, len(names))] }))
}

// passOver notes that something is stored as if there were only these members, as a
// cluster does: times of the same members that are near each other are one.
func (tc *testCluster) passOver(names []string) {
	names = slices.Sorted(slices.Values(names))
	tc.mu.Lock()
	defer tc.mu.Unlock()
	e := tc.eraLocked(names)
	e.From, e.To = tc.now-1500, tc.now+100
	tc.eras = slices.Clone(tc.eras)
	for i := range tc.eras {
		if o := &tc.eras[i]; o.ID == e.ID && o.To < math.MaxInt64 && e.From <= o.To+30_000 {
			o.From, o.To = min(o.From, e.From), max(o.To, e.To)
			return
		}
	}
	tc.eras = append(tc.eras, e)
}

// rendezvous is the order in which members are to own a slot.
func rendezvous(names []string, slot uint16) []uint16 {
	weight := func(i uint16) uint64 {
		h := fnv.New64a()
		fmt.Fprintf(h, "%s %d", names[i], slot)
		return h.Sum64() * 0x9e3779b97f4a7c15
	}
	order := make([]uint16, len(names))
	for i := range order {
		order[i] = uint16(i)
	}
	slices.SortFunc(order, func(a, b uint16) int {
		if weight(a) > weight(b) {
			return -1
		}
		return 1
	})
	return order
}

// owners are those of a series now, in order of preference, and all others behind.
func (tc *testCluster) owners(bucket string, ls labels.Labels) (names []string) {
	for _, i := range rendezvous(tc.table, slotOfTest(bucket, ls)%uint16(tc.slots)) {
		names = append(names, tc.table[i])
	}
	return names
}

func slotOfTest(bucket string, ls labels.Labels) uint16 {
	h := fnv.New64a()
	fmt.Fprint(h, bucket)
	ls.Range(func(l labels.Label) {
		if l.Name != "le" {
			fmt.Fprintf(h, "%q%q", l.Name, l.Value)
		}
	})
	return uint16(h.Sum64()*0x9e3779b97f4a7c15>>50) % slotCount
}

// write writes a series to the owners, as many as copies, that are there.
func (tc *testCluster) write(bucket string, ls labels.Labels, samples ...mcache.Sample) (to []string) {
	tc.t.Helper()
	for _, name := range tc.owners(bucket, ls) {
		n := tc.nodes[name]
		if n.dead || n.frozen {
			continue
		}
		n.put(bucket, ls, samples...)
		if to = append(to, name); len(to) == tc.copies {
			break
		}
	}
	return to
}

func (n *testNode) put(bucket string, ls labels.Labels, samples ...mcache.Sample) {
	n.tc.t.Helper()
	var list []mcache.Label
	ls.Range(func(l labels.Label) { list = append(list, mcache.Label{Name: l.Name, Value: l.Value}) })
	if err := n.cache.AppendSamples(bucket, list, samples...); err != nil {
		n.tc.t.Fatal(err)
	}
}

// Self implements Members, as all of these.
func (n *testNode) Self() string { return n.name }

func (n *testNode) Peers() (peers []Peer) {
	n.tc.mu.Lock()
	defer n.tc.mu.Unlock()
	for _, name := range n.tc.table {
		if name != n.name {
			peers = append(peers, Peer{Name: name, Address: name, ID: fmt.Sprint(n.tc.nodes[name].began)})
		}
	}
	return peers
}

func (n *testNode) Eras(since int64) (eras []Era) {
	n.tc.mu.Lock()
	defer n.tc.mu.Unlock()
	eras = slices.DeleteFunc(slices.Clone(n.tc.eras), func(e Era) bool { return e.To <= since })
	slices.SortFunc(eras, func(a, b Era) int { return cmp.Compare(a.From, b.From) })
	return eras
}

func (n *testNode) Slot(bucket string, ls labels.Labels) uint16 { return slotOfTest(bucket, ls) }

// Post hands the request to the other's handler.
func (n *testNode) Post(ctx context.Context, p Peer, path string, body []byte) (*http.Response, error) {
	n.tc.mu.Lock()
	to := n.tc.nodes[p.Address]
	dead, frozen := to.dead, to.frozen
	to.asked++
	n.tc.mu.Unlock()
	if frozen {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if dead {
		return nil, errors.New("connection refused")
	}
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, path, bytes.NewReader(body))
	r.Header.Set("X-Test-Member", "key")
	w := httptest.NewRecorder()
	to.api.ServeHTTP(w, r)
	return w.Result(), nil
}

func (n *testNode) Heard(p Peer, err error) {
	n.tc.mu.Lock()
	defer n.tc.mu.Unlock()
	if n.heard == nil {
		n.heard = map[string]error{}
	}
	n.heard[p.Name] = err
}

func (n *testNode) Verify(r *http.Request, _ []byte) error {
	if r.Header.Get("X-Test-Member") != "key" {
		return errors.New("not signed by a member")
	}
	return nil
}

// lives are the members that are there.
func (tc *testCluster) lives() (list []*testNode) {
	for _, name := range tc.table {
		if n := tc.nodes[name]; !n.dead && !n.frozen {
			list = append(list, n)
		}
	}
	return list
}

// seriesOf is a set of labels from text: name{a="b"}, without quotes.
func seriesOf(t testing.TB, text string) labels.Labels {
	t.Helper()
	name, rest, _ := strings.Cut(text, "{")
	ls := []string{"__name__", name}
	for pair := range strings.SplitSeq(strings.TrimSuffix(rest, "}"), ",") {
		if k, v, ok := strings.Cut(pair, "="); ok {
			ls = append(ls, k, v)
		}
	}
	return labels.FromStrings(ls...)
}
