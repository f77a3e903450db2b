package pressure

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
		{"mcached_pressure_available_bytes", "gauge", "Memory that the tightest limit, the machine's or a control group's, has available; not there if the size is fixed.", []string{"limit"},
			s.byLimit(s.AvailableBytes)},
		{"mcached_pressure_floor_bytes", "gauge", "Available memory below which the budget falls at once.", []string{"limit"},
			s.byLimit(s.FloorBytes)},
		{"mcached_pressure_ceiling_bytes", "gauge", "Available memory above which the budget grows after a time of quiet.", []string{"limit"},
			s.byLimit(s.CeilingBytes)},
		{"mcached_pressure_total_bytes", "gauge", "Size of the tightest limit.", []string{"limit"},
			s.byLimit(s.TotalBytes)},
		{"mcached_pressure_polls_total", "counter", "Readings of the machine's memory.", nil,
			single(float64(s.Polls))},
		{"mcached_pressure_failures_total", "counter", "Readings that failed or were implausible.", nil,
			single(float64(s.Failures))},
		{"mcached_pressure_stuck_total", "counter", "Readings that did not change although much was released; they are ignored.", nil,
			single(float64(s.Stuck))},
		{"mcached_pressure_releases_total", "counter", "Times the budget fell.", nil,
			single(float64(s.Releases))},
		{"mcached_pressure_released_bytes_total", "counter", "Bytes by which the budget fell, altogether.", nil,
			single(float64(s.ReleasedBytes))},
		{"mcached_pressure_regrowths_total", "counter", "Times the budget grew.", nil,
			single(float64(s.Regrowths))},
	}
}

// byLimit reads v under the name of the tightest limit, if the size is automatic.
func (s *Stats) byLimit(v int64) func(func(float64, ...string)) {
	return func(emit func(float64, ...string)) {
		if s.Automatic {
			emit(float64(v), s.LimitName)
		}
	}
}
