package kvcache

import "unsafe"

// A record is one key with its value, held as an entry of a table:
//
//	┌────────────┬─────────────────┬──────────────────────────┬───────┬─────────┐
//	│ header (8) │ expiry (8, opt) │ key len (2), kind (1) opt│ key   │ value   │
//	└────────────┴─────────────────┴──────────────────────────┴───────┴─────────┘
//
// The header's owner is the upper half of the key's hash: it finds the
// record's home in an index of any size without hashing again, and tells most
// strangers apart without reading their keys. The header's aux says whether
// there is an expiry (bit 8, the time is Unix milliseconds) and how long the
// key is (bits 0 to 7). Zero means that the length stands in two bytes, with the
// value's kind in a third: so it is for keys of more than 255 bytes, for the
// empty key, which Redis' clients may use, and for values that are no strings.
const (
	auxExpires = 1 << 8
	auxKeyLen  = 1<<8 - 1

	expiryBytes  = 8
	longKeyBytes = 3
)

// Kind says what sort of value an entry has. What the numbers but String mean is
// for the caller to say; the cache keeps them with the value.
type Kind uint8

// String is the kind of what Put stores: bytes, and no more.
const String Kind = 0

// spelt reports whether the length of a key and the kind stand in the record.
func spelt(keyLen int, kind Kind) bool { return keyLen == 0 || keyLen > auxKeyLen || kind != String }

// recordAux is the header's aux for a record.
func recordAux(keyLen int, kind Kind, expires bool) uint16 {
	aux := uint16(0)
	if !spelt(keyLen, kind) {
		aux = uint16(keyLen)
	}
	if expires {
		aux |= auxExpires
	}
	return aux
}

// recordBytes is the length of a record, its header left out.
func recordBytes(keyLen, valueLen int, kind Kind, expires bool) int {
	n := keyLen + valueLen
	if spelt(keyLen, kind) {
		n += longKeyBytes
	}
	if expires {
		n += expiryBytes
	}
	return n
}

// writeRecord fills dst, which is recordBytes long. The value may be a view
// of any record, dst's own included if its key and expiry take the same room.
func writeRecord(dst, key []byte, e *Entry) {
	if e.ExpiresMs != 0 {
		le.PutUint64(dst, uint64(e.ExpiresMs))
		dst = dst[expiryBytes:]
	}
	if spelt(len(key), e.Kind) {
		le.PutUint16(dst, uint16(len(key)))
		dst[2] = byte(e.Kind)
		dst = dst[longKeyBytes:]
	}
	copy(dst[len(key):], e.Value)
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

// recordKind is the kind of the value of the record whose header is at p.
func recordKind(p unsafe.Pointer) Kind {
	aux := (*(*header)(p)).aux()
	if aux&auxKeyLen != 0 {
		return String
	}
	p = unsafe.Add(p, headerBytes+2)
	if aux&auxExpires != 0 {
		p = unsafe.Add(p, expiryBytes)
	}
	return *(*Kind)(p)
}

// recordEntry is what the record whose header is at p holds. The value is a view.
func recordEntry(p unsafe.Pointer) Entry {
	v, kind := recordValue(p), recordKind(p)
	if kind == kindManifest {
		return Entry{ExpiresMs: recordExpiry(p)} // of kind String; its value is elsewhere
	}
	return Entry{Value: v[:len(v):len(v)], ExpiresMs: recordExpiry(p), Kind: kind}
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
// it, without a look at its records. Parts of large values count for nothing, as
// their manifest does.
const expiringWeight = 1 << 32

// weightOf is the weight of the record whose header is at p.
func weightOf(p unsafe.Pointer) int {
	return recordWeight(recordKind(p), (*(*header)(p)).aux()&auxExpires != 0)
}

func recordWeight(kind Kind, expires bool) int {
	if kind == kindPart {
		return 0
	}
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
