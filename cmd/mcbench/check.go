package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"mcached/mcache"
)

func bits(v float64) uint64 { return math.Float64bits(v) }

// checker reads a load back by the HTTP API of Prometheus, which shows raw
// samples as the answer to a range selector.
type checker struct {
	load   load
	url    string // of the API, up to /api/v1
	http   *http.Client
	header http.Header
}

// checked is what a checker found.
type checked struct {
	samples int // that came back exactly
	missing int
	wrong   int // another value at the same time
	extra   int // samples or series that nobody wrote
	first   string
}

func (c *checked) ok() bool { return c.missing == 0 && c.wrong == 0 && c.extra == 0 }

func (c *checked) note(format string, args ...any) {
	if c.first == "" {
		c.first = fmt.Sprintf(format, args...)
	}
}

// maxPointsPerQuery keeps answers within what servers give by default.
const maxPointsPerQuery = 2_000_000

// run compares all samples of all series.
func (c *checker) run(ctx context.Context) (checked, error) {
	var out checked
	// An answer holds one target's series, over as many rounds as are allowed.
	rounds := min(c.load.samples, max(1, maxPointsPerQuery/seriesPerTarget))
	names := c.load.namer()
	for target := range c.load.targets() {
		first := target * seriesPerTarget
		last := min(first+seriesPerTarget, c.load.series)
		state := make([]values, last-first)
		for i := range state {
			state[i] = c.load.values(first + i)
		}
		for from := 0; from < c.load.samples; from += rounds {
			to := min(from+rounds, c.load.samples)
			got, err := c.fetch(ctx, target, from, to)
			if err != nil {
				return out, err
			}
			for n := first; n < last; n++ {
				c.compare(labelKey(names.labels(n, c.load.startMs, nil)), n, from, to, &state[n-first], got, &out)
			}
			for key := range got {
				out.extra++
				out.note("a series that was not written: %s", key)
			}
		}
	}
	return out, nil
}

// compare takes series n, which key names, out of got and compares its samples from round from to round to.
func (c *checker) compare(key string, n, from, to int, v *values, got map[string][]mcache.Sample, out *checked) {
	have := got[key]
	delete(got, key)
	want := make([]mcache.Sample, 0, to-from)
	for i := from; i < to; i++ {
		want = append(want, mcache.Sample{T: c.load.time(n, i), V: bits(v.value())})
	}
	for len(want) > 0 || len(have) > 0 {
		switch {
		case len(have) == 0 || len(want) > 0 && want[0].T < have[0].T:
			out.missing++
			out.note("missing at %d: %s", want[0].T, key)
			want = want[1:]
		case len(want) == 0 || have[0].T < want[0].T:
			out.extra++
			out.note("a sample that was not written, at %d: %s", have[0].T, key)
			have = have[1:]
		default:
			if want[0].V == have[0].V {
				out.samples++
			} else {
				out.wrong++
				out.note("%v for %v at %d: %s", math.Float64frombits(have[0].V), math.Float64frombits(want[0].V), want[0].T, key)
			}
			want, have = want[1:], have[1:]
		}
	}
}

// matrix is the part of an API answer that holds samples.
type matrix struct {
	Status string
	Error  string
	Data   struct {
		ResultType string
		Result     []struct {
			Metric map[string]string
			Values [][2]json.RawMessage
		}
	}
	Warnings []string
}

// fetch reads the samples of a target's series of rounds from up to, not
// including, to.
func (c *checker) fetch(ctx context.Context, target, from, to int) (map[string][]mcache.Sample, error) {
	// Windows meet half way between rounds, where jitter puts no sample.
	beginMs := c.load.startMs + int64(from)*c.load.intervalMs - c.load.intervalMs/2
	endMs := c.load.startMs + int64(to-1)*c.load.intervalMs + c.load.intervalMs/2
	form := url.Values{
		"query": {fmt.Sprintf(`{instance=%q}[%dms]`, instance(target), endMs-beginMs)},
		"time":  {strconv.FormatFloat(float64(endMs)/1000, 'f', 3, 64)},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/query", strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for k, v := range c.header {
		req.Header[k] = v
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	var m matrix
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, fmt.Errorf("query answers %d, not JSON: %w", resp.StatusCode, err)
	}
	switch {
	case m.Status != "success":
		return nil, fmt.Errorf("query answers %d: %s", resp.StatusCode, m.Error)
	case m.Data.ResultType != "matrix":
		return nil, fmt.Errorf("query answers a %q, want a matrix", m.Data.ResultType)
	}
	got := make(map[string][]mcache.Sample, len(m.Data.Result))
	for _, r := range m.Data.Result {
		var ls []mcache.Label
		for name, value := range r.Metric {
			ls = append(ls, mcache.Label{Name: name, Value: value})
		}
		key := labelKey(ls)
		if _, twice := got[key]; twice {
			return nil, fmt.Errorf("query answers twice with %s", key)
		}
		samples := make([]mcache.Sample, 0, len(r.Values))
		for _, v := range r.Values {
			s, err := parseSample(v)
			if err != nil {
				return nil, fmt.Errorf("of %s: %w", key, err)
			}
			samples = append(samples, s)
		}
		got[key] = samples
	}
	return got, nil
}

// parseSample reads [seconds, "value"]. The shortest decimal that means a
// float64 is read back as the same bits; seconds have three decimals, which a
// float64 tells apart for tens of thousands of years.
func parseSample(v [2]json.RawMessage) (mcache.Sample, error) {
	seconds, err1 := strconv.ParseFloat(string(v[0]), 64)
	text, err2 := strconv.Unquote(string(v[1]))
	value, err3 := strconv.ParseFloat(text, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return mcache.Sample{}, err
	}
	return mcache.Sample{T: int64(math.Round(seconds * 1000)), V: bits(value)}, nil
}

func labelKey(ls []mcache.Label) string {
	slices.SortFunc(ls, func(a, b mcache.Label) int { return strings.Compare(a.Name, b.Name) })
	var s strings.Builder
	for _, l := range ls {
		s.WriteString(l.Name)
		s.WriteByte('=')
		s.WriteString(strconv.Quote(l.Value))
		s.WriteByte(' ')
	}
	return s.String()
}
