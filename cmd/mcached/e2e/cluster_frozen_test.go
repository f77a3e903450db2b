package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// A member that stood still while others dropped it and served its keys never answers
// with what it had: not what waits in its sockets when it goes on, and not later.
func TestClusterRedisFrozen(t *testing.T) {
	t.Parallel()
	for _, copies := range []string{"1", "2"} {
		t.Run("copies="+copies, func(t *testing.T) {
			t.Parallel()
			testFrozen(t, startCluster(t, 3, "--cluster.blob-copies="+copies))
		})
	}
}

func testFrozen(t *testing.T, g *group) {
	ctx := context.Background()
	frozen := g.members[1]
	direct := redis.NewClient(&redis.Options{Addr: frozen.resp, MaxRetries: -1, ReadTimeout: time.Minute})
	defer direct.Close()
	var keys []string
	for i := 0; len(keys) < 100; i++ {
		key := fmt.Sprint("frozen", i)
		switch err := direct.Set(ctx, key, "old", 0).Err(); {
		case err == nil:
			keys = append(keys, key)
		case !strings.HasPrefix(err.Error(), "MOVED"):
			time.Sleep(10 * time.Millisecond) // it takes its slots
		}
	}
	waiting, err := net.Dial("tcp", frozen.resp)
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	answers := bufio.NewReader(waiting)
	fmt.Fprintf(waiting, "PING\r\n")
	if line, err := answers.ReadString('\n'); err != nil || line != "+PONG\r\n" {
		t.Fatalf("%q, %v", line, err)
	}

	_ = frozen.cmd.Process.Signal(syscall.SIGSTOP)
	defer frozen.cmd.Process.Signal(syscall.SIGCONT) //nolint:errcheck // it may have gone on
	for _, s := range []*server{g.members[0], g.members[2]} {
		eventually(t, "the others drop it", func() error {
			v, err := s.cluster()
			if err == nil && len(v.Members) != 2 {
				err = fmt.Errorf("%d members", len(v.Members))
			}
			return err
		})
	}
	heirs := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{g.members[0].resp, g.members[2].resp}, ReadTimeout: 2 * time.Second, DialTimeout: 2 * time.Second})
	defer heirs.Close()
	for _, key := range keys {
		eventually(t, "its heir has the key", func() error { return heirs.Set(ctx, key, "new", 0).Err() })
	}
	for _, key := range keys { // these wait in its socket
		fmt.Fprintf(waiting, "GET %s\r\n", key)
	}
	_ = frozen.cmd.Process.Signal(syscall.SIGCONT)
	for _, key := range keys {
		line, err := answers.ReadString('\n')
		if err == nil && strings.HasPrefix(line, "$") && line != "$-1\r\n" {
			line, err = answers.ReadString('\n')
		}
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, "old") {
			t.Fatalf("%s, which waited in its socket, is %q", key, line)
		}
	}
	read := func() (served int) {
		for _, key := range keys {
			v, err := direct.Get(ctx, key).Result()
			if err == nil && v != "new" {
				t.Fatalf("%s is %q", key, v)
			}
			if err == nil || err == redis.Nil {
				served++
			}
		}
		return served
	}
	eventually(t, "it serves all of its keys again", func() error {
		for range 10 {
			if read() == len(keys) {
				return nil
			}
		}
		return fmt.Errorf("it does not yet")
	})
	g.wait("n0", "n1", "n2")
	for range 20 {
		read()
	}
	for _, key := range keys {
		eventually(t, "the key can be written and read anywhere", func() error {
			if err := heirs.Set(ctx, key, "newest", 0).Err(); err != nil {
				return err
			}
			v, err := heirs.Get(ctx, key).Result()
			if err == nil && v != "newest" {
				t.Fatalf("%s is %q", key, v)
			}
			return err
		})
	}
}

// One of three members is cut off, and all keys are written on both sides. When the
// network is whole again nobody has a key of the lonely one's from before the cut, nor
// one that was written there. The larger side has its own, unless gossip takes so long that
// its members drop each other, by what the lonely one thought of them: how many is logged.
func TestClusterRedisCut(t *testing.T) {
	inLab(t, 3, func(l *lab) {
		l.redis = true
		g := l.cluster()
		var clients []*redis.Client
		for _, s := range g.members { // the test reaches all sides, and follows nobody to the other
			c := redis.NewClient(&redis.Options{Addr: s.resp, MaxRetries: -1})
			defer c.Close()
			clients = append(clients, c)
		}
		ctx := context.Background()
		// do runs a command at the first of clients that has its key.
		do := func(clients []*redis.Client, args ...any) (v any, err error) {
			for _, c := range clients {
				if v, err = c.Do(ctx, args...).Result(); err == nil || err == redis.Nil {
					return v, nil
				}
			}
			return nil, err
		}
		larger, lonely := clients[:2], clients[2:]
		const keys = 200
		key := func(i int) string { return fmt.Sprint("cut", i) }
		own := map[string]bool{} // of the lonely one
		for i := range keys {
			eventually(t, "the key is written", func() error { _, err := do(clients, "set", key(i), "old"); return err })
			if v, _ := do(lonely, "get", key(i)); v == "old" {
				own[key(i)] = true
			}
		}
		if len(own) == 0 || len(own) == keys {
			t.Fatalf("%d of %d keys are the lonely one's", len(own), keys)
		}
		l.cut(2)
		for i, s := range g.members {
			eventually(t, "the cut is noticed", func() error {
				v, err := s.cluster()
				if want := []int{2, 2, 1}[i]; err == nil && len(v.Members) != want {
					err = fmt.Errorf("%d members", len(v.Members))
				}
				return err
			})
		}
		for i := range keys {
			side, value := larger, "new"
			if !own[key(i)] {
				side, value = lonely, "lonely"
			}
			eventually(t, "each side has the other's keys", func() error {
				_, err := do(side, "set", key(i), value)
				if err != nil && value == "lonely" && !strings.HasPrefix(err.Error(), "CLUSTERDOWN") { // it knows that it is alone
					t.Fatalf("%s: %v", key(i), err)
				}
				return err
			})
		}
		l.heal()
		g.wait(labName(0), labName(1), labName(2))
		kept := 0 // of the larger side's own
		for i := range keys {
			eventually(t, "nobody has what does not count", func() error {
				owner := larger
				if own[key(i)] {
					owner = lonely
				}
				v, err := do(owner, "get", key(i))
				if err == nil && (v == "lonely" || own[key(i)] && v == "old") {
					err = fmt.Errorf("%s, the lonely one's: %v, is %v", key(i), own[key(i)], v)
				}
				if err == nil && !own[key(i)] && v == "old" {
					kept++
				}
				return err
			})
		}
		t.Logf("the larger side has %d of its %d keys", kept, keys-len(own))
	})
}
