package ingest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"mcached/kvcache"
)

// What a script or a transaction names must be this node's, whatever was declared
// or true before.
func TestClusterScriptsStayHere(t *testing.T) {
	for _, proxy := range []bool{false, true} {
		t.Run(fmt.Sprint("proxy ", proxy), func(t *testing.T) {
			c := newTrio(t, proxy, nil)
			c.give(0, 1, 2)
			ctx := context.Background()
			r := c.client(0)
			mine, mine2, other := keyOf(0), keyOf(48), keyOf(16)
			const remote, slots = "non local key in a cluster node", "do not hash to the same slot"
			crossing := map[bool]string{false: "CROSSSLOT", true: ""}[proxy]
			for _, try := range []struct {
				script string
				keys   []string
				err    string // in the answer; "" for none
			}{
				{"return redis.call('set', KEYS[1], 'v')", []string{mine}, ""},
				{"return redis.call('set', '" + mine + "', 'v')", nil, ""},
				{"return redis.call('set', '" + mine2 + "', 'v')", []string{mine}, ""}, // as Redis without a first line
				{"#!lua\nreturn redis.call('set', '" + mine2 + "', 'v')", []string{mine}, slots},
				{"#!lua flags=allow-cross-slot-keys\nreturn redis.call('set', '" + mine2 + "', 'v')", []string{mine}, ""},
				{"#!lua\nredis.call('set', '" + mine + "', 'v') return redis.call('get', '" + mine2 + "')", nil, slots},
				{"return redis.call('set', '" + other + "', 'v')", []string{mine}, remote},
				{"return redis.call('get', '" + other + "')", nil, remote},
				{"return redis.pcall('get', '" + other + "')", nil, remote},
				{"return redis.call('mget', '" + mine + "', '" + other + "')", nil, remote},
				{"return redis.call('object', 'encoding', '" + other + "')", nil, remote},
				{"return redis.call('ts.add', '" + other + "', 1, 1)", nil, remote},
				{"return redis.call('mget', '" + mine + "', '" + mine2 + "')", nil, map[bool]string{false: remote, true: ""}[proxy]},
			} {
				err := r.Eval(ctx, try.script, try.keys).Err()
				if (err == nil) != (try.err == "") || err != nil && !strings.Contains(err.Error(), try.err) {
					t.Errorf("%s with %v: %v, want %q", try.script, try.keys, err, try.err)
				}
			}
			if n := c.servers[0].o.Blobs.At(0).Len(); n != 2 {
				t.Error("keys of others were written here:", n)
			}
			_, err := r.TxPipelined(ctx, func(p redis.Pipeliner) error {
				p.Set(ctx, mine, "1", 0)
				p.Set(ctx, mine2, "1", 0)
				return nil
			})
			if (err == nil) != proxy || err != nil && !strings.HasPrefix(err.Error(), crossing) {
				t.Errorf("a transaction of two slots: %v", err)
			}

			// A slot that goes while a transaction is queued, and one that comes back
			// before it is clean.
			conn := r.Conn()
			defer conn.Close()
			for _, cmd := range [][]any{{"multi"}, {"set", mine, "queued"}} {
				if err := conn.Do(ctx, cmd...).Err(); err != nil {
					t.Fatal(err)
				}
			}
			c.give(1, 2)
			if err := conn.Do(ctx, "exec").Err(); err == nil || !strings.HasPrefix(err.Error(), map[bool]string{false: "MOVED", true: "CROSSSLOT"}[proxy]) {
				t.Error("a transaction whose slot went:", err)
			}
			if err := conn.Do(ctx, "exec").Err(); err == nil || !strings.HasPrefix(err.Error(), "ERR EXEC without MULTI") {
				t.Error("afterwards:", err)
			}
			s := c.servers[0]
			waitFor(t, "the slots that went are cleaned", func() bool { return !s.cluster.some.Load() })
			s.cluster.mu.Lock()
			s.cluster.cleaning = true // as if it were under way
			s.cluster.mu.Unlock()
			c.give(0, 1, 2)
			c.give(1, 2)
			c.give(0, 1, 2)
			if err := r.Eval(ctx, "return redis.call('get', '"+mine+"')", nil).Err(); err == nil || !strings.Contains(err.Error(), remote) {
				t.Error("a key of a slot that is not clean:", err)
			}
		})
	}
}

// Scripts that are kept are so by all nodes, for clients that know one of them.
func TestClusterScriptsByProxy(t *testing.T) {
	c := newTrio(t, true, nil)
	c.give(0, 1, 2)
	ctx := context.Background()
	r := c.client(0)
	get := redis.NewScript("return redis.call('get', KEYS[1])")
	if err := get.Load(ctx, r).Err(); err != nil {
		t.Fatal(err)
	}
	for slot := 0; slot < 96; slot += 16 {
		key := keyOf(slot)
		if err := r.Set(ctx, key, slot, 0).Err(); err != nil {
			t.Fatal(err)
		}
		if n, err := get.EvalSha(ctx, r, []string{key}).Int(); n != slot || err != nil {
			t.Errorf("%s is %d, %v", key, n, err)
		}
	}
	exists := func() string { return fmt.Sprint(r.ScriptExists(ctx, get.Hash(), "none").Result()) }
	if got := exists(); got != "[true false] <nil>" {
		t.Error(got)
	}
	if err := c.client(0).Do(ctx, "script", "exists").Err(); err == nil {
		t.Error("SCRIPT EXISTS of nothing was answered")
	}
	forgets := c.servers[1].scripts
	forgets.mu.Lock()
	clear(forgets.cache)
	forgets.mu.Unlock()
	if got := exists(); got != "[false false] <nil>" {
		t.Error(got)
	}
	if err := r.ScriptFlush(ctx).Err(); err != nil {
		t.Error(err)
	}
	if c.client(2).ScriptExists(ctx, get.Hash()).Val()[0] || c.servers[2].scripts.find(get.Hash()) != nil {
		t.Error("it was not forgotten")
	}
}

// SCAN by proxy goes through all nodes, whichever is asked, and through those that
// stay though others go.
func TestClusterScanByProxy(t *testing.T) {
	c := newTrio(t, true, nil)
	c.give(0, 1, 2)
	ctx := context.Background()
	r := c.client(0)
	want := map[string]bool{}
	for k := range 700 {
		key := fmt.Sprint("key", k)
		var err error
		if want[key] = true; k%7 == 0 {
			err = r.Do(ctx, "ts.create", key).Err()
		} else {
			err = r.Set(ctx, key, k, 0).Err()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	walk := func(count int64, of func(call int) *redis.Client, match string) map[string]bool {
		seen, cursor := map[string]bool{}, uint64(0)
		for call := 0; ; call++ {
			keys, next, err := of(call).Scan(ctx, cursor, match, count).Result()
			if err != nil || next >= 1<<53 || call > 10_000 {
				t.Fatal(call, next, err)
			}
			for _, k := range keys {
				seen[k] = true
			}
			if cursor = next; cursor == 0 {
				return seen
			}
		}
	}
	clients := []*redis.Client{c.client(0), c.client(1), c.client(2)}
	for _, count := range []int64{1, 10, 5000} {
		if seen := walk(count, func(call int) *redis.Client { return clients[call%3] }, ""); len(seen) != len(want) {
			t.Errorf("by %d: %d of %d keys", count, len(seen), len(want))
		}
	}
	if seen := walk(10, func(int) *redis.Client { return r }, "key1*"); len(seen) != 111 {
		t.Errorf("%d keys begin with key1", len(seen))
	}
	// Node 1 goes in the middle. What the others have, and had from the start, is seen.
	stays := map[string]bool{}
	for _, i := range []int{0, 2} {
		s := c.servers[i]
		for cursor, more := uint64(0), true; more; more = cursor != 0 {
			cursor = s.o.Blobs.At(0).Scan(cursor, 100, func(key []byte, _ kvcache.Entry) { stays[string(key)] = true })
		}
		s.series.scan(0, len(want), func(name string) { stays[name] = true })
	}
	seen := walk(10, func(call int) *redis.Client {
		if call == 10 {
			c.giveKeeping(0, 2)
		}
		return clients[0]
	}, "")
	for k := range stays {
		if !seen[k] {
			t.Error(k, "was not seen, though its node stayed")
		}
	}
	for _, bad := range []string{"x", "18446744073709551615"} {
		if err := r.Do(ctx, "scan", bad).Err(); bad == "x" && err == nil {
			t.Error(bad, "was taken for a cursor")
		}
	}
}

// giveKeeping takes node 1 away and leaves the slots of the others where they are.
func (c *trio) giveKeeping(nodes ...int) {
	for i, s := range c.servers {
		v := c.view(i, 0, 1, 2)
		gone := 1
		v.Nodes = slices.Delete(v.Nodes, gone, gone+1)
		for g := range v.Owners {
			v.Owners[g] = map[uint16]uint16{0: 0, 1: 0, 2: 1}[v.Owners[g]]
		}
		v.Self = slices.Index(nodes, i)
		s.SetCluster(v)
	}
}

func TestScanNumbers(t *testing.T) {
	v := &ClusterView{}
	for i := range 300 {
		v.Nodes = append(v.Nodes, ClusterNode{ID: fmt.Sprintf("%08x", uint32(i)*0x9e3779b9) + strings.Repeat("0", 32)})
	}
	v.Nodes = append(v.Nodes, ClusterNode{ID: strings.Repeat("f", 40)}, ClusterNode{ID: "ffffffff" + strings.Repeat("0", 32)}, ClusterNode{ID: strings.Repeat("0", 40)})
	numbers := scanNumbers(v)
	sorted := slices.Clone(numbers)
	slices.Sort(sorted)
	if n := len(slices.Compact(sorted)); n != len(v.Nodes) || sorted[0] == 0 || slices.Max(numbers) >= 1<<scanNodeBits {
		t.Errorf("%d numbers of %d nodes, up to %d", n, len(v.Nodes), slices.Max(numbers))
	}
}
