package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// redis-cli finds every key by way of any member, and its check of clusters finds no fault.
func TestClusterRedisCLI(t *testing.T) {
	t.Parallel()
	cli := realServer(t, "redis-cli", "redis-tools")
	g := startCluster(t, 3)
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(cli, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("redis-cli %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	host, port, _ := strings.Cut(g.members[0].resp, ":")
	var script strings.Builder
	for k := range 50 {
		fmt.Fprintf(&script, "set key%d %d\nget key%d\n", k, k, k)
	}
	eventually(t, "no member asks to be tried again, which redis-cli does not do", func() error {
		cmd := exec.Command(cli, "-h", host, "-p", port, "-c")
		cmd.Stdin = strings.NewReader(script.String())
		out, err := cmd.CombinedOutput()
		text := string(out)
		if again(text) {
			return errors.New(text)
		}
		if err != nil || strings.Count(text, "OK") != 50 || strings.Contains(text, "ERR") || strings.Contains(text, "MOVED") {
			t.Errorf("redis-cli -c: %v\n%s", err, out)
		}
		return nil
	})
	var check string
	eventually(t, "redis-cli --cluster check agrees", func() error {
		out, err := exec.Command(cli, "--cluster", "check", g.members[1].resp).CombinedOutput()
		check = string(out)
		if err != nil || !strings.Contains(check, "[OK] All nodes agree about slots configuration") || !strings.Contains(check, "[OK] All 16384 slots covered") {
			return fmt.Errorf("%v: %s", err, check)
		}
		return nil
	})
	if strings.Count(check, "M: ") != 3 || !strings.Contains(check, "50 keys in 3 masters") {
		t.Errorf("redis-cli --cluster check sees:\n%s", check)
	}
	if slots := run("-h", host, "-p", port, "--raw", "cluster", "slots"); len(slots) > 110<<10 {
		t.Errorf("CLUSTER SLOTS has %d bytes", len(slots))
	}
}

// clusterClient is of a client library that knows Redis Cluster. Left alone it
// asks where keys are once a minute, even while a member refuses connections.
func (g *group) clusterClient() *redis.ClusterClient {
	var addrs []string
	for _, s := range g.running() {
		addrs = append(addrs, s.resp)
	}
	c := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs, MaxRedirects: 8, ClusterStateReloadInterval: time.Second, DialerRetries: 1, DialTimeout: 2 * time.Second, ReadTimeout: 2 * time.Second})
	g.t.Cleanup(func() { c.Close() })
	return c
}

// again says whether a member asks its client to try again: it stood still for a second,
// and asks others first what it missed.
func again(text string) bool { return strings.Contains(text, "CLUSTERDOWN") }

// One member is killed while clients write and read: they see errors for some
// seconds and then none, and never a value that was not the last one written.
func TestClusterRedisKill(t *testing.T) {
	t.Parallel()
	g := startCluster(t, 3)
	c := g.clusterClient()
	ctx := context.Background()
	const keys, writers = 200, 4
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var served atomic.Int64
	var mu sync.Mutex
	lastError := time.Time{}
	for w := range writers {
		wg.Go(func() {
			for i := w; ; i += writers { // each key has one writer
				select {
				case <-stop:
					return
				default:
				}
				key, value := fmt.Sprint("key", i%keys), fmt.Sprint(i)
				err := c.Set(ctx, key, value, 0).Err()
				if err == nil {
					var got string
					if got, err = c.Get(ctx, key).Result(); err == nil && got != value {
						t.Errorf("%s is %q, and %q was written", key, got, value)
					} else if errors.Is(err, redis.Nil) {
						err = nil // its owner died in between: a miss
					}
				}
				if err == nil {
					served.Add(1)
					continue
				}
				mu.Lock()
				lastError = time.Now()
				mu.Unlock()
			}
		})
	}
	more(t, "clients are served", &served, 1000)
	killed := time.Now()
	_ = g.members[1].cmd.Process.Signal(syscall.SIGKILL)
	<-g.members[1].exited
	g.wait("n0", "n2")
	// All keys can be written again, by this client and a new one.
	for _, client := range []*redis.ClusterClient{c, g.clusterClient()} {
		eventually(t, "all keys are served again", func() error {
			for k := range keys {
				if err := client.Set(ctx, fmt.Sprint("other", k), k, 0).Err(); err != nil {
					return err
				}
			}
			return nil
		})
	}
	more(t, "writers go on", &served, 300)
	close(stop)
	wg.Wait()
	t.Logf("the last error came %v after the kill", lastError.Sub(killed).Round(time.Millisecond))
	masters := 0
	if err := c.ForEachMaster(ctx, func(context.Context, *redis.Client) error { mu.Lock(); masters++; mu.Unlock(); return nil }); err != nil || masters != 2 {
		t.Errorf("the client sees %d masters, %v", masters, err)
	}
}

// A member that leaves in order sends its clients on before it closes: nobody
// is refused a connection, or loses one with a command on it.
func TestClusterRedisDrain(t *testing.T) {
	t.Parallel()
	g := startCluster(t, 3)
	c := g.clusterClient()
	ctx := context.Background()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var served atomic.Int64
	for w := range 2 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				err := c.Set(ctx, fmt.Sprint(w, "key", i%500), i, 0).Err()
				for err != nil && strings.HasPrefix(err.Error(), "MOVED") {
					// On a busy machine gossip may take longer than the member that
					// leaves waits for it: until then clients are sent back and forth.
					time.Sleep(10 * time.Millisecond)
					err = c.Set(ctx, fmt.Sprint(w, "key", i%500), i, 0).Err()
				}
				if err != nil {
					t.Errorf("while a member leaves: %v", err)
					return
				}
				served.Add(1)
			}
		})
	}
	more(t, "clients are served", &served, 300)
	g.members[2].stop()
	g.wait("n0", "n1")
	more(t, "clients are served", &served, 300)
	close(stop)
	wg.Wait()
}

// Clients that know nothing of clusters reach all keys by any member.
func TestClusterRedisProxy(t *testing.T) {
	t.Parallel()
	g := startCluster(t, 3, "--cluster.resp=proxy", "--cluster.key-file="+keyFile(t), "--resp.password-file="+keyFile(t))
	ctx := context.Background()
	var all []*redis.Client
	for _, s := range g.members {
		c := redis.NewClient(&redis.Options{Addr: s.resp, Password: "a secret that all members share", MaxRetries: -1, ReadTimeout: patience})
		t.Cleanup(func() { c.Close() })
		all = append(all, c)
	}
	for k := range 100 {
		eventually(t, "no member asks to be tried again", func() error {
			err := all[k%3].Set(ctx, fmt.Sprint("key", k), k, 0).Err()
			if err != nil && !again(err.Error()) {
				t.Fatal(err)
			}
			return err
		})
	}
	for k := range 100 {
		for i, c := range all {
			eventually(t, "no member asks to be tried again", func() error {
				v, err := c.Get(ctx, fmt.Sprint("key", k)).Int()
				if err != nil && again(err.Error()) {
					return err
				}
				if v != k || err != nil {
					t.Fatalf("key%d by member %d: %d, %v", k, i, v, err)
				}
				return nil
			})
		}
	}
	if n := all[1].DBSize(ctx).Val(); n != 100 {
		t.Errorf("DBSIZE %d", n)
	}
	if n := g.members[0].metric(`mcached_resp_elsewhere_total{kind="proxied"}`); n < 50 {
		t.Errorf("%v commands were passed on", n)
	}
}

// The clients of other languages see three masters and find every key.
func TestClusterRedisClients(t *testing.T) {
	t.Parallel()
	node, dir := nodeClients(t)
	g := startCluster(t, 3)
	run := exec.Command(node, filepath.Join(dir, "cluster.js"), g.members[0].resp)
	out, err := run.CombinedOutput()
	for _, client := range []string{"ioredis: 3 masters, 200 keys", "node-redis: 3 masters, 200 keys"} {
		if !bytes.Contains(out, []byte(client)) {
			t.Errorf("want %q: %v\n%s", client, err, out)
		}
	}
}
