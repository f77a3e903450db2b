package cluster

import "bytes"

// crcTable is CRC-16/XMODEM, polynomial 0x1021, as Redis Cluster specifies it.
var crcTable = func() (t [256]uint16) {
	for i := range t {
		c := uint16(i) << 8
		for range 8 {
			if c&0x8000 != 0 {
				c = c<<1 ^ 0x1021
			} else {
				c <<= 1
			}
		}
		t[i] = c
	}
	return t
}()

// KeySlot is Redis Cluster's slot of a key: of what stands between the first {
// and the first } behind it, if that is anything, else of all of it.
func KeySlot(key []byte) uint16 {
	if open := bytes.IndexByte(key, '{'); open >= 0 {
		if n := bytes.IndexByte(key[open+1:], '}'); n > 0 {
			key = key[open+1:][:n]
		}
	}
	var c uint16
	for _, b := range key {
		c = c<<8 ^ crcTable[byte(c>>8)^b]
	}
	return c % Slots
}
