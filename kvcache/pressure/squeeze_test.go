package pressure_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"mcached/kvcache"
	"mcached/kvcache/pressure"
)

// The squeeze is real but for the machine: a child process takes memory, this
// one has a cache full of it, and what both are resident with is deducted from
// the size of a small machine that a file tells of. So the test needs 1 GiB,
// wherever it runs.
const (
	squeezeTotal    = 1200 << 20
	squeezeFloor    = 256 << 20
	squeezeNeighbor = 400 << 20
	squeezeStep     = 4 << 20 // each 8 ms: half a GiB a second
	squeezePause    = 8 * time.Millisecond
	// squeezeUnseen is the most that the neighbour takes between two looks of the
	// controller, which it waits for if a busy machine keeps it waiting: twice of
	// it, as what is given back comes after the look, leaves a quarter of the floor.
	squeezeUnseen = squeezeFloor * 3 / 8
)

// TestMain lets the test binary be the neighbour, and a cache in a control
// group, too.
func TestMain(m *testing.M) {
	switch os.Getenv("PRESSURE_ROLE") {
	case "neighbour":
		neighbour()
	case "cache":
		groupCache()
	default:
		os.Exit(m.Run())
	}
}

// neighbour takes a step's memory for each line of its input, says so, and holds
// it until its input ends.
func neighbour() {
	var held [][]byte
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		b := make([]byte, squeezeStep)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		held = append(held, b)
		fmt.Println("holds", len(held))
	}
}

// takes has a neighbour take memory, step by step, and returns false if it was
// killed on the way. Between two looks, which are counted, it takes no more than unseen.
func takes(t *testing.T, near *role, bytes, unseen int, looks func() int64) bool {
	for since, seen := 0, looks(); bytes > 0; bytes -= squeezeStep {
		if since >= unseen {
			waitFor(t, "another look", func() bool { return looks() > seen })
		}
		if n := looks(); n > seen {
			since, seen = 0, n
		}
		if near.ask() == "" {
			return false
		}
		since += squeezeStep
		time.Sleep(squeezePause)
	}
	return true
}

// waitFor looks again and again until ok, for minutes: machines that run tests
// are slow or busy.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("waited in vain for %s", what)
			return
		}
	}
}

// role is the test binary in a role. It begins when its input has a line.
type role struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startRole(t *testing.T, name string) *role {
	t.Helper()
	r := &role{Cmd: exec.CommandContext(t.Context(), os.Args[0])}
	r.Env = append(os.Environ(), "PRESSURE_ROLE="+name)
	r.Stderr = os.Stderr
	in, err1 := r.StdinPipe()
	out, err2 := r.StdoutPipe()
	if err := errors.Join(err1, err2, r.Start()); err != nil {
		t.Fatal(err)
	}
	r.in, r.out = in, bufio.NewReader(out)
	return r
}

// ask sends a line and returns the answer, which is empty if the role died.
func (r *role) ask() string {
	fmt.Fprintln(r.in)
	return r.answer()
}

func (r *role) answer() string {
	line, _ := r.out.ReadString('\n')
	return strings.TrimSpace(line)
}

// smallMachine answers for /proc/meminfo.
type smallMachine struct {
	base  int64 // resident before the cache was filled
	child atomic.Int64
	least atomic.Int64
	looks atomic.Int64
}

func residentOf(pid any) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%v/statm", pid))
	var size, pages int64
	if err != nil {
		return 0 // gone
	}
	_, _ = fmt.Sscan(string(b), &size, &pages)
	return pages * int64(os.Getpagesize())
}

func (m *smallMachine) available() int64 {
	n := squeezeTotal - (residentOf("self") - m.base)
	if pid := m.child.Load(); pid != 0 {
		n -= residentOf(pid)
	}
	return n
}

func (m *smallMachine) Open(name string) (fs.File, error) {
	m.looks.Add(1)
	meminfo := fmt.Sprintf("MemTotal: %d kB\nMemAvailable: %d kB\n", squeezeTotal>>10, max(0, min(m.available(), squeezeTotal))>>10)
	return fstest.MapFS{"proc/meminfo": &fstest.MapFile{Data: []byte(meminfo)}}.Open(name)
}

// TestSqueeze fills a cache, lets a neighbour take memory, and holds that
// there was always some available, that the cache went on answering
// meanwhile, and that it grows back when the neighbour is gone.
func TestSqueeze(t *testing.T) {
	machine := &smallMachine{base: residentOf("self")}
	machine.least.Store(squeezeTotal)
	var memory *kvcache.Memory
	var skip atomic.Int64 // time that the clock jumped
	c, err := pressure.New(pressure.Options{
		KeepAvailableBytes: squeezeFloor,
		FS:                 machine,
		Now:                func() time.Time { return time.Now().Add(time.Duration(skip.Load())) },
		Used: func() int64 {
			if memory == nil {
				return 0
			}
			return memory.Used()
		},
		SetBudget: func(n int64) { memory.SetBudget(n) },
	})
	if err != nil {
		t.Fatal(err)
	}
	memory, err = kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: c.Initial(), RegionBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	cache, err := kvcache.NewCache(kvcache.CacheOptions{Memory: memory})
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	var k [8]byte
	v := make([]byte, 4000)
	put := func(n int) {
		binary.LittleEndian.PutUint64(k[:], uint64(n))
		if err := cache.Put(k[:], v, 0); err != nil {
			t.Error(err)
		}
	}
	n := 0
	for ; memory.Used() < c.Initial()*9/10; n++ {
		put(n)
	}

	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error)
	go func() { ran <- c.Run(ctx) }()
	defer func() { cancel(); <-ran }()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for ctx.Err() == nil {
			machine.least.Store(min(machine.least.Load(), machine.available()))
			time.Sleep(time.Millisecond)
		}
	}()
	defer func() { cancel(); <-watched }()

	child := startRole(t, "neighbour")
	machine.child.Store(int64(child.Process.Pid))
	full := make(chan bool, 1)
	go func() { full <- takes(t, child, squeezeNeighbor, squeezeUnseen, machine.looks.Load) }()
	// Meanwhile the cache is written and read, and its slowest answer noted.
	var slowest time.Duration
	hits := 0
	for done := false; !done; n++ {
		select {
		case done = <-full:
			if !done {
				t.Fatal("the neighbour has ended")
			}
		default:
		}
		start := time.Now()
		put(n)
		var dst []byte
		if _, ok := cache.Get(dst, k[:]); ok {
			hits++
		}
		slowest = max(slowest, time.Since(start))
		if n%16 == 0 {
			time.Sleep(100 * time.Microsecond)
		}
	}
	squeezed, least, s := memory.Used(), machine.least.Load(), c.Stats()
	t.Logf("initial %d MiB, squeezed to %d MiB; least available %d MiB, floor %d; %d hits, slowest answer %v; %+v",
		c.Initial()>>20, squeezed>>20, least>>20, s.FloorBytes>>20, hits, slowest, s)
	if squeezed > c.Initial()-squeezeNeighbor/2 || s.Releases == 0 || hits == 0 {
		t.Errorf("no squeeze: %d bytes used, %d at first", squeezed, c.Initial())
	}
	if least < squeezeFloor/4 {
		t.Errorf("%d bytes available, floor %d", least, int64(squeezeFloor))
	}

	child.in.Close()
	_ = child.Wait()
	machine.child.Store(0)
	waitFor(t, "the budget to grow back", func() bool {
		skip.Add(int64(50 * time.Millisecond)) // the quiet time is not waited for
		return memory.Budget() >= squeezed+100<<20
	})
}
