package remotewrite

import "encoding/binary"

// unsnappy decompresses a block of snappy piece by piece into a window, for who reads
// it once from beginning to end. Of a request of 2,000 series a copy is some 500 KiB,
// which do not stay in a processor's caches: they would be written to memory, and read
// from there. The window does.
//
//	0         keep         d
//	│ was read │ is not yet │ the next piece │ longestElement
//
// A piece ends at 64 KiB of the whole, or a multiple. Compressors make blocks of as
// much, none of which refers to one before; those that do otherwise are told by what
// refers to what is not in the window any more.
//
// The format is that of https://github.com/google/snappy/blob/main/format_description.txt:
// elements, each either so many bytes as they are, or so many as came at an offset
// before. Offsets of four bytes are left to others.
type unsnappy struct {
	piece   int    // pieceBytes, or another power of two in tests
	window  []byte // of two pieces and longestElement
	d       int    // how much of it is there
	base    int    // how much was before it
	n       int    // how much there is in all
	src     []byte
	s       int // how much of src was read
	literal int // so many bytes of src are as they are
}

const (
	pieceBytes = 64 << 10

	// longestElement is the most that one byte of length says. As much is copied of
	// all that are as short, since that takes no longer than to look.
	longestElement = 64
)

// begin begins a block, of which s2.DecodedLen has said how much it is.
func (u *unsnappy) begin(src []byte) {
	if u.window == nil {
		u.window = make([]byte, 2*u.piece+longestElement)
	}
	n, s := binary.Uvarint(src)
	*u = unsnappy{piece: u.piece, window: u.window, n: int(n), src: src, s: s}
}

// whole reports that all has been decompressed.
func (u *unsnappy) whole() bool { return u.base+u.d == u.n && u.s == len(u.src) }

// more drops what is before keep from the window, and decompresses the next piece. It
// reports false for what is no snappy, or not to be had in this way, and where all there
// should be has come.
func (u *unsnappy) more(keep int) (ok bool) {
	if u.d-keep > u.piece || u.base+u.d >= u.n {
		return false
	}
	copy(u.window, u.window[keep:u.d])
	u.base, u.d = u.base+keep, u.d-keep
	poison(u.window[u.d:])
	end := (u.base + u.d + u.piece) &^ (u.piece - 1)
	return u.fill(min(end, u.n) - u.base)
}

// fill decompresses until the window has to bytes, or is longer by an element.
func (u *unsnappy) fill(to int) (ok bool) {
	src, dst, s, d := u.src, u.window, u.s, u.d
	for d < to {
		if u.literal > 0 {
			n := min(u.literal, len(src)-s, to-d)
			if n == 0 {
				return false
			}
			copy(dst[d:], src[s:s+n])
			u.literal, s, d = u.literal-n, s+n, d+n
			continue
		}
		if s >= len(src) {
			return false
		}
		tag, offset, n := src[s], 0, 0
		switch tag & 3 {
		case 0: // as they are
			n = int(tag>>2) + 1
			if n <= 60 && len(src)-s > longestElement {
				if n <= 16 {
					*(*[16]byte)(dst[d:]) = *(*[16]byte)(src[s+1:])
				} else {
					copyElement((*[longestElement]byte)(dst[d:]), (*[longestElement]byte)(src[s+1:]))
				}
				s, d = s+1+n, d+n
				continue
			}
			if s++; n > 60 {
				var length [4]byte
				k := n - 60
				if copy(length[:k], src[s:]) < k {
					return false
				}
				s, n = s+k, int(binary.LittleEndian.Uint32(length[:]))+1
			}
			u.literal = n
			continue
		case 1:
			if len(src)-s < 2 {
				return false
			}
			n, offset = 4+int(tag>>2)&7, int(tag>>5)<<8|int(src[s+1])
			s += 2
		case 2:
			if len(src)-s < 3 {
				return false
			}
			n, offset = 1+int(tag>>2), int(binary.LittleEndian.Uint16(src[s+1:]))
			s += 3
		default:
			return false
		}
		switch {
		case offset == 0 || offset > d:
			return false
		case offset >= longestElement:
			copyElement((*[longestElement]byte)(dst[d:]), (*[longestElement]byte)(dst[d-offset:]))
			d += n
		default: // it may be of what it makes
			for end := d + n; d < end; d++ {
				dst[d] = dst[d-offset]
			}
		}
	}
	u.s, u.d = s, d
	return true
}

// copyElement copies by words of 16 bytes, as the compiler copies an array of 64 by a
// call of memmove.
func copyElement(to, from *[longestElement]byte) {
	*(*[16]byte)(to[:16]) = *(*[16]byte)(from[:16])
	*(*[16]byte)(to[16:32]) = *(*[16]byte)(from[16:32])
	*(*[16]byte)(to[32:48]) = *(*[16]byte)(from[32:48])
	*(*[16]byte)(to[48:]) = *(*[16]byte)(from[48:])
}
