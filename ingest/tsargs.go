package ingest

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"mcached/mcache"
)

// rangeArgs are those of TS.RANGE, and of TS.MRANGE behind them.
type rangeArgs struct {
	from, to   int64
	times      []int64 // FILTER_BY_TS, sorted; nil for all
	byValue    bool
	least      float64
	most       float64
	count      int // -1 for all
	agg        *aggregation
	withLabels bool
	selected   []string
	filters    []filter
	groupBy    string
	reducer    string
}

var rangeKeywords = [...]string{"latest", "filter_by_ts", "filter_by_value", "count", "align", "aggregation",
	"buckettimestamp", "empty", "withlabels", "selected_labels", "filter", "groupby"}

// words takes from args what is not a keyword.
func words(args [][]byte) (taken, rest [][]byte) {
	for i, a := range args {
		for _, w := range rangeKeywords {
			if equalFold(a, w) {
				return args[:i], args[i:]
			}
		}
	}
	return args, nil
}

// parseRange reads "from to" and the options behind them, those of TS.MRANGE
// if multi, and answers what is wrong.
func (c *conn) parseRange(args [][]byte, multi bool) (a rangeArgs, ok bool) {
	a.count = -1
	bad := func(what string) (rangeArgs, bool) {
		c.fail("ERR TSDB: " + what)
		return a, false
	}
	if a.from, ok = bound(args[0], "-", 0); !ok {
		return bad("wrong fromTimestamp")
	}
	if a.to, ok = bound(args[1], "+", mcache.MaxTime); !ok {
		return bad("wrong toTimestamp")
	}
	explicitFrom, explicitTo := string(args[0]) != "-", string(args[1]) != "+"
	var agg aggregation
	var align, stamp []byte
	filtered := false
	for args = args[2:]; len(args) > 0; {
		word := string(lower(nil, args[0]))
		args = args[1:]
		var list [][]byte
		switch {
		case word == "latest": // There are no compactions whose last bucket is open.
		case word == "filter_by_ts":
			list, args = words(args)
			if len(list) == 0 {
				return bad("FILTER_BY_TS one or more arguments are missing")
			}
			a.times = []int64{}
			for _, b := range list {
				t, ok := parseInt(b)
				if !ok || t < 0 {
					return bad("Couldn't parse FILTER_BY_TS")
				}
				a.times = append(a.times, t)
			}
			slices.Sort(a.times)
		case word == "filter_by_value":
			if len(args) < 2 {
				return bad("FILTER_BY_VALUE one or more arguments are missing")
			}
			if a.least, ok = parseFloat(args[0]); !ok {
				return bad("Couldn't parse MIN")
			}
			if a.most, ok = parseFloat(args[1]); !ok {
				return bad("Couldn't parse MAX")
			}
			a.byValue, args = true, args[2:]
		case word == "count":
			if len(args) == 0 {
				return bad("COUNT argument is missing")
			}
			n, ok := parseInt(args[0])
			if !ok {
				return bad("Couldn't parse COUNT")
			}
			if n < 0 {
				return bad("Invalid COUNT value")
			}
			a.count, args = int(min(n, math.MaxInt32)), args[1:]
		case word == "align" && len(args) > 0:
			align, args = args[0], args[1:]
		case word == "aggregation":
			if len(args) < 2 {
				return bad("Couldn't parse AGGREGATION")
			}
			for name := range strings.SplitSeq(string(args[0]), ",") {
				k, ok := parseAggregator([]byte(name))
				if !ok {
					return bad("Unknown aggregation type")
				}
				if len(agg.kinds) == len(aggregators) {
					return bad(fmt.Sprintf("too many aggregators, the limit is %d", len(aggregators)))
				}
				agg.kinds = append(agg.kinds, k)
			}
			if agg.bucketMs, ok = parseInt(args[1]); !ok {
				return bad("Couldn't parse AGGREGATION")
			}
			if agg.bucketMs <= 0 || agg.bucketMs > mcache.MaxTime {
				return bad("bucketDuration must be greater than zero")
			}
			a.agg, args = &agg, args[2:]
		case word == "buckettimestamp" && len(args) > 0:
			stamp, args = args[0], args[1:]
		case word == "empty":
			agg.empty = true
		case multi && word == "withlabels":
			a.withLabels = true
		case multi && word == "selected_labels":
			if list, args = words(args); len(list) == 0 {
				return bad("SELECTED_LABELS should have at least 1 parameter")
			}
			for _, b := range list {
				a.selected = append(a.selected, string(b))
			}
		case multi && word == "filter":
			list, args = words(args)
			if a.filters, ok = c.parseFilters(list); !ok {
				return a, false
			}
			filtered = true
		case multi && word == "groupby":
			if len(args) < 3 || !equalFold(args[1], "reduce") {
				return bad("Couldn't parse GROUPBY")
			}
			a.groupBy = string(args[0])
			if a.reducer, ok = parseAggregator(args[2]); !ok || a.reducer == "twa" || a.reducer == "first" || a.reducer == "last" {
				return bad("Invalid reducer type")
			}
			args = args[3:]
		default:
			return bad("unknown argument '" + clip([]byte(word), 64) + "'")
		}
	}
	switch {
	case multi && !filtered:
		return bad("missing FILTER argument")
	case a.withLabels && a.selected != nil:
		return bad("cannot accept WITHLABELS and SELECTED_LABELS together")
	case a.agg == nil && (align != nil || stamp != nil || agg.empty):
		return bad("ALIGN, BUCKETTIMESTAMP and EMPTY can only be used with AGGREGATION")
	case a.groupBy != "" && a.agg != nil && len(agg.kinds) > 1:
		return bad("GROUPBY cannot be used with several aggregators")
	case a.agg == nil:
		return a, true
	}
	switch {
	case align == nil:
	case equalFold(align, "start") || equalFold(align, "-"):
		if !explicitFrom {
			return bad("start alignment can only be used with explicit start timestamp")
		}
		agg.alignMs = a.from
	case equalFold(align, "end") || equalFold(align, "+"):
		if !explicitTo {
			return bad("end alignment can only be used with explicit end timestamp")
		}
		agg.alignMs = a.to
	default:
		if agg.alignMs, ok = parseInt(align); !ok || agg.alignMs < 0 || agg.alignMs > mcache.MaxTime {
			return bad("unknown ALIGN parameter")
		}
	}
	switch {
	case stamp == nil || equalFold(stamp, "-") || equalFold(stamp, "start"):
		agg.stamp = '-'
	case equalFold(stamp, "~") || equalFold(stamp, "mid"):
		agg.stamp = '~'
	case equalFold(stamp, "+") || equalFold(stamp, "end"):
		agg.stamp = '+'
	default:
		return bad("unknown BUCKETTIMESTAMP parameter")
	}
	return a, true
}

func bound(b []byte, open string, is int64) (int64, bool) {
	if string(b) == open {
		return is, true
	}
	t, ok := parseInt(b)
	return min(t, mcache.MaxTime), ok && t >= 0
}
