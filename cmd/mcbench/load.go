package main

import (
	"fmt"
	"math"
	"strconv"

	"mcached/mcache"
)

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
}

// Shape of the label sets.
const (
	seriesPerTarget  = 500
	seriesPerMetric  = 10
	metricsPerTarget = seriesPerTarget / seriesPerMetric
	targetsPerNode   = 20
	maxLateRounds    = 4
)

// labels appends the labels of series n, as they are at first, to dst, sorted by name.
func (l *load) labels(n int, dst []mcache.Label) []mcache.Label { return l.labelsAt(n, l.startMs, dst) }

// labelsAt appends the labels that series n has at a time.
func (l *load) labelsAt(n int, ms int64, dst []mcache.Label) []mcache.Label {
	target, k := n/seriesPerTarget, n%seriesPerTarget
	metric, variant := k/seriesPerMetric, k%seriesPerMetric
	node := target / targetsPerNode
	return append(dst,
		mcache.Label{Name: "__name__", Value: metricName(metric)},
		mcache.Label{Name: "cluster", Value: "eu-central-1-production"},
		mcache.Label{Name: "container", Value: "checkout-api"},
		mcache.Label{Name: "endpoint", Value: "http-metrics"},
		mcache.Label{Name: "handler", Value: "/api/v1/orders/" + strconv.Itoa(variant)},
		mcache.Label{Name: "instance", Value: instance(target)},
		mcache.Label{Name: "job", Value: "kubernetes-pods"},
		mcache.Label{Name: "method", Value: "GET"},
		mcache.Label{Name: "namespace", Value: "checkout"},
		mcache.Label{Name: "node", Value: fmt.Sprintf("ip-10-%d-%d-%d.internal", node>>16, node>>8&0xff, node&0xff)},
		mcache.Label{Name: "pod", Value: fmt.Sprintf("checkout-api-7d9f8b6c5d-%06x", target+l.targets()*l.successors(target, ms))},
	)
}

// successors is how many targets have taken the place of one by a time, each as
// likely as another at any moment.
func (l *load) successors(target int, ms int64) int {
	if l.churnPct == 0 {
		return 0
	}
	phase := float64(mix(uint64(target)+0xc402)>>11) / (1 << 53)
	return int(phase + float64(ms-l.startMs)/60_000*l.churnPct/100)
}

func metricName(metric int) string {
	return fmt.Sprintf("checkout_http_request_%02d_total", metric)
}

// instance names the target, and only it: the check asks for one at a time.
func instance(target int) string {
	return fmt.Sprintf("10.%d.%d.%d:9100", target>>16, target>>8&0xff, target&0xff)
}

func (l *load) targets() int { return (l.series + seriesPerTarget - 1) / seriesPerTarget }

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
)

func (l *load) values(n int) values {
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
