package ingest

import "mcached/ingest/script"

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
		{"mcached_resp_connections", "gauge", "Redis clients connected.", nil,
			single(float64(s.Connections))},
		{"mcached_resp_connections_accepted_total", "counter", "Connections of Redis clients.", nil,
			single(float64(s.ConnectionsAccepted))},
		{"mcached_resp_connections_closed_total", "counter", "Connections of Redis clients that the daemon refused or ended, by reason.", []string{"reason"},
			func(emit func(float64, ...string)) {
				emit(float64(s.ConnectionsRefused), "max_clients")
				emit(float64(s.ConnectionsMadeWay), "made_way")
				emit(float64(s.ConnectionsTimedOut), "timeout")
				emit(float64(s.ConnectionsShed), "not_admitted")
			}},
		{"mcached_resp_commands_total", "counter", "Commands of Redis clients.", nil,
			single(float64(s.Commands))},
		{"mcached_resp_errors_total", "counter", "Commands answered with an error, and breaches of the protocol.", []string{"kind"},
			func(emit func(float64, ...string)) {
				emit(float64(s.CommandErrors), "command")
				emit(float64(s.ProtocolErrors), "protocol")
			}},
		{"mcached_resp_elsewhere_total", "counter", "Commands for keys of other members of the cluster: whose clients were sent there (moved), and that were passed on (proxied).", []string{"kind"},
			func(emit func(float64, ...string)) {
				emit(float64(s.Moved), "moved")
				emit(float64(s.Proxied), "proxied")
			}},
		{"mcached_resp_copies_keys_total", "counter", "Keys that were sent to the members that hold their second copies (--cluster.blob-copies=2), each time that they were.", nil,
			single(float64(s.KeysCopied))},
		{"mcached_resp_copies_slots", "gauge", "Slots of Redis keys that this member serves and of which another has a complete copy, and a third knows that it is.", nil,
			single(float64(s.UnitsCopied * unitSlots))},
		{"mcached_resp_copies_voided_total", "counter", "Times that a member with complete copies of this one's keys did not answer and was passed over: it is sent all of them again.", nil,
			single(float64(s.CopiesVoided))},
		{"mcached_resp_copies_inherited_slots_total", "counter", "Slots that this member has served since their owner was lost: with the keys that it had copies of (kept), and with none although there were some, because they were not known to be complete (dropped).", []string{"outcome"},
			func(emit func(float64, ...string)) {
				emit(float64(s.UnitsAdopted*unitSlots), "kept")
				emit(float64(s.UnitsDropped*unitSlots), "dropped")
			}},
		{"mcached_resp_scripts_ended_total", "counter", "Lua scripts of Redis clients that did not end by themselves, by what ended them: a bound on time, memory or instructions, SCRIPT KILL, or a failure of the interpreter.", []string{"reason"},
			func(emit func(float64, ...string)) {
				for by := script.NotEnded + 1; by < script.Ends; by++ {
					emit(float64(s.ScriptsEnded[by]), by.String())
				}
			}},
		{"mcached_resp_bytes_total", "counter", "Bytes read from and written to Redis clients.", []string{"direction"},
			func(emit func(float64, ...string)) {
				emit(float64(s.BytesRead), "read")
				emit(float64(s.BytesWritten), "written")
			}},
	}
}
