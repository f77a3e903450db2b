package query

import (
	"context"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// maxPathFunctions bounds the functions of this package that a range query goes
// through: from HTTP to the engine or a plan, and from there to the JSON of a point.
const maxPathFunctions = 8

// TestPathOfRangeQuery counts them where the source is asked, and where a full
// buffer of points is sent.
func TestPathOfRangeQuery(t *testing.T) {
	c := newCache(t)
	fill(t, c, "default", 1000, ramp(10_000, 0.5, 1), "__name__", "long")
	for _, q := range []struct{ query, evaluates, writes string }{
		{`long`, "(*wholePlan).Exec", "(*jsonWriter).points"},
		{`long + long`, "(*formulaRun).Exec", "(*jsonWriter).points"},
		{`sin(long)`, "(*API).evaluate", "(*jsonWriter).floats"}, // the engine's Exec is not of this package
	} {
		var in, out []string
		a := NewAPIOf(watchedSource{FromCache(c, nil), func() {
			if in == nil {
				in = framesUpTo(q.evaluates)
			}
		}}, testOptions())
		r := httptest.NewRequest(http.MethodGet, "/api/v1/query_range?"+form([]string{
			"query", q.query, "start", seconds(t0), "end", seconds(t0 + 9_999_000), "step", "1",
		}), nil)
		a.ServeHTTP(watchedWriter{httptest.NewRecorder(), func() {
			if out == nil {
				out = framesUpTo(q.writes)
			}
		}}, r)
		if len(in) == 0 || len(out) == 0 {
			t.Errorf("%s: neither by %s nor by %s: in %q, out %q", q.query, q.evaluates, q.writes, in, out)
			continue
		}
		all := slices.Clone(in)
		for _, f := range out {
			if !slices.Contains(all, f) {
				all = append(all, f)
			}
		}
		if q.evaluates == "(*API).evaluate" {
			all = append(all, "Exec")
		}
		if len(all) > maxPathFunctions {
			t.Errorf("%s passes %d functions, of at most %d: %q", q.query, len(all), maxPathFunctions, all)
		}
	}
}

// framesUpTo are the functions of this package on the stack, from ServeHTTP up to
// the one of that name; nil if there is none.
func framesUpTo(name string) []string {
	const pkg = "mcached/mcache/query."
	pcs := make([]uintptr, 100)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	var names []string
	for {
		f, more := frames.Next()
		if own, ok := strings.CutPrefix(f.Function, pkg); ok {
			names = append(names, own)
		}
		if !more {
			break
		}
	}
	slices.Reverse(names)
	names = names[max(slices.Index(names, "(*API).ServeHTTP"), 0):]
	return names[:slices.Index(names, name)+1]
}

// watchedSource calls asked when series are selected.
type watchedSource struct {
	Source
	asked func()
}

func (s watchedSource) Select(ctx context.Context, of Selection) (Found, error) {
	s.asked()
	return s.Source.Select(ctx, of)
}

// watchedWriter calls wrote when a part of an answer is.
type watchedWriter struct {
	http.ResponseWriter
	wrote func()
}

func (w watchedWriter) Write(b []byte) (int, error) {
	w.wrote()
	return w.ResponseWriter.Write(b)
}
