package route

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
func (s *Stats) Metrics() []Metric {
	return []Metric{
		{"mcached_cluster_write_requests_total", "counter", "Requests that carried writes to other nodes of the cluster. Absent, as all of mcached_cluster_…, without a cluster.", nil,
			single(float64(s.Requests))},
		{"mcached_cluster_write_request_seconds_total", "counter", "How long answered requests to other nodes took together.", nil,
			single(s.RequestTime.Seconds())},
		{"mcached_cluster_write_frames_total", "counter", "Pieces of senders' requests that went to other nodes; several go in one request when many wait.", nil,
			single(float64(s.Frames))},
		{"mcached_cluster_write_bytes_total", "counter", "Bytes of writes to other nodes.", nil,
			single(float64(s.Bytes))},
		{"mcached_cluster_write_series_total", "counter", "Series of requests sent to other nodes, once for each copy.", nil,
			single(float64(s.Series))},
		{"mcached_cluster_write_unknown_series_total", "counter", "Series of requests sent to another node a second time, with their labels, because it did not know them by the short names that members have for series.", nil,
			single(float64(s.Unknown))},
		{"mcached_cluster_write_rerouted_series_total", "counter", "Series of requests sent to another node, because an owner had failed.", nil,
			single(float64(s.Rerouted))},
		{"mcached_cluster_write_failures_total", "counter", "Pieces of requests that a node did not take, by reason: failed (silent, gone, no answer of a node), refused (it had no memory), full (too much was on its way to it).", []string{"reason"},
			func(emit func(float64, ...string)) {
				emit(float64(s.FailedFrames), "failed")
				emit(float64(s.RefusedFrames), "refused")
				emit(float64(s.FullOutboxes), "full")
			}},
		{"mcached_cluster_write_few_copies_series_total", "counter", "Series of requests that came to have fewer copies than --cluster.copies, because nodes had failed.", nil,
			single(float64(s.FewCopies))},
		{"mcached_cluster_write_unacknowledged_series_total", "counter", "Series of requests answered 503, because too few nodes had acknowledged them (--cluster.write-acks).", nil,
			single(float64(s.Unacknowledged))},
		{"mcached_cluster_write_forged_total", "counter", "Requests rejected because their cluster header was not made with this cluster's key.", nil,
			single(float64(s.Forged))},
		{"mcached_cluster_write_outbox_bytes", "gauge", "Bytes of writes that wait for other nodes, or are on their way to them.", nil,
			single(float64(s.OutboxBytes))},
	}
}

// Metrics are the rows of s.
func (s *HandoverStats) Metrics() []Metric {
	return []Metric{
		{"mcached_cluster_handover_slots", "gauge", "Slots of which this member is sending the newest data to members that came to own them: until then they have a copy too few.", nil,
			single(float64(s.Slots))},
		{"mcached_cluster_handover_samples_total", "counter", "Samples and histograms sent to members that came to own them, because others joined, left or were lost.", nil,
			single(float64(s.Samples))},
		{"mcached_cluster_handover_bytes_total", "counter", "Bytes of those.", nil,
			single(float64(s.Bytes))},
		{"mcached_cluster_handover_failed_samples_total", "counter", "Samples that a member did not take though it came to own them.", nil,
			single(float64(s.Failed))},
		{"mcached_cluster_handover_claimed_slots", "gauge", "Slots of which all of the newest --cluster.handover was handed over to this member: it has what their owners had before it.", nil,
			single(float64(s.Claimed))},
	}
}
