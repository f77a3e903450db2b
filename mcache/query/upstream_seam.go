package query

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
)

// What the store holds and memory does not, memory cannot see: recording rules,
// series that write_relabel_configs drop, another sender that joined later, and
// labels that a sender adds. So at each seam between the two the store is asked
// for one step more than is needed, of which memory has the values, too. If they
// are other values, or of other series, then the whole answer is the store's, and
// queries of the same metrics are not split for a while.

const (
	// pauseFor is how long the metrics of a query are not split that failed at its seam.
	pauseFor = 10 * time.Minute
	// maxPaused bounds the list of them.
	maxPaused = 1000
	// seamTolerance is by how much values may differ, as a part of them: sums of
	// floats depend on the order of the series.
	seamTolerance = 1e-9
)

// paused are metrics that are not split.
type paused struct {
	mu    sync.Mutex
	until map[string]time.Time // by bucket and metric
}

func pausedKey(bucket, metric string) string { return bucket + "\x00" + metric }

func (p *paused) has(bucket string, metrics []string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(metrics, func(m string) bool { return now.Before(p.until[pausedKey(bucket, m)]) })
}

func (p *paused) add(bucket string, metrics []string, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.until)+len(metrics) > maxPaused {
		for k, t := range p.until {
			if !now.Before(t) {
				delete(p.until, k)
			}
		}
		if len(p.until)+len(metrics) > maxPaused {
			clear(p.until)
		}
	}
	if p.until == nil {
		p.until = map[string]time.Time{}
	}
	for _, m := range metrics {
		p.until[pausedKey(bucket, m)] = now.Add(pauseFor)
	}
}

// forget has none paused.
func (p *paused) forget() {
	p.mu.Lock()
	clear(p.until)
	p.mu.Unlock()
}

// len is how many are paused.
func (p *paused) len(now time.Time) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.until {
		if now.Before(t) {
			n++
		}
	}
	return n
}

// teller is what the store says, or said, of a step.
type teller interface {
	next() (bool, error)
	series() labels.Labels
	text(k pointKind) []byte
}

// probe is a step of which memory is compared with what the store says.
type probe struct {
	span
	teller
}

// lookAtSeam compares what both have of the steps at the seams.
func (j *joint) lookAtSeam(s *slow) error {
	probes := j.probes
	for _, p := range j.seams {
		probes = append(probes, probe{p.span, p})
	}
	for _, p := range probes {
		i := slices.IndexFunc(j.heres, func(h *here) bool { return h.span.from <= p.from && p.from < h.to })
		if i < 0 {
			continue // memory lost it meanwhile
		}
		if _, cut := j.heres[i].result.Warnings[errTruncated.Error()]; cut {
			continue // of a limited number of series some are not there at this step
		}
		differs, err := j.differAt(p, j.heres[i])
		if err != nil {
			return err
		}
		if differs == "" {
			continue
		}
		u, bucket := j.a.upstream, j.a.bucket(j.r)
		u.disagreed.Add(1)
		if j.enter() == nil && j.v.isStranger(s) {
			j.v.sayStranger()
			return errStranger
		}
		u.paused.add(bucket, j.d.metrics, j.a.o.Now())
		j.a.o.Logger.Warn("Memory and the store behind disagree where their parts of a query meet: the answer is the store's, and these metrics are not split for a while.",
			"expr", cut(j.r.FormValue("query"), maxSlowExprBytes), "bucket", bucket, "time", time.UnixMilli(j.d.grid.time(p.from)).UTC(), "difference", differs, "pause", pauseFor)
		return &wholeError{fmt.Errorf("memory and store disagree: %s", differs)}
	}
	return nil
}

// differAt says what is other in memory at a step; "" if nothing is.
func (j *joint) differAt(p probe, h *here) (string, error) {
	at := j.d.grid.time(p.from)
	ours := *h
	ours.at, ours.floats, ours.floatsAt = -1, nil, -1
	more, err := p.next()
	for {
		if err != nil {
			return "", err
		}
		ok := ours.nextAt(at)
		switch {
		case !ok && !more:
			return "", nil
		case !ok:
			return "only the store has " + p.series().String(), nil
		case !more:
			return "only memory has " + ours.series().String(), nil
		}
		switch order := labels.Compare(ours.series(), p.series()); {
		case order < 0:
			return "only memory has " + ours.series().String(), nil
		case order > 0:
			return "only the store has " + p.series().String(), nil
		}
		if d := ours.differs(p, at); d != "" {
			return fmt.Sprintf("%s: %s", ours.series(), d), nil
		}
		more, err = p.next()
	}
}

// nextAt moves to the next series that has a point at a time.
func (h *here) nextAt(t int64) bool {
	for {
		if more, _ := h.next(); !more {
			return false
		}
		if _, ok := h.floatAt(t); ok || h.histogramAt(t) != nil {
			return true
		}
	}
}

func (h *here) floatAt(t int64) (float64, bool) {
	for _, p := range h.floatsOf() {
		if p.T == t {
			return p.F, true
		}
	}
	return 0, false
}

func (h *here) histogramAt(t int64) *histogram.FloatHistogram {
	for _, p := range h.histogramsOf() {
		if p.T == t {
			return p.H
		}
	}
	return nil
}

// differs says how the point of memory's series differs from that of the store's.
func (h *here) differs(p teller, t int64) string {
	k := floatPoints
	if _, ok := h.floatAt(t); !ok {
		k = histogramPoints
	}
	text := p.text(k)
	if len(text) == 0 {
		return "one has a float, the other a histogram"
	}
	_, value, _ := strings.Cut(string(text), ",")
	value = strings.TrimSuffix(value, "]")
	if k == floatPoints {
		ours, _ := h.floatAt(t)
		theirs, err := strconv.ParseFloat(strings.Trim(value, `"`), 64)
		if err != nil || !near(ours, theirs) {
			return fmt.Sprintf("%v here, %s there", ours, value)
		}
		return ""
	}
	ours := h.histogramAt(t)
	var theirs struct {
		Count, Sum float64 `json:",string"`
	}
	if err := json.Unmarshal([]byte(value), &theirs); err != nil {
		return "" // numbers that JSON has not, as NaN
	}
	if !near(ours.Count, theirs.Count) || !near(ours.Sum, theirs.Sum) {
		return fmt.Sprintf("count and sum are %v and %v here, %v and %v there", ours.Count, ours.Sum, theirs.Count, theirs.Sum)
	}
	return ""
}

// near reports that two values are the same but for the order of sums.
func near(a, b float64) bool {
	if a == b || math.IsNaN(a) && math.IsNaN(b) {
		return true
	}
	return math.Abs(a-b) <= seamTolerance*max(math.Abs(a), math.Abs(b))
}

// trusts reports that the operator has said of all selectors that memory has
// what the store has.
func (u *upstream) trusts(selectors [][]*labels.Matcher) bool {
	return len(u.opts().Authoritative) > 0 && !slices.ContainsFunc(selectors, func(ms []*labels.Matcher) bool { return !u.authoritative(ms) })
}

// authoritative reports that a selector takes nothing but what one of the
// operator's does.
func (u *upstream) authoritative(ms []*labels.Matcher) bool {
	return slices.ContainsFunc(u.opts().Authoritative, func(wide []*labels.Matcher) bool {
		return !slices.ContainsFunc(wide, func(w *labels.Matcher) bool {
			return !slices.ContainsFunc(ms, func(m *labels.Matcher) bool {
				return m.Name == w.Name && (m.Type == labels.MatchEqual && w.Matches(m.Value) || m.Type == w.Type && m.Value == w.Value)
			})
		})
	})
}
