package e2e

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
)

// TestE2EPage: the status page as a person's browser shows it, with labels that
// would like to be more than text.
func TestE2EPage(t *testing.T) {
	browser := realServer(t, "chromium", "chromium")
	t.Parallel()
	s := startServer(t, "--self-scrape.interval=1s")
	const evil = `<img src=x onerror="document.title='pwned'"><script>document.title='pwned'</script>`
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	now := time.Now().UnixMilli()
	b := snappy.Encode(nil, body(t, oneSeries(now, 42.5, "__name__", "evil", "l", evil)))
	if code, said, err := s.post(ctx, b); err != nil || code != http.StatusNoContent {
		t.Fatalf("%d %s %v", code, said, err)
	}
	eventually(t, "there are rates to draw", func() error {
		v, err := s.instant(`rate(mcached_bucket_samples_total[1m])`)
		if err == nil && len(v) == 0 {
			err = errors.New("none yet")
		}
		return err
	})

	w := openWindow(t, browser)
	w.listen()
	whole(t, w.shows(s.url+"/status",
		"used of a budget of 64 MiB",         // memory
		"Samples in, per second</h3>",        // plots
		"<canvas",                            // with lines in them
		`<td>default</td>`,                   // buckets
		s.url+"/api/v1/write",                // what to point at it
		"redis-cli -h 127.0.0.1 -p",          //
		`title="heads of series, `,           // regions
		"Each square is ",                    //
		`id="machine" hidden`,                // not of this daemon
		`aria-labelledby="forward-h" hidden`, //
		"nothing was rejected",               // limits
	))
	whole(t, w.shows(s.url+"/explore?g0.tab=table&g0.expr=evil", "42.5", `&lt;img src=x onerror=`)) // the value, and its label as text
	whole(t, w.shows(s.url+"/cardinality", "Metrics by bytes of samples", "series, "))

	// Far more series than fit, with names and values as long as may be. They are a
	// minute old: a graph's last point is a multiple of its step, so up to a step ago.
	long := strings.Repeat("x", 1000)
	var many []prompb.TimeSeries
	for i := range 3000 {
		many = append(many, oneSeries(now-60_000, float64(i), "__name__", "many", "i", strconv.Itoa(i), "n"+long[:900], strings.Repeat("v", 10_000*(1-min(i, 1)))+"<b>\u202e\u0007"))
	}
	if code, said, err := s.post(ctx, snappy.Encode(nil, body(t, many...))); err != nil || code != http.StatusNoContent {
		t.Fatalf("%d %s %v", code, said, err)
	}
	page := w.shows(s.url+"/graph?g0.tab=1&g0.expr=many", "more than 1000 series, the first are shown", `<code>many{`)
	if strings.Count(page, `<code>many{`) != 500 || strings.Contains(page, `<b>"`) {
		t.Errorf("%d of 3000 series are shown", strings.Count(page, `<code>many{`))
	}
	w.shows(s.url+"/graph?g0.tab=0&g0.expr=many", "60 of 1001 lines are drawn")

	// What goes wrong is said on the page, where nothing is, that, and since when.
	w.shows(s.url+"/?g0.expr="+url.QueryEscape("sum(("), "unclosed left parenthesis")
	w.shows(s.url+"/?expr=nothing_at_all&window=300", "no series match")
	if code, said, err := s.post(ctx, snappy.Encode(nil, body(t, oneSeries(now-20*60_000, 1, "__name__", "past")))); err != nil || code != http.StatusNoContent {
		t.Fatalf("%d %s %v", code, said, err)
	}
	w.shows(s.url+"/?g0.expr=past", "last seen 20 minutes ago")
	w.quiet()
}

// whole looks for signs that a script went wrong.
func whole(t *testing.T, page string) {
	t.Helper()
	for _, bad := range []string{"<img", "<title>pwned", "undefined", "NaN", "[object"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if !strings.Contains(page, `id="notice" role="status" hidden`) {
		t.Error("the page shows an error")
	}
}

// TestE2EPageHeaders: nothing of the page comes from elsewhere or can be put
// into another's.
func TestE2EPageHeaders(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	for path, kind := range map[string]string{
		"/": "text/html", "/explore": "text/html", "/status": "text/html", "/graph?g0.expr=up": "text/html",
		"/page/app.css": "text/css", "/page/app.js": "text/javascript", "/page/icon.svg": "image/svg+xml",
	} {
		res, err := http.Get(s.url + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 200 || !strings.HasPrefix(res.Header.Get("Content-Type"), kind) || res.Header.Get("Content-Security-Policy") != pagePolicy {
			t.Errorf("%s: %s, %v", path, res.Status, res.Header)
		}
	}
	for _, path := range []string{"/page/", "/page/../main.go", "/page/none.js", "/page/index.html", "/page/src/main.js", "/page/package.json", "/index.html", "/page"} {
		res, err := http.Get(s.url + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s, want 404", path, res.Status)
		}
	}
}

// TestE2ERegions: the map of regions is bounded, and adds up.
func TestE2ERegions(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	eventually(t, "a region is in use", func() error {
		if s.metric(`mcached_memory_regions{state="in_use"}`) == 0 {
			return errors.New("none yet")
		}
		return nil
	})
	for _, cells := range []int{1, 4, maxCells} {
		var answer struct {
			Data struct {
				RegionBytes int
				Cells       []struct{ Holds string }
			}
		}
		if err := s.get("/api/v1/status/regions?cells="+strconv.Itoa(cells), &answer); err != nil {
			t.Fatal(err)
		}
		kinds := map[string]int{}
		for _, c := range answer.Data.Cells {
			kinds[c.Holds]++
		}
		if n := len(answer.Data.Cells); n == 0 || n > cells || kinds["heads"]+kinds["directories"] == 0 || answer.Data.RegionBytes == 0 {
			t.Errorf("%d cells, at most %d: %v", n, cells, kinds)
		}
	}
	for _, bad := range []string{"0", "-1", "4097", "x"} {
		if err := s.get("/api/v1/status/regions?cells="+bad, nil); err == nil || !strings.Contains(err.Error(), "bad_data") {
			t.Errorf("cells=%s: %v", bad, err)
		}
	}
}
