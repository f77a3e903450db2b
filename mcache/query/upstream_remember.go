package query

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/parser/posrange"
)

// Remembering: what the store said of steps that look at nothing younger than
// Settled is kept, so that a second look at a week asks for what is new.
//
//	steps      … 126 127│0   1   2  …             127│0   1 …    of a grid: unix ms / step, phase apart
//	extents    ─────────┼────────────────────────────┼──────     extentSteps each, numbered
//	known               │      ├───────────────────┤ │           a run of steps of each
//	query           ├───┼────────────────────────────┼──┤
//	                asked       remembered        asked  computed, if memory covers them
//
// An extent is one blob in memory that may lose any part of itself at any time
// (Remembers). An extent that vanished is asked for again: a daemon that forgets
// is slower, and says nothing else.
//
// The key is a SHA-256 of all that an answer depends on, with the number of the
// extent: the tenant, the store and what it says that it is (version, lookback,
// evaluation interval), the tokens of the expression, the step and the phase of
// the grid, and every parameter that the store is handed beside these, but for its
// time-out. So tenants are apart,
// and a store that is upgraded has never been asked. A reload of any flag of the
// store begins anew as well: generation is hashed, too.
//
// What is not remembered:
//
//   - steps that look at time of which less than Settled has passed:
//     out-of-order samples may still come. It has to have passed by the store's clock
//     as well, which each answer tells: this one may be ahead;
//   - answers with a warning, that break off, that are longer than
//     maxRememberedText or as extents than mostRemembered, or were asked for with
//     a limit, with statistics or with Cache-Control: no-store;
//   - expressions that mean something else in another range, as @ end();
//   - what is not split with a store of this kind (upstream_dialect.go), and what
//     the answer of VictoriaMetrics is, which has to be sorted first.
//
// Answers are forgotten after rememberFor, be they read or not: a store may be
// written to far in the past.
//
// Infos are kept with each extent of the answer that they came with, by the
// token that they point at, and are shown with any of its points. So one may be
// about steps beside those that are shown.
//
// A query that is remembered, and has nothing to be computed, is joined like one
// that memory has a part of: what the store sends is parsed and written again.
// Without that there would be nothing to keep. Of the longest answers nothing is
// recorded any more once it is plain that they are (tooLong), and those of which
// memory has too few steps are handed on as they are from the second time on (large).
//
// Cost of a hit, by extent and series: its blob is copied and decompressed, each
// point is unpacked and written, about 20 ns (BenchmarkRemembered), no request is
// made. Numbers are kept as they are written (upstream_digits.go), so that none is read
// or formatted. What is no such number is kept as floats, XORed like samples, or as
// text. The seam (upstream_seam.go) is looked at in what is
// remembered, if that reaches it.

// Remembers is memory for what the store answered, or for results, which may lose any part of
// itself at any time. A *kvcache.Cache is one. It is used concurrently.
type Remembers interface {
	// Get appends the value of a key to dst, or reports false.
	Get(dst, key []byte) ([]byte, bool)
	// Put copies and keeps a value, for as long as ttl at most.
	Put(key, value []byte, ttl time.Duration) error
	// Clear forgets everything.
	Clear()
}

const (
	// maxRememberedText bounds an answer of which anything is kept: the text of
	// its points, ten million of them.
	maxRememberedText = 256 << 20
	// rememberedShare is what the memory is divided by for what one answer may take,
	// at most maxRecordedBytes: of what is there it drives out as much.
	rememberedShare = 4
	// rememberFor is how long it is kept.
	rememberFor = 24 * time.Hour
)

// recall is what is remembered of a query.
type recall struct {
	u       *upstream
	grid    gridOf
	windows *windows
	memory  Remembers
	id      [sha256.Size]byte
	first   int64 // number of the query's first step
	asked   time.Time
	settled int64 // what looks at nothing behind it may be kept, unix ms
	tokens  []string
	ctx     context.Context // of the request, whose loan what is read is taken from
	lend    func() Loan     // one for what is recorded; nil: there is no admission

	extents map[int64]*extent // that were looked for; nil: not there
	blob    []byte            // of one of them
}

// maxSpareExtent bounds the series of an extent that is kept for others to be read into.
const maxSpareExtent = 1 << 20

// release leaves what was read to others. The answer must have been written.
func (c *recall) release() {
	if c == nil {
		return
	}
	for _, x := range c.extents {
		if x != nil {
			c.u.spare(x)
		}
	}
	c.extents, c.blob = nil, nil
}

// spare leaves the room of an extent to others. Nobody may read it.
func (u *upstream) spare(x *extent) {
	if cap(x.body) <= maxSpareExtent {
		poison(x.body)
		u.extents.Put(x)
	}
}

// spareExtent is room for the series of an extent, if there is any.
func (u *upstream) spareExtent() []byte {
	if x, ok := u.extents.Get().(*extent); ok {
		return x.body[:0]
	}
	return nil
}

// recallOf is what is remembered of a query, if anything may be.
func (a *API) recallOf(r *http.Request, s *slow, known *dialect, g gridOf) *recall {
	u, o := a.upstream, a.upstream.opts()
	switch {
	case o.Memory == nil, o.Settled <= 0, s.kind != "range", known.unsorted:
		return nil
	case r.FormValue("stats") != "", r.Header.Get(hopHeader) != "", asksAnew(r):
		return nil
	}
	if limit, err := limitParam(r); err != nil || limit > 0 {
		return nil
	}
	text := r.FormValue("query")
	tokens, at := tokensOf(text)
	c := &recall{u: u, grid: g, memory: o.Memory, tokens: at, ctx: r.Context(), lend: a.o.Admission, extents: map[int64]*extent{}}
	c.first = floorDiv(g.start, g.step)
	c.asked = a.o.Now()
	c.settled = c.asked.Add(-o.Settled).UnixMilli()
	parameters := url.Values{}
	for k, v := range r.Form {
		switch k {
		case "query", "start", "end", "step", "timeout", whenParam, "limit":
		default:
			parameters[k] = v
		}
	}
	h := sha256.New()
	for _, part := range slices.Concat([]string{
		strconv.FormatUint(u.generation.Load(), 10), o.URL.String(), known.Kind, known.Version, known.Lookback.String(), known.SubqueryStep.String(), known.Splits,
		a.bucket(r), r.Header.Get(o.TenancyHeader), parameters.Encode(),
		strconv.FormatInt(g.step, 10), strconv.FormatInt(g.start-c.first*g.step, 10),
	}, tokens) {
		h.Write(appendSized(nil, part))
	}
	h.Sum(c.id[:0])
	if u.large.has("", []string{string(c.id[:])}, a.o.Now()) {
		return nil
	}
	return c
}

// tokensOf are the tokens of an expression, and where they stand in it, as
// Prometheus says it in a note.
func tokensOf(text string) (tokens, at []string) {
	l := parser.Lex(text)
	for {
		var item parser.Item
		l.NextItem(&item)
		switch item.Typ {
		case parser.EOF, parser.ERROR:
			return tokens, at
		case parser.COMMENT:
			continue
		}
		tokens = append(tokens, item.Val)
		at = append(at, (&posrange.PositionRange{Start: item.Pos}).StartPosInput(text, 0))
	}
}

// floorDiv is a / b, rounded down. b is positive.
func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// place is the extent of a step of the query, and the step's number in it.
func (c *recall) place(step int) (number int64, at int) {
	n := c.first + int64(step)
	number = floorDiv(n, extentSteps)
	return number, int(n - number*extentSteps)
}

func (c *recall) key(number int64) []byte {
	return binary.BigEndian.AppendUint64(c.id[:len(c.id):len(c.id)], uint64(number))
}

// mayKeep reports that a step looks at settled time only.
func (c *recall) mayKeep(step int) bool { return c != nil && c.windows.of(step).to <= c.settled }

// has reports that a step is remembered.
func (c *recall) has(step int) bool {
	if !c.mayKeep(step) {
		return false
	}
	number, at := c.place(step)
	return c.extent(number).has(at)
}

// tooLarge has the answer handed on as it is from now on, if little of it is computed.
func (c *recall) tooLarge() { c.u.large.add("", []string{string(c.id[:])}, c.u.dialect.now()) }

// extent is one that is remembered, or nil.
func (c *recall) extent(number int64) *extent {
	x, looked := c.extents[number]
	if looked {
		return x
	}
	if blob, ok := c.memory.Get(c.blob[:0], c.key(number)); ok {
		x, c.blob = c.open(blob), blob
	}
	c.extents[number] = x
	return x
}

// open reads a blob, if it is sound and there is room for what it says.
func (c *recall) open(blob []byte) *extent {
	x, err := openExtent(blob, c.u.spareExtent())
	if err != nil || loanOf(c.ctx).Take(c.ctx, int64(cap(x.body))) != nil {
		return nil
	}
	return x
}

// infos are those of an extent, as notes on the client's text.
func (c *recall) infos(x *extent) (list []string) {
	for _, info := range x.infos {
		list = append(list, movedNote(info, func(at string) (string, bool) {
			n, err := strconv.Atoi(strings.TrimPrefix(at, "#"))
			if err != nil || !strings.HasPrefix(at, "#") || n >= len(c.tokens) {
				return "", false
			}
			return c.tokens[n], true
		}))
	}
	return list
}

// byToken is an info whose position is that of a token.
func (c *recall) byToken(info string) string {
	return movedNote(info, func(at string) (string, bool) {
		n := slices.Index(c.tokens, at)
		return "#" + strconv.Itoa(n), n >= 0
	})
}

// recalled is a part of a query that is remembered: a run of steps of one extent.
type recalled struct {
	span
	extent *extent
	base   int   // number of step from in the extent
	start  int64 // of step from, unix ms
	step   int64
	reader *extentReader
	shown  bool // a point of it
	json   []byte
	before separators // of its steps
}

// parts are the runs of a span, one for each extent.
func (c *recall) parts(s span) (list []*recalled) {
	for s.from < s.to {
		number, at := c.place(s.from)
		n := min(s.to-s.from, extentSteps-at)
		part := s
		part.to = s.from + n
		x := c.extent(number)
		list = append(list, &recalled{span: part, extent: x, base: at, start: c.grid.time(s.from), step: c.grid.step, reader: newExtentReader(x), before: separators{grid: c.grid, from: s.from}})
		s.from = part.to
	}
	return list
}

func (p *recalled) next() (bool, error) {
	for {
		if more, err := p.reader.nextPacked(); !more || err != nil {
			return false, err
		}
		if p.has(floatPoints) || p.has(histogramPoints) {
			p.shown = true
			return true, nil
		}
	}
}

func (p *recalled) series() labels.Labels { return p.reader.at.labels }

// time is that of a step of the extent, if it is one of the span.
func (p *recalled) time(at int) (int64, bool) {
	n := at - p.base
	return p.start + int64(n)*p.step, n >= 0 && n < p.to-p.from
}

func (p *recalled) has(k pointKind) bool {
	s := &p.reader.at
	inSpan := func(t stepText) bool { _, ok := p.time(t.step); return ok }
	if k == histogramPoints {
		return slices.ContainsFunc(s.histograms, inSpan)
	}
	if s.packed.n > 0 {
		return s.packed.has(p.base, p.base+p.to-p.from)
	}
	return slices.ContainsFunc(s.steps, func(at int) bool { _, ok := p.time(at); return ok }) || slices.ContainsFunc(s.texts, inSpan)
}

// text is what the store wrote of the points; empty if that cannot be read.
func (p *recalled) text(k pointKind) []byte {
	s := &p.reader.at
	if s.packed.n > 0 && s.unpack() != nil {
		return nil
	}
	// Before each value stands what does so in a run of points: `"],[1795208715,"`.
	// Of the first of them the end of the point before is no part of the text.
	const ahead = len(`"],`)
	p.json = p.json[:0]
	if k == floatPoints {
		for i, at := range s.steps {
			if _, ok := p.time(at); !ok {
				continue
			}
			p.separate(at)
			p.json = s.appendValue(p.json, i)
		}
	}
	if len(p.json) > 0 {
		return append(p.json, `"]`...)[ahead:]
	}
	list := s.texts
	if k == histogramPoints {
		list = s.histograms
	}
	for _, t := range list {
		if at, ok := p.time(t.step); ok {
			p.json = append(append(appendTime(append(p.json, ",["...), at), ','), t.text...)
			p.json = append(p.json, ']')
		}
	}
	if len(p.json) > 0 {
		return p.json[1:]
	}
	return nil
}

// separate writes what stands before the value of a step.
func (p *recalled) separate(at int) {
	s, n := p.before.of(p.from+at-p.base), len(p.json)
	if s.n == 0 {
		t, _ := p.time(at)
		p.json = append(appendTime(append(p.json, `"],[`...), t), `,"`...)
		return
	}
	p.json = slices.Grow(p.json, longSeparator)
	p.json = p.json[:n+s.put(p.json[n:n+longSeparator])]
}

func (p *recalled) write(w *jsonWriter, k pointKind) bool {
	s := &p.reader.at
	switch x := &s.packed; {
	case k == floatPoints && x.n > 0 && !x.gaps:
		return p.writePacked(w)
	case x.n > 0:
		if err := s.unpack(); err != nil {
			w.fail(err)
			return false
		}
	}
	return writeText(w, p.text(k))
}
