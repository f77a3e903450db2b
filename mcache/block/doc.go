// Package block is the sealed form of points: how samples, records and whole
// series lie in memory, in blobs and in snapshots, byte by byte. It knows
// nothing of caches and imports the standard library only.
//
// What is written here is in files of users. A change that a reader of before
// does not understand needs a new version of the file format around it (see
// mcache's Save), and testdata/golden, which holds one example of each form,
// says when that is so.
//
// # Terms
//
//	sample    a time in ms and a 64-bit value of which every pattern is legal
//	record    a time in ms and a value of bytes, such as a native histogram
//	block     up to 128 samples of one series, encoded
//	section   one of the blocks in a block that is not full yet
//	open      of a block: not encoded, and with room for more samples
//	chunk     records of one series, in order of time
//	blob      blocks and chunks of one series, in one piece, with a checksum
//	grid      times at a fixed distance, the step
//	residual  by how much a time is off its grid
//	exception a number that takes more bits than the others have
//	foreign   a value that is no decimal with the block's exponent
//
// Numbers of a fixed size are little-endian. uvarint and varint are those of
// encoding/binary: 7 bits a byte, the lowest first; varint is zigzag. Counts
// are in parentheses: (2) is two bytes.
//
// # Block
//
//	byte 0     number of samples − 1: 0 to 127
//	byte 1     bits 0–1 time mode, 2–3 value mode, 4–7 decimal exponent
//	times      for one sample nothing, else the step in ms (uvarint); in the
//	           modes 1 and 2 the residuals (ints) of all samples
//	values     as the value mode says
//
// The time of the first sample is not in a block. It is kept beside it: in a
// directory, in a section, in a blob.
//
//	time mode  0  grid          start + i·step
//	           1  grid off      start + i·step + residual
//	           2  delta         time before + step + residual; that of the first is 0
//	           3  sections      see below
//
//	value mode 0  raw           least bit pattern (8), ints of pattern − least, whose
//	                            base is 0
//	           1  frame         head, ints of the integers
//	           2  delta         head, the first integer (varint), ints of the
//	                            distances; that of the first is not used
//
//	head       (1): bits 0–5 shift, bit 6: foreign values follow, bit 7 is 0
//	foreign    behind the ints: count (1), then for each: place (1), bits (8)
//
// A value is (integer << shift) / 10^exponent, divided as floats are, with an
// exponent of 0 to 10. Integer << shift is less than 2^53. The encoder
// tries that on every value and keeps it only where it gives back the very
// bits, so a block is bit-exact for every input. Where more than an eighth of
// the values are foreign, the block is raw, with exponent 0.
//
// # Ints
//
//	width (1): 0 to 64 | exceptions (1) | base (varint) |
//	packed: n·width bits, the lowest first, in ⌈n·width/8⌉ bytes |
//	for each exception: place (1), offset (uvarint)
//
// They are n integers, each base + its offset, modulo 2^64. Offsets that do not
// fit the width are packed with their low bits and given again as exceptions.
//
// # Sections
//
// A block that is not full may be a list of up to four blocks, so that adding to
// it copies what is there and decodes nothing:
//
//	byte 0     number of samples of all − 1
//	byte 1     bits 0–1 time mode 3, bits 2–7 number of sections
//	section    length of what follows (2) | time of its first sample less that
//	           of the block (uvarint) | a block, which has no sections
//
// # Open blocks
//
// Where samples come in no order, a block may be open: times and values are
// words, and more of them are put in where it lies. It uses no other modes than
// those above: time mode 1 with a step of 0, value mode 0, ints of 64 bits. So
// a decoder need not know of it (open.go).
//
// # Chunk of records
//
//	records (2) | bytes in use (4), with these six | records
//	record     time less that of the record before (uvarint), 0 for the first |
//	           length (uvarint) | value
//
// Behind the bytes in use there may be room for more. The time of the first
// record is kept beside the chunk.
//
// # Blob
//
//	CRC-32C of all that follows (4) | points (4) | time that none is after (8)
//	blocks     count (uvarint), then for each: start less that of the block
//	           before (varint), the first less 0 | length (uvarint) | block
//	records    the same, of chunks
//
// # Limits
//
// A block has at most MaxSamples samples and MaxBytes bytes. A chunk has at most
// 65,535 records in 4 GiB, a blob 2^32 − 1 points; mcache stays far below. Times
// lie in ±MaxTime.
//
// # Reading what others wrote
//
// Decode, Inspect, CheckChunk and OpenBlob take any bytes: they return an error
// or false, and never panic nor allocate by what a number says. A checksum
// tells of accidents only. All others want what these have found sound.
//
// # Cost
//
// On the mix of package mix, 40 counters, 40 gauges and 20 constants in 100
// series: 0.79 bytes a sample (-bench Codec). Codec keeps its scratch space, 3
// KiB; nothing else is allocated but where dst has to grow.
package block
