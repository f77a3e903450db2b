package pressure

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Options configure a Controller; the zero value of a field means its default.
type Options struct {
	// FixedBytes is the budget, for good. 0 means automatic.
	FixedBytes int64
	// KeepAvailableBytes is the floor: how much others find available at
	// least. Default the larger of 512 MiB and 5 % of the machine's memory,
	// but at most a quarter of it. Under the limit of a control group it is
	// likewise at most a quarter of that limit.
	KeepAvailableBytes int64
	// MaxBytes bounds automatic budgets. Default: no bound.
	MaxBytes int64

	// Used is what we hold of the budget. Required for automatic budgets.
	Used func() int64
	// SetBudget is called with each new budget, in bytes. It returns when what
	// is held fits it. Required for automatic budgets.
	SetBudget func(budgetBytes int64)

	// FS is the root of the file system. Default os.DirFS("/").
	FS fs.FS
	// Now is the clock, Wait sleeps until the context ends, which it reports
	// as false. Default real time.
	Now  func() time.Time
	Wait func(ctx context.Context, d time.Duration) bool
	// Logger is told of modes, of readings that fail and of 64 MiB or more returned at once.
	// Default: nowhere.
	Logger *slog.Logger
}

// Controller reads how much memory others need, and sets a budget.
type Controller struct {
	o       Options
	r       *reader
	initial int64

	mu    sync.Mutex
	stats Stats

	// Below: Run's own, or New's before it.
	budget  int64
	laws    map[string]*tracked
	stall   int64 // StalledMicros, last
	stallAt time.Time
	failing bool
}

// tracked is a law with its state, and what tells a reading that is stuck.
type tracked struct {
	law   Law
	state State

	available int64 // last
	usedThen  int64 // when available changed last
	same      int   // readings since
}

// Stats is a reading of a Controller.
type Stats struct {
	Automatic      bool
	BudgetBytes    int64
	LimitName      string // the tightest one: "node" or a control group
	TotalBytes     int64  // of that limit
	AvailableBytes int64
	FloorBytes     int64
	CeilingBytes   int64
	Polls          uint64
	Failures       uint64 // readings that could not be had or could not be right
	Stuck          uint64 // readings that did not move although we did
	Releases       uint64 // times the budget fell
	ReleasedBytes  uint64
	Regrowths      uint64 // times the budget grew
}

// ErrUnreadable says that no limit can be read, so that only a fixed size is possible.
var ErrUnreadable = errors.New("pressure: neither /proc/meminfo nor a control group can be read; set a fixed size")

// New reads the machine once and returns a controller that does nothing
// until it is Run.
func New(o Options) (*Controller, error) {
	if o.FixedBytes < 0 || o.KeepAvailableBytes < 0 || o.MaxBytes < 0 {
		return nil, fmt.Errorf("pressure: sizes must not be negative, got fixed %d, keep available %d, max %d",
			o.FixedBytes, o.KeepAvailableBytes, o.MaxBytes)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.FixedBytes > 0 {
		c := &Controller{o: o, initial: o.FixedBytes}
		c.stats.BudgetBytes = o.FixedBytes
		return c, nil
	}
	if o.Used == nil || o.SetBudget == nil {
		return nil, errors.New("pressure: an automatic budget needs Used and SetBudget")
	}
	if o.FS == nil {
		o.FS = os.DirFS("/")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Wait == nil {
		o.Wait = wait
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = maxBytes
	}
	c := &Controller{o: o, r: newReader(o.FS), laws: map[string]*tracked{}}
	reading, err := c.r.read()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	c.budget = o.MaxBytes
	for _, l := range reading.Limits {
		c.budget = min(c.budget, c.law(l).law.Initial(l.AvailableBytes, o.Used()))
	}
	c.initial = c.budget
	c.stall, c.stallAt = reading.StalledMicros, o.Now()
	c.stats.Automatic = true
	c.note(reading)
	return c, nil
}

// wait sleeps in real time.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Initial is the budget to begin with. It may be 0 on a machine that has
// nothing to spare; the owner of the memory decides what it needs at least.
func (c *Controller) Initial() int64 { return c.initial }

// Stats reads the counters. It may be called at any time.
func (c *Controller) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// Run looks and sets the budget until the context ends, whose error it
// returns. It is called once.
func (c *Controller) Run(ctx context.Context) error {
	if c.o.FixedBytes > 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	for d := time.Duration(0); c.o.Wait(ctx, d); {
		d = c.poll()
	}
	return ctx.Err()
}

// poll looks once and returns when to look again.
func (c *Controller) poll() time.Duration {
	reading, err := c.r.read()
	if err != nil {
		c.fail(err)
		return pollFar
	}
	if c.failing {
		c.failing = false
		c.o.Logger.Info("memory readings are back")
	}
	now, used := c.o.Now(), c.o.Used()
	stalled := c.stalled(reading.StalledMicros, now)
	budget, next, stuck := c.o.MaxBytes, pollFar, 0
	for _, l := range reading.Limits {
		t := c.law(l)
		if t.stuck(l.AvailableBytes, used) && !stalled {
			stuck++
			budget = min(budget, c.budget)
			continue
		}
		var d Decision
		t.state, d = t.law.Step(t.state, Input{now, l.AvailableBytes, used, c.budget, stalled})
		budget, next = min(budget, d.BudgetBytes), min(next, d.Wait)
	}
	c.note(reading)
	c.set(budget, stuck)
	return next
}

func (c *Controller) fail(err error) {
	c.mu.Lock()
	c.stats.Polls++
	c.stats.Failures++
	c.mu.Unlock()
	if !c.failing {
		c.failing = true
		c.o.Logger.Warn("no memory reading, the budget stays", "err", err, "budget_bytes", c.budget)
	}
}

// law is the law for a limit, made anew if that has changed its size.
func (c *Controller) law(l Limit) *tracked {
	t := c.laws[l.Name]
	if t == nil || t.law.TotalBytes != l.TotalBytes {
		floor, unseen := c.o.KeepAvailableBytes, l.TotalBytes/creditPart
		if l.Name != "node" {
			floor, unseen = min(floor, l.TotalBytes/4), 0
		}
		t = &tracked{law: NewLaw(l.TotalBytes, floor)}
		t.law.UnseenBytes = unseen
		c.laws[l.Name] = t
	}
	return t
}

// A reading that stays the same to the byte while we release a lot does not
// tell what we did: to follow it would mean to release everything. A kernel
// that works shows the same for a while, too, when a neighbour takes from the
// processor's own list of pages what we put there; that list holds less than
// the part of the total that counts here. And so does one whose limit is
// reached, where neighbours wait for each page: a reading of 0, or at which
// tasks stall, is followed.
const (
	stuckReadings = 2
	minStuckBytes = 64 << 20
	stuckPart     = creditPart / 2
)

func (t *tracked) stuck(available, used int64) bool {
	if available != t.available {
		t.available, t.usedThen, t.same = available, used, 0
		return false
	}
	t.same++
	moved := max(t.usedThen-used, used-t.usedThen)
	return available > 0 && t.same >= stuckReadings && moved >= max(minStuckBytes, t.law.TotalBytes/stuckPart)
}

// stallPercent of the time since the last look spent waiting for memory, by
// any task, count as a stall.
const stallPercent = 10

func (c *Controller) stalled(micros int64, now time.Time) bool {
	waited, passed := micros-c.stall, now.Sub(c.stallAt).Microseconds()
	c.stall, c.stallAt = micros, now
	return passed > 0 && waited*100 > passed*stallPercent
}

// note keeps the tightest limit for Stats.
func (c *Controller) note(r Reading) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.BudgetBytes = c.budget
	least := int64(maxBytes)
	for _, l := range r.Limits {
		law := c.laws[l.Name].law
		if slack := l.AvailableBytes - law.FloorBytes; slack < least {
			least = slack
			c.stats.LimitName, c.stats.TotalBytes, c.stats.AvailableBytes = l.Name, l.TotalBytes, l.AvailableBytes
			c.stats.FloorBytes, c.stats.CeilingBytes = law.FloorBytes, law.CeilingBytes
		}
	}
}

// set puts a new budget in force.
func (c *Controller) set(budget int64, stuck int) {
	old := c.budget
	c.budget = budget
	c.mu.Lock()
	c.stats.Polls++
	c.stats.Stuck += uint64(stuck)
	c.stats.BudgetBytes = budget
	if budget < old {
		c.stats.Releases++
		c.stats.ReleasedBytes += uint64(old - budget)
	} else if budget > old {
		c.stats.Regrowths++
	}
	c.mu.Unlock()
	if budget == old {
		return
	}
	start, held := c.o.Now(), c.o.Used()
	c.o.SetBudget(budget)
	// Of a cache that is not full only the budget falls, as often as others take
	// some memory: that is no news.
	if returned := held - c.o.Used(); returned >= 64<<20 {
		c.o.Logger.Info("Memory returned.", "returned_bytes", returned, "budget_bytes", budget, "took", c.o.Now().Sub(start))
	}
}
