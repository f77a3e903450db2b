package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// TestE2ERedisCLI: what a person types first.
func TestE2ERedisCLI(t *testing.T) {
	cli := realServer(t, "redis-cli", "redis-tools")
	t.Parallel()
	s := startServer(t)
	host, port, _ := strings.Cut(s.resp, ":")
	for _, c := range []struct{ args, want string }{
		{"ping", "PONG"},
		{"set greeting hello", "OK"},
		{"get greeting", "hello"},
		{"exists greeting nothing", "1"},
		{"-3 get greeting", "hello"},
		{"del greeting", "1"},
		{"get greeting", ""},
		{"nonsense", "ERR unknown command"},
	} {
		out, err := exec.Command(cli, append([]string{"-h", host, "-p", port}, strings.Fields(c.args)...)...).CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), c.want) {
			t.Errorf("redis-cli %s: %v, %q; want %q", c.args, err, out, c.want)
		}
	}
	if v := s.metric("mcached_resp_commands_total"); v < 8 {
		t.Errorf("%v commands counted", v)
	}
}

// TestE2ERedisBenchmark: it runs to its end, and its keys are there.
func TestE2ERedisBenchmark(t *testing.T) {
	benchmark := realServer(t, "redis-benchmark", "redis-tools")
	t.Parallel()
	s := startServer(t)
	host, port, _ := strings.Cut(s.resp, ":")
	out, err := exec.Command(benchmark, "-h", host, "-p", port, "-n", "5000", "-c", "20", "-P", "8", "-r", "1000", "-t", "ping,set,get,incr,mset", "--csv").CombinedOutput()
	if err != nil || strings.Contains(string(out), "Error") {
		t.Fatalf("redis-benchmark: %v\n%s", err, out)
	}
	for _, test := range []string{"PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET (10 keys)"} {
		if !regexp.MustCompile(`(?m)^"` + regexp.QuoteMeta(test) + `","[1-9]`).Match(out) {
			t.Errorf("no figure for %s in\n%s", test, out)
		}
	}
	if v := s.metric("mcached_blobs_entries"); v < 900 {
		t.Errorf("%v keys after writing at random to 1,000", v)
	}
}

// TestE2EGoRedis: the client library that Go programs use, in both protocols.
func TestE2EGoRedis(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	for _, protocol := range []int{2, 3} {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		c := redis.NewClient(&redis.Options{Addr: s.resp, Protocol: protocol, ReadTimeout: patience})
		defer c.Close()
		key := fmt.Sprintf("key-%d", protocol)
		if err := c.Set(ctx, key, "value", time.Hour).Err(); err != nil {
			t.Fatalf("RESP%d: %v", protocol, err)
		}
		if v, err := c.Get(ctx, key).Result(); err != nil || v != "value" {
			t.Errorf("RESP%d: GET %q, %v", protocol, v, err)
		}
		if ttl, err := c.TTL(ctx, key).Result(); err != nil || ttl < 59*time.Minute || ttl > time.Hour {
			t.Errorf("RESP%d: TTL %v, %v", protocol, ttl, err)
		}
		if _, err := c.Get(ctx, "none").Result(); !errors.Is(err, redis.Nil) {
			t.Errorf("RESP%d: GET of nothing: %v", protocol, err)
		}
		_, err := c.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i := range 1000 {
				p.Set(ctx, fmt.Sprintf("p-%d-%d", protocol, i), i, 0)
			}
			return nil
		})
		if err != nil {
			t.Errorf("RESP%d: pipeline: %v", protocol, err)
		}
		seen := 0
		for it := c.Scan(ctx, 0, fmt.Sprintf("p-%d-*", protocol), 100).Iterator(); it.Next(ctx); seen++ {
		}
		if seen != 1000 {
			t.Errorf("RESP%d: SCAN found %d of 1,000", protocol, seen)
		}
	}
}

// TestE2EPassword: a password from a file keeps others out, and a listener for
// everyone needs one.
func TestE2EPassword(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("open sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, "--resp.listen-address=0.0.0.0:0", "--resp.password-file="+file)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	address := strings.Replace(s.resp, "localhost", "127.0.0.1", 1)
	for _, c := range []struct{ password, wantErr string }{
		{"open sesame", ""}, {"wrong", "WRONGPASS"}, {"", "NOAUTH"},
	} {
		r := redis.NewClient(&redis.Options{Addr: address, Password: c.password, ReadTimeout: patience})
		err := r.Set(ctx, "k", "v", 0).Err()
		r.Close()
		if c.wantErr == "" && err != nil || c.wantErr != "" && (err == nil || !strings.Contains(err.Error(), c.wantErr)) {
			t.Errorf("password %q: %v, want %q", c.password, err, c.wantErr)
		}
	}
	if strings.Contains(s.output(), "sesame") {
		t.Error("the password is in the log")
	}
}

// TestE2EMemory: three times the size goes in, the process stays small, and
// the youngest entries are still there.
func TestE2EMemory(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--memory.size=64MiB", "--memory.heap-limit=64MiB")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c := s.redis()
	const entries, perPipeline = 200_000, 1000
	value := strings.Repeat("x", 1000)
	peak := int64(0)
	for i := 0; i < entries; i += perPipeline {
		_, err := c.Pipelined(ctx, func(p redis.Pipeliner) error {
			for j := range perPipeline {
				p.Set(ctx, "k"+strconv.Itoa(i+j), value, 0)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if i%(20*perPipeline) == 0 {
			peak = max(peak, s.rssBytes())
		}
	}
	peak = max(peak, s.rssBytes())
	const bound = (64 + 64 + 64) << 20 // the budget, the heap's limit, and the program with its stacks
	if peak > bound {
		t.Errorf("%d MiB resident at the most, want at most %d", peak>>20, bound>>20)
	}
	if v := s.metric("mcached_memory_used_bytes"); v > 64<<20 {
		t.Errorf("%v bytes used of a budget of 64 MiB", v)
	}
	if v := s.metric(`mcached_blobs_removed_total{reason="evicted"}`); v < entries/2 {
		t.Errorf("only %v entries evicted: the test did not fill the memory", v)
	}
	hits := 0
	for i := entries - 1000; i < entries; i++ {
		if v, err := c.Get(ctx, "k"+strconv.Itoa(i)).Result(); err == nil && v == value {
			hits++
		}
	}
	if hits < 990 {
		t.Errorf("only %d of the last 1,000 entries are there", hits)
	}
	t.Logf("%d MiB resident at the most", peak>>20)
}
