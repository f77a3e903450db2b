package query

import (
	"maps"
	"slices"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// Features are what of PromQL is only there for whoever asks for it: the same
// as Prometheus' --enable-feature turns on, by the same names.
type Features struct {
	ExperimentalFunctions  bool // promql-experimental-functions
	ExtendedRangeSelectors bool // promql-extended-range-selectors
	BinopFillModifiers     bool // promql-binop-fill-modifiers
	DelayedNameRemoval     bool // promql-delayed-name-removal
	TypeAndUnitLabels      bool // type-and-unit-labels, as far as it concerns queries
	UseStartTimestamps     bool // use-start-timestamps
}

// features are the names, and what each turns on. Those that turn on nothing
// are what this engine always does.
var features = map[string]func(*Features){
	"promql-experimental-functions":   func(f *Features) { f.ExperimentalFunctions = true },
	"promql-extended-range-selectors": func(f *Features) { f.ExtendedRangeSelectors = true },
	"promql-binop-fill-modifiers":     func(f *Features) { f.BinopFillModifiers = true },
	"promql-delayed-name-removal":     func(f *Features) { f.DelayedNameRemoval = true },
	"type-and-unit-labels":            func(f *Features) { f.TypeAndUnitLabels = true },
	"use-start-timestamps":            func(f *Features) { f.UseStartTimestamps = true },

	"promql-duration-expr":  func(*Features) {},
	"promql-per-step-stats": func(*Features) {},
}

// FeatureNames lists what Enable knows, in order.
func FeatureNames() []string { return slices.Sorted(maps.Keys(features)) }

// Enable turns a feature on. False means that it is none of the engine's.
func (f *Features) Enable(name string) bool {
	enable, ok := features[name]
	if ok {
		enable(f)
	}
	return ok
}

// unplanned reports that the engine computes something else than plans do: it
// keeps names until the end, judges counters by their types, or counts them
// from their start times.
func (f *Features) unplanned() bool {
	return f.DelayedNameRemoval || f.TypeAndUnitLabels || f.UseStartTimestamps
}

func (f *Features) parserOptions() parser.Options {
	return parser.Options{
		EnableExperimentalFunctions:  f.ExperimentalFunctions,
		ExperimentalDurationExpr:     true, // as in Prometheus since 3.13
		EnableExtendedRangeSelectors: f.ExtendedRangeSelectors,
		EnableBinopFillModifiers:     f.BinopFillModifiers,
	}
}

func (f *Features) apply(o *promql.EngineOpts) {
	o.EnableAtModifier, o.EnableNegativeOffset, o.EnablePerStepStats = true, true, true
	o.EnableDelayedNameRemoval = f.DelayedNameRemoval
	o.EnableTypeAndUnitLabels = f.TypeAndUnitLabels
	o.UseStartTimestamps = f.UseStartTimestamps
}
