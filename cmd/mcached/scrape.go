package main

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"os"
	"sort"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"mcached/mcache"
)

// selfScraper stores the daemon's own metrics in its cache, so that a fresh
// start has data to look at and an operator without a Prometheus has history.
// They go to two buckets: to selfBucket, where nobody else writes and from
// which the status page draws, and to the one that queries read by default.
// The first is never handed on to --forward.url, the other only if that is asked
// for: the metrics of a cache are for whoever scrapes it, and two daemons before
// one store would be in each other's way.
//
// What it stores is what a Prometheus would that scraped /metrics: the labels
// job and instance, histograms and summaries as their component series, the
// five series about the scrape itself, and a stale marker for each series that
// was there the last time and is not now.
type selfScraper struct {
	cache    *mcache.Cache
	gatherer prometheus.Gatherer
	bucket   string // beside selfBucket
	forward  bool   // what goes to bucket is handed on as other samples are
	job      string
	instance string
	interval time.Duration
	now      func() time.Time
	log      *slog.Logger

	previous map[string][]mcache.Label // series of the last scrape, by key
	refused  int                       // samples that the last scrape could not store
}

// selfJob is the label that the daemon's own series have, as if a Prometheus
// scraped them under that name.
const selfJob = "mcached"

// instanceName is the instance label of the daemon's own series: the name of
// the machine, or the container, and the port of the first listener, since
// "[::]:9201" is the same for all daemons.
func instanceName(configured string, listener net.Addr) string {
	if configured != "" {
		return configured
	}
	host, port, err := net.SplitHostPort(listener.String())
	if err != nil {
		return listener.String()
	}
	if name, err := os.Hostname(); err == nil && name != "" {
		host = name
	}
	return net.JoinHostPort(host, port)
}

// alignWithin is how late a scrape may be and still carry the time at which it
// was due. Prometheus does the same: equal distances cost no bytes.
const alignWithin = 2 * time.Millisecond

// run scrapes at once and then every interval, until ctx ends.
func (s *selfScraper) run(ctx context.Context) error {
	ticker := time.NewTicker(s.interval)
	defer ticker.Stop()
	due := s.now()
	for {
		at := s.now()
		if late := at.Sub(due).Abs(); late <= alignWithin {
			at = due
		} else {
			due = at // a ticker that lost ticks, or a clock that was set
		}
		s.scrape(at)
		due = due.Add(s.interval)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// scrape stores one reading under the time at.
func (s *selfScraper) scrape(at time.Time) {
	started := s.now()
	families, err := s.gatherer.Gather()
	if err != nil {
		// A partial answer would be an error page to a Prometheus: nothing is stored, all goes stale.
		s.log.Error("The daemon could not read its own metrics.", "err", err)
		families = nil
	}
	took := s.now().Sub(started)

	ms := at.UnixMilli()
	current := make(map[string][]mcache.Label, len(s.previous)+16)
	refused, samples, added := 0, 0, 0
	var lastErr error
	store := func(ls []mcache.Label, t int64, v uint64) {
		x := mcache.Sample{T: t, V: v}
		write := s.cache.AppendLocal
		if s.forward {
			write = s.cache.AppendSamples
		}
		if err := errors.Join(s.cache.AppendLocal(selfBucket, ls, x), write(s.bucket, ls, x)); err != nil {
			refused++
			lastErr = err
		}
	}
	for _, f := range families {
		samplesOf(f, func(m *dto.Metric, name, extraName, extraValue string, v float64) {
			ls := s.seriesLabels(name, m, extraName, extraValue)
			key := labelKey(ls)
			current[key] = ls
			samples++
			if _, ok := s.previous[key]; !ok {
				added++
			}
			t := ms
			if m.TimestampMs != nil {
				t = m.GetTimestampMs()
			}
			store(ls, t, math.Float64bits(v))
		})
	}
	for key, ls := range s.previous {
		if _, ok := current[key]; !ok {
			store(ls, ms, value.StaleNaN)
		}
	}
	up := 1.0
	if err != nil {
		up = 0
	}
	for _, r := range []struct {
		name string
		v    float64
	}{
		{"up", up},
		{"scrape_duration_seconds", took.Seconds()},
		{"scrape_samples_scraped", float64(samples)},
		{"scrape_samples_post_metric_relabeling", float64(samples)},
		{"scrape_series_added", float64(added)},
	} {
		store(s.seriesLabels(r.name, nil, "", ""), ms, math.Float64bits(r.v))
	}
	s.previous = current

	if refused > 0 && s.refused == 0 { // once, not at every scrape of a full cache
		s.log.Warn("The daemon's own metrics were not stored.", "samples", refused, "err", lastErr)
	}
	s.refused = refused
}

// seriesLabels gives a series' labels sorted by name, without empty values.
func (s *selfScraper) seriesLabels(name string, m *dto.Metric, extraName, extraValue string) []mcache.Label {
	ls := make([]mcache.Label, 0, len(m.GetLabel())+4)
	ls = append(ls,
		mcache.Label{Name: "__name__", Value: name},
		mcache.Label{Name: "instance", Value: s.instance},
		mcache.Label{Name: "job", Value: s.job},
	)
	for _, l := range m.GetLabel() {
		if l.GetValue() != "" {
			ls = append(ls, mcache.Label{Name: l.GetName(), Value: l.GetValue()})
		}
	}
	if extraName != "" {
		ls = append(ls, mcache.Label{Name: extraName, Value: extraValue})
	}
	sort.Slice(ls, func(i, j int) bool { return ls[i].Name < ls[j].Name })
	return ls
}

// labelKey is the same for the same labels and for no others: 0xff is in no UTF-8.
func labelKey(ls []mcache.Label) string {
	var b []byte
	for _, l := range ls {
		b = append(append(append(append(b, l.Name...), 0xff), l.Value...), 0xff)
	}
	return string(b)
}

// samplesOf calls emit for every sample of a family, under the names and with
// the extra label that the text format gives them.
func samplesOf(f *dto.MetricFamily, emit func(m *dto.Metric, name, extraName, extraValue string, v float64)) {
	name := f.GetName()
	for _, m := range f.GetMetric() {
		switch f.GetType() {
		case dto.MetricType_COUNTER:
			emit(m, name, "", "", m.GetCounter().GetValue())
		case dto.MetricType_GAUGE:
			emit(m, name, "", "", m.GetGauge().GetValue())
		case dto.MetricType_UNTYPED:
			emit(m, name, "", "", m.GetUntyped().GetValue())
		case dto.MetricType_SUMMARY:
			for _, q := range m.GetSummary().GetQuantile() {
				emit(m, name, "quantile", labels.FormatOpenMetricsFloat(q.GetQuantile()), q.GetValue())
			}
			emit(m, name+"_sum", "", "", m.GetSummary().GetSampleSum())
			emit(m, name+"_count", "", "", float64(m.GetSummary().GetSampleCount()))
		case dto.MetricType_HISTOGRAM, dto.MetricType_GAUGE_HISTOGRAM:
			h := m.GetHistogram()
			infinite := false
			for _, b := range h.GetBucket() {
				infinite = infinite || math.IsInf(b.GetUpperBound(), 1)
				emit(m, name+"_bucket", "le", labels.FormatOpenMetricsFloat(b.GetUpperBound()), float64(b.GetCumulativeCount()))
			}
			if !infinite {
				emit(m, name+"_bucket", "le", "+Inf", float64(h.GetSampleCount()))
			}
			emit(m, name+"_sum", "", "", h.GetSampleSum())
			emit(m, name+"_count", "", "", float64(h.GetSampleCount()))
		}
	}
}
