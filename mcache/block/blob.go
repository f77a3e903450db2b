package block

import (
	"encoding/binary"
	"hash/crc32"
	"math"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	blobHeader = 4 + 4 + 8
	// blobPartHeader bounds what a part takes beside its bytes.
	blobPartHeader = 2 * binary.MaxVarintLen64
	// blobFixed bounds what a blob takes beside its parts.
	blobFixed = blobHeader + 2*binary.MaxVarintLen32
)

// Blob is a blob that was found sound. Its chunks are views.
type Blob struct {
	Points          int
	Last            int64 // no point is after this time
	Blocks, Records Chunks
}

// Chunks is a list of chunks that has not been walked yet.
type Chunks struct {
	n      int
	before int64 // start of the chunk before
	rest   []byte
}

// BlobPoints is how many points the entry b says it has.
func BlobPoints(b []byte) int { return int(le.Uint32(b[4:])) }

// BlobLast is the time that no point of the entry b is after.
func BlobLast(b []byte) int64 { return int64(le.Uint64(b[8:])) }

// OpenBlob reads b, whatever it is. It reports false unless it is a blob.
func OpenBlob(b []byte) (o Blob, ok bool) {
	if len(b) < blobHeader || crc32.Checksum(b[4:], castagnoli) != le.Uint32(b) {
		return Blob{}, false
	}
	o = Blob{Points: BlobPoints(b), Last: BlobLast(b)}
	rest := b[blobHeader:]
	if o.Blocks, rest, ok = openChunks(rest); !ok {
		return Blob{}, false
	}
	if o.Records, rest, ok = openChunks(rest); !ok || len(rest) > 0 {
		return Blob{}, false
	}
	points := 0
	for l := o.Blocks; l.n > 0; {
		_, c := l.Next()
		if len(c) < 2 || Len(c) > MaxSamples {
			return Blob{}, false
		}
		points += Len(c)
	}
	for l := o.Records; l.n > 0; {
		start, c := l.Next()
		if !CheckChunk(c, start) {
			return Blob{}, false
		}
		points += RecordCount(c)
	}
	return o, points == o.Points
}

// openChunks reads a list and returns what is behind it.
func openChunks(b []byte) (l Chunks, rest []byte, ok bool) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)) {
		return l, nil, false
	}
	l = Chunks{n: int(n), rest: b[k:]}
	rest = b[k:]
	for range l.n {
		_, k := binary.Varint(rest)
		if k <= 0 {
			return l, nil, false
		}
		size, m := binary.Uvarint(rest[k:])
		if m <= 0 || size > uint64(len(rest)-k-m) {
			return l, nil, false
		}
		rest = rest[k+m+int(size):]
	}
	return l, rest, true
}

// Len is how many chunks are left.
func (l *Chunks) Len() int { return l.n }

// Next takes the first chunk off the list, which must have one.
func (l *Chunks) Next() (start int64, chunk []byte) {
	d, k := binary.Varint(l.rest)
	size, m := binary.Uvarint(l.rest[k:])
	chunk = l.rest[k+m : k+m+int(size)]
	l.rest = l.rest[k+m+int(size):]
	l.before += d
	l.n--
	return l.before, chunk
}

// First is the time of the first point.
func (o *Blob) First() int64 {
	blocks, records := o.Blocks, o.Records
	switch {
	case records.n == 0:
		t, _ := blocks.Next()
		return t
	case blocks.n == 0:
		t, _ := records.Next()
		return t
	}
	b, _ := blocks.Next()
	r, _ := records.Next()
	return min(b, r)
}

// Part is one chunk that is to go into a blob.
type Part struct {
	Start int64 // time of its first point
	N     int   // points
	Bytes []byte
}

// Parts are the chunks of a series, in order.
type Parts struct {
	Blocks, Records []Part
}

// Bytes is the length of the blob of parts.
func (p *Parts) Bytes() int {
	n := blobHeader
	for _, list := range [...][]Part{p.Blocks, p.Records} {
		n += uvarintBytes(uint64(len(list)))
		before := int64(0)
		for _, x := range list {
			d := x.Start - before
			n += uvarintBytes(uint64(d<<1)^uint64(d>>63)) + uvarintBytes(uint64(len(x.Bytes))) + len(x.Bytes)
			before = x.Start
		}
	}
	return n
}

// Append encodes the parts behind dst.
func (p *Parts) Append(dst []byte, last int64) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, blobHeader)...)
	points := 0
	for _, list := range [...][]Part{p.Blocks, p.Records} {
		dst = binary.AppendUvarint(dst, uint64(len(list)))
		before := int64(0)
		for _, x := range list {
			dst = binary.AppendVarint(dst, x.Start-before)
			dst = binary.AppendUvarint(dst, uint64(len(x.Bytes)))
			dst = append(dst, x.Bytes...)
			before = x.Start
			points += x.N
		}
	}
	b := dst[at:]
	le.PutUint32(b[4:], uint32(points))
	le.PutUint64(b[8:], uint64(last))
	le.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return dst
}

func uvarintBytes(v uint64) (n int) {
	for n = 1; v >= 0x80; n++ {
		v >>= 7
	}
	return n
}

// Fit drops the oldest chunks until a blob of the others has at most limit
// bytes. It returns how many points those were, and from when on none is missing.
func (p *Parts) Fit(limit int) (dropped int, from int64) {
	bytes := blobFixed
	for _, list := range [...][]Part{p.Blocks, p.Records} {
		for _, x := range list {
			bytes += blobPartHeader + len(x.Bytes)
		}
	}
	from = math.MinInt64
	for bytes > limit {
		list := &p.Blocks
		if len(p.Blocks) == 0 || len(p.Records) > 0 && p.Records[0].Start < p.Blocks[0].Start {
			list = &p.Records
		}
		x := (*list)[0]
		*list = (*list)[1:]
		bytes -= blobPartHeader + len(x.Bytes)
		dropped += x.N
		if len(*list) > 0 {
			from = max(from, (*list)[0].Start)
		}
	}
	return dropped, from
}
