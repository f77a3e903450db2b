package mcache

import "math"

// A start time says since when a counter has counted; it comes with a sample,
// and most have none. Those of a series are the values of a hidden series, its
// shadow, at the same times. As they seldom change, they seal to next to
// nothing; and all that holds for samples holds for them.

// shadowOf is the fingerprint of the start times of the series f. It leads to the same shard.
func shadowOf(f Fingerprint) Fingerprint { return Fingerprint{f.hi, ^f.lo} }

// shadowLocked is the id of the start times of r, or noID.
func (s *shard) shadowLocked(r *series) uint32 {
	if r.flags&flagStarts == 0 {
		return noID
	}
	return s.findLocked(shadowOf(r.fp))
}

// insertStartLocked notes the start time of the sample at t, 0 if it has none.
// The series has been written to just now.
func (s *shard) insertStartLocked(id uint32, b *bucket, t, start int64) bool {
	r := s.recs.At(id)
	shadow := s.shadowLocked(r)
	if shadow == noID {
		if start == 0 {
			return true
		}
		var err error
		if shadow, err = s.createLocked(b, shadowOf(r.fp), flagShadow, nil, nil); err != nil {
			return false
		}
		s.recs.At(id).flags |= flagStarts
	}
	if age := s.ageLocked(b); s.recs.At(shadow).touched != age {
		s.touchLocked(shadow, age)
	}
	return s.insertLocked(shadow, t, math.Float64bits(float64(start)))
}
