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
