package main

import (
	"fmt"
	"strconv"

	"mcached/mcache"
)

// Shape of the label sets.
const (
	seriesPerTarget  = 500
	seriesPerMetric  = 10
	metricsPerTarget = seriesPerTarget / seriesPerMetric
	targetsPerNode   = 20

	// A load of buckets has one metric instead, of histograms.
	bucketsPerHistogram = 10
	handlersPerTarget   = seriesPerTarget / bucketsPerHistogram
	bucketMetric        = "checkout_http_request_duration_seconds_bucket"
)

// bounds are those of buckets.
var bounds = [bucketsPerHistogram]string{"0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "+Inf"}

// namer makes the labels of a load's series. Text that series have in common is made
// once: the client shares the processors with the server, so that what it takes, the
// server waits for. It belongs to one goroutine.
type namer struct {
	load     *load
	metrics  [metricsPerTarget]string
	handlers [handlersPerTarget]string

	// Of the target that was asked for last:
	target, successors  int
	instance, node, pod string
}

func (l *load) namer() *namer {
	r := &namer{load: l, target: -1}
	for i := range r.metrics {
		r.metrics[i] = metricName(i)
	}
	for i := range r.handlers {
		r.handlers[i] = "/api/v1/orders/" + strconv.Itoa(i)
	}
	return r
}

// labels appends the labels that series n has at a time to dst, sorted by name.
func (r *namer) labels(n int, ms int64, dst []mcache.Label) []mcache.Label {
	target, k := n/seriesPerTarget, n%seriesPerTarget
	if successors := r.load.successors(target, ms); target != r.target || successors != r.successors {
		node := target / targetsPerNode
		r.target, r.successors = target, successors
		r.instance = instance(target)
		r.node = fmt.Sprintf("ip-10-%d-%d-%d.internal", node>>16, node>>8&0xff, node&0xff)
		r.pod = fmt.Sprintf("checkout-api-7d9f8b6c5d-%06x", target+r.load.targets()*successors)
	}
	name, handler := r.metrics[k/seriesPerMetric], r.handlers[k%seriesPerMetric]
	if r.load.buckets {
		name, handler = bucketMetric, r.handlers[k/bucketsPerHistogram]
	}
	dst = append(dst,
		mcache.Label{Name: "__name__", Value: name},
		mcache.Label{Name: "cluster", Value: "eu-central-1-production"},
		mcache.Label{Name: "container", Value: "checkout-api"},
		mcache.Label{Name: "endpoint", Value: "http-metrics"},
		mcache.Label{Name: "handler", Value: handler},
		mcache.Label{Name: "instance", Value: r.instance},
		mcache.Label{Name: "job", Value: "kubernetes-pods"})
	if r.load.buckets {
		dst = append(dst, mcache.Label{Name: "le", Value: bounds[k%bucketsPerHistogram]})
	}
	return append(dst,
		mcache.Label{Name: "method", Value: "GET"},
		mcache.Label{Name: "namespace", Value: "checkout"},
		mcache.Label{Name: "node", Value: r.node},
		mcache.Label{Name: "pod", Value: r.pod},
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
