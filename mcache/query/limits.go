package query

import (
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// limits are the bounds that may change while queries come in, with the engines
// that were made with them. They are immutable: a query that looks at them once
// has the same throughout.
type limits struct {
	timeout, slowerThan, lookback        time.Duration
	maxSamples, maxSeries, maxQueryBytes int

	engine  *promql.Engine
	planned *promql.Engine // the same, for what handoff has
}

// SetLimits replaces Timeout, MaxSamples, MaxSeries, MaxQueryBytes, MaxConcurrency,
// LookbackDelta and SlowerThan. As in Options, zero means the default; the other
// fields of o are ignored. Queries under way keep what they began with.
func (a *API) SetLimits(o Options) {
	o = o.withDefaults()
	l := &limits{
		timeout: o.Timeout, slowerThan: o.SlowerThan, lookback: o.LookbackDelta,
		maxSamples: o.MaxSamples, maxSeries: o.MaxSeries, maxQueryBytes: o.MaxQueryBytes,
	}
	l.engine, l.planned = a.newEngine(l, a.parser), a.newEngine(l, &a.handoff)
	a.limits.Store(l)
	for _, g := range [...]*gate{a.queries, a.reads, a.lookups} {
		g.slots.set(o.MaxConcurrency)
	}
	a.asked.slots.set(askedFactor * o.MaxConcurrency)
}

func (a *API) newEngine(l *limits, p parser.Parser) *promql.Engine {
	engine := promql.EngineOpts{
		Logger:                   a.o.Logger,
		MaxSamples:               l.maxSamples,
		Timeout:                  l.timeout,
		LookbackDelta:            l.lookback,
		NoStepSubqueryIntervalFn: func(int64) int64 { return a.subqueryStep().Milliseconds() },
		Parser:                   p,
	}
	a.o.Features.apply(&engine)
	return promql.NewEngine(engine)
}
