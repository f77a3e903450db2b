package wire

import (
	"encoding/binary"
	"fmt"
)

// PackedV1 is the Protocol of a part whose body is a request of protocol 1.0 in
// which a series is told by what is other than in the one before:
//
//	body     bytes of the request (4, little-endian) ┃ record ┃ …
//	record   0 │ length │ a field of the request as it is
//	         1 + n │ n × (place │ label) │ length │ what the series holds behind its labels
//
// A label is a field of the series with its tag and length. It takes the place
// of the one there, counted from 0, in the series of the record before; the
// places of a record ascend. Two thirds of a request are labels that are those
// of the series before, and nodes hash, copy and carry a quarter of its bytes.
// What comes out is byte by byte the request that went in.
//
// A node that takes such parts says so with each answer (HeaderPacked); those
// before it did not.
const PackedV1 Protocol = 4

// HeaderPacked of an answer to a bundle says that the node takes PackedV1.
const HeaderPacked = "X-Mcached-Packed"

const (
	// PackedHeadBytes is what stands before the first record.
	PackedHeadBytes = 4
	// MaxPackedLabels of a series that a record may refer to.
	MaxPackedLabels = 127
	// MaxPackedChanges of a record.
	MaxPackedChanges = 8
)

// SeriesHeadBytes is what a message of n bytes has before it in a request, if it
// is written as short as it can be.
func SeriesHeadBytes(n int) int { return 1 + UvarintBytes(uint64(n)) }

// UnpackedBytes is the size that a packed body says its request has.
func UnpackedBytes(b []byte) (int, error) {
	if len(b) < PackedHeadBytes {
		return 0, fmt.Errorf("%w: a packed part of %d bytes", ErrBundle, len(b))
	}
	return int(binary.LittleEndian.Uint32(b)), nil
}

// Unpack appends the request that a packed body holds to dst, which is empty and
// has room for UnpackedBytes: it is no error of the caller's if that is more
// than it wants to give, so it looks before.
func Unpack(dst, b []byte) ([]byte, error) {
	size, err := UnpackedBytes(b)
	if err != nil {
		return dst, err
	}
	u := unpacker{dst: dst, size: size, labels: -1}
	for i := PackedHeadBytes; i < len(b); {
		at := i
		if b[i] == 0 {
			i = u.field(b, i+1)
		} else {
			i = u.series(b, i+1, int(b[i])-1)
		}
		if i < 0 {
			return dst, fmt.Errorf("%w: record of a packed part at byte %d", ErrBundle, at)
		}
	}
	if len(u.dst) != size {
		return dst, fmt.Errorf("%w: a packed part is %d bytes, not the %d that it announces", ErrBundle, len(u.dst), size)
	}
	return u.dst, nil
}

// unpacker writes a request.
type unpacker struct {
	dst  []byte
	size int
	// The series before: where its labels begin in dst, and where each of them
	// ends from there. There is none if labels is negative.
	start  int
	labels int
	ends   [MaxPackedLabels]uint32
}

// field copies the field at b[i:] and returns the index behind it, or -1.
func (u *unpacker) field(b []byte, i int) int {
	from, to := Bytes(b, i)
	if from < 0 || len(u.dst)+to-from > u.size {
		return -1
	}
	u.labels = -1
	if f := b[from:to]; len(f) > 0 && f[0] == TagV1Series {
		if at, end := Bytes(f, 1); end == len(f) {
			u.start = len(u.dst) + at
			u.labels = u.split(f[at:])
		}
	}
	u.dst = append(u.dst, b[from:to]...)
	return to
}

// split notes where the labels end that a series begins with, and returns their
// number, or -1.
func (u *unpacker) split(series []byte) (n int) {
	for i := 0; i < len(series) && series[i] == TagV1SeriesLabel; n++ {
		_, end := Bytes(series, i+1)
		if end < 0 || n == MaxPackedLabels {
			return -1
		}
		u.ends[n] = uint32(end)
		i = end
	}
	return n
}

// series writes the one before with other labels in places and another rest,
// and returns the index behind the record, or -1.
func (u *unpacker) series(b []byte, i, changes int) int {
	if u.labels < 0 || changes > MaxPackedChanges {
		return -1
	}
	var places, from, to [MaxPackedChanges]int
	old := 0 // bytes of all labels
	if u.labels > 0 {
		old = int(u.ends[u.labels-1])
	}
	size, least := old, 0
	for k := range changes {
		if i+1 >= len(b) || int(b[i]) < least || int(b[i]) >= u.labels || b[i+1] != TagV1SeriesLabel {
			return -1
		}
		_, end := Bytes(b, i+2)
		if end < 0 {
			return -1
		}
		places[k], from[k], to[k] = int(b[i]), i+1, end
		size += end - (i + 1) - u.bytesOf(places[k])
		least, i = places[k]+1, end
	}
	at, behind := Bytes(b, i)
	if at < 0 || len(u.dst)+SeriesHeadBytes(size+behind-at)+size+behind-at > u.size {
		return -1
	}
	before := u.dst[u.start : u.start+old]
	u.dst = binary.AppendUvarint(append(u.dst, TagV1Series), uint64(size+behind-at))
	u.start = len(u.dst)
	passed := 0 // of before
	for k := range changes {
		place := places[k]
		end := int(u.ends[place]) - (len(u.dst) - u.start - passed) // in before
		u.dst = append(u.dst, before[passed:end-u.bytesOf(place)]...)
		passed = end
		u.dst = append(u.dst, b[from[k]:to[k]]...)
		if d := uint32(len(u.dst)-u.start) - u.ends[place]; d != 0 {
			for j := range u.ends[place:u.labels] {
				u.ends[place+j] += d
			}
		}
	}
	u.dst = append(append(u.dst, before[passed:]...), b[at:behind]...)
	return behind
}

// bytesOf is how long a label of the series before is.
func (u *unpacker) bytesOf(place int) int {
	if place == 0 {
		return int(u.ends[0])
	}
	return int(u.ends[place] - u.ends[place-1])
}
