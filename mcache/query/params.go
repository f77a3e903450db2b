package query

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// The ends of time, as Prometheus puts them: what a client sends that means "all".
var (
	minTime = time.Unix(math.MinInt64/1000+62135596801, 0).UTC()
	maxTime = time.Unix(math.MaxInt64/1000-62135596801, 999999999).UTC()
)

// maxSeconds bounds a time given as a number: its milliseconds fit an int64.
// That excludes what is no number.
const maxSeconds = math.MaxInt64 / 1000

// parseTime reads seconds since 1970, with a fraction, or RFC 3339.
func parseTime(s string) (time.Time, error) {
	if t, err := strconv.ParseFloat(s, 64); err == nil && math.Abs(t) <= maxSeconds {
		whole, fraction := math.Modf(t)
		fraction = math.Round(fraction*1000) / 1000
		return time.Unix(int64(whole), int64(fraction*float64(time.Second))).UTC(), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	// The years of the ends of time have more digits than package time reads.
	for _, t := range [...]time.Time{minTime, maxTime} {
		if s == t.Format(time.RFC3339Nano) {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("cannot parse %q to a valid timestamp", s)
}

func timeParam(r *http.Request, name string, absent time.Time) (time.Time, error) {
	s := r.FormValue(name)
	if s == "" {
		return absent, nil
	}
	t, err := parseTime(s)
	if err != nil {
		return t, badParam(name, fmt.Errorf("invalid time value for '%s': %w", name, err))
	}
	return t, nil
}

// timeRange reads the optional parameters start and end, in unix ms.
func timeRange(r *http.Request) (start, end int64, err error) {
	from, err := timeParam(r, "start", minTime)
	if err != nil {
		return 0, 0, err
	}
	to, err := timeParam(r, "end", maxTime)
	if err != nil {
		return 0, 0, err
	}
	return from.UnixMilli(), to.UnixMilli(), nil
}

// parseDuration reads seconds, with a fraction, or a duration like 1h30m.
func parseDuration(s string) (time.Duration, error) {
	if d, err := strconv.ParseFloat(s, 64); err == nil {
		ns := d * float64(time.Second)
		// As floats these bounds are powers of two: 2^63 itself does not fit.
		if !(ns < float64(math.MaxInt64) && ns >= float64(math.MinInt64)) {
			return 0, fmt.Errorf("cannot parse %q to a valid duration. It overflows int64", s)
		}
		return time.Duration(ns), nil
	}
	if d, err := model.ParseDuration(s); err == nil {
		return time.Duration(d), nil
	}
	return 0, fmt.Errorf("cannot parse %q to a valid duration", s)
}

// limitParam reads how many results are wanted; 0 means all.
func limitParam(r *http.Request) (int, error) {
	s := r.FormValue("limit")
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err == nil && n < 0 {
		err = errors.New("limit must be non-negative")
	}
	if err != nil {
		return 0, badParam("limit", err)
	}
	return n, nil
}

// errTruncated is the warning that goes with results cut at the limit.
var errTruncated = errors.New("results truncated due to limit")

// oneMore is the limit to ask the cache for: one result too many tells that
// there are more.
func oneMore(limit int) int {
	if limit > 0 && limit < math.MaxInt {
		return limit + 1
	}
	return limit
}

// withTimeout bounds ctx by the limit of the API and by the request's own, if
// that is less. One that has passed already, as of timeout=0, is told as any that
// passes (503), as Prometheus 2 does. Of Prometheus 3 it is a matter of chance: its
// queue of queries answers 400, 422 or 503 then.
func (a *API) withTimeout(r *http.Request) (context.Context, context.CancelFunc, error) {
	timeout := a.limits.Load().timeout
	if s := r.FormValue("timeout"); s != "" {
		d, err := parseDuration(s)
		if err != nil {
			return nil, nil, badParam("timeout", err)
		}
		timeout = min(timeout, d)
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	return ctx, cancel, nil
}

// parseMatchers reads match[] parameters. Each must leave something out.
func (a *API) parseMatchers(selectors []string) ([][]*labels.Matcher, error) {
	sets, err := a.parser.ParseMetricSelectors(selectors)
	if err != nil {
		return nil, err
	}
next:
	for _, ms := range sets {
		for _, m := range ms {
			if m != nil && !m.Matches("") {
				continue next
			}
		}
		return nil, errors.New("match[] must contain at least one non-empty matcher")
	}
	return sets, nil
}
