package query

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/annotations"
)

// Joining: each part of a query that is split is a list of series in the order
// of their labels, so that they are merged as they come: of an answer of the
// store no more is held than the series that is being written, and what was read
// ahead. A short answer is read, and looked at, as a whole before anything is
// sent, so that one that breaks off does no harm; from a long one that breaks
// off the client's answer does, too.

// wholeError says why the store is to answer a query as a whole after all.
type wholeError struct{ why error }

func (e *wholeError) Error() string { return e.why.Error() }

const (
	// readAhead is how much of an answer is read before anything is sent.
	readAhead = 1 << 20
	// maxUnsorted bounds an answer whose series do not come in order.
	maxUnsorted = 64 << 20
)

// join answers a query from memory and from the store. An error that is a
// *wholeError means that the store should answer as a whole, another one that it
// does not answer.
func (a *API) join(r *http.Request, s *slow, d *division) (_ answer, err error) {
	j := &joint{a: a, r: r, d: d, began: time.Now()}
	j.plan()
	defer func() {
		if err != nil {
			j.close()
		}
	}()
	if len(j.askeds)+len(j.seams) > 0 {
		if err := j.enter(); err != nil {
			if err = j.without(err); err != nil {
				return answer{}, err
			}
		}
	}
	requests := j.send()
	if err = j.computeAll(s); err == nil {
		err = j.receive(requests)
	} else {
		if j.v != nil {
			j.v.stop(nil)
		}
		j.drain(requests)
	}
	if err != nil {
		if !errors.As(err, new(*wholeError)) && j.v != nil {
			j.v.tell(err)
		}
		if err = j.without(err); err != nil {
			return answer{}, err
		}
	}
	if res := j.refusal(); res != nil {
		got := a.handOn(res, func() {})
		got.close = j.close
		return got, nil
	}
	if err = j.lookAtSeam(); err != nil {
		return answer{}, err
	}
	if j.limit, err = limitParam(r); err != nil {
		return answer{}, err
	}
	return j.answer(s), nil
}

// joint is a query that is being joined.
type joint struct {
	a       *API
	r       *http.Request
	d       *division
	v       *visit // nil: the store has not been asked
	began   time.Time
	heres   []*here
	askeds  []*asked
	recalls []*recalled
	seams   []*asked // one step each, which memory has as well
	probes  []probe  // those that are remembered
	lost    []span   // that the store does not answer
	failure error    // why it does not
	limit   int
	done    bool // the answer came to its end

	hereTook, storeTook time.Duration
}

func (j *joint) close() {
	for _, h := range j.heres {
		if h.query != nil {
			h.query.Close()
		}
	}
	for _, p := range slices.Concat(j.askeds, j.seams) {
		if p.res != nil {
			p.res.Close()
		}
	}
	if j.v != nil {
		j.v.end()
	}
}

// enter waits for a turn with the store, if there was none yet.
func (j *joint) enter() (err error) {
	if j.v == nil {
		j.v, err = j.a.visit(j.r)
	}
	return err
}

// without goes on without the store, if something is remembered of what it said.
// The answer will tell.
func (j *joint) without(err error) error {
	if errors.As(err, new(*wholeError)) || errors.As(err, new(*apiError)) || len(j.recalls) == 0 || j.r.Context().Err() != nil {
		return err
	}
	j.failure = err
	for _, p := range slices.Concat(j.askeds, j.seams) {
		if p.res != nil {
			p.res.Close()
		}
		if !p.probe {
			j.lost = append(j.lost, p.span)
		}
	}
	j.askeds, j.seams = nil, nil
	return nil
}

// plan finds out what is asked of the store, what of it is remembered, and
// where memory is compared with either.
func (j *joint) plan() {
	for i, s := range j.d.spans {
		switch s.by {
		case fromStore:
			j.askeds = append(j.askeds, &asked{span: s, record: j.d.recall.record(s)})
			continue
		case fromRecall:
			j.recalls = append(j.recalls, j.d.recall.parts(s)...)
			continue
		}
		if j.d.trusted || len(j.d.spans) == 1 {
			continue
		}
		seam := s.from
		if i == 0 {
			seam = s.to - 1
		}
		at := span{from: seam, to: seam + 1}
		if j.d.recall.has(seam) {
			j.probes = append(j.probes, probe{at, j.d.recall.parts(at)[0]})
			continue
		}
		j.seams = append(j.seams, &asked{span: at, probe: true})
	}
}

// send asks the store for all parts that it is to compute, and for the steps at
// the seams, all at the same time.
func (j *joint) send() (requests chan *asked) {
	all := slices.Concat(j.askeds, j.seams)
	requests = make(chan *asked, len(all))
	for _, p := range all {
		go func() {
			p.res, p.err = j.v.ask("/api/v1/query_range", j.form(p), "identity")
			requests <- p
		}()
	}
	return requests
}

// form is what the store is asked for a run of steps.
func (j *joint) form(p *asked) url.Values {
	known := j.a.upstream.dialect.peek()
	form := url.Values{
		"query": {j.d.text},
		"start": {milliText(j.d.grid.time(p.from))}, "end": {milliText(j.d.grid.time(p.to - 1))},
		"step": {known.stepText(j.d.grid.step)},
	}
	for k, v := range j.r.Form {
		switch k {
		case "query", "start", "end", "step", "stats", whenParam:
		default:
			form[k] = v
		}
	}
	for k, v := range known.params {
		form[k] = v
	}
	if p.probe {
		form.Del("limit")
	}
	return form
}

// milliText is a time in seconds with three decimals.
func milliText(ms int64) string {
	sign := ""
	if ms < 0 {
		sign, ms = "-", -ms
	}
	return fmt.Sprintf("%s%d.%03d", sign, ms/1000, ms%1000)
}

// drain waits for requests that are of no use any more.
func (j *joint) drain(requests chan *asked) {
	for range cap(requests) {
		<-requests
	}
}

// computeAll computes what memory is to.
func (j *joint) computeAll(s *slow) error {
	began := time.Now()
	defer func() { j.hereTook = time.Since(began) }()
	for _, sp := range j.d.spans {
		if sp.by != fromMemory {
			continue
		}
		h := &here{span: sp, from: j.d.grid.time(sp.from), at: -1}
		part := *s
		part.arrived, part.expr, part.stats, part.of = j.a.o.Now(), j.r.FormValue("query"), j.r.FormValue("stats"), &times{s.start, s.end}
		part.start, part.end = time.UnixMilli(h.from), time.UnixMilli(j.d.grid.time(sp.to-1))
		part.step = time.Duration(j.d.grid.step) * time.Millisecond
		var err error
		h.computed, err = j.a.compute(j.r, &part)
		if h.samples = part.samples; err != nil {
			return &wholeError{err}
		}
		j.heres = append(j.heres, h)
		switch v := h.result.Value.(type) {
		case promql.Matrix:
			h.matrix = v
		case *computedMatrix:
			h.rows = v
		default:
			return &wholeError{fmt.Errorf("a %s is no matrix", v.Type())}
		}
		if h.read.empty.Load() && !j.d.emptyIsKnown {
			return &wholeError{errors.New("a selector matches nothing here any more")}
		}
		if err := j.stillComplete(h); err != nil {
			return err
		}
	}
	return nil
}

// stillComplete looks whether what a part of memory read was taken away from
// under it: it then counts from a later step on, and the store is asked for the rest.
func (j *joint) stillComplete(h *here) error {
	complete, incomplete := h.read.CompleteFrom()
	if !incomplete {
		return nil
	}
	from := h.span.from
	for from < h.to && j.d.windows.of(from).from < complete {
		from++
	}
	if from == h.to {
		return &wholeError{errors.New("what memory had was evicted meanwhile")}
	}
	if from == h.span.from {
		return nil
	}
	lost := span{from: h.span.from, to: from}
	p := &asked{span: lost, record: j.d.recall.record(lost)}
	h.span.from, h.from = from, j.d.grid.time(from)
	j.askeds = append(j.askeds, p)
	if p.err = j.enter(); p.err == nil {
		p.res, p.err = j.v.ask("/api/v1/query_range", j.form(p), "identity")
	}
	return nil
}

// receive waits for the heads of the store's answers, and reads ahead.
func (j *joint) receive(requests chan *asked) error {
	for range cap(requests) {
		<-requests
	}
	for _, p := range slices.Concat(j.askeds, j.seams) {
		if p.err != nil {
			return p.err
		}
	}
	if j.refusal() != nil {
		return nil
	}
	for _, p := range slices.Concat(j.askeds, j.seams) {
		if err := j.readAhead(p); err != nil {
			return err
		}
	}
	j.storeTook = time.Since(j.began)
	return nil
}

// refusal is the store's word that it does not like the query.
func (j *joint) refusal() *storeAnswer {
	for _, p := range slices.Concat(j.askeds, j.seams) {
		if p.res != nil && p.res.refused() {
			return p.res
		}
	}
	return nil
}

// readAhead reads the beginning of an answer. If that is all, it is sound.
func (j *joint) readAhead(p *asked) error {
	p.ctx, p.store = j.r.Context(), &j.a.upstream.dialect
	limit := int64(readAhead)
	unsorted := p.store.peek().unsorted
	if unsorted {
		limit = maxUnsorted
	}
	loan, lent := loanOf(j.r.Context()), int64(0)
	buf := &bytes.Buffer{}
	for int64(buf.Len()) < limit {
		if need := int64(buf.Len()) + readBytes; need > lent {
			if err := loan.Take(j.r.Context(), max(lent, readBytes)); err != nil {
				return err
			}
			lent += max(lent, readBytes)
		}
		_, err := io.CopyN(buf, p.res, min(readBytes, limit-int64(buf.Len())))
		if err == io.EOF {
			p.head = buf.Bytes()
			return j.check(p, unsorted)
		}
		if err != nil {
			return fmt.Errorf("its answer breaks off: %w", err)
		}
	}
	if unsorted {
		return fmt.Errorf("its answer is too long to be sorted: more than %d bytes", limit)
	}
	p.head = buf.Bytes()
	p.reader = newMatrixReader(io.MultiReader(bytes.NewReader(p.head), p.res), j.d.grid, p.span)
	return nil
}

// check reads an answer that is here as a whole.
func (j *joint) check(p *asked, sorting bool) error {
	p.reader = newMatrixReader(bytes.NewReader(p.head), j.d.grid, p.span)
	for last := (labels.Labels{}); ; {
		s, err := p.reader.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if sorting {
			p.list = append(p.list, matrixSeries{s.labels, bytes.Clone(s.floats), bytes.Clone(s.histograms)})
			continue
		}
		if labels.Compare(last, s.labels) > 0 {
			p.store.disorder()
			return errUnsorted
		}
		last = s.labels
	}
	if sorting {
		slices.SortFunc(p.list, func(a, b matrixSeries) int { return labels.Compare(a.labels, b.labels) })
		return nil
	}
	p.reader = newMatrixReader(bytes.NewReader(p.head), j.d.grid, p.span)
	return nil
}

// errUnsorted is of answers that can be handed on, but not joined.
var errUnsorted error = &wholeError{errors.New("its series are not in the order of their labels")}

// answer is the two halves, merged as they are written.
func (j *joint) answer(s *slow) answer {
	u := j.a.upstream
	for _, p := range j.askeds {
		u.stepsAsked.Add(uint64(p.to - p.from))
	}
	j.expect()
	for _, p := range j.recalls {
		u.stepsRecalled.Add(uint64(p.to - p.from))
	}
	source := sourceBoth
	switch {
	case len(j.heres) == 0:
		source = sourceUpstream
	case len(j.heres) < len(j.d.spans):
		u.split.Add(1)
	}
	for _, h := range j.heres {
		u.stepsHere.Add(uint64(h.to - h.span.from))
		j.a.counts.series.Add(uint64(h.read.selected.Load()))
	}
	whole := *s
	whole.parts = &partTimes{j.hereTook, j.storeTook}
	whole.waited = 0
	for _, h := range j.heres {
		whole.read, whole.samples = h.read, whole.samples+h.samples
	}
	j.a.tell(j.r, whole)
	got := answer{source: source, query: j.r.FormValue("query"), notes: annotations.Annotations{}}
	got.close = func() {
		j.keep()
		j.close()
	}
	for _, h := range j.heres {
		got.notes.Merge(h.result.Warnings)
	}
	if j.failure != nil {
		got.notes.Add(noStore(j.failure))
		for _, lost := range j.lost {
			got.notes.Add(fmt.Errorf("steps from %s to %s are missing", textOfTime(j.d.grid.time(lost.from)), textOfTime(j.d.grid.time(lost.to-1))))
		}
	}
	got.data = func(w *jsonWriter) {
		w.raw(`{"resultType":"matrix","result":[`)
		truncated, err := j.merge(w)
		if err != nil {
			w.fail(err)
			return
		}
		if truncated {
			got.notes.Add(errTruncated)
		}
		j.done = !truncated
		w.raw(`]`)
		j.stats(w, s)
		w.raw(`}`)
	}
	got.unite = func(warnings, infos []string) ([]string, []string) {
		for _, p := range j.askeds {
			warnings, infos = j.uniteNotes(warnings, p.reader.warnings), j.uniteNotes(infos, p.reader.infos)
		}
		for _, p := range j.recalls {
			infos = j.uniteNotes(infos, j.d.recall.infos(p.extent))
		}
		return warnings, infos
	}
	return got
}

// expect tells the recordings how many series there may be to keep.
func (j *joint) expect() {
	n := 0
	for _, h := range j.heres {
		n = max(n, h.count())
	}
	for _, p := range j.askeds {
		if p.record != nil {
			p.record.series = n
		}
	}
}

// keep remembers what the store said, once all of it was written.
func (j *joint) keep() {
	if !j.done {
		return
	}
	for _, p := range j.askeds {
		p.record.keep(p.reader.warnings, p.reader.infos)
	}
}

func textOfTime(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339Nano) }

// merge writes the series of all parts. limit bounds how many.
func (j *joint) merge(w *jsonWriter) (truncated bool, err error) {
	parts := j.parts()
	live := make([]bool, len(parts))
	for i, p := range parts {
		if live[i], err = p.next(); err != nil {
			return false, err
		}
	}
	var now []int
	for n := 0; ; n++ {
		now = now[:0]
		for i, p := range parts {
			if !live[i] {
				continue
			}
			order := -1
			if len(now) > 0 {
				order = labels.Compare(p.series(), parts[now[0]].series())
			}
			if order < 0 {
				now = now[:0]
			}
			if order <= 0 {
				now = append(now, i)
			}
		}
		if len(now) == 0 {
			return truncated, nil
		}
		if truncated = j.limit > 0 && n >= j.limit; !truncated {
			w.comma(n)
			if !writeSeries(w, parts, now) {
				return false, w.err
			}
		}
		for _, i := range now {
			if live[i], err = parts[i].next(); err != nil {
				return truncated, err
			}
		}
		if truncated {
			return true, j.finish()
		}
	}
}

// finish reads the rest of the store's answers, for its notes.
func (j *joint) finish() error {
	for _, p := range j.askeds {
		for p.list == nil {
			if _, err := p.reader.next(); err == io.EOF {
				break
			} else if err != nil {
				return err
			}
		}
	}
	return nil
}

// parts are the halves in the order of their steps.
func (j *joint) parts() (parts []half) {
	type placed struct {
		half
		from int
	}
	var all []placed
	for _, h := range j.heres {
		all = append(all, placed{h, h.span.from})
	}
	for _, p := range j.askeds {
		all = append(all, placed{p, p.from})
	}
	for _, p := range j.recalls {
		all = append(all, placed{p, p.from})
	}
	slices.SortFunc(all, func(a, b placed) int { return a.from - b.from })
	for _, p := range all {
		parts = append(parts, p.half)
	}
	return parts
}

// writeSeries writes a series that some of the parts have.
func writeSeries(w *jsonWriter, parts []half, of []int) bool {
	w.raw(`{"metric":`)
	w.labels(parts[of[0]].series())
	for kind := range pointKeys {
		k, n := pointKind(kind), 0
		for _, i := range of {
			if !parts[i].has(k) {
				continue
			}
			if n == 0 {
				w.raw(`,"` + pointKeys[k] + `":[`)
			}
			w.comma(n)
			n++
			if !parts[i].write(w, k) {
				return false
			}
		}
		if n > 0 {
			w.raw("]")
		}
	}
	w.raw("}")
	return w.more()
}

// uniteNotes adds what the store notes to what memory does: a note of the same
// kind about the same place is one.
func (j *joint) uniteNotes(ours, theirs []string) []string {
	for _, note := range theirs {
		note = originalPosition(note, j.d.at)
		if !slices.ContainsFunc(ours, func(our string) bool { return sameNote(our, note) }) {
			ours = append(ours, note)
		}
	}
	const more = " annotations omitted"
	if n := len(ours) - maxNotes; n > 0 && !strings.HasSuffix(ours[len(ours)-1], more) {
		kind := "warning"
		if strings.HasPrefix(ours[0], promqlInfo) {
			kind = "info"
		}
		ours = append(ours[:maxNotes], fmt.Sprintf("%d more %s%s", n, kind, more))
	}
	return ours
}

const promqlInfo = "PromQL info"

// sameNote reports that two notes are of the same kind and place: what they say
// of numbers may differ with the steps that they are about.
func sameNote(a, b string) bool {
	if a == b {
		return true
	}
	// input to histogram_quantile needed to be fixed…, from buckets … over … (1:20)
	cutA, _, okA := strings.Cut(a, ", from buckets ")
	cutB, _, okB := strings.Cut(b, ", from buckets ")
	return okA && okB && cutA == cutB && a[strings.LastIndex(a, " ("):] == b[strings.LastIndex(b, " ("):]
}

// stats writes the statistics that were asked for: those of memory's part, and
// how long each part took.
func (j *joint) stats(w *jsonWriter, s *slow) {
	if j.r.FormValue("stats") == "" {
		return
	}
	w.raw(`,"stats":`)
	w.any(j.statistics())
}
