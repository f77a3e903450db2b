package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"
)

// readthroughCommand measures what reading through to a store saves and costs.
func readthroughCommand(app *kingpin.Application) (string, action) {
	c := app.Command("readthrough", "Ask a Prometheus with a week of data, and an mcached of its last two hours before it, the same, in turns, and compare the times and the processor time. Of a Prometheus before version 3 no rate is split: PROMETHEUS names another than that of the PATH.")
	binary := mcachedFlag(c)
	m := through{}
	c.Flag("series", "How many series, of a sample a minute.").Default("200").IntVar(&m.data.series)
	c.Flag("long", "The longest query; the store has samples of two hours more.").Default("168h").DurationVar(&m.long)
	c.Flag("held", "Of what time mcached has the samples.").Default("2h").DurationVar(&m.data.held)
	c.Flag("query", "An expression that is asked. Repeatable.").Default("sum by (g) (rate(m[5m]))", "rate(m[5m])", "sum by (g) (m)", "m").StringsVar(&m.exprs)
	c.Flag("looks", "How often each is asked, in percent of 600 for the last hour, 40 for six, 10 and 5 for a week, 8 for the longest answer.").Default("100").IntVar(&m.percent)
	return c.FullCommand(), func(ctx context.Context, out io.Writer) (err error) {
		switch {
		case m.data.series < 1 || m.data.series > 1<<16:
			return usageError{fmt.Errorf("--series must be from 1 to %d, got %d", 1<<16, m.data.series)}
		case m.data.held < 2*time.Hour || m.long < 3*m.data.held || m.long > 168*time.Hour:
			return usageError{fmt.Errorf("--held must be at least 2h, and --long from three times that to 168h, got %v and %v", m.data.held, m.long)}
		case m.percent < 1 || m.percent > 10_000:
			return usageError{fmt.Errorf("--looks must be from 1 to 10000, got %d", m.percent)}
		}
		m.data.long = m.long + 2*time.Hour
		m.data.endMs = time.Now().Add(-2*snapshotLag).UnixMilli() / weekStepMs * weekStepMs
		all := peers(*binary)
		cache, err1 := installed(all[0])
		store, err2 := installed(all[1])
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		return m.run(ctx, out, cache, store)
	}
}

// through is what is measured.
type through struct {
	data    week
	long    time.Duration
	exprs   []string
	percent int

	// An mcached that reads through to the store, and one that has no store.
	store, cache, alone *server
	table               *tabwriter.Writer
}

func (m *through) run(ctx context.Context, out io.Writer, cache, store peer) (err error) {
	fmt.Fprintf(out, "%s\n%s\n%d series, a sample a minute: %v in the store, %v in mcached\n", version(ctx, cache), version(ctx, store), m.data.series, m.data.long, m.data.held)
	if m.store, err = start(ctx, store); err != nil {
		return fmt.Errorf("%s: %w", store.name, err)
	}
	defer m.store.stop()
	if err := m.data.write(ctx, m.store.url+store.write); err != nil {
		return fmt.Errorf("%s: %w", store.name, err)
	}
	if err := m.store.settle(ctx); err != nil {
		return err
	}
	saved, err := m.data.snapshot()
	if err != nil {
		return err
	}
	if m.cache, err = m.startCache(ctx, cache, saved, "--query.upstream="+m.store.url); err != nil {
		return err
	}
	defer m.cache.stop()
	if m.alone, err = m.startCache(ctx, cache, saved); err != nil {
		return err
	}
	defer m.alone.stop()
	said, err := exec.CommandContext(ctx, cache.binary, "check-config", "--query.upstream="+m.store.url).Output()
	if err != nil {
		return fmt.Errorf("check-config: %w", err)
	}
	line, _, _ := strings.Cut(string(said), "\n")
	fmt.Fprintf(out, "%s\n\n", line)
	m.table = newTable(out)
	fmt.Fprintln(m.table, "\texpression\tfrom\tanswer kB\tp50 ms\tother's\ttime, ratio\tCPU of all ms\tother's\tratio\tstore's CPU, ratio\tanswers\t")
	for _, rows := range []func(context.Context, string) error{m.lastHour, m.sixHours, m.movedByMinutes, m.movedByTens, m.streamed} {
		for _, expr := range m.exprs {
			if err := rows(ctx, expr); err != nil {
				return err
			}
		}
	}
	return m.table.Flush()
}

// startCache starts an mcached that has the end of the data.
func (m *through) startCache(ctx context.Context, p peer, saved []byte, flags ...string) (*server, error) {
	args := p.args
	p.files = map[string]string{"snapshot": string(saved)}
	p.args = func(dir, address string) []string {
		return append(append(args(dir, address), "--snapshot.path="+filepath.Join(dir, "snapshot")), flags...)
	}
	s, err := start(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	return s, nil
}

// settle waits until a server has nothing to do, as a store that puts together
// what it was written has: for three seconds on end.
func (s *server) settle(ctx context.Context) error {
	return s.idle(ctx, time.Second, 50*time.Millisecond, 10*time.Minute)
}

// pause waits until a server has done what it does after an answer: for three
// hundredths of a second on end.
func (s *server) pause(ctx context.Context) error {
	return s.idle(ctx, 10*time.Millisecond, time.Millisecond/2, 10*time.Second)
}

// idle waits until a server has taken no more than so much processor time in each of
// three turns that follow one another.
func (s *server) idle(ctx context.Context, turn, most, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	before, err := s.process().cpuTime()
	for quiet := 0; quiet < 3 && err == nil; {
		if err := sleep(ctx, turn); err != nil {
			return fmt.Errorf("it is still busy after %v: %w", patience, err)
		}
		var now time.Duration
		now, err = s.process().cpuTime()
		if quiet++; now-before > most {
			quiet = 0
		}
		before = now
	}
	return err
}

// look is one question: a range of the data, and to whom.
type look struct {
	to               *server
	from, end, every int64 // unix ms, unix ms, ms
}

// side is what the looks of one side took.
type side struct {
	times      []time.Duration
	store, all time.Duration // processor time of the store, and of all
	bytes      int64
	source     string // of the last answer
	body       []byte // of the first, if it is kept
}

func (s *side) median() time.Duration {
	slices.Sort(s.times)
	return s.times[len(s.times)/2]
}

// plainly has answers come uncompressed on all sides.
var plainly = &http.Client{Transport: &http.Transport{DisableCompression: true}}

// cpu is the processor time of the store, and of all.
func (m *through) cpu() (store, all time.Duration, err error) {
	store, err1 := m.store.process().cpuTime()
	cache, err2 := m.cache.process().cpuTime()
	alone, err3 := m.alone.process().cpuTime()
	return store, store + cache + alone, errors.Join(err1, err2, err3)
}

func (m *through) look(ctx context.Context, s *side, expr string, l look, keep bool) error {
	store, all, err := m.cpu()
	if err != nil {
		return err
	}
	at := func(ms int64) string { return fmt.Sprintf("%d.%03d", ms/1000, ms%1000) }
	params := url.Values{"query": {expr}, "start": {at(l.from)}, "end": {at(l.end)}, "step": {at(l.every)}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.to.url+"/api/v1/query_range?"+params.Encode(), nil)
	if err != nil {
		return err
	}
	began := time.Now()
	res, err := plainly.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(res.Body, 500))
		return fmt.Errorf("%s: %s: %s", expr, res.Status, said)
	}
	var kept bytes.Buffer
	to := io.Discard
	if keep {
		to = &kept
	}
	n, err := io.Copy(to, res.Body)
	took := time.Since(began)
	if err != nil {
		return fmt.Errorf("%s: %w", expr, err)
	}
	source := res.Header.Get("X-Mcached-Source")
	if l.to == m.cache && source != "memory" {
		if err := l.to.pause(ctx); err != nil { // it encodes what it remembers
			return err
		}
	}
	storeNow, allNow, err := m.cpu()
	s.times, s.bytes, s.body = append(s.times, took), n, kept.Bytes()
	s.source = source
	s.store += storeNow - store
	s.all += allNow - all
	return err
}

// throughRow is a comparison of two sides.
type throughRow struct {
	what, expr string
	looks      int // of each side, in percent of what is asked for
	same       bool
	// source is where ours must be from for the row to mean something; any if empty.
	source string
	of     func(turn int) (ours, theirs look)
}

// compare has so many turns of two sides, which begins changes, and writes a row.
// The first turn is not counted: in it the answers are compared.
func (m *through) compare(ctx context.Context, r throughRow) error {
	n := max(1, r.looks*m.percent/100)
	var ours, theirs side
	answers := "-"
	for turn := range n + 1 {
		a, b := r.of(turn)
		first := func() error { return m.look(ctx, &ours, r.expr, a, turn == 0) }
		second := func() error { return m.look(ctx, &theirs, r.expr, b, turn == 0) }
		if turn%2 == 1 {
			first, second = second, first
		}
		if err := cmp.Or(first(), second()); err != nil {
			return err
		}
		if turn > 0 {
			continue
		}
		if r.source != "" && ours.source != r.source {
			fmt.Fprintf(m.table, "%s\t%s\t%s\tnot split with this store\t\t\t\t\t\t\t\t\t\n", r.what, r.expr, ours.source)
			return nil
		}
		if r.same {
			if answers = differ(ours.body, theirs.body); answers == "" {
				answers = "the same"
			}
		}
		ours, theirs = side{}, side{}
	}
	ms := func(d time.Duration) float64 { return d.Seconds() * 1000 }
	store := "-" // neither asks it
	if theirs.store > time.Duration(n)*time.Millisecond {
		store = fmt.Sprintf("%.3f", ours.store.Seconds()/theirs.store.Seconds())
	}
	_, err := fmt.Fprintf(m.table, "%s\t%s\t%s\t%d\t%.2f\t%.2f\t%.3f\t%.2f\t%.2f\t%.3f\t%s\t%s\t\n", r.what, r.expr, ours.source, ours.bytes/1000,
		ms(ours.median()), ms(theirs.median()), ours.median().Seconds()/theirs.median().Seconds(),
		ms(ours.all)/float64(n), ms(theirs.all)/float64(n), ours.all.Seconds()/theirs.all.Seconds(), store, answers)
	return err
}

// lastHour is of what memory has: with a store behind, and without.
func (m *through) lastHour(ctx context.Context, expr string) error {
	return m.compare(ctx, throughRow{"last hour, without a store", expr, 600, true, "memory", func(int) (ours, theirs look) {
		ours = look{m.cache, m.data.endMs - time.Hour.Milliseconds(), m.data.endMs, 15_000}
		theirs = ours
		theirs.to = m.alone
		return ours, theirs
	}})
}

// sixHours is three times what memory holds, on a grid that the store has never
// been asked for. The other is the store.
func (m *through) sixHours(ctx context.Context, expr string) error {
	long := 3 * m.data.held
	return m.compare(ctx, throughRow{fmt.Sprintf("%v, first look", long), expr, 40, true, "both", func(turn int) (ours, theirs look) {
		end := m.data.endMs - 1000*int64(turn+1)
		return m.both(end-long.Milliseconds(), end, weekStepMs)
	}})
}

// movedBy is the longest time at which was looked before, moved by a step. The
// other is the store.
func (m *through) movedBy(ctx context.Context, expr string, step time.Duration, looks int) error {
	n := max(1, looks*m.percent/100)
	return m.compare(ctx, throughRow{fmt.Sprintf("%v at %v, moved by it", m.long, step), expr, looks, true, "", func(turn int) (ours, theirs look) {
		end := m.data.endMs - step.Milliseconds()*int64(n-turn)
		return m.both(end-m.long.Milliseconds(), end, step.Milliseconds())
	}})
}

func (m *through) movedByMinutes(ctx context.Context, expr string) error {
	return m.movedBy(ctx, expr, time.Minute, 10)
}

func (m *through) movedByTens(ctx context.Context, expr string) error {
	return m.movedBy(ctx, expr, 10*time.Minute, 5)
}

// streamed is a long answer. The other is the store's half of it, of the store:
// up to where a window of five minutes lies in memory.
func (m *through) streamed(ctx context.Context, expr string) error {
	const step = 5000
	long := min(15*time.Hour, m.long)
	return m.compare(ctx, throughRow{fmt.Sprintf("%v at 5s, the store's half", long), expr, 8, false, "both", func(turn int) (ours, theirs look) {
		end := m.data.endMs - 100*int64(turn+1)
		ours, theirs = m.both(end-long.Milliseconds(), end, step)
		seam := m.data.endMs - (m.data.held - 5*time.Minute).Milliseconds()
		theirs.end -= (theirs.end - seam + step) / step * step
		return ours, theirs
	}})
}

// both asks through the cache, and the store itself.
func (m *through) both(from, end, step int64) (ours, theirs look) {
	return look{m.cache, from, end, step}, look{m.store, from, end, step}
}
