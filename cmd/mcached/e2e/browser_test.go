package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	p := start(t, browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
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
		if v := w.look(expression); v != "true" {
			return fmt.Errorf("%s is %s; focus on #%s, which says %q", expression, v, w.look("document.activeElement.id"), w.look("document.activeElement.value"))
		}
		return nil
	})
}

// press presses keys one after the other.
func (w *window) press(keys ...string) {
	w.t.Helper()
	codes := map[string]int{"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowUp": 38, "ArrowDown": 40}
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

func (w *window) write(text string) { w.call("Input.insertText", map[string]any{"text": text}) }

// tabTo presses Tab until the element with that id has the focus.
func (w *window) tabTo(id string) {
	w.t.Helper()
	for range 40 {
		if w.look("document.activeElement.id") == id {
			return
		}
		w.press("Tab")
	}
	w.t.Fatalf("no number of tabs leads to #%s", id)
}

// TestE2EKeyboard uses the page as a person without a mouse does: completion of
// metrics, labels and values, a query, what is largest; then passes the URL on,
// turns the lights off and makes the window narrow.
func TestE2EKeyboard(t *testing.T) {
	browser := realServer(t, "chromium", "chromium")
	t.Parallel()
	s := startServer(t, "--self-scrape.interval=1s")
	eventually(t, "there is something to look at", func() error {
		// A bucket is there from the first scrape on, so what is said of it comes with the second.
		v, err := s.instant("mcached_series")
		if err == nil && len(v) == 0 {
			err = errors.New("not yet")
		}
		return err
	})
	w := openWindow(t, browser)
	w.call("Page.navigate", map[string]any{"url": s.url + "/"})
	w.until("the memory is drawn", `document.readyState === "complete" && document.querySelectorAll("#map span").length > 0 && document.getElementById("notice").hidden`)

	w.tabTo("expr")
	w.write("memory_budg")
	w.until("metrics are offered", `!document.getElementById("hints").hidden && [...document.querySelectorAll("#hints li")].some(li => li.textContent === "mcached_memory_budget_bytes")`)
	w.press("ArrowDown", "Enter")
	w.until("one is taken", `document.getElementById("expr").value === "mcached_memory_budget_bytes" && document.getElementById("hints").hidden`)
	w.press("Enter")
	w.until("it is run", `document.getElementById("said").textContent.startsWith("1 value") && document.querySelector("#values td.n").textContent === "67108864" && !!document.querySelector("#graph path")`)
	shared := w.look("location.href")

	// A label and its value; Tab takes what is first.
	w.look(`document.getElementById("expr").value = ""`)
	w.write("mcached_series{buck")
	w.until("labels are offered", `[...document.querySelectorAll("#hints li")].some(li => li.textContent === "bucket")`)
	w.press("Tab")
	w.write(`="def`)
	w.until("values are offered", `[...document.querySelectorAll("#hints li")].some(li => li.textContent === "default")`)
	w.press("Escape")
	w.until("Escape puts them away", `document.getElementById("hints").hidden`)
	w.write(`ault"}`)
	w.press("Enter")
	w.until("it is run", `document.getElementById("expr").value === 'mcached_series{bucket="default"}' && document.getElementById("said").textContent.startsWith("1 value")`)

	w.tabTo("count")
	w.press(" ")
	w.until("the largest are listed", `["Metrics by series", "Metrics by bytes of samples", "Labels by values"].every(h => [...document.querySelectorAll("#tops h3")].some(e => e.textContent === h && e.parentElement.querySelectorAll("tr").length > 3))`)

	w.call("Page.navigate", map[string]any{"url": shared})
	w.until("the URL that was passed on asks the same", `document.readyState === "complete" && document.getElementById("expr").value === "mcached_memory_budget_bytes" && document.getElementById("said").textContent.startsWith("1 value")`)

	background := `getComputedStyle(document.body).backgroundColor`
	colours := map[string]bool{}
	for _, scheme := range []string{"light", "dark"} {
		w.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}})
		colours[w.look(background)] = true
	}
	if len(colours) != 2 {
		t.Errorf("light and dark look the same: %v", colours)
	}
	for _, width := range []int{320, 500, 1900} {
		w.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 400})
		w.until(fmt.Sprintf("nothing sticks out of a window of %d", width), `document.documentElement.scrollWidth <= document.documentElement.clientWidth`)
	}
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
