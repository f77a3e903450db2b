package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
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
)

// neighbour is another process in the daemon's control group, which holds as
// much memory as it is told to.
type neighbour struct {
	t    testing.TB
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	held int // bytes
}

// neighbourStep is what a neighbour takes at a time, and before it takes more
// the daemon has looked at the memory once. So it takes some 300 MB a second
// from a daemon that looks as often as it means to, and from one that a busy
// machine keeps from looking, no more than it can give in time.
const (
	neighbourStep  = 16 << 20
	neighbourChunk = 1 << 20 // it holds a multiple of it
)

// beNeighbour is the process: each line of its input says how many bytes it
// is to hold, and is answered when it does.
func beNeighbour() {
	var held [][]byte
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		n, err := strconv.Atoi(in.Text())
		if err != nil {
			panic(err)
		}
		for n /= neighbourChunk; len(held) < n; {
			b, err := syscall.Mmap(-1, 0, neighbourChunk, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
			if err != nil {
				panic(err)
			}
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			held = append(held, b)
		}
		for len(held) > n {
			if err := syscall.Munmap(held[len(held)-1]); err != nil {
				panic(err)
			}
			held = held[:len(held)-1]
		}
		fmt.Println(len(held) * neighbourChunk)
	}
}

// startNeighbour starts one by way of the command that memoryGroup returned.
func startNeighbour(t testing.TB, within []string) *neighbour {
	t.Helper()
	line := append(slices.Clone(within), os.Args[0])
	n := &neighbour{t: t, cmd: exec.Command(line[0], line[1:]...)}
	n.cmd.Env = append(os.Environ(), "E2E_ROLE=neighbour", "GOMAXPROCS=1")
	n.cmd.Stderr = os.Stderr
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err1 := n.cmd.StdinPipe()
	out, err2 := n.cmd.StdoutPipe()
	if err := errors.Join(err1, err2, n.cmd.Start()); err != nil {
		t.Fatal(err)
	}
	n.in, n.out = in, bufio.NewReader(out)
	t.Cleanup(func() {
		n.in.Close()
		_ = n.cmd.Wait()
	})
	return n
}

// hold changes at once how much it holds.
func (n *neighbour) hold(bytes int) {
	n.t.Helper()
	fmt.Fprintln(n.in, bytes)
	line, err := n.out.ReadString('\n')
	if err != nil {
		n.t.Fatalf("the neighbour was killed at %d MiB on its way to %d: %v", n.held>>20, bytes>>20, err)
	}
	if _, err := fmt.Sscan(line, &n.held); err != nil {
		n.t.Fatal(err)
	}
}

// take takes memory until it has so much, in the steps that neighbourStep tells of.
func (n *neighbour) take(s *server, bytes int) {
	n.t.Helper()
	for n.held < bytes {
		looks := s.metric("mcached_pressure_polls_total")
		n.hold(min(bytes, n.held+neighbourStep))
		eventually(n.t, "the daemon looks at the memory", func() error {
			s.alive()
			if s.metric("mcached_pressure_polls_total") == looks {
				return errors.New("it does not")
			}
			return nil
		})
	}
}

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
	c := s.redis()
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

	askedBefore, writtenBefore, postedBefore := asked.Load(), written.Load(), posted.Load()
	slowest.Store(0)
	releases := s.metric("mcached_pressure_releases_total")
	near := startNeighbour(t, within)
	near.take(s, squeezeNeighbour)
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

	// It goes, then all is quiet for half a minute, and the budget grows. Who writes
	// and asks meanwhile takes the processors from other tests and shows no more.
	cancel()
	busy.Wait()
	near.hold(0)
	eventually(t, "the budget grows back", func() error {
		if budget := s.metric("mcached_memory_budget_bytes"); budget < squeezed+squeezeNeighbour/4 {
			return fmt.Errorf("%v bytes, squeezed to %v", budget, squeezed)
		}
		return nil
	})
	s.alive()
}
