package wire

import (
	"encoding/binary"
	"errors"
	"testing"
)

// field is a field of protobuf with a short value.
func field(tag byte, value string) string {
	return string([]byte{tag, byte(len(value))}) + value
}

func pairField(name, value string) string {
	return field(TagV1SeriesLabel, field(TagLabelName, name)+field(TagLabelValue, value))
}

// goldenPacked is a request of four series and the metadata of a metric, and what it is packed.
func goldenPacked() (plain, packed string) {
	a, b, c, longB := pairField("a", "1"), pairField("b", "2"), pairField("c", "3"), pairField("b", "two hundred")
	rest := field(TagV1SeriesSample, "some sample")
	meta := field(TagV1Metadata, "of a metric")
	first := field(TagV1Series, a+b+c+rest)
	plain = first + field(TagV1Series, a+longB+c+rest) + field(TagV1Series, b+longB+a) + meta + field(TagV1Series, "")
	packed = string(binary.LittleEndian.AppendUint32(nil, uint32(len(plain)))) +
		"\x00" + string(rune(len(first))) + first +
		"\x02\x01" + longB + "\x0d" + rest +
		"\x03\x00" + b + "\x02" + a + "\x00" +
		"\x00\x0d" + meta +
		"\x00\x02" + field(TagV1Series, "")
	return plain, packed
}

// The bytes are those that members of other releases send.
func TestPackedBytes(t *testing.T) {
	plain, packed := goldenPacked()
	got, err := Unpack(nil, []byte(packed))
	if err != nil || string(got) != plain {
		t.Errorf("%q, %v, want\n%q", got, err, plain)
	}
	for n := range packed {
		if _, err := Unpack(nil, []byte(packed[:n])); !errors.Is(err, ErrBundle) {
			t.Errorf("%d bytes of it: %v", n, err)
		}
	}
	head := packed[:PackedHeadBytes]
	first := packed[:PackedHeadBytes+2+int(packed[PackedHeadBytes+1])]
	for what, bad := range map[string]string{
		"nothing before it":   head + "\x01\x00",
		"a place beyond":      first + "\x02\x03" + pairField("d", "4") + "\x00",
		"places descend":      first + "\x03\x01" + pairField("d", "4") + "\x00" + pairField("d", "4") + "\x00",
		"a place twice":       first + "\x03\x01" + pairField("d", "4") + "\x01" + pairField("d", "4") + "\x00",
		"no label":            first + "\x02\x01" + field(TagV1SeriesSample, "x") + "\x00",
		"too many changes":    first + "\x7f",
		"more than announced": packed + "\x00\x02" + field(TagV1Series, ""),
		"less than announced": first,
	} {
		if _, err := Unpack(nil, []byte(bad)); !errors.Is(err, ErrBundle) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// FuzzUnpack: whatever comes, what is made of it is as long as was announced, or
// not longer than that if it is wrong.
func FuzzUnpack(f *testing.F) {
	_, packed := goldenPacked()
	f.Add([]byte(packed))
	f.Fuzz(func(t *testing.T, b []byte) {
		const most = 1 << 16
		n, err := UnpackedBytes(b)
		if err != nil || n > most {
			return
		}
		got, err := Unpack(make([]byte, 0, n), b)
		if err == nil && len(got) != n || cap(got) > n {
			t.Fatalf("%d bytes, %v, of %d announced", len(got), err, n)
		}
	})
}
