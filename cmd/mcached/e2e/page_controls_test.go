package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
)

// TestE2EPageControls uses what stands around a graph: the tenant, steps in
// time, automatic refreshes, exemplars, format, history, copies.
func TestE2EPageControls(t *testing.T) {
	browser := realServer(t, "chromium", "chromium")
	t.Parallel()
	s := startServer(t, "--tenancy.header=X-Scope-OrgID")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	now := time.Now().Truncate(time.Minute).UnixMilli()
	ts := oneSeries(now, 0, "__name__", "wave", "l", `with "quotes", and a comma`)
	ts.Samples = nil
	for at := now - 1800_000; at <= now; at += 15_000 {
		ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: at, Value: 7})
	}
	ts.Exemplars = []prompb.Exemplar{{Labels: []prompb.Label{{Name: "trace_id", Value: "abc123"}}, Value: 5, Timestamp: now - 600_000}}
	if code, said, err := s.post(ctx, snappy.Encode(nil, body(t, ts)), "X-Scope-OrgID", "team-a"); err != nil || code != http.StatusNoContent {
		t.Fatalf("%d %s %v", code, said, err)
	}

	w := openWindow(t, browser)
	w.listen()
	at := url.QueryEscape(time.UnixMilli(now).UTC().Format(time.DateTime))
	w.open(s.url + "/graph?g0.expr=wave&g0.tab=0&g0.range_input=20m&g0.show_exemplars=1&g0.end_input=" + at)
	w.until("another tenant has nothing", said+`.startsWith("no series match")`)
	w.click("#tenant")
	w.typeIn("team-a")
	w.press("Enter")
	w.until("the tenant has the series, and its exemplar", said+`.startsWith("1 series") && document.querySelector("details summary").textContent.startsWith("1 exemplars")`)

	// The URL holds the tenant from the next step on, and Back goes back.
	w.click("#earlier")
	w.until("half a range earlier", `/tenant=team-a/.test(location.search) && document.querySelectorAll(".legend tbody tr").length === 1 && !location.search.includes("`+at+`")`)
	w.click("#wider")
	w.until("twice the range", `document.getElementById("range").value === "40m" && /range_input=40m/.test(location.search)`)
	w.look("history.back()")
	w.until("Back", `document.getElementById("range").value === "20m"`)
	w.click("#step")
	w.typeIn("1m")
	w.press("Enter")
	w.until("the step is in the URL", `/step_input=1m/.test(location.search) && document.querySelectorAll(".legend tbody tr").length === 1`)

	// Copies have whole names; CSV quotes what has to be. An answer that comes late has
	// buttons of its own, so Enter may have to be pressed again; and what a button says
	// for a moment is noted by the page, as a busy machine looks too seldom.
	w.look(`navigator.clipboard.writeText = async text => { window.copied = text };
		new MutationObserver(() => { window.thanked ||= [...document.querySelectorAll("button")].some(b => b.textContent === "Copied") }).observe(document.body, {subtree: true, childList: true, characterData: true}); ""`)
	copied := func(button string) string {
		w.look("window.copied = ''; window.thanked = false")
		eventually(t, "it is copied, and says so", func() error {
			if w.look("window.copied !== '' && window.thanked") == "true" {
				return nil
			}
			w.look(fmt.Sprintf(`[...document.querySelectorAll("button")].find(b => b.textContent === %q)?.focus()`, button))
			w.press("Enter")
			return fmt.Errorf("copied %q", w.look("window.copied"))
		})
		w.until("the button is itself again", fmt.Sprintf(`[...document.querySelectorAll("button")].some(b => b.textContent === %q)`, button))
		return w.look("window.copied")
	}
	lines := strings.Split(copied("Copy CSV"), "\n")
	if want := `time,"wave{l=""with \""quotes\"", and a comma""}"`; lines[0] != want || len(lines) < 10 || !strings.HasSuffix(lines[1], "Z,7") {
		t.Errorf("CSV begins with %q, want %q; %d lines", lines[0], want, len(lines))
	}
	if text := copied("Copy JSON"); !strings.Contains(text, `"resultType": "matrix"`) {
		t.Errorf("JSON is %.200s", text)
	}

	// It is spelt as the server spells it, and remembered.
	w.open(s.url + "/graph?tenant=team-a&g0.expr=" + url.QueryEscape(`sum   by(l)(wave)`))
	w.focus(`[...document.querySelectorAll("button")].find(b => b.textContent === "Format")`)
	w.press("Enter")
	w.until("it is formatted", editorText+` === "sum by (l) (wave)"`)
	w.click("button.run")
	w.until("it is in the history", `[...document.querySelectorAll("#history option")].slice(1, 3).map(o => o.value).join() === "sum by (l) (wave),wave" || document.querySelectorAll("#history option")[1].value === "sum by (l) (wave)"`)

	// It asks by itself when that is wanted.
	w.look(`(() => { const r = document.getElementById("refresh"); r.value = "5000"; r.dispatchEvent(new Event("change")); performance.clearResourceTimings() })()`)
	w.until("it refreshes, and the URL says that it does", `/refresh=5s/.test(location.search) && performance.getEntriesByType("resource").filter(e => e.name.includes("query_range")).length >= 2`)
	w.quiet()
}
