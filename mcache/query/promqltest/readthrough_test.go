package promqltest

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BenchmarkReadThrough asks a store, and a cache of its last two hours before it,
// the same, in turns, and prints what each took: medians of time, and processor
// time of both processes. `make readthrough` runs it once, in some minutes;
// BENCHMARKS.md of mcbench has what came of it, and what ought to.
func BenchmarkReadThrough(b *testing.B) {
	store := startChild(b, childStore, b.TempDir())
	cache := startChild(b, childCache, store.url)
	m := &measurement{b: b, store: store, cache: cache}
	for b.Loop() {
		m.lastHour()
		m.sixHours()
		m.movedWeek()
		m.streamed()
	}
	os.Stdout.WriteString("\n" + m.table.String())
}

// child is one of the processes of readthrough_child_test.go.
type child struct {
	b   *testing.B
	url string
	in  io.WriteCloser
	out *bufio.Reader
}

func startChild(b *testing.B, kind, of string) *child {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), kind+"="+of)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	c := &child{b: b, in: in, out: bufio.NewReader(out)}
	b.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	})
	c.url = c.line()
	return c
}

func (c *child) line() string {
	text, err := c.out.ReadString('\n')
	if err != nil {
		c.b.Fatal(err)
	}
	return strings.TrimSpace(text)
}

// cpu is the processor time that it has used.
func (c *child) cpu() time.Duration {
	if _, err := io.WriteString(c.in, "\n"); err != nil {
		c.b.Fatal(err)
	}
	us, err := strconv.ParseInt(c.line(), 10, 64)
	if err != nil {
		c.b.Fatal(err)
	}
	return time.Duration(us) * time.Microsecond
}

// measurement collects rows of a table.
type measurement struct {
	b            *testing.B
	store, cache *child
	table        strings.Builder
}

var readThroughExpressions = []string{`sum by (g) (rate(m[5m]))`, `rate(m[5m])`, `m`}

// look is one question: a range of the data, to whom, and from where its answer
// must be, if that matters.
type look struct {
	base, source     string
	from, to, stepMs int64
}

// side is what the looks of one side took.
type side struct {
	times      []time.Duration
	store, all time.Duration // processor time of the store, and of both
	bytes      int64
}

func (s *side) median() time.Duration {
	slices.Sort(s.times)
	return s.times[len(s.times)/2]
}

// plainly has answers come uncompressed on all sides.
var plainly = &http.Client{Transport: &http.Transport{DisableCompression: true}}

func (m *measurement) look(s *side, expr string, l look) {
	store, cache := m.store.cpu(), m.cache.cpu()
	params := url.Values{"query": {expr}, "start": {ms(l.from)}, "end": {ms(l.to)}, "step": {ms(l.stepMs)}}
	began := time.Now()
	res, err := plainly.Get(l.base + "/api/v1/query_range?" + params.Encode())
	if err != nil {
		m.b.Fatal(err)
	}
	n, err := io.Copy(io.Discard, res.Body)
	took := time.Since(began)
	res.Body.Close()
	if err != nil || res.StatusCode != http.StatusOK {
		m.b.Fatalf("%s %v: %s, %v", l.base, params, res.Status, err)
	}
	if got := res.Header.Get("X-Mcached-Source"); l.source != "" && got != l.source {
		m.b.Fatalf("%s %v: from %q, not %q", l.base, params, got, l.source)
	}
	store, cache = m.store.cpu()-store, m.cache.cpu()-cache
	s.times, s.bytes = append(s.times, took), n
	s.store += store
	s.all += store + cache
}

// compare has n turns of two sides, which begins changes, and writes a row. The
// first turn is not counted.
func (m *measurement) compare(what, expr string, n int, looks func(turn int) (ours, theirs look)) {
	var ours, theirs side
	for turn := range n + 1 {
		a, b := looks(turn)
		if turn%2 == 0 {
			m.look(&ours, expr, a)
			m.look(&theirs, expr, b)
		} else {
			m.look(&theirs, expr, b)
			m.look(&ours, expr, a)
		}
		if turn == 0 {
			ours, theirs = side{}, side{}
		}
	}
	perLook := func(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()*1000/float64(n)) }
	if m.table.Len() == 0 {
		m.table.WriteString("| | expression | answer, kB | ms, p50 | ms of the other | ratio | CPU of both processes, ms | of the other | ratio | the store's CPU, ratio |\n|---|---|---|---|---|---|---|---|---|---|\n")
	}
	stores := "" // neither asks it
	if theirs.store > time.Duration(n)*time.Millisecond {
		stores = fmt.Sprintf("%.3f", ours.store.Seconds()/theirs.store.Seconds())
	}
	fmt.Fprintf(&m.table, "| %s | `%s` | %d | %.2f | %.2f | %.3f | %s | %s | %.3f | %s |\n", what, expr, ours.bytes/1000,
		ours.median().Seconds()*1000, theirs.median().Seconds()*1000, ours.median().Seconds()/theirs.median().Seconds(),
		perLook(ours.all), perLook(theirs.all), ours.all.Seconds()/theirs.all.Seconds(), stores)
}

// lastHour is of what memory has: with the store behind, and without.
func (m *measurement) lastHour() {
	for _, expr := range readThroughExpressions {
		m.compare("last hour, without an upstream", expr, 600, func(int) (ours, theirs look) {
			theirs = look{m.cache.url + "/alone", "", weekEnd - 3_600_000, weekEnd, 15_000}
			ours = theirs
			ours.base, ours.source = m.cache.url+"/through", "memory"
			return ours, theirs
		})
	}
}

// sixHours is two of memory and four of the store, which has never been asked on
// this grid. The other is the store.
func (m *measurement) sixHours() {
	for _, expr := range readThroughExpressions {
		m.compare("6 h, first look", expr, 40, func(turn int) (ours, theirs look) {
			to := weekEnd - 1000*int64(turn+1)
			return m.both(look{"", "both", to - 6*3_600_000, to, 60_000})
		})
	}
}

// movedWeek is a week at which was looked before, moved by a step. The other is
// the store.
func (m *measurement) movedWeek() {
	for _, of := range []struct {
		what        string
		step, turns int64
	}{{"7 d at 1 min, moved by 1 min", 60_000, 10}, {"7 d at 10 min, moved by 10 min", 600_000, 5}} {
		for _, expr := range readThroughExpressions {
			m.compare(of.what, expr, int(of.turns), func(turn int) (ours, theirs look) {
				to := weekEnd - of.step*(of.turns-int64(turn))
				return m.both(look{"", "", to - 7*24*3_600_000, to, of.step})
			})
		}
	}
}

// streamed is a long answer. The other is the store's half of it, of the store.
func (m *measurement) streamed() {
	const step = 5000
	for _, expr := range readThroughExpressions[1:] {
		m.compare("15 h at 5 s, joined", expr, 8, func(turn int) (ours, theirs look) {
			to := weekEnd - 100*int64(turn+1)
			ours, theirs = m.both(look{"", "both", to - 15*3_600_000, to, step})
			// Memory's part begins when a window of five minutes lies in it.
			for theirs.to -= step; theirs.to-5*60_000 >= weekEnd-heldLong; theirs.to -= step {
			}
			return ours, theirs
		})
	}
}

// both asks through the cache, and the store itself.
func (m *measurement) both(l look) (ours, theirs look) {
	ours, theirs = l, l
	ours.base = m.cache.url + "/through"
	theirs.base, theirs.source = m.store.url, ""
	return ours, theirs
}
