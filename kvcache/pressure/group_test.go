package pressure_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"mcached/kvcache"
	"mcached/kvcache/pressure"
)

const (
	groupLimit     = 256 << 20
	groupFloor     = 64 << 20
	groupNeighbour = 80 << 20
	groupUnseen    = groupFloor / 2 // what the neighbour takes between two looks at the most
)

// groupCache is the process in the group: a cache that is always full, under
// a controller that reads the real files. For each line it says how much it holds.
func groupCache() {
	in := bufio.NewScanner(os.Stdin)
	in.Scan() // now we are in the group
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	var memory atomic.Pointer[kvcache.Memory]
	c, err := pressure.New(pressure.Options{
		KeepAvailableBytes: groupFloor,
		Used: func() int64 {
			if m := memory.Load(); m != nil {
				return m.Used()
			}
			return 0
		},
		SetBudget: func(n int64) { memory.Load().SetBudget(n) },
	})
	fail(err)
	m, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: c.Initial(), RegionBytes: 256 << 10})
	fail(err)
	memory.Store(m)
	cache, err := kvcache.NewCache(kvcache.CacheOptions{Memory: m})
	fail(err)
	var puts atomic.Int64
	go func() {
		var k [8]byte
		v := make([]byte, 4000)
		for n := uint64(0); ; n++ {
			binary.LittleEndian.PutUint64(k[:], n)
			_ = cache.Put(k[:], v, 0)
			puts.Add(1)
			if n%64 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}()
	go func() {
		for m.Used() < c.Initial()*8/10 {
			time.Sleep(time.Millisecond)
		}
		fmt.Println(m.Used(), puts.Load(), c.Initial(), c.Stats().LimitName)
		for in.Scan() {
			fmt.Println(m.Used(), puts.Load(), c.Stats().Releases, c.Stats().LimitName, c.Stats().Polls)
		}
		os.Exit(0)
	}()
	fail(c.Run(context.Background()))
}

// makeGroup makes a control group with a limit, of either version.
func makeGroup(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("mcached-test-%d", os.Getpid())
	dir, limit := filepath.Join("/sys/fs/cgroup/memory", name), "memory.limit_in_bytes"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		dir, limit = filepath.Join("/sys/fs/cgroup", name), "memory.max"
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		skipGroup(t, "no control group can be made here", err)
	}
	t.Cleanup(func() {
		// Its processes have been waited for; the kernel takes a moment.
		waitFor(t, "the group to be removed", func() bool { return os.Remove(dir) == nil })
	})
	if err := os.WriteFile(filepath.Join(dir, limit), []byte(strconv.Itoa(groupLimit)), 0o644); err != nil {
		skipGroup(t, "no limit can be set here", err)
	}
	return dir
}

// TestGroupSqueeze runs a full cache and a neighbour in one control group
// whose limit is real: whoever exceeds it is killed by the kernel.
func TestGroupSqueeze(t *testing.T) {
	dir := makeGroup(t)
	join := func(r *role) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(r.Process.Pid)), 0o644); err != nil {
			t.Errorf("join: %v", err)
		}
	}
	cache := startRole(t, "cache")
	join(cache)
	var before, after, puts, more, initial, releases int64
	var name string
	if _, err := fmt.Sscan(cache.ask(), &before, &puts, &initial, &name); err != nil {
		t.Fatalf("the cache did not start: %v", err)
	}
	near := startRole(t, "neighbour")
	join(near)
	looks := func() (n int64) {
		if _, err := fmt.Sscan(cache.ask(), &after, &more, &releases, &name, &n); err != nil {
			t.Errorf("the cache was killed: %v", err)
		}
		return n
	}
	if !takes(t, near, groupNeighbour, groupUnseen, looks) {
		t.Error("the neighbour was killed")
	}
	looks()
	t.Logf("%s: initial budget %d MiB; %d MiB used before, %d after, %d releases, %d puts meanwhile",
		name, initial>>20, before>>20, after>>20, releases, more-puts)
	if initial > groupLimit-groupFloor || after > before-groupNeighbour/4 || releases == 0 || more == puts || name == "node" {
		t.Error("no squeeze")
	}
	near.in.Close()
	cache.in.Close()
	if err := near.Wait(); err != nil {
		t.Error(err)
	}
	if err := cache.Wait(); err != nil {
		t.Error(err)
	}
}

// skipGroup leaves the test out where the machine does not let it make its
// group; CI's machine does.
func skipGroup(t *testing.T, why string, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s: %v", why, err)
	}
	t.Skipf("%s: %v", why, err)
}
