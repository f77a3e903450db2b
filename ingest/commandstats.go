package ingest

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// How often commands are run and how long that takes, for INFO, LATENCY and
// SLOWLOG.
//
// A reading of the clock costs as much as a tenth of a small command, so one ends
// a command and begins the next, a bundle has one, and of commands that are
// always fast, up to spanCommands of the same kind that follow one another share
// one. What is counted is kept in the connection until the kind changes, or its
// turn ends, as the counters are everybody's.

// commandStats are what is known of a command. For concurrent use.
type commandStats struct {
	calls, failed, rejected atomic.Uint64
	ns                      atomic.Uint64
	took                    [tookBuckets]atomic.Uint64 // calls by bits.Len of their µs
}

// tookBuckets is enough for calls of half an hour.
const tookBuckets = 32

// spanCommands bounds the commands that one reading of the clock is for, and
// spanned is the least threshold of SLOWLOG for which any share one.
const (
	spanCommands = 16
	spanned      = int64(time.Millisecond)
)

// span is commands of one kind that a connection has run and not counted yet.
type span struct {
	since    int64 // when the first began, see nanos
	cmd      *command
	calls    int        // that were run since then
	args     [2][]byte  // of the last, as far as that; views of the input
	argCount int        // of the last
	kept     spanCounts // what of it was measured
}

// spanCounts wait to be added to commandStats.
type spanCounts struct {
	cmd    *command
	bucket int
	calls  uint64
	ns     int64
}

// nanos is a clock that is cheap to read.
func (s *Server) nanos() int64 { return int64(time.Since(s.base)) }

// began is called before the first command of a turn.
func (c *conn) began() { c.span.since = c.srv.nanos() }

// ended notes that a command has run, which answered from place at in c.B on.
func (c *conn) ended(cmd *command, args [][]byte, failed bool) {
	p := &c.span
	if p.cmd != cmd && p.calls > 0 {
		c.measure(nil)
	}
	p.cmd = cmd
	p.calls++
	if failed {
		cmd.stats.failed.Add(1)
	}
	if cmd.flags&fast != 0 && p.calls < spanCommands && c.srv.slow.afterNs.Load() >= spanned {
		p.args[0], p.argCount = args[0], len(args)
		if len(args) > 1 {
			p.args[1] = args[1]
		}
		return
	}
	c.measure(args)
}

// endedMany notes that n commands of a kind, about these keys, have run together.
func (c *conn) endedMany(cmd *command, n int, keys [][]byte) {
	p := &c.span
	if p.calls > 0 {
		c.measure(nil)
	}
	p.cmd, p.calls, p.argCount = cmd, n, cmd.takesAtLeast()
	p.args[0], p.args[1] = cmd.nameBytes, keys[0]
	c.measure(nil)
}

// measure counts the commands since the last reading of the clock. args are those
// of the last one, nil if only what span has of them is known.
func (c *conn) measure(args [][]byte) {
	p := &c.span
	now := c.srv.nanos()
	ns := max(now-p.since, 0)
	p.since = now
	each := ns / int64(p.calls)
	if after := c.srv.slow.afterNs.Load(); after >= 0 && each >= after {
		if args == nil {
			args = p.args[:min(p.argCount, 2)]
		}
		c.srv.slow.add(c, redacted(p.cmd, args), max(p.argCount-len(args), 0), each)
	}
	if at := c.srv.slow.latencyNs.Load(); at > 0 && each >= at {
		c.srv.slow.spike(c.srv.o.Now().Unix(), p.cmd, each)
	}
	k := &p.kept
	bucket := bucketOf(each)
	if k.cmd != p.cmd || k.bucket != bucket {
		c.keep()
		k.cmd, k.bucket = p.cmd, bucket
	}
	k.calls += uint64(p.calls)
	k.ns += ns
	p.calls, p.argCount, p.args = 0, 0, [2][]byte{}
}

// keep adds what was measured to the counters of all.
func (c *conn) keep() {
	k := &c.span.kept
	if k.calls > 0 {
		k.cmd.stats.spent(k.calls, uint64(k.ns), k.bucket)
	}
	*k = spanCounts{}
}

// rested ends a turn.
func (c *conn) rested() {
	if c.span.calls > 0 {
		c.measure(nil)
	}
	c.keep()
}

func (m *commandStats) spent(calls, ns uint64, bucket int) {
	m.calls.Add(calls)
	m.ns.Add(ns)
	m.took[bucket].Add(calls)
}

func (m *commandStats) reset() {
	m.calls.Store(0)
	m.failed.Store(0)
	m.rejected.Store(0)
	m.ns.Store(0)
	m.resetTook()
}

func (m *commandStats) resetTook() {
	for i := range m.took {
		m.took[i].Store(0)
	}
}

// everyCommand calls f for each command that is run, subcommands instead of
// those that have some, in order of their names.
func (s *commandSet) everyCommand(f func(m *command)) {
	for _, m := range s.sorted {
		f(m)
	}
}

// index gives every command its counters and its whole name.
func (s *commandSet) index() {
	add := func(m *command, whole string) {
		m.whole, m.nameBytes, m.stats = whole, []byte(m.name), new(commandStats)
		if m.run != nil {
			s.sorted = append(s.sorted, m)
		}
	}
	for i := range s.rows {
		m := &s.rows[i]
		add(m, m.name)
		for j := range m.subs {
			sub := &m.subs[j]
			sub.group, sub.flags = m.group, sub.flags|m.flags&admin
			add(sub, m.name+"|"+sub.name)
		}
	}
	slices.SortFunc(s.sorted, func(a, b *command) int { return cmp.Compare(a.whole, b.whole) })
}

func (m *command) takesAtLeast() int { return max(m.arity, -m.arity) }

// commandLines are INFO's commandstats.
func (s *Server) commandLines() (lines []string) {
	s.commands.everyCommand(func(m *command) {
		calls, failed, rejected := m.stats.calls.Load(), m.stats.failed.Load(), m.stats.rejected.Load()
		if calls+rejected == 0 {
			return
		}
		us := m.stats.ns.Load() / 1000
		lines = append(lines, fmt.Sprintf("cmdstat_%s:calls=%d,usec=%d,usec_per_call=%.2f,rejected_calls=%d,failed_calls=%d",
			m.whole, calls, us, float64(us)/float64(max(calls, 1)), rejected, failed))
	})
	return lines
}

// latencyLines are INFO's latencystats: percentiles in µs, which are those of
// buckets that double, and so at most twice what it was.
func (s *Server) latencyLines() (lines []string) {
	s.commands.everyCommand(func(m *command) {
		counts, total := m.stats.buckets()
		if total == 0 {
			return
		}
		at := func(part float64) float64 {
			sum := uint64(0)
			for i, n := range counts {
				if sum += n; float64(sum) >= part*float64(total) {
					return float64(upperUs(i))
				}
			}
			return 0
		}
		lines = append(lines, fmt.Sprintf("latency_percentiles_usec_%s:p50=%.3f,p99=%.3f,p99.9=%.3f", m.whole, at(0.5), at(0.99), at(0.999)))
	})
	return lines
}

// bucketOf is where a call that took so long is counted.
func bucketOf(ns int64) int { return min(bits.Len64(uint64(max(ns, 0)/1000)), tookBuckets-1) }

// upperUs is in µs what all times that are counted in a bucket are below, but for
// the last bucket, which has all that is longer.
func upperUs(bucket int) int64 { return 1 << bucket }

func (m *commandStats) buckets() (counts [tookBuckets]uint64, total uint64) {
	for i := range m.took {
		counts[i] = m.took[i].Load()
		total += counts[i]
	}
	return counts, total
}

// errorStats counts the errors that were answered, by their first word.
type errorStats struct {
	mu     sync.Mutex
	counts map[string]uint64
}

// maxErrorWords bounds the words that are counted; there are some twenty.
const maxErrorWords = 64

// count counts the error that an answer is.
func (e *errorStats) count(answer []byte) {
	word := answer[1:]
	for i, b := range word {
		if b == ' ' || b == '\r' {
			word = word[:i]
			break
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.counts == nil {
		e.counts = map[string]uint64{}
	}
	if _, known := e.counts[string(word)]; known || len(e.counts) < maxErrorWords {
		e.counts[string(word)]++
	}
}

func (e *errorStats) reset() {
	e.mu.Lock()
	e.counts = nil
	e.mu.Unlock()
}

func (e *errorStats) lines() (lines []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for word, n := range e.counts {
		lines = append(lines, fmt.Sprintf("errorstat_%s:count=%d", word, n))
	}
	slices.SortFunc(lines, strings.Compare)
	return lines
}

// countAnswer counts the answer that begins at a place of c.B, if it is an error that
// has not been counted where a script called for it.
func (c *conn) countAnswer(at int) {
	if len(c.B) > at && c.B[at] == '-' && !c.counted {
		c.countError(c.B[at:])
	}
	c.counted = false
}

// countError counts an answer that is an error.
func (c *conn) countError(answer []byte) {
	c.failed++
	c.srv.errors.count(answer)
}

// countErrorOf is countError for one command of those that are run together.
func (c *conn) countErrorOf(kind bundleKind, answer []byte) {
	c.countError(answer)
	c.srv.commands.byKind[kind].stats.failed.Add(1)
}

// endedGathered is endedMany for requests that were gathered. It returns when
// they ended, which is when the next begin.
func (s *Server) endedGathered(g *gathering, kind bundleKind, from, to int, began int64) int64 {
	now := s.nanos()
	cmd := s.commands.byKind[kind]
	n := to - from
	each := (now - began) / int64(n)
	if after := s.slow.afterNs.Load(); after >= 0 && each >= after {
		for i := from; i < to; i++ {
			s.slow.add(g.conns[g.asked[i]], [][]byte{cmd.nameBytes, g.askedKeys[i]}, int(kind-bundleGet), each)
		}
	}
	if at := s.slow.latencyNs.Load(); at > 0 && each >= at {
		s.slow.spike(s.o.Now().Unix(), cmd, each)
	}
	cmd.stats.spent(uint64(n), uint64(max(now-began, 0)), bucketOf(each))
	return now
}
