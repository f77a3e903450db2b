package route

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"mcached/remotewrite/send"
	"mcached/remotewrite/wire"
)

// Nodes that forward what they hold to a store behind them, each series with
// several copies: each sample is forwarded by one of them. Whoever cuts a request
// says to which owner he gives a sample to forward, and to which as a copy; these
// keep it on standby: it is as dirty as their own, and stays when the memory
// presses, but is not sent.
//
//	cut ──▶ first owner ──forwards──▶ store        "all that came until 40 s ago is there"
//	  └───▶ others ───── standby ───asks──▶ first owner
//	                        │
//	                        ├─ that is after what came here: clean
//	                        └─ the first owner is gone: the next one forwards it
//
// A sample is acknowledged to its sender when a node has it that forwards it, so
// nothing that was acknowledged is on standby alone.
//
// # What an owner says
//
// Every answer to a bundle has a header (SentHeader) with the age of the newest moment
// before which the node has forwarded all that it was given, and the print of its
// table. Who has something on standby asks with empty bundles. He began to ask at a
// time of his own clock, and the answer is of later: what came before that time
// less the age was forwarded, whatever clocks say and however long the answer
// took. A copy may come standbySlack before the one that is forwarded.
//
// # Which table counts
//
// The first owner is that of the table by which the request was cut, and a point
// lives longer than a table. So tables are kept with the time from when on they
// held, and what came while several did, or near to a change, waits for the first
// owners of all of them. If one of these is gone, the next owner of that table
// that is still there forwards. He must know that before he is believed: an
// answer counts only if its table is that of who asks, and a node speaks for a
// table once it has taken over what that table gives to it.
//
// # When a sample is forwarded twice
//
// In the steady state never. When a node is lost, leaves, or is started again, the
// next owner forwards what the node may have forwarded since its last answer: of
// the last MaxDirtyAge, and a fraction. When a node was too slow to take a write,
// or had no room, whoever takes its place forwards it, which takes along what
// that one has on standby of the same series. A store of metrics takes a point
// twice as it takes it once.

// SentHeader says how much a node has forwarded.
const SentHeader = "X-Mcached-Sent"

// standbySlack is how much later than a copy the sample itself may come: frames
// wait for Timeout, and take it again.
const standbySlack = 5 * time.Second

// Forwarding is what forwards this node's samples: a send.Forwarder.
type Forwarding interface {
	Elapsed() time.Duration
	SentAge() time.Duration
	SettleStandby(rules send.StandbyRules)
}

// Standby looks after what other nodes forward.
type Standby struct {
	r     *Router
	f     Forwarding
	every time.Duration

	spoken atomic.Pointer[string] // the print of the table that this node speaks for

	// Those of Run:
	tables []held
	heard  map[string]sent // by the id of a node, since the last table
	print  string          // of that
}

// held is a table that held from a time on.
type held struct {
	table Table
	since time.Duration
}

// sent is what a node has said.
type sent struct {
	before   time.Duration // all that came before has been forwarded; below 0: nothing is known
	forwards bool
}

// maxHeldTables bounds those that are remembered. What is on standby since before
// them is forwarded.
const maxHeldTables = 64

// NewStandby returns what Run is to be called of, for a Router that Forwards.
// Every is how often other nodes are asked. Default 5 s.
func (r *Router) NewStandby(f Forwarding, every time.Duration) *Standby {
	if every <= 0 {
		every = 5 * time.Second
	}
	s := &Standby{r: r, f: f, every: every}
	r.standby.Store(s)
	return s
}

// Run asks and settles until ctx ends.
func (s *Standby) Run(ctx context.Context) error {
	const look = 100 * time.Millisecond
	tick := time.NewTicker(min(look, s.every))
	defer tick.Stop()
	next := time.Now()
	for {
		if s.see(s.r.o.Cluster.Table()) || !time.Now().Before(next) {
			next = time.Now().Add(s.every)
			s.round(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// see notes the present table, and reports whether it is another than before.
func (s *Standby) see(t Table) bool {
	if t == nil || len(s.tables) > 0 && s.tables[len(s.tables)-1].table == t {
		return false
	}
	s.tables = append(s.tables, held{t, s.f.Elapsed()})
	if n := len(s.tables) - maxHeldTables; n > 0 {
		s.tables = slices.Delete(s.tables, 0, n)
	}
	s.heard, s.print = nil, printOf(t)
	return true
}

// round asks all others, and settles what is on standby.
func (s *Standby) round(ctx context.Context) {
	if len(s.tables) == 0 {
		return
	}
	t := s.tables[len(s.tables)-1].table
	if p := s.spoken.Load(); p == nil || *p != s.print {
		// First what no answer is needed for: others wait for this node to take it over.
		s.settle(t)
		print := s.print
		s.spoken.Store(&print)
	}
	s.ask(ctx, t, s.print)
	if len(s.heard) > 0 {
		s.settle(t)
	}
}

func (s *Standby) settle(t Table) {
	j := judgement{s: s, now: make(map[string]bool, t.Nodes())}
	for i := range t.Nodes() {
		id, _ := t.Node(i)
		j.now[id] = true
	}
	s.f.SettleStandby(send.StandbyRules{Slot: s.r.SlotOf, Judge: j.of})
}

// judgement says what becomes of what is on standby, as of a table.
type judgement struct {
	s   *Standby
	now map[string]bool // the nodes that there are
}

func (j *judgement) of(slot uint16, from, to time.Duration) (before time.Duration, mine bool) {
	before = math.MaxInt64
	known := false
	tables := j.s.tables
	if len(tables) == maxHeldTables && from < tables[0].since {
		return 0, true
	}
	for i := range tables {
		if i > 0 && tables[i].since > to+standbySlack {
			break
		}
		if i+1 < len(tables) && tables[i+1].since < from-standbySlack {
			continue
		}
		id, who := j.first(tables[i].table, slot)
		switch who {
		case itself:
			continue // it was another's who cut the request
		case heir:
			return 0, true
		}
		known = true
		said, ok := j.s.heard[id]
		switch {
		case !ok || said.before < 0:
			before = 0
		case !said.forwards:
			return 0, true
		default:
			before = min(before, said.before)
		}
	}
	return before, !known
}

// Who forwards a slot.
type forwards int

const (
	another forwards = iota
	itself           // this node, as it did all the time
	heir             // this node, since those before it are gone
)

// first is the first owner of a slot in a table that is there still.
func (j *judgement) first(t Table, slot uint16) (id string, who forwards) {
	for i, o := range t.Owners(slot) {
		switch id, _ = t.Node(int(o)); {
		case int(o) == t.Self() && i == 0:
			return id, itself
		case int(o) == t.Self():
			return id, heir
		case j.now[id]:
			return id, another
		}
	}
	return "", heir // all are gone
}

// ask asks all other nodes at once.
func (s *Standby) ask(ctx context.Context, t Table, print string) {
	heard := make(map[string]sent, t.Nodes())
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range t.Nodes() {
		if i == t.Self() {
			continue
		}
		wg.Go(func() {
			began := s.f.Elapsed()
			id, url := t.Node(i)
			text, err := s.r.sentOf(ctx, url)
			if err != nil {
				return // it is asked again
			}
			said := parseSent(text, print, began)
			mu.Lock()
			heard[id] = said
			mu.Unlock()
		})
	}
	wg.Wait()
	s.heard = heard
}

// parseSent reads what a node said, who was asked at a time.
func parseSent(text, print string, began time.Duration) sent {
	if text == "" {
		return sent{}
	}
	var ms int64
	var of string
	if n, err := fmt.Sscanf(text, "%d %s", &ms, &of); n != 2 || err != nil || of != print || ms < 0 {
		return sent{before: -1, forwards: true}
	}
	return sent{before: began - time.Duration(ms)*time.Millisecond - standbySlack, forwards: true}
}

// sentOf asks a node how much it has forwarded.
func (r *Router) sentOf(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, handoverTimeout)
	defer cancel()
	req, err := r.request(ctx, url, newBundle(wire.AppendBundle(nil)))
	if err != nil {
		return "", err
	}
	res, err := r.o.Client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswerBytes))
	if res.StatusCode != http.StatusOK {
		return "", errors.New(res.Status)
	}
	return res.Header.Get(SentHeader), nil
}

// Answered adds to an answer to another node by which prints it may name series, and how
// much this one has forwarded.
func (r *Router) Answered(h http.Header) {
	if r.o.Prints != nil {
		h.Set(wire.HeaderPrints, r.o.Prints.Check())
	}
	s := r.standby.Load()
	if s == nil {
		return
	}
	print := "-" // it has yet to see a table
	if p := s.spoken.Load(); p != nil {
		print = *p // before the age: that takes in what was taken over for this table
	}
	age := s.f.SentAge()
	h.Set(SentHeader, strconv.FormatInt(age.Milliseconds()+1, 10)+" "+print)
}

// printOf tells tables apart by their nodes and who owns what, the same on all nodes.
func printOf(t Table) string {
	h := fnv.New64a()
	ids := make([]string, t.Nodes())
	for i := range ids {
		ids[i], _ = t.Node(i)
		_, _ = io.WriteString(h, ids[i]+"\x00")
	}
	for slot := range slots {
		for _, o := range t.Owners(uint16(slot)) {
			_, _ = h.Write([]byte{byte(o >> 8), byte(o)})
		}
	}
	return strconv.FormatUint(h.Sum64(), 16)
}
