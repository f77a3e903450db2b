package promqltest

import (
	"testing"

	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
)

// TestScripts runs every evaluation of every script of Prometheus on mcaches.
func TestScripts(t *testing.T) {
	caches := 0
	engine := promqltest.NewTestEngine(t, false, 0, promqltest.DefaultMaxSamplesPerQuery)
	promqltest.RunBuiltinTestsWithStorage(t, engine, func(tb testing.TB) storage.Storage {
		caches++
		return newCacheStorage(tb, 0)
	})
	// What the scripts of v0.315.0 have. Less means that they did not run.
	const wantEvaluations, wantFiles = 2243, 21
	evaluations, err := promqltest.GetBuiltInExprs()
	if err != nil || len(evaluations) != wantEvaluations || caches < wantFiles {
		t.Errorf("%d evaluations on %d caches, %v; expected %d on at least %d", len(evaluations), caches, err, wantEvaluations, wantFiles)
	}
}
