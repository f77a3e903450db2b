package remotewrite

import (
	"cmp"
	"container/heap"
	"hash/maphash"
	"slices"
	"strings"
	"sync"

	"mcached/mcache"
)

// ring keeps the latest exemplars of all buckets: at most max, of at most
// maxBytes. Senders repeat requests, out of order and as often as they like,
// and what is kept does not depend on that: an exemplar is kept once, the
// earliest is evicted for a later one, and what was evicted does not come back
// to evict others.
type ring struct {
	seed maphash.Seed // of ranks

	mu            sync.Mutex
	max, maxBytes int
	kept          exemplarHeap
	there         map[exemplarKey]struct{} // what is in kept
	series        map[seriesKey]*exemplarSeries
	gone          exemplarRank // the latest that was evicted
	bytes         int          // of kept and series
}

func (r *ring) bound(n, bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.max, r.maxBytes = n, bytes
}

// seriesKey is a series of a bucket.
type seriesKey struct {
	bucket string
	fp     mcache.Fingerprint
}

// exemplarSeries is a series of which exemplars are kept, n of them.
type exemplarSeries struct {
	seriesKey
	labels []mcache.Label
	bytes  int // of the labels
	n      int
}

// exemplarKey is what makes an exemplar the same as another. Labels are sorted,
// so that their fingerprint says all of them.
type exemplarKey struct {
	seriesKey
	t      int64
	v      uint64
	labels mcache.Fingerprint
}

// exemplarRank is an order of exemplars: by time, and by chance, but always the
// same, where times are equal.
type exemplarRank struct {
	t    int64
	hash uint64
}

func (a exemplarRank) compare(b exemplarRank) int {
	return cmp.Or(cmp.Compare(a.t, b.t), cmp.Compare(a.hash, b.hash))
}

// keptExemplar owns its strings.
type keptExemplar struct {
	Exemplar
	key    exemplarKey
	rank   exemplarRank
	series *exemplarSeries
	bytes  int
}

// exemplarHeap has the exemplar of the lowest rank first.
type exemplarHeap []*keptExemplar

func (h exemplarHeap) Len() int           { return len(h) }
func (h exemplarHeap) Less(i, j int) bool { return h[i].rank.compare(h[j].rank) < 0 }
func (h exemplarHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *exemplarHeap) Push(x any)        { *h = append(*h, x.(*keptExemplar)) }

func (h *exemplarHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return x
}

// What an exemplar and a series of exemplars take beside their strings: the
// structs, an entry of a map each, a place in the heap.
const (
	exemplarBytes       = 400
	exemplarSeriesBytes = 200
)

// put keeps x of a series, whose labels it belongs to, and copies what it
// keeps. fp and own are the fingerprints of labels and of those of x. now is
// the time in ms: a time ahead of it counts as now, so that a wrong clock does
// not push out what comes from others.
func (r *ring) put(bucket string, fp, own mcache.Fingerprint, labels []mcache.Label, x Exemplar, now int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := exemplarKey{seriesKey{bucket, fp}, x.T, x.V, own}
	if _, ok := r.there[key]; ok {
		return
	}
	rank := exemplarRank{min(x.T, now), maphash.Comparable(r.seed, key)}
	if r.gone != (exemplarRank{}) && rank.compare(r.gone) <= 0 {
		return
	}
	s := r.series[key.seriesKey]
	if s == nil {
		s = &exemplarSeries{seriesKey: seriesKey{strings.Clone(bucket), fp}, bytes: exemplarSeriesBytes + len(bucket)}
		s.labels = cloneLabels(labels, &s.bytes)
	}
	k := &keptExemplar{key: key, rank: rank, series: s, bytes: exemplarBytes}
	k.key.seriesKey = s.seriesKey
	k.Exemplar = Exemplar{x.T, x.V, cloneLabels(x.Labels, &k.bytes)}
	if k.bytes+s.bytes > r.maxBytes {
		return // it would push everything out, and not find room all the same
	}
	if r.series == nil {
		r.series, r.there = make(map[seriesKey]*exemplarSeries), make(map[exemplarKey]struct{})
	}
	if s.n == 0 {
		r.series[s.seriesKey] = s
		r.bytes += s.bytes
	}
	s.n++
	r.bytes += k.bytes
	r.there[k.key] = struct{}{}
	heap.Push(&r.kept, k)
	for len(r.kept) > r.max || r.bytes > r.maxBytes {
		r.drop(heap.Pop(&r.kept).(*keptExemplar))
	}
}

// drop forgets k, which is in the heap no more.
func (r *ring) drop(k *keptExemplar) {
	delete(r.there, k.key)
	r.bytes -= k.bytes
	if k.series.n--; k.series.n == 0 {
		delete(r.series, k.series.seriesKey)
		r.bytes -= k.series.bytes
	}
	r.gone = k.rank
}

func cloneLabels(ls []mcache.Label, bytes *int) []mcache.Label {
	out := make([]mcache.Label, len(ls))
	for i, l := range ls {
		*bytes += len(l.Name) + len(l.Value) + 32
		out[i] = mcache.Label{Name: strings.Clone(l.Name), Value: strings.Clone(l.Value)}
	}
	return out
}

// Exemplars returns what is kept of a bucket from one time, in ms, to another,
// both included, of the series that match wants, sorted by their labels. The
// caller may keep it, but not change it. match must not call the Handler.
func (h *Handler) Exemplars(bucket string, from, to int64, match func(series []mcache.Label) bool) []SeriesExemplars {
	r := &h.ring
	r.mu.Lock()
	defer r.mu.Unlock()
	place := map[*exemplarSeries]int{} // in out; -1 for one that does not match
	var out []SeriesExemplars
	for _, k := range r.kept {
		if k.series.bucket != bucket || k.T < from || k.T > to {
			continue
		}
		at, seen := place[k.series]
		if !seen {
			if at = -1; match(k.series.labels) {
				at = len(out)
				out = append(out, SeriesExemplars{Labels: k.series.labels})
			}
			place[k.series] = at
		}
		if at >= 0 {
			out[at].Exemplars = append(out[at].Exemplars, k.Exemplar)
		}
	}
	for _, s := range out {
		slices.SortStableFunc(s.Exemplars, func(a, b Exemplar) int { return cmp.Compare(a.T, b.T) })
	}
	slices.SortFunc(out, func(a, b SeriesExemplars) int { return compareLabels(a.Labels, b.Labels) })
	return out
}

func compareLabels(a, b []mcache.Label) int {
	return slices.CompareFunc(a, b, func(x, y mcache.Label) int {
		return cmp.Or(strings.Compare(x.Name, y.Name), strings.Compare(x.Value, y.Value))
	})
}

// PutExemplars keeps exemplars of a series as if a sender had sent them: those
// that are kept already are not kept again. It copies what it keeps. Labels,
// those of exemplars too, are sorted by name.
func (h *Handler) PutExemplars(bucket string, s SeriesExemplars) {
	fp, now := h.cache.Fingerprint(s.Labels), h.o().Now().UnixMilli()
	for _, x := range s.Exemplars {
		h.ring.put(bucket, fp, h.cache.Fingerprint(x.Labels), s.Labels, x, now)
	}
}
