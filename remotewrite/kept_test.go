package remotewrite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// everythingKept is what a Handler keeps beside samples.
func everythingKept(h *Handler, buckets ...string) (all []string) {
	for _, b := range buckets {
		h.Metadata(b, func(metric string, m wire.Metadata) bool {
			all = append(all, fmt.Sprintf("%q %q %+q", b, metric, m))
			return true
		})
		for _, s := range h.Exemplars(b, -mcache.MaxTime, mcache.MaxTime, func([]mcache.Label) bool { return true }) {
			all = append(all, fmt.Sprintf("%q %+v", b, s))
		}
	}
	slices.Sort(all)
	return all
}

// parts copies the parts of a Handler.
func parts(h *Handler) (names []string, all [][]byte) {
	for name, part := range h.Kept() {
		names, all = append(names, name), append(all, slices.Clone(part))
	}
	return names, all
}

// TestKept carries exemplars and descriptions over, in parts, twice without an
// effect, and into a Handler that keeps less.
func TestKept(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	a := newReceiver(t, Options{})
	buckets := []string{"default", "other", "größe"}
	for i := range 4000 {
		bucket := buckets[i%3]
		a.PutMetadata(bucket, fmt.Sprint("metric_", i), wire.Metadata{Type: []string{"counter", "gauge", "stateset"}[i%3], Help: strings.Repeat("hülfe ", rnd.IntN(60)), Unit: "s"})
		s := SeriesExemplars{Labels: named(fmt.Sprint("metric_", i/10), "a", fmt.Sprint(i%7))}
		for k := range rnd.IntN(4) {
			s.Exemplars = append(s.Exemplars, exemplar(float64(k-i), rnd.Float64(), "span_id", fmt.Sprint(i), "trace_id", fmt.Sprint(k)))
		}
		a.PutExemplars(bucket, s)
	}
	// One series may have more than a part holds.
	many := SeriesExemplars{Labels: named("many")}
	for i := range 3000 {
		many.Exemplars = append(many.Exemplars, exemplar(float64(-i), float64(i), "trace_id", strings.Repeat("x", 100)))
	}
	a.PutExemplars("default", many)
	want := everythingKept(a.Handler, buckets...)
	names, all := parts(a.Handler)
	if len(all) < 4 || !slices.Contains(names, keptMetadata) || !slices.Contains(names, keptExemplars) {
		t.Fatalf("%d parts, %q", len(all), names)
	}
	for i, p := range all {
		if len(p) > keptPart+maxKeptEntry {
			t.Errorf("part %d has %d bytes", i, len(p))
		}
	}
	b := newReceiver(t, Options{})
	for range 2 {
		for i := range all {
			if err := b.TakeKept(names[i], all[i]); err != nil {
				t.Fatal(err)
			}
		}
		if got := everythingKept(b.Handler, buckets...); !reflect.DeepEqual(got, want) {
			t.Fatalf("%d things are kept, %d were", len(got), len(want))
		}
	}
	if err := b.TakeKept("of a later version", []byte("whatever")); err != nil {
		t.Error(err)
	}
	few := newReceiver(t, Options{MaxExemplars: 10, MaxMetadata: 5})
	for i := range all {
		if err := few.TakeKept(names[i], all[i]); err != nil {
			t.Fatal(err)
		}
	}
	if st := few.Handler; len(st.ring.kept) != 10 || st.meta.n != 5 {
		t.Errorf("%d exemplars, %d descriptions", len(st.ring.kept), st.meta.n)
	}
	for range a.Kept() { // who has enough may stop
		break
	}
}

// TestTakeKeptRefused leaves out what no sender could have sent, and says what
// is no part at all.
func TestTakeKeptRefused(t *testing.T) {
	r := newReceiver(t, Options{})
	part := func(series []mcache.Label, xs ...Exemplar) []byte {
		var p partWriter
		p.buf = append(p.buf, keptSeries)
		p.text("default")
		p.labels(series)
		for _, x := range xs {
			p.buf = append(p.buf, keptOne)
			p.buf = binary.LittleEndian.AppendUint64(binary.AppendVarint(p.buf, x.T), x.V)
			p.labels(x.Labels)
		}
		return p.buf
	}
	good := exemplar(0, 1, "trace_id", "a")
	ahead := exemplar(3600, 1, "trace_id", "b")
	long := exemplar(0, 2, "trace_id", strings.Repeat("x", maxExemplarRunes))
	twice := exemplar(0, 3, "trace_id", "a")
	twice.Labels = append(twice.Labels, twice.Labels[0])
	early := good
	early.T = -mcache.MaxTime - 1
	for _, b := range [][]byte{
		part(named("m"), ahead, long, twice, early, good),
		part([]mcache.Label{{Name: "x", Value: "y"}}, good), part(nil, good), part(append(named("n"), named("n")...), good),
	} {
		if err := r.TakeKept(keptExemplars, b); err != nil {
			t.Error(err)
		}
	}
	r.exemplarsHeld(exemplarLine(named("m"), good))
	whole := part(named("m"), good)
	for n := 1; n < len(whole); n++ {
		if err := r.TakeKept(keptExemplars, whole[:n]); err == nil && n != len(part(named("m"))) {
			t.Errorf("a part cut at %d of %d is taken", n, len(whole))
		}
	}
	for _, b := range [][]byte{{0xff}, {keptOne, 0}, part(nil)[:1], append(part(named("m")), 'Z')} {
		if err := r.TakeKept(keptExemplars, b); !errors.Is(err, errKept) {
			t.Errorf("%q: %v", b, err)
		}
	}
	if err := r.TakeKept(keptMetadata, []byte("\x01b\x01m\xff")); !errors.Is(err, errKept) {
		t.Error(err)
	}
}

// FuzzTakeKept takes arbitrary parts.
func FuzzTakeKept(f *testing.F) {
	r := newReceiver(f, Options{})
	r.PutMetadata("default", "m", wire.Metadata{Type: "counter", Help: "h", Unit: "u"})
	r.PutExemplars("default", SeriesExemplars{Labels: named("m"), Exemplars: []Exemplar{exemplar(0, 1, "trace_id", "a")}})
	names, all := parts(r.Handler)
	for i := range all {
		f.Add(names[i], all[i])
	}
	f.Fuzz(func(t *testing.T, name string, part []byte) {
		_ = r.TakeKept(name, part)
		for range r.Kept() {
		}
	})
}
