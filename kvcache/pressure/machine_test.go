package pressure

import (
	"context"
	"fmt"
	"math"
	"testing"
	"testing/fstest"
	"time"
)

const gib = 1 << 30

// machine is a simulated one, stepped in milliseconds, on which others use
// memory as a function of time and a cache fills whatever its budget allows.
type machine struct {
	totalBytes int64
	others     func(seconds float64) float64 // GiB
	group      bool                          // the limit is a control group's

	now      time.Time
	used     int64
	budget   int64
	unseen   float64 // bytes released that the kernel does not show yet
	least    int64   // available, so far
	released int64
	refilled int64
	freeze   int64 // if not 0, the reading is stuck here
	files    fstest.MapFS

	// Of what is released, lagPart is seen late: at most lagMaxBytes at a time,
	// which go by with lagSeconds.
	lagPart, lagSeconds, lagMaxBytes float64

	floor   int64 // less available than this is short
	shortMs int   // how long it was
}

const (
	fillPerSecond    = 1 * gib
	releasePerSecond = 10 * gib
)

func newMachine(totalBytes int64, others func(float64) float64) *machine {
	m := &machine{totalBytes: totalBytes, others: others, now: time.Unix(1e9, 0), least: math.MaxInt64, files: fstest.MapFS{},
		lagPart: 0.3, lagSeconds: 0.5, lagMaxBytes: 310e6} // see prototypes' figures
	m.write()
	return m
}

func (m *machine) seconds() float64 { return m.now.Sub(time.Unix(1e9, 0)).Seconds() }

func (m *machine) available() int64 {
	return m.totalBytes - int64(m.others(m.seconds())*gib) - m.used
}

// write makes the files say what a kernel would.
func (m *machine) write() {
	seen := max(0, m.available()-int64(m.unseen))
	if m.freeze != 0 {
		seen = m.freeze
	}
	total, name := m.totalBytes, "proc/meminfo"
	if m.group {
		m.files["sys/fs/cgroup/memory.max"] = file(fmt.Sprintln(total))
		m.files["sys/fs/cgroup/memory.current"] = file(fmt.Sprintln(total - seen))
		m.files["proc/self/cgroup"] = file("0::/\n")
		total, seen = 1024*gib, 900*gib
	}
	m.files[name] = file(fmt.Sprintf("MemTotal: %15d kB\nMemFree: 1 kB\nMemAvailable: %10d kB\n", total>>10, seen>>10))
}

func file(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }

// step lets a millisecond go by.
func (m *machine) step() {
	m.now = m.now.Add(time.Millisecond)
	m.unseen *= math.Exp(-0.001 / m.lagSeconds)
	if n := min(m.budget-m.used, fillPerSecond/1000); n > 0 {
		m.used += n
		m.refilled += n
	}
	m.least = min(m.least, m.available())
	if m.available() < m.floor {
		m.shortMs++
	}
}

func (m *machine) setBudget(n int64) {
	m.budget = n
	for m.used > m.budget {
		r := min(m.used-m.budget, releasePerSecond/1000)
		m.used -= r
		m.released += r
		if !m.group { // a control group's books are exact to 64 pages a processor
			m.unseen = min(m.unseen+m.lagPart*float64(r), m.lagMaxBytes)
		}
		m.step()
	}
}

func (m *machine) wait(d time.Duration) {
	for range max(1, d.Milliseconds()) {
		m.step()
	}
	m.write()
}

// run drives a controller over the machine for so many seconds. Unless o has a cache, it is
// one that is full.
func (m *machine) run(t testing.TB, seconds float64, o Options) *Controller {
	t.Helper()
	full := o.Used == nil
	if full {
		o.Used, o.SetBudget = func() int64 { return m.used }, m.setBudget
	}
	o.FS = m.files
	o.Now = func() time.Time { return m.now }
	end := m.now.Add(time.Duration(seconds * 1e9))
	o.Wait = func(_ context.Context, d time.Duration) bool {
		m.wait(d)
		return m.now.Before(end)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if full {
		m.budget, m.used = c.Initial(), c.Initial()
		m.write()
	}
	_ = c.Run(t.Context())
	return c
}

// runDory polls once a second and holds the floor, with no look ahead.
func (m *machine) runDory(seconds float64, floor int64) {
	m.used = max(0, m.available()-floor)
	m.budget = m.used
	for m.seconds() < seconds {
		m.wait(time.Second)
		m.setBudget(max(0, m.used+m.available()-int64(m.unseen)-floor))
	}
}

func ramp(perSecond, amount float64) func(float64) float64 {
	return func(t float64) float64 { return 6 + min(max(0, (t-10)*perSecond), amount) }
}

func square(amount, perSecond, period float64) func(float64) float64 {
	return func(t float64) float64 {
		at, rise := math.Mod(t, period), amount/perSecond
		if at < period/2 {
			return 6 + min(at, rise)*perSecond
		}
		return 6 + amount - min(at-period/2, rise)*perSecond
	}
}
