package query

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"mcached/mcache"
)

// TestTenantsAreApart: while tenants are written late, deleted, removed, made again and
// pushed out of their places, and a snapshot is loaded: range queries are answered
// as if nothing were remembered, and names and values of labels are those that the
// series have that are listed.
func TestTenantsAreApart(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	now := t0
	o := mcache.Options{MaxBuckets: 5, KeepBuckets: []string{"default"}, Now: func() int64 { return now }}
	c := newCacheOf(t, o)
	tenants := []string{"a", "b", "c", "d", "e"}
	open := func() *API {
		options := testOptions()
		options.TenancyHeader, options.Results = "X-Scope-OrgID", resultMemory(t)
		a := NewAPI(c, options)
		a.results.minSamples = 1
		return a
	}
	a := open()
	var remembered, removed, refused, loaded, listed uint64
	pick := func(ss ...string) string { return ss[rnd.IntN(len(ss))] }
	labelsOf := func(i int) []mcache.Label {
		pairs := []string{"__name__", []string{"m", "n_total"}[i%2], "i", fmt.Sprint(i), "job", fmt.Sprint(i % 4)}
		if i%5 == 0 {
			pairs = append(pairs, fmt.Sprint("rare_", i%3), "x")
		}
		return pairsToLabels(pairs)
	}
	write := func(tenant string, i int, at int64) {
		if c.AppendSamples(tenant, labelsOf(i), mcache.Sample{T: at, V: math.Float64bits(rnd.Float64())}) != nil {
			refused++
		}
	}
	// list is what a lookup for a tenant lists.
	list := func(path, tenant string, into any, params ...string) {
		r := httptest.NewRequest(http.MethodGet, "/api/v1/"+path+"?"+form(params), nil)
		r.Header.Set(a.o.TenancyHeader, tenant)
		if w := send(t, a, r); json.Unmarshal(w.Body.Bytes(), into) != nil {
			t.Fatalf("seed %d, tenant %s, %s %q: %s", seed, tenant, path, params, w.Body)
		}
	}
	for op := range 4000 {
		tenant := tenants[rnd.IntN(3)]
		if rnd.IntN(40) == 0 {
			tenant = tenants[rnd.IntN(5)]
		}
		switch x := rnd.IntN(1000); {
		case x < 500:
			if rnd.IntN(4) == 0 {
				now += 5000
			}
			for range 20 {
				at := now - rnd.Int64N(5000)
				if rnd.IntN(1000) == 0 {
					at -= rnd.Int64N(2_000_000)
				}
				write(tenant, rnd.IntN(24), at)
			}
		case x < 520:
			ids, _ := c.Select(tenant, []mcache.Matcher{{Type: mcache.MatchEqual, Name: "job", Value: fmt.Sprint(rnd.IntN(4))}}, nil)
			from, to := now-rnd.Int64N(600_000), now
			if rnd.IntN(3) == 0 {
				from = math.MinInt64
			}
			for _, id := range ids {
				if _, err := c.Delete(id, from, to); err != nil {
					t.Fatal(err)
				}
			}
		case x < 530:
			if c.RemoveBucket(tenants[rnd.IntN(5)]) {
				removed++
			}
		case x < 535: // all of its series go, and its place is another's
			ids, _ := c.Select(tenant, nil, nil)
			for _, id := range ids {
				if _, err := c.Delete(id, math.MinInt64, math.MaxInt64); err != nil {
					t.Fatal(err)
				}
			}
			for i := range 6 {
				write(tenants[3+rnd.IntN(2)], i, now)
			}
		case x < 537:
			c.Maintain()
		case x == 537:
			var b bytes.Buffer
			if _, err := c.Save(&b, now, nil); err != nil {
				t.Fatal(err)
			}
			if rnd.IntN(2) == 0 { // another start, else into what there is
				c = newCacheOf(t, o)
				a = open()
			} else {
				for range 20 {
					write(tenant, rnd.IntN(24), now-rnd.Int64N(600_000))
				}
			}
			if _, err := c.Load(&b, mcache.LoadOptions{}); err != nil && !errors.Is(err, mcache.ErrBuckets) {
				t.Fatal(err)
			}
			loaded++
		default:
			who := tenant
			if rnd.IntN(6) == 0 {
				who = pick("a|b", "b|c", "a|b|c", "c|d")
			}
			end := now - rnd.Int64N(3)*rnd.Int64N(300_000)
			start := end - rnd.Int64N(900_000)
			if x < 900 {
				step := []int64{5000, 15_000, 60_000}[rnd.IntN(3)]
				end, start = floorDiv(end, step)*step, floorDiv(start, step)*step
				if rnd.IntN(4) > 0 { // a panel that is looked at again and again
					step = 15_000
					end = floorDiv(now, step) * step
					start = end - 600_000
				}
				expr := pick("sum(m)", "sum by (job) (m)", "avg(rate(n_total[1m]))", "count by (job) (m offset 1m)", "max(m) - min(m)", "sum(count_over_time(m[2m]))", "topk(2, m)", "sum(m) + sum(n_total offset -10s)", "stddev(m)", "sum by (job) (m) / sum by (job) (n_total)", "count(m or n_total)", "sum(m @ end())")
				params := []string{"query", expr, "start", seconds(start), "end", seconds(end), "step", fmt.Sprint(step / 1000)}
				before := a.Stats()
				if got, want := asComputedOf(t, a, who, params); got != want {
					t.Fatalf("seed %d, op %d, tenant %s, %q\nis  %.3000s\nwas %.3000s", seed, op, who, params, got, want)
				}
				after := a.Stats()
				remembered += after.ResultsRecalled - before.ResultsRecalled + after.ResultsExtended - before.ResultsExtended
				break
			}
			var at []string
			if rnd.IntN(4) > 0 {
				if rnd.IntN(2) == 0 {
					start = end - rnd.Int64N(10_000)
				}
				at = []string{"start", milliText(start), "end", milliText(end)}
			}
			match := pick(`{__name__=~".+"}`, `m`, `{job="1"}`, `n_total{job!="2"}`, `{rare_0="x"}`, `{i=~"1.*",job=~".+"}`, `{rare_1=""}`, `none`)
			var series struct{ Data []map[string]string }
			list("series", who, &series, append(at, "match[]", match)...)
			names := map[string]map[string]bool{}
			for _, s := range series.Data {
				for k, v := range s {
					if names[k] == nil {
						names[k] = map[string]bool{}
					}
					names[k][v] = true
				}
			}
			lists := map[string][]string{"labels": slices.Sorted(maps.Keys(names))}
			for _, name := range []string{"__name__", "i", "job", "rare_0"} {
				lists["label/"+name+"/values"] = slices.Sorted(maps.Keys(names[name]))
			}
			params := append(at, "match[]", match)
			for path, want := range lists {
				if match == `{__name__=~".+"}` && rnd.IntN(2) == 0 {
					params = at
				}
				var got struct{ Data []string }
				if list(path, who, &got, params...); !slices.Equal(got.Data, want) {
					t.Fatalf("seed %d, op %d, tenant %s, %s %q\nis  %q\nwas %q", seed, op, who, path, params, got.Data, want)
				}
				listed += uint64(len(want))
			}
		}
	}
	if remembered < 50 || removed < 5 || listed < 1000 {
		t.Errorf("seed %d: %d remembered, %d removed, %d refused, %d loaded, %d listed: too little was tried", seed, remembered, removed, refused, loaded, listed)
	}
}
