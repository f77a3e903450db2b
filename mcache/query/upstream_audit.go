package query

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// Auditing: what memory answers alone, nobody compares with the store. Of a share
// of such queries the store is asked as well, for which the client does not wait:
// of their newest steps, up to auditSteps, that look at nothing younger than
// auditLag, as the store may be sent samples a little later. A query of the
// present moment is asked as it would have been then.
//
// One audit runs at a time; a query that comes meanwhile is not audited. It takes
// a turn with the store, and a loan, like any query.

const (
	auditSteps    = 60
	auditLag      = time.Minute
	auditTimeout  = 30 * time.Second
	auditLogEvery = time.Minute // a line
)

// auditor audits.
type auditor struct {
	chores               // audits
	busy   chan struct{} // has room if none is under way

	mu       sync.Mutex // of what follows
	logged   time.Time
	unlogged int
}

func newAuditor() auditor { return auditor{chores: newChores(), busy: make(chan struct{}, 1)} }

// begin reports whether an audit may run now. It must say when it is done.
func (u *auditor) begin() bool {
	select {
	case u.busy <- struct{}{}:
	default:
		return false
	}
	if u.chores.begin() {
		return true
	}
	<-u.busy
	return false
}

func (u *auditor) done() {
	<-u.busy
	u.chores.done()
}

// consider audits a query that memory has answered, if it is one of the share.
func (a *API) consider(r *http.Request, s *slow) {
	u := a.upstream
	share := u.opts().Audit
	if share <= 0 || share < 1 && rand.Float64() >= share {
		return
	}
	if !u.auditor.begin() {
		u.auditsSkipped.Add(1)
		return
	}
	form := maps.Clone(r.Form)
	for _, name := range []string{"limit", "stats", "timeout", "time", whenParam} {
		delete(form, name)
	}
	header, part := r.Header.Clone(), *s
	path := *r.URL
	go func() {
		defer u.auditor.done()
		ctx, cancel := context.WithTimeout(context.Background(), auditTimeout)
		defer cancel()
		go func() {
			select {
			case <-u.auditor.quit:
				cancel()
			case <-ctx.Done():
			}
		}()
		if a.o.Admission != nil {
			loan := a.o.Admission()
			defer loan.Release()
			if loan.Take(ctx, answerBytes) != nil {
				u.auditsSkipped.Add(1)
				return
			}
			ctx = context.WithValue(ctx, loanKey{}, loan)
		}
		again := (&http.Request{Method: http.MethodPost, URL: &url.URL{Path: path.Path}, Header: header, Form: form}).WithContext(ctx)
		a.audit(again, &part)
	}()
}

// errNoAudit says that a query is none that can be audited.
var errNoAudit = errors.New("not to be audited")

// audit compares what memory says of a query with what the store does.
func (a *API) audit(r *http.Request, s *slow) {
	u := a.upstream
	differs, err := a.compareWithStore(r, s)
	switch {
	case errors.Is(err, errNoAudit):
		u.auditsSkipped.Add(1)
	case err != nil:
		u.auditsFailed.Add(1)
		a.o.Logger.Debug("An audit of a query failed.", "expr", cut(s.expr, maxSlowExprBytes), "err", err)
	case differs == "":
		u.auditsAgreed.Add(1)
	default:
		u.auditsDiffered.Add(1)
		if unlogged, ok := u.auditor.mayLog(a.o.Now()); ok {
			a.o.Logger.Warn("Memory answers a query otherwise than the store behind does.",
				"expr", cut(s.expr, maxSlowExprBytes), "bucket", cut(a.bucket(r), maxSlowExprBytes), "difference", cut(differs, maxSlowExprBytes), "unlogged", unlogged)
		}
	}
}

// mayLog bounds the lines that tell of disagreements. unlogged is how many were
// not told since the last.
func (u *auditor) mayLog(now time.Time) (unlogged int, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.logged.IsZero() && now.Sub(u.logged) < auditLogEvery {
		u.unlogged++
		return 0, false
	}
	u.logged = now
	unlogged, u.unlogged = u.unlogged, 0
	return unlogged, true
}

// compareWithStore says what differs; "" if nothing does.
func (a *API) compareWithStore(r *http.Request, s *slow) (differs string, err error) {
	d, err := a.auditable(r, s)
	if err != nil {
		return "", err
	}
	v, err := a.visit(r)
	if err != nil {
		return "", err
	}
	j := &joint{a: a, r: r, d: d, v: v, began: time.Now()}
	defer j.close()
	all := span{from: 0, to: d.grid.n}
	p := &asked{span: all}
	j.askeds = []*asked{p}
	part := *s
	part.start, part.end, part.step, part.stats = time.UnixMilli(d.grid.start), time.UnixMilli(d.grid.time(d.grid.n-1)), time.Duration(d.grid.step)*time.Millisecond, ""
	j.d.spans = []span{{0, d.grid.n, fromMemory}}
	if err := j.computeAll(&part); err != nil {
		return "", errNoAudit // it was taken away meanwhile
	}
	if len(j.askeds) > 1 {
		return "", errNoAudit
	}
	if p.res, err = v.ask("/api/v1/query_range", j.form(p), "identity"); err != nil {
		return "", err
	}
	if p.res.refused() {
		return "", fmt.Errorf("it answers with status %d", p.res.StatusCode)
	}
	if err = j.begin(p); err == nil {
		err = p.readAhead()
	}
	if err == nil {
		differs, err = differAnywhere(j.heres[0], p)
	}
	if err != nil && !errors.As(err, new(*wholeError)) {
		v.tell(err)
	}
	if err != nil {
		return "", err
	}
	if warnings, _ := p.notes(); len(warnings) > 0 {
		return "", errNoAudit // it may lack something
	}
	return differs, nil
}

// auditable is the part of a query that is audited.
func (a *API) auditable(r *http.Request, s *slow) (*division, error) {
	text := r.FormValue("query")
	expr, err := a.parser.ParseExpr(text)
	if err != nil || expr.Type() != parser.ValueTypeVector || contextual(expr) || len(parser.ExtractSelectors(expr)) == 0 {
		return nil, errNoAudit
	}
	known := a.upstream.dialect.of(r.Context())
	if known.refuses(expr) != "" || indivisible(expr) != "" || pinned(expr) {
		return nil, errNoAudit
	}
	lookback := known.lookbackOf(a.limits.Load().lookback)
	if t, err := parseDuration(r.FormValue("lookback_delta")); err == nil && t > 0 {
		lookback = t
	}
	g := gridOfQuery(s)
	w := windowsOf(expr, g, lookback)
	latest := a.o.Now().Add(-auditLag).UnixMilli()
	last := g.n - 1
	for last >= 0 && w.of(last).to > latest {
		last--
	}
	if last < 0 {
		g.start += min(latest-w.of(0).to, 0)
		g.n, last = 1, 0
	}
	first := max(0, last-auditSteps+1)
	g = gridOf{g.time(first), g.step, last - first + 1}
	d := &division{grid: g, text: text, windows: windowsOf(expr, g, lookback), lookback: known.lookback, emptyIsKnown: true}
	bucket := a.bucket(r)
	if a.lacksTime(bucket, d.windows.of(0).from, d.windows.of(g.n-1).to) {
		return nil, errNoAudit
	}
	return d, nil
}

// differAnywhere says how memory's series differ from the store's; "" if they do not.
func differAnywhere(ours *here, theirs *asked) (string, error) {
	moreOurs, _ := ours.next()
	moreTheirs, err := theirs.next()
	for err == nil && (moreOurs || moreTheirs) {
		order := 0
		if moreOurs && moreTheirs {
			order = labels.Compare(ours.series(), theirs.series())
		}
		switch {
		case !moreTheirs || order < 0:
			return "only memory has " + ours.series().String(), nil
		case !moreOurs || order > 0:
			return "only the store has " + theirs.series().String(), nil
		}
		if d := ours.differsAnywhere(theirs); d != "" {
			return fmt.Sprintf("%s: %s", ours.series(), d), nil
		}
		moreOurs, _ = ours.next()
		moreTheirs, err = theirs.next()
	}
	return "", err
}

// differsAnywhere compares all points of a series.
func (h *here) differsAnywhere(p *asked) string {
	floats, times := slices.Clone(h.floatsOf()), []int64(nil)
	for _, f := range floats {
		times = append(times, f.T)
	}
	for _, f := range h.histogramsOf() {
		times = append(times, f.T)
	}
	theirs := append(timesOf(p.text(floatPoints)), timesOf(p.text(histogramPoints))...)
	if !slices.Equal(times, theirs) {
		return fmt.Sprintf("%d points here, %d there, or at other times", len(times), len(theirs))
	}
	for k := range pointKeys {
		for text := p.text(pointKind(k)); len(text) > 0; {
			point := text
			if end := pointEnd(text); end < len(text) {
				point, text = text[:end], text[end+1:]
			} else {
				text = nil
			}
			_, t := timeText(point)
			if d := h.differs(onePoint{pointKind(k), point}, t); d != "" {
				return time.UnixMilli(t).UTC().Format(time.RFC3339Nano) + ": " + d
			}
		}
	}
	return ""
}

// onePoint is a teller of one point.
type onePoint struct {
	k    pointKind
	json []byte
}

func (onePoint) next() (bool, error)   { return false, io.EOF }
func (onePoint) series() labels.Labels { return labels.EmptyLabels() }

func (o onePoint) text(k pointKind) []byte {
	if k == o.k {
		return o.json
	}
	return nil
}

// timesOf are the times of points.
func timesOf(text []byte) (list []int64) {
	for len(text) > 0 {
		_, t := timeText(text)
		list = append(list, t)
		text = text[min(pointEnd(text)+1, len(text)):]
	}
	return list
}

// pointEnd is where the point at the beginning of text ends.
func pointEnd(text []byte) int {
	value := bytes.IndexByte(text, ',') + 1
	if text[value] == '{' {
		return value + endOfHistogram(text[value:]) + 1
	}
	return bytes.IndexByte(text, ']') + 1
}
