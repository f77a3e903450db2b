package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"mcached/remotewrite/wire"
)

// neighbourCommand measures how an mcached shrinks: it fills the daemon, has a
// process take memory until just more than the floor is available, and then
// much at once, while samples and values come in and are asked for.
func neighbourCommand(app *kingpin.Application) (string, action) {
	c := app.Command("neighbour", "Fill a running mcached whose size is automatic, let a process beside it take memory at once while samples and values are written and read, and time how the daemon shrinks.")
	n := neighbour{}
	c.Flag("url", "The daemon.").Default("http://127.0.0.1:9201").StringVar(&n.url)
	c.Flag("address", "Its listener for Redis clients.").Default("127.0.0.1:6379").StringVar(&n.resp.address)
	c.Flag("password", "For AUTH there.").StringVar(&n.resp.password)
	c.Flag("pid", "The daemon's process, for its memory.").Required().IntVar(&n.pid)
	take := c.Flag("take", "What the neighbour takes at once.").Default("2GiB").Bytes()
	leave := c.Flag("leave", "What must stay available even if the daemon gives nothing; refuse otherwise.").Default("2GiB").Bytes()
	hold := c.Flag("hold", "What the daemon is to hold before; the rest of its budget is the neighbour's, so that less has to be filled. 0 is half as much again as it will have to give.").Default("0").Bytes()
	c.Flag("take-rate", "Bytes a second at which the neighbour takes it; 0 is as fast as it goes.").Default("0").Int64Var(&n.perSecond)
	aside := c.Flag("huge-pages", "The neighbour sets huge pages aside, for as long as this runs: nothing is faster. For root, where the daemon is in no control group with a limit.").Bool()
	c.Flag("rate", "Samples a second that are written meanwhile; 0 is none.").Default("750000").Float64Var(&n.rate)
	c.Flag("series", "Of how many series.").Default("100000").IntVar(&n.series)
	c.Flag("before", "How long they are written before the neighbour takes its memory.").Default("3s").DurationVar(&n.before)
	c.Flag("after", "And after.").Default("10s").DurationVar(&n.after)
	report := jsonFlag(c)
	return c.FullCommand(), func(ctx context.Context, out io.Writer) error {
		n.takeBytes, n.leaveBytes, n.holdBytes = int64(*take), int64(*leave), int64(*hold)
		if n.takeBytes < 1<<20 || n.leaveBytes < 0 || n.holdBytes < 0 || n.perSecond < 0 || n.rate < 0 || n.series < 1 || n.series > 1<<24 || n.before < 0 || n.after < 0 || n.after > time.Hour || n.before > time.Hour {
			return usageError{fmt.Errorf("--take must be at least 1MiB, --series from 1 to %d, --before and --after at most 1h, and nothing negative", 1<<24)}
		}
		if *aside {
			n.perSecond = asideRate
		}
		r, err := n.run(ctx)
		if err != nil {
			return err
		}
		return report(out, r, r.print)
	}
}

// neighbour is what is to happen.
type neighbour struct {
	url        string
	pid        int
	resp       respLoad // address and password; the rest is filled in
	takeBytes  int64
	leaveBytes int64
	holdBytes  int64 // 0 for the default
	perSecond  int64 // as takeMemory has it
	rate       float64
	series     int
	before     time.Duration
	after      time.Duration
}

// neighbourReport is the outcome, as --json prints it. Times are from when the
// neighbour was told to take its memory.
type neighbourReport struct {
	Limit             string  `json:"limit"`
	FloorBytes        int64   `json:"floor_bytes"`
	CeilingBytes      int64   `json:"ceiling_bytes"`
	TakeBytes         int64   `json:"take_bytes"`
	HeldBytes         int64   `json:"held_bytes"`      // by the daemon's budget, before
	AvailableBytes    int64   `json:"available_bytes"` // before
	LeastBytes        int64   `json:"least_available_bytes"`
	EndBytes          int64   `json:"end_available_bytes"`
	ReleasedBytes     int64   `json:"released_bytes"` // of the budget
	ExpectedBytes     int64   `json:"expected_bytes"` // what restores the middle between floor and ceiling
	TookMs            float64 `json:"took_ms"`        // the neighbour
	FirstMs           float64 `json:"first_ms"`       // until the daemon's memory had fallen by 8 MiB
	GivenMs           float64 `json:"given_ms"`       // until it had fallen by what was taken, or is expected if that is less; -1 never
	Samples           int     `json:"samples"`
	Writes            int     `json:"writes"`
	WritesRefused     int     `json:"writes_refused"` // 5xx and 429, sent again
	Sets              int     `json:"sets"`
	Gets              int     `json:"gets"`
	Failed            int     `json:"failed"`
	FirstFailure      string  `json:"first_failure,omitempty"`
	WriteMsP99        float64 `json:"write_p99_ms"`
	SlowestWriteMs    float64 `json:"slowest_write_ms"`
	SlowestGetBefore  float64 `json:"slowest_get_before_ms"`
	SlowestGetAfterMs float64 `json:"slowest_get_after_ms"` // in the second after
}

func (r *neighbourReport) print(out io.Writer) error {
	m := func(n int64) int64 { return n >> 20 }
	fmt.Fprintf(out, "%s: floor %d MiB, ceiling %d; %d available and %d held before\n", r.Limit, m(r.FloorBytes), m(r.CeilingBytes), m(r.AvailableBytes), m(r.HeldBytes))
	fmt.Fprintf(out, "%12d MiB were taken in %.0f ms\n", m(r.TakeBytes), r.TookMs)
	fmt.Fprintf(out, "%8.0f %6.0f ms until the first of the daemon's memory was gone, and as much as was needed\n", r.FirstMs, r.GivenMs)
	fmt.Fprintf(out, "%12d MiB released, %d expected; least available %d, in the end %d\n", m(r.ReleasedBytes), m(r.ExpectedBytes), m(r.LeastBytes), m(r.EndBytes))
	fmt.Fprintf(out, "%12d of %d writes, %d SETs and %d GETs failed or were refused\n", r.Failed+r.WritesRefused, r.Writes, r.Sets, r.Gets)
	fmt.Fprintf(out, "%8.1f %6.1f ms slowest GET in the second before and after; %.1f ms p99 and %.1f slowest write\n", r.SlowestGetBefore, r.SlowestGetAfterMs, r.WriteMsP99, r.SlowestWriteMs)
	if r.FirstFailure != "" {
		fmt.Fprintf(out, "the first failure: %s\n", r.FirstFailure)
	}
	return nil
}

// Bounds of what is done before the measurement.
const (
	fillValueBytes = 4000
	fillTimeout    = 5 * time.Minute
	// What is available when the neighbour takes its memory: the floor and an
	// eighth, half way to where the daemon releases to. The last of it is taken
	// at a sixteenth of the floor a second, a slope that says nothing yet.
	marginPart = 8
	slowPart   = 16
	asideStep  = int64(16 << 20)
)

func (n *neighbour) run(ctx context.Context) (r neighbourReport, err error) {
	s, err := n.read(ctx)
	if err != nil {
		return r, err
	}
	r.Limit, r.FloorBytes, r.CeilingBytes, r.TakeBytes = s.limit, s.floor, s.ceiling, n.takeBytes
	hold, err := n.plan(s)
	if err != nil {
		return r, err
	}
	t, err := startTaker(ctx)
	if err != nil {
		return r, err
	}
	defer t.stop()
	// What the daemon need not hold for this is the neighbour's, so that little has to be filled.
	if err := n.ballast(ctx, t, s.budget-hold, 1<<30); err != nil {
		return r, err
	}
	if err := sleep(ctx, time.Second); err != nil {
		return r, err
	}
	if err := n.fill(ctx); err != nil {
		return r, fmt.Errorf("fill: %w", err)
	}
	// The load grows the process a little before it is measured.
	w := n.watch(ctx)
	defer w.stop()
	if err := sleep(ctx, n.before/2); err != nil {
		return r, err
	}
	if s, err = n.read(ctx); err != nil {
		return r, err
	}
	if err := n.ballast(ctx, t, s.available-s.floor-s.floor/marginPart, max(s.floor/slowPart, 4<<20)); err != nil {
		return r, err
	}
	if n.perSecond == asideRate {
		if _, err := t.take(0, asideRate); err != nil {
			return r, err
		}
	}
	if err := sleep(ctx, n.before); err != nil {
		return r, err
	}
	if s, err = n.read(ctx); err != nil {
		return r, err
	}
	rss, err := process{"/proc", n.pid}.usage()
	if err != nil {
		return r, err
	}
	r.HeldBytes, r.AvailableBytes = s.budget, s.available
	r.ExpectedBytes = max(0, (s.floor+s.ceiling)/2-s.available+n.takeBytes)
	w.step(rss.rssBytes, min(n.takeBytes, r.ExpectedBytes))
	took, err := t.take(n.takeBytes, n.perSecond)
	if err != nil {
		return r, err
	}
	r.TookMs = ms(took)
	if err := sleep(ctx, n.after); err != nil {
		return r, err
	}
	end, err := n.read(ctx)
	if err != nil {
		return r, err
	}
	r.EndBytes, r.ReleasedBytes = end.available, s.budget-end.budget
	return r, w.report(&r)
}

// plan is how much the daemon has to hold for the measurement to show something, if
// it can be made at all.
func (n *neighbour) plan(s state) (hold int64, err error) {
	margin := s.floor / marginPart
	if least := s.floor + margin - n.takeBytes; least < n.leaveBytes {
		return 0, fmt.Errorf("%d MiB would be available if the daemon gave nothing, and %d are to be left: have it keep at least %d MiB available (--memory.keep-available)",
			least>>20, n.leaveBytes>>20, (n.takeBytes+n.leaveBytes-margin)>>20+1)
	}
	// What is needed to get back to the middle between floor and ceiling.
	hold = n.takeBytes + margin
	if n.holdBytes > 0 {
		hold = max(hold, n.holdBytes)
	} else {
		hold += hold / 2
	}
	if s.budget < hold {
		return 0, fmt.Errorf("the daemon has a budget of %d MiB, which is too little: %d are needed for this to show something", s.budget>>20, hold>>20)
	}
	if n.perSecond == asideRate && s.limit != "node" {
		return 0, fmt.Errorf("huge pages that are set aside do not count in %s", s.limit)
	}
	return hold, nil
}

// ballast has the neighbour take memory at a rate, and of the kind that it
// takes at once later.
func (n *neighbour) ballast(ctx context.Context, t *taker, bytes, perSecond int64) error {
	if n.perSecond != asideRate {
		_, err := t.take(max(0, bytes), perSecond)
		return err
	}
	for ; bytes > 0; bytes -= asideStep {
		if _, err := t.take(min(bytes, asideStep), asideRate); err != nil {
			return err
		}
		if err := sleep(ctx, time.Duration(float64(asideStep)/float64(perSecond)*float64(time.Second))); err != nil {
			return err
		}
	}
	return nil
}

// state is what the daemon says of its memory.
type state struct {
	limit                                   string
	budget, used, available, floor, ceiling int64
}

// read asks the daemon.
func (n *neighbour) read(ctx context.Context) (s state, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(n.url, "/")+"/metrics", nil)
	if err != nil {
		return s, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	fields := map[string]*int64{
		"mcached_memory_budget_bytes": &s.budget, "mcached_memory_used_bytes": &s.used, "mcached_pressure_available_bytes": &s.available,
		"mcached_pressure_floor_bytes": &s.floor, "mcached_pressure_ceiling_bytes": &s.ceiling,
	}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		name, label, _ := strings.Cut(name, "{")
		if at := fields[name]; at != nil {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return s, fmt.Errorf("/metrics: %q: %w", lines.Text(), err)
			}
			*at = int64(v)
			if _, limit, ok := strings.Cut(label, `limit="`); ok {
				s.limit, _, _ = strings.Cut(limit, `"`)
			}
		}
	}
	if err := lines.Err(); err != nil {
		return s, err
	}
	if s.floor == 0 || s.budget == 0 {
		return s, fmt.Errorf("%s/metrics tells of no floor: is this an mcached, and its size automatic (--memory.size=0)?", n.url)
	}
	return s, nil
}

// fill sets values until the budget is used up.
func (n *neighbour) fill(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, fillTimeout)
	defer cancel()
	l := n.resp
	l.valueBytes, l.connections, l.pipeline = fillValueBytes, 2, 64
	for from := uint64(0); ; {
		s, err := n.read(ctx)
		if err != nil {
			return err
		}
		if s.used >= s.budget*97/100 {
			return nil
		}
		more := max(64, int((s.budget-s.used)/fillValueBytes/2))
		if _, err := l.all(ctx, func(c *respConn, k, to int) error {
			for ; k < to; k += l.pipeline {
				for i := k; i < min(k+l.pipeline, to); i++ {
					c.set(from + uint64(i))
				}
				if err := c.roundTrip(); err != nil {
					return err
				}
			}
			return nil
		}, more); err != nil {
			return err
		}
		from += uint64(more)
	}
}

// available reads what a limit, named as the daemon names it, has available.
// Pages of files count as used: nothing here reads any.
func available(limit string) (int64, error) {
	if limit == "node" {
		b, err := os.ReadFile("/proc/meminfo")
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(b), "MemAvailable:")
		kib, err := strconv.ParseInt(strings.Fields(rest + " 0")[0], 10, 64)
		return kib << 10, err
	}
	max, used := "memory.max", "memory.current"
	if _, err := os.Stat(filepath.Join(limit, max)); err != nil {
		max, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
	}
	var n [2]int64
	for i, name := range [...]string{max, used} {
		b, err := os.ReadFile(filepath.Join(limit, name))
		if err != nil {
			return 0, err
		}
		if n[i], err = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
	}
	return n[0] - n[1], nil
}

// receiver is where the daemon takes remote write.
func (n *neighbour) receiver() (string, error) { return url.JoinPath(n.url, "api/v1/write") }

// writer is the load of samples, enough for as long as this may take.
func (n *neighbour) writer(to string, seconds float64) *writer {
	l := load{series: n.series, intervalMs: 15_000, seed: 1}
	l.samples = int(n.rate*seconds/float64(n.series)) + 2
	l.startMs = (time.Now().UnixMilli()/l.intervalMs - int64(l.samples) + 1) * l.intervalMs
	return &writer{load: l, url: to, protocol: wire.V1, perRequest: min(2000, (n.series+1)/2), connections: 2, rate: n.rate}
}
