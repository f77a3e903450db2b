package ingest

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"mcached/ingest/resp"
)

// slowLog is what SLOWLOG and LATENCY tell: commands that took long.
type slowLog struct {
	afterNs   atomic.Int64 // commands that take as long are logged; negative for none
	latencyNs atomic.Int64 // and those are events of LATENCY; 0 for none

	mu      sync.Mutex
	most    int // entries
	nextID  int64
	entries []slowEntry // the oldest first
	events  map[string]*latencyEvent
}

// slowEntry is a line of SLOWLOG GET. Its bytes are its own.
type slowEntry struct {
	id, unix, us int64
	args         []string
	addr, name   string
}

const (
	slowDefault  = 10 * time.Millisecond
	slowMost     = 128
	maxSlowMost  = 1 << 12 // at some 5 KiB each at the very most, 20 MiB
	slowArgs     = 32      // of a command that are kept, the last one to say how many were not
	slowArgBytes = 128
)

func (l *slowLog) init() {
	l.afterNs.Store(int64(slowDefault))
	l.most = slowMost
	l.events = map[string]*latencyEvent{}
}

// add logs a command. Besides args it had so many more.
func (l *slowLog) add(c *conn, args [][]byte, more int, ns int64) {
	c.srv.mu.Lock()
	name := c.name
	c.srv.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.most == 0 {
		return
	}
	e := slowEntry{id: l.nextID, unix: c.srv.o.Now().Unix(), us: ns / 1000, args: clipArgs(args, more), addr: addressOf(c.accepted), name: name}
	l.nextID++
	l.entries = append(l.entries, e)
	l.trimLocked()
}

func (l *slowLog) trimLocked() {
	if n := len(l.entries) - l.most; n > 0 {
		l.entries = slices.Delete(l.entries, 0, n)
	}
}

// clipArgs copies the arguments as Redis logs them.
func clipArgs(args [][]byte, more int) []string {
	kept := args
	if len(args)+more > slowArgs {
		kept = args[:min(len(args), slowArgs-1)]
	}
	out := make([]string, 0, len(kept)+1)
	for _, a := range kept {
		if len(a) > slowArgBytes {
			out = append(out, fmt.Sprintf("%s... (%d more bytes)", a[:slowArgBytes], len(a)-slowArgBytes))
		} else {
			out = append(out, string(a))
		}
	}
	if n := len(args) + more - len(kept); n > 0 {
		out = append(out, fmt.Sprintf("... (%d more arguments)", n))
	}
	return out
}

func toolCommands() []command {
	return append(aclCommands(), []command{
		{name: "slowlog", arity: -2, group: groupServer, syntax: "GET [count] | LEN | RESET", summary: "Tells which commands took long.", flags: admin, subs: []command{
			{name: "get", arity: -2, syntax: "[count]", summary: "Returns the last commands that took long, the youngest first; -1 for all.", run: slowlogGet},
			{name: "len", arity: 2, summary: "Returns how many there are.", run: func(c *conn, _ [][]byte) {
				l := &c.srv.slow
				l.mu.Lock()
				n := len(l.entries)
				l.mu.Unlock()
				c.Int(int64(n))
			}},
			{name: "reset", arity: 2, summary: "Forgets all.", run: func(c *conn, _ [][]byte) {
				l := &c.srv.slow
				l.mu.Lock()
				l.entries = nil
				l.mu.Unlock()
				c.OK()
			}},
			{name: "help", arity: 2, summary: "Lists the subcommands.", run: func(c *conn, _ [][]byte) { c.help("slowlog") }},
		}},
		{name: "latency", arity: -2, group: groupServer, syntax: "LATEST | HISTORY event | RESET [event ...] | HISTOGRAM [command ...] | DOCTOR", summary: "Tells how long commands take.", flags: admin, subs: []command{
			{name: "latest", arity: 2, summary: "Returns the last spike of each event: command and fast-command.", run: latencyLatest},
			{name: "history", arity: 3, syntax: "event", summary: "Returns the spikes of an event.", run: latencyHistory},
			{name: "reset", arity: -2, syntax: "[event ...]", summary: "Forgets the spikes.", run: latencyReset},
			{name: "histogram", arity: -2, syntax: "[command ...]", summary: "Returns how many calls of each command took how many µs.", run: latencyHistogram},
			{name: "doctor", arity: 2, summary: "Says in words what LATEST tells.", run: latencyDoctor},
			{name: "help", arity: 2, summary: "Lists the subcommands.", run: func(c *conn, _ [][]byte) { c.help("latency") }},
		}},
		{name: "monitor", arity: 1, group: groupServer, summary: "Shows every command that is run.", flags: admin, run: monitor},
		{name: "role", arity: 1, group: groupServer, summary: "Returns the role of the server, which has no replicas.", flags: fast, run: func(c *conn, _ [][]byte) {
			c.Array(3)
			c.BulkString("master")
			c.Int(0)
			c.Array(0)
		}},
	}...)
}

func slowlogGet(c *conn, args [][]byte) {
	if len(args) > 3 {
		c.wrongSubArity(args)
		return
	}
	count := int64(10)
	if len(args) == 3 {
		n, ok := resp.ParseInt(args[2])
		if !ok || n < -1 {
			c.Fail("ERR count should be greater than or equal to -1")
			return
		}
		count = n
	}
	l := &c.srv.slow
	l.mu.Lock()
	found := slices.Clone(l.entries)
	l.mu.Unlock()
	slices.Reverse(found)
	if count >= 0 && count < int64(len(found)) {
		found = found[:count]
	}
	c.Array(len(found))
	for _, e := range found {
		c.Array(6)
		c.Int(e.id)
		c.Int(e.unix)
		c.Int(e.us)
		c.Array(len(e.args))
		for _, a := range e.args {
			c.BulkString(a)
		}
		c.BulkString(e.addr)
		c.BulkString(e.name)
		c.spill()
	}
}

// latencyEvent is one of LATENCY's: the longest time of each second that had any.
type latencyEvent struct {
	spikes []latencySpike // the oldest first
	maxMs  int64
}

type latencySpike struct{ unix, ms int64 }

// latencySpikes bounds what is kept of an event, as in Redis.
const latencySpikes = 160

// spike notes that a command took long.
func (l *slowLog) spike(unix int64, cmd *command, ns int64) {
	name := "command"
	if cmd.flags&fast != 0 {
		name = "fast-command"
	}
	ms := ns / int64(time.Millisecond)
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.events[name]
	if e == nil {
		e = new(latencyEvent)
		l.events[name] = e
	}
	e.maxMs = max(e.maxMs, ms)
	if n := len(e.spikes); n > 0 && e.spikes[n-1].unix == unix {
		e.spikes[n-1].ms = max(e.spikes[n-1].ms, ms)
		return
	}
	if len(e.spikes) == latencySpikes {
		e.spikes = slices.Delete(e.spikes, 0, 1)
	}
	e.spikes = append(e.spikes, latencySpike{unix, ms})
}

// latencyEvents are the names of what there is, sorted, with a copy of it.
func (l *slowLog) latencyEvents() (names []string, events map[string]latencyEvent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	events = map[string]latencyEvent{}
	for name, e := range l.events {
		names = append(names, name)
		events[name] = latencyEvent{slices.Clone(e.spikes), e.maxMs}
	}
	slices.Sort(names)
	return names, events
}

func latencyLatest(c *conn, _ [][]byte) {
	names, events := c.srv.slow.latencyEvents()
	c.Array(len(names))
	for _, name := range names {
		e := events[name]
		last := e.spikes[len(e.spikes)-1]
		c.Array(4)
		c.BulkString(name)
		c.Int(last.unix)
		c.Int(last.ms)
		c.Int(e.maxMs)
	}
}

func latencyHistory(c *conn, args [][]byte) {
	_, events := c.srv.slow.latencyEvents()
	spikes := events[string(args[2])].spikes
	c.Array(len(spikes))
	for _, s := range spikes {
		c.Array(2)
		c.Int(s.unix)
		c.Int(s.ms)
	}
}

func latencyReset(c *conn, args [][]byte) {
	l := &c.srv.slow
	l.mu.Lock()
	n := len(l.events)
	if len(args) == 2 {
		clear(l.events)
	}
	for _, a := range args[2:] {
		delete(l.events, string(a))
	}
	n -= len(l.events)
	l.mu.Unlock()
	c.Int(int64(n))
}

func latencyDoctor(c *conn, _ [][]byte) {
	names, events := c.srv.slow.latencyEvents()
	if c.srv.slow.latencyNs.Load() == 0 {
		c.Text("Latency monitoring is disabled: CONFIG SET latency-monitor-threshold <milliseconds> enables it.\n")
		return
	}
	text := "No command took as long as latency-monitor-threshold says.\n"
	if len(names) > 0 {
		text = ""
	}
	for _, name := range names {
		e := events[name]
		text += fmt.Sprintf("%s: %d seconds with spikes, the longest of %d ms, the last of %d ms. SLOWLOG GET tells which commands.\n", name, len(e.spikes), e.maxMs, e.spikes[len(e.spikes)-1].ms)
	}
	c.Text(text)
}

// latencyHistogram answers counts by µs that double, each with those before it.
func latencyHistogram(c *conn, args [][]byte) {
	wanted := func(*command) bool { return true }
	if len(args) > 2 {
		names := map[string]bool{}
		for _, a := range args[2:] {
			names[string(resp.Lower(nil, a))] = true
		}
		wanted = func(m *command) bool {
			base := m.whole[:len(m.whole)-len(m.name)]
			return names[m.whole] || base != "" && names[base[:len(base)-1]]
		}
	}
	type histogram struct {
		name   string
		total  uint64
		counts [tookBuckets]uint64
	}
	var found []histogram
	c.srv.commands.everyCommand(func(m *command) {
		if counts, total := m.stats.buckets(); total > 0 && wanted(m) {
			found = append(found, histogram{m.whole, total, counts})
		}
	})
	c.MapOf(len(found))
	for _, h := range found {
		c.BulkString(h.name)
		c.MapOf(2)
		c.BulkString("calls")
		c.Int(int64(h.total))
		c.BulkString("histogram_usec")
		last := tookBuckets - 1
		for h.counts[last] == 0 {
			last--
		}
		rows := 0
		for _, n := range h.counts[:last+1] {
			if n > 0 {
				rows++
			}
		}
		c.MapOf(rows)
		sum := uint64(0)
		for i, n := range h.counts[:last+1] {
			if sum += n; n > 0 {
				c.Int(upperUs(i))
				c.Int(int64(sum))
			}
		}
	}
}

// toolParameters are what CONFIG knows of these, and of idle connections.
func (s *Server) toolParameters() []Parameter {
	l := &s.slow
	number := func(name string, least, most int64, get func() int64, set func(n int64)) Parameter {
		return Parameter{Name: name, Get: func() string { return itoa(get()) }, Set: func(v string) error {
			n, ok := resp.ParseInt([]byte(v))
			if !ok {
				return errors.New("argument couldn't be parsed into an integer")
			}
			if n < least || n > most {
				return fmt.Errorf("argument must be between %d and %d inclusive", least, most)
			}
			set(n)
			return nil
		}}
	}
	const longest = int64(1) << 53 // in ns, a hundred days
	return []Parameter{
		number("timeout", 0, math.MaxInt32,
			func() int64 { return int64((s.IdleTimeout() + time.Second - 1) / time.Second) },
			func(seconds int64) { s.SetIdleTimeout(time.Duration(seconds) * time.Second) }),
		number("slowlog-log-slower-than", -1, longest/1000,
			func() int64 {
				if ns := l.afterNs.Load(); ns >= 0 {
					return ns / 1000
				}
				return -1
			},
			func(us int64) { l.afterNs.Store(max(us*1000, -1)) }),
		number("slowlog-max-len", 0, maxSlowMost, func() int64 {
			l.mu.Lock()
			defer l.mu.Unlock()
			return int64(l.most)
		}, func(n int64) {
			l.mu.Lock()
			l.most = int(n)
			l.trimLocked()
			l.mu.Unlock()
		}),
		number("tracking-table-max-keys", 1, 1<<30, func() int64 {
			g := &s.tracking
			g.mu.RLock()
			defer g.mu.RUnlock()
			return int64(g.most)
		}, func(n int64) {
			g := &s.tracking
			g.mu.Lock()
			g.most = int(n)
			g.shrinkLocked()
			g.mu.Unlock()
		}),
		number("latency-monitor-threshold", 0, longest/1_000_000,
			func() int64 { return l.latencyNs.Load() / 1_000_000 },
			func(ms int64) { l.latencyNs.Store(ms * 1_000_000) }),
	}
}
