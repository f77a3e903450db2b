package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
)

// longLookback is for tests that look in a browser at what was written when they began,
// which may be minutes before on a busy machine.
const longLookback = "--query.lookback-delta=1h"

// TestE2EPage: the status page as a person's browser shows it, with labels that
// would like to be more than text.
func TestE2EPage(t *testing.T) {
	browser := realServer(t, "chromium", "chromium")
	t.Parallel()
	s := startServer(t, "--self-scrape.interval=1s", longLookback)
	const evil = `<img src=x onerror="document.title='pwned'"><script>document.title='pwned'</script>`
	ctx := t.Context()
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
	page := w.shows(s.url+"/graph?g0.tab=1&g0.expr=many", "3,000 series, the first 1,000 are shown", `>many{`)
	if n := w.look(`document.querySelectorAll(".values tbody tr").length`); n != "500" || strings.Contains(page, `<b>"`) {
		t.Errorf("%s of 3000 series are shown", n)
	}
	w.open(s.url + "/graph?g0.tab=0&g0.expr=many")
	w.until("it is said how many lines are not drawn", `document.querySelector(".under span").textContent === "60 of 3,000 lines are drawn"`)
	// What would turn the text around, or not be seen, is escaped.
	if n := w.look(`[...document.querySelectorAll(".legend code, .legend button")].filter(e => /[\u0000-\u001f\u202e]/.test(e.textContent)).length`); n != "0" {
		t.Errorf("%s names have control characters", n)
	}

	// What goes wrong is said on the page, where nothing is, that, and since when.
	w.shows(s.url+"/?g0.expr="+url.QueryEscape("sum(("), "unclosed left parenthesis")
	w.shows(s.url+"/?expr=nothing_at_all&window=300", "no series match")
	if code, said, err := s.post(ctx, snappy.Encode(nil, body(t, oneSeries(now-20*3600_000, 1, "__name__", "past")))); err != nil || code != http.StatusNoContent {
		t.Fatalf("%d %s %v", code, said, err)
	}
	w.shows(s.url+"/?g0.expr=past", "last seen 20 hours ago")
	w.shows(s.url+"/?g0.expr="+url.QueryEscape(`sum by (x) (rate(past[5m])) > 0`), "last seen 20 hours ago")
	w.quiet()
}

// TestE2EPageCrowd: an answer of 100,000 series is counted, and drawn as far as
// lines are told apart.
func TestE2EPageCrowd(t *testing.T) {
	browser := realServer(t, "chromium", "chromium")
	t.Parallel()
	s := startServer(t, "--memory.size=256MiB", "--memory.heap-limit=512MiB", longLookback)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	const series, each = 100_000, 10_000
	now := time.Now().UnixMilli()
	for from := 0; from < series; from += each {
		var batch []prompb.TimeSeries
		for i := range each {
			batch = append(batch, oneSeries(now-120_000, 1, "__name__", "crowd", "i", strconv.Itoa(from+i)))
		}
		if code, said, err := s.post(ctx, snappy.Encode(nil, body(t, batch...))); err != nil || code != http.StatusNoContent {
			t.Fatalf("%d %s %v", code, said, err)
		}
	}
	w := openWindow(t, browser)
	w.listen()
	w.open(s.url + "/graph?g0.range_input=15m&g0.step_input=60&g0.expr=crowd")
	w.until("they are counted", said+`.startsWith("100,000 series, the first 1,000 are shown") && document.querySelector(".under span").textContent === "60 of 100,000 lines are drawn"`)
	w.click(`[data-tab="table"]`)
	w.until("as many as are readable are listed", `document.querySelectorAll(".values tbody tr").length === 500 && document.querySelector(".under span").textContent.endsWith("500 of 100,000 rows")`)
	w.open(s.url + "/cardinality?metric=crowd&label=i")
	w.until("the largest is found", `document.querySelector("#tops td").textContent === "crowd" && document.querySelectorAll("#inside .tops > div:nth-child(2) tr").length === 20`)
	w.quiet()
}

// TestE2EPageStatus: what the status view says of a daemon with a store behind
// it, limits that were hit, and words that it explains; and that it asks little.
func TestE2EPageStatus(t *testing.T) {
	browser := realServer(t, "chromium", "chromium")
	t.Parallel()
	store := startServer(t)
	s := startServer(t, "--self-scrape.interval=1s", "--bucket.max-series=2000", "--query.upstream="+store.url, "--forward.url="+store.url+"/api/v1/write", "--shutdown.timeout=100ms")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	now := time.Now().UnixMilli()
	var many []prompb.TimeSeries
	for i := range 3000 {
		many = append(many, oneSeries(now, 1, "__name__", "many", "i", strconv.Itoa(i)))
	}
	if code, said, err := s.post(ctx, snappy.Encode(nil, body(t, many...))); err != nil || code != http.StatusBadRequest {
		t.Fatalf("beyond the limit: %d %s %v", code, said, err)
	}
	start := strconv.FormatInt(now/1000-600, 10)
	if err := s.get("/api/v1/query_range?query=many&step=60&start="+start+"&end="+strconv.FormatInt(now/1000, 10), nil); err != nil {
		t.Fatal(err)
	}

	w := openWindow(t, browser)
	w.listen()
	w.open(s.url + "/status")
	row := func(section, words string) string {
		return fmt.Sprintf(`[...document.querySelectorAll("#%s tbody tr")].find(r => r.cells[0].textContent.startsWith(%q))`, section, words)
	}
	w.until("the memory has its shares", row("shares", "metrics")+`.cells[2].textContent === "64 MiB" && `+row("shares", "overflow")+`.cells[2].textContent === "16 MiB"`)
	w.until("a bucket says since when it is complete", `/^\d{4}-\d\d-\d\d /.test(`+row("buckets", "default")+`.cells[4].textContent) && `+row("buckets", "default")+`.cells[5].textContent === "0"`)
	w.until("it is said who computed the steps", `[...document.querySelectorAll("#sources-legend li")].map(l => l.textContent.replace(/ [\d.]+ % .*/, "")).join() === "from memory,remembered,asked of the store" && document.getElementById("sources").getAttribute("aria-label").startsWith("Steps of queries: ")`)
	w.until("a limit that was hit is shown, lately and in all", row("limits", "new series rejected (bucket default, of bucket)")+`.cells[2].textContent !== "" && `+row("limits", "new series rejected")+`.cells[1].textContent !== "?"`)
	w.until("the queue of forwarding is shown", row("forward", "samples that wait")+`.cells[1].textContent !== ""`)

	// Words are explained to the keyboard, and a refresh leaves the focus where it was.
	focus := `document.activeElement.textContent === "complete since"`
	w.focus(`[...document.querySelectorAll("#buckets .word")].find(e => e.textContent === "complete since")`)
	w.until("a word is explained", focus+` && !document.getElementById("tip").hidden && document.getElementById("tip").textContent.startsWith("Coverage: ")`)
	w.press("Escape")
	w.until("Escape puts it away", `document.getElementById("tip").hidden`)
	w.focus(`[...document.querySelectorAll("#facts .word")].find(e => e.textContent === "series")`)
	requests := func() string {
		return w.look(`performance.getEntriesByType("resource").filter(e => e.initiatorType === "fetch").length`)
	}
	w.look(`performance.clearResourceTimings()`)
	w.until("it refreshes", `performance.getEntriesByType("resource").filter(e => e.name.includes("status/self")).length === 3`)
	if n, err := strconv.Atoi(requests()); err != nil || n > 3*5 {
		t.Errorf("three refreshes took %d requests, %v", n, err)
	}
	if v := w.look(`document.activeElement.textContent`); v != "series" {
		t.Errorf("after a refresh the focus is on %q", v)
	}

	// Nobody looks: nothing is asked.
	w.look(`Object.defineProperty(document, "hidden", {configurable: true, get: () => true}); document.dispatchEvent(new Event("visibilitychange"))`)
	eventually(t, "a hidden page asks nothing", func() error {
		before := requests()
		scrapes := func() float64 {
			v, _ := s.hasMetric(`mcached_bucket_samples_total{bucket="mcached-self"}`)
			return v
		}
		at := scrapes()
		eventually(t, "some seconds pass: a scrape each has some hundred samples", func() error {
			if scrapes() < at+800 {
				return errors.New("not yet")
			}
			return nil
		})
		if after := requests(); after != before {
			return fmt.Errorf("%s requests, then %s", before, after)
		}
		return nil
	})
	w.look(`performance.clearResourceTimings(); delete document.hidden; document.dispatchEvent(new Event("visibilitychange"))`)
	w.until("it asks again once somebody looks", `performance.getEntriesByType("resource").some(e => e.name.includes("status/self"))`)
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
		"/": "text/html", "/explore": "text/html", "/status": "text/html", "/graph?g0.expr=up": "text/html", "/query?g0.expr=up": "text/html",
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
