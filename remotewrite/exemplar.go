package remotewrite

import (
	"cmp"
	"fmt"
	"math"
	"slices"
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
	series piece
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
		ls = append(ls, mcache.Label{Name: wire.View(in.syms[n].raw), Value: wire.View(in.syms[v].raw)})
	}
	return ls, nil
}

func (in *intake) checkExemplar(x Exemplar) error {
	if err := checkExemplarLabels(x.Labels); err != nil {
		return err
	}
	if in.isBadTime(x.T) {
		return in.badTime(x.T)
	}
	return nil
}

// checkExemplarLabels sorts the labels of an exemplar and says what is wrong with them.
func checkExemplarLabels(ls []mcache.Label) error {
	runes := 0
	slices.SortFunc(ls, func(a, b mcache.Label) int { return cmp.Compare(a.Name, b.Name) })
	for i, l := range ls {
		runes += utf8.RuneCountInString(l.Name) + utf8.RuneCountInString(l.Value)
		switch {
		case l.Name == "":
			return fmt.Errorf("it has a label without a name")
		case i > 0 && l.Name == ls[i-1].Name:
			return fmt.Errorf("label %s occurs twice in it", wire.Quote(l.Name))
		case !utf8.ValidString(l.Name) || !utf8.ValidString(l.Value):
			return fmt.Errorf("its label %s=%s is not UTF-8", wire.Quote(l.Name), wire.Quote(l.Value))
		}
	}
	if runes > maxExemplarRunes {
		return fmt.Errorf("its labels have %d characters, more than %d", runes, maxExemplarRunes)
	}
	return nil
}

// keepExemplars puts the exemplars of the request into the ring, but for those
// of series that were refused, which are counted as such. One that is earlier
// than all that the ring has room for counts as kept: it would not be for long.
func (in *intake) keepExemplars() {
	at := in.at // in the order of the request, as the exemplars are
	// Of one series there may be hundreds of thousands: its labels are read once.
	var err error
	var decoded piece // whose labels are in in.labels, or err; no series ends at 0
	for _, x := range in.exemplars {
		for len(at) > 0 && at[0].from < x.series.from {
			at = at[1:]
		}
		if len(at) > 0 && at[0].piece == x.series && at[0].refused {
			continue
		}
		if x.series != decoded {
			err, decoded = in.decodeLabels(x.series), x.series
		}
		if err != nil {
			in.refuseExemplars(1, in.because(err, x.series))
			continue
		}
		in.ring.put(in.bucket, x.fp, in.cache.Fingerprint(x.Labels), in.labels, x.Exemplar, in.nowMs)
		in.writtenExemplars++
	}
}
