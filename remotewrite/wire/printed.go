package wire

import (
	"encoding/binary"
	"slices"
)

// Print is a keyed 128-bit hash of the labels of a series and its bucket, which is the
// same at all nodes of a cluster. Nobody who has not the cluster's key can find two
// series with one print. The zero value is none.
type Print struct{ A, B uint64 }

// Named is a series of a request that its receiver may find by its print.
type Named struct {
	Print Print // zero: there is none, and nothing is to be learned
	// Rest is where what is behind the labels begins in the request, and End where the
	// samples end, behind which nothing is news. Zero: the print is to be learned only.
	Rest, End uint32
}

// Printed is the Protocol of a part whose series are named by their prints: nodes have
// learned which series those are from parts with labels (Part.Prints).
//
//	body     record ┃ …
//	record   print (16, little-endian) │ length │ samples
//
// The samples are fields of a series of either protocol, in which they are the same,
// as they came. A node that does not know a print, or finds anything unusual in a
// record, writes nothing of it and says so (Answer.Unknown): then the series is sent
// with its labels.
const Printed Protocol = 5

// HeaderPrints of an answer to a bundle says that the node takes Printed, and by which
// key its prints are made: a value that is the same for the same key.
const HeaderPrints = "X-Mcached-Prints"

// PrintBytes is what a Print takes in a bundle.
const PrintBytes = 16

// AppendPrint appends a print.
func AppendPrint(dst []byte, p Print) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(dst, p.A), p.B)
}

// PrintAt is the print at place n of prints that follow one another, the zero one behind
// the last.
func PrintAt(b []byte, n int) Print {
	if n >= len(b)/PrintBytes {
		return Print{}
	}
	b = b[n*PrintBytes:]
	return Print{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])}
}

// AppendPrinted appends a record.
func AppendPrinted(dst []byte, p Print, samples []byte) []byte {
	dst = slices.Grow(dst, PrintBytes+1+len(samples))
	return append(binary.AppendUvarint(AppendPrint(dst, p), uint64(len(samples))), samples...)
}

// AppendAllPrinted appends the records of series of a request, which is body: of each what
// lies from Rest to End.
func AppendAllPrinted(dst, body []byte, series []Named) []byte {
	const room = 32 // a sample is shorter: nearly all are copied by what fits a few registers
	const record = PrintBytes + 1 + room
	le := binary.LittleEndian
	for i := range series {
		x := &series[i]
		n, size := len(dst), int(x.End-x.Rest)
		if size > room || int(x.Rest)+room > len(body) || cap(dst)-n < record {
			dst = AppendPrinted(dst, x.Print, body[x.Rest:x.End])
			continue
		}
		from, to := (*[room]byte)(body[x.Rest:]), (*[record]byte)(dst[n:n+record])
		le.PutUint64(to[:], x.Print.A)
		le.PutUint64(to[8:], x.Print.B)
		to[PrintBytes] = byte(size)
		le.PutUint64(to[PrintBytes+1:], le.Uint64(from[:]))
		le.PutUint64(to[PrintBytes+9:], le.Uint64(from[8:]))
		le.PutUint64(to[PrintBytes+17:], le.Uint64(from[16:]))
		le.PutUint64(to[PrintBytes+25:], le.Uint64(from[24:]))
		dst = dst[:n+PrintBytes+1+size]
	}
	return dst
}

// PrintedAt reads the record at b[i:]: its samples lie at b[from:to], where the next one
// begins. From is -1 if it is malformed.
func PrintedAt(b []byte, i int) (p Print, from, to int) {
	if len(b)-i < PrintBytes {
		return p, -1, -1
	}
	p = PrintAt(b[i:], 0)
	from, to = Bytes(b, i+PrintBytes)
	return p, from, to
}
