package remotewrite

import (
	"unsafe"

	"mcached/mcache"
)

// The tables that a body is decoded into, of samples, series, symbols and so
// on, are mostly smaller than the body, but an element of two bytes can take
// dozens here. So admission is asked for what they have grown to, each time that
// another lookBytes of the body have been read: nothing is added to the work for
// a sample, and a request that is smaller takes no more than some MiB.
const lookBytes = 64 << 10

// usualGrowth is above what the usual samples of a series, of 15 bytes or more,
// take when their table has grown by as much as append likes.
const usualGrowth = 2

// tables is what all tables take.
func (in *intake) tables() int {
	return in.batch.Bytes() + cap(in.at)*int(unsafe.Sizeof(place{})) + cap(in.starts)*8 +
		cap(in.histograms)*int(unsafe.Sizeof(histogram{})) + cap(in.exemplars)*int(unsafe.Sizeof(pending{})) +
		cap(in.labels)*int(unsafe.Sizeof(mcache.Label{})) + cap(in.series)*int(unsafe.Sizeof(piece{})) + cap(in.syms)*int(unsafe.Sizeof(symbol{})) +
		cap(in.learned)*int(unsafe.Sizeof(printed{})) + cap(in.found)*int(unsafe.Sizeof(mcache.Fingerprint{})) +
		cap(in.blocks)*int(unsafe.Sizeof(mcache.SoundBlock{}))
}

// look asks for what the tables have grown to when decoded[:at] has been read,
// of which the caller has seen that it has reached lookAt. ahead are the bytes of
// usual samples that come before the next look, as far as is known.
func (in *intake) look(at, ahead int) error {
	in.lookAt = at + lookBytes
	n := in.tables()
	if ahead > lookBytes {
		n += usualGrowth * ahead
	}
	if n <= in.lent {
		return nil
	}
	err := in.lease.take(n - in.lent)
	if err == nil {
		in.lent = n
	}
	return err
}
