package remotewrite

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// maxExemplarRunes of the names and values of an exemplar's labels together,
// as OpenMetrics has it.
const maxExemplarRunes = 128

// Exemplar is a sample with labels that point to where it comes from.
type Exemplar struct {
	T      int64  // ms
	V      uint64 // bit pattern of the value
	Labels []mcache.Label
}

// SeriesExemplars are the exemplars of one series.
type SeriesExemplars struct {
	Labels    []mcache.Label // of the series, sorted by name
	Exemplars []Exemplar     // sorted by time
}

// pending is an exemplar of the request in hand. Its strings are views into decoded.
type pending struct {
	series extent
	fp     mcache.Fingerprint
	Exemplar
}

// exemplar decodes the Exemplar message b of the series in hand. It reports
// false if b is malformed.
func (in *intake) exemplar(b []byte) bool {
	var x Exemplar
	var err error
	if in.protocol == wire.V1 {
		var m prompb.Exemplar
		if m.Unmarshal(b) != nil {
			return false
		}
		x.T, x.V = m.Timestamp, math.Float64bits(m.Value)
		for _, l := range m.Labels {
			x.Labels = append(x.Labels, mcache.Label{Name: l.Name, Value: l.Value})
		}
	} else {
		var m writev2.Exemplar
		if m.Unmarshal(b) != nil {
			return false
		}
		x.T, x.V = m.Timestamp, math.Float64bits(m.Value)
		x.Labels, err = in.exemplarLabels(m.LabelsRefs)
	}
	if err == nil {
		err = in.checkExemplar(x)
	}
	if err != nil {
		in.badExemplars++
		in.whyBad = err
		return true
	}
	in.exemplars = append(in.exemplars, pending{Exemplar: x})
	return true
}

func (in *intake) exemplarLabels(refs []uint32) ([]mcache.Label, error) {
	if len(refs)%2 != 0 {
		return nil, fmt.Errorf("it has %d label references: an odd number", len(refs))
	}
	if len(refs) > 2*maxExemplarRunes {
		return nil, fmt.Errorf("it has %d labels, more than %d", len(refs)/2, maxExemplarRunes)
	}
	var ls []mcache.Label
	for i := 0; i < len(refs); i += 2 {
		n, v := refs[i], refs[i+1]
		if int(n) >= len(in.syms) || int(v) >= len(in.syms) {
			return nil, fmt.Errorf("a label refers to symbols %d and %d of %d", n, v, len(in.syms))
		}
		ls = append(ls, mcache.Label{Name: view(in.syms[n].raw), Value: view(in.syms[v].raw)})
	}
	return ls, nil
}

func (in *intake) checkExemplar(x Exemplar) error {
	runes := 0
	slices.SortFunc(x.Labels, func(a, b mcache.Label) int { return cmp.Compare(a.Name, b.Name) })
	for i, l := range x.Labels {
		runes += utf8.RuneCountInString(l.Name) + utf8.RuneCountInString(l.Value)
		switch {
		case l.Name == "":
			return fmt.Errorf("it has a label without a name")
		case i > 0 && l.Name == x.Labels[i-1].Name:
			return fmt.Errorf("label %s occurs twice in it", wire.Quote(l.Name))
		case !utf8.ValidString(l.Name) || !utf8.ValidString(l.Value):
			return fmt.Errorf("its label %s=%s is not UTF-8", wire.Quote(l.Name), wire.Quote(l.Value))
		}
	}
	if runes > maxExemplarRunes {
		return fmt.Errorf("its labels have %d characters, more than %d", runes, maxExemplarRunes)
	}
	if x.T > in.maxT {
		return fmt.Errorf("it is %d ms more than %v ahead of the clock", x.T-in.maxT, in.o.MaxAhead)
	}
	return nil
}

// keepExemplars puts the exemplars of the request into the ring, but for those
// of series that were refused, which are counted as such.
func (in *intake) keepExemplars() {
	at := in.at // in the order of the request, as the exemplars are
	for _, x := range in.exemplars {
		for len(at) > 0 && at[0].from < x.series.from {
			at = at[1:]
		}
		if len(at) > 0 && at[0].extent == x.series && at[0].refused {
			continue
		}
		if err := in.decodeLabels(x.series); err != nil {
			in.problems.count[reasonExemplars]++
			in.problems.say(err)
			continue
		}
		in.ring.put(exemplarSeries{in.bucket, x.fp}, in.labels, x.Exemplar)
		in.writtenExemplars++
	}
}

// ring keeps the latest exemplars of all buckets: at most max, of at most
// maxBytes. A new one pushes the oldest out.
type ring struct {
	max, maxBytes int

	mu    sync.Mutex
	slots []kept // in use are count, from first on, cyclically
	first uint64 // the number of the oldest; it lies at first modulo len(slots)
	count uint64
	bytes int
	last  map[exemplarSeries]uint64 // the number of a series' latest
}

type exemplarSeries struct {
	bucket string
	fp     mcache.Fingerprint
}

type kept struct {
	key    exemplarSeries
	labels []mcache.Label
	Exemplar
	bytes int
}

// put keeps x of the series with the labels given, and copies both. The latest
// of a series once more is taken for a repetition.
func (r *ring) put(key exemplarSeries, labels []mcache.Label, x Exemplar) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var series []mcache.Label
	if n, ok := r.last[key]; ok {
		latest := &r.slots[n%uint64(len(r.slots))]
		if latest.T == x.T && latest.V == x.V && slices.Equal(latest.Labels, x.Labels) {
			return
		}
		series = latest.labels // series with many exemplars have their labels once
	}
	k := kept{key: key, bytes: exemplarBytes}
	k.key.bucket = strings.Clone(key.bucket)
	if series == nil {
		series = cloneLabels(labels, &k.bytes)
	}
	k.labels = series
	k.Exemplar = Exemplar{x.T, x.V, cloneLabels(x.Labels, &k.bytes)}
	if r.slots == nil {
		r.slots, r.last = make([]kept, r.max), make(map[exemplarSeries]uint64)
	}
	for r.count > 0 && (r.count == uint64(len(r.slots)) || r.bytes+k.bytes > r.maxBytes) {
		oldest := &r.slots[r.first%uint64(len(r.slots))]
		if r.last[oldest.key] == r.first {
			delete(r.last, oldest.key)
		}
		r.bytes -= oldest.bytes
		*oldest = kept{}
		r.first++
		r.count--
	}
	n := r.first + r.count
	r.slots[n%uint64(len(r.slots))] = k
	r.last[k.key] = n
	r.count++
	r.bytes += k.bytes
}

// exemplarBytes is what an exemplar takes beside its strings: a slot, an
// entry of the map, headers of strings.
const exemplarBytes = 200

func cloneLabels(ls []mcache.Label, bytes *int) []mcache.Label {
	out := make([]mcache.Label, len(ls))
	for i, l := range ls {
		*bytes += len(l.Name) + len(l.Value) + 32
		out[i] = mcache.Label{Name: strings.Clone(l.Name), Value: strings.Clone(l.Value)}
	}
	return out
}

// Exemplars returns what is kept of a bucket from one time, in ms, to another,
// both included, of the series that match wants. The caller may keep it, but
// not change it. match must not call the Handler.
func (h *Handler) Exemplars(bucket string, from, to int64, match func(series []mcache.Label) bool) []SeriesExemplars {
	r := &h.ring
	r.mu.Lock()
	defer r.mu.Unlock()
	place := map[mcache.Fingerprint]int{} // in out; -1 for one that does not match
	var out []SeriesExemplars
	for n := r.first; n < r.first+r.count; n++ {
		k := &r.slots[n%uint64(len(r.slots))]
		if k.key.bucket != bucket || k.T < from || k.T > to {
			continue
		}
		at, seen := place[k.key.fp]
		if !seen {
			if at = -1; match(k.labels) {
				at = len(out)
				out = append(out, SeriesExemplars{Labels: k.labels})
			}
			place[k.key.fp] = at
		}
		if at >= 0 {
			out[at].Exemplars = append(out[at].Exemplars, k.Exemplar)
		}
	}
	for _, s := range out {
		slices.SortStableFunc(s.Exemplars, func(a, b Exemplar) int { return cmp.Compare(a.T, b.T) })
	}
	return out
}
