package main

import (
	"slices"
	"strings"

	"mcached/mcache/query"
)

// featureList is the value of --enable-feature, as Prometheus has it: names
// between commas, repeatable, and one that is not known draws a warning only.
type featureList []string

// Set implements kingpin.Value.
func (l *featureList) Set(s string) error {
	for name := range strings.SplitSeq(s, ",") {
		if name = strings.TrimSpace(name); name != "" && !slices.Contains(*l, name) {
			*l = append(*l, name)
		}
	}
	return nil
}

// String implements kingpin.Value.
func (l *featureList) String() string {
	if l == nil {
		return ""
	}
	return strings.Join(*l, ",")
}

// IsCumulative tells kingpin that the flag may be repeated.
func (l *featureList) IsCumulative() bool { return true }

// features are those that the list turns on, and what there is to say about the
// rest of it.
func (l featureList) features() (f query.Features, warnings []string) {
	for _, name := range l {
		switch {
		case f.Enable(name):
		case slices.Contains(others, name):
			warnings = append(warnings, "--enable-feature="+name+" concerns parts of Prometheus that are not here, and has no effect")
		default:
			warnings = append(warnings, "Unknown option for --enable-feature: "+name+"; known are "+strings.Join(query.FeatureNames(), ", "))
		}
	}
	return f, warnings
}

// others are names that Prometheus knows for its other parts. Whoever copies a
// command line of Prometheus should not look for a typing error.
var others = []string{
	"auto-reload-config", "concurrent-rule-eval", "created-timestamp-zero-ingestion", "delayed-compaction", "exemplar-storage",
	"extra-scrape-metrics", "fast-startup", "histograms-st-encoding", "memory-snapshot-on-shutdown", "metadata-wal-records",
	"native-histograms", "old-ui", "ooo-native-histograms", "openmetrics2", "otlp-deltatocumulative", "otlp-native-delta-ingestion",
	"search-api", "st-storage", "st-synthesis", "use-uncached-io", "xor2-encoding", "zstd-scrape",
}
