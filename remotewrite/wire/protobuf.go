package wire

import (
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// Wire types of protobuf.
const (
	TypeVarint     = 0
	TypeFixed64    = 1
	TypeBytes      = 2
	TypeGroupStart = 3
	TypeGroupEnd   = 4
	TypeFixed32    = 5

	// maxVarintBytes of a 64-bit number. What the tenth byte holds beyond bit
	// 63 is cut off, as every Go decoder of protobuf does.
	maxVarintBytes = 10
)

// Uvarint reads a number at b[i:] and returns the index behind it, or -1 when
// the input ends too early or the number has more than maxVarintBytes bytes.
func Uvarint(b []byte, i int) (uint64, int) {
	if uint(i) < uint(len(b)) && b[i] < 0x80 {
		return uint64(b[i]), i + 1
	}
	return uvarintLong(b, i)
}

func uvarintLong(b []byte, i int) (uint64, int) {
	var v uint64
	for shift := 0; shift < maxVarintBytes*7; shift += 7 {
		if i >= len(b) {
			return 0, -1
		}
		c := b[i]
		i++
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return v, i
		}
	}
	return 0, -1
}

// UvarintBytes is how many bytes a number has if it is written as short as it can be.
func UvarintBytes(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// Bytes reads a length at b[i:] and returns where the bytes it announces begin
// and end; from is -1 if they do not fit b.
func Bytes(b []byte, i int) (from, to int) {
	if i+1 < len(b) { // a length of one byte or two, as nearly all are
		n, from := int(b[i]), i+1
		if n >= 0x80 {
			n, from = n&0x7f|int(b[i+1])<<7, i+2
		}
		if n < 0x80<<7 {
			if to := from + n; to <= len(b) {
				return from, to
			}
			return -1, -1
		}
	}
	n, i := Uvarint(b, i)
	if i < 0 || n > uint64(len(b)-i) {
		return -1, -1
	}
	return i, i + int(n)
}

// ShortBytes reads a field with the tag, which is below 0x80, at b[i:], if it is there and
// has less than 0x80 bytes, and returns where these begin and end; else from is 0.
func ShortBytes(b []byte, i int, tag byte) (from, to int) {
	if i+2 > len(b) || b[i] != tag || b[i+1] >= 0x80 {
		return 0, 0
	}
	if to = i + 2 + int(b[i+1]); to > len(b) {
		return 0, 0
	}
	return i + 2, to
}

// Tag reads a field's number and wire type. A tag is a small number in
// practice, so callers switch on its value; one that was written with more
// bytes than it needs comes out the same. The index is -1 for what no
// message can hold: field 0, or a group that ends without having begun.
func Tag(b []byte, i int) (uint64, int) {
	t, i := Uvarint(b, i)
	if t < 0x80 && t > 7 && t&7 != TypeGroupEnd {
		return t, i
	}
	// The number of a field is an int32; other decoders cut it to that.
	field := int32(t >> 3)
	if i < 0 || field <= 0 || t&7 == TypeGroupEnd {
		return 0, -1
	}
	return uint64(field)<<3 | t&7, i
}

// Skip returns the index behind the value of a field with tag t, which begins
// at b[i:], or -1. Groups are skipped with all they hold, by counting instead
// of recursion: their depth is the sender's choice.
func Skip(b []byte, t uint64, i int) int {
	depth := 0
	for {
		switch t & 7 {
		case TypeVarint:
			_, i = Uvarint(b, i)
		case TypeFixed64:
			i += 8
		case TypeBytes:
			_, i = Bytes(b, i)
		case TypeGroupStart:
			depth++
		case TypeGroupEnd:
			depth--
		case TypeFixed32:
			i += 4
		default:
			return -1
		}
		if i < 0 || i > len(b) || depth < 0 {
			return -1
		}
		if depth == 0 {
			return i
		}
		if t, i = Uvarint(b, i); i < 0 {
			return -1
		}
	}
}

// SkipUnknown skips a field that this package has no use for. A field it does
// know must not come here with another wire type than its own: known is the
// highest field number of the message in hand.
func SkipUnknown(b []byte, t uint64, i int, known uint64) int {
	if t>>3 <= known {
		return -1
	}
	return Skip(b, t, i)
}

// SkipReserved skips an unknown field; a known one has come with a wrong wire
// type, unless it is the reserved number.
func SkipReserved(b []byte, t uint64, i int, known, reserved uint64) int {
	if t>>3 == reserved {
		return Skip(b, t, i)
	}
	return SkipUnknown(b, t, i, known)
}

// Fixed64 reads eight bytes at b[i:] and returns the index behind them, or -1.
func Fixed64(b []byte, i int) (uint64, int) {
	if len(b)-i < 8 {
		return 0, -1
	}
	return binary.LittleEndian.Uint64(b[i:]), i + 8
}

// View is b as a string, without a copy. It is valid as long as b is neither
// changed nor used again: it is for calls that keep nothing.
func View(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
