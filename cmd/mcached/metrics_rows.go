package main

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"mcached/ingest/admission"
	"mcached/kvcache/pressure"
	"mcached/mcache"
)

// row is one metric of the daemon's own. Read emits its series: one without
// label values, or one for each set of them, in the order of labels.
type row struct {
	name, help string
	kind       prometheus.ValueType
	labels     []string
	read       func(s *stats, emit func(v float64, labelValues ...string))
}

// rows is the table of metrics that are read from Stats. /metrics is filled
// from it and METRICS.md is printed from it, so neither can drift.
func rows() []row {
	one := func(f func(s *stats) float64) func(*stats, func(float64, ...string)) {
		return func(s *stats, emit func(float64, ...string)) { emit(f(s)) }
	}
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	return []row{
		{"mcached_memory_budget_bytes", "Bytes that the daemon may hold outside the Go heap now.", gauge, nil,
			one(func(s *stats) float64 { return float64(s.memory.BudgetBytes) })},
		{"mcached_memory_used_bytes", "Bytes held outside the Go heap: regions and indexes.", gauge, nil,
			one(func(s *stats) float64 { return float64(s.memory.UsedBytes) })},
		{"mcached_memory_heap_limit_bytes", "Soft limit of the Go heap, which is not part of the budget.", gauge, nil,
			one(func(s *stats) float64 { return float64(s.heapLimit) })},
		{"mcached_memory_index_bytes", "Bytes of indexes, part of the used bytes.", gauge, nil,
			one(func(s *stats) float64 { return float64(s.memory.SpanBytes) })},
		{"mcached_memory_region_size_bytes", "Size of every region.", gauge, nil,
			one(func(s *stats) float64 { return float64(s.memory.RegionBytes) })},
		{"mcached_memory_regions", "Regions held, by state: in use, or spare (resident but empty).", gauge, []string{"state"},
			func(s *stats, emit func(float64, ...string)) {
				emit(float64(s.memory.RegionsInUse), "in_use")
				emit(float64(s.memory.RegionsSpare), "spare")
			}},
		{"mcached_memory_account_bytes", "Bytes in use, by account: regions and indexes of metrics, of what was evicted of them (overflow), of Redis clients' values (blobs).", gauge, []string{"account"},
			func(s *stats, emit func(float64, ...string)) {
				for _, a := range s.accounts {
					emit(float64(a.UsedBytes), a.name)
				}
			}},
		{"mcached_memory_account_share_bytes", "Bytes that an account may hold when others want the room.", gauge, []string{"account"},
			func(s *stats, emit func(float64, ...string)) {
				for _, a := range s.accounts {
					emit(float64(a.ShareBytes), a.name)
				}
			}},
		{"mcached_memory_regions_reclaimed_total", "Regions taken from their owners, oldest first, with what was in them.", counter, nil,
			one(func(s *stats) float64 { return float64(s.memory.RegionsReclaimed) })},
		{"mcached_memory_returned_bytes_total", "Bytes given back to the operating system.", counter, nil,
			one(func(s *stats) float64 { return float64(s.memory.BytesReturned) })},
		{"mcached_memory_owners_dropped_total", "Times a shard forgot everything because the budget was below its indexes.", counter, nil,
			one(func(s *stats) float64 { return float64(s.memory.OwnersDropped) })},

		{"mcached_pressure_available_bytes", "Memory that the tightest limit, the machine's or a control group's, has available; not there if the size is fixed.", gauge, []string{"limit"},
			byLimit(func(p pressure.Stats) int64 { return p.AvailableBytes })},
		{"mcached_pressure_floor_bytes", "Available memory below which the budget falls at once.", gauge, []string{"limit"},
			byLimit(func(p pressure.Stats) int64 { return p.FloorBytes })},
		{"mcached_pressure_ceiling_bytes", "Available memory above which the budget grows after a time of quiet.", gauge, []string{"limit"},
			byLimit(func(p pressure.Stats) int64 { return p.CeilingBytes })},
		{"mcached_pressure_total_bytes", "Size of the tightest limit.", gauge, []string{"limit"},
			byLimit(func(p pressure.Stats) int64 { return p.TotalBytes })},
		{"mcached_pressure_polls_total", "Readings of the machine's memory.", counter, nil,
			one(func(s *stats) float64 { return float64(s.pressure.Polls) })},
		{"mcached_pressure_failures_total", "Readings that could not be had or could not be right.", counter, nil,
			one(func(s *stats) float64 { return float64(s.pressure.Failures) })},
		{"mcached_pressure_stuck_total", "Readings that did not move although much was released; they are not followed.", counter, nil,
			one(func(s *stats) float64 { return float64(s.pressure.Stuck) })},
		{"mcached_pressure_releases_total", "Times the budget fell.", counter, nil,
			one(func(s *stats) float64 { return float64(s.pressure.Releases) })},
		{"mcached_pressure_released_bytes_total", "Bytes by which the budget fell, altogether.", counter, nil,
			one(func(s *stats) float64 { return float64(s.pressure.ReleasedBytes) })},
		{"mcached_pressure_regrowths_total", "Times the budget grew.", counter, nil,
			one(func(s *stats) float64 { return float64(s.pressure.Regrowths) })},

		{"mcached_series", "Series held.", gauge, []string{"bucket"},
			func(s *stats, emit func(float64, ...string)) {
				for _, b := range s.series.Buckets {
					emit(float64(b.Series), b.Name)
				}
			}},
		{"mcached_series_points", "Samples held, by generation: 1 is hot, 3 is cold, overflow was evicted and is still there.", gauge, []string{"generation"},
			func(s *stats, emit func(float64, ...string)) {
				byGeneration(func(g mcache.GenerationStats) float64 { return float64(g.Points) })(s, emit)
				emit(float64(s.series.BlobPoints), "overflow")
			}},
		{"mcached_series_keys", "Series and raw keys held, by generation.", gauge, []string{"generation"},
			byGeneration(func(g mcache.GenerationStats) float64 { return float64(g.Keys) })},
		{"mcached_series_generation_bytes", "Bytes of samples, by generation.", gauge, []string{"generation"},
			byGeneration(func(g mcache.GenerationStats) float64 { return float64(g.Bytes) })},
		{"mcached_series_bytes", "Bytes of the metric cache by what holds them: heads that are written, sealed blocks, directories of blocks, the index, evicted series (overflow).", gauge, []string{"part"},
			func(s *stats, emit func(float64, ...string)) {
				emit(float64(s.series.Hot.LiveBytes), "heads")
				emit(float64(s.series.Log.LiveBytes), "blocks")
				emit(float64(s.series.Dir.LiveBytes), "directories")
				emit(float64(s.series.IndexBytes), "index")
				emit(float64(s.series.Blobs.LiveBytes), "overflow")
			}},
		{"mcached_series_dead_bytes", "Bytes of the metric cache's regions that are deleted and not yet compacted.", gauge, nil,
			one(func(s *stats) float64 {
				return float64(s.series.Hot.DeadBytes + s.series.Log.DeadBytes + s.series.Dir.DeadBytes + s.series.Blobs.DeadBytes)
			})},
		{"mcached_series_samples_inserted_total", "New samples taken in. Those held are these less all that left.", counter, nil,
			one(func(s *stats) float64 { return float64(s.series.Inserted) })},
		{"mcached_series_samples_overwritten_total", "Samples that replaced one of the same time.", counter, nil,
			one(func(s *stats) float64 { return float64(s.series.Overwritten) })},
		{"mcached_series_samples_mended_total", "Late samples that were put into blocks already sealed.", counter, nil,
			one(func(s *stats) float64 { return float64(s.series.Mended) })},
		{"mcached_series_samples_left_total", "Samples that left, by how: evicted, taken, popped, removed with their bucket, or reclaimed with their memory.", counter, []string{"how"},
			func(s *stats, emit func(float64, ...string)) {
				emit(float64(s.series.Overflowed), "evicted")
				emit(float64(s.series.Taken), "taken")
				emit(float64(s.series.Popped), "popped")
				emit(float64(s.series.Removed), "removed")
				emit(float64(s.series.Reclaimed), "reclaimed")
			}},
		{"mcached_series_evictions_total", "Series and raw keys evicted by size.", counter, nil,
			one(func(s *stats) float64 { return float64(s.series.Evictions) })},
		{"mcached_overflow_written_total", "Series whose samples were moved into an overflow blob.", counter, nil,
			one(func(s *stats) float64 { return float64(s.series.BlobsWritten) })},
		{"mcached_overflow_read_total", "Reads of series that reached into their overflow blob.", counter, nil,
			one(func(s *stats) float64 { return float64(s.series.BlobsRead) })},
		{"mcached_overflow_restored_total", "Overflow blobs taken apart again, for a late sample or a deletion.", counter, nil,
			one(func(s *stats) float64 { return float64(s.series.BlobsRestored) })},
		{"mcached_overflow_refused_total", "Series evicted for good because there was no memory for a blob.", counter, nil,
			one(func(s *stats) float64 { return float64(s.series.BlobsRefused) })},
		{"mcached_overflow_samples_lost_total", "Samples that vanished with the memory of overflow blobs; part of those reclaimed.", counter, nil,
			one(func(s *stats) float64 { return float64(s.series.BlobsLost) })},
		{"mcached_series_index_rebuilds_total", "Times a shard's index was rebuilt to be rid of dead entries.", counter, nil,
			one(func(s *stats) float64 { return float64(s.series.Rebuilds) })},
		{"mcached_bucket_age", "Times a bucket has aged.", gauge, []string{"bucket"},
			func(s *stats, emit func(float64, ...string)) {
				for _, b := range s.series.Buckets {
					emit(float64(b.Age), b.Name)
				}
			}},
		{"mcached_bucket_max_series", "Series a bucket may have, and of one metric name; not there if there is no limit.", gauge, []string{"bucket", "of"},
			func(s *stats, emit func(float64, ...string)) {
				for _, b := range s.series.Buckets {
					if b.Limits.Series > 0 {
						emit(float64(b.Limits.Series), b.Name, "bucket")
					}
					if b.Limits.SeriesPerMetric > 0 {
						emit(float64(b.Limits.SeriesPerMetric), b.Name, "metric")
					}
				}
			}},
		{"mcached_bucket_series_refused_total", "New series that a bucket's limits refused, whoever wrote them, each time that they came.", counter, []string{"bucket", "of"},
			func(s *stats, emit func(float64, ...string)) {
				for _, b := range s.series.Buckets {
					emit(float64(b.OverSeries), b.Name, "bucket")
					emit(float64(b.OverMetric), b.Name, "metric")
				}
			}},
		{"mcached_bucket_samples_total", "Samples written to a bucket, those that overwrote others included.", counter, []string{"bucket"},
			func(s *stats, emit func(float64, ...string)) {
				for _, b := range s.series.Buckets {
					emit(float64(b.Inserts), b.Name)
				}
			}},

		{"mcached_remote_write_requests_total", "Remote-write requests of any outcome.", counter, nil,
			one(func(s *stats) float64 { return float64(s.write.Requests) })},
		{"mcached_remote_write_processed_total", "Remote-write requests written, wholly or in part, by protocol.", counter, []string{"protocol"},
			func(s *stats, emit func(float64, ...string)) {
				emit(float64(s.write.RequestsV1), "1.0")
				emit(float64(s.write.RequestsV2), "2.0")
			}},
		{"mcached_remote_write_refused_total", "Remote-write requests answered with an error, those written in part included, by status code.", counter, []string{"code"},
			func(s *stats, emit func(float64, ...string)) {
				emit(float64(s.write.Refused400), "400")
				emit(float64(s.write.Refused413), "413")
				emit(float64(s.write.Refused415), "415")
				emit(float64(s.write.Refused503), "503")
				emit(float64(s.write.RefusedOther), "other")
			}},
		{"mcached_remote_write_not_admitted_total", "Remote-write requests sent back because too many bytes were in flight; part of those refused.", counter, nil,
			one(func(s *stats) float64 { return float64(s.write.NotAdmitted) })},
		{"mcached_remote_write_new_series_floods_total", "Remote-write requests with more new series than --remote-write.max-new-series allows; part of those refused.", counter, nil,
			one(func(s *stats) float64 { return float64(s.write.NewSeriesFlood) })},
		{"mcached_remote_write_slow_bodies_total", "Remote-write requests whose body took too long; part of those refused.", counter, nil,
			one(func(s *stats) float64 { return float64(s.write.SlowBodies) })},
		{"mcached_remote_write_body_bytes_total", "Bytes of remote-write requests as they came.", counter, nil,
			one(func(s *stats) float64 { return float64(s.write.BodyBytes) })},
		{"mcached_remote_write_decoded_bytes_total", "Bytes of remote-write requests after decompression.", counter, nil,
			one(func(s *stats) float64 { return float64(s.write.DecodedBytes) })},
		{"mcached_remote_write_samples_total", "Samples written by remote write.", counter, nil,
			one(func(s *stats) float64 { return float64(s.write.Samples) })},
		{"mcached_remote_write_early_samples_total", "Samples and histograms written by remote write with a time before March 1973, such as one in seconds; part of those written.", counter, nil,
			one(func(s *stats) float64 { return float64(s.write.EarlySamples) })},
		{"mcached_remote_write_histograms_total", "Native histograms written by remote write.", counter, nil,
			one(func(s *stats) float64 { return float64(s.write.Histograms) })},
		{"mcached_remote_write_exemplars_total", "Exemplars written by remote write.", counter, nil,
			one(func(s *stats) float64 { return float64(s.write.Exemplars) })},
		{"mcached_remote_write_series_total", "Series in remote-write requests, by whether the cache knew them.", counter, []string{"known"},
			func(s *stats, emit func(float64, ...string)) {
				emit(float64(s.write.SeriesReceived-s.write.SeriesUnknown), "true")
				emit(float64(s.write.SeriesUnknown), "false")
			}},
		{"mcached_remote_write_not_written_total", "Elements of remote-write requests that were not written, by reason.", counter, []string{"reason"},
			func(s *stats, emit func(float64, ...string)) {
				emit(float64(s.write.InvalidSeries), "invalid_labels")
				emit(float64(s.write.EmptySeries), "empty_series")
				emit(float64(s.write.SamplesInFuture), "in_future")
				emit(float64(s.write.SeriesOverLimit), "series_limit")
				emit(float64(s.write.MetricOverLimit), "series_per_metric_limit")
				emit(float64(s.write.InvalidHistograms), "invalid_histogram")
				emit(float64(s.write.InvalidExemplars), "invalid_exemplar")
				emit(float64(s.write.SeriesRefused), "refused_by_cache")
				emit(float64(s.write.MetadataNotStored), "metadata")
			}},

		{"mcached_forward_samples_total", "Samples and histograms handed to --forward.url, by result: those it rejects are lost to it. Not there if nothing is forwarded, as are all of mcached_forward_…", counter, []string{"result"},
			forwarding(func(s *stats, emit func(float64, ...string)) {
				emit(float64(s.forward.Sent), "taken")
				emit(float64(s.forward.Rejected), "rejected")
			})},
		{"mcached_forward_runs_total", "Runs of samples of one series each that were collected for --forward.url: the longer they are, the less a sample costs.", counter, nil,
			forwarding(one(func(s *stats) float64 { return float64(s.forward.Runs) }))},
		{"mcached_forward_requests_total", "Requests to --forward.url of any outcome.", counter, nil,
			forwarding(one(func(s *stats) float64 { return float64(s.forward.Requests) }))},
		{"mcached_forward_retries_total", "Requests to --forward.url that it was not available for, and that are sent again.", counter, nil,
			forwarding(one(func(s *stats) float64 { return float64(s.forward.Retries) }))},
		{"mcached_forward_splits_total", "Requests to --forward.url cut in two to find what it rejects.", counter, nil,
			forwarding(one(func(s *stats) float64 { return float64(s.forward.Splits) }))},
		{"mcached_forward_forced_total", "Times everything was forwarded because memory or the bound on waiting samples asked for it.", counter, nil,
			forwarding(one(func(s *stats) float64 { return float64(s.forward.Forced) }))},
		{"mcached_forward_bytes_total", "Bytes of request bodies to --forward.url, compressed.", counter, nil,
			forwarding(one(func(s *stats) float64 { return float64(s.forward.Bytes) }))},
		{"mcached_forward_in_flight_samples", "Samples that --forward.url was sent and has not acknowledged.", gauge, nil,
			forwarding(one(func(s *stats) float64 { return float64(s.forward.InFlight) }))},
		{"mcached_forward_last_success_timestamp_seconds", "When --forward.url last took something; 0 if never.", gauge, nil,
			forwarding(one(func(s *stats) float64 {
				if s.forward.LastSuccess.IsZero() {
					return 0
				}
				return float64(s.forward.LastSuccess.UnixMilli()) / 1000
			}))},
		{"mcached_forward_dirty_samples", "Samples that --forward.url has not acknowledged, those on their way included.", gauge, nil,
			forwarding(one(func(s *stats) float64 { return float64(s.dirty.Points) }))},
		{"mcached_forward_dirty_limit_samples", "Samples that may wait for --forward.url before writes are told to come back.", gauge, nil,
			forwarding(one(func(s *stats) float64 { return float64(s.dirty.MaxPoints) }))},
		{"mcached_forward_dirty_age_seconds", "How long the oldest of those samples has waited.", gauge, nil,
			forwarding(one(func(s *stats) float64 { return s.forward.OldestAge.Seconds() }))},
		{"mcached_forward_refused_total", "Writes told to come back because too many samples waited for --forward.url.", counter, nil,
			forwarding(one(func(s *stats) float64 { return float64(s.dirty.Refused) }))},

		{"mcached_config_last_reload_successful", "1 if all files are in force as they are now, 0 if one that has changed was not taken, or the last reload was not.", gauge, nil,
			one(func(s *stats) float64 { return s.reload.right })},
		{"mcached_config_last_reload_success_timestamp_seconds", "When the daemon was last started or reloaded without a failure.", gauge, nil,
			one(func(s *stats) float64 { return s.reload.lastSuccess })},
		{"mcached_config_reloads_total", "Reloads that were asked for, by result.", counter, []string{"result"},
			func(s *stats, emit func(float64, ...string)) {
				emit(s.reload.total-s.reload.failed, "success")
				emit(s.reload.failed, "failure")
			}},

		{"mcached_snapshot_last_success_timestamp_seconds", "When the newest snapshot was begun that is whole, that of a daemon before this one included; 0 if there is none.", gauge, nil,
			snapshots(one(func(s *stats) float64 {
				if s.snapshot.lastSuccess.IsZero() {
					return 0
				}
				return float64(s.snapshot.lastSuccess.UnixMilli()) / 1000
			}))},
		{"mcached_snapshot_duration_seconds", "How long this daemon's last snapshot took to write; 0 before the first.", gauge, nil,
			snapshots(one(func(s *stats) float64 { return s.snapshot.took.Seconds() }))},
		{"mcached_snapshot_size_bytes", "Size of the newest snapshot.", gauge, nil,
			snapshots(one(func(s *stats) float64 { return float64(s.snapshot.bytes) }))},
		{"mcached_snapshot_errors_total", "Snapshots that were not written (save), or not read as a whole (load).", counter, []string{"op"},
			snapshots(func(s *stats, emit func(float64, ...string)) {
				emit(float64(s.snapshot.saveErrors), "save")
				emit(float64(s.snapshot.loadErrors), "load")
			})},

		{"mcached_query_requests_total", "Requests to read metrics, by kind.", counter, []string{"kind"},
			func(s *stats, emit func(float64, ...string)) {
				emit(float64(s.query.InstantQueries), "instant")
				emit(float64(s.query.RangeQueries), "range")
				emit(float64(s.query.Lookups), "lookup")
				emit(float64(s.query.RemoteReads), "remote_read")
			}},
		{"mcached_query_errors_total", "Requests to read metrics that were answered with an error.", counter, nil,
			one(func(s *stats) float64 { return float64(s.query.Errors) })},
		{"mcached_query_rejected_total", "Requests to read metrics that were turned away because too many waited; part of the errors.", counter, nil,
			one(func(s *stats) float64 { return float64(s.query.Rejected) })},
		{"mcached_query_incomplete_total", "Answers that said from when on they are complete: because older samples were evicted or reclaimed (evicted), or because the daemon was down or not written to before (uncovered).", counter, []string{"reason"},
			func(s *stats, emit func(float64, ...string)) {
				emit(float64(s.query.Incomplete), "evicted")
				emit(float64(s.query.Uncovered), "uncovered")
			}},
		{"mcached_query_slow_total", "Queries and remote reads that took at least --query.log-slower-than.", counter, nil,
			one(func(s *stats) float64 { return float64(s.query.Slow) })},
		{"mcached_query_series_total", "Series selected by requests.", counter, nil,
			one(func(s *stats) float64 { return float64(s.query.Series) })},
		{"mcached_query_samples_total", "Samples read by requests.", counter, nil,
			one(func(s *stats) float64 { return float64(s.query.Samples) })},
		{"mcached_query_response_bytes_total", "Bytes of answers, before compression.", counter, nil,
			one(func(s *stats) float64 { return float64(s.query.ResponseBytes) })},
		{"mcached_query_requests", "Requests to read metrics that are under way, by state.", gauge, []string{"state"},
			func(s *stats, emit func(float64, ...string)) {
				emit(float64(s.query.Running), "running")
				emit(float64(s.query.Waiting), "waiting")
			}},

		{"mcached_resp_connections", "Redis clients connected.", gauge, nil,
			one(func(s *stats) float64 { return float64(s.resp.Connections) })},
		{"mcached_resp_connections_accepted_total", "Connections of Redis clients.", counter, nil,
			one(func(s *stats) float64 { return float64(s.resp.ConnectionsAccepted) })},
		{"mcached_resp_connections_closed_total", "Connections of Redis clients that the daemon refused or ended, by reason.", counter, []string{"reason"},
			func(s *stats, emit func(float64, ...string)) {
				emit(float64(s.resp.ConnectionsRefused), "max_clients")
				emit(float64(s.resp.ConnectionsTimedOut), "timeout")
				emit(float64(s.resp.ConnectionsShed), "not_admitted")
			}},
		{"mcached_resp_commands_total", "Commands of Redis clients.", counter, nil,
			one(func(s *stats) float64 { return float64(s.resp.Commands) })},
		{"mcached_resp_errors_total", "Commands answered with an error, and breaches of the protocol.", counter, []string{"kind"},
			func(s *stats, emit func(float64, ...string)) {
				emit(float64(s.resp.CommandErrors), "command")
				emit(float64(s.resp.ProtocolErrors), "protocol")
			}},
		{"mcached_resp_bytes_total", "Bytes read from and written to Redis clients.", counter, []string{"direction"},
			func(s *stats, emit func(float64, ...string)) {
				emit(float64(s.resp.BytesRead), "read")
				emit(float64(s.resp.BytesWritten), "written")
			}},

		{"mcached_admission_in_flight_bytes", "Bytes in hand for clients: write (being worked on), input (not whole yet), stranger (not whole, before the password), read (results and unread answers).", gauge, []string{"kind"},
			byKind(func(s *admission.Stats, k admission.Kind) float64 { return float64(s.Bytes[k]) })},
		{"mcached_admission_limit_bytes", "What each kind may have in hand; together they may have what writes may.", gauge, []string{"kind"},
			byKind(func(s *admission.Stats, k admission.Kind) float64 { return float64(s.Limits[k]) })},
		{"mcached_admission_in_flight_requests", "Writes being worked on.", gauge, nil,
			one(func(s *stats) float64 { return float64(s.admission.Requests) })},
		{"mcached_admission_waiting", "Requests that wait for others to give back bytes.", gauge, nil,
			one(func(s *stats) float64 { return float64(s.admission.Waiting) })},
		{"mcached_admission_admitted_total", "Writes let in.", counter, nil,
			one(func(s *stats) float64 { return float64(s.admission.Admitted) })},
		{"mcached_admission_refused_total", "Requests told to come back, by what there was too much of: bytes of a kind, or requests.", counter, []string{"bound", "kind"},
			func(s *stats, emit func(float64, ...string)) {
				for _, k := range admission.Kinds {
					emit(float64(s.admission.RefusedBytes[k]), "bytes", k.String())
				}
				emit(float64(s.admission.RefusedRequests), "requests", admission.Write.String())
			}},
		{"mcached_admission_cut_total", "Requests cut off because their rest did not come and others needed the room.", counter, []string{"kind"},
			byKind(func(s *admission.Stats, k admission.Kind) float64 { return float64(s.Cut[k]) })},

		{"mcached_blobs_entries", "Blobs held, expired ones that were not found yet included.", gauge, nil,
			one(func(s *stats) float64 { return float64(s.blobs.Entries) })},
		{"mcached_blobs_bytes", "Bytes of the blobs' regions by what they hold, and of their index.", gauge, []string{"state"},
			func(s *stats, emit func(float64, ...string)) {
				emit(float64(s.blobs.LiveBytes), "live")
				emit(float64(s.blobs.DeadBytes), "dead")
				emit(float64(s.blobs.FreeBytes), "free")
				emit(float64(s.blobs.IndexBytes), "index")
			}},
		{"mcached_blobs_overhead_bytes", "Bytes an average blob costs beside its key and value: header, padding, its share of the index.", gauge, nil,
			one(func(s *stats) float64 { return s.blobs.OverheadPerEntry() })},
		{"mcached_blobs_gets_total", "Reads of blobs, by result.", counter, []string{"result"},
			func(s *stats, emit func(float64, ...string)) {
				emit(float64(s.blobs.Hits), "hit")
				emit(float64(s.blobs.Misses), "miss")
			}},
		{"mcached_blobs_puts_total", "Writes of blobs.", counter, nil,
			one(func(s *stats) float64 { return float64(s.blobs.Puts) })},
		{"mcached_blobs_removed_total", "Blobs that left, by reason.", counter, []string{"reason"},
			func(s *stats, emit func(float64, ...string)) {
				emit(float64(s.blobs.Deletes), "deleted")
				emit(float64(s.blobs.Expired), "expired")
				emit(float64(s.blobs.Evicted), "evicted")
			}},
		{"mcached_blobs_reinserted_total", "Blobs kept when their region aged out, because they had been read.", counter, nil,
			one(func(s *stats) float64 { return float64(s.blobs.Reinserted) })},
		{"mcached_blobs_promoted_total", "Blobs of those that left probation by it.", counter, nil,
			one(func(s *stats) float64 { return float64(s.blobs.Promoted) })},
		{"mcached_blobs_returned_total", "Blobs written again soon after probation had dropped them, which skip it.", counter, nil,
			one(func(s *stats) float64 { return float64(s.blobs.Returned) })},
		{"mcached_blobs_probation_bytes", "Bytes of blobs that were not read since they were written.", gauge, nil,
			one(func(s *stats) float64 { return float64(s.blobs.ProbationBytes) })},
		{"mcached_blobs_regions_compacted_total", "Regions whose dead space was won back by copying the rest.", counter, nil,
			one(func(s *stats) float64 { return float64(s.blobs.Compacted) })},
		{"mcached_blobs_refused_total", "Writes refused because there was no memory at all.", counter, nil,
			one(func(s *stats) float64 { return float64(s.blobs.Refused) })},
	}
}

// snapshots emits what read does, if the daemon has a snapshot.
func snapshots(read func(*stats, func(float64, ...string))) func(*stats, func(float64, ...string)) {
	return func(s *stats, emit func(float64, ...string)) {
		if s.snapshot != nil {
			read(s, emit)
		}
	}
}

// forwarding emits what read does, if the daemon forwards.
func forwarding(read func(*stats, func(float64, ...string))) func(*stats, func(float64, ...string)) {
	return func(s *stats, emit func(float64, ...string)) {
		if s.forward != nil {
			read(s, emit)
		}
	}
}

// byGeneration sums f over the buckets, generation by generation.
func byGeneration(f func(mcache.GenerationStats) float64) func(*stats, func(float64, ...string)) {
	return func(s *stats, emit func(float64, ...string)) {
		var sums [3]float64
		for _, b := range s.series.Buckets {
			for i, g := range b.Generations {
				sums[i] += f(g)
			}
		}
		for i, v := range sums {
			emit(v, strconv.Itoa(i+1))
		}
	}
}

// byLimit emits f under the name of the tightest limit, if the size is automatic.
func byLimit(f func(pressure.Stats) int64) func(*stats, func(float64, ...string)) {
	return func(s *stats, emit func(float64, ...string)) {
		if s.pressure.Automatic {
			emit(float64(f(s.pressure)), s.pressure.LimitName)
		}
	}
}

// byKind reads a figure of admission for each kind of what is held.
func byKind(f func(s *admission.Stats, k admission.Kind) float64) func(*stats, func(float64, ...string)) {
	return func(s *stats, emit func(float64, ...string)) {
		for _, k := range admission.Kinds {
			emit(f(&s.admission, k), k.String())
		}
	}
}
