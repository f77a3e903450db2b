package ingest

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"mcached/ingest/resp"
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
	latest     bool
	agg        *aggregation
	withLabels bool
	noEmpty    bool // EXCLUDEEMPTY
	selected   []string
	filters    []filter
	groupBy    string
	reducer    string

	explicitFrom, explicitTo bool
	align, stamp             []byte // ALIGN and BUCKETTIMESTAMP, nil for not said
	empty                    bool
	words                    []rangeWord // those that may be said here
}

// wants reports whether a point passes FILTER_BY_VALUE and FILTER_BY_TS.
func (a *rangeArgs) wants(t int64, v float64) bool {
	if a.byValue && !(v >= a.least && v <= a.most) {
		return false
	}
	if a.times == nil {
		return true
	}
	_, ok := slices.BinarySearch(a.times, t)
	return ok
}

// rangeWord is an option. parse takes what follows the word from args, and
// returns the rest or the words of an error.
type rangeWord struct {
	name  string
	multi bool // for TS.MRANGE and its like only
	parse func(a *rangeArgs, args [][]byte) (rest [][]byte, problem string)
}

var rangeWords = [...]rangeWord{
	{"latest", false, func(a *rangeArgs, args [][]byte) ([][]byte, string) { a.latest = true; return args, "" }},
	{"filter_by_ts", false, parseFilterByTimes},
	{"filter_by_value", false, parseFilterByValue},
	{"count", false, parseCount},
	{"align", false, func(a *rangeArgs, args [][]byte) ([][]byte, string) { return parseOne(&a.align, args, "ALIGN") }},
	{"aggregation", false, parseAggregation},
	{"buckettimestamp", false, func(a *rangeArgs, args [][]byte) ([][]byte, string) {
		return parseOne(&a.stamp, args, "BUCKETTIMESTAMP")
	}},
	{"empty", false, func(a *rangeArgs, args [][]byte) ([][]byte, string) { a.empty = true; return args, "" }},
	{"withlabels", true, func(a *rangeArgs, args [][]byte) ([][]byte, string) { a.withLabels = true; return args, "" }},
	{"excludeempty", true, func(a *rangeArgs, args [][]byte) ([][]byte, string) { a.noEmpty = true; return args, "" }},
	{"selected_labels", true, parseSelectedLabels},
	{"filter", true, parseFilterWord},
	{"groupby", true, parseGroupBy},
}

// word finds the option that b names.
func (a *rangeArgs) word(b []byte) *rangeWord {
	for i := range a.words {
		if resp.EqualFold(b, a.words[i].name) {
			return &a.words[i]
		}
	}
	return nil
}

// untilWord takes from args what comes before the next option.
func (a *rangeArgs) untilWord(args [][]byte) (taken, rest [][]byte) {
	n := slices.IndexFunc(args, func(b []byte) bool { return a.word(b) != nil })
	if n < 0 {
		n = len(args)
	}
	return args[:n], args[n:]
}

// rangeOf says what a range is read of: a key, as by TS.RANGE, or whatever
// matches, as by TS.MRANGE, which has more options.
type rangeOf uint8

const (
	ofOne rangeOf = iota
	ofMany
)

// parseRange reads "from to" and the options behind them, and answers what is
// wrong.
func (c *conn) parseRange(args [][]byte, of rangeOf) (a rangeArgs, ok bool) {
	if problem := a.parse(args, of); problem != "" {
		c.Fail("ERR TSDB: " + problem)
		return a, false
	}
	return a, true
}

func (a *rangeArgs) parse(args [][]byte, of rangeOf) (problem string) {
	a.count, a.words = -1, rangeWords[:]
	var ok bool
	if a.from, ok = bound(args[0], "-", 0); !ok {
		return "wrong fromTimestamp"
	}
	if a.to, ok = bound(args[1], "+", mcache.MaxTime); !ok {
		return "wrong toTimestamp"
	}
	a.explicitFrom, a.explicitTo = string(args[0]) != "-", string(args[1]) != "+"
	for args = args[2:]; len(args) > 0; {
		w := a.word(args[0])
		if w == nil || w.multi && of != ofMany {
			return "unknown argument '" + clip(resp.Lower(nil, args[0]), 64) + "'"
		}
		if args, problem = w.parse(a, args[1:]); problem != "" {
			return problem
		}
	}
	return a.settle(of)
}

// settle checks what the options mean together.
func (a *rangeArgs) settle(of rangeOf) (problem string) {
	switch {
	case of == ofMany && a.filters == nil:
		return "missing FILTER argument"
	case a.withLabels && a.selected != nil:
		return "cannot accept WITHLABELS and SELECTED_LABELS together"
	case a.noEmpty && a.groupBy != "":
		return "EXCLUDEEMPTY cannot be used with GROUPBY"
	case a.agg == nil && (a.align != nil || a.stamp != nil || a.empty):
		return "ALIGN, BUCKETTIMESTAMP and EMPTY can only be used with AGGREGATION"
	case a.groupBy != "" && a.agg != nil && len(a.agg.kinds) > 1:
		return "GROUPBY cannot be used with several aggregators"
	case a.agg == nil:
		return ""
	}
	a.agg.empty = a.empty
	if problem = a.settleAlign(); problem != "" {
		return problem
	}
	return a.settleStamp()
}

func (a *rangeArgs) settleAlign() (problem string) {
	var ok bool
	switch {
	case a.align == nil:
	case resp.EqualFold(a.align, "start") || resp.EqualFold(a.align, "-"):
		if !a.explicitFrom {
			return "start alignment can only be used with explicit start timestamp"
		}
		a.agg.alignMs = a.from
	case resp.EqualFold(a.align, "end") || resp.EqualFold(a.align, "+"):
		if !a.explicitTo {
			return "end alignment can only be used with explicit end timestamp"
		}
		a.agg.alignMs = a.to
	default:
		if a.agg.alignMs, ok = resp.ParseInt(a.align); !ok || a.agg.alignMs < 0 || a.agg.alignMs > mcache.MaxTime {
			return "unknown ALIGN parameter"
		}
	}
	return ""
}

func (a *rangeArgs) settleStamp() (problem string) {
	switch {
	case a.stamp == nil || resp.EqualFold(a.stamp, "-") || resp.EqualFold(a.stamp, "start"):
		a.agg.stamp = '-'
	case resp.EqualFold(a.stamp, "~") || resp.EqualFold(a.stamp, "mid"):
		a.agg.stamp = '~'
	case resp.EqualFold(a.stamp, "+") || resp.EqualFold(a.stamp, "end"):
		a.agg.stamp = '+'
	default:
		return "unknown BUCKETTIMESTAMP parameter"
	}
	return ""
}

func bound(b []byte, open string, is int64) (int64, bool) {
	if string(b) == open {
		return is, true
	}
	t, ok := resp.ParseInt(b)
	return min(t, mcache.MaxTime), ok && t >= 0
}

func parseOne(to *[]byte, args [][]byte, name string) (rest [][]byte, problem string) {
	if len(args) == 0 {
		return nil, name + " argument is missing"
	}
	*to = args[0]
	return args[1:], ""
}

func parseFilterByTimes(a *rangeArgs, args [][]byte) (rest [][]byte, problem string) {
	list, rest := a.untilWord(args)
	if len(list) == 0 {
		return nil, "FILTER_BY_TS one or more arguments are missing"
	}
	a.times = make([]int64, 0, len(list))
	for _, b := range list {
		t, ok := resp.ParseInt(b)
		if !ok || t < 0 {
			return nil, "Couldn't parse FILTER_BY_TS"
		}
		a.times = append(a.times, t)
	}
	slices.Sort(a.times)
	return rest, ""
}

func parseFilterByValue(a *rangeArgs, args [][]byte) (rest [][]byte, problem string) {
	if len(args) < 2 {
		return nil, "FILTER_BY_VALUE one or more arguments are missing"
	}
	var ok bool
	if a.least, ok = resp.ParseFloat(args[0]); !ok {
		return nil, "Couldn't parse MIN"
	}
	if a.most, ok = resp.ParseFloat(args[1]); !ok {
		return nil, "Couldn't parse MAX"
	}
	a.byValue = true
	return args[2:], ""
}

func parseCount(a *rangeArgs, args [][]byte) (rest [][]byte, problem string) {
	if len(args) == 0 {
		return nil, "COUNT argument is missing"
	}
	n, ok := resp.ParseInt(args[0])
	if !ok {
		return nil, "Couldn't parse COUNT"
	}
	if n < 1 {
		return nil, "Invalid COUNT value"
	}
	a.count = int(min(n, math.MaxInt32))
	return args[1:], ""
}

func parseAggregation(a *rangeArgs, args [][]byte) (rest [][]byte, problem string) {
	if len(args) < 2 {
		return nil, "Couldn't parse AGGREGATION"
	}
	a.agg = &aggregation{}
	for name := range strings.SplitSeq(string(args[0]), ",") {
		k, ok := parseAggregator([]byte(name))
		if !ok {
			return nil, "Unknown aggregation type"
		}
		if len(a.agg.kinds) == len(aggregators) {
			return nil, fmt.Sprintf("too many aggregators, the limit is %d", len(aggregators))
		}
		a.agg.kinds = append(a.agg.kinds, k)
	}
	var ok bool
	if a.agg.bucketMs, ok = resp.ParseInt(args[1]); !ok {
		return nil, "Couldn't parse AGGREGATION"
	}
	if a.agg.bucketMs <= 0 || a.agg.bucketMs > mcache.MaxTime {
		return nil, "bucketDuration must be greater than zero"
	}
	return args[2:], ""
}

func parseSelectedLabels(a *rangeArgs, args [][]byte) (rest [][]byte, problem string) {
	list, rest := a.untilWord(args)
	if len(list) == 0 {
		return nil, "SELECTED_LABELS should have at least 1 parameter"
	}
	for _, b := range list {
		a.selected = append(a.selected, string(b))
	}
	return rest, ""
}

func parseFilterWord(a *rangeArgs, args [][]byte) (rest [][]byte, problem string) {
	list, rest := a.untilWord(args)
	a.filters, problem = parseFilters(list)
	return rest, problem
}

func parseGroupBy(a *rangeArgs, args [][]byte) (rest [][]byte, problem string) {
	if len(args) < 3 || !resp.EqualFold(args[1], "reduce") {
		return nil, "Couldn't parse GROUPBY"
	}
	a.groupBy = string(args[0])
	var ok bool
	if a.reducer, ok = parseAggregator(args[2]); !ok || a.reducer == "twa" || a.reducer == "first" || a.reducer == "last" {
		return nil, "Invalid reducer type"
	}
	return args[3:], ""
}
