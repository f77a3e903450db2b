package query

import (
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/prometheus/prometheus/prompb"
)

// slowLog tells the Logger of requests that took long: in a line each, with
// what was asked and what it cost, and nothing of who asked or how they may.
type slowLog struct {
	mu     sync.Mutex
	second int64 // Unix, of the lines counted
	lines  int   // in it
	unsaid int   // since the last line
}

// Bounds of the log: a dashboard whose every panel is slow must not fill a disk.
const (
	maxSlowLines     = 10 // a second
	maxSlowExprBytes = 1000
)

// slow is what a request was and did.
type slow struct {
	kind       string // instant, range, read
	expr       string
	queries    []*prompb.Query // in place of expr
	start, end time.Time
	step       time.Duration // of a range
	of         *times        // of the query that this is a part of; nil if it is one
	stats      string        // that were asked for
	arrived    time.Time
	waited     time.Duration // for its turn
	samples    int64
	read       *Queryable
	err        error
	parts      *partTimes // of a query that the store behind had a part in
}

// partTimes are how long memory took for its part of a query, and how long the
// store did until its answer began.
type partTimes struct{ memory, store time.Duration }

// times are those of a range query.
type times struct{ start, end time.Time }

// tell logs a request if it took Options.SlowerThan or longer.
func (a *API) tell(r *http.Request, s slow) {
	took := a.o.Now().Sub(s.arrived)
	if slow := a.limits.Load().slowerThan; slow <= 0 || took < slow {
		return
	}
	a.counts.slow.Add(1)
	unsaid, ok := a.slowLog.admit(s.arrived.Add(took).Unix())
	if !ok {
		return
	}
	if s.queries != nil {
		s.expr, s.start, s.end = spellRead(s.queries)
	}
	at := []any{"kind", s.kind, "expr", cut(s.expr, maxSlowExprBytes), "start", s.start.UTC().Format(time.RFC3339Nano)}
	if s.kind != "instant" {
		at = append(at, "range", s.end.Sub(s.start))
	}
	if s.step != 0 {
		at = append(at, "step", s.step)
	}
	at = append(at, "took", took, "waited", s.waited, "samples", s.samples, "bucket", cut(a.bucket(r), maxSlowExprBytes))
	if s.parts != nil {
		at = append(at, "memory", s.parts.memory, "upstream", s.parts.store)
	}
	if s.read != nil {
		at = append(at, "series", s.read.selected.Load())
	}
	if unsaid > 0 {
		at = append(at, "unlogged", unsaid)
	}
	if s.err != nil {
		at = append(at, "err", s.err)
	}
	a.o.Logger.Log(r.Context(), slog.LevelWarn, "Slow query.", at...)
}

// admit counts a line in the second it belongs to, and returns how many had
// no room since the last.
func (l *slowLog) admit(second int64) (unsaid int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if second != l.second {
		l.second, l.lines = second, 0
	}
	if l.lines >= maxSlowLines {
		l.unsaid++
		return 0, false
	}
	l.lines++
	unsaid, l.unsaid = l.unsaid, 0
	return unsaid, true
}

// cut shortens a text to n bytes and says by how much.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return fmt.Sprintf("%s… (%d bytes more)", s[:n], len(s)-n)
}

// spellRead is what a remote read asked for: selectors, and a time that holds all of theirs.
func spellRead(queries []*prompb.Query) (expr string, start, end time.Time) {
	signs := map[prompb.LabelMatcher_Type]string{prompb.LabelMatcher_EQ: "=", prompb.LabelMatcher_NEQ: "!=", prompb.LabelMatcher_RE: "=~", prompb.LabelMatcher_NRE: "!~"}
	var b strings.Builder
	from, to := int64(math.MaxInt64), int64(math.MinInt64)
	for _, q := range queries {
		from, to = min(from, q.StartTimestampMs), max(to, q.EndTimestampMs)
		if b.Len() > maxSlowExprBytes {
			continue // it is cut anyway
		}
		b.WriteByte('{')
		for i, m := range q.Matchers {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, "%s%s%q", m.Name, signs[m.Type], m.Value)
		}
		b.WriteByte('}')
	}
	return b.String(), time.UnixMilli(from), time.UnixMilli(to)
}
