package query

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"

	"mcached/mcache"
)

// A header that names several tenants, as a|b, reads their buckets as one, the
// way Mimir does: each series has a label more that says whose it is. Matchers
// of that label choose among the tenants. A series that has such a label of its
// own keeps it under another name.
const (
	tenantSeparator     = "|"
	tenantLabel         = "__tenant_id__"
	originalTenantLabel = "original_" + tenantLabel
)

// maxTenants bounds what one request may read: each costs a select of its own.
const maxTenants = 100

// tenantsOf lists the tenants that a header names: each once, in order.
func tenantsOf(header string) ([]string, error) {
	names := strings.Split(header, tenantSeparator)
	slices.Sort(names)
	names = slices.Compact(names)
	if names[0] == "" {
		return nil, errors.New("a tenant without a name")
	}
	for _, name := range names {
		// No write can name such a bucket: what surrounds a header's value is none of it.
		if strings.Trim(name, " \t") != name {
			return nil, fmt.Errorf("a tenant whose name begins or ends with a space: %q", name)
		}
	}
	if len(names) > maxTenants {
		return nil, fmt.Errorf("%d tenants, at most %d", len(names), maxTenants)
	}
	return names, nil
}

// checkTenants is what is wrong with a request's header, if it names tenants.
func (a *API) checkTenants(r *http.Request) error {
	if a.o.TenancyHeader == "" {
		return nil
	}
	if h := r.Header.Get(a.o.TenancyHeader); strings.Contains(h, tenantSeparator) {
		if _, err := tenantsOf(h); err != nil {
			return fmt.Errorf("%s: %w", a.o.TenancyHeader, err)
		}
	}
	return nil
}

// sourceOf is what is behind the name of a bucket.
func (a *API) sourceOf(bucket string) Source {
	s := a.source
	if a.upstream != nil {
		if names := a.upstream.opts().DropLabels; len(names) > 0 {
			s = dropping{s, names}
		}
	}
	if strings.Contains(bucket, tenantSeparator) {
		return joined{s}
	}
	return s
}

// eachBucket calls f with the buckets that are behind the name of one; label is
// the tenant's label if there are several.
func eachBucket(bucket string, f func(name string, label []labels.Label) error) error {
	if !strings.Contains(bucket, tenantSeparator) {
		return f(bucket, nil)
	}
	names, err := tenantsOf(bucket)
	if err != nil {
		return err
	}
	for _, name := range names {
		var label []labels.Label
		if len(names) > 1 {
			label = []labels.Label{{Name: tenantLabel, Value: name}}
		}
		if err := f(name, label); err != nil {
			return err
		}
	}
	return nil
}

// joined is a Source whose buckets' names each stand for several of another's.
type joined struct{ Source }

// part is what is asked of one bucket.
type part struct {
	Selection
	tenant string
}

// parts is the selection in each bucket that its matchers allow. one is true
// where there is nothing to join: a|a is a.
func (joined) parts(s Selection) (parts []part, one bool, err error) {
	names, err := tenantsOf(s.Bucket)
	if err != nil {
		return nil, false, err
	}
	if len(names) == 1 {
		s.Bucket = names[0]
		return []part{{Selection: s}}, true, nil
	}
	var rest []*labels.Matcher
	for _, m := range s.Matchers {
		switch m.Name {
		case tenantLabel:
			names = slices.DeleteFunc(names, func(n string) bool { return !m.Matches(n) })
		case originalTenantLabel:
			own, err := labels.NewMatcher(m.Type, tenantLabel, m.Value)
			if err != nil {
				return nil, false, err
			}
			rest = append(rest, own)
		default:
			rest = append(rest, m)
		}
	}
	for _, name := range names {
		p := part{s, name}
		p.Bucket, p.Matchers = name, rest
		parts = append(parts, p)
	}
	return parts, false, nil
}

// Select implements Source.
func (j joined) Select(ctx context.Context, s Selection) (Found, error) {
	parts, one, err := j.parts(s)
	if err != nil {
		return nil, err
	}
	if one {
		return j.Source.Select(ctx, parts[0].Selection)
	}
	all := &joinedFound{ends: make([]int, 0, len(parts)), builder: labels.NewBuilder(labels.EmptyLabels())}
	for _, p := range parts {
		found, err := j.Source.Select(ctx, p.Selection)
		if err != nil {
			return nil, err
		}
		all.parts, all.tenants = append(all.parts, found), append(all.tenants, p.tenant)
		all.ends = append(all.ends, all.Len()+found.Len())
	}
	return all, nil
}

// LabelNames implements Source.
func (j joined) LabelNames(ctx context.Context, s Selection, limit int) (Texts, error) {
	parts, one, err := j.parts(s)
	if err != nil {
		return Texts{}, err
	}
	if one {
		return j.Source.LabelNames(ctx, parts[0].Selection, limit)
	}
	all := joinedTexts{Texts{Missing: nothingMissing}}
	for _, p := range parts {
		if err := all.add(j.Source.LabelNames(ctx, p.Selection, limit)); err != nil {
			return Texts{}, err
		}
	}
	for i, name := range all.List {
		if name == tenantLabel {
			all.List[i] = originalTenantLabel
		}
	}
	if len(all.List) > 0 {
		all.List = append(all.List, tenantLabel)
	}
	return all.sorted(limit), nil
}

// LabelValues implements Source.
func (j joined) LabelValues(ctx context.Context, name string, s Selection, limit int) (Texts, error) {
	parts, one, err := j.parts(s)
	if err != nil {
		return Texts{}, err
	}
	if one {
		return j.Source.LabelValues(ctx, name, parts[0].Selection, limit)
	}
	all := joinedTexts{Texts{Missing: nothingMissing}}
	there := name // what it is called in the buckets
	if name == originalTenantLabel {
		there = tenantLabel
	}
	for _, p := range parts {
		if name == tenantLabel {
			all.List = append(all.List, p.tenant)
			continue
		}
		if err := all.add(j.Source.LabelValues(ctx, there, p.Selection, limit)); err != nil {
			return Texts{}, err
		}
	}
	return all.sorted(limit), nil
}

// joinedTexts are those of several buckets.
type joinedTexts struct{ Texts }

func (t *joinedTexts) add(more Texts, err error) error {
	t.List = append(t.List, more.List...)
	t.Missing = t.Missing.and(more.Missing)
	t.Notes = append(t.Notes, more.Notes...)
	return err
}

func (t *joinedTexts) sorted(limit int) Texts {
	slices.Sort(t.List)
	t.List = slices.Compact(t.List)
	if limit > 0 && len(t.List) > limit {
		t.List = t.List[:limit]
	}
	return t.Texts
}

// joinedFound is what was found in several buckets, one after the other.
type joinedFound struct {
	parts   []Found
	tenants []string
	ends    []int // of each part, among all series
	builder *labels.Builder
}

// Len implements Found.
func (f *joinedFound) Len() int {
	if len(f.ends) == 0 {
		return 0
	}
	return f.ends[len(f.ends)-1]
}

// Missing implements Found.
func (f *joinedFound) Missing() Missing {
	m := nothingMissing
	for _, p := range f.parts {
		m = m.and(p.Missing())
	}
	return m
}

// Notes are the warnings of all parts.
func (f *joinedFound) Notes() (notes []error) {
	for _, p := range f.parts {
		if n, ok := p.(noted); ok {
			notes = append(notes, n.Notes()...)
		}
	}
	return notes
}

// at is the part that series i is in, and its place there.
func (f *joinedFound) at(i int) (part, place int) {
	part, _ = slices.BinarySearch(f.ends, i+1)
	if part > 0 {
		i -= f.ends[part-1]
	}
	return part, i
}

// Labels implements Found.
func (f *joinedFound) Labels(i int) (labels.Labels, bool) {
	part, place := f.at(i)
	ls, ok := f.parts[part].Labels(place)
	if !ok {
		return ls, false
	}
	return ofTenant(f.builder, ls, f.tenants[part]), true
}

// ofTenant are the labels of a series when there are several tenants.
func ofTenant(b *labels.Builder, ls labels.Labels, tenant string) labels.Labels {
	b.Reset(ls)
	if own := ls.Get(tenantLabel); own != "" {
		b.Set(originalTenantLabel, own)
	}
	return b.Set(tenantLabel, tenant).Labels()
}

// Snapshot implements Found.
func (f *joinedFound) Snapshot(i int, from, to int64, s *mcache.Snapshot) bool {
	part, place := f.at(i)
	return f.parts[part].Snapshot(place, from, to, s)
}

// CompleteFrom is that of the part, as far as it is known.
func (f *joinedFound) CompleteFrom(i int) int64 {
	part, place := f.at(i)
	return knownComplete(f.parts[part], place)
}

// SeriesOf implements Source.
func (j joined) SeriesOf(bucket string) (n int) {
	_ = eachBucket(bucket, func(name string, _ []labels.Label) error { // names were checked
		n += j.Source.SeriesOf(name)
		return nil
	})
	return n
}

// ChunkStats implements Source.
func (j joined) ChunkStats(bucket string) mcache.ChunkStats {
	return joinChunkStats(bucket, j.Source.ChunkStats)
}

// ChunkStatsByMetric implements Source.
func (j joined) ChunkStatsByMetric(bucket string) mcache.ChunkStats {
	return joinChunkStats(bucket, j.Source.ChunkStatsByMetric)
}

func joinChunkStats(bucket string, of func(bucket string) mcache.ChunkStats) mcache.ChunkStats {
	all := mcache.ChunkStats{MinTime: math.MaxInt64, MaxTime: math.MinInt64}
	_ = eachBucket(bucket, func(name string, _ []labels.Label) error {
		e := of(name)
		all.Chunks += e.Chunks
		all.MinTime, all.MaxTime = min(all.MinTime, e.MinTime), max(all.MaxTime, e.MaxTime)
		for metric, n := range e.BytesByMetric {
			if all.BytesByMetric == nil {
				all.BytesByMetric = map[string]int64{}
			}
			all.BytesByMetric[metric] += n
		}
		return nil
	})
	return all
}

// Cardinality implements Source. Of each bucket its largest sources are added
// up; one that is small in each may be missing.
func (j joined) Cardinality(bucket string, limit int) mcache.Cardinality {
	const wide = 1000
	var all mcache.Cardinality
	var sums [4]map[string]int
	for i := range sums {
		sums[i] = map[string]int{}
	}
	_ = eachBucket(bucket, func(name string, _ []labels.Label) error {
		c := j.Source.Cardinality(name, max(limit, wide))
		all.Series, all.Labels, all.Pairs = all.Series+c.Series, max(all.Labels, c.Labels), all.Pairs+c.Pairs
		for i, list := range [...][]mcache.Count{c.ByMetric, c.ByLabel, c.ByPair, c.BytesByLabel} {
			for _, n := range list {
				sums[i][n.Name] += n.Count
			}
		}
		return nil
	})
	all.ByMetric, all.ByLabel = mcache.Top(sums[0], limit), mcache.Top(sums[1], limit)
	all.ByPair, all.BytesByLabel = mcache.Top(sums[2], limit), mcache.Top(sums[3], limit)
	return all
}

// metadataOf is what is known of the metrics of one bucket, or of several.
func (a *API) metadataOf(bucket, metric string) map[string][]metadata.Metadata {
	if a.o.Metadata == nil {
		return nil
	}
	if !strings.Contains(bucket, tenantSeparator) {
		return a.o.Metadata(bucket, metric)
	}
	all := map[string][]metadata.Metadata{}
	_ = eachBucket(bucket, func(name string, _ []labels.Label) error {
		of := a.o.Metadata(name, metric)
		for _, metric := range slices.Sorted(maps.Keys(of)) {
			for _, m := range of[metric] {
				if !slices.Contains(all[metric], m) {
					all[metric] = append(all[metric], m)
				}
			}
		}
		return nil
	})
	return all
}

// exemplarsOf are the exemplars of one bucket, or of several.
func (a *API) exemplarsOf(ctx context.Context, bucket string, from, to int64, selectors [][]*labels.Matcher) (all []exemplar.QueryResult, err error) {
	if a.o.Exemplars == nil {
		return nil, nil
	}
	several := strings.Contains(bucket, tenantSeparator)
	builder := labels.NewBuilder(labels.EmptyLabels())
	err = eachBucket(bucket, func(name string, label []labels.Label) error {
		sets := selectors
		if several && label != nil {
			if sets = selectorsOf(name, selectors); len(sets) == 0 {
				return nil
			}
		}
		var querier storage.ExemplarQuerier
		querier, err := a.o.Exemplars(ctx, name)
		if err != nil {
			return err
		}
		found, err := querier.Select(from, to, sets...)
		if label != nil {
			for i := range found {
				found[i].SeriesLabels = ofTenant(builder, found[i].SeriesLabels, name)
			}
		}
		all = append(all, found...)
		return err
	})
	return all, err
}

// selectorsOf are the selectors that allow a tenant, without what they say of it.
func selectorsOf(tenant string, selectors [][]*labels.Matcher) (of [][]*labels.Matcher) {
next:
	for _, ms := range selectors {
		var rest []*labels.Matcher
		for _, m := range ms {
			if m.Name != tenantLabel {
				rest = append(rest, m)
			} else if !m.Matches(tenant) {
				continue next
			}
		}
		of = append(of, rest)
	}
	return of
}
