package block

// MaxTime bounds the times of points, which lie in ±MaxTime: so far, the
// distance of any two fits an int64 with room to spare.
const MaxTime = 1 << 61

// Sample is one point of a series.
type Sample struct {
	T int64  // milliseconds since 1970; in the raw API an offset in slots
	V uint64 // bit pattern of the value; every pattern is legal
}
