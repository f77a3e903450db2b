package wire

import "encoding/binary"

// Blocks is the Protocol of a part whose body is a request of protocol 2.0 the series of
// which may hold blocks, packed as the cache of its sender keeps them, in a field that the
// protocol does not have:
//
//	TagV2SeriesBlock │ length │ time of the first sample in ms (zigzag varint) │ block
//
// The blocks of a series ascend in time and do not overlap; package mcache/block says what
// is in one. They are handed over and written as if their samples stood there, and nobody
// forwards what is in such a part. Nobody but nodes gets one; one that takes them says so
// with each answer (HeaderBlocks).
const Blocks Protocol = 6

// HeaderBlocks of an answer to a bundle says that the node takes Blocks, in the form
// that is its value.
const (
	HeaderBlocks = "X-Mcached-Blocks"
	BlocksForm   = "1"
)

// TagV2SeriesBlock is a block of a series; in parts of protocol Blocks only.
const TagV2SeriesBlock = 15<<3 | TypeBytes

// AppendBlock appends a block with its field's head.
func AppendBlock(dst []byte, first int64, block []byte) []byte {
	dst = binary.AppendUvarint(append(dst, TagV2SeriesBlock), uint64(blockBytes(first, block)))
	return append(binary.AppendVarint(dst, first), block...)
}

// BlockBytes is what AppendBlock appends.
func BlockBytes(first int64, block []byte) int {
	n := blockBytes(first, block)
	return 1 + UvarintBytes(uint64(n)) + n
}

func blockBytes(first int64, block []byte) int {
	return UvarintBytes(uint64(first)<<1^uint64(first>>63)) + len(block)
}

// BlockIn is what a field of AppendBlock holds; block is a view, and nil if it is
// malformed.
func BlockIn(field []byte) (first int64, block []byte) {
	first, n := binary.Varint(field)
	if n <= 0 || n == len(field) {
		return 0, nil
	}
	return first, field[n:]
}
