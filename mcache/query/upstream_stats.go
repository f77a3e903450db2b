package query

import (
	"github.com/prometheus/prometheus/util/stats"
)

// joinedStats are the statistics of a query that was split: those of memory's
// part, as Prometheus writes them, and how long each part took.
type joinedStats struct {
	*stats.BuiltinStats
	Parts struct {
		Memory   partStats `json:"memory"`
		Upstream partStats `json:"upstream"`
	} `json:"parts"`
}

// partStats are those of one half.
type partStats struct {
	Steps   int     `json:"steps"`
	Seconds float64 `json:"seconds"` // of the store: until its answer began, and what was read ahead
	Queries int     `json:"queries"`
}

// statistics are those of the query.
func (j *joint) statistics() joinedStats {
	var s joinedStats
	for _, h := range j.heres {
		of := stats.NewQueryStats(h.query.Stats()).Builtin()
		if s.BuiltinStats == nil {
			s.BuiltinStats = &of
		} else {
			s.add(&of)
		}
		s.Parts.Memory.Steps += h.to - h.span.from
	}
	for _, p := range j.askeds {
		s.Parts.Upstream.Steps += p.to - p.from
	}
	s.Parts.Memory.Queries, s.Parts.Upstream.Queries = len(j.heres), len(j.askeds)+len(j.seams)
	s.Parts.Memory.Seconds, s.Parts.Upstream.Seconds = j.hereTook.Seconds(), j.storeTook.Seconds()
	return s
}

// add adds another run of steps.
func (s *joinedStats) add(of *stats.BuiltinStats) {
	t, o := &s.Timings, &of.Timings
	t.EvalTotalTime += o.EvalTotalTime
	t.ResultSortTime += o.ResultSortTime
	t.QueryPreparationTime += o.QueryPreparationTime
	t.InnerEvalTime += o.InnerEvalTime
	t.ExecQueueTime += o.ExecQueueTime
	t.ExecTotalTime += o.ExecTotalTime
	if s.Samples == nil || of.Samples == nil {
		return
	}
	s.Samples.TotalQueryableSamples += of.Samples.TotalQueryableSamples
	s.Samples.SamplesRead += of.Samples.SamplesRead
	s.Samples.SamplesReadPerStep = append(s.Samples.SamplesReadPerStep, of.Samples.SamplesReadPerStep...)
	s.Samples.PeakSamples = max(s.Samples.PeakSamples, of.Samples.PeakSamples)
	s.Samples.TotalQueryableSamplesPerStep = append(s.Samples.TotalQueryableSamplesPerStep, of.Samples.TotalQueryableSamplesPerStep...)
}
