package query

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
		{"mcached_query_requests_total", "counter", "Requests to read metrics, by kind.", []string{"kind"},
			func(emit func(float64, ...string)) {
				emit(float64(s.InstantQueries), "instant")
				emit(float64(s.RangeQueries), "range")
				emit(float64(s.Lookups), "lookup")
				emit(float64(s.RemoteReads), "remote_read")
			}},
		{"mcached_query_errors_total", "counter", "Requests to read metrics that were answered with an error.", nil,
			single(float64(s.Errors))},
		{"mcached_query_rejected_total", "counter", "Requests to read metrics rejected because too many waited; part of the errors.", nil,
			single(float64(s.Rejected))},
		{"mcached_query_incomplete_total", "counter", "Answers that said from when on they are complete: because older samples were evicted or reclaimed (evicted), or because the daemon was down or not written to before (uncovered).", []string{"reason"},
			func(emit func(float64, ...string)) {
				emit(float64(s.Incomplete), "evicted")
				emit(float64(s.Uncovered), "uncovered")
			}},
		{"mcached_query_results_total", "counter", "Aggregations over the time of range queries, by where their results came from: remembered, as a whole; extended, where all but the newest steps were remembered; or computed.", []string{"source"},
			func(emit func(float64, ...string)) {
				emit(float64(s.ResultsRecalled), "remembered")
				emit(float64(s.ResultsExtended), "extended")
				emit(float64(s.ResultsComputed), "computed")
			}},
		{"mcached_upstream_queries_total", "counter", "Requests to --query.upstream for what memory lacks, by what became of them: answered; refused, as wrong or as what that server cannot answer (no remote read, or an mcached that lacks it, too); failed, without an answer; or skipped, as it had failed before.", []string{"outcome"},
			func(emit func(float64, ...string)) {
				emit(float64(s.UpstreamAnswered), "answered")
				emit(float64(s.UpstreamRefused), "refused")
				emit(float64(s.UpstreamFailed), "failed")
				emit(float64(s.UpstreamSkipped), "skipped")
			}},
		{"mcached_upstream_steps_total", "counter", "Steps of range queries, and instant queries, with --query.upstream, by who computed them: memory, that server (upstream), or that server before, whose answer was remembered (remembered).", []string{"source"},
			func(emit func(float64, ...string)) {
				emit(float64(s.UpstreamStepsHere), "memory")
				emit(float64(s.UpstreamRecalled), "remembered")
				emit(float64(s.UpstreamStepsAsked), "upstream")
			}},
		{"mcached_upstream_kept_steps_total", "counter", "Steps of answers of --query.upstream that were put into memory, to be remembered.", nil,
			single(float64(s.UpstreamKept))},
		{"mcached_upstream_unrecorded_answers_total", "counter", "Answers of --query.upstream that were not remembered because too many others were being encoded, or too much of clients' memory was in use.", nil,
			single(float64(s.UpstreamUnrecorded))},
		{"mcached_upstream_split_queries_total", "counter", "Range queries that memory and --query.upstream answered together.", nil,
			single(float64(s.UpstreamSplit))},
		{"mcached_upstream_disagreements_total", "counter", "Queries of which memory and --query.upstream had other values: where their parts meet (seam), so that the answer was the server's, or when an answer of memory's was compared afterwards (audit).", []string{"found"},
			func(emit func(float64, ...string)) {
				emit(float64(s.UpstreamDisagreed), "seam")
				emit(float64(s.UpstreamAuditsDiffered), "audit")
			}},
		{"mcached_upstream_audits_total", "counter", "Queries answered from memory that --query.upstream was to be asked as well (--query.upstream.audit), by outcome: agreed; differed; failed, without an answer; or skipped, because another was under way or the two cannot be compared.", []string{"outcome"},
			func(emit func(float64, ...string)) {
				emit(float64(s.UpstreamAuditsAgreed), "agreed")
				emit(float64(s.UpstreamAuditsDiffered), "differed")
				emit(float64(s.UpstreamAuditsFailed), "failed")
				emit(float64(s.UpstreamAuditsSkipped), "skipped")
			}},
		{"mcached_upstream_paused_metrics", "gauge", "Metrics whose queries are not split now, as memory and --query.upstream disagreed about them.", nil,
			single(float64(s.UpstreamPaused))},
		{"mcached_upstream_response_bytes_total", "counter", "Bytes of the answers of --query.upstream, as received.", nil,
			single(float64(s.UpstreamBytes))},
		{"mcached_upstream_request_seconds_total", "counter", "Time that requests to --query.upstream took until the heads of their answers.", nil,
			single(s.UpstreamSeconds)},
		{"mcached_query_slow_total", "counter", "Queries and remote reads that took at least --query.log-slower-than.", nil,
			single(float64(s.Slow))},
		{"mcached_query_series_total", "counter", "Series selected by requests.", nil,
			single(float64(s.Series))},
		{"mcached_query_samples_total", "counter", "Samples read by requests.", nil,
			single(float64(s.Samples))},
		{"mcached_query_response_bytes_total", "counter", "Bytes of answers, before compression.", nil,
			single(float64(s.ResponseBytes))},
		{"mcached_query_requests", "gauge", "Requests to read metrics in progress, by state.", []string{"state"},
			func(emit func(float64, ...string)) {
				emit(float64(s.Running), "running")
				emit(float64(s.Waiting), "waiting")
			}},
	}
}

// Metrics are the rows of s.
func (s *FanOutStats) Metrics() []Metric {
	return []Metric{
		{"mcached_cluster_read_requests_total", "counter", "Requests to other members for what is read here, by outcome: answered, failed, or late: not waited for because the others had all of it.", []string{"outcome"},
			func(emit func(float64, ...string)) {
				emit(float64(s.Answered), "answered")
				emit(float64(s.Failed), "failed")
				emit(float64(s.Late), "late")
			}},
		{"mcached_cluster_read_served_total", "counter", "Requests of other members that were answered.", nil,
			single(float64(s.Served))},
		{"mcached_cluster_read_refused_total", "counter", "Requests in the name of members that were not signed by one, or not understood.", nil,
			single(float64(s.Refused))},
		{"mcached_cluster_read_bytes_total", "counter", "Bytes of answers between members, by direction.", []string{"direction"},
			func(emit func(float64, ...string)) {
				emit(float64(s.Sent), "sent")
				emit(float64(s.Received), "received")
			}},
		{"mcached_cluster_plans_total", "counter", "Aggregations and rates of range queries, by how they were computed: by the members (pushed), by them but for series whose copies differed (repaired), or from all samples here (merged).", []string{"how"},
			func(emit func(float64, ...string)) {
				emit(float64(s.Pushed), "pushed")
				emit(float64(s.Repaired), "repaired")
				emit(float64(s.Raw), "merged")
			}},
		{"mcached_cluster_unequal_series_total", "counter", "Series whose copies differed when a plan was computed, and that were merged from samples.", nil,
			single(float64(s.Unequal))},
	}
}
