package block

import (
	"math"
)

// Inspect reports whether decode, given the same, finds a sound block whose
// times are on a grid, and what that is. It decodes no values: what they
// are, any are. Of another block it says that it is not ok, sound or not.
func Inspect(buf []byte, start int64) (n int, last, step int64, ok bool) {
	if len(buf) < 2+Slack || buf[0] >= MaxSamples {
		return 0, 0, 0, false
	}
	if buf[1]&3 != timeSections {
		return inspectOne(buf, start)
	}
	last = math.MinInt64
	err := eachSection(buf, start, func(section []byte, from int64) error {
		k, end, s, ok := inspectOne(section, from)
		if !ok || from <= last || (n == 0 && from != start) || (n > 0 && s != 0 && step != 0 && s != step) || n+k > MaxSamples {
			return ErrDamaged
		}
		n, last = n+k, end
		if s != 0 {
			step = s
		}
		return nil
	})
	return n, last, step, err == nil && n == Len(buf)
}

// inspectOne is inspect for a block without sections. step is 0 for a single sample.
func inspectOne(buf []byte, start int64) (n int, last, step int64, ok bool) {
	if len(buf) < 2+Slack || buf[0] >= MaxSamples || start < -MaxTime || start > MaxTime {
		return 0, 0, 0, false
	}
	r := blockReader{buf: buf, end: len(buf) - Slack, at: 2}
	n = int(buf[0]) + 1
	tmode, vmode, exp := buf[1]&3, buf[1]>>2&3, int(buf[1]>>4)
	if exp > maxExponent || tmode != timeGrid || vmode > valueDelta {
		return 0, 0, 0, false
	}
	last = start
	if n > 1 {
		step = int64(r.uvarint())
		if step <= 0 || step > (MaxTime-start)/int64(n-1) {
			return 0, 0, 0, false
		}
		last += int64(n-1) * step
	}
	if vmode == valueRaw {
		r.uint64()
		r.skipInts(n)
		return n, last, step, r.err() == nil
	}
	head := r.byte()
	if vmode == valueDelta {
		r.skipUvarint()
	}
	r.skipInts(n)
	if head&(1<<6) != 0 && !r.bad {
		for range int(r.byte()) {
			if int(r.byte()) >= n {
				r.bad = true
				break
			}
			r.uint64()
		}
	}
	return n, last, step, r.err() == nil
}

// skipInts is ints for those whose values do not matter.
func (r *blockReader) skipInts(n int) {
	w, exceptions := int(r.byte()), int(r.byte())
	r.skipUvarint()
	size := (n*w + 7) / 8
	if r.bad || w > 64 || exceptions > n || r.at+size > r.end {
		r.bad = true
		return
	}
	r.at += size
	for range exceptions {
		i := int(r.byte())
		r.skipUvarint()
		if i >= n {
			r.bad = true
			return
		}
	}
}
