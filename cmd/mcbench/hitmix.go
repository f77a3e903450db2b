package main

import (
	"math"
	"slices"
)

// maxRespKey bounds the numbers of keys: respConn writes them with 12 digits.
const maxRespKey = 1_000_000_000_000

// requestMix describes synthetic requests of a cache.
type requestMix struct {
	kind       string // zipf, loop, shift or scan
	skew       float64
	keys       int
	requests   int
	oncePct    float64
	valueBytes int
	seed       uint64
}

// shifts is how often half of the keys are others in the mix shift.
const shifts = 6

// generate makes the requests. Keys below m.keys are the mix's, those above
// are asked for once, or by scans.
func (m *requestMix) generate() []request {
	random := values{state: mix(m.seed)}
	draw := m.zipf(&random)
	all := make([]request, m.requests)
	once := uint64(maxRespKey / 2)
	for i := range all {
		key := uint64(i % m.keys)
		switch {
		case m.oncePct > 0 && random.unit()*100 < m.oncePct:
			key = once
			once++
		case m.kind == "loop":
		case m.kind == "scan" && m.scans(i):
			key = uint64(m.keys + i%m.keys)
		default:
			key = draw()
			if m.kind == "shift" && mix(key)&1 == 1 {
				key += uint64(m.keys) * uint64(1+i*(shifts+1)/m.requests)
			}
		}
		all[i] = request{key, int32(m.valueBytes)}
	}
	return all
}

// scans reports whether request i is part of a scan. There are two, after a quarter
// and after two thirds, of as many requests as there are keys, or a twelfth of all
// if that is less.
func (m *requestMix) scans(i int) bool {
	for _, begin := range []int{m.requests / 4, m.requests * 2 / 3} {
		if i >= begin && i < begin+min(m.keys, m.requests/12) {
			return true
		}
	}
	return false
}

// zipf returns a function that draws keys by any skew, through the inverse of
// the distribution's table.
func (m *requestMix) zipf(random *values) func() uint64 {
	below := make([]float64, m.keys)
	sum := 0.0
	for i := range below {
		sum += math.Pow(float64(i+1), -m.skew)
		below[i] = sum
	}
	return func() uint64 {
		i, _ := slices.BinarySearch(below, random.unit()*sum)
		return uint64(min(i, m.keys-1))
	}
}
