package ingest

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"mcached/ingest/cluster"
)

// trio are servers that are told of each other by the test.
type trio struct {
	t       *testing.T
	servers []*Server
	addrs   []string
}

func proof(challenge []byte) []byte {
	h := hmac.New(sha256.New, []byte("the test's key"))
	h.Write(challenge)
	return h.Sum(nil)
}

func newTrio(t *testing.T, proxy bool, change func(o *Options)) *trio {
	c := &trio{t: t}
	for range 3 {
		s, addr := newServer(t, func(o *Options) {
			o.Cluster = &ClusterOptions{KeySlot: cluster.KeySlot, Proxy: proxy, Prove: proof,
				Proven: func(challenge, answer []byte) bool { return hmac.Equal(answer, proof(challenge)) }}
			if change != nil {
				change(o)
			}
		})
		c.servers, c.addrs = append(c.servers, s), append(c.addrs, addr)
	}
	return c
}

// give tells all servers that these nodes share the slots, by turns.
func (c *trio) give(nodes ...int) {
	for i, s := range c.servers {
		s.SetCluster(c.view(i, nodes...))
	}
}

func (c *trio) view(of int, nodes ...int) *ClusterView {
	v := &ClusterView{Self: -1, Group: 16, Copies: 1, Epoch: 7}
	for at, n := range nodes {
		host, port, _ := net.SplitHostPort(c.addrs[n])
		p, _ := strconv.Atoi(port)
		v.Nodes = append(v.Nodes, ClusterNode{ID: strings.Repeat(fmt.Sprint(n), 40), Host: host, Port: p})
		if n == of {
			v.Self = at
		}
	}
	for g := range clusterSlots / 16 {
		v.Owners = append(v.Owners, uint16(g%len(nodes)))
	}
	return v
}

func (c *trio) client(node int) *redis.Client {
	r := redis.NewClient(&redis.Options{Addr: c.addrs[node], MaxRetries: -1})
	c.t.Cleanup(func() { r.Close() })
	return r
}

func TestClusterRedirects(t *testing.T) {
	c := newTrio(t, false, nil)
	ctx := context.Background()
	for i := range c.servers {
		if err := c.client(i).Get(ctx, "k").Err(); err == nil || !strings.HasPrefix(err.Error(), "CLUSTERDOWN") {
			t.Fatalf("before it knows of a cluster: %v", err)
		}
	}
	c.give(0, 1, 2)
	counts := make([]int, 3)
	for k := range 300 {
		key := fmt.Sprint("key", k)
		slot := cluster.KeySlot([]byte(key))
		owner := int(slot) / 16 % 3
		counts[owner]++
		for i := range c.servers {
			r := c.client(i)
			for _, cmd := range [][]any{{"set", key, "v"}, {"get", key}, {"set", key, "v", "EX", "100"}, {"ts.add", key, "*", "1"}, {"mc.insert", "bucket", key, "0", "12345678"}, {"object", "encoding", key}, {"eval", "return redis.call('get', KEYS[1])", "1", key}, {"memory", "usage", key}} {
				if cmd[0] == "ts.add" {
					cmd[1] = "ts{" + key + "}"
				}
				err := r.Do(ctx, cmd...).Err()
				want := fmt.Sprintf("MOVED %d %s", slot, c.addrs[owner])
				if i == owner && err != nil || i != owner && (err == nil || err.Error() != want) {
					t.Fatalf("node %d, %v: %v, owner %d", i, cmd, err, owner)
				}
			}
			if k > 3 {
				r.Close()
			}
		}
	}
	if slices.Min(counts) < 50 {
		t.Fatal("the keys are not spread:", counts)
	}
	if s := c.servers[0].Stats(); s.Moved < 100 || s.Proxied != 0 {
		t.Errorf("%+v", s)
	}

	// A key of node 0, another of it in another slot, and one of node 1.
	mine, mine2, other := keyOf(0), keyOf(48), keyOf(16)
	r := c.client(0)
	for _, cmd := range [][]any{{"mget", mine, mine2}, {"mset", mine, 1, other, 2}, {"del", mine, other}} {
		if err := r.Do(ctx, cmd...).Err(); err == nil || !strings.HasPrefix(err.Error(), "CROSSSLOT") {
			t.Errorf("%v: %v", cmd, err)
		}
	}
	if err := r.MSet(ctx, mine, 1, "{"+mine+"}2", 2).Err(); err != nil {
		t.Error("two keys with one tag:", err)
	}
	// What is sent elsewhere spoils a transaction.
	_, err := r.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.Set(ctx, mine, "x", 0)
		p.Set(ctx, other, "x", 0)
		return nil
	})
	if err == nil || !strings.HasPrefix(err.Error(), "EXECABORT") && !strings.HasPrefix(err.Error(), "MOVED") {
		t.Error("a transaction with another node's key:", err)
	}
	if v := r.Get(ctx, mine).Val(); v != "1" {
		t.Errorf("it was run all the same: %q", v)
	}
	if err := r.Do(ctx, "select", "1").Err(); err == nil {
		t.Error("database 1 of a cluster was selected")
	}
	if err := r.Do(ctx, "mc.peer", "whatever").Err(); err == nil {
		t.Error("anybody is a node")
	}
	// A pipeline of GETs and SETs is bundled where it belongs, and redirected where not.
	var cmds []redis.Cmder
	cmds, _ = r.Pipelined(ctx, func(p redis.Pipeliner) error {
		for k := range 200 {
			p.Set(ctx, fmt.Sprint("key", k), k, 0)
			p.Get(ctx, fmt.Sprint("key", k))
		}
		return nil
	})
	for i, cmd := range cmds {
		here := int(cluster.KeySlot([]byte(fmt.Sprint("key", i/2))))/16%3 == 0
		if (cmd.Err() == nil) != here {
			t.Fatalf("%v: %v", cmd, cmd.Err())
		}
	}
}

// keyOf is a key of a slot's unit.
func keyOf(slot int) string {
	for i := 0; ; i++ {
		if key := fmt.Sprint("k", i); int(cluster.KeySlot([]byte(key)))/16 == slot/16 {
			return key
		}
	}
}

func TestClusterCommands(t *testing.T) {
	c := newTrio(t, false, nil)
	c.give(0, 1, 2)
	ctx := context.Background()
	r := c.client(1)
	//lint:ignore SA1019 most clients still ask for it
	slots, err := r.ClusterSlots(ctx).Result()
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for _, s := range slots {
		if s.Start != at || len(s.Nodes) != 1 || s.Nodes[0].Addr != c.addrs[s.Start/16%3] {
			t.Fatalf("%+v, behind slot %d", s, at)
		}
		at = s.End + 1
	}
	if at != clusterSlots {
		t.Errorf("the ranges end at %d", at)
	}
	shards, err := r.ClusterShards(ctx).Result()
	if err != nil || len(shards) != 3 || len(shards[0].Nodes) != 1 || shards[1].Nodes[0].Role != "master" || len(shards[2].Slots) != len(slots)/3 {
		t.Errorf("%d shards, %v", len(shards), err)
	}
	if nodes := r.ClusterNodes(ctx).Val(); strings.Count(nodes, "master") != 3 || strings.Count(nodes, "myself,master") != 1 || !strings.Contains(nodes, strings.Repeat("1", 40)+" "+c.addrs[1]+"@") {
		t.Error(nodes)
	}
	if info := r.ClusterInfo(ctx).Val(); !strings.Contains(info, "cluster_state:ok\r\ncluster_slots_assigned:16384") || !strings.Contains(info, "cluster_size:3") {
		t.Error(info)
	}
	if id := r.ClusterMyID(ctx).Val(); id != strings.Repeat("1", 40) {
		t.Error(id)
	}
	if slot := r.ClusterKeySlot(ctx, "foo").Val(); slot != 12182 {
		t.Error(slot)
	}
	key := keyOf(16)
	slot := int(cluster.KeySlot([]byte(key)))
	r.Set(ctx, key, "v", 0)
	r.Set(ctx, "{"+key+"}2", "v", 0)
	if n := r.ClusterCountKeysInSlot(ctx, slot).Val(); n != 2 {
		t.Error(n, "keys in the slot")
	}
	if keys := r.ClusterGetKeysInSlot(ctx, slot, 1).Val(); len(keys) != 1 || !strings.Contains(keys[0], key) {
		t.Error(keys)
	}
	for _, bad := range [][]any{{"cluster", "countkeysinslot", "16384"}, {"cluster", "countkeysinslot", "x"}, {"cluster", "getkeysinslot", "1", "-1"}, {"cluster", "meet", "127.0.0.1", "1"}} {
		if err := r.Do(ctx, bad...).Err(); err == nil {
			t.Error(bad, "was answered")
		}
	}
	for _, ok := range []string{"readonly", "readwrite", "asking"} {
		if s, err := r.Do(ctx, ok).Text(); s != "OK" || err != nil {
			t.Error(ok, s, err)
		}
	}
	for _, none := range [][]any{{"cluster", "links"}, {"cluster", "replicas", strings.Repeat("1", 40)}} {
		if l, err := r.Do(ctx, none...).Slice(); len(l) != 0 || err != nil {
			t.Error(none, l, err)
		}
	}
	if hello, err := r.Do(ctx, "hello", "3").Result(); err != nil || !strings.Contains(fmt.Sprint(hello), "cluster") {
		t.Error(hello, err)
	}
	if info := r.Info(ctx).Val(); !strings.Contains(info, "redis_mode:cluster") || !strings.Contains(info, "cluster_enabled:1") {
		t.Error(info)
	}
	// A server on its own says that it is.
	_, addr := newServer(t, nil)
	alone := redis.NewClient(&redis.Options{Addr: addr})
	defer alone.Close()
	for _, cmd := range [][]any{{"cluster", "slots"}, {"cluster", "info"}, {"readonly"}, {"mc.peer"}} {
		if err := alone.Do(ctx, cmd...).Err(); err == nil || err.Error() != errNoCluster {
			t.Error(cmd, err)
		}
	}
}

// A slot that went to another node and comes back has none of its old values,
// whenever it comes back and whatever is written meanwhile.
func TestClusterForgets(t *testing.T) {
	c := newTrio(t, false, nil)
	ctx := context.Background()
	c.give(0, 1)
	// Clients write rising numbers to whoever says that it owns a key. Nobody
	// may read less than was acknowledged before it asked.
	const keys = 64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var mu [keys]sync.Mutex
	var written [keys]int
	var served atomic.Int64
	for w := range 4 {
		clients := []*redis.Client{c.client(0), c.client(1), c.client(2)}
		wg.Go(func() {
			for i := w; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				k := i % keys
				mu[k].Lock()
				for _, r := range clients {
					got, err := r.Get(ctx, fmt.Sprint("n", k)).Int()
					if err == nil && got != written[k] {
						t.Errorf("key %d is %d, and %d was written", k, got, written[k])
					}
					if err != nil && err != redis.Nil {
						continue
					}
					if err := r.Set(ctx, fmt.Sprint("n", k), written[k]+1, 0).Err(); err == nil {
						written[k]++
						served.Add(1)
					}
					break
				}
				mu[k].Unlock()
			}
		})
	}
	for round := range 60 {
		c.giveAt(round)
		enough := served.Load() + 8
		waitFor(t, "some is written", func() bool { return served.Load() >= enough || t.Failed() })
	}
	close(stop)
	wg.Wait()
	// In the end each node has keys of its own slots only.
	c.give(0, 1, 2)
	for i, s := range c.servers {
		waitFor(t, "the slots that went are cleaned", func() bool { return !s.cluster.some.Load() })
		for _, key := range c.client(i).Keys(ctx, "*").Val() {
			if int(cluster.KeySlot([]byte(key)))/16%3 != i {
				t.Errorf("node %d still has %s", i, key)
			}
		}
	}
}

// A node that stood still while others had its slots, and was told of no other view,
// serves none of its old keys once it is told that it was displaced.
func TestClusterDisplaced(t *testing.T) {
	c := newTrio(t, false, nil)
	ctx := context.Background()
	c.give(0, 1, 2)
	key, other := keyOf(0), keyOf(48) // both of node 0
	still, heir := c.client(0), c.client(1)
	for _, k := range []string{key, other} {
		if err := still.Set(ctx, k, "old", 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for i := 1; i < 3; i++ {
		c.servers[i].SetCluster(c.view(i, 1, 2))
	}
	if err := heir.Set(ctx, key, "new", 0).Err(); err != nil {
		t.Fatal(err)
	}
	for i := 1; i < 3; i++ {
		c.servers[i].SetCluster(c.view(i, 0, 1, 2))
	}
	c.servers[0].Displaced()
	waitFor(t, "it serves its slots again", func() bool {
		v, err := still.Get(ctx, key).Result()
		if err == nil {
			t.Errorf("it reads %q", v)
		}
		return err == nil || err == redis.Nil
	})
	for _, k := range []string{key, other} {
		if v, err := still.Get(ctx, k).Result(); err != redis.Nil {
			t.Errorf("%s is %q, %v", k, v, err)
		}
		if err := still.Set(ctx, k, "newest", 0).Err(); err != nil {
			t.Error(err)
		}
	}
}

// A slot that comes back before its old keys are removed is not served until then.
func TestClusterForgetsFirst(t *testing.T) {
	c := newTrio(t, false, nil)
	ctx := context.Background()
	c.give(0)
	s, r, gone, stays := c.servers[0], c.client(0), keyOf(16), keyOf(0)
	r.Set(ctx, gone, "old", 0)
	r.Set(ctx, stays, "v", 0)
	s.cluster.mu.Lock()
	s.cluster.cleaning = true // as if it were under way
	s.cluster.mu.Unlock()
	c.give(0, 1)
	c.give(0)
	for _, do := range []func() error{func() error { return r.Get(ctx, gone).Err() }, func() error { return r.Set(ctx, gone, "new", 0).Err() }} {
		if err := do(); err == nil || !strings.HasPrefix(err.Error(), "CLUSTERDOWN") {
			t.Errorf("a slot that is not clean: %v", err)
		}
	}
	if v := r.Get(ctx, stays).Val(); v != "v" {
		t.Errorf("a slot that stayed: %q", v)
	}
	if !s.hold() {
		t.Fatal("the server has ended")
	}
	s.clean()
	if err := r.Get(ctx, gone).Err(); err != redis.Nil {
		t.Errorf("an old key: %v", err)
	}
	if v := r.Get(ctx, stays).Val(); v != "v" {
		t.Errorf("a slot that stayed, after it: %q", v)
	}
}

// giveAt gives the slots to other nodes in each round, first away from those
// that lose them, as gossip does not.
func (c *trio) giveAt(round int) {
	nodes := [][]int{{0, 1}, {0, 1, 2}, {1, 2}, {2, 0}, {2}}[round%5]
	for i, s := range c.servers {
		if !slices.Contains(nodes, i) {
			s.SetCluster(c.view(i, nodes...))
		}
	}
	// Between nodes that stay slots change hands as well: nobody serves, then all do.
	for i, s := range c.servers {
		v := c.view(i, nodes...)
		v.Down = true
		s.SetCluster(v)
	}
	c.give(nodes...)
}

func TestClusterProxy(t *testing.T) {
	for _, protocol := range []int{2, 3} {
		t.Run(fmt.Sprint("RESP", protocol), func(t *testing.T) {
			c := newTrio(t, true, func(o *Options) { o.Password = "of clients" })
			c.give(0, 1, 2)
			ctx := context.Background()
			r := redis.NewClient(&redis.Options{Addr: c.addrs[0], Password: "of clients", Protocol: protocol, MaxRetries: -1})
			defer r.Close()
			var keys []string
			var pairs []any
			for k := range 100 {
				keys = append(keys, fmt.Sprint("key", k))
				pairs = append(pairs, keys[k], k)
			}
			if err := r.MSet(ctx, pairs...).Err(); err != nil {
				t.Fatal(err)
			}
			for k, key := range keys {
				if n, err := r.Get(ctx, key).Int(); n != k || err != nil {
					t.Fatalf("%s is %d, %v", key, n, err)
				}
				if n, err := r.Incr(ctx, key).Result(); n != int64(k+1) || err != nil {
					t.Fatalf("%s is then %d, %v", key, n, err)
				}
			}
			got, err := r.MGet(ctx, append(keys, "missing", keys[0])...).Result()
			if err != nil || len(got) != 102 || got[100] != nil || got[101] != "1" {
				t.Fatal(len(got), err)
			}
			for k := range keys {
				if got[k] != fmt.Sprint(k+1) {
					t.Fatalf("%s is %v in MGET", keys[k], got[k])
				}
			}
			if n := r.DBSize(ctx).Val(); n != 100 {
				t.Error("DBSIZE", n)
			}
			if all := r.Keys(ctx, "key*").Val(); len(all) != 100 {
				t.Error("KEYS gives", len(all))
			}
			for i := range c.servers {
				if n := c.servers[i].o.Blobs.At(0).Len(); n < 20 || n > 50 {
					t.Errorf("node %d has %d of 100 keys", i, n)
				}
			}
			cmds, err := r.Pipelined(ctx, func(p redis.Pipeliner) error {
				for k, key := range keys {
					p.Set(ctx, key, k, 0)
					p.Get(ctx, key)
					p.Do(ctx, "ts.add", "series"+key, 1000+k, k)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for i := 1; i < len(cmds); i += 3 {
				if n, err := cmds[i].(*redis.StringCmd).Int(); n != i/3 || err != nil {
					t.Fatal("in a pipeline", i, n, err)
				}
			}
			if n := r.Exists(ctx, keys...).Val(); n != 100 {
				t.Error("EXISTS", n)
			}
			if n := r.Del(ctx, keys[:50]...).Val(); n != 50 {
				t.Error("DEL", n)
			}
			if err := r.MSetNX(ctx, pairs...).Err(); err == nil || !strings.HasPrefix(err.Error(), "CROSSSLOT") {
				t.Error("MSETNX of several nodes' keys:", err)
			}
			if err := r.FlushAll(ctx).Err(); err != nil {
				t.Error(err)
			}
			if n := r.DBSize(ctx).Val(); n != 0 {
				t.Error("after FLUSHALL", n)
			}
			if info := r.Info(ctx).Val(); !strings.Contains(info, "cluster_enabled:0") {
				t.Error("clients are shown a cluster")
			}
			if c.servers[0].Stats().Proxied < 300 {
				t.Error("it was not passed on:", c.servers[0].Stats().Proxied)
			}
			// A key whose owner is gone, for everybody, is another node's.
			c.give(0, 2)
			for _, key := range keys {
				if err := r.Set(ctx, key, "x", 0).Err(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// Who does not have the cluster's key is no node, and gets no further than a stranger.
func TestClusterForgedPeer(t *testing.T) {
	c := newTrio(t, true, func(o *Options) { o.Password = "of clients" })
	c.give(0, 1, 2)
	nc, err := net.Dial("tcp", c.addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	br := bufio.NewReader(nc)
	ask := func(args ...string) string {
		var b [][]byte
		for _, a := range args {
			b = append(b, []byte(a))
		}
		if _, err := nc.Write(appendCommand(nil, b)); err != nil {
			t.Fatal(err)
		}
		a, err := readAnswer(br, nil, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		return string(a)
	}
	first := ask("MC.PEER")
	for _, answer := range []string{"", "x", first, string(proof([]byte("another challenge")))} {
		if got := ask("MC.PEER", answer); !strings.HasPrefix(got, "-NOAUTH") {
			t.Errorf("%q: %q", answer, got)
		}
		ask("MC.PEER")
	}
	if got := ask("GET", "x"); !strings.HasPrefix(got, "-NOAUTH") {
		t.Errorf("%q", got)
	}
	// The right answer, but to the challenge before.
	old := bulkOf([]byte(ask("MC.PEER")))
	ask("MC.PEER")
	if got := ask("MC.PEER", string(proof(old))); !strings.HasPrefix(got, "-NOAUTH") {
		t.Errorf("an old challenge: %q", got)
	}
	if got := ask("MC.PEER", string(proof(bulkOf([]byte(ask("MC.PEER")))))); got != "+OK\r\n" {
		t.Errorf("a node: %q", got)
	}
	// One hop: a node does not pass on what another passes on to it.
	if got := ask("GET", keyOf(16)); !strings.HasPrefix(got, "-TRYAGAIN") {
		t.Errorf("another node's key by a node: %q", got)
	}
}

func FuzzReadAnswer(f *testing.F) {
	for _, s := range []string{"+OK\r\n", "$3\r\nabc\r\n", "*2\r\n:1\r\n$-1\r\n", "%1\r\n+a\r\n_\r\n", "*-1\r\n", "$99999999999\r\n", "*9\r\n*9\r\n*9\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readAnswer(bufio.NewReader(strings.NewReader(string(b))), nil, 1<<12)
		if len(got) > 1<<12 || err == nil && !strings.HasPrefix(string(b), string(got)) {
			t.Fatalf("%q of %q", got, b)
		}
		elementsOf(got)
	})
}
