package ingest

import (
	"cmp"
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mcached/ingest/cluster"
)

// wire is what connects the nodes of a fleet with each other and with clients. Node
// -1 is the clients.
type wire struct {
	mu     sync.Mutex
	conns  map[*wireConn]struct{}
	refuse func(from, to int) bool
	silent func(from, to int) bool // what is written is lost, and nobody told
	most   atomic.Int64            // bytes; what is written at once and is more is lost, too; 0 for no bound
}

type wireConn struct {
	net.Conn
	w        *wire
	from, to int
	lost     atomic.Bool
}

func (c *wireConn) Write(b []byte) (int, error) {
	if most := c.w.most.Load(); c.lost.Load() || most > 0 && int64(len(b)) > most {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *wireConn) Close() error {
	c.w.mu.Lock()
	delete(c.w.conns, c)
	c.w.mu.Unlock()
	return c.Conn.Close()
}

func (w *wire) dial(from, to int, address string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != nil && w.refuse(from, to) {
		return nil, errors.New("refused by the test")
	}
	nc, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return nil, err
	}
	c := &wireConn{Conn: nc, w: w, from: from, to: to}
	c.lost.Store(w.silent != nil && w.silent(from, to))
	w.conns[c] = struct{}{}
	return c, nil
}

// set changes what passes. Connections that do not are closed, or go silent; those
// that were silent are closed.
func (w *wire) set(refuse, silent func(from, to int) bool) {
	w.mu.Lock()
	w.refuse, w.silent = refuse, silent
	var closes []*wireConn
	for c := range w.conns {
		switch {
		case refuse != nil && refuse(c.from, c.to) || c.lost.Load():
			closes = append(closes, c)
		case silent != nil && silent(c.from, c.to):
			c.lost.Store(true)
		}
	}
	w.mu.Unlock()
	for _, c := range closes {
		c.Close()
	}
}

// fleet are nodes that keep copies, by name; each start of one is another node.
type fleet struct {
	t    testing.TB
	wire *wire

	mu    sync.Mutex
	names int
	plain []int        // numbers of those that keep no copies
	nodes []*fleetNode // by number; a number is used once
	live  []int        // by name, the number of its node, -1 for none
	joins map[int]bool // numbers of nodes that are promised what they will serve
}

type fleetNode struct {
	*Server
	number, name int
	address      string
}

func newFleet(t testing.TB, names int, plain ...int) *fleet {
	f := &fleet{t: t, wire: &wire{conns: map[*wireConn]struct{}{}}, names: names, plain: plain, live: make([]int, names), joins: map[int]bool{}}
	for name := range names {
		f.start(name)
	}
	f.tell()
	return f
}

func (f *fleet) start(name int) *fleetNode {
	f.mu.Lock()
	n := &fleetNode{number: len(f.nodes), name: name}
	f.nodes = append(f.nodes, n)
	f.mu.Unlock()
	n.Server, n.address = newServer(f.t, func(o *Options) {
		o.Cluster = &ClusterOptions{KeySlot: cluster.KeySlot, Copies: 2, Prove: proof,
			Proven: func(challenge, answer []byte) bool { return hmac.Equal(answer, proof(challenge)) },
			Dial: func(_ context.Context, address string) (net.Conn, error) {
				return f.wire.dial(n.number, f.numberAt(address), address)
			}}
		if slices.Contains(f.plain, n.number) {
			o.Cluster.Copies = 1
		}
	})
	if n.copies != nil {
		n.copies.answer = 200 * time.Millisecond
	}
	f.mu.Lock()
	f.live[name] = n.number
	f.mu.Unlock()
	return n
}

func (f *fleet) numberAt(address string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.IndexFunc(f.nodes, func(n *fleetNode) bool { return n.address == address })
}

// view is what a node is told: rendezvous by names.
func (f *fleet) view(of int) *ClusterView {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := &ClusterView{Self: -1, Group: 16, Epoch: 7}
	var names []int
	for name, number := range f.live {
		if number < 0 {
			continue
		}
		host, port, _ := net.SplitHostPort(f.nodes[number].address)
		p, _ := strconv.Atoi(port)
		if number == of {
			v.Self = len(v.Nodes)
		}
		v.Nodes, names = append(v.Nodes, ClusterNode{ID: fmt.Sprintf("%040d", number), Host: host, Port: p}), append(names, name)
	}
	v.Copies = min(2, len(v.Nodes))
	for g := range clusterSlots / 16 {
		order := make([]int, len(names))
		for i := range order {
			order[i] = i
		}
		weight := func(i int) uint64 {
			h := fnv.New64a()
			fmt.Fprint(h, g, "/", names[i])
			return h.Sum64() * 0x9e3779b97f4a7c15 >> 8
		}
		slices.SortFunc(order, func(a, b int) int { return cmp.Compare(weight(a), weight(b)) })
		joins := func(i int) bool { return f.joins[f.live[names[i]]] }
		promised := len(names) >= copyMembers && joins(order[0]) && !joins(order[1])
		if promised {
			order[0], order[1] = order[1], order[0]
		}
		v.Promised = append(v.Promised, promised)
		for _, i := range order[:v.Copies] {
			v.Owners = append(v.Owners, uint16(i))
		}
	}
	return v
}

// tell tells all live nodes of each other, in any order.
func (f *fleet) tell() {
	f.mu.Lock()
	live := slices.DeleteFunc(slices.Clone(f.live), func(n int) bool { return n < 0 })
	f.mu.Unlock()
	rand.Shuffle(len(live), func(i, j int) { live[i], live[j] = live[j], live[i] })
	for _, n := range live {
		f.nodes[n].SetCluster(f.view(n))
	}
}

// join is start, of a node that serves nothing before ready.
func (f *fleet) join(name int) *fleetNode {
	n := f.start(name)
	f.mu.Lock()
	f.joins[n.number] = true
	f.mu.Unlock()
	return n
}

func (f *fleet) ready(n *fleetNode) {
	f.mu.Lock()
	delete(f.joins, n.number)
	f.mu.Unlock()
}

// kill has nobody reach a node, and the node nobody, any more. It goes on, as nothing
// in a process can be killed, but that is not to be noticed.
func (f *fleet) kill(name int) (killed *fleetNode) {
	f.mu.Lock()
	killed = f.nodes[f.live[name]]
	f.live[name] = -1
	f.mu.Unlock()
	f.wire.set(f.dead, nil)
	return killed
}

func (f *fleet) dead(from, to int) bool {
	return !f.isLive(from) || !f.isLive(to)
}

func (f *fleet) isLive(number int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return number < 0 || slices.Contains(f.live, number)
}

// complete is how many units a node's heirs have all of, whether anybody could confirm
// it or not.
func (n *fleetNode) complete() (units int) {
	n.copies.mu.Lock()
	defer n.copies.mu.Unlock()
	for o := range n.copies.out {
		if o.in(sessionComplete) {
			units += o.units.count()
		}
	}
	return units
}

// whole waits until every unit has a complete copy, which another node can confirm.
func (f *fleet) whole() {
	waitFor(f.t, "all units have a copy", func() bool {
		n := 0
		f.mu.Lock()
		live := slices.Clone(f.live)
		f.mu.Unlock()
		for _, number := range live {
			if number >= 0 {
				n += f.nodes[number].Stats().UnitsCopied
			}
		}
		return n == copyUnits
	})
}

func (f *fleet) sum(of func(st Stats) uint64) (n uint64) {
	f.mu.Lock()
	nodes := slices.Clone(f.nodes)
	f.mu.Unlock()
	for _, s := range nodes {
		n += of(s.Stats())
	}
	return n
}

// fleetClient follows MOVED. It is for one goroutine.
type fleetClient struct {
	f       *fleet
	clients map[int]*redis.Client
	at      map[string]int // nodes, by key
}

func (f *fleet) client() *fleetClient {
	return &fleetClient{f: f, clients: map[int]*redis.Client{}, at: map[string]int{}}
}

func (c *fleetClient) close() {
	for _, r := range c.clients {
		r.Close()
	}
}

// do runs a command about a key. Errors of the server are errors that did nothing.
func (c *fleetClient) do(key string, args ...any) (v any, err error) {
	for range 3 {
		c.f.mu.Lock()
		number, ok := c.at[key]
		if !ok || !slices.Contains(c.f.live, number) {
			if number = c.f.live[rand.IntN(len(c.f.live))]; number < 0 {
				number = slices.Max(c.f.live)
			}
		}
		address := c.f.nodes[number].address
		c.f.mu.Unlock()
		r := c.clients[number]
		if r == nil {
			r = redis.NewClient(&redis.Options{Addr: address, MaxRetries: -1, PoolSize: 1, ReadTimeout: 15 * time.Second, Protocol: 2, DisableIdentity: true,
				Dialer: func(context.Context, string, string) (net.Conn, error) {
					return c.f.wire.dial(-1, number, address)
				}})
			c.clients[number] = r
		}
		v, err = r.Do(context.Background(), args...).Result()
		if err == nil || errors.Is(err, redis.Nil) {
			return v, err
		}
		delete(c.at, key)
		if to, moved := strings.CutPrefix(err.Error(), "MOVED "); moved {
			_, to, _ = strings.Cut(to, " ")
			c.at[key] = c.f.numberAt(to)
			continue
		}
		return nil, err
	}
	return nil, err
}

// A keyModel is what may be read of a key.
type keyModel struct {
	acked   string   // "" for none
	pending []string // written since, and not answered
}

func (m *keyModel) allows(v string) bool {
	return v == "" || v == m.acked || slices.Contains(m.pending, v)
}

// written is that v was written, and err answered.
func (m *keyModel) written(v string, err error) {
	switch {
	case err == nil || errors.Is(err, redis.Nil):
		m.acked, m.pending = v, nil
	case isServerError(err): // it was not run
	default:
		m.pending = append(m.pending, v)
	}
}

func isServerError(err error) bool {
	for _, p := range []string{"MOVED", "CLUSTERDOWN", "TRYAGAIN", "LOADING", "refused by the test"} {
		if strings.HasPrefix(err.Error(), p) {
			return true
		}
	}
	return strings.Contains(err.Error(), "refused by the test")
}

// modelWriter writes and reads keys of its own, and holds what it reads against what
// it wrote.
type modelWriter struct {
	t           testing.TB
	c           *fleetClient
	name        int
	seed        uint64
	keys        []keyModel
	n           int
	hits, wrong int
}

func (w *modelWriter) key(i int) string { return fmt.Sprintf("w%d:%d", w.name, i) }

func (w *modelWriter) step(rnd *rand.Rand) {
	i := rnd.IntN(len(w.keys))
	key, m := w.key(i), &w.keys[i]
	kind := i % 3 // strings, hashes, and strings that are long
	w.n++
	v := fmt.Sprintf("%d-%d", i, w.n)
	if kind == 2 {
		v += strings.Repeat("x", 3000)
	}
	switch op := rnd.IntN(10); {
	case op < 4:
		w.read(i)
	case op < 5:
		_, err := w.c.do(key, "del", key)
		m.written("", err)
	case kind == 1:
		_, err := w.c.do(key, "hset", key, "f", v)
		m.written(v, err)
	case op < 6:
		_, err := w.c.do(key, "eval", "return redis.call('set', KEYS[1], ARGV[1])", "1", key, v)
		m.written(v, err)
	case op < 7:
		_, err := w.c.do(key, "set", key, v, "EX", "1000")
		m.written(v, err)
	default:
		_, err := w.c.do(key, "set", key, v)
		m.written(v, err)
	}
}

// there is how many keys are found.
func (w *modelWriter) there() (n int) {
	for i := range w.keys {
		if w.read(i) {
			n++
		}
	}
	return n
}

func (w *modelWriter) read(i int) (found bool) {
	key, m := w.key(i), &w.keys[i]
	args := []any{"get", key}
	if i%3 == 1 {
		args = []any{"hget", key, "f"}
	}
	got, err := w.c.do(key, args...)
	if err != nil {
		return false
	}
	v, _ := got.(string)
	if !m.allows(v) {
		w.wrong++
		w.t.Errorf("seed %d: %s is %.20q, was answered to be %.20q, and perhaps %.40q", w.seed, key, v, m.acked, m.pending)
	}
	if v != "" {
		w.hits++
	}
	return v != ""
}

// written is a writer of 300 keys that has made many steps, and what decides the next.
func (f *fleet) written() (*modelWriter, *rand.Rand) {
	w := &modelWriter{t: f.t, c: f.client(), keys: make([]keyModel, 300)}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 1500 {
		w.step(rnd)
	}
	return w, rnd
}

// copiedFleet is one of three nodes with copies of all that a writer has written, and how
// many keys of it are there.
func copiedFleet(t *testing.T) (f *fleet, w *modelWriter, before int) {
	t.Helper()
	f = newFleet(t, 3)
	f.whole()
	w, _ = f.written()
	t.Cleanup(w.c.close)
	return f, w, w.there()
}

// served waits until all keys of w are.
func (f *fleet) served(w *modelWriter) {
	waitFor(f.t, "all units are served", func() bool {
		for i := range w.keys {
			if _, err := w.c.do(w.key(i), "exists", w.key(i)); err != nil {
				return false
			}
		}
		return true
	})
}
