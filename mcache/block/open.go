package block

import (
	"encoding/binary"
)

// An open block takes samples where it lies. Its times and values are whole
// words, in order of time, with room for more behind them:
//
//	byte 0, byte 1 │ 0 │ 64 0 0 │ times: n·8 │ 0: 8 │ 64 0 0 │ values: n·8 │ room
//	time mode 1      step  ints   less the first  least  ints
//
// With one sample, which has no times, the value is the least and the width 0.
// So it is a block like any other for who decodes it, and none that Encode
// makes, whose steps are not 0: that is how one is told from the others. The
// room is cleared.
const (
	openMode   = timeGridR | valueRaw<<2
	openTimes  = 2 + 1 + 3         // where the times begin
	openHead   = openTimes + 8 + 3 // bytes that are neither times nor values
	openInts   = 64                // header of ints: width, exceptions, base
	openStep   = openInts << 8     // step 0 and such a header, as a word of 4 bytes
	openSample = 8 + 8             // bytes of a sample
	openSingle = 2 + 8 + 3         // bytes of one with one sample
	_          = uint(openHead - openSingle)
	_          = uint(MaxBytes - openHead - openSample*MaxSamples)
)

// OpenBytes is how long an open block with room for n samples is.
func OpenBytes(n int) int { return openHead + n*openSample }

// OpenRoom is for how many samples b has room in all, if it is an open block; 0
// if it is another.
func OpenRoom(b []byte) int {
	if b[1] != openMode {
		return 0
	}
	n := Len(b)
	room := min((len(b)-openHead)/openSample, MaxSamples)
	if room < n {
		return 0
	}
	if n == 1 {
		if b[10]|b[11]|b[12] != 0 {
			return 0
		}
		return room
	}
	least := b[openTimes+8*n:]
	if binary.LittleEndian.Uint32(b[2:]) != openStep || binary.LittleEndian.Uint64(least) != 0 ||
		least[8] != openInts || least[9]|least[10] != 0 {
		return 0
	}
	return room
}

// PutOpen makes b, of OpenBytes, an open block of ss, of which it has room for
// all. It begins at the time of the first.
func PutOpen(b []byte, ss []Sample) {
	clear(b)
	n := len(ss)
	b[0], b[1] = byte(n-1), openMode
	if n == 1 {
		binary.LittleEndian.PutUint64(b[2:], ss[0].V)
		return
	}
	binary.LittleEndian.PutUint32(b[2:], openStep)
	b[openTimes+8*n+8] = openInts
	for i := range ss {
		putOpenWord(b, openTimes+8*i, uint64(ss[i].T-ss[0].T))
		putOpenWord(b, openHead+8*n+8*i, ss[i].V)
	}
}

func putOpenWord(b []byte, at int, v uint64) { binary.LittleEndian.PutUint64(b[at:], v) }
func openWord(b []byte, at int) uint64       { return binary.LittleEndian.Uint64(b[at:]) }
func openTime(b []byte, i int) int64         { return int64(openWord(b, openTimes+8*i)) }
func openLast(b []byte, start int64) int64 {
	if n := Len(b); n > 1 {
		return start + openTime(b, n-1)
	}
	return start
}

// InsertOpen puts x into the open block b, which begins at start: in the place
// of the sample of that time, if there is one, else by its time, for which there
// must be room. It returns when the block begins now.
func InsertOpen(b []byte, start int64, x Sample) (_ int64, added bool) {
	n := Len(b)
	if n == 1 {
		return insertSecond(b, start, x)
	}
	d := x.T - start
	i := n
	for i > 0 && openTime(b, i-1) > d {
		i--
	}
	if i > 0 && openTime(b, i-1) == d {
		putOpenWord(b, openHead+8*n+8*(i-1), x.V)
		return start, false
	}
	values := openHead + 8*n
	copy(b[values+8*i+openSample:], b[values+8*i:values+8*n])
	copy(b[openTimes+8*i+8:], b[openTimes+8*i:values+8*i])
	b[0]++
	putOpenWord(b, values+8+8*i, x.V)
	if i > 0 {
		putOpenWord(b, openTimes+8*i, uint64(d))
		return start, true
	}
	putOpenWord(b, openTimes, 0)
	for k := 1; k <= n; k++ {
		putOpenWord(b, openTimes+8*k, openWord(b, openTimes+8*k)-uint64(d))
	}
	return x.T, true
}

// insertSecond is InsertOpen where b has one sample.
func insertSecond(b []byte, start int64, x Sample) (_ int64, added bool) {
	old := Sample{T: start, V: openWord(b, 2)}
	switch {
	case x.T == start:
		putOpenWord(b, 2, x.V)
		return start, false
	case x.T < start:
		PutOpen(b, []Sample{x, old})
		return x.T, true
	}
	PutOpen(b, []Sample{old, x})
	return start, true
}

// GridEnd is the time of the last sample of b, which begins at start and is
// sound, where that needs no decoding: of an open one, of one sample, and on a
// grid. ok is false otherwise.
func GridEnd(b []byte, start int64) (last int64, ok bool) {
	switch n := Len(b); {
	case n == 1:
		return start, true
	case b[1]&3 == timeGrid:
		step, _ := binary.Uvarint(b[2:])
		return start + int64(n-1)*int64(step), true
	case OpenRoom(b) > 0:
		return openLast(b, start), true
	}
	return 0, false
}
