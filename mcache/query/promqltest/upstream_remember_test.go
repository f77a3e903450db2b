package promqltest

import (
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/util/teststorage"

	"mcached/mcache"
	"mcached/mcache/query"
)

// forgetful is memory for answers that loses what it is told to.
type forgetful struct {
	mu     sync.Mutex
	values map[string]string
}

func (f *forgetful) Get(dst, key []byte) ([]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, ok := f.values[string(key)]
	return append(dst, v...), ok
}

func (f *forgetful) Put(key, value []byte, _ time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.values == nil {
		f.values = map[string]string{}
	}
	f.values[string(key)] = string(value)
	return nil
}

func (f *forgetful) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.values)
}

// lose drops about one of n values: which, the numbers decide alone, as the keys
// have the store's port in them.
func (f *forgetful) lose(rnd *rand.Rand, n int) (lost int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	keys := slices.SortedFunc(maps.Keys(f.values), func(a, b string) int { return strings.Compare(f.values[a], f.values[b]) })
	for _, k := range keys {
		if rnd.IntN(n) == 0 {
			delete(f.values, k)
			lost++
		}
	}
	return lost
}

// TestRememberedIsTheStores puts two of ours before one store, of which only one
// remembers. Time goes on, samples come late, memory of answers is lost at random:
// both always say the same. MCACHED_RANDOM is how many queries, and MCACHED_SEED
// where they begin.
func TestRememberedIsTheStores(t *testing.T) {
	const (
		settled = 10 * 60_000
		latest  = settled - dataStep // that a sample comes
	)
	n, seed := fromEnvironment(t, "MCACHED_RANDOM", 200), fromEnvironment(t, "MCACHED_SEED", 1)
	rnd := rand.New(rand.NewPCG(uint64(seed), 2))
	theirs, ours := teststorage.New(t), newCacheStorage(t, 1)
	t.Cleanup(func() { ours.Close() })
	var clock atomic.Int64
	list, lateness := allWrites(t), map[string]int64{}
	written := make([]bool, len(list))
	write := func(now int64) {
		var due []write
		for i, w := range list {
			id := w.ls.String()
			late, ok := lateness[id]
			if !ok {
				if late = 0; rnd.IntN(3) == 0 {
					late = rnd.Int64N(latest)
				}
				lateness[id] = late
			}
			if !written[i] && w.t+late <= now {
				written[i] = true
				due = append(due, w)
			}
		}
		appendAll(t, theirs.AppenderV2(t.Context()), due, all)
		appendAll(t, ours.AppenderV2(t.Context()), due, all)
		clock.Store(now)
	}
	write(dataStart + 40*60_000)
	storeURL, err := url.Parse(startPrometheus(t, theirs))
	if err != nil {
		t.Fatal(err)
	}
	covered := &covered{query.FromCache(ours.cache, nil), []mcache.Interval{
		{From: dataStart + 1_234_567, To: dataStart + 1_800_001}, {From: dataStart + 36*60_000, To: mcache.MaxTime},
	}}
	memory := &forgetful{}
	var asked [2]atomic.Int64
	var apis [2]*query.API
	for i := range apis {
		o := query.UpstreamOptions{URL: storeURL, Client: &http.Client{Transport: countingTransport{&asked[i]}}, Settled: settled * time.Millisecond}
		if i == 1 {
			o.Memory = memory
		}
		apis[i] = query.NewAPIOf(covered, query.Options{DefaultBucket: bucket, Now: func() time.Time { return time.UnixMilli(clock.Load()) }, Upstream: &o})
	}
	expressions := []string{
		`up`, `temperature_celsius`, `sum by (job) (rate(http_requests_total[5m]))`, `load_ratio`, `comes_and_goes`, `odd`, `request_seconds`, `mixed`, `max_over_time(load_ratio[3m])`, `topk(2, temperature_celsius)`,
		`rate(temperature_celsius[5m])`, `temperature_celsius offset 20m`, `max_over_time(up[2m] offset -3m)`, `histogram_quantile(0.9, sum by (le) (rate(latency_seconds_bucket[5m])))`, `up @ end()`, `up @ 1795209000`,
		`count_over_time(request_seconds[1m])`, `sum(up) + sum(nothing)`, `absent(load_ratio)`, `timestamp(up)`, `rate(request_seconds[2m])`,
	}
	steps := []string{"1000ms", "3001ms", "7s", "15", "61.5", "5m"}
	varying, lost := 0, 0
	const nonCounter = `PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: "temperature_celsius" (1:6)`
	type shape struct {
		expr, step string
		start, end int64
	}
	var shapes []shape
	few := func(s query.Stats) bool {
		return int(s.UpstreamRecalled) < 100*n || lost < n/10 || s.UpstreamKept == 0 || s.UpstreamStepsHere == 0
	}
	for i := 0; i < n || i < 10*n && few(apis[1].Stats()); i++ {
		if rnd.IntN(4) == 0 && clock.Load() < dataEnd {
			write(min(clock.Load()+rnd.Int64N(120_000), dataEnd))
		}
		if rnd.IntN(4) == 0 {
			lost += memory.lose(rnd, 12)
		}
		var s shape
		if len(shapes) > 4 && rnd.IntN(8) > 0 { // as before, moved by some steps
			s = shapes[rnd.IntN(len(shapes))]
			ms := map[string]int64{"1000ms": 1000, "3001ms": 3001, "7s": 7000, "15": 15_000, "61.5": 61_500, "5m": 300_000}[s.step]
			s.start += ms * (rnd.Int64N(61) - 20)
			s.end += ms * (rnd.Int64N(61) - 20)
		} else {
			s = shape{expressions[rnd.IntN(len(expressions))], steps[rnd.IntN(len(steps))], dataStart - 300_000 + 1000*rnd.Int64N(1500) + rnd.Int64N(2), clock.Load() - 1000*rnd.Int64N(1500) + 60_000}
			shapes = append(shapes, s)
		}
		if s.end < s.start {
			s.end = s.start
		}
		params := url.Values{"query": {s.expr}, "start": {ms(s.start)}, "end": {ms(s.end)}, "step": {s.step}}
		if rnd.IntN(20) == 0 {
			params.Set("lookback_delta", "47s")
		}
		answer := func(a *query.API) string { return normal(t, send(a, params)) }
		got, want := answer(apis[1]), answer(apis[0])
		if info := strconv.Quote(nonCounter); !strings.Contains(want, info) { // it is there if any step of an extent has it
			got = strings.ReplaceAll(got, info, "")
		}
		for range 50 {
			if got == want {
				break
			}
			if again := answer(apis[0]); again != want {
				varying++ // Prometheus itself has several answers
				got = want
			}
		}
		for apis[1].Stats().UpstreamRecording > 0 { // what is lost is a matter of the numbers alone
			time.Sleep(time.Millisecond)
		}
		if got != want {
			at := 0
			for at < min(len(got), len(want)) && got[at] == want[at] {
				at++
			}
			from := max(0, at-150)
			t.Fatalf("query %d of MCACHED_SEED=%d: %v at %s\nstore:      …%.500s\nremembered: …%.500s", i, seed, params, ms(clock.Load()), want[from:], got[from:])
		}
	}
	s := apis[1].Stats()
	t.Logf("%d steps remembered, %d computed, %d asked; requests %d and %d; %d extents lost; Prometheus itself has several answers for %d", s.UpstreamRecalled, s.UpstreamStepsHere, s.UpstreamStepsAsked, asked[0].Load(), asked[1].Load(), lost, varying)
	if few(s) || apis[0].Stats().UpstreamRecalled != 0 {
		t.Errorf("%+v", s)
	}
}
