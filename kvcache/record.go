package kvcache

import "unsafe"

// A record is one key with its value, held as an entry of a table:
//
//	┌────────────┬─────────────────┬─────────────────┬───────┬─────────┐
//	│ header (8) │ expiry (8, opt) │ key len (2, opt)│ key   │ value   │
//	└────────────┴─────────────────┴─────────────────┴───────┴─────────┘
//
// The header's owner is the upper half of the key's hash: it finds the
// record's home in an index of any size without hashing again, and tells most
// strangers apart without reading their keys. The header's aux says whether
// there is an expiry (bit 8, the time is Unix milliseconds) and how long the
// key is (bits 0 to 7; zero means that the length stands in two bytes, as it
// does for the empty key, which Redis' clients may use).
const (
	auxExpires = 1 << 8
	auxKeyLen  = 1<<8 - 1

	expiryBytes  = 8
	longKeyBytes = 2
)

// keyIsLong reports whether the length of a key stands in two bytes.
func keyIsLong(keyLen int) bool { return keyLen == 0 || keyLen > auxKeyLen }

// recordAux is the header's aux for a record.
func recordAux(keyLen int, expires bool) uint16 {
	aux := uint16(0)
	if !keyIsLong(keyLen) {
		aux = uint16(keyLen)
	}
	if expires {
		aux |= auxExpires
	}
	return aux
}

// recordBytes is the length of a record, its header left out.
func recordBytes(keyLen, valueLen int, expires bool) int {
	n := keyLen + valueLen
	if keyIsLong(keyLen) {
		n += longKeyBytes
	}
	if expires {
		n += expiryBytes
	}
	return n
}

// writeRecord fills dst, which is recordBytes long. The value may be a view
// of any record, dst's own included if its key and expiry take the same room.
func writeRecord(dst, key, value []byte, expiresMs int64) {
	if expiresMs != 0 {
		le.PutUint64(dst, uint64(expiresMs))
		dst = dst[expiryBytes:]
	}
	if keyIsLong(len(key)) {
		le.PutUint16(dst, uint16(len(key)))
		dst = dst[longKeyBytes:]
	}
	copy(dst[len(key):], value)
	copy(dst, key)
}

// recordKey is the key of the record whose header is at p.
func recordKey(p unsafe.Pointer) []byte {
	aux := (*(*header)(p)).aux()
	p = unsafe.Add(p, headerBytes)
	if aux&auxExpires != 0 {
		p = unsafe.Add(p, expiryBytes)
	}
	n := int(aux & auxKeyLen)
	if n == 0 {
		n = int(*(*uint16)(p))
		p = unsafe.Add(p, longKeyBytes)
	}
	return unsafe.Slice((*byte)(p), n)
}

// recordValue is the value of the record whose header is at p.
func recordValue(p unsafe.Pointer) []byte {
	h := *(*header)(p)
	key := recordKey(p)
	first := unsafe.Add(unsafe.Pointer(unsafe.SliceData(key)), len(key))
	end := uintptr(p) + headerBytes + uintptr(h.value())
	return unsafe.Slice((*byte)(first), int(end-uintptr(first)))
}

// recordExpiry is the time in Unix milliseconds at which the record whose
// header is at p expires, or 0 for never.
func recordExpiry(p unsafe.Pointer) int64 {
	if (*(*header)(p)).aux()&auxExpires == 0 {
		return 0
	}
	return *(*int64)(unsafe.Add(p, headerBytes))
}

// A record's weight in its table counts it in the low half and, if it expires,
// once more in the high half: so the sums of a region say what vanishes with
// it, without a look at its records.
const expiringWeight = 1 << 32

func recordWeight(expires bool) int {
	if expires {
		return 1 + expiringWeight
	}
	return 1
}

// weightRecords and weightExpiring are the two numbers in a sum of weights. A
// shard has fewer than 2³¹ records: its addresses are 32 bits of 8 bytes, and
// the smallest record has 16.
func weightRecords(sum int64) int64  { return sum & (expiringWeight - 1) }
func weightExpiring(sum int64) int64 { return sum >> 32 }
