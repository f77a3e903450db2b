package main

import "mcached/ingest/cluster"

// clusterStats are those of a member, for metrics.
type clusterStats struct{ cluster.Stats }

func (s *clusterStats) metrics() []metric {
	flag := func(is bool) func(func(float64, ...string)) {
		if is {
			return single(1)
		}
		return single(0)
	}
	return []metric{
		{"mcached_cluster_members", "gauge", "Members of the cluster that this one sees, itself included, by state. When members see different numbers, the cluster is split.", []string{"state"},
			func(emit func(float64, ...string)) {
				for state, n := range s.Members {
					emit(float64(n), cluster.State(state).String())
				}
			}},
		{"mcached_cluster_alone", "gauge", "1 if no member was met although --cluster.join names some.", nil, flag(s.Alone)},
		{"mcached_cluster_suspects", "gauge", "Members that did not answer this one lately, and are passed over.", nil, single(float64(s.Suspects))},
		{"mcached_cluster_members_differing", "gauge", "Members with another first key, --cluster.copies, --cluster.blob-copies, --cluster.spread, --cluster.ignore-labels or --tenancy.header than this one.", nil, single(float64(s.Differing))},
		{"mcached_cluster_clock_skew_seconds", "gauge", "How far the clock of the member that differs most is from this one's, as of its last probe.", nil, single(s.ClockSkew.Seconds())},
		{"mcached_cluster_table_version", "gauge", "Tables that this member made: one for each change of the members.", nil, single(float64(s.TableVersion))},
		{"mcached_cluster_eras", "gauge", "Times with different owners that are remembered, to know what is complete.", nil, single(float64(s.Eras))},
		{"mcached_cluster_slots", "gauge", "Slots, of 16384, that this member owns: of series as the first owner and as any, and of Redis keys as the first.", []string{"of"},
			func(emit func(float64, ...string)) {
				emit(float64(s.First), "series_first")
				emit(float64(s.Any), "series")
				emit(float64(s.Keys), "keys")
			}},
		{"mcached_cluster_slots_short_of_copies", "gauge", "Slots of series with fewer owners that are ready than --cluster.copies.", nil, single(float64(s.ShortSlots))},
		{"mcached_cluster_members_lost_total", "counter", "Members that went without saying so: killed, or cut off.", nil, single(float64(s.Lost))},
		{"mcached_cluster_members_refused_total", "counter", "Descriptions and histories of members that were not acceptable.", nil, single(float64(s.Refused))},
		{"mcached_cluster_rejoins_total", "counter", "Times that a seed or a lost member was asked and answered.", nil, single(float64(s.Rejoined))},
		{"mcached_cluster_passed_over_total", "counter", "Times that a suspect member was passed over.", nil, single(float64(s.PassedOver))},
		{"mcached_cluster_gossip_errors_total", "counter", "Warnings and errors of gossip: packets that could not be read, members that did not answer a probe.", nil, single(float64(s.GossipErrors))},
	}
}
