package wire

import (
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// CommonPrefix is how many bytes of a and b are the same from their beginning.
func CommonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	p, q := unsafe.Pointer(unsafe.SliceData(a)), unsafe.Pointer(unsafe.SliceData(b))
	i := 0
	// All within both, which the compiler does not see and would check each time.
	for ; i+32 <= n; i += 32 {
		x, y := (*[4]uint64)(unsafe.Add(p, i)), (*[4]uint64)(unsafe.Add(q, i))
		if (x[0]^y[0])|(x[1]^y[1])|(x[2]^y[2])|(x[3]^y[3]) != 0 {
			break
		}
	}
	for ; i+8 <= n; i += 8 {
		if *(*uint64)(unsafe.Add(p, i)) != *(*uint64)(unsafe.Add(q, i)) {
			return i + bits.TrailingZeros64(binary.LittleEndian.Uint64(a[i:])^binary.LittleEndian.Uint64(b[i:]))/8
		}
	}
	if i < n && n >= 8 { // the last eight, of which some are known to be the same
		x := binary.LittleEndian.Uint64(a[n-8:]) ^ binary.LittleEndian.Uint64(b[n-8:])
		return n - 8 + bits.TrailingZeros64(x)/8
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}
