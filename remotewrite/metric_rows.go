package remotewrite

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
		{"mcached_remote_write_requests_total", "counter", "Remote-write requests of any outcome.", nil,
			single(float64(s.Requests))},
		{"mcached_remote_write_processed_total", "counter", "Remote-write requests written, wholly or in part, by protocol.", []string{"protocol"},
			func(emit func(float64, ...string)) {
				emit(float64(s.RequestsV1), "1.0")
				emit(float64(s.RequestsV2), "2.0")
			}},
		{"mcached_remote_write_refused_total", "counter", "Remote-write requests answered with an error, those written in part included, by status code.", []string{"code"},
			func(emit func(float64, ...string)) {
				emit(float64(s.Refused400), "400")
				emit(float64(s.Refused413), "413")
				emit(float64(s.Refused415), "415")
				emit(float64(s.Refused503), "503")
				emit(float64(s.RefusedOther), "other")
			}},
		{"mcached_remote_write_not_admitted_total", "counter", "Remote-write requests rejected because too many bytes were in flight; part of those refused.", nil,
			single(float64(s.NotAdmitted))},
		{"mcached_remote_write_new_series_floods_total", "counter", "Remote-write requests with more new series than --remote-write.max-new-series allows; part of those refused.", nil,
			single(float64(s.NewSeriesFlood))},
		{"mcached_remote_write_slow_bodies_total", "counter", "Remote-write requests whose body took too long; part of those refused.", nil,
			single(float64(s.SlowBodies))},
		{"mcached_remote_write_body_bytes_total", "counter", "Bytes of remote-write requests before decompression.", nil,
			single(float64(s.BodyBytes))},
		{"mcached_remote_write_decoded_bytes_total", "counter", "Bytes of remote-write requests after decompression.", nil,
			single(float64(s.DecodedBytes))},
		{"mcached_remote_write_samples_total", "counter", "Samples written by remote write.", nil,
			single(float64(s.Samples))},
		{"mcached_remote_write_early_samples_total", "counter", "Samples and histograms written by remote write with a time before March 1973, such as one in seconds; part of those written.", nil,
			single(float64(s.EarlySamples))},
		{"mcached_remote_write_histograms_total", "counter", "Native histograms written by remote write.", nil,
			single(float64(s.Histograms))},
		{"mcached_remote_write_exemplars_total", "counter", "Exemplars written by remote write.", nil,
			single(float64(s.Exemplars))},
		{"mcached_remote_write_series_total", "counter", "Series in remote-write requests, by whether the cache knew them.", []string{"known"},
			func(emit func(float64, ...string)) {
				emit(float64(s.SeriesReceived-s.SeriesUnknown), "true")
				emit(float64(s.SeriesUnknown), "false")
			}},
		{"mcached_remote_write_not_written_total", "counter", "Elements of remote-write requests that were not written, by reason.", []string{"reason"},
			func(emit func(float64, ...string)) {
				emit(float64(s.InvalidSeries), "invalid_labels")
				emit(float64(s.EmptySeries), "empty_series")
				emit(float64(s.SamplesInFuture), "in_future")
				emit(float64(s.SeriesOverLimit), "series_limit")
				emit(float64(s.MetricOverLimit), "series_per_metric_limit")
				emit(float64(s.InvalidHistograms), "invalid_histogram")
				emit(float64(s.InvalidExemplars), "invalid_exemplar")
				emit(float64(s.SeriesRefused), "refused_by_cache")
				emit(float64(s.MetadataNotStored), "metadata")
			}},
	}
}
