package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/prompb"
	"golang.org/x/net/websocket"
)

// window is a page in a real browser, driven by what a person's hands do: keys
// come from the keyboard, and what is looked at is what the page shows.
type window struct {
	t    testing.TB
	conn *websocket.Conn
	last int // number of the last request
}

func openWindow(t testing.TB, browser string) *window {
	t.Helper()
	dir := t.TempDir()
	// It leaves a socket where temporary files go.
	p := start(t, "env", "TMPDIR="+dir, browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--user-data-dir="+dir, "--window-size=1200,900",
		"--remote-debugging-port=0", "--remote-allow-origins=*", "about:blank")
	w := &window{t: t}
	eventually(t, "the browser can be driven", func() error {
		p.alive()
		b, err := os.ReadFile(filepath.Join(dir, "DevToolsActivePort"))
		if err != nil {
			return err
		}
		port, _, _ := strings.Cut(string(b), "\n")
		var pages []struct{ Type, WebSocketDebuggerUrl string }
		if err := getJSON("http://127.0.0.1:"+port+"/json/list", &pages); err != nil {
			return err
		}
		for _, page := range pages {
			if page.Type == "page" {
				w.conn, err = websocket.Dial(page.WebSocketDebuggerUrl, "", "http://127.0.0.1")
				return err
			}
		}
		return errors.New("no page")
	})
	t.Cleanup(func() { w.conn.Close() }) // before the browser is stopped
	return w
}

// call has the browser do something and returns its answer.
func (w *window) call(method string, params map[string]any) json.RawMessage {
	w.t.Helper()
	w.last++
	if err := w.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		w.t.Fatal(err)
	}
	if err := websocket.JSON.Send(w.conn, map[string]any{"id": w.last, "method": method, "params": params}); err != nil {
		w.t.Fatal(err)
	}
	for {
		var answer struct {
			ID            int
			Result, Error json.RawMessage
		}
		if err := websocket.JSON.Receive(w.conn, &answer); err != nil {
			w.t.Fatalf("%s: %v", method, err)
		}
		if answer.ID != w.last {
			continue // news of something else
		}
		if answer.Error != nil {
			w.t.Fatalf("%s: %s", method, answer.Error)
		}
		return answer.Result
	}
}

// look evaluates an expression in the page, as text.
func (w *window) look(expression string) string {
	w.t.Helper()
	var answer struct {
		Result           struct{ Value any }
		ExceptionDetails json.RawMessage
	}
	b := w.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true})
	if err := json.Unmarshal(b, &answer); err != nil || answer.ExceptionDetails != nil {
		w.t.Fatalf("%s: %v %s", expression, err, b)
	}
	return fmt.Sprint(answer.Result.Value)
}

// until waits for an expression to be true.
func (w *window) until(what, expression string) {
	w.t.Helper()
	eventually(w.t, what, func() error {
		// What is not there yet throws; a page that is being left has no focus either.
		if v := w.look("(() => { try { return " + expression + " } catch (e) { return String(e) } })()"); v != "true" {
			return fmt.Errorf("%s is %s; focus on #%s; %s", expression, v, w.look("document.activeElement?.id"), w.look(`[...document.querySelectorAll(".editor")].map(e => e.shadowRoot?.querySelector(".cm-content")?.innerText).join(" | ") + ": " + [...document.querySelectorAll(".said, .legend")].map(e => e.innerText).join(" | ")`))
		}
		return nil
	})
}

// focus waits for an element and gives it the focus: a page that is there may still
// lack what an answer brings.
func (w *window) focus(element string) {
	w.t.Helper()
	w.until("there is "+element, `(e => e ? (e.focus(), true) : "nothing")(`+element+`)`)
}

// press presses keys one after the other.
func (w *window) press(keys ...string) {
	w.t.Helper()
	codes := map[string]int{"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowUp": 38, "ArrowDown": 40, "ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35}
	for _, k := range keys {
		params := map[string]any{"type": "keyDown", "key": k, "code": k, "windowsVirtualKeyCode": codes[k]}
		switch k {
		case "Enter":
			params["text"] = "\r"
		case " ":
			params["text"], params["code"] = " ", "Space"
		}
		w.call("Input.dispatchKeyEvent", params)
		delete(params, "text")
		params["type"] = "keyUp"
		w.call("Input.dispatchKeyEvent", params)
	}
}

// typeIn writes a text letter by letter, as fingers do.
func (w *window) typeIn(text string) {
	for _, r := range text {
		w.write(string(r))
	}
}

func (w *window) write(text string) { w.call("Input.insertText", map[string]any{"text": text}) }

// tabTo presses Tab until the element with that id has the focus.
func (w *window) tabTo(id string) {
	w.t.Helper()
	for range 40 {
		if w.look("document.activeElement?.id") == id {
			return
		}
		w.press("Tab")
	}
	w.t.Fatalf("no number of tabs leads to #%s", id)
}

// point moves the pointer to a place of an element, from 0 to 1 of its width and height.
func (w *window) point(kind, selector string, x, y float64) {
	w.t.Helper()
	var at struct{ X, Y, W, H float64 }
	if err := json.Unmarshal([]byte(w.look(fmt.Sprintf(`(() => { const e = document.querySelector(%q); e.scrollIntoView({block: "center", behavior: "instant"}); const b = e.getBoundingClientRect(); return JSON.stringify({X: b.x, Y: b.y, W: b.width, H: b.height}) })()`, selector))), &at); err != nil {
		w.t.Fatal(err)
	}
	params := map[string]any{"type": kind, "x": at.X + x*at.W, "y": at.Y + y*at.H, "button": "left", "buttons": 0, "clickCount": 1}
	switch kind {
	case "mouseHovers":
		params["type"], params["button"] = "mouseMoved", "none"
	case "mouseMoved", "mousePressed":
		params["buttons"] = 1
	}
	w.call("Input.dispatchMouseEvent", params)
}

func (w *window) click(selector string) {
	w.t.Helper()
	w.point("mouseHovers", selector, 0.5, 0.5)
	w.point("mousePressed", selector, 0.5, 0.5)
	w.point("mouseReleased", selector, 0.5, 0.5)
}

// listen notes from now on what the page complains of.
func (w *window) listen() {
	w.t.Helper()
	w.call("Emulation.setFocusEmulationEnabled", map[string]any{"enabled": true}) // it is in front
	w.call("Page.enable", map[string]any{})
	w.call("Page.addScriptToEvaluateOnNewDocument", map[string]any{"source": `window.complaints = [];
		addEventListener("error", e => complaints.push(String(e.message)));
		addEventListener("unhandledrejection", e => complaints.push(String(e.reason)));
		addEventListener("securitypolicyviolation", e => complaints.push(e.violatedDirective + " " + e.blockedURI));
		console.error = (...a) => complaints.push(a.join(" "));`})
}

func (w *window) open(u string) {
	w.t.Helper()
	w.quiet() // of what was open before
	w.look("window.left = true")
	w.call("Page.navigate", map[string]any{"url": u})
	w.until("the page is there", `!window.left && document.readyState === "complete" && !!document.getElementById("page") && !document.getElementById("page").hidden && location.href.startsWith(`+strconv.Quote(leadsTo(u))+`)`)
}

// leadsTo is where the page at u is shown, without what is asked there: links of
// Prometheus' page are redirected to the explore view.
func leadsTo(u string) string {
	place, _, _ := strings.Cut(u, "?")
	at := strings.LastIndexByte(place, '/') + 1
	if name := place[at:]; name == "graph" || name == "query" {
		place = place[:at] + "explore"
	}
	return place
}

// shows opens a page, waits until it has all of some texts, and returns it as it is then, as HTML.
func (w *window) shows(u string, texts ...string) (page string) {
	w.t.Helper()
	w.open(u)
	eventually(w.t, "the page "+u+" shows what it should", func() error {
		page = w.look("document.documentElement.outerHTML")
		for _, text := range texts {
			if !strings.Contains(page, text) {
				return fmt.Errorf("it has no %q", text)
			}
		}
		return nil
	})
	return page
}

func (w *window) quiet() {
	w.t.Helper()
	if said := w.look(`(window.complaints || []).join("; ")`); said != "" {
		w.t.Errorf("the page complains: %s", said)
	}
}

// What the tests look at: the text of the first editor, what is offered to
// complete it, and what is said of the answer. While the editor asks for more
// offers, it shows the last ones and takes none of them.
const (
	editorText = `document.querySelector(".editor").shadowRoot.querySelector(".cm-content").textContent`
	offers     = `[...document.querySelector(".editor").shadowRoot.querySelectorAll(".cm-tooltip-autocomplete:not(.cm-tooltip-autocomplete-disabled) li")].map(li => li.textContent)`
	said       = `document.querySelector(".said").textContent`
)

// hasMetrics waits for the daemon's own metrics, and until a graph of an hour,
// whose points are 10 s apart, has one of them.
func hasMetrics(t *testing.T, s *server) {
	eventually(t, "there is something to look at", func() error {
		// A bucket is there from the first scrape on, so what is said of it comes with the second.
		v, err := s.instant("mcached_series offset 11s")
		if err == nil && len(v) == 0 {
			err = errors.New("not yet")
		}
		return err
	})
}

// TestE2EKeyboard uses the page as a person without a mouse does: completion of
// metrics, labels and values, a query, other views, the metric browser; then
// passes the URL on, turns the lights off and makes the window narrow.
func TestE2EKeyboard(t *testing.T) {
	browser := realServer(t, "chromium", "chromium")
	t.Parallel()
	s := startServer(t, "--self-scrape.interval=1s")
	hasMetrics(t, s)
	w := openWindow(t, browser)
	w.listen()
	w.open(s.url + "/")

	w.tabTo("expr0")
	w.typeIn("mcached_memory_budg")
	w.until("metrics are offered", offers+`.some(o => o.includes("mcached_memory_budget_bytes"))`)
	w.press("ArrowDown")
	w.until("one is chosen", `document.querySelector(".editor").shadowRoot.querySelectorAll(".cm-tooltip-autocomplete li[aria-selected]").length === 1`)
	w.press("Enter")
	w.until("one is taken", editorText+` === "mcached_memory_budget_bytes"`)
	w.press("Enter")
	w.until("it is run", said+`.startsWith("1 series") && !!document.querySelector(".plot canvas") && document.querySelector(".legend td:nth-child(3)").title === "67108864"`)
	shared := w.look("location.href")

	// The arrow keys read the graph, and go from tab to tab.
	w.focus(`document.querySelector(".uplot")`)
	w.press("End")
	w.until("the last value is read", `/^\d{4}-.*: mcached_memory_budget_bytes.* 67\.1M$/.test(document.querySelector(".out-of-sight").textContent) && document.querySelector(".legend td:nth-child(2)").textContent === "67.1M"`)
	w.focus(`document.getElementById("graph0")`)
	w.press("ArrowRight")
	w.until("the next tab is chosen", `document.activeElement.id === "table0" && document.activeElement.getAttribute("aria-selected") === "true" && document.querySelectorAll(".values tbody tr").length === 1`)
	w.press("ArrowLeft")
	w.until("and the one before", `document.activeElement.id === "graph0" && !!document.querySelector(".uplot")`)

	// A label and its value; Tab takes what is first, and waits for offers that
	// are on their way. Who types slowly is offered metrics before, and labels after those.
	w.look(`document.querySelector("button.remove").click()`) // of the only one: it is emptied
	w.until("it is empty", editorText+`.startsWith("an expression")`)
	w.tabTo("expr0")
	w.look(`window.held = []; window.fetched = window.fetch; window.fetch = (...request) => String(request[0]).includes("/labels") ? new Promise(answer => held.push(() => answer(fetched(...request)))) : fetched(...request)`)
	w.typeIn("mcached_series{buck")
	w.until("labels are asked for", `held.length > 0`)
	w.press("Tab")
	w.until("the editor has the keys still", `document.activeElement === document.querySelector(".editor")`)
	w.look(`window.fetch = fetched; held.forEach(go => go())`)
	w.until("Tab takes it", editorText+`.startsWith("mcached_series{bucket")`)
	w.typeIn(`="def`)
	w.until("values are offered", offers+`.some(o => o.includes("default"))`)
	w.press("Tab")
	w.press("Enter")
	w.until("it is run", editorText+` === 'mcached_series{bucket="default"}' && `+said+`.startsWith("1 series")`)

	// What does not parse is marked, and said in the server's words.
	w.open(s.url + "/graph?g0.expr=sum((")
	w.until("it is marked", said+`.includes("parse error") && !!document.querySelector(".editor").shadowRoot.querySelector(".cm-lintRange-error, .cm-lintPoint-error")`)

	w.focus(`[...document.querySelectorAll("button")].find(b => b.textContent === "Metrics")`)
	w.press("Enter")
	w.until("the browser opens", `document.getElementById("browse").open && document.querySelectorAll("#browse-list li").length > 50`)
	w.write("budget")
	w.until("it finds", `[...document.querySelectorAll("#browse-list button.link")].some(b => b.textContent === "mcached_memory_budget_bytes") && document.querySelectorAll("#browse-list li").length < 20 && [...document.querySelectorAll("#browse-list li")].some(l => /^mcached_memory_budget_bytes gauge, 1 series/.test(l.textContent) && /Bytes that the daemon may hold/.test(l.textContent))`)
	w.press("Escape")
	w.until("it closes", `!document.getElementById("browse").open`)

	for _, view := range []string{"status", "cardinality"} {
		w.focus(fmt.Sprintf(`document.querySelector('nav a[href="%s"]')`, view))
		w.press("Enter")
		w.until("the view "+view, fmt.Sprintf(`!document.getElementById("%s").hidden && document.getElementById("explore").hidden && location.pathname === "/%s"`, view, view))
	}
	w.until("the largest are listed", `["Metrics by series", "Metrics by bytes of samples", "Labels by values"].every(h => [...document.querySelectorAll("#tops h3")].some(e => e.textContent === h && e.parentElement.querySelectorAll("tr").length > 3))`)
	w.focus(`document.querySelector("#tops button.link")`)
	w.press("Enter")
	w.until("a metric leads to its labels", `document.querySelectorAll("#inside tr").length > 1`)
	w.focus(`document.querySelector("#inside button.link")`)
	w.press("Enter")
	w.until("a label leads to its values", `document.querySelectorAll("#inside .tops > div").length === 2 && /metric=.*&label=/.test(location.search)`)
	w.look("history.back()")
	w.until("Back leads to the metric", `document.querySelectorAll("#inside .tops > div").length === 1 && !/label=/.test(location.search)`)
	w.look("history.go(-2)")
	w.until("Back leads back", `location.pathname === "/status" && !document.getElementById("status").hidden`)

	w.open(shared)
	w.until("the URL that was passed on asks the same", editorText+` === "mcached_memory_budget_bytes" && `+said+`.startsWith("1 series")`)

	background := `getComputedStyle(document.body).backgroundColor`
	colours := map[string]bool{}
	for _, scheme := range []string{"light", "dark"} {
		w.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}})
		colours[w.look(background)] = true
	}
	if len(colours) != 2 {
		t.Errorf("light and dark look the same: %v", colours)
	}
	for _, path := range []string{"/explore?g0.expr=mcached_series_bytes", "/status", "/cardinality"} {
		w.open(s.url + path)
		for _, width := range []int{320, 390, 1900} {
			w.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 400})
			w.until(fmt.Sprintf("nothing of %s sticks out of a window of %d", path, width), `document.documentElement.scrollWidth <= document.documentElement.clientWidth`)
		}
	}
	w.quiet()
}

// TestE2EMouse uses the graph as a person with a mouse does: zooms, goes back,
// reads values, hides and solos lines, sorts, stacks, changes the zone; then the
// daemon goes.
func TestE2EMouse(t *testing.T) {
	browser := realServer(t, "chromium", "chromium")
	t.Parallel()
	s := startServer(t, "--self-scrape.interval=1s")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	now := time.Now().Truncate(time.Minute).UnixMilli()
	var series []prompb.TimeSeries
	for i := range 3 {
		ts := oneSeries(now, 0, "__name__", "wave", "i", strconv.Itoa(i))
		ts.Samples = nil
		for at := now - 3600_000; at <= now; at += 15_000 {
			if i == 2 && at > now-1800_000 && at < now-1200_000 {
				continue // a gap
			}
			ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: at, Value: float64(i+1) * 10})
		}
		series = append(series, ts)
	}
	hist := oneSeries(now, 0, "__name__", "latency")
	hist.Samples = nil
	for at := now - 3600_000; at <= now; at += 60_000 {
		hist.Histograms = append(hist.Histograms, prompb.FromIntHistogram(at, &histogram.Histogram{Schema: 0, Count: 9, Sum: 20, ZeroThreshold: 1e-9,
			PositiveSpans: []histogram.Span{{Offset: 0, Length: 3}}, PositiveBuckets: []int64{2, 1, 1}}))
	}
	series = append(series, hist)
	if code, said, err := s.post(ctx, snappy.Encode(nil, body(t, series...))); err != nil || code != http.StatusNoContent {
		t.Fatalf("%d %s %v", code, said, err)
	}
	w := openWindow(t, browser)
	w.listen()
	end := time.UnixMilli(now).UTC().Format("2006-01-02 15:04:05")
	link := s.url + "/graph?g0.expr=wave&g0.range_input=1h&g0.end_input=" + url.QueryEscape(end)
	w.open(link)
	w.until("three lines are drawn", `document.querySelectorAll(".legend tbody tr").length === 3 && !!document.querySelector(".u-over")`)
	if was := w.look(`document.getElementById("end").value`); was == "" {
		t.Error("a link to an incident shows another time")
	}

	// Drag to zoom, Back to return.
	w.point("mouseHovers", ".u-over", 0.25, 0.5)
	w.point("mousePressed", ".u-over", 0.25, 0.5)
	w.point("mouseMoved", ".u-over", 0.5, 0.5)
	w.point("mouseReleased", ".u-over", 0.5, 0.5)
	w.until("it is zoomed", `new URLSearchParams(location.search).get("g0.range_input").startsWith("15m") || new URLSearchParams(location.search).get("g0.range_input").startsWith("14m")`)
	w.look("history.back()")
	w.until("Back shows what was", `document.getElementById("range").value === "1h" && document.querySelectorAll(".legend tbody tr").length === 3`)

	// The cursor reads all lines.
	w.point("mouseHovers", ".u-over", 0.7, 0.5)
	w.point("mouseHovers", ".u-over", 0.8, 0.5)
	w.point("mouseHovers", ".u-over", 0.8, 0.37) // of 20
	w.until("the nearest line is named", `/wave\{i="\d"\}/.test(document.querySelector(".at:not([hidden])").textContent)`)
	w.until("it reads all values", `[...document.querySelectorAll(".legend tbody td:nth-child(2)")].map(td => td.textContent).join() === "10,20,30"`)

	// The legend sorts, hides and solos.
	w.click(".legend th:nth-child(5) button") // max
	w.until("the largest is first", `document.querySelector('.legend th[aria-sort="descending"]').textContent === "max" && document.querySelector(".legend tbody code").textContent === 'wave{i="2"}'`)
	w.click(".legend tbody button.series")
	w.until("it is hidden", `document.querySelector(".legend tbody button.series").getAttribute("aria-pressed") === "false"`)
	w.click(".legend tbody tr:nth-child(3) button.small")
	w.until("one is alone", `[...document.querySelectorAll(".legend button.series")].map(b => b.getAttribute("aria-pressed")).join() === "false,false,true"`)

	for _, option := range []string{"stacked", "log", "utc", "exemplars"} {
		w.click("#" + option)
		w.until(option+" is on", fmt.Sprintf(`document.getElementById("%s").getAttribute("aria-pressed") === "true" && document.querySelectorAll(".legend tbody tr").length === 3`, option))
	}
	if href := w.look("location.href"); !strings.Contains(href, "g0.stacked=1") || !strings.Contains(href, "log=1") || !strings.Contains(href, "tz=utc") {
		t.Errorf("the URL does not hold the options: %s", href)
	}

	// The table sorts by value; the tree knows the parts.
	w.click(`[data-tab="table"]`)
	w.until("the table is shown", `document.querySelectorAll(".values tbody tr").length === 3`)
	w.click(".values th:nth-child(2) button")
	w.until("it is sorted", `document.querySelector(".values tbody td.n").textContent === "30"`)
	w.open(s.url + "/graph?g0.tab=explain&g0.end_input=" + url.QueryEscape(end) + "&g0.expr=" + url.QueryEscape("sum by (i) (rate(wave[5m])) > 0"))
	w.until("the tree is shown", `[...document.querySelectorAll(".tree code")].map(c => c.textContent.trim()).join("|") === ">|sum by (i)|rate|wave[5m]|0" && /3 series/.test(document.querySelector(".tree").textContent)`)

	// A native histogram is a heat map, and a table of buckets.
	w.open(strings.Replace(link, "expr=wave", "expr=latency", 1))
	w.until("there is a heat map", `!!document.querySelector('canvas[aria-label^="Heat map"]')`)
	w.click(`[data-tab="table"]`)
	w.until("its buckets are listed", `document.querySelectorAll("table.buckets tr").length === 3 && /9 observations/.test(document.querySelector("table.buckets caption").textContent)`)

	// Two expressions, each with an answer.
	w.open(strings.Replace(link, "g0.expr=wave", "g0.expr=wave&g1.expr=latency", 1))
	w.until("both are answered", `document.querySelectorAll(".panel").length === 2 && !!document.querySelector('canvas[aria-label^="Heat map"]') && !!document.querySelector(".u-over")`)
	w.quiet()

	// The daemon goes: what is shown stays, dimmed and dated.
	w.open(link)
	w.until("it is drawn", `document.querySelectorAll(".legend tbody tr").length === 3`)
	s.stop()
	w.click("button.run")
	w.until("it is dimmed and dated", `document.querySelector(".panel").classList.contains("gone") && /does not answer; this is of \d{4}-/.test(`+said+`) && document.querySelectorAll(".legend tbody tr").length === 3`)
}

// TestE2EPagePrefix: the page works under a path that a proxy takes off.
func TestE2EPagePrefix(t *testing.T) {
	browser := realServer(t, "chromium", "chromium")
	t.Parallel()
	s := startServer(t, "--self-scrape.interval=1s")
	hasMetrics(t, s)
	target, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(http.StripPrefix("/cache/one", httputil.NewSingleHostReverseProxy(target)))
	defer front.Close()
	w := openWindow(t, browser)
	w.listen()
	w.open(front.URL + "/cache/one/graph?g0.expr=mcached_series")
	w.until("it is answered", said+`.includes(" series, ")`)
	w.click(`nav a[href="status"]`)
	w.until("the status is drawn", `location.pathname === "/cache/one/status" && document.querySelectorAll("#map span").length > 0 && document.querySelectorAll("#plots canvas").length > 3`)
	w.quiet()
}

// TestE2EPageWithoutScripts: a browser that is too old, or runs no scripts, is
// told so, by words that only scripts take away.
func TestE2EPageWithoutScripts(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	res, err := http.Get(s.url + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(b), `<p id="notice"`)
	notice, _, _ := strings.Cut(after, "</p>")
	if strings.Contains(notice, "hidden") || !strings.Contains(notice, "needs JavaScript") || !strings.Contains(notice, `href="metrics"`) {
		t.Errorf("the notice is %q", notice)
	}
}
