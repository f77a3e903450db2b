package block

import "encoding/binary"

// le is the byte order of numbers of a fixed size.
var le = binary.LittleEndian

const recordHeader = 2 + 4

// Record is one point whose value is bytes. Of those that AppendRecords returns
// it is a view.
type Record struct {
	T     int64 // ms
	Value []byte
}

// RecordCount is the number of records of a sound chunk.
func RecordCount(b []byte) int { return int(le.Uint16(b)) }

// RecordBytes is how many bytes of a sound chunk are in use.
func RecordBytes(b []byte) int { return int(le.Uint32(b[2:])) }

// AppendRecord encodes one record behind the time before it.
func AppendRecord(dst []byte, before int64, x Record) []byte {
	dst = binary.AppendUvarint(dst, uint64(x.T-before))
	dst = binary.AppendUvarint(dst, uint64(len(x.Value)))
	return append(dst, x.Value...)
}

// AppendChunk encodes a chunk of records, at least one, in order of time.
func AppendChunk(dst []byte, rs []Record) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, recordHeader)...)
	before := rs[0].T
	for _, x := range rs {
		dst = AppendRecord(dst, before, x)
		before = x.T
	}
	SetChunk(dst[at:], len(rs), len(dst)-at)
	return dst
}

// SetChunk writes the head of a chunk: how many records it has, and how many
// bytes are in use.
func SetChunk(b []byte, records, bytes int) {
	le.PutUint16(b, uint16(records))
	le.PutUint32(b[2:], uint32(bytes))
}

// AppendRecords appends the records of a chunk that begins at start to dst.
// Their values are views of b.
func AppendRecords(dst []Record, b []byte, start int64) []Record {
	t := start
	rest := b[recordHeader:RecordBytes(b)]
	for range RecordCount(b) {
		d, n := binary.Uvarint(rest)
		size, m := binary.Uvarint(rest[n:])
		rest = rest[n+m:]
		t += int64(d)
		dst = append(dst, Record{t, rest[:size:size]})
		rest = rest[size:]
	}
	return dst
}

// CheckChunk reports whether b is a chunk of records as AppendChunk makes it,
// of which the first is at start.
func CheckChunk(b []byte, start int64) bool {
	if len(b) < recordHeader || RecordBytes(b) != len(b) || RecordCount(b) == 0 {
		return false
	}
	rest := b[recordHeader:]
	for i := range RecordCount(b) {
		d, n := binary.Uvarint(rest)
		if n <= 0 || (d == 0) != (i == 0) || start < -MaxTime || start > MaxTime || d > uint64(MaxTime-start) {
			return false
		}
		start += int64(d)
		size, m := binary.Uvarint(rest[n:])
		if m <= 0 || size > uint64(len(rest)-n-m) {
			return false
		}
		rest = rest[n+m+int(size):]
	}
	return len(rest) == 0
}
