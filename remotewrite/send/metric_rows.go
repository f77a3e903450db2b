package send

import "time"

// Metric describes a metric of the package's Stats, and reads it. It is an alias
// of a type without a name, so that packages which may not import each other,
// and know nothing of who shows their metrics, agree on it.
type Metric = struct {
	Name, Kind, Help string   // Kind is gauge or counter
	Labels           []string // their names
	// Read calls emit for each series, with the values of the labels in their order.
	Read func(emit func(v float64, labelValues ...string))
}

// single reads a metric without labels.
func single(v float64) func(func(float64, ...string)) {
	return func(emit func(float64, ...string)) { emit(v) }
}

// Metrics are the rows of s.
func (s *ForwardStats) Metrics() []Metric {
	return []Metric{
		{"mcached_forward_samples_total", "counter", "Samples and histograms sent to --forward.url, by result. Rejected ones are not sent again. Absent, as all of mcached_forward_…, if nothing is forwarded.", []string{"result"},
			func(emit func(float64, ...string)) {
				emit(float64(s.Sent), "taken")
				emit(float64(s.Rejected), "rejected")
			}},
		{"mcached_forward_runs_total", "counter", "Runs of samples of one series each that were collected for --forward.url: the longer they are, the less a sample costs.", nil,
			single(float64(s.Runs))},
		{"mcached_forward_requests_total", "counter", "Requests to --forward.url of any outcome.", nil,
			single(float64(s.Requests))},
		{"mcached_forward_retries_total", "counter", "Requests to --forward.url that failed and are retried.", nil,
			single(float64(s.Retries))},
		{"mcached_forward_splits_total", "counter", "Requests to --forward.url cut in two to find what it rejects.", nil,
			single(float64(s.Splits))},
		{"mcached_forward_forced_total", "counter", "Times everything was forwarded early, because memory was short or too many samples waited.", nil,
			single(float64(s.Forced))},
		{"mcached_forward_bytes_total", "counter", "Bytes of request bodies to --forward.url, compressed.", nil,
			single(float64(s.Bytes))},
		{"mcached_forward_in_flight_samples", "gauge", "Samples sent to --forward.url and not acknowledged yet.", nil,
			single(float64(s.InFlight))},
		{"mcached_forward_standby_samples", "gauge", "Samples that another member of the cluster is to forward, and has not yet, or that is not known.", nil,
			single(float64(s.Standby))},
		{"mcached_forward_standby_samples_total", "counter", "Samples that another member was to forward, by what became of them: released (it has), promoted (it is gone, so this member forwards them).", []string{"how"},
			func(emit func(float64, ...string)) {
				emit(float64(s.Released), "released")
				emit(float64(s.Promoted), "promoted")
			}},
		{"mcached_forward_last_success_timestamp_seconds", "gauge", "When --forward.url last took samples, or rejected them for good; 0 if never.", nil,
			single(unixSeconds(s.LastSuccess))},
		{"mcached_forward_dirty_age_seconds", "gauge", "How long the oldest unacknowledged sample has waited.", nil,
			single(s.OldestAge.Seconds())},
	}
}

// unixSeconds is 0 for no time.
func unixSeconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
