package mcache

import "mcached/mcache/block"

// Sample is one point of a series.
type Sample = block.Sample

// Record is one point whose value is bytes.
type Record = block.Record

// Label is one name and value of a series' label set.
type Label struct{ Name, Value string }
