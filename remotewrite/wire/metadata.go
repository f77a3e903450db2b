package wire

import "slices"

// MetricName is the label that holds the name of a series' metric.
const MetricName = "__name__"

// Metadata describes a metric. Types are as in OpenMetrics: counter, gauge,
// histogram, gaugehistogram, summary, info, stateset, unknown.
type Metadata struct{ Type, Help, Unit string }

// metricTypes are the types of both protocols by their numbers, which are the same.
var metricTypes = [...]string{"unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset"}

// MetricType is the type that a message has by number.
func MetricType(n int32) string {
	if n < 0 || int(n) >= len(metricTypes) {
		return metricTypes[0]
	}
	return metricTypes[n]
}

// MetricTypeNumber is the number of a type, that of "unknown" if there is none.
func MetricTypeNumber(name string) int {
	return max(slices.Index(metricTypes[:], name), 0)
}
