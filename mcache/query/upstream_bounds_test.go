package query

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
)

// lookupBombs are answers to lookups that are short, and large when they are decoded.
var lookupBombs = []struct {
	path, data, element string
	into                func() any
}{
	{"series", "[#]", `{}`, func() any { return new([]map[string]string) }},
	{"series", "[#]", `{"a":""}`, func() any { return new([]map[string]string) }},
	{"series", "[#]", `{"a":"1","b":"2","c":"3","d":"4","e":"5","f":"6","g":"7","h":"8","i":"9"}`, func() any { return new([]map[string]string) }},
	{"labels", "[#]", `""`, func() any { return new([]string) }},
	{"labels", "[#]", `"a"`, func() any { return new([]string) }},
	{"metadata", `{"m":[#]}`, `{}`, func() any { return new(map[string][]metadata.Metadata) }},
	{"query_exemplars", "[#]", `{"exemplars":[{},{},{}]}`, func() any { return new([]storedExemplars) }},
}

// bomb is data of some length.
func bomb(data, element string, size int) string {
	list := strings.Repeat(element+",", size/len(element))
	return strings.Replace(data, "#", list[:len(list)-1], 1)
}

// TestDecodedBytes: what is taken for an answer that is decoded is as much as it needs.
func TestDecodedBytes(t *testing.T) {
	for _, c := range lookupBombs {
		text := []byte(bomb(c.data, c.element, 256<<10))
		into := c.into()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := json.Unmarshal(text, into); err != nil {
			t.Fatal(err)
		}
		if maps, ok := into.(*[]map[string]string); ok {
			series := make([]labels.Labels, len(*maps))
			for i, m := range *maps {
				series[i] = labels.FromMap(m)
			}
		}
		runtime.ReadMemStats(&after)
		size, lent := int64(after.TotalAlloc-before.TotalAlloc), decodedBytes(text) // garbage counts, too
		if size > lent || size < 2*int64(len(text)) {
			t.Errorf("%s of %s: %d bytes of text take %d decoded, and %d are taken", c.path, c.element, len(text), size, lent)
		}
	}
}

// TestLookupsAreLentDecoded: an answer of the store that would be large when it
// is decoded is refused before that, and the store is none the worse for it.
func TestLookupsAreLentDecoded(t *testing.T) {
	data := ""
	a, _, _ := storeBehind(t, UpstreamOptions{}, func(w http.ResponseWriter, r *http.Request) { answerJSON(200, success(data))(w, r) })
	p := &purse{limit: 32 << 20}
	a.o.Admission = p.open
	for _, c := range lookupBombs {
		for size, source := range map[int]string{64 << 10: sourceBoth, 2 << 20: sourceMemory} {
			data = bomb(c.data, c.element, size)
			params := []string{"start", seconds(t0 - 60_000), "end", seconds(t0 + 600_000)}
			switch c.path {
			case "series":
				params = append(params, "match[]", "m")
			case "query_exemplars":
				params = append(params, "query", "m")
			}
			w := get(t, a, c.path, params...)
			if told := strings.Contains(w.Body.String(), "no room for"); w.Code != 200 || w.Header().Get(sourceHeader) != source || told != (source == sourceMemory) {
				t.Errorf("%s of %d bytes of %s: %d from %q, told %v", c.path, size, c.element, w.Code, w.Header().Get(sourceHeader), told)
			}
		}
	}
	if held, most := p.read(); held != 0 || most < 8<<20 || a.upstream.breaker.failures != 0 {
		t.Errorf("%d are held in the end, %d at most; the breaker counts %d", held, most, a.upstream.breaker.failures)
	}
}

// TestSomeOfMany: of a store that does not know the parameter limit the first series is
// read, not all that it lists.
func TestSomeOfMany(t *testing.T) {
	series, sent := []byte(strings.Repeat(`{"__name__":"errors","pod":"a"},`, 1<<10)), 0
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/series"):
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"status":"success","data":[`)
			for sent = 0; sent <= maxLookupBytes; sent += len(series) {
				if _, err := w.Write(series); err != nil {
					return // it has heard enough
				}
			}
			_, _ = io.WriteString(w, `{}]}`)
		case strings.HasSuffix(r.URL.Path, "/query"):
			answerJSON(200, storesAnswer)(w, r)
		default:
			http.NotFound(w, r)
		}
	}))
	u, err := url.Parse(store.URL)
	if err != nil {
		t.Fatal(err)
	}
	o, p := testOptions(), &purse{limit: 1 << 30}
	o.Upstream, o.Admission = patiently(UpstreamOptions{URL: u}), p.open
	a := NewAPI(lateCache(t), o)
	w := get(t, a, "query", "query", `sum(m) + sum(errors)`, "time", seconds(t0+600_000))
	store.Close()
	if got := w.Header().Get(sourceHeader); got != sourceUpstream || a.upstream.breaker.failures != 0 || sent > maxLookupBytes/2 {
		t.Errorf("from %q after %d bytes, %d failures: %s", got, sent, a.upstream.breaker.failures, w.Body)
	}
}

// TestSomeListed of what stores say.
func TestSomeListed(t *testing.T) {
	for text, want := range map[string]bool{
		`{"status":"success","data":[]}`:                                     false,
		` {"status" : "success", "data" : [ ] , "warnings":["w"]}`:           false,
		`{"data":[],"status":"success"}`:                                     false,
		`{"status":"success","x":{"y":[1]},"data":[{"__name__":"m"}]}`:       true,
		`{"status":"success","data":[{"__name__":"m"},{"__name__":"n"`:       true, // the rest is not read
		`{"status":"success","data": [ {"__name__":"m"}],"isPartial":false}`: true,
	} {
		got, err := someListed(strings.NewReader(text))
		if err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{``, `{}`, `[]`, `{"status":"success"}`, `{"status":"error","data":[]}`, `{"status":"success","data":{}}`, `{"status":"success","data":[1]}`, `{"status":"success","data":[`, `{"status":"success","data":[]`, `{"data":[],"status":"error"}`} {
		if got, err := someListed(strings.NewReader(text)); err == nil || !errors.Is(err, errNotMatrix) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
}

// TestLargeAnswerIsNamed: the error says which limit, and what it is.
func TestLargeAnswerIsNamed(t *testing.T) {
	a, _, _ := storeBehind(t, UpstreamOptions{MaxBodyBytes: 1000}, answerJSON(200, success(`["`+strings.Repeat("x", 2000)+`"]`)))
	w := get(t, a, "labels", "start", seconds(t0-60_000))
	if !strings.Contains(w.Body.String(), "longer than --query.upstream.max-body-size=1000") || w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
