package remotewrite

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"mcached/remotewrite/wire"
)

// labelForms writes a label as protobuf allows it.
var labelForms = []func(name, value string) []byte{
	func(name, value string) []byte {
		return append(text(wire.TagLabelName, name), text(wire.TagLabelValue, value)...)
	},
	func(name, value string) []byte {
		return append(text(wire.TagLabelValue, value), text(wire.TagLabelName, name)...)
	},
	func(name, value string) []byte {
		return slices.Concat(text(wire.TagLabelName, name), text(wire.TagLabelValue, "2"), text(wire.TagLabelValue, value))
	},
	func(name, value string) []byte {
		return slices.Concat(text(wire.TagLabelName, name), text(wire.TagLabelValue, value), text(wire.TagLabelValue+8, "2"))
	},
	func(name, value string) []byte {
		return slices.Concat(text(wire.TagLabelName, name), []byte{wire.TagLabelValue, byte(len(value)) | 0x80, 0}, []byte(value))
	},
}

func text(tag byte, s string) []byte { return append(field(nil, tag, len(s)), s...) }

// The sum of a series' labels is the same whatever the two series before it are: one of
// its labels is here another, and takes all forms.
func TestLabelsLikeThoseBefore(t *testing.T) {
	r := newReceiver(t, Options{MaxLabels: 4})
	var bodies [][]byte
	series := func(labels ...[]byte) {
		var b []byte
		for _, l := range labels {
			b = append(field(b, wire.TagV1SeriesLabel, len(l)), l...)
		}
		bodies = append(bodies, append(b, wire.TagV1SeriesSample, 0))
	}
	usual := labelForms[0]
	for _, form := range labelForms {
		for _, name := range []string{"a1", "a2", "b"} {
			for _, value := range []string{"", "1", "2", "12"} {
				series(usual("n", "x"), form(name, value), usual("z", "9"))
			}
		}
	}
	for _, tail := range []string{"8", "9"} {
		series(usual("n", "x"), usual("a1", "1"), usual("z", tail), usual("z1", "1"))
		series(usual("n", "x"), usual("a1", "1"), usual("z", tail))
		series(usual("n", "x"), usual("a1", "1"), usual("z", tail), usual("z1", "1"), usual("z2", "1"))
	}
	last := bodies[0]
	for _, cut := range []int{1, 3, len(last) - 9} { // one that breaks off, one with fewer labels
		bodies = append(bodies, last[:cut:cut])
	}
	sums(t, r, bodies, func(in *intake, b []byte) (string, bool) {
		behind, f, suspect, err := in.labelsLikeBefore(b, 0)
		return fmt.Sprint(behind, f, suspect, err), err == nil
	})
}

// The same of references.
func TestReferencesLikeThoseBefore(t *testing.T) {
	r := newReceiver(t, Options{MaxLabels: 4})
	number := func(v uint64) []byte { return binary.AppendUvarint(nil, v) }
	refs := [][]byte{number(0), number(1), number(2), number(3), number(4), number(6), number(99), number(1<<32 + 3), {0x83, 0}, {0x84, 0}, {4, 4}, {0x84}}
	var bodies [][]byte
	for _, name := range refs {
		for _, value := range refs {
			bodies = append(bodies, slices.Concat([]byte{1, 3}, name, value, []byte{5, 3}), slices.Concat([]byte{1, 3}, name, value))
		}
	}
	last := bodies[0]
	bodies = append(bodies, nil, last[:1], last[:2], last[:3], slices.Concat(last, last))
	sums(t, r, bodies, func(in *intake, b []byte) (string, bool) {
		for _, s := range []string{"", "n", "a", "x", "y", "z"} {
			in.syms = append(in.syms, symbol{raw: []byte(s)})
		}
		in.syms = append(in.syms, symbol{}) // an empty value
		f, suspect, err := in.refsLikeBefore(b)
		in.syms = in.syms[:0]
		return fmt.Sprint(f, suspect, err), err == nil
	})
}

// sums holds what sum says of each of the bodies, behind any other and that behind some
// others, to what it says of the first of a request. What breaks off ends a request.
func sums(t *testing.T, r receiver, bodies [][]byte, sum func(in *intake, b []byte) (says string, ok bool)) {
	t.Helper()
	in := r.intake()
	in.reset(wire.V1, "default", nil)
	want := make([]string, len(bodies))
	good := make([]bool, len(bodies))
	for i, b := range bodies {
		in.reset(wire.V1, "default", nil)
		want[i], good[i] = sum(in, b)
	}
	alike, tried := 0, 0
	for i := 0; i < len(bodies); i += len(bodies)/11 + 1 {
		first := bodies[i]
		for j, second := range bodies {
			for k, third := range bodies {
				in.reset(wire.V1, "default", nil)
				if !good[i] || !good[j] {
					continue
				}
				sum(in, first)
				sum(in, second)
				if tried++; want[j] == want[k] {
					alike++
				}
				if got, _ := sum(in, third); got != want[k] {
					t.Fatalf("%x behind %x and %x: %s, want %s", third, second, first, got, want[k])
				}
			}
		}
	}
	if tried < 10_000 || alike < 100 {
		t.Errorf("%d tried, %d alike", tried, alike)
	}
}
