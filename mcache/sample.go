package mcache

// Sample is one point of a series.
type Sample struct {
	T int64  // milliseconds since 1970; in the raw API an offset in slots
	V uint64 // bit pattern of the value; every pattern is legal
}

// Label is one name and value of a series' label set.
type Label struct{ Name, Value string }
