package query

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"

	"mcached/mcache"
)

// TestFormulas lists what is computed without the engine, beside plans.
func TestFormulas(t *testing.T) {
	for query, want := range map[string]bool{
		`-up`:                                  true,
		`sum(up) * 100`:                        true,
		`100 - avg(rate(a_total[5m])) * 1e2`:   true,
		`(up) + (2 ^ -3 * 4)`:                  true,
		`up > bool 1`:                          true,
		`a / b`:                                true,
		`a / on (x) group_left (y) b`:          true,
		`1 - sum by (x) (a) / sum by (x) (b)`:  true,
		`a and on (x) b == 1`:                  true,
		`a or b unless c`:                      true,
		`count(count by (cpu) (a))`:            true,
		`sum(a - b) / sum(a)`:                  true,
		`+up`:                                  true,
		`quantile(0.5, a)`:                     true,
		`1 - quantile by (x) (1 - 0.1, a / b)`: true,

		`topk(3, a)`:                          true,
		`bottomk by (x) (2.5, rate(a_b[5m]))`: true,
		`sum(topk(3, a))`:                     true,

		`time() - a`:                          true,
		`a * (-time() + 2 ^ 3)`:               true,
		`abs(a) + 1`:                          true,
		`round(sum(rate(a_total[5m])))`:       true,
		`clamp(round(a, 2 * 5), -1, 2)`:       true,
		`sum(rate(a_total[5m])) or vector(0)`: true,
		`sum(vector(time()))`:                 true,

		`histogram_quantile(0.9, a)`:                                      true,
		`histogram_quantile(1 - 0.1, sum by (le, x) (rate(a_b[5m]))) / 2`: true,
		`max(histogram_quantile(0.9, a or b))`:                            true,

		`histogram_quantile(NaN, a)`:     false,
		`histogram_quantile(1.1, a)`:     false,
		`histogram_quantile(time(), a)`:  false,
		`histogram_quantile(0.9, a @ 1)`: false,
		`topk(3, -a)`:                    false,
		`topk(0, a)`:                     false,
		`topk(NaN, a)`:                   false,
		`topk(scalar(a), b)`:             false,
		`a / b @ 1`:                      false,
		`a * scalar(b)`:                  false,
		`round(a, scalar(b))`:            false,
		`clamp(a, 1, time())`:            false,
		`vector(scalar(a))`:              false,
		`timestamp(a)`:                   false,
		`abs(a @ 1)`:                     false,
		`quantile(1.5, a) / b`:           false,
		`quantile(NaN, a)`:               false,
		`quantile(scalar(a), b)`:         false,
		`count_values("x", a) > 1`:       false,
		`1 + 1`:                          false,
		`sum_over_time(sum(up)[5m:1m])`:  false,
	} {
		expr, err := parser.NewParser(parser.Options{}).ParseExpr(query)
		if err != nil {
			t.Fatal(query, err)
		}
		_, whole := wholePlanOf(expr)
		if _, got := formulaOf(expr); got != want || whole {
			t.Errorf("%s: %t, want %t", query, got, want)
		}
	}
}

// wholeNumbers appends series whose sums are the same in any order.
func wholeNumbers(t *testing.T, rnd *rand.Rand, c *mcache.Cache, name string, series int) {
	t.Helper()
	for i := range series {
		var samples []mcache.Sample
		for k := range int64(150) {
			if rnd.IntN(10) > 0 {
				samples = append(samples, mcache.Sample{T: t0 + k*15_000, V: math.Float64bits(float64(rnd.IntN(1000)))})
			}
		}
		ls := []string{"__name__", name, "i", fmt.Sprint(i), "a", fmt.Sprint(i % 3), "b", fmt.Sprint(i % 2)}
		if err := c.AppendSamples("default", pairsToLabels(ls), samples...); err != nil {
			t.Fatal(err)
		}
	}
}

// buckets appends buckets of histograms: some samples are missing, some counts are less
// than those of lower bounds, and the metric odd_bucket has bounds twice or thrice, or none.
func buckets(t *testing.T, rnd *rand.Rand, c *mcache.Cache) {
	t.Helper()
	bounds := map[string][]string{"h_bucket": {"0.1", "1", "-1", "+Inf", "2.5", "10"}, "odd_bucket": {"1", "+Inf", "1.0", "0.01e2", "x"}}
	for name, bounds := range bounds {
		for g := range 4 {
			for i, le := range bounds[:len(bounds)-g%3] {
				var samples []mcache.Sample
				count := 0
				for k := range int64(150) {
					if count += rnd.IntN(10 + 10*i); rnd.IntN(10) > 0 {
						samples = append(samples, mcache.Sample{T: t0 + k*15_000, V: math.Float64bits(float64(count))})
					}
				}
				if err := c.AppendSamples("default", pairsToLabels([]string{"__name__", name, "le", le, "i", fmt.Sprint(g), "a", fmt.Sprint(g % 2)}), samples...); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

var someLabels = regexp.MustCompile(`{[a-z_]+=[^}]*}|{}`)

// TestFormulasAreTheEngine asks as TestPlansAreTheEngine does, errors included;
// SEED=n asks for other expressions.
func TestFormulasAreTheEngine(t *testing.T) {
	seed, err := strconv.ParseUint(cmp.Or(os.Getenv("SEED"), "1"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(seed, 0))
	c := newCache(t)
	randomSeries(t, rnd, c, "m", 40)
	randomSeries(t, rnd, c, "n_total", 20)
	buckets(t, rnd, c)
	wholeNumbers(t, rnd, c, "k", 30)
	wholeNumbers(t, rnd, c, "l", 20)
	o := testOptions()
	a := NewAPI(c, o)
	o.MaxSamples = 3000
	narrow := NewAPI(c, o)
	pick := func(all ...string) string { return all[rnd.IntN(len(all))] }
	number := func() string {
		return pick("2", "-3", "0", "(1 + 2 * 3)", "NaN", "-Inf", "0.5", "time()", "(2 - -time() / 60)")
	}
	function := func(of string) string {
		return fmt.Sprintf(pick("abs(%s)", "ceil(%s)", "floor(%s)", "exp(%s)", "sqrt(%s)", "ln(%s)", "log2(%s)", "log10(%s)", "deg(%s)", "rad(%s)", "sgn(%s)",
			"round(%s)", "round(%s, 0.3)", "round(%s, -7)", "round(%s, 0)", "clamp(%s, 100, 300)", "clamp(%s, 3, -2)", "clamp(%s, NaN, 3)", "clamp_min(%s, 50)", "clamp_max(%s, -Inf)"), of)
	}
	arithmetic := func() string { return pick("+", "-", "*", "/", "%", "^", "atan2") }
	comparison := func() string { return pick("==", "!=", ">", "<", ">=", "<=") + pick(" ", " bool ") }
	matching := func() string {
		return pick("", "on (i)", "on (a, b)", "ignoring (__name__)", "ignoring (a)", "on ()",
			"on (i) group_left ()", "on (a) group_left (b)", "ignoring (i) group_right (i)", "on (a, b) group_left ()", "on (b) group_right (x)")
	}
	leaf := func() string {
		return pick("m", "k", "l", `k{a="1"}`, `{__name__=~"k|l"}`, "rate(n_total[3m])", "increase(m[2m] offset 1m)", "n_total", "gone",
			"sum by (a, b) (k)", "max by (a) (m)", "count by (b) (l)", "avg without (i) (m)", "sum(k)", "group by (i) (k)", "vector(7)", "vector(time())",
			"h_bucket", "odd_bucket", "sum by (le, a) (rate(h_bucket[3m]))", "increase(h_bucket[2m])")
	}
	var expression func(deep int) string
	expression = func(deep int) string {
		if deep == 0 {
			return leaf()
		}
		of := func() string { return "(" + expression(rnd.IntN(deep)) + ")" }
		switch rnd.IntN(12) {
		case 10, 11:
			return "histogram_quantile(" + pick("0", "0.5", "1", "0.99", "2 / 3") + ", " + pick(leaf(), "h_bucket", `odd_bucket{i="2"}`, `odd_bucket{i="1"}`, "sum by (le, a) (rate(h_bucket[3m]))", "h_bucket > 20", "-h_bucket", "h_bucket or odd_bucket") + ")"
		case 0:
			if rnd.IntN(2) > 0 {
				return function(expression(rnd.IntN(deep)))
			}
			return "-" + of()
		case 1:
			return of() + pick(arithmetic(), comparison()) + number()
		case 2:
			return number() + pick(arithmetic(), comparison()) + of()
		case 3:
			return of() + pick(" and ", " or ", " unless ") + pick("", "on (a) ", "on (i) ", "ignoring (i) ", "on () ") + of()
		case 4:
			return pick("min", "max", "count", "group") + pick("", " by (a)", " without (i)", " by (b, nothing)") + of()
		case 8:
			return "quantile" + pick("", " by (a)", " without (i)") + "(" + pick("0", "0.5", "1", "0.99", "2 / 3", "-1") + ", " + expression(rnd.IntN(deep)) + ")"
		case 9:
			return pick("topk", "bottomk") + pick("", " by (a)", " without (i)", " by (i)") + "(" + pick("1", "2", "3", "7", "2.9", "100", "0", "-1") + ", " + leaf() + ")"
		case 5: // whose order is the engine's secret
			return pick("sum", "avg") + pick("", " by (a)", " without (i)") + "(" + pick("k", "l", "k > 300", "-k", "k * 2", "k - on (i) l", "k and on (i) l", "sum by (a, b) (k)", "count by (a) (m)", "m", "sum by (a, b) (m)") + ")"
		default:
			return of() + pick(arithmetic(), comparison()) + matching() + of()
		}
	}
	formulas, points, failures, merged, narrowed, fixed := 0, 0, 0, 0, 0, 0
	rounds := 1500
	if testing.Short() {
		rounds = 300
	}
	for range rounds {
		e := expression(3)
		expr, err := a.parser.ParseExpr(e)
		if err != nil {
			continue
		}
		_, ok := formulaOf(expr)
		if ok {
			formulas++
		}
		start := t0 - 100_000 + whole(rnd, rnd.Int64N(2_000_000))
		params := []string{"query", e, "start", seconds(start), "end", seconds(start + rnd.Int64N(2_000_000)), "step", fmt.Sprintf("%dms", whole(rnd, 5000+rnd.Int64N(120_000)))}
		if rnd.IntN(3) == 0 {
			params = append(params, "lookback_delta", fmt.Sprintf("%dms", max(whole(rnd, rnd.Int64N(100_000)), 1)))
		}
		asked := a
		if rnd.IntN(3) == 0 {
			asked = narrow
		}
		path := "query_range"
		if asked == a && rnd.IntN(3) == 0 {
			path, params = "query", append(params, "time", seconds(start))
		}
		got := get(t, asked, path, params...).Body.String()
		want := get(t, asked, path, append(params, "stats", "true")...).Body.String()
		points += strings.Count(got, "],[")
		if strings.Contains(got, "too many samples") {
			narrowed++
		}
		if ok && strings.Contains(got, "needed to be fixed for monotonicity") {
			fixed++
		}
		if strings.Contains(got, `"error"`) {
			failures++ // of which series they tell is by chance
			got, want = someLabels.ReplaceAllString(got, "{}"), someLabels.ReplaceAllString(want, "{}")
		} else if ok && strings.Contains(e, " or ") {
			merged++
		}
		if from := strings.Index(want, `,"stats":`); from >= 0 {
			to := from + strings.Index(want[from:], `}}`) + 2
			want = want[:from] + want[to:]
		}
		got, want = inOrder(t, got, e), inOrder(t, want, e)
		// Which of two zeros is the least depends on the engine's order.
		got, want = strings.ReplaceAll(got, `"-0"`, `"0"`), strings.ReplaceAll(want, `"-0"`, `"0"`)
		if got != want {
			at := 0
			for at < min(len(got), len(want)) && got[at] == want[at] {
				at++
			}
			t.Fatalf("seed %d: %v\ngot  …%.400s\nwant …%.400s", seed, params, got[max(0, at-100):], want[max(0, at-100):])
		}
	}
	sameAsParsed(t, a)
	if formulas < rounds/2 || points < 20*rounds || failures < rounds/50 || merged < rounds/100 || narrowed < rounds/100 || fixed < rounds/50 {
		t.Errorf("seed %d: of %d %d formulas, %d points, %d failures, %d with or, %d too large, %d of buckets that are not cumulative: that shows too little", seed, rounds, formulas, points, failures, merged, narrowed, fixed)
	}
}

// inOrder is an answer with its notes in order and, of an instant query, its samples,
// where the engine's order is one that its maps make up.
func inOrder(t *testing.T, body, expr string) string {
	t.Helper()
	var a struct {
		Status, ErrorType, Error string
		Data                     struct {
			ResultType string
			Result     json.RawMessage
		}
		Warnings, Infos []string
	}
	d := json.NewDecoder(strings.NewReader(body))
	d.DisallowUnknownFields() // nothing goes without being compared
	if err := d.Decode(&a); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	result := string(a.Data.Result)
	if a.Data.ResultType == "vector" && operators.MatchString(expr) {
		var samples []json.RawMessage
		if err := json.Unmarshal(a.Data.Result, &samples); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		slices.SortFunc(samples, func(a, b json.RawMessage) int { return bytes.Compare(a, b) })
		result = fmt.Sprintf("%s", samples)
	}
	slices.Sort(a.Warnings)
	slices.Sort(a.Infos)
	return fmt.Sprintf("%q %s %q %q", []string{a.Status, a.ErrorType, a.Error, a.Data.ResultType}, result, a.Warnings, a.Infos)
}

// operators are between two operands of a formula; others, but histogram_quantile, keep order.
var operators = regexp.MustCompile(`[-+*/%^=<>]|atan2|and|or|unless|histogram_quantile`)

// TestFormulaRowsAreItsOwn: a plan that is there twice is carried out once, and
// what becomes of one does not reach the other.
func TestFormulaRowsAreItsOwn(t *testing.T) {
	c := newCache(t)
	for i, name := range []string{"x", "y", "z"} {
		fill(t, c, "default", 15_000, ramp(41, float64(i), 1), "__name__", "m", "i", name)
	}
	a := NewAPI(c, testOptions())
	read := func(query string) (string, uint64) {
		before := a.Stats().Samples
		w := get(t, a, "query_range", "query", query, "start", seconds(t0), "end", seconds(t0+600_000), "step", "60")
		return w.Body.String(), a.Stats().Samples - before
	}
	_, once := read("sum(m)")
	if once == 0 {
		t.Fatal("nothing was read")
	}
	for query, same := range map[string]string{
		"-m + m * 3 - m":           "m * 1",
		"(m > 20) or m":            "m + 0 * m > -1",
		"sum(m) * 2 - sum(m)":      "sum(m) + 0",
		"m - on (i) (-m) == 2 * m": "m * 2",
		"m - (m unless m)":         "m < 0",
	} {
		got, samples := read(query)
		want, _ := read(same)
		if strings.Contains(query, "or") {
			got, want = strings.ReplaceAll(got, `"__name__":"m",`, ""), strings.ReplaceAll(want, `"__name__":"m",`, "")
		}
		if got != want || samples != once {
			t.Errorf("%s: read %d samples, want %d; got %s\nwant %s", query, samples, once, got, want)
		}
	}
}

// TestNth: beside sorting, with values that are alike and that are no numbers.
func TestNth(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	same := func(a, b float64) bool { return a == b || a != a && b != b }
	for range 3000 {
		values := make([]float64, 1+rnd.IntN(200))
		for i := range values {
			values[i] = float64(rnd.IntN(1 + rnd.IntN(300)))
			if rnd.IntN(10) == 0 {
				values[i] = []float64{math.NaN(), math.Inf(1), math.Inf(-1), -1e308}[rnd.IntN(4)]
			}
		}
		sorted := slices.Sorted(slices.Values(values))
		i := rnd.IntN(len(values))
		if got := nth(values, i); !same(got, sorted[i]) || !same(least(values[i:]), sorted[i]) {
			t.Fatalf("value %d of %v is %v, want %v", i, sorted, got, sorted[i])
		}
		slices.Sort(values)
		for k := range values {
			if !same(values[k], sorted[k]) {
				t.Fatalf("of %v there is %v left", sorted, values)
			}
		}
	}
}
