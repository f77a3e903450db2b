package main

import (
	"fmt"
	"runtime/debug"

	"github.com/prometheus/common/version"

	"mcached/mcache/query"
)

// buildInfo is what status/buildinfo says. Grafana and others read the version
// as Prometheus' and ask for no more than that one can, so it is the version of
// the Prometheus whose engine answers; the branch says who really does.
func buildInfo() query.BuildInfo {
	return query.BuildInfo{
		Version: prometheusVersion(), Revision: version.GetRevision(), Branch: "mcached-" + version.Version,
		BuildUser: version.BuildUser, BuildDate: version.BuildDate, GoVersion: version.GoVersion,
	}
}

// prometheusVersion translates the version of the Go module, v0.315.0, into
// that of the program, 3.15.0.
func prometheusVersion() string {
	const whenUnknown = "3.0.0" // a build without module information
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return whenUnknown
	}
	for _, m := range info.Deps {
		if m.Path != "github.com/prometheus/prometheus" {
			continue
		}
		var minor, patch int
		if n, _ := fmt.Sscanf(m.Version, "v0.%d.%d", &minor, &patch); n == 2 {
			return fmt.Sprintf("%d.%d.%d", minor/100, minor%100, patch)
		}
	}
	return whenUnknown
}
