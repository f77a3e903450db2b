package main

import (
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/metadata"

	"mcached/remotewrite/wire"
)

// metadata is what is known of the metrics of a bucket: what senders said, and for
// the default bucket, where the daemon's own metrics are as well, what its registry
// says of those that no sender described. An empty metric means all.
func (d *daemon) metadata(bucket, metric string) map[string][]metadata.Metadata {
	all := map[string][]metadata.Metadata{}
	d.writes.Metadata(bucket, func(name string, m wire.Metadata) bool {
		if metric == "" || metric == name {
			all[name] = append(all[name], metadata.Metadata{Type: model.MetricType(m.Type), Help: m.Help, Unit: m.Unit})
		}
		return true
	})
	if bucket != defaultBucket || d.config.selfScrape == 0 {
		return all
	}
	families, err := d.registry.Gather()
	if err != nil {
		d.log.Debug("The daemon could not read its own metrics.", "err", err)
	}
	for _, f := range families {
		name := f.GetName()
		if len(all[name]) == 0 && (metric == "" || metric == name) {
			all[name] = []metadata.Metadata{{Type: metricType(f.GetType()), Help: f.GetHelp(), Unit: f.GetUnit()}}
		}
	}
	return all
}

func metricType(t dto.MetricType) model.MetricType {
	switch t {
	case dto.MetricType_COUNTER, dto.MetricType_GAUGE, dto.MetricType_SUMMARY, dto.MetricType_HISTOGRAM:
		return model.MetricType(strings.ToLower(t.String()))
	case dto.MetricType_GAUGE_HISTOGRAM:
		return model.MetricTypeGaugeHistogram
	default:
		return model.MetricTypeUnknown
	}
}
