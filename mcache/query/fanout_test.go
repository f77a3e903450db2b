package query

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"mcached/mcache"
)

// fillCluster writes n series of so many samples, 15 s apart from t0 on.
func fillCluster(t testing.TB, tc *testCluster, n, samples int) {
	t.Helper()
	for i := range n {
		ls := seriesOf(t, fmt.Sprintf("m_total{i=%03d,job=%d}", i, i%7))
		list := make([]mcache.Sample, samples)
		for k := range list {
			list[k] = mcache.Sample{T: t0 + int64(k)*15_000, V: math.Float64bits(float64(k*(i+1)) / 8)}
		}
		tc.write("default", ls, list...)
	}
	tc.pass(int64(samples) * 15_000)
}

// answerOf is what a client reads.
type answerOf struct {
	Status   string
	Data     json.RawMessage
	Warnings []string
	Error    string
}

func ask(t testing.TB, h http.Handler, path string, pairs ...string) answerOf {
	t.Helper()
	w := get(t, h, path, pairs...)
	var a answerOf
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
		t.Fatalf("%s: %v in %s", path, err, w.Body)
	}
	return a
}

// TestFanOutEverything: whoever is asked, everything that can be read is what one
// node has that has all.
func TestFanOutEverything(t *testing.T) {
	for _, copies := range []int{1, 2} {
		for _, raw := range []bool{false, true} {
			t.Run(fmt.Sprintf("copies=%d raw=%t", copies, raw), func(t *testing.T) {
				tc := newTestCluster(t, copies, FanOutOptions{NoPushDown: raw}, "a", "b", "c")
				one := newTestCluster(t, 1, FanOutOptions{}, "one")
				fillCluster(t, tc, 100, 40)
				fillCluster(t, one, 100, 40)
				single := NewAPI(one.nodes["one"].cache, one.api)
				start, end := seconds(t0+60_000), seconds(t0+39*15_000)
				requests := [][]string{
					{"query", "query", `m_total{job="3"}`, "time", end},
					{"query", "query", `m_total{job="3"}[5m]`, "time", end},
					{"query", "query", `count(rate(m_total[2m]))`, "time", end},
					{"query_range", "query", `m_total{i=~"00."}`, "start", start, "end", end, "step", "15"},
					{"query_range", "query", `rate(m_total[1m])`, "start", start, "end", end, "step", "15"},
					{"query_range", "query", `sum by (job)(rate(m_total[1m]))`, "start", start, "end", end, "step", "15"},
					{"query_range", "query", `sum(m_total)`, "start", start, "end", end, "step", "15"},
					{"query_range", "query", `max without (i)(m_total) - min without (i)(m_total)`, "start", start, "end", end, "step", "15"},
					{"query_range", "query", `count by (job)(m_total) + group by (job)(m_total)`, "start", start, "end", end, "step", "15"},
					{"query_range", "query", `avg by (job)(m_total offset 1m)`, "start", start, "end", end, "step", "15"},
					{"query_range", "query", `topk(3, increase(m_total[1m]))`, "start", start, "end", end, "step", "15"},
					{"query_range", "query", `sum(nothing)`, "start", start, "end", end, "step", "15"},
					{"series", "match[]", `{job="1"}`, "match[]", `{i="004"}`},
					{"series", "match[]", `m_total`, "start", start, "end", end, "limit", "5"},
					{"labels"}, {"labels", "start", start, "end", end},
					{"label/i/values", "match[]", `{job="2"}`}, {"label/i/values", "limit", "3"},
					{"label/job/values", "start", start, "end", end},
				}
				for _, r := range requests {
					want := get(t, single, r[0], r[1:]...)
					for _, n := range tc.lives() {
						got := get(t, n.api, r[0], r[1:]...)
						if got.Body.String() != want.Body.String() || got.Code != want.Code {
							t.Errorf("%s of %s: %d %.400s\nwant %d %.400s", r, n.name, got.Code, got.Body, want.Code, want.Body)
						}
					}
				}
				st := tc.nodes["a"].fan.Stats()
				if raw != (st.Pushed == 0) || st.Repaired+st.Raw != 0 || st.Failed != 0 {
					t.Errorf("%+v", st)
				}
			})
		}
	}
}

// TestFanOutUnequal: where a copy lacks samples, whichever it is, what is pushed
// down is still what a merge has; and so it is where a series is where no table
// says.
func TestFanOutUnequal(t *testing.T) {
	tc := newTestCluster(t, 2, FanOutOptions{}, "a", "b", "c")
	one := newTestCluster(t, 1, FanOutOptions{}, "one")
	fillCluster(t, tc, 60, 40)
	fillCluster(t, one, 60, 40)
	late := []mcache.Sample{{T: t0 + 40*15_000, V: math.Float64bits(1e6)}, {T: t0 + 41*15_000, V: math.Float64bits(1e6 + 5)}}
	for i := range 9 {
		ls := seriesOf(t, fmt.Sprintf("m_total{i=%03d,job=%d}", i, i%7))
		one.nodes["one"].put("default", ls, late...)
		tc.nodes[tc.owners("default", ls)[i%3]].put("default", ls, late[i%2:]...)
		tc.nodes[tc.owners("default", ls)[(i+1)%3]].put("default", ls, late[:1]...)
	}
	tc.pass(60_000)
	one.pass(60_000)
	single := NewAPI(one.nodes["one"].cache, one.api)
	for _, query := range []string{`sum by (job)(rate(m_total[5m]))`, `max(m_total)`, `rate(m_total{i=~"00.*"}[2m])`, `avg(m_total)`} {
		r := []string{"query", query, "start", seconds(t0), "end", seconds(t0 + 45*15_000), "step", "15"}
		want := get(t, single, "query_range", r...)
		for _, n := range tc.lives() {
			if got := get(t, n.api, "query_range", r...); !sameNumbers(t, got.Body.Bytes(), want.Body.Bytes()) {
				t.Errorf("%s of %s:\n%.600s\nwant\n%.600s", query, n.name, got.Body, want.Body)
			}
		}
	}
	st := tc.nodes["a"].fan.Stats()
	if st.Repaired != 3 || st.Raw != 1 || st.Unequal != 27 {
		t.Errorf("%+v", st)
	}
}

// sameNumbers compares answers; numbers may differ by rounding.
func sameNumbers(t testing.TB, a, b []byte) bool {
	t.Helper()
	var x, y any
	if err := json.Unmarshal(a, &x); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &y); err != nil {
		t.Fatal(err)
	}
	return alike(x, y)
}

func alike(x, y any) bool {
	switch x := x.(type) {
	case map[string]any:
		y, ok := y.(map[string]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for k := range x {
			if !alike(x[k], y[k]) {
				return false
			}
		}
		return true
	case []any:
		y, ok := y.([]any)
		return ok && slices.EqualFunc(x, y, alike)
	case string:
		y, ok := y.(string)
		if x == y || !ok {
			return ok
		}
		var f, g float64
		if n, _ := fmt.Sscan(x, &f); n != 1 {
			return false
		}
		if n, _ := fmt.Sscan(y, &g); n != 1 {
			return false
		}
		return math.Abs(f-g) <= 1e-9*max(math.Abs(f), math.Abs(g))
	}
	return x == y
}

// TestFanOutOneKilled: of one copy a share is missing when a member has been
// killed, and every answer says so until the time in which it owned anything has
// left what is asked for; of two nothing is missing.
func TestFanOutOneKilled(t *testing.T) {
	for _, copies := range []int{1, 2} {
		for _, raw := range []bool{false, true} {
			t.Run(fmt.Sprintf("copies=%d raw=%t", copies, raw), func(t *testing.T) {
				tc := newTestCluster(t, copies, FanOutOptions{NoPushDown: raw}, "a", "b", "c")
				var at int64
				write := func() {
					for i := range 60 {
						tc.write("default", seriesOf(t, fmt.Sprintf("m{i=%d}", i)), mcache.Sample{T: tc.now, V: math.Float64bits(1)})
					}
					at = tc.now
					tc.pass(15_000)
				}
				for range 80 {
					write()
				}
				look := func(what string, minutes int64, warned bool) {
					t.Helper()
					for _, name := range []string{"a", "c"} {
						for _, r := range [][]string{
							{"query_range", "query", `count(m)`, "start", seconds(at - minutes*60_000), "end", seconds(at), "step", "15"},
							{"query", "query", fmt.Sprintf(`count(count_over_time(m[%dm]))`, minutes), "time", seconds(at)},
							{"series", "match[]", "m", "start", seconds(at - minutes*60_000), "end", seconds(at)},
							{"label/i/values", "start", seconds(at - minutes*60_000), "end", seconds(at)},
						} {
							got := ask(t, tc.nodes[name].api, r[0], r[1:]...)
							if (len(got.Warnings) > 0) != warned {
								t.Errorf("%s, %s of %s: %+v", what, r, name, got)
							}
							if tc.nodes["b"].dead && slices.Contains(tc.table, "b") && warned && !strings.Contains(strings.Join(got.Warnings, " "), "member b did not answer: connection refused") {
								t.Errorf("%s: b is not named: %q", what, got.Warnings)
							}
						}
					}
				}
				look("before", 10, false)
				tc.kill("b")
				look("at once", 10, copies == 1)
				write()
				look("not told", 10, copies == 1)
				tc.change("a", "c")
				look("told", 10, copies == 1)
				for range 2 {
					write()
				}
				look("after a while", 10, copies == 1)
				for range 36 {
					write()
				}
				look("ten minutes later", 14, copies == 1)
				for range 42 {
					write()
				}
				look("after it has left the range", 10, false)
				look("when it is asked for again", 30, copies == 1)
			})
		}
	}
}

// TestFanOutSlow: a member that is frozen is done without after a while, if the
// others have everything, and named if they have not.
func TestFanOutSlow(t *testing.T) { synctest.Test(t, fanOutSlow) }

func fanOutSlow(t *testing.T) {
	for _, copies := range []int{1, 2} {
		tc := newTestCluster(t, copies, FanOutOptions{}, "a", "b", "c")
		fillCluster(t, tc, 50, 20)
		tc.nodes["c"].frozen = true
		for _, r := range [][]string{
			{"query_range", "query", `count(m_total)`, "start", seconds(t0), "end", seconds(t0 + 19*15_000), "step", "285"},
			{"query", "query", `count(m_total)`, "time", seconds(t0 + 19*15_000)},
		} {
			got := ask(t, tc.nodes["a"].api, r[0], r[1:]...)
			if whole := strings.Contains(string(got.Data), `"50"]`); whole != (copies == 2) {
				t.Errorf("%d copies, %s: %s", copies, r, got.Data)
			}
			if named := strings.Contains(strings.Join(got.Warnings, " "), "the member c did not answer: it sent nothing for 5s"); named != (copies == 1) {
				t.Errorf("%d copies, %s: %q", copies, r, got.Warnings)
			}
		}
		if st := tc.nodes["a"].fan.Stats(); (st.Late > 0) != (copies == 2) || (st.Failed > 0) != (copies == 1) {
			t.Errorf("%d copies: %+v", copies, st)
		}
	}
}

// TestFanOutSuspects: a member is suspect if it does not answer, not if it was not
// asked, or says no.
func TestFanOutSuspects(t *testing.T) {
	tc := newTestCluster(t, 1, FanOutOptions{}, "a", "b", "c")
	fillCluster(t, tc, 20, 5)
	heard := func(query string) map[string]error {
		tc.nodes["a"].heard = nil
		post(t, tc.nodes["a"].api, "query", "query", query, "time", seconds(tc.now))
		return tc.nodes["a"].heard
	}
	if h := heard("m_total"); len(h) != 2 || h["b"] != nil || h["c"] != nil {
		t.Errorf("members that answered: %v", h)
	}
	if h := heard(`m_total{i!="` + strings.Repeat("x", maxQuestionBytes) + `"}`); len(h) != 0 {
		t.Errorf("members that were not asked are suspect: %.300v", h)
	}
	tc.nodes["b"].api.SetLimits(Options{MaxSeries: 1})
	if h := heard("m_total"); h["b"] != nil {
		t.Errorf("a member that says no is suspect: %v", h)
	}
	tc.nodes["b"].api.SetLimits(Options{}) // or its no may end the query before the other is missed
	tc.kill("c")
	if h := heard("m_total"); h["c"] == nil {
		t.Errorf("a member that is dead is not suspect: %v", h)
	}
}

// TestAskForged: who is not a member learns nothing.
func TestAskForged(t *testing.T) {
	tc := newTestCluster(t, 1, FanOutOptions{}, "a")
	r := httptest.NewRequest(http.MethodPost, AskPath, strings.NewReader(`{"Version":1,"What":"names"}`))
	if w := send(t, tc.nodes["a"].api, r); w.Code != http.StatusForbidden || tc.nodes["a"].fan.Stats().Refused != 1 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	one := NewAPI(newCache(t), testOptions())
	r = httptest.NewRequest(http.MethodPost, AskPath, strings.NewReader(`{"Version":1,"What":"names"}`))
	if w := send(t, one, r); w.Code != http.StatusNotFound {
		t.Errorf("who has no members answers %d", w.Code)
	}
}

// TestFanOutNotWritten: what a member was not sent it does not lack, from when it
// began on; what was before that nobody knows.
func TestFanOutNotWritten(t *testing.T) {
	tc := newTestCluster(t, 1, FanOutOptions{}, "a", "b", "c")
	tc.pass(600_000)
	ls := seriesOf(t, "m{i=1}")
	tc.write("default", ls, mcache.Sample{T: tc.now, V: 1})
	for _, n := range tc.lives() {
		for warned, start := range map[bool]int64{true: t0 - 1000, false: t0 + 1000} {
			for _, r := range [][]string{
				{"query_range", "query", "max_over_time(m[1ms])", "step", "10"},
				{"query_range", "query", "sum(m)", "step", "10", "lookback_delta", "1ms"},
				{"series", "match[]", "m"},
				{"labels"},
				{"label/i/values", "match[]", "m"},
			} {
				got := ask(t, n.api, r[0], append(r[1:], "start", seconds(start), "end", seconds(tc.now))...)
				if (len(got.Warnings) > 0) != warned || got.Error != "" {
					t.Errorf("%s of %s from %d ms after the beginning: %q %s", r, n.name, start-t0, got.Warnings, got.Error)
				}
			}
		}
	}
}

// BenchmarkFanOutPlan is a sum of 1,000 rates over an hour: of one node, and of
// three that are one cache, by members and merged.
func BenchmarkFanOutPlan(b *testing.B) {
	const series, samples = 1000, 240
	r := []string{"query", "sum(rate(m_total[5m]))", "start", seconds(t0), "end", seconds(t0 + samples*15_000), "step", "15"}
	run := func(name string, h http.Handler) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			before, n := processorTime(b), 0
			for b.Loop() {
				if w := get(b, h, "query_range", r...); w.Code != http.StatusOK {
					b.Fatal(w.Body)
				}
				n++
			}
			b.ReportMetric(float64(processorTime(b)-before)/float64(n), "cpu-ns/op")
		})
	}
	one := newTestCluster(b, 1, FanOutOptions{}, "one")
	fillCluster(b, one, series, samples)
	run("one", NewAPI(one.nodes["one"].cache, one.api))
	for _, copies := range []int{1, 2} {
		for _, raw := range []bool{false, true} {
			tc := newTestCluster(b, copies, FanOutOptions{NoPushDown: raw}, "a", "b", "c")
			fillCluster(b, tc, series, samples)
			run(fmt.Sprintf("copies=%d/merged=%t", copies, raw), tc.nodes["a"].api)
		}
	}
}

// processorTime is that of the process.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
