package remotewrite

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/golang/snappy"
	"github.com/klauspost/compress/s2"

	"mcached/remotewrite/wire"
)

// smallPiece makes windows of which even small requests are many.
const smallPiece = 128

// inPieces compresses as compressors do, but in blocks of smallPiece.
func inPieces(plain []byte) []byte {
	packed := binary.AppendUvarint(nil, uint64(len(plain)))
	for part := range slices.Chunk(plain, smallPiece) {
		block := snappy.Encode(nil, part)
		_, n := binary.Uvarint(block)
		packed = append(packed, block[n:]...)
	}
	return packed
}

// piecewise decompresses src in a window that begins with keep bytes of the piece before.
func piecewise(src []byte, piece, keep int) (plain []byte, ok bool) {
	u := unsnappy{piece: piece}
	u.begin(src)
	for !u.whole() {
		if !u.more(max(u.d-keep, 0)) {
			return plain, false
		}
		plain = append(plain[:u.base], u.window[:u.d]...)
	}
	return plain, true
}

// What the compressors of senders make is what it was, whatever is compressed.
func TestUnsnappy(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	bodies := [][]byte{{}, {1}, benchRequest(t, wire.V1, 0), benchRequest(t, wire.V2, 0)}
	for i := range 60 {
		b := make([]byte, rng.IntN(300_000))
		for at := 0; at < len(b); { // bytes by chance, and copies from all distances
			n := min(1+rng.IntN(200), len(b)-at)
			if at > 0 && rng.IntN(1+i%4) == 0 {
				from := at - 1 - rng.IntN(min(at, 1<<rng.IntN(18)))
				for k := range n {
					b[at+k] = b[from+k]
				}
			} else {
				for k := range n {
					b[at+k] = byte(rng.Uint32())
				}
			}
			at += n
		}
		bodies = append(bodies, b)
	}
	others := 0
	for i, plain := range bodies {
		for _, keep := range []int{0, 1, 5000, pieceBytes} {
			if got, ok := piecewise(snappy.Encode(nil, plain), pieceBytes, keep); !ok || !bytes.Equal(got, plain) {
				t.Errorf("body %d of %d bytes, keeping %d: %v", i, len(plain), keep, ok)
			}
			if got, ok := piecewise(inPieces(plain), smallPiece, min(keep, smallPiece)); !ok || !bytes.Equal(got, plain) {
				t.Errorf("body %d of %d bytes in small pieces, keeping %d: %v", i, len(plain), keep, ok)
			}
			for _, encode := range []func(dst, src []byte) []byte{s2.EncodeSnappy, s2.EncodeSnappyBetter, s2.EncodeSnappyBest} {
				if got, ok := piecewise(encode(nil, plain), pieceBytes, keep); ok && !bytes.Equal(got, plain) {
					t.Errorf("body %d of %d bytes by another compressor, keeping %d", i, len(plain), keep)
				} else if !ok {
					others++
				}
			}
		}
		if got, ok := piecewise(snappy.Encode(nil, plain), pieceBytes, pieceBytes+1); ok && len(plain) > 2*pieceBytes {
			t.Errorf("body %d: more than a piece was kept, and %d bytes came", i, len(got))
		}
	}
	if others == 0 {
		t.Error("no compressor refers to what is out of the window: no test")
	}
}

// FuzzUnsnappy: whatever has an end is what the library makes of it.
func FuzzUnsnappy(f *testing.F) {
	for _, n := range []int{0, 1, 60, 61, 64, 65, 300, 70_000} {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(i * i >> 8)
		}
		f.Add(snappy.Encode(nil, b), uint8(0))
		f.Add(inPieces(b), uint8(20))
	}
	f.Add(snappy.Encode(nil, []byte(benchRequest(f, wire.V1, 0)[:5000])), uint8(200))
	f.Fuzz(func(t *testing.T, src []byte, keep uint8) {
		if n, err := s2.DecodedLen(src); err != nil || n > 1<<20 {
			return // nothing begins
		}
		want, err := s2.Decode(nil, src)
		for _, piece := range []int{smallPiece, pieceBytes} {
			if got, ok := piecewise(src, piece, min(int(keep), piece)); ok && (err != nil || !bytes.Equal(got, want)) {
				t.Errorf("in pieces of %d: %d bytes, want %d, %v", piece, len(got), len(want), err)
			}
		}
	})
}
