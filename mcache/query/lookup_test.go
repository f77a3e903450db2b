package query

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"testing"

	"mcached/mcache"
)

// TestLabelsOfATime: the names and values of a time are those of the series of
// that time. A pod that died before is in no list.
func TestLabelsOfATime(t *testing.T) {
	c := newCache(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 200 {
		begin := rnd.IntN(600)
		pairs := []string{"__name__", fmt.Sprint("m", i%3), "pod", fmt.Sprintf("pod-%03d", i)}
		if i%10 == 0 {
			pairs = append(pairs, fmt.Sprint("only_", i), "x")
		}
		var samples []mcache.Sample
		for k := begin; k < begin+1+rnd.IntN(200); k++ {
			if k%100 > 20 { // pauses
				samples = append(samples, mcache.Sample{T: t0 + int64(k)*15_000})
			}
		}
		if err := c.AppendSamples("default", pairsToLabels(pairs), samples...); err != nil {
			t.Fatal(err)
		}
	}
	a := NewAPI(c, testOptions())
	some, few := 0, 0
	for range 100 {
		from := t0 + rnd.Int64N(600*15_000)
		to := from + rnd.Int64N(200*15_000)>>rnd.IntN(8)
		time := []string{"start", seconds(from), "end", seconds(to)}
		for _, match := range []string{`{pod=~".+"}`, "m1"} {
			names, pods := map[string]bool{}, map[string]bool{}
			for _, s := range decode[map[string]string](t, get(t, a, "series", append(time, "match[]", match)...)) {
				pods[s["pod"]] = true
				for n := range s {
					names[n] = true
				}
			}
			matching := append(slices.Clone(time), "match[]", match)
			if match != "m1" {
				matching = time // the first is all there is
			}
			if got := decode[string](t, get(t, a, "label/pod/values", matching...)); !slices.Equal(got, slices.Sorted(maps.Keys(pods))) {
				t.Fatalf("%s %v: %d values, want %d", match, time, len(got), len(pods))
			}
			if got := decode[string](t, get(t, a, "labels", matching...)); !slices.Equal(got, slices.Sorted(maps.Keys(names))) {
				t.Fatalf("%s %v: names %q, want %q", match, time, got, slices.Sorted(maps.Keys(names)))
			}
			if len(pods) > 10 {
				some++
			} else {
				few++
			}
		}
	}
	if some < 20 || few < 20 {
		t.Errorf("%d times many pods, %d times few: too little was tried", some, few)
	}
	if got := decode[string](t, get(t, a, "label/pod/values")); len(got) != 200 {
		t.Errorf("%d pods of all times", len(got))
	}
	if got := decode[string](t, get(t, a, "label/pod/values", "start", seconds(t0+900*15_000))); len(got) != 0 {
		t.Errorf("after the end: %q", got)
	}
}

func decode[T any](t *testing.T, w *httptest.ResponseRecorder) []T {
	t.Helper()
	var answer struct{ Data []T }
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != 200 {
		t.Fatalf("%v: %d %s", err, w.Code, w.Body)
	}
	return answer.Data
}
