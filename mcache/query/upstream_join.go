package query

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/annotations"
)

// Joining: each part of a query that is split is a list of series in the order
// of their labels, so that they are merged as they come: of an answer of the
// store no more is held than some series that are being read and written, and what
// was read ahead (upstream_ahead.go). A short answer is read, and looked at, as a
// whole before anything is sent, so that one that breaks off does no harm; from a
// long one that breaks off the client's answer does, too.

// wholeError says why the store is to answer a query as a whole after all.
type wholeError struct{ why error }

func (e *wholeError) Error() string { return e.why.Error() }

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
			j.v.stop(errVisitOver)
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
		if err = j.v.judge(res, res.readJSONHead); err == nil {
			got := a.handOn(res, func() {})
			got.close = j.close
			return got, nil
		}
		if err = j.without(err); err != nil {
			return answer{}, err
		}
	}
	if err = j.lookAtSeam(s); err != nil {
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
	written int64 // bytes that were written ahead
	done    bool  // the answer came to its end

	hereTook, storeTook time.Duration
}

func (j *joint) close() {
	for _, h := range j.heres {
		h.query.Close()
		h.text.release(&j.a.upstream.parcels)
	}
	for _, p := range slices.Concat(j.askeds, j.seams) {
		p.end()
	}
	j.d.recall.release()
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
		p.end()
		if !p.probe {
			j.lost = append(j.lost, p.span)
		}
	}
	j.askeds, j.seams = nil, nil
	return nil
}

// plan decides what is asked of the store, what of it is remembered, and
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
		h := &here{span: sp, from: j.d.grid.time(sp.from), at: -1, floatsAt: -1}
		part := *s
		part.arrived, part.expr, part.stats, part.of = j.a.o.Now(), j.r.FormValue("query"), j.r.FormValue("stats"), &times{s.start, s.end}
		part.start, part.end = time.UnixMilli(h.from), time.UnixMilli(j.d.grid.time(sp.to-1))
		part.step = time.Duration(j.d.grid.step) * time.Millisecond
		got, err := j.a.evaluate(j.r, part)
		if err != nil {
			return &wholeError{err}
		}
		h.computed = got.ran
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
			theirs, theirInfos := p.notes()
			warnings, infos = j.uniteNotes(warnings, theirs), j.uniteNotes(infos, theirInfos)
		}
		for _, p := range j.recalls {
			if p.shown {
				infos = j.uniteNotes(infos, j.d.recall.infos(p.extent))
			}
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

// keep has remembered what the store said, once all of it was written.
func (j *joint) keep() {
	if !j.done {
		return
	}
	for _, p := range j.askeds {
		p.record.keep(p.notes())
	}
}

func textOfTime(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339Nano) }

// stats writes the statistics that were asked for: those of memory's part, and
// how long each part took.
func (j *joint) stats(w *jsonWriter, s *slow) {
	if j.r.FormValue("stats") == "" {
		return
	}
	w.raw(`,"stats":`)
	w.any(j.statistics())
}
