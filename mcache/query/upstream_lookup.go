package query

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
)

// Requests for series, labels and their values, for metadata and exemplars are
// answered by both, if memory does not have all of the time that they are about:
// what either knows is in the answer, in order, and a limit is one of the whole.

const (
	// maxLookupBytes bounds an answer of the store's that is united with ours.
	maxLookupBytes = 64 << 20
	// objectBytes are what an object of JSON takes decoded: a map of up to eight
	// members, and a place in a list that grows; or the labels made of it.
	objectBytes = 512
	// elementBytes are what a member or an element takes beside its text: the places of a name
	// and a value in a table that is half empty, and what rounding up their texts costs.
	elementBytes = 128
)

// findings are the answer to a lookup, before it is written.
type findings struct {
	texts  []string
	series []labels.Labels
}

// joinLookup adds to what a lookup found in memory what the store finds.
func (a *API) joinLookup(r *http.Request, l *lookup, f *findings, result *answer) error {
	if a.upstream == nil {
		return nil
	}
	when, err := a.upstream.when(r.FormValue(whenParam))
	if err != nil {
		return err
	}
	_, incomplete := l.read.CompleteFrom()
	if result.source = sourceMemory; when == WhenNever || when == WhenMissing && !incomplete {
		return nil
	}
	var theirs findings
	var into any = &theirs.texts
	var labelSets []map[string]string
	if f.series != nil || strings.HasSuffix(r.URL.Path, "/series") {
		into = &labelSets
	}
	notes, err := a.askJSON(r, into)
	if err != nil {
		return a.withoutStore(result, err)
	}
	for _, m := range labelSets {
		theirs.series = append(theirs.series, labels.FromMap(m))
	}
	result.source, l.read = sourceBoth, nil
	for _, note := range notes {
		result.notes.Add(errors.New(note))
	}
	f.texts = union(f.texts, theirs.texts, strings.Compare)
	f.series = union(f.series, theirs.series, labels.Compare)
	return nil
}

// withoutStore notes that an answer is memory's only. A request that came from
// another daemon has none.
func (a *API) withoutStore(result *answer, failure error) error {
	if loop := new(apiError); errors.As(failure, &loop) {
		return failure
	}
	result.source = sourceMemory
	result.notes.Add(noStore(failure))
	return nil
}

// union is what either of two lists has, in order.
func union[T any](a, b []T, compare func(T, T) int) []T {
	if len(b) == 0 {
		return a
	}
	all := slices.Concat(a, b)
	slices.SortFunc(all, compare)
	return slices.CompactFunc(all, func(a, b T) bool { return compare(a, b) == 0 })
}

// askJSON asks the store the same as the client asks us, and reads the data of
// its answer.
func (a *API) askJSON(r *http.Request, data any) (notes []string, err error) {
	v, err := a.visit(r)
	if err != nil {
		return nil, err
	}
	defer v.end()
	res, err := v.ask(r.URL.Path, a.upstream.wholeForm(r), "identity")
	if err != nil {
		return nil, err
	}
	defer res.Close()
	return readJSON(r.Context(), v, res, data)
}

// readJSON reads the data of an answer, and what it notes.
func readJSON(ctx context.Context, v *visit, res *storeAnswer, data any) (notes []string, err error) {
	b, err := readLent(ctx, res, maxLookupBytes)
	if err != nil {
		v.tell(err)
		return nil, fmt.Errorf("its answer breaks off: %w", err)
	}
	if err := loanOf(ctx).Take(ctx, decodedBytes(b)); err != nil {
		v.tell(err)
		return nil, err
	}
	said := struct {
		Status, Error   string
		Data            any
		Warnings, Infos []string
	}{Data: data}
	if err := json.Unmarshal(b, &said); err != nil {
		err = fmt.Errorf("%w: %w", errNotMatrix, err)
		v.tell(err)
		return nil, err
	}
	if said.Status != "success" {
		return nil, fmt.Errorf("it refuses this: %.200s", said.Error)
	}
	return slices.Concat(said.Warnings, said.Infos)[:min(maxNotes, len(said.Warnings)+len(said.Infos))], nil
}

// decodedBytes is an upper bound of what JSON takes decoded beside its text: that can
// be a hundred times the text, which has an empty map in three bytes.
func decodedBytes(text []byte) int64 {
	return objectBytes*int64(bytes.Count(text, []byte("{"))) + elementBytes*int64(bytes.Count(text, []byte(",")))
}

// readLent reads all there is, up to a bound, and takes it from the request's loan.
func readLent(ctx context.Context, r io.Reader, limit int64) ([]byte, error) {
	var buf bytes.Buffer
	for lent := int64(0); ; {
		if int64(buf.Len()) >= limit {
			return nil, fmt.Errorf("it is longer than %d bytes", limit)
		}
		more := max(readBytes, lent)
		if err := loanOf(ctx).Take(ctx, 2*more); err != nil { // as it is, and decoded
			return nil, err
		}
		lent += more
		if _, err := io.CopyN(&buf, r, min(lent, limit)-int64(buf.Len())); err == io.EOF {
			return buf.Bytes(), nil
		} else if err != nil {
			return nil, err
		}
	}
}

// joinMetadata adds what the store knows of metrics that memory does not.
func (a *API) joinMetadata(r *http.Request, found map[string][]metadata.Metadata, result *answer) error {
	if a.upstream == nil {
		return nil
	}
	when, err := a.upstream.when(r.FormValue(whenParam))
	if result.source = sourceMemory; err != nil || when == WhenNever {
		return err
	}
	var theirs map[string][]metadata.Metadata
	if _, err := a.askJSON(r, &theirs); err != nil {
		return a.withoutStore(result, err)
	}
	result.source = sourceBoth
	for _, name := range slices.Sorted(maps.Keys(theirs)) {
		for _, m := range theirs[name] {
			if !slices.Contains(found[name], m) {
				found[name] = append(found[name], m)
			}
		}
	}
	return nil
}

// storedExemplars are those of a series, as the API writes them.
type storedExemplars struct {
	SeriesLabels map[string]string
	Exemplars    []struct {
		Labels    map[string]string
		Value     string
		Timestamp float64
	}
}

// joinExemplars adds the exemplars that the store has.
func (a *API) joinExemplars(r *http.Request, from, to int64, found []exemplar.QueryResult, result *answer) ([]exemplar.QueryResult, error) {
	if a.upstream == nil {
		return found, nil
	}
	when, err := a.upstream.when(r.FormValue(whenParam))
	if result.source = sourceMemory; err != nil || when == WhenNever || when == WhenMissing && !a.lacksTime(a.bucket(r), from, to) {
		return found, err
	}
	var theirs []storedExemplars
	if _, err := a.askJSON(r, &theirs); err != nil {
		return found, a.withoutStore(result, err)
	}
	result.source = sourceBoth
	for _, t := range theirs {
		of := exemplar.QueryResult{SeriesLabels: labels.FromMap(t.SeriesLabels)}
		i := slices.IndexFunc(found, func(q exemplar.QueryResult) bool { return labels.Equal(q.SeriesLabels, of.SeriesLabels) })
		if i < 0 {
			found = append(found, of)
			i = len(found) - 1
		}
		for _, e := range t.Exemplars {
			value, err := strconv.ParseFloat(e.Value, 64)
			if err != nil {
				continue
			}
			one := exemplar.Exemplar{Labels: labels.FromMap(e.Labels), Value: value, Ts: int64(e.Timestamp*1000 + 0.5), HasTs: true}
			if !slices.ContainsFunc(found[i].Exemplars, func(x exemplar.Exemplar) bool {
				return x.Ts == one.Ts && near(x.Value, one.Value) && labels.Equal(x.Labels, one.Labels)
			}) {
				found[i].Exemplars = append(found[i].Exemplars, one)
			}
		}
		slices.SortStableFunc(found[i].Exemplars, func(a, b exemplar.Exemplar) int { return int(a.Ts - b.Ts) })
	}
	slices.SortStableFunc(found, func(a, b exemplar.QueryResult) int { return labels.Compare(a.SeriesLabels, b.SeriesLabels) })
	return found, nil
}

// lacksTime reports that this process does not have all of a time.
func (a *API) lacksTime(bucket string, from, to int64) bool {
	source, ok := a.sourceOf(bucket).(interface {
		CoveredFrom(bucket string, from, to int64) (complete int64, ok bool)
	})
	if !ok {
		return false
	}
	_, missing := source.CoveredFrom(bucket, from, to)
	return missing
}
