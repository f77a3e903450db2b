package mcache

import (
	"encoding/binary"
	"hash/crc32"
	"math"
)

// A blob is what eviction took of one series, in one entry of shard.blobs:
//
//	CRC-32C of all behind it (4) | points (4) | time that none of them is after (8)
//	blocks:  count (uvarint), then of each
//	         start, as distance from that of the one before (varint) | length (uvarint) | bytes
//	records: count (uvarint), chunks in the same form
//
// Blocks and chunks of records are as they lie in the tables; what was in the
// head is a block, joined with the partial one. Start times are in a blob of
// the shadow's own.
const (
	blobHeader = 4 + 4 + 8
	// blobPartHeader bounds what a part takes beside its bytes.
	blobPartHeader = 2 * binary.MaxVarintLen64
	// blobFixed bounds what a blob takes beside its parts.
	blobFixed = blobHeader + 2*binary.MaxVarintLen32
)

// blob is a blob that was found sound. Its chunks are views.
type blob struct {
	points          int
	last            int64
	blocks, records blobChunks
}

// blobChunks is a list of chunks that has not been walked yet.
type blobChunks struct {
	n      int
	before int64 // start of the chunk before
	rest   []byte
}

// blobPoints is how many points the entry b says it has.
func blobPoints(b []byte) int { return int(le.Uint32(b[4:])) }

// blobLast is the time that no point of the entry b is after.
func blobLast(b []byte) int64 { return int64(le.Uint64(b[8:])) }

// openBlob reads b, whatever it is. It reports false unless it is a blob.
func openBlob(b []byte) (o blob, ok bool) {
	if len(b) < blobHeader || crc32.Checksum(b[4:], castagnoli) != le.Uint32(b) {
		return blob{}, false
	}
	o = blob{points: blobPoints(b), last: blobLast(b)}
	rest := b[blobHeader:]
	if o.blocks, rest, ok = openChunks(rest); !ok {
		return blob{}, false
	}
	if o.records, rest, ok = openChunks(rest); !ok || len(rest) > 0 {
		return blob{}, false
	}
	points := 0
	for l := o.blocks; l.n > 0; {
		_, c := l.next()
		if len(c) < 2 || blockLen(c) > blockMax {
			return blob{}, false
		}
		points += blockLen(c)
	}
	for l := o.records; l.n > 0; {
		start, c := l.next()
		if !checkChunk(c, start) {
			return blob{}, false
		}
		points += recordCount(c)
	}
	return o, points == o.points
}

// openChunks reads a list and returns what is behind it.
func openChunks(b []byte) (l blobChunks, rest []byte, ok bool) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)) {
		return l, nil, false
	}
	l = blobChunks{n: int(n), rest: b[k:]}
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

// next takes the first chunk off the list, which must have one.
func (l *blobChunks) next() (start int64, chunk []byte) {
	d, k := binary.Varint(l.rest)
	size, m := binary.Uvarint(l.rest[k:])
	chunk = l.rest[k+m : k+m+int(size)]
	l.rest = l.rest[k+m+int(size):]
	l.before += d
	l.n--
	return l.before, chunk
}

// first is the time of the first point.
func (o *blob) first() int64 {
	blocks, records := o.blocks, o.records
	switch {
	case records.n == 0:
		t, _ := blocks.next()
		return t
	case blocks.n == 0:
		t, _ := records.next()
		return t
	}
	b, _ := blocks.next()
	r, _ := records.next()
	return min(b, r)
}

// blobPart is one chunk that is to go into a blob.
type blobPart struct {
	start int64
	n     int    // points
	bytes []byte // nil while its samples are in shard.joined
}

// blobParts are the chunks of a series, in order.
type blobParts struct {
	blocks, records []blobPart
	encoded         []byte // what the bytes of some are views of
}

// blobBytes is the length of the blob of parts.
func (p *blobParts) blobBytes() int {
	n := blobHeader
	for _, list := range [...][]blobPart{p.blocks, p.records} {
		n += uvarintBytes(uint64(len(list)))
		before := int64(0)
		for _, x := range list {
			d := x.start - before
			n += uvarintBytes(uint64(d<<1)^uint64(d>>63)) + uvarintBytes(uint64(len(x.bytes))) + len(x.bytes)
			before = x.start
		}
	}
	return n
}

// appendBlob encodes the parts behind dst.
func (p *blobParts) appendBlob(dst []byte, last int64) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, blobHeader)...)
	points := 0
	for _, list := range [...][]blobPart{p.blocks, p.records} {
		dst = binary.AppendUvarint(dst, uint64(len(list)))
		before := int64(0)
		for _, x := range list {
			dst = binary.AppendVarint(dst, x.start-before)
			dst = binary.AppendUvarint(dst, uint64(len(x.bytes)))
			dst = append(dst, x.bytes...)
			before = x.start
			points += x.n
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

// fit drops the oldest chunks until a blob of the others has at most limit
// bytes. It returns how many points those were, and from when on none is missing.
func (p *blobParts) fit(limit int) (dropped int, from int64) {
	bytes := blobFixed
	for _, list := range [...][]blobPart{p.blocks, p.records} {
		for _, x := range list {
			bytes += blobPartHeader + len(x.bytes)
		}
	}
	from = math.MinInt64
	for bytes > limit {
		list := &p.blocks
		if len(p.blocks) == 0 || len(p.records) > 0 && p.records[0].start < p.blocks[0].start {
			list = &p.records
		}
		x := (*list)[0]
		*list = (*list)[1:]
		bytes -= blobPartHeader + len(x.bytes)
		dropped += x.n
		if len(*list) > 0 {
			from = max(from, (*list)[0].start)
		}
	}
	return dropped, from
}
