package admission

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
		{"mcached_admission_in_flight_bytes", "gauge", "Bytes in flight for clients: write (in progress), input (requests not received completely), stranger (the same, before authentication), read (results and unread answers).", []string{"kind"},
			byKind(func(k Kind) float64 { return float64(s.Bytes[k]) })},
		{"mcached_admission_limit_bytes", "gauge", "Bytes that each kind may have in flight; all together may have what writes may.", []string{"kind"},
			byKind(func(k Kind) float64 { return float64(s.Limits[k]) })},
		{"mcached_admission_in_flight_requests", "gauge", "Writes in progress.", nil,
			single(float64(s.Requests))},
		{"mcached_admission_waiting", "gauge", "Requests that wait for bytes that others have in flight.", nil,
			single(float64(s.Waiting))},
		{"mcached_admission_admitted_total", "counter", "Writes admitted.", nil,
			single(float64(s.Admitted))},
		{"mcached_admission_refused_total", "counter", "Requests rejected, by the bound that they hit: bytes of a kind, or requests.", []string{"bound", "kind"},
			func(emit func(float64, ...string)) {
				for _, k := range Kinds {
					emit(float64(s.RefusedBytes[k]), "bytes", k.String())
				}
				emit(float64(s.RefusedRequests), "requests", Write.String())
			}},
		{"mcached_admission_cut_total", "counter", "Stalled requests aborted because others needed their bytes.", []string{"kind"},
			byKind(func(k Kind) float64 { return float64(s.Cut[k]) })},
	}
}

// byKind reads a figure for each kind of what is held.
func byKind(f func(k Kind) float64) func(func(float64, ...string)) {
	return func(emit func(float64, ...string)) {
		for _, k := range Kinds {
			emit(f(k), k.String())
		}
	}
}
