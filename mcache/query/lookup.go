package query

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// A lookup is a request for series or labels, its parameters read.
type lookup struct {
	ctx      context.Context
	limit    int
	matchers [][]*labels.Matcher
	from, to int64 // unix ms, inclusive
	read     *Queryable
	querier  storage.Querier
}

// matchersError is what is wrong with match[]. Prometheus names the parameter
// in one of the three requests that have it.
type matchersError struct{ err error }

func (e *matchersError) Error() string { return e.err.Error() }

// lookup reads the parameters and waits for its turn; done must be called then.
func (a *API) lookup(r *http.Request) (l lookup, done func(), err error) {
	a.counts.lookups.Add(1)
	if l.limit, err = limitParam(r); err != nil {
		return l, nil, err
	}
	if l.from, l.to, err = timeRange(r); err != nil {
		return l, nil, err
	}
	if l.matchers, err = a.parseMatchers(r.Form["match[]"]); err != nil {
		return l, nil, badData(&matchersError{err})
	}
	ctx, cancel, err := a.withTimeout(r)
	if err != nil {
		return l, nil, err
	}
	if err := a.lookups.enter(ctx); err != nil {
		cancel()
		return l, nil, err
	}
	l.ctx = ctx
	l.read = a.queryable(r)
	l.querier, _ = l.read.Querier(l.from, l.to) // never an error
	return l, func() { a.lookups.leave(); cancel() }, nil
}

// series answers with the label sets of the series that match any selector.
func (a *API) series(r *http.Request) (answer, error) {
	if len(r.Form["match[]"]) == 0 {
		return answer{}, badData(errors.New("no match[] parameter provided"))
	}
	l, done, err := a.lookup(r)
	if e := new(matchersError); errors.As(err, &e) {
		return answer{}, badParam("match[]", e.err)
	} else if err != nil {
		return answer{}, err
	}
	defer done()
	// There is no function "series": the word says that samples are not needed.
	hints := &storage.SelectHints{Start: l.from, End: l.to, Func: "series", Limit: oneMore(l.limit)}
	var set storage.SeriesSet
	if len(l.matchers) == 1 && l.limit == 0 && a.upstream == nil {
		set = l.querier.Select(l.ctx, false, hints, l.matchers[0]...)
		if s, ok := set.(*seriesSet); ok {
			if text, ok := s.listing(); ok {
				result := answer{notes: annotations.Annotations{}, read: l.read, maxBytes: int64(len(text)) + 2}
				result.data = func(w *jsonWriter) { w.listing(text) }
				return result, nil
			}
		}
	} else if len(l.matchers) == 1 {
		set = l.querier.Select(l.ctx, true, hints, l.matchers[0]...)
	} else {
		sets := make([]storage.SeriesSet, len(l.matchers))
		for i, ms := range l.matchers {
			sets[i] = l.querier.Select(l.ctx, true, hints, ms...)
		}
		set = storage.NewMergeSeriesSet(sets, 0, storage.ChainedSeriesMerge)
	}
	result := answer{notes: annotations.Annotations{}, read: l.read}
	var found []labels.Labels
	if s, ok := set.(*seriesSet); ok {
		found = make([]labels.Labels, 0, len(s.series))
	}
	for set.Next() {
		if l.limit > 0 && len(found) == l.limit {
			result.notes.Add(errTruncated)
			break
		}
		ls := set.At().Labels()
		found = append(found, ls)
	}
	if err := set.Err(); err != nil {
		return answer{}, err
	}
	f := findings{series: found}
	if err := a.joinLookup(r, &l, &f, &result); err != nil {
		return answer{}, err
	}
	found, result.read = f.series, l.read
	if l.limit > 0 && len(found) > l.limit {
		found = found[:l.limit]
		result.notes.Add(errTruncated)
	}
	for _, ls := range found {
		result.maxBytes += maxSeriesBytes + maxLabelByteBytes*int64(ls.ByteSize())
	}
	result.data = func(w *jsonWriter) {
		w.raw("[")
		for i, ls := range found {
			w.comma(i)
			w.labels(ls)
			if !w.more() {
				return
			}
		}
		w.raw("]")
	}
	return result, nil
}

// labelNames answers with the names of labels, of all series or of those that match.
func (a *API) labelNames(r *http.Request) (answer, error) {
	l, done, err := a.lookup(r)
	if err != nil {
		return answer{}, err
	}
	defer done()
	return a.strings(r, &l, l.querier.LabelNames)
}

// labelValues answers with the values of a label.
func (a *API) labelValues(r *http.Request) (answer, error) {
	name := r.PathValue("name")
	if strings.HasPrefix(name, "U__") {
		name = model.UnescapeName(name, model.ValueEncodingEscaping)
	}
	if !model.UTF8Validation.IsValidLabelName(name) {
		return answer{}, badData(errors.New("invalid label name: " + strconv.Quote(name)))
	}
	l, done, err := a.lookup(r)
	if err != nil {
		return answer{}, err
	}
	defer done()
	return a.strings(r, &l, func(ctx context.Context, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
		return l.querier.LabelValues(ctx, name, hints, ms...)
	})
}

// strings answers with what read finds for any of the selectors.
func (a *API) strings(r *http.Request, l *lookup, read func(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error)) (answer, error) {
	hints := &storage.LabelHints{Limit: oneMore(l.limit)}
	sets := l.matchers
	if len(sets) == 0 {
		sets = [][]*labels.Matcher{nil}
	}
	var found []string
	for _, ms := range sets {
		more, _, err := read(l.ctx, hints, ms...)
		if err != nil {
			return answer{}, err
		}
		if found == nil {
			found = more
		} else {
			found = append(found, more...)
		}
	}
	if len(sets) > 1 {
		slices.Sort(found)
		found = slices.Compact(found)
	}
	result := answer{notes: annotations.Annotations{}}
	f := findings{texts: found}
	if err := a.joinLookup(r, l, &f, &result); err != nil {
		return answer{}, err
	}
	found, result.read = f.texts, l.read
	if l.limit > 0 && len(found) > l.limit {
		found = found[:l.limit]
		result.notes.Add(errTruncated)
	}
	for _, s := range found {
		result.maxBytes += maxLabelByteBytes*int64(len(s)) + 3
	}
	result.data = func(w *jsonWriter) { w.strings(found) }
	return result, nil
}

// metadata answers with type, unit and help of metrics.
func (a *API) metadata(r *http.Request) (answer, error) {
	limit, err := countParam(r, "limit")
	if err != nil {
		return answer{}, err
	}
	perMetric, err := countParam(r, "limit_per_metric")
	if err != nil {
		return answer{}, err
	}
	known, result := maps.Clone(a.metadataOf(a.bucket(r), r.FormValue("metric"))), answer{notes: annotations.Annotations{}}
	if known == nil {
		known = map[string][]metadata.Metadata{}
	}
	if err := a.joinMetadata(r, known, &result); err != nil {
		return answer{}, err
	}
	found := map[string][]metadata.Metadata{}
	for name, ms := range known {
		if limit >= 0 && len(found) >= limit {
			break
		}
		if perMetric > 0 && len(ms) > perMetric {
			ms = ms[:perMetric]
		}
		found[name] = ms
	}
	result.data = func(w *jsonWriter) { w.any(found) }
	return result, nil
}

// countParam reads a limit of which any negative number, the default, is none.
func countParam(r *http.Request, name string) (int, error) {
	s := r.FormValue(name)
	if s == "" {
		return -1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, badData(errors.New(name + " must be a number"))
	}
	return n, nil
}
