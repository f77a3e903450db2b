package route

import (
	"fmt"
	"hash/fnv"
	"math"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mcached/mcache"
	"mcached/remotewrite"
	"mcached/remotewrite/send"
	"mcached/remotewrite/wire"
	"mcached/remotewrite/writetest"
)

// members is the table of some of nodes as self sees it: by highest random weight.
func members(nodes []*node, self, copies int, leaving []int, who ...int) *table {
	t := &table{self: slices.Index(who, self)}
	var may []uint16
	for k, i := range who {
		t.ids, t.urls = append(t.ids, fmt.Sprintf("n%d#1", i)), append(t.urls, nodes[i].server.URL)
		if !slices.Contains(leaving, i) {
			may = append(may, uint16(k))
		}
	}
	t.copies = min(copies, len(may))
	for slot := range 997 {
		weight := func(k uint16) uint64 {
			h := fnv.New64a()
			fmt.Fprint(h, slot, t.ids[k], slot)
			return h.Sum64() * 0x9e3779b97f4a7c15
		}
		order := slices.Clone(may)
		slices.SortFunc(order, func(a, b uint16) int {
			if weight(a) < weight(b) {
				return 1
			}
			return -1
		})
		for k := range who {
			if !slices.Contains(order, uint16(k)) {
				order = append(order, uint16(k))
			}
		}
		t.orders = append(t.orders, order)
	}
	return t
}

// holdings are those of a node's default bucket.
type holdings struct{ *node }

func (h holdings) Newest(from, recent int64, want func(slot uint16) bool, f func(bucket string, slot uint16, completeFrom int64, s send.Series) bool) {
	h.each(want, f, func(id mcache.SeriesID, snap *mcache.Snapshot, s *send.Series) {
		h.Cache.SnapshotNewest(id, from, recent, snap)
		for it := snap.Iterator(); it.Next(); {
			s.Samples = append(s.Samples, it.At())
		}
	})
}

func (h holdings) Rest(from int64, want func(slot uint16) bool, f func(bucket string, slot uint16, completeFrom int64, s send.Series) bool) {
	h.each(want, f, func(id mcache.SeriesID, snap *mcache.Snapshot, s *send.Series) {
		h.Cache.Snapshot(id, from, math.MaxInt64, snap)
		var ok bool
		if s.Blocks, ok = snap.Blocks(nil); !ok {
			h.T.Error("blocks of plain series are not whole")
		}
	})
}

func (h holdings) each(want func(slot uint16) bool, f func(bucket string, slot uint16, completeFrom int64, s send.Series) bool, take func(id mcache.SeriesID, snap *mcache.Snapshot, s *send.Series)) {
	ids, err := h.Cache.Select("default", nil, nil)
	if err != nil {
		h.T.Error(err)
	}
	var snap mcache.Snapshot
	for _, id := range ids {
		ls, _ := h.Cache.Labels(id, nil)
		s := send.Series{Labels: ls}
		slot := h.router.SlotOf("default", &s)
		if !want(slot) {
			continue
		}
		if take(id, &snap, &s); s.Points() > 0 && !f("default", slot, snap.CompleteFrom(), s) {
			return
		}
	}
}

// old are series with samples of the last two hours: four blocks each, and a head.
func old(n int) []writetest.Series {
	all := metrics(n, 0)
	for i := range all {
		all[i].Samples = nil
		for at := -7200.0; at <= 0; at += 15 {
			all[i].Samples = append(all[i].Samples, writetest.Sample(at, at+float64(i)))
		}
	}
	return all
}

// oldBlock is how long a block of them is at most.
const oldBlock = 128 * 15 * time.Second

// After nodes were lost, left or came, each sample of the window has as many
// copies as there should be, among the owners of now; what is older does not move, unless
// it is of a block that reaches into the window.
func TestHandover(t *testing.T) {
	for _, c := range []struct {
		name          string
		copies        int
		before, after []int
		leaving       []int
		noBlocks      bool // nodes are of a release that does not take them
	}{
		{"lost", 2, []int{0, 1, 2, 3}, []int{0, 1, 3}, nil, false},
		{"two joined", 2, []int{0, 1}, []int{0, 1, 2, 3}, nil, false},
		{"two joined, of before", 2, []int{0, 1}, []int{0, 1, 2, 3}, nil, true},
		{"leaving, one copy", 1, []int{0, 1, 2}, []int{0, 1, 2}, []int{1}, false},
		{"leaving, two copies", 2, []int{0, 1, 2}, []int{0, 1, 2}, []int{1}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			nodes := newNodes(t, 4, c.copies, Options{Timeout: time.Minute, Acks: c.copies}, remotewrite.Options{}, mcache.Options{})
			var inBlocks atomic.Int32 // parts
			for _, x := range nodes {
				x.overheard(func(p wire.Part) {
					if p.Protocol == wire.Blocks {
						inBlocks.Add(1)
					}
				}, func(answer http.Header) {
					if c.noBlocks {
						answer.Del(wire.HeaderBlocks)
					}
				})
			}
			all := old(60)
			set := func(leaving []int, who []int) {
				for _, i := range who {
					nodes[i].cluster.mu.Lock()
					nodes[i].cluster.table = members(nodes, i, c.copies, leaving, who...)
					nodes[i].cluster.mu.Unlock()
				}
			}
			set(nil, c.before)
			writetest.Answered(t, nodes[0].Send(wire.V2, writetest.Encode(t, wire.V2, all...)), http.StatusNoContent, "")
			var handovers []*Handover
			for _, i := range c.before {
				h, err := nodes[i].router.NewHandover(HandoverOptions{Holdings: holdings{nodes[i]}, Window: time.Hour, Settle: time.Millisecond, Now: func() time.Time { return writetest.Now },
					Leaving: func(tab Table, k int) bool {
						id, _ := tab.Node(k)
						return slices.ContainsFunc(c.leaving, func(i int) bool { return id == fmt.Sprintf("n%d#1", i) })
					}})
				if err != nil {
					t.Fatal(err)
				}
				if !h.Owes("n0#1") {
					t.Error("a node that has not begun owes nothing")
				}
				h.setBaseLocked(nodes[i].cluster.Table())
				handovers = append(handovers, h)
			}
			had := copiesOf(nodes, "default")
			set(c.leaving, c.after)
			sent := int64(0)
			for k, i := range c.before {
				if !slices.Contains(c.after, i) {
					continue
				}
				owes := func() (list []int) {
					for _, i := range c.after {
						if handovers[k].Owes(fmt.Sprintf("n%d#1", i)) {
							list = append(list, i)
						}
					}
					return list
				}
				joined := slices.DeleteFunc(slices.Clone(c.after), func(i int) bool { return slices.Contains(c.before, i) })
				if got := owes(); !slices.Equal(got, joined) {
					t.Errorf("before, it owes %d, not %d", got, joined)
				}
				if !handovers[k].Drain(t.Context()) {
					t.Error("not done")
				}
				if got := owes(); len(got) > 0 {
					t.Errorf("it still owes %d", got)
				}
				n := handovers[k].Stats().Samples
				if sent += n; !handovers[k].Drain(t.Context()) || handovers[k].Stats().Samples != n {
					t.Error("it was sent twice")
				}
			}
			added := int64(0)
			now := nodes[c.after[0]].cluster.Table()
			have := copiesOf(nodes, "default")
			for _, s := range all {
				for _, o := range now.Owners(slotOf("default", s.Labels)) {
					got := nodes[c.after[o]].samples(s.Labels)
					for _, x := range s.Samples {
						if x.T >= writetest.Now.UnixMilli()-time.Hour.Milliseconds() && !slices.Contains(got, x) {
							t.Fatalf("node %d owns %s and has not %d", c.after[o], writetest.LabelText(s.Labels), x.T)
						}
					}
				}
				for _, x := range s.Samples {
					line := writetest.Line(writetest.LabelText(s.Labels), x)
					added += int64(have[line] - had[line])
					if x.T < writetest.Now.UnixMilli()-(time.Hour+oldBlock).Milliseconds() && have[line] != had[line] {
						t.Fatalf("%s was handed over", line)
					}
				}
			}
			if got := inBlocks.Load() > 0; got == c.noBlocks {
				t.Errorf("in blocks: %t", got)
			}
			if added != sent || sent == 0 {
				t.Errorf("%d samples were sent and %d came", sent, added)
			}
		})
	}
}

// A node that was passed over for a while is sent, when that is over, what has times
// of the while and of some minutes before, by those who own it without that node; and
// again if it lasted longer than was known.
func TestHandoverOfAnEra(t *testing.T) {
	nodes := newNodes(t, 3, 2, Options{Timeout: time.Minute, Acks: 2}, remotewrite.Options{}, mcache.Options{})
	all := old(60)
	now := writetest.Now.UnixMilli()
	set := func(who ...int) {
		for _, i := range who {
			nodes[i].cluster.mu.Lock()
			nodes[i].cluster.table = members(nodes, i, 2, nil, who...)
			nodes[i].cluster.mu.Unlock()
		}
	}
	set(0, 2) // as if 1 was passed over by all
	writetest.Answered(t, nodes[0].Send(wire.V2, writetest.Encode(t, wire.V2, all...)), http.StatusNoContent, "")
	without := nodes[0].cluster.Table()
	set(0, 1, 2)
	era := Era{ID: 7, From: now - 1000_000, Until: now - 1, Table: func() Table { return without }}
	clock, claimed := writetest.Now, 0
	for k, i := range []int{0, 2} {
		h, err := nodes[i].router.NewHandover(HandoverOptions{Holdings: holdings{nodes[i]}, Window: time.Hour, Settle: 4 * time.Second, Now: func() time.Time { return clock },
			Leaving: func(Table, int) bool { return false },
			Eras: func(since int64) []Era {
				if since > era.Until || since < now-time.Hour.Milliseconds() {
					t.Errorf("eras since %d are asked for", since)
				}
				return []Era{era}
			},
			Claimable: func(from, until int64) func(slot uint16, tell func(e ClaimedEra, from, until int64)) {
				return func(_ uint16, tell func(e ClaimedEra, from, until int64)) {
					claimed++
					tell(ClaimedEra{ID: 7}, from, until)
				}
			}})
		if err != nil {
			t.Fatal(err)
		}
		h.began = now - time.Hour.Milliseconds()
		h.base = nodes[i].cluster.Table()
		work := func(after time.Duration) (sent int64) {
			clock = writetest.Now.Add(after)
			was := h.Stats().Samples
			if len(h.pending(h.o.Settle)) > 0 && !h.job(t.Context(), h.base, math.MaxInt) {
				t.Error("not done")
			}
			return h.Stats().Samples - was
		}
		if n := work(time.Second); n != 0 {
			t.Errorf("node %d has sent %d samples before the era was over for long enough", i, n)
		}
		if n := work(5 * time.Second); n == 0 {
			t.Errorf("node %d has sent nothing: no test", i)
		}
		if n := work(6 * time.Second); n != 0 {
			t.Errorf("node %d has sent %d samples twice", i, n)
		}
		era.Until = now + 4000
		if n := work(9 * time.Second); n == 0 {
			t.Errorf("node %d has sent nothing of an era that lasted longer", i)
		}
		if era.Until = now - 1; k == 0 && claimed == 0 {
			t.Error("nothing is claimed")
		}
	}
	tab := nodes[1].cluster.Table()
	n := 0
	for _, s := range all {
		got := nodes[1].samples(s.Labels)
		for _, x := range s.Samples {
			want := slices.Contains(tab.Owners(slotOf("default", s.Labels)), 1) && x.T >= era.From-lateMs
			if slices.Contains(got, x) != want {
				t.Fatalf("node 1 has sample %d of %s: %t", x.T-now, writetest.LabelText(s.Labels), !want)
			}
			if want {
				n++
			}
		}
	}
	_, claims := nodes[1].router.Claimed()
	for _, c := range claims {
		if c.From != era.From-lateMs || !slices.Equal(c.Eras, []ClaimedEra{{ID: 7}}) {
			t.Errorf("claimed from %d, of %v", c.From-now, c.Eras)
		}
	}
	if n == 0 || len(claims) == 0 {
		t.Errorf("node 1 has %d samples, and %d claims", n, len(claims))
	}
}

// After the clock was set back, eras are handed over as before: neither when the node
// began nor when something was done is later than now.
func TestHandoverAfterTheClockWasSetBack(t *testing.T) {
	now := writetest.Now
	e := Era{ID: 7, From: now.Add(-time.Minute).UnixMilli(), Until: now.Add(-10 * time.Second).UnixMilli()}
	h := &Handover{began: now.Add(-time.Hour).UnixMilli(), done: map[uint64]int64{}, o: HandoverOptions{Window: time.Hour, Now: func() time.Time { return now },
		Eras: func(since int64) []Era {
			if since > e.Until {
				return nil
			}
			return []Era{e}
		}}}
	day := 24 * time.Hour.Milliseconds()
	for _, c := range []struct {
		what        string
		began, done int64
		want        int
	}{
		{"new", -3_600_000, 0, 1}, {"done", -3_600_000, -1000, 0},
		{"began a day ahead", day, 0, 1}, {"done a day ahead", -3_600_000, day, 1},
	} {
		h.began = now.UnixMilli() + c.began
		clear(h.done)
		if c.done != 0 {
			h.done[e.ID] = now.UnixMilli() + c.done
		}
		if n := len(h.pending(0)); n != c.want {
			t.Errorf("%s: %d eras are pending, want %d", c.what, n, c.want)
		}
	}
}

// What a node took alone in place of one that was passed over, of times long before, it
// gives that one when it leaves: nobody else has it. One that was not there yet was sent
// all when it came.
func TestDrainOfStrays(t *testing.T) {
	for _, there := range []bool{true, false} {
		nodes := newNodes(t, 3, 1, Options{Timeout: time.Minute}, remotewrite.Options{}, mcache.Options{})
		all := old(60)
		now := writetest.Now.UnixMilli()
		set := func(leaving []int, who ...int) {
			for _, i := range who {
				nodes[i].cluster.mu.Lock()
				nodes[i].cluster.table = members(nodes, i, 1, leaving, who...)
				nodes[i].cluster.mu.Unlock()
			}
		}
		set(nil, 0, 2) // as if 1 was passed over
		writetest.Answered(t, nodes[0].Send(wire.V2, writetest.Encode(t, wire.V2, all...)), http.StatusNoContent, "")
		without := nodes[0].cluster.Table()
		set(nil, 0, 1, 2)
		era := Era{ID: 7, From: now - 10_000, Until: now - 9000, Table: func() Table { return without }}
		h, err := nodes[2].router.NewHandover(HandoverOptions{Holdings: holdings{nodes[2]}, Window: time.Hour, Settle: time.Millisecond, Now: func() time.Time { return writetest.Now },
			Leaving: func(tab Table, k int) bool {
				id, _ := tab.Node(k)
				return id == "n2#1"
			},
			Began: func(Table, int) int64 {
				if there {
					return era.From
				}
				return era.From + 1
			},
			Eras: func(int64) []Era { return []Era{era} }})
		if err != nil {
			t.Fatal(err)
		}
		h.setBaseLocked(nodes[2].cluster.Table())
		h.done[era.ID] = now // what was new in it was sent
		before := nodes[2].cluster.Table()
		set([]int{2}, 0, 1, 2)
		if !h.Drain(t.Context()) {
			t.Fatal("not done")
		}
		strays := 0
		for _, s := range all {
			slot := slotOf("default", s.Labels)
			if before.Owners(slot)[0] != 1 || without.Owners(slot)[0] != 1 { // of the two that were left the second
				continue
			}
			strays++
			got := nodes[1].samples(s.Labels)
			for _, x := range s.Samples {
				if x.T >= now-time.Hour.Milliseconds() && slices.Contains(got, x) != there {
					t.Fatalf("it was there: %t, and has sample %d of %s: %t", there, x.T-now, writetest.LabelText(s.Labels), !there)
				}
			}
		}
		if strays == 0 {
			t.Error("nothing was taken in place of another: no test")
		}
	}
}

// samples are those of a series.
func (x *node) samples(ls []mcache.Label) (all []mcache.Sample) {
	ids, _ := x.Cache.Select("default", nil, nil)
	for _, id := range ids {
		got, _ := x.Cache.Labels(id, nil)
		if !slices.Equal(got, ls) {
			continue
		}
		var s mcache.Snapshot
		x.Cache.Snapshot(id, math.MinInt64, math.MaxInt64, &s)
		for it := s.Iterator(); it.Next(); {
			all = append(all, it.At())
		}
	}
	return all
}

// The newest goes first, no faster than it may, and again while the node has
// no room.
func TestHandoverIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const perSecond = 20_000
		var got []int64 // times, in the order in which they came
		refuse := 3
		took := time.Duration(0)
		began := time.Now()
		client := &http.Client{Transport: answering(func(p wire.Part) wire.Answer {
			if refuse > 0 {
				refuse--
				return wire.Answer{Status: http.StatusServiceUnavailable, Retry: "no room"}
			}
			r, err := decode(p.Protocol, p.Body)
			if err != nil || len(r.series) == 0 {
				t.Error(err)
			}
			got = append(got, int64(len(p.Body)))
			took = time.Since(began)
			return wire.Answer{Status: http.StatusNoContent}
		})}
		base := &table{ids: []string{"a"}, urls: []string{"http://a"}, copies: 1, orders: [][]uint16{{0}}}
		next := &table{ids: []string{"a", "b"}, urls: []string{"http://a", "http://b"}, copies: 2, orders: [][]uint16{{0, 1}}}
		c := &testCluster{table: base}
		r := newRouter(t, Options{Cluster: c, Client: client})
		var order []bool
		h, err := r.NewHandover(HandoverOptions{BytesPerSecond: perSecond, Leaving: func(Table, int) bool { return false }, Holdings: passes(func(newest bool, from int64, f func(string, uint16, send.Series) bool) {
			if age := time.Since(time.UnixMilli(from)); age < time.Hour || age > 2*time.Hour {
				t.Errorf("what is %v old is asked for", age)
			}
			order = append(order, newest)
			for i := range 4_000 {
				if !f("b", 0, send.Series{Labels: writetest.Named("m", "i", fmt.Sprint(i)), Samples: []mcache.Sample{{T: from, V: 1}}}) {
					return
				}
			}
		})})
		if err != nil {
			t.Fatal(err)
		}
		ctx, done := contextWithCancel(t)
		go func() {
			defer done()
			_ = h.Run(ctx)
		}()
		time.Sleep(time.Second)
		c.mu.Lock()
		c.table = next
		c.mu.Unlock()
		time.Sleep(time.Hour)
		synctest.Wait()
		bytes := int64(0)
		for _, n := range got {
			bytes += n
		}
		last := got[len(got)-1] // is not waited for
		if least := time.Duration(float64(bytes-last) / perSecond * float64(time.Second)); took < least || len(got) < 2 {
			t.Errorf("%d bytes took %v, less than %v", bytes, took, least)
		}
		if !slices.Equal(order, []bool{true, false}) {
			t.Errorf("whether it is the newest that is handed over: %v", order)
		}
		if s := h.Stats(); s.Samples != 8_000 || s.Failed != 0 || s.Slots != 0 || s.Bytes != bytes {
			t.Errorf("%+v", s)
		}
	})
}

// While a node works on what it was sent, the next is gathered, and the others are sent
// theirs; and of many nodes each is sent less at a time.
func TestHandoverGoesOnMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const (
			nodes = 2 * handoverMemory / handoverBytes
			label = 16 << 10
			takes = time.Second // a node, for a request
		)
		most := handoverMemory/nodes + 2*label // about
		var mu sync.Mutex
		requests := 0
		began := time.Now()
		base, next := &table{copies: 1, orders: [][]uint16{{0}}}, &table{copies: nodes, orders: [][]uint16{nil}}
		for i := range nodes {
			next.ids, next.urls = append(next.ids, fmt.Sprint("n", i)), append(next.urls, fmt.Sprint("http://n", i))
			next.orders[0] = append(next.orders[0], uint16(i))
		}
		base.ids, base.urls = next.ids[:1], next.urls[:1]
		router := newRouter(t, Options{Cluster: &testCluster{table: next}, Client: &http.Client{Transport: answering(func(p wire.Part) wire.Answer {
			mu.Lock()
			requests++
			mu.Unlock()
			if len(p.Body) > most {
				t.Errorf("a request of %d bytes, more than %d", len(p.Body), most)
			}
			time.Sleep(takes)
			return wire.Answer{Status: http.StatusNoContent}
		})}})
		const series = 5 * handoverMemory / nodes / label / 2 // two requests and a half
		h, err := router.NewHandover(HandoverOptions{Leaving: func(Table, int) bool { return false }, Holdings: passes(func(newest bool, from int64, f func(string, uint16, send.Series) bool) {
			for i := range series {
				if !newest {
					break
				}
				s := send.Series{Labels: writetest.Named("m", "i", fmt.Sprintf("%0*d", label, i)), Samples: []mcache.Sample{{T: from, V: 1}}}
				if !f("b", 0, s) {
					return
				}
			}
		})})
		if err != nil {
			t.Fatal(err)
		}
		h.setBaseLocked(base)
		if !h.job(t.Context(), next, 0) {
			t.Fatal("it is not done")
		}
		if s := h.Stats(); s.Samples != series*(nodes-1) || s.Failed != 0 || requests != 3*(nodes-1) {
			t.Errorf("%+v, %d requests", s, requests)
		}
		if took := time.Since(began); took != 3*takes {
			t.Errorf("each of %d nodes takes %v for each of three requests, all together %v", nodes-1, takes, took)
		}
	})
}
