package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"mcached/ingest"
	"mcached/mcache"
	"mcached/mcache/query"
)

// seriesKeys is what this member's Redis door says of keys to members that ask.
func (d *daemon) seriesKeys(filters []byte, put func(string) error) error {
	if d.resp == nil {
		return nil // this member serves no clients of Redis
	}
	return d.resp.SeriesKeys(filters, put)
}

// seriesOfAll is what the commands TS.MRANGE and its like read: the series of all
// members. Samples are asked for before names, so that one that is created
// meanwhile has its name.
func (d *daemon) seriesOfAll(ctx context.Context, s ingest.SeriesSelection, lend func(int64) error) (all ingest.SeriesOfAll, err error) {
	wanted := query.Selection{Bucket: defaultBucket, From: s.From, To: s.To, LabelsOnly: s.LabelsOnly, LastOnly: s.LastOnly}
	for _, f := range s.Filters {
		m, err := matcherOf(f)
		if err != nil {
			return all, err
		}
		wanted.Matchers = append(wanted.Matchers, m)
	}
	loan := &commandLoan{lend: lend}
	found, notes, err := d.queries.SelectAll(ctx, loan, wanted)
	if err != nil {
		return all, err
	}
	if len(notes) > 0 {
		return all, fmt.Errorf("%w: %w", ingest.ErrNodeSilent, notes[0])
	}
	if all.Keys, err = d.queries.KeysOfAll(ctx, loan, s.Keys); err != nil {
		if r := retryable(nil); !errors.As(err, &r) {
			err = fmt.Errorf("%w: %w", ingest.ErrNodeSilent, err)
		}
		return all, err
	}
	for i := range found.Len() {
		ls, ok := found.Labels(i)
		if !ok {
			continue
		}
		x := ingest.SeriesFound{Read: func(from, to int64, s *mcache.Snapshot) bool { return found.Snapshot(i, from, to, s) }}
		ls.Range(func(l labels.Label) { x.Labels = append(x.Labels, mcache.Label{Name: l.Name, Value: l.Value}) })
		all.Series = append(all.Series, x)
	}
	return all, nil
}

// retryable is an error of a loan.
type retryable interface {
	error
	RetryAfter() (after time.Duration, ok bool)
}

func matcherOf(f ingest.SeriesFilter) (*labels.Matcher, error) {
	kind, value := labels.MatchEqual, ""
	if len(f.Set) == 1 {
		value = f.Set[0]
	} else {
		kind = labels.MatchRegexp
		quoted := make([]string, len(f.Set))
		for i, v := range f.Set {
			quoted[i] = regexp.QuoteMeta(v)
		}
		value = strings.Join(quoted, "|")
	}
	if f.Not {
		kind = map[labels.MatchType]labels.MatchType{labels.MatchEqual: labels.MatchNotEqual, labels.MatchRegexp: labels.MatchNotRegexp}[kind]
	}
	return labels.NewMatcher(kind, f.Label, value)
}

// commandLoan is the loan of a command of the Redis door, which gives it back as a
// whole when the command has ended.
type commandLoan struct {
	lend func(int64) error
	held atomic.Int64
}

func (l *commandLoan) Take(_ context.Context, n int64) error {
	err := l.lend(n)
	if err == nil {
		l.held.Add(n)
	}
	return err
}

func (*commandLoan) Keep(int64)    {}
func (l *commandLoan) Held() int64 { return l.held.Load() }
func (*commandLoan) Release()      {}
