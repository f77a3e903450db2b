package main

import "math"

// load describes what is written. Its fields are all that the data depends on.
type load struct {
	series     int
	samples    int   // of each series
	startMs    int64 // of the grid
	intervalMs int64
	jitterMs   int64 // either way
	latePct    float64
	seed       uint64
	churnPct   float64 // of the targets that new ones take the place of in each minute
	buckets    bool    // all series are buckets of one histogram for each handler of a target
}

// maxLateRounds is by how many rounds a sample may come late.
const maxLateRounds = 4

// time is when sample i of series n was taken. A target is scraped at once:
// its series share the jitter.
func (l *load) time(n, i int) int64 {
	t := l.startMs + int64(i)*l.intervalMs
	if l.jitterMs > 0 {
		r := mix(l.seed ^ mix(uint64(n/seriesPerTarget)<<32|uint64(i)))
		t += int64(r%uint64(2*l.jitterMs+1)) - l.jitterMs
	}
	return t
}

// late is how many rounds after its own sample i of series n is sent.
func (l *load) late(n, i int) int {
	if l.latePct <= 0 {
		return 0
	}
	r := mix(l.seed + 1 ^ mix(uint64(n)<<24|uint64(i)))
	if float64(r>>11)/(1<<53)*100 >= l.latePct {
		return 0
	}
	return 1 + int(r%maxLateRounds)
}

// values computes the values of a series one after the other.
type values struct {
	state uint64  // of the random numbers
	x     float64 // where a counter or a walk is, or the middle of noise
	class uint8
	le    uint8 // of a bucket: how many are below it
}

// Classes of series, by their number modulo 10.
const (
	rareCounter = iota
	requestCounter
	byteCounter
	resetCounter
	walk2
	walk3
	noise2
	noise3
	smallConstant
	largeConstant
	bucketCounter // of a load of buckets, all
)

func (l *load) values(n int) values {
	if l.buckets { // those of a histogram draw the same numbers
		return values{state: mix(l.seed ^ mix(uint64(n/bucketsPerHistogram)+0x1e)), class: bucketCounter, le: uint8(n % bucketsPerHistogram)}
	}
	v := values{state: mix(l.seed ^ mix(uint64(n)+0x5eed)), class: uint8(n % 10)}
	switch v.class {
	case rareCounter:
		v.x = float64(v.next() % 1000)
	case requestCounter, resetCounter:
		v.x = float64(v.next() % 1e8)
	case byteCounter:
		v.x = float64(v.next() % 1e12)
	case walk2, walk3:
		v.x = 20 + 60*v.unit()
	case noise2:
		v.x = 5 + 80*v.unit()
	case noise3:
		v.x = 0.01 + 0.2*v.unit()
	case smallConstant:
		v.x = float64(v.next() % 2)
	case largeConstant:
		v.x = 1.7e9 + float64(v.next()%1e6)
	}
	return v
}

// value is the next value of the series.
func (v *values) value() float64 {
	switch v.class {
	case rareCounter:
		if v.unit() < 0.05 {
			v.x++
		}
	case requestCounter:
		v.x += math.Round(100 + 1900*v.unit())
	case byteCounter:
		v.x += math.Round(1e6 * (1 + v.normal()*0.2))
	case resetCounter:
		v.x += math.Round(8 * v.unit())
		if v.unit() < 0.002 {
			v.x = 0
		}
	case bucketCounter:
		for i := range uint8(bucketsPerHistogram) {
			if seen := v.next() % uint64(4+8*min(i, bucketsPerHistogram-i)); i <= v.le {
				v.x += float64(seen)
			}
		}
	case walk2:
		v.x += 0.15 * v.normal()
		return round(v.x, 100)
	case walk3:
		v.x += 0.02 * v.normal()
		return round(v.x, 1000)
	case noise2:
		return round(v.x+2*v.normal(), 100)
	case noise3:
		return round(v.x*(1+0.15*v.normal()), 1000)
	}
	return v.x
}

// round gives x so many decimals. It makes no negative zero: JSON has none
// that all servers agree on.
func round(x, scale float64) float64 { return math.Round(x*scale)/scale + 0 }

func (v *values) next() uint64 {
	v.state += 0x9e3779b97f4a7c15
	return mix(v.state)
}

// unit is uniform in [0, 1).
func (v *values) unit() float64 { return float64(v.next()>>11) / (1 << 53) }

// normal is the sum of four uniform numbers, scaled: near enough to a normal
// one, and cheap.
func (v *values) normal() float64 {
	return (v.unit() + v.unit() + v.unit() + v.unit() - 2) * 1.7320508
}

// mix is the finalizer of splitmix64: every bit of x changes half of the result's.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
