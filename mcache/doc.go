// Package mcache is a three-generation cache of time series that mends gaps.
//
// It continues DalmatinerDB's mcache in Go: a cache for metrics as they come
// in, mostly in order, rarely twice, sometimes late. A key's points live in
// chunks; a late point joins the chunks around it. Keys that are written stay
// hot, others cool through three generations, and eviction takes the largest
// of the coldest. All of it, the index included, lives in regions and spans of
// a kvcache.Memory, of which any region may vanish at any time.
package mcache
