package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// The squeeze is of a control group: what is in it is real, the kernel kills
// whoever exceeds it, and no other process on the machine is troubled.
const (
	squeezeLimit     = 384 << 20
	squeezeKeep      = "64MiB" // of the limit, which others find available
	squeezeNeighbour = 120 << 20
	squeezeRate      = 160 << 20 // bytes a second
	squeezeQuiet     = 30 * time.Second
)

// memoryGroup makes a control group of either version with a limit, and
// returns the command that runs another program within it.
func memoryGroup(t *testing.T, limitBytes int) []string {
	t.Helper()
	name := fmt.Sprintf("mcached-%s-%d", t.Name(), os.Getpid())
	dir, limit := filepath.Join("/sys/fs/cgroup/memory", name), "memory.limit_in_bytes"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		dir, limit = filepath.Join("/sys/fs/cgroup", name), "memory.max"
	}
	leaveOut := func(why string, err error) {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s: %v", why, err)
		}
		t.Skipf("%s: %v", why, err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		leaveOut("no control group can be made here", err)
	}
	t.Cleanup(func() { // after those of its processes, which wait for them
		eventually(t, "the control group is removed", func() error { return os.Remove(dir) })
	})
	if err := os.WriteFile(filepath.Join(dir, limit), []byte(strconv.Itoa(limitBytes)), 0o644); err != nil {
		leaveOut("no limit can be set here", err)
	}
	return []string{"/bin/sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(dir, "cgroup.procs")}
}

// writeBlobs sets keys without end, a hundred at a time, and tells how that went.
func writeBlobs(ctx context.Context, c *redis.Client, wrote func(error)) {
	value := strings.Repeat("x", 4000)
	for i := 0; ctx.Err() == nil; i += 100 {
		_, err := c.Pipelined(ctx, func(p redis.Pipeliner) error {
			for j := range 100 {
				p.Set(ctx, "k"+strconv.Itoa(i+j), value, 0)
			}
			return nil
		})
		wrote(err)
		time.Sleep(2 * time.Millisecond)
	}
}

// TestE2ESqueeze: a daemon that has filled its control group, and is written to
// and asked all the time, makes room for a neighbour before the kernel has to,
// answers meanwhile, and takes the room again when the neighbour has gone.
func TestE2ESqueeze(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the time of quiet that the budget needs to grow")
	}
	t.Parallel()
	within := memoryGroup(t, squeezeLimit)
	s := startServerBy(t, within, "--memory.size=0", "--memory.keep-available="+squeezeKeep, "--memory.heap-limit=64MiB", "--self-scrape.interval=1s")
	initial := s.metric("mcached_memory_budget_bytes")
	if initial > squeezeLimit-64<<20 || initial < squeezeLimit/3 {
		t.Fatalf("a budget of %v bytes at first: the group is not seen", initial)
	}

	// Someone writes blobs, without end, and someone samples; someone asks.
	ctx, cancel := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	defer busy.Wait()
	defer cancel()
	var asked, written, posted, failures atomic.Int64
	var slowest atomic.Int64
	c := redis.NewClient(&redis.Options{Addr: s.resp, MaxRetries: -1})
	defer c.Close()
	fail := func(what string, err error) {
		if err != nil && ctx.Err() == nil && failures.Add(1) <= 5 {
			t.Errorf("%s: %v", what, err)
		}
	}
	busy.Go(func() {
		writeBlobs(ctx, c, func(err error) {
			fail("SET", err)
			written.Add(100)
		})
	})
	busy.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			code, said, err := s.post(ctx, numbered(t, "squeezed", i*100%20_000, 100))
			if err == nil && code != http.StatusNoContent {
				err = fmt.Errorf("%d %s", code, said)
			}
			fail("remote write", err)
			posted.Add(1)
			time.Sleep(5 * time.Millisecond)
		}
	})
	busy.Go(func() {
		for ctx.Err() == nil {
			began := time.Now()
			_, err := s.instant(`count(squeezed)`)
			fail("query", err)
			slowest.Store(max(slowest.Load(), int64(time.Since(began))))
			asked.Add(1)
			time.Sleep(10 * time.Millisecond)
		}
	})
	eventually(t, "the budget is used up", func() error {
		if used := s.metric("mcached_memory_used_bytes"); used < initial*8/10 {
			return fmt.Errorf("%v of %v bytes", used, initial)
		}
		return nil
	})

	// The neighbour is tail, which keeps a line that does not end.
	askedBefore, writtenBefore, postedBefore := asked.Load(), written.Load(), posted.Load()
	slowest.Store(0)
	releases := s.metric("mcached_pressure_releases_total")
	const step = 4 << 20
	script := fmt.Sprintf(`(for i in $(seq %d); do head -c %d /dev/zero; sleep %.3f; done; echo full >&2; exec sleep 300) | tail`,
		squeezeNeighbour/step, step, float64(step)/squeezeRate)
	near := exec.Command(within[0], append(within[1:], "/bin/sh", "-c", script)...)
	neighbour := start(t, near.Path, near.Args[1:]...)
	eventually(t, "the neighbour has what it wants", func() error {
		neighbour.alive()
		if !strings.Contains(neighbour.output(), "full") {
			return errors.New("not yet")
		}
		return nil
	})
	s.alive()
	if strings.Contains(neighbour.output(), "illed") {
		t.Errorf("someone was killed: %s", neighbour.output())
	}
	eventually(t, "requests are answered", func() error {
		if asked.Load() < askedBefore+20 || written.Load() < writtenBefore+1000 || posted.Load() < postedBefore+20 {
			return errors.New("too few so far")
		}
		return nil
	})
	squeezed := s.metric("mcached_memory_budget_bytes")
	t.Logf("budget %d MiB at first, %d MiB beside a neighbour of %d MiB; %v releases; slowest query %v of %d; %d failures",
		int64(initial)>>20, int64(squeezed)>>20, squeezeNeighbour>>20, s.metric("mcached_pressure_releases_total")-releases, time.Duration(slowest.Load()),
		asked.Load()-askedBefore, failures.Load())
	if squeezed > initial-squeezeNeighbour/2 || s.metric("mcached_pressure_releases_total") == releases {
		t.Errorf("it gave no way: a budget of %v bytes, %v at first", squeezed, initial)
	}

	// Its sleep ends with its group of processes; then it is quiet, and the budget grows.
	kill := exec.Command("/bin/sh", "-c", `for p in $(cat "$0"); do [ "$p" = "$1" ] || kill "$p"; done`, within[3], strconv.Itoa(s.cmd.Process.Pid))
	if out, err := kill.CombinedOutput(); err != nil {
		t.Logf("%v: %s", err, out) // some of them ended on their own
	}
	deadline := time.Now().Add(squeezeQuiet + patience)
	for s.metric("mcached_memory_budget_bytes") < squeezed+squeezeNeighbour/4 {
		if time.Now().After(deadline) {
			t.Fatalf("a budget of %v bytes, squeezed to %v: it did not grow back", s.metric("mcached_memory_budget_bytes"), squeezed)
		}
		time.Sleep(200 * time.Millisecond)
	}
	s.alive()
}
