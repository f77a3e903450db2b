package remotewrite

import (
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// withExemplars is a request of series of which each has one of the exemplars.
func withExemplars(t testing.TB, p wire.Protocol, xs []Exemplar, series ...Series) []byte {
	t.Helper()
	if p == wire.V1 {
		m := requestV1(series...)
		for i, x := range xs {
			e := prompb.Exemplar{Timestamp: x.T, Value: math.Float64frombits(x.V)}
			for _, l := range x.Labels {
				e.Labels = append(e.Labels, prompb.Label{Name: l.Name, Value: l.Value})
			}
			m.Timeseries[i].Exemplars = append(m.Timeseries[i].Exemplars, e)
		}
		return marshal(t, m)
	}
	m := requestV2(series...)
	for i, x := range xs {
		e := writev2.Exemplar{Timestamp: x.T, Value: math.Float64frombits(x.V)}
		for _, l := range x.Labels {
			n := uint32(len(m.Symbols))
			m.Symbols = append(m.Symbols, l.Name, l.Value)
			e.LabelsRefs = append(e.LabelsRefs, n, n+1)
		}
		m.Timeseries[i].Exemplars = append(m.Timeseries[i].Exemplars, e)
	}
	return marshal(t, m)
}

func exemplar(seconds, v float64, pairs ...string) Exemplar {
	s := sample(seconds, v)
	return Exemplar{s.T, s.V, labels(pairs...)}
}

// exemplarsHeld fails unless the ring holds, of the default bucket, exactly want.
func (r receiver) exemplarsHeld(want ...string) {
	r.T.Helper()
	var got []string
	for _, s := range r.Exemplars("default", math.MinInt64, math.MaxInt64, func([]mcache.Label) bool { return true }) {
		for _, x := range s.Exemplars {
			got = append(got, exemplarLine(s.Labels, x))
		}
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		r.T.Errorf("exemplars held are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func exemplarLine(series []mcache.Label, x Exemplar) string {
	return fmt.Sprintf("%s %d:%x %s", labelText(series), x.T, x.V, labelText(x.Labels))
}

func TestRuleExemplarsAreKept(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		r := newReceiver(t, Options{})
		a := Series{Labels: named("a", "x", "1"), Samples: []mcache.Sample{sample(0, 1)}}
		b := Series{Labels: named("b"), Samples: []mcache.Sample{sample(0, 2)}}
		e1, e2, e3 := exemplar(1, 0.5, "trace_id", "abc"), exemplar(-1, 7), exemplar(2, 0.5, "span_id", "s", "trace_id", "größe")
		for range 2 { // the second time nothing is new
			w := r.Send(p, withExemplars(t, p, []Exemplar{e1, e2}, a, b))
			answered(t, w, 204, "")
			if p == wire.V2 {
				wrote(t, w, 2, 0, 2)
			}
			r.exemplarsHeld(exemplarLine(a.Labels, e1), exemplarLine(b.Labels, e2))
		}
		// A sender may send exemplars by themselves: Prometheus does.
		alone := Series{Labels: named("a", "x", "1")}
		w := r.Send(p, withExemplars(t, p, []Exemplar{e3}, alone))
		answered(t, w, 204, "")
		if p == wire.V2 {
			wrote(t, w, 0, 0, 1)
		}
		r.exemplarsHeld(exemplarLine(a.Labels, e1), exemplarLine(a.Labels, e3), exemplarLine(b.Labels, e2))
		got := r.Exemplars("default", now.UnixMilli()+1500, now.UnixMilli()+2000, func(ls []mcache.Label) bool { return len(ls) == 2 })
		if len(got) != 1 || len(got[0].Exemplars) != 1 || got[0].Exemplars[0].T != e3.T {
			t.Errorf("a range of time and series reads %v", got)
		}
		if got := r.Exemplars("other", math.MinInt64, math.MaxInt64, func([]mcache.Label) bool { return true }); got != nil {
			t.Errorf("another bucket has %v", got)
		}
		if n := r.Stats().Exemplars; n != 5 {
			t.Errorf("%d exemplars counted, want 5", n)
		}
	})
}

// An exemplar that cannot be kept costs no sample. Only protocol 2.0 has words
// for it: a 400 with the numbers of what was written.
func TestRuleInvalidExemplars(t *testing.T) {
	for name, c := range map[string]struct {
		x    Exemplar
		text string
	}{
		"too long":      {exemplar(0, 1, "trace_id", strings.Repeat("é", 121)), "129 characters, more than 128"},
		"twice":         {exemplar(0, 1, "a", "1", "a", "2"), `label "a" occurs twice`},
		"no name":       {exemplar(0, 1, "", "1"), "without a name"},
		"not UTF-8":     {exemplar(0, 1, "a", "\xff"), "not UTF-8"},
		"in the future": {exemplar(601, 1, "a", "1"), "is more than 10m0s ahead of the clock, for a{}"},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, p wire.Protocol) {
				r := newReceiver(t, Options{})
				good := exemplar(0, 1, "trace_id", strings.Repeat("é", 120))
				s := []mcache.Sample{sample(0, 1)}
				w := r.Send(p, withExemplars(t, p, []Exemplar{c.x, good}, Series{Labels: named("a"), Samples: s}, Series{Labels: named("b"), Samples: s}))
				if p == wire.V1 {
					answered(t, w, 204, "")
				} else {
					answered(t, w, 400, c.text)
					answered(t, w, 400, "all 2 samples were written, but: exemplars that are not valid: ")
					wrote(t, w, 2, 0, 1)
				}
				if n := r.Stats().InvalidExemplars; n != 1 {
					t.Errorf("%d invalid exemplars counted, want 1", n)
				}
				r.Holds(line(`{__name__="a"}`, s...), line(`{__name__="b"}`, s...))
				r.exemplarsHeld(exemplarLine(named("b"), good))
			})
		})
	}
}

// An exemplar of a series that is refused is refused with it.
func TestExemplarsOfInvalidSeries(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		r := newReceiver(t, Options{})
		x := exemplar(0, 1, "trace_id", "abc")
		w := r.Send(p, withExemplars(t, p, []Exemplar{x, x}, Series{Labels: labels("a", "b"), Samples: []mcache.Sample{sample(0, 1)}}, Series{Labels: labels("c", "d")}))
		answered(t, w, 400, "without a metric name")
		if p == wire.V2 {
			wrote(t, w, 0)
		}
		r.exemplarsHeld()
	})
}

// Neither is it kept when its series is one too many.
func TestExemplarsOfRefusedSeries(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		r := newReceiverWith(t, Options{}, mcache.Options{Limits: mcache.Limits{Series: 2}})
		x := exemplar(0, 1, "trace_id", "abc")
		s := []mcache.Sample{sample(0, 1)}
		known := Series{Labels: named("known"), Samples: s}
		answered(t, r.Send(p, encode(t, p, known)), 204, "")
		w := r.Send(p, withExemplars(t, p, []Exemplar{x, x, x}, known, Series{Labels: named("new"), Samples: s}, Series{Labels: named("refused"), Samples: s}))
		answered(t, w, 400, "its limit is 2")
		if p == wire.V2 {
			wrote(t, w, 2, 0, 2)
		}
		r.exemplarsHeld(exemplarLine(known.Labels, x), exemplarLine(named("new"), x))
	})
}

// The ring gives up the earliest for the latest, by number and by bytes, and
// forgets what it knew of series that are gone.
func TestExemplarRing(t *testing.T) {
	for name, o := range map[string]Options{"number": {MaxExemplars: 8}, "bytes": {MaxExemplarBytes: 7000}} {
		t.Run(name, func(t *testing.T) {
			r := newReceiver(t, o)
			var all []string
			for i := range 100 {
				s := Series{Labels: named(fmt.Sprintf("a%02d", i%30))}
				x := exemplar(float64(i-100), float64(i), "trace_id", fmt.Sprint(i))
				answered(t, r.Send(wire.V2, withExemplars(t, wire.V2, []Exemplar{x}, s)), 204, "")
				all = append(all, exemplarLine(s.Labels, x))
			}
			held := len(r.ring.kept)
			if held < 4 || held > 10 || r.ring.bytes > r.o().MaxExemplarBytes || len(r.ring.series) != held || len(r.ring.there) != held {
				t.Fatalf("%d exemplars of %d series in %d bytes", held, len(r.ring.series), r.ring.bytes)
			}
			r.exemplarsHeld(all[100-held:]...)

			// One that has no room at all pushes nothing out.
			huge := Series{Labels: named("huge", "x", strings.Repeat("x", 10_000))}
			if name == "bytes" {
				answered(t, r.Send(wire.V2, withExemplars(t, wire.V2, []Exemplar{exemplar(0, 1)}, huge)), 204, "")
				r.exemplarsHeld(all[100-held:]...)
			}

			// A bound that is raised or lowered holds from the next one on.
			for i, limits := range []Options{{}, o} {
				r.SetLimits(limits)
				s := Series{Labels: named(fmt.Sprintf("a%02d", (10+i)%30))}
				x := exemplar(float64(i), 1, "trace_id", fmt.Sprint(100+i))
				answered(t, r.Send(wire.V2, withExemplars(t, wire.V2, []Exemplar{x}, s)), 204, "")
				if all = append(all, exemplarLine(s.Labels, x)); i == 0 {
					r.exemplarsHeld(all[100-held:]...)
				} else {
					r.exemplarsHeld(all[102-held:]...)
				}
			}
		})
	}
}

// Whatever is sent again, in whatever order and however often, is kept once,
// and what is kept in the end is what would be kept without that.
func TestExemplarsAreIdempotent(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		for _, o := range []Options{{}, {MaxExemplars: 25}, {MaxExemplarBytes: 12_000}} {
			rng := rand.New(rand.NewPCG(11, uint64(o.MaxExemplars)))
			var requests [][]byte
			for i := range 40 {
				var xs []Exemplar
				var series []Series
				for k := range 1 + rng.IntN(3) {
					// Two of one series in a request, with one time and value among them, and times that are ahead.
					xs = append(xs, exemplar(float64(i-35), float64(k%2), "trace_id", fmt.Sprint(i, k)))
					series = append(series, Series{Labels: named(fmt.Sprint("s", i%7)), Samples: []mcache.Sample{sample(float64(i-40), 1)}})
				}
				requests = append(requests, withExemplars(t, p, xs, series...))
			}
			once := newReceiver(t, o)
			for _, b := range requests {
				answered(t, once.Send(p, b), 204, "")
			}
			held := func(r receiver) (lines []string) {
				for _, s := range r.Exemplars("default", math.MinInt64, math.MaxInt64, func([]mcache.Label) bool { return true }) {
					for _, x := range s.Exemplars {
						lines = append(lines, exemplarLine(s.Labels, x))
					}
				}
				slices.Sort(lines)
				return lines
			}
			want := held(once)
			if bounded := o.MaxExemplars > 0 || o.MaxExemplarBytes > 0; bounded != (len(want) < 60) || len(want) < 10 {
				t.Fatalf("%+v: %d are kept", o, len(want))
			}
			for range 20 {
				r := newReceiver(t, o)
				// A sender that is refused repeats a request before it goes on to the next.
				for i, b := range requests {
					for range rng.IntN(20) + 1 {
						answered(t, r.Send(p, b), 204, "")
					}
					for range rng.IntN(3) { // another queue of it is late
						answered(t, r.Send(p, requests[rng.IntN(i+1)]), 204, "")
					}
				}
				// The last is all of them again.
				for _, i := range rng.Perm(len(requests)) {
					answered(t, r.Send(p, requests[i]), 204, "")
				}
				// Where two have the same time, chance says which makes way first.
				got := held(r)
				if !slices.Equal(times(got), times(want)) || len(slices.Compact(slices.Clone(got))) != len(got) ||
					o.MaxExemplars+o.MaxExemplarBytes == 0 && !slices.Equal(got, want) {
					t.Fatalf("%+v: %d are kept\n%s\nwant %d\n%s", o, len(got), strings.Join(got, "\n"), len(want), strings.Join(want, "\n"))
				}
			}
		}
	})
}

// times are those of lines of exemplars, sorted.
func times(lines []string) (all []string) {
	for _, l := range lines {
		all = append(all, regexp.MustCompile(`} (\d+):`).FindStringSubmatch(l)[1])
	}
	slices.Sort(all)
	return all
}

// What is read can be put back, as after a restart, and is there once.
func TestPutExemplars(t *testing.T) {
	r, other := newReceiver(t, Options{}), newReceiver(t, Options{})
	xs := []Exemplar{exemplar(1, 0.5, "trace_id", "abc"), exemplar(-1, 7)}
	answered(t, r.Send(wire.V2, withExemplars(t, wire.V2, xs, Series{Labels: named("a", "x", "1")}, Series{Labels: named("b")})), 204, "")
	for range 2 {
		for _, s := range r.Exemplars("default", math.MinInt64, math.MaxInt64, func([]mcache.Label) bool { return true }) {
			other.PutExemplars("default", s)
		}
	}
	other.exemplarsHeld(exemplarLine(named("a", "x", "1"), xs[0]), exemplarLine(named("b"), xs[1]))
}
