package kvcache

import (
	"math/bits"
	"unsafe"
)

// ghostLine remembers the last keys that probation dropped unread and that
// hashed to this line: 12 bits of each hash, oldest first from the cursor on.
// A key of these that is written again is one that comes back, and skips
// probation.
//
// Ghosts are hints. One in a hundred insertions meets a stranger's; resizing an
// index doubles some and leaves others behind; losing all is never wrong.
type ghostLine struct {
	low  [ghostSlots]uint8     // 8 of the 12 bits
	high [ghostSlots / 2]uint8 // the other 4: of slot i in byte i/2, the odd ones' above
	next uint8                 // the slot to be written next
}

const (
	ghostSlots = 42
	ghostShift = 22 // fingerprints are the 12 bits of a hash from here on, 2 of them the home's lowest

	_ = uint(lineBytes-unsafe.Sizeof(ghostLine{})) + uint(unsafe.Sizeof(ghostLine{})-lineBytes)
	_ = uint(ghostShift - segmentBits - shardBits) // none is one that all of an index share
)

// An index of n lines of 64 bytes, ghosts included, keeps ghostParts of each
// ghostWhole for ghosts: 3 × 42 fingerprints for 17 × 12 slots, of which 73 to
// 92 % are taken. Ghosts are 0.67 to 0.85 an entry, and cost 1.5 bytes each.
const (
	ghostParts = 3
	ghostWhole = 20
)

// ghostLines is how many of n lines are for ghosts.
func ghostLines(n int) int { return n * ghostParts / ghostWhole }

// ghost is the fingerprint of a hash, never 0.
func (h hash) ghost() uint32 { return max(uint32(h>>ghostShift)&(1<<12-1), 1) }

func (g *ghostLine) at(slot int) uint32 {
	return uint32(g.low[slot]) | uint32(g.high[slot/2]>>(slot%2*4)&15)<<8
}

func (g *ghostLine) put(slot int, fingerprint uint32) {
	g.low[slot] = uint8(fingerprint)
	shift := slot % 2 * 4
	g.high[slot/2] = g.high[slot/2]&^(15<<shift) | uint8(fingerprint>>8)<<shift
}

// add takes the place of the oldest.
func (g *ghostLine) add(fingerprint uint32) {
	g.put(int(g.next), fingerprint)
	if g.next++; g.next == ghostSlots {
		g.next = 0
	}
}

// take removes a fingerprint and reports whether it was there.
func (g *ghostLine) take(fingerprint uint32) bool {
	const low7, high = 0x7f7f7f7f7f7f7f7f, 0x8080808080808080
	t := uint64(uint8(fingerprint)) * 0x0101010101010101
	for first := 0; first < ghostSlots; first += 8 {
		// The last eight bytes are two slots and what lies behind them.
		x := le.Uint64(unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(g), first)), 8)) ^ t
		for set := ^((x&low7 + low7) | x) & high; set != 0; set &= set - 1 {
			slot := first + bits.TrailingZeros64(set)/8
			if slot < ghostSlots && g.at(slot) == fingerprint {
				g.put(slot, 0)
				return true
			}
		}
	}
	return false
}

// addGhost remembers a key that was dropped. Its home finds the line, as for
// records.
func (x *index) addGhost(h hash) {
	if len(x.ghosts) > 0 {
		x.haunted = true
		x.ghostLine(h.home()).add(h.ghost())
	}
}

// takeGhost reports whether the key was dropped of late, and forgets it.
func (x *index) takeGhost(h hash) bool {
	return x.haunted && x.ghostLine(h.home()).take(h.ghost())
}

func (x *index) ghostLine(home uint32) *ghostLine {
	return &x.ghosts[uint64(home)*uint64(len(x.ghosts))>>32]
}

// inheritGhosts copies the ghosts of an index that x replaces, or one half of.
// Their lines are in order of the hash in both.
func (x *index) inheritGhosts(from *index) {
	if !from.haunted || len(x.ghosts) == 0 {
		return
	}
	x.haunted = true
	for i := range x.ghosts {
		x.ghosts[i] = from.ghosts[i*len(from.ghosts)/len(x.ghosts)]
	}
}
