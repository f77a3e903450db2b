package pressure

import (
	"context"
	"errors"
	"testing"
	"testing/fstest"
	"time"
)

// files makes a tree from pairs of name and content.
func files(pairs ...string) fstest.MapFS {
	f := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		f[pairs[i]] = file(pairs[i+1])
	}
	return f
}

const (
	meminfo8G = "MemTotal:        8000000 kB\nMemFree:          100000 kB\nMemAvailable:    6000000 kB\nBuffers: 1 kB\n"

	// As Docker with version 2 and a namespace of its own shows it.
	mountsV2 = "1522 1515 0:29 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate,memory_recursiveprot\n"
	// A system service on a host.
	mountsHost = "24 1 8:1 / / rw - ext4 /dev/sda1 rw\n35 25 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
	// Docker with version 1, which shows the path on the host but mounts the group itself.
	mountsV1 = "700 699 0:33 /docker/abc /sys/fs/cgroup/memory ro,nosuid master:15 - cgroup cgroup rw,memory\n" +
		"701 699 0:34 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
)

func TestRead(t *testing.T) {
	for _, x := range []struct {
		name  string
		files fstest.MapFS
		want  []Limit
		stall int64
	}{
		{"bare host", files("proc/meminfo", meminfo8G,
			"proc/pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=4711\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=12\n"),
			[]Limit{{"node", 8000000 << 10, 6000000 << 10}}, 4711},
		{"container v2", files("proc/meminfo", meminfo8G, "proc/self/cgroup", "0::/\n", "proc/self/mountinfo", mountsV2,
			"sys/fs/cgroup/memory.max", "1073741824\n", "sys/fs/cgroup/memory.high", "max\n", "sys/fs/cgroup/memory.current", "500000000\n",
			"sys/fs/cgroup/memory.stat", "anon 300000000\nfile 200000000\ninactive_file 100000000\nactive_file 1\n"),
			[]Limit{{"node", 8000000 << 10, 6000000 << 10}, {"/sys/fs/cgroup", 1 << 30, 1<<30 - 400000000}}, 0},
		{"service with a limited slice", files("proc/meminfo", meminfo8G, "proc/self/cgroup", "0::/system.slice/mcached.service\n",
			"proc/self/mountinfo", mountsHost,
			"sys/fs/cgroup/system.slice/mcached.service/memory.max", "max\n",
			"sys/fs/cgroup/system.slice/mcached.service/memory.high", "max\n",
			"sys/fs/cgroup/system.slice/mcached.service/memory.pressure", "some avg10=0 avg60=0 avg300=0 total=5\n",
			"sys/fs/cgroup/system.slice/memory.max", "2000000000\n", "sys/fs/cgroup/system.slice/memory.high", "1500000000\n",
			"sys/fs/cgroup/system.slice/memory.current", "1600000000\n"),
			[]Limit{{"node", 8000000 << 10, 6000000 << 10}, {"/sys/fs/cgroup/system.slice", 1500000000, 0}}, 5},
		{"container v1", files("proc/meminfo", meminfo8G, "proc/self/cgroup", "7:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/docker/abc\n",
			"proc/self/mountinfo", mountsV1,
			"sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n", "sys/fs/cgroup/memory/memory.usage_in_bytes", "536870912\n",
			"sys/fs/cgroup/memory/memory.stat", "cache 5\ninactive_file 1\ntotal_inactive_file 4096\n"),
			[]Limit{{"node", 8000000 << 10, 6000000 << 10}, {"/sys/fs/cgroup/memory", 512 << 20, 4096}}, 0},
		{"v1 without a limit", files("proc/meminfo", meminfo8G, "proc/self/cgroup", "4:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
			[]Limit{{"node", 8000000 << 10, 6000000 << 10}}, 0},
		{"only a group", files("proc/self/cgroup", "0::/\n", "sys/fs/cgroup/memory.max", "1000000\n", "sys/fs/cgroup/memory.current", "1000\n"),
			[]Limit{{"/sys/fs/cgroup", 1000000, 999000}}, 0},
		{"nonsense beside sense", files("proc/meminfo", meminfo8G, "proc/self/cgroup", "junk\n0::\n::::\n0::/../..\n",
			"sys/fs/cgroup/memory.max", "-5\n", "proc/pressure/memory", "some total=-1\n"),
			[]Limit{{"node", 8000000 << 10, 6000000 << 10}}, 0},
		{"an unbelievable cache", files("proc/meminfo", meminfo8G, "proc/self/cgroup", "0::/\n", "sys/fs/cgroup/memory.max", "1000\n",
			"sys/fs/cgroup/memory.current", "100", "sys/fs/cgroup/memory.stat", "inactive_file 101\n"),
			[]Limit{{"node", 8000000 << 10, 6000000 << 10}, {"/sys/fs/cgroup", 1000, 900}}, 0},
	} {
		r, err := newReader(x.files).read()
		if err != nil {
			t.Errorf("%s: %v", x.name, err)
			continue
		}
		if len(r.Limits) != len(x.want) || r.StalledMicros != x.stall {
			t.Errorf("%s: %+v, want %+v, stalled %d", x.name, r, x.want, x.stall)
			continue
		}
		for i := range x.want {
			if r.Limits[i] != x.want[i] {
				t.Errorf("%s: %+v, want %+v", x.name, r.Limits[i], x.want[i])
			}
		}
	}
}

func TestReadNonsense(t *testing.T) {
	for _, s := range []string{
		"", "MemTotal:\n", "MemTotal: x kB\nMemAvailable: y kB\n", "MemTotal: 10 kB\n", "MemAvailable: 10 kB\n",
		"MemTotal: 10 kB\nMemAvailable: 11 kB\n", "MemTotal: -1 kB\nMemAvailable: -2 kB\n", "MemTotal: 0 kB\nMemAvailable: 0 kB\n",
		"MemTotal: 99999999999999999999 kB\nMemAvailable: 1 kB\n", "MemTotal: 9223372036854775807 kB\nMemAvailable: 1 kB\n", "\x00\xff\n\n",
	} {
		o := Options{FS: files("proc/meminfo", s), Used: func() int64 { return 0 }, SetBudget: func(int64) {}}
		if _, err := New(o); !errors.Is(err, ErrUnreadable) {
			t.Errorf("meminfo %q: %v", s, err)
		}
	}
	if _, err := New(Options{FixedBytes: -1}); err == nil {
		t.Error("a negative size is taken")
	}
	if _, err := New(Options{}); err == nil {
		t.Error("an automatic budget of nothing")
	}
}

// TestUnreadable takes the file away while running: the budget stays, and
// follows again when it is back.
func TestUnreadable(t *testing.T) {
	m := newMachine(24*gib, ramp(1, 8))
	broken, calls := 0, 0
	c, err := New(Options{
		FS: m.files, Now: func() time.Time { return m.now }, Used: func() int64 { return m.used },
		SetBudget: func(n int64) { m.setBudget(n); calls++ },
		Wait: func(_ context.Context, d time.Duration) bool {
			m.wait(d)
			switch s := m.seconds(); {
			case s > 11 && s < 12:
				delete(m.files, "proc/meminfo")
				broken++
			case s > 12 && s < 13:
				m.files["proc/meminfo"] = file("MemTotal: rubbish")
				broken++
			}
			return m.seconds() < 30
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	m.used, m.budget = c.Initial(), c.Initial()
	_ = c.Run(t.Context())
	s := c.Stats()
	if broken == 0 || s.Failures != uint64(broken) || calls == 0 || m.available() < s.FloorBytes {
		t.Errorf("%d broken readings, %d budgets, available %d: %+v", broken, calls, m.available(), s)
	}
}

func TestFixed(t *testing.T) {
	c, err := New(Options{FixedBytes: 1 << 30, FS: files()})
	if err != nil || c.Initial() != 1<<30 || c.Stats().BudgetBytes != 1<<30 || c.Stats().Automatic {
		t.Fatalf("%v, %+v", err, c.Stats())
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestStall counts waiting tasks as a sign: with less than the ceiling left,
// memory goes before the floor is reached.
func TestStall(t *testing.T) {
	law := NewLaw(24*gib, gib)
	now := time.Unix(1e9, 0)
	in := Input{At: now, AvailableBytes: law.FloorBytes + 100<<20, UsedBytes: 4 * gib, BudgetBytes: 4 * gib}
	if _, d := law.Step(State{}, in); d.BudgetBytes != in.BudgetBytes {
		t.Errorf("released %d without a sign", in.BudgetBytes-d.BudgetBytes)
	}
	in.Stalled = true
	if _, d := law.Step(State{}, in); d.BudgetBytes >= in.BudgetBytes || d.Wait != pollAgain {
		t.Errorf("a stall: %+v", d)
	}
	in.AvailableBytes = 10 * gib
	if _, d := law.Step(State{}, in); d.BudgetBytes != in.BudgetBytes {
		t.Errorf("a stall with plenty: %+v", d)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(meminfo8G), []byte("0::/a/b\n"), []byte(mountsHost), []byte("max\n"))
	f.Add([]byte(meminfo8G), []byte("4:memory:/docker/abc\n"), []byte(mountsV1), []byte("12345\n"))
	f.Fuzz(func(t *testing.T, meminfo, cgroup, mounts, number []byte) {
		fsys := fstest.MapFS{
			"proc/meminfo": {Data: meminfo}, "proc/self/cgroup": {Data: cgroup}, "proc/self/mountinfo": {Data: mounts},
			"sys/fs/cgroup/memory.max": {Data: number}, "sys/fs/cgroup/memory.current": {Data: number},
			"sys/fs/cgroup/memory/memory.limit_in_bytes": {Data: number}, "sys/fs/cgroup/memory.stat": {Data: number},
			"proc/pressure/memory": {Data: number},
		}
		r := newReader(fsys)
		if len(r.groups) > maxGroups {
			t.Fatalf("%d groups", len(r.groups))
		}
		reading, err := r.read()
		if err == nil && len(reading.Limits) == 0 {
			t.Fatal("no limit and no error")
		}
		for _, l := range reading.Limits {
			if l.AvailableBytes < 0 || l.AvailableBytes > l.TotalBytes || l.TotalBytes > maxBytes {
				t.Fatalf("%+v", l)
			}
			NewLaw(l.TotalBytes, 0).Step(State{}, Input{AvailableBytes: l.AvailableBytes})
		}
	})
}
