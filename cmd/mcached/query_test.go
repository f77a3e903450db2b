package main

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/prometheus/promql/parser"
)

// api answers every query with one body, and remembers what was asked.
func api(t testing.TB, status int, body string) (url string, asked *http.Request) {
	asked = &http.Request{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = *r
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(s.Close)
	return s.URL, asked
}

// ask runs `mcached query` in process and returns its exit code, output and errors.
func ask(args ...string) (int, string, string) {
	var out, errs bytes.Buffer
	code := dispatch(append([]string{"query"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

func TestQueryTable(t *testing.T) {
	u, asked := api(t, 200, `{"status":"success","warnings":["half of it\u001b[31m is\u202e gone"],"data":{"resultType":"vector","result":[
		{"metric":{"__name__":"up","job":"a","instance":"x\u001b[2J"},"value":[1700000000,"1"]},{"metric":{},"value":[1700000000,"NaN"]}]}}`)
	code, out, errs := ask("--url="+u, "--time=1700000000", "up")
	want := "# half of it�[31m is� gone\nup{instance=\"x\\x1b[2J\",job=\"a\"}   1\n{}                                NaN\n"
	if code != exitOK || out != want || errs != "" {
		t.Errorf("code %d, errors %q, output\n%s\nwant\n%s", code, errs, out, want)
	}
	if q := asked.URL.Query(); q.Get("query") != "up" || q.Get("time") != "1700000000.000" {
		t.Errorf("asked %v", q)
	}
}

func TestQueryOtherResults(t *testing.T) {
	at := func(ms int64) string { return time.UnixMilli(ms).Format(time.RFC3339Nano) }
	for body, want := range map[string]string{
		`{"status":"success","data":{"resultType":"scalar","result":[1,"2.5"]}}`:   "{}   2.5\n",
		`{"status":"success","data":{"resultType":"string","result":[1,"hello"]}}`: "{}   hello\n",
		`{"status":"success","data":{"resultType":"vector","result":[]}}`:          "(no series)\n",
		// Of a selector with a range, at one moment: there is no range to plot it over.
		`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"b"},"values":[[1.001,"2"],[2.501,"3"]]}]}}`: "{a=\"b\"}   " + at(1001) + "   2\n{a=\"b\"}   " + at(2501) + "   3\n",
	} {
		u, _ := api(t, 200, body)
		if code, out, _ := ask("--url="+u, "x"); code != exitOK || out != want {
			t.Errorf("%s: code %d, %q", body, code, out)
		}
	}
}

func TestQueryJSON(t *testing.T) {
	body := `{"status":"success","data":{"resultType":"vector","result":[]}}`
	u, _ := api(t, 200, body)
	if code, out, _ := ask("--url="+u, "-o", "json", "x"); code != exitOK || out != body+"\n" || !json.Valid([]byte(out)) {
		t.Errorf("code %d, %q", code, out)
	}
}

func TestQuerySeparated(t *testing.T) {
	vector := `{"status":"success","warnings":["older samples are gone"],"data":{"resultType":"vector","result":[
		{"metric":{"__name__":"up","job":"a,b"},"value":[1700000000.5,"1"]},{"metric":{"x":"say \"hi\""},"value":[1700000000.5,"NaN"]}]}}`
	u, _ := api(t, 200, vector)
	for format, want := range map[string]string{
		"csv": "time,__name__,job,x,value\n1700000000.5,up,\"a,b\",,1\n1700000000.5,,,\"say \"\"hi\"\"\",NaN\n",
		"tsv": "time\t__name__\tjob\tx\tvalue\n1700000000.5\tup\ta,b\t\t1\n1700000000.5\t\t\t\"say \"\"hi\"\"\"\tNaN\n",
	} {
		if code, out, errs := ask("--url="+u, "-o", format, "x"); code != exitOK || out != want || errs != "# older samples are gone\n" {
			t.Errorf("%s: code %d, %q, output\n%q\nwant\n%q", format, code, errs, out, want)
		}
	}
	u, _ = api(t, 200, `{"status":"success","data":{"resultType":"matrix","result":[
		{"metric":{"a":"1"},"values":[[1,"2"]],"histograms":[[2,{"count":"3","sum":"4.5","buckets":[[0,"0.5","1","3"]]}]]}]}}`)
	if code, out, _ := ask("--url="+u, "-o", "csv", "--range=1m", "x"); code != exitOK || out != "time,a,value,lower,upper,count\n1,1,2,,,\n2,1,,0.5,1,3\n" {
		t.Errorf("code %d, %q", code, out)
	}
}

// TestQueryHistogram: native histograms are a table of buckets.
func TestQueryHistogram(t *testing.T) {
	u, _ := api(t, 200, `{"status":"success","data":{"resultType":"vector","result":[
		{"metric":{"__name__":"h"},"histogram":[1,{"count":"7","sum":"4.5","buckets":[[1,"-1","-0.5","1"],[3,"-0.001","0.001","2"],[0,"0.5","1","4"]]}]}]}}`)
	code, out, errs := ask("--url="+u, "h")
	want := "h                 histogram, count 7, sum 4.5\n" +
		"  [-1, -0.5)      1                             ▇▇▇▇▇▇▇▇▇▇\n" +
		"  [-0.001, 0.001] 2                             ▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇\n"
	for _, line := range strings.Split(strings.TrimSpace(want), "\n") {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), strings.Join(strings.Fields(line), " ")) {
			t.Errorf("code %d, %q, output\n%s\nhas no %q", code, errs, out, line)
		}
	}
	if !strings.Contains(out, "(0.5, 1]") || !strings.Contains(out, strings.Repeat("▇", maxBar)) || strings.Contains(out, strings.Repeat("▇", maxBar+1)) {
		t.Errorf("output\n%s", out)
	}
}

// TestSeriesName: names are spelt as PromQL takes them.
func TestSeriesName(t *testing.T) {
	for want, metric := range map[string]map[string]string{
		"{}": {}, "up": {"__name__": "up"}, "job:up:sum": {"__name__": "job:up:sum"}, `up{a="1",b="2"}`: {"__name__": "up", "b": "2", "a": "1"},
		`{"http.requests"}`: {"__name__": "http.requests"}, `{"a b","x.y"="1",z="2"}`: {"__name__": "a b", "x.y": "1", "z": "2"}, `{"x.y"="1"}`: {"x.y": "1"}, `{"größe"}`: {"__name__": "größe"},
	} {
		got := seriesName(metric)
		if got != want {
			t.Errorf("%v is %s, want %s", metric, got, want)
		}
		if got != "{}" {
			if _, err := parser.NewParser(parser.Options{}).ParseExpr(got); err != nil {
				t.Errorf("%s: %v", got, err)
			}
		}
	}
}

func TestQueryPlot(t *testing.T) {
	u, asked := api(t, 200, `{"status":"success","data":{"resultType":"matrix","result":[
		{"metric":{"__name__":"line"},"values":[[1000,"0"],[1030,"15"],[1060,"30"]]},
		{"metric":{"__name__":"flat"},"values":[[1000,"7"],[1060,"7"]]},
		{"metric":{"__name__":"odd"},"values":[[1000,"NaN"],[1060,"+Inf"]]}]}}`)
	code, out, errs := ask("--url="+u, "--time=1060", "--range=1m", "line")
	if code != exitOK || errs != "" {
		t.Fatalf("code %d, %q", code, errs)
	}
	if q := asked.URL.Query(); asked.URL.Path != "/api/v1/query_range" || q.Get("start") != "1000.000" || q.Get("end") != "1060.000" || q.Get("step") != "1" {
		t.Errorf("asked %s %v", asked.URL.Path, q)
	}
	lines := strings.Split(out, "\n")
	if lines[0] != "line" || !strings.HasPrefix(lines[1], "       30 ┤") || !strings.HasPrefix(lines[6], "        0 ┤") {
		t.Errorf("the plot is\n%s", out)
	}
	// The line rises from the lower left to the upper right.
	if !strings.HasSuffix(lines[1], "⠁") && !strings.HasSuffix(lines[1], "⠉") && !strings.HasSuffix(lines[1], "⠊") || !strings.HasPrefix(lines[6], "        0 ┤⣀") && !strings.HasPrefix(lines[6], "        0 ┤⡠") {
		t.Errorf("the line does not rise:\n%s", out)
	}
	if !strings.Contains(out, "flat\n") || !strings.Contains(out, "odd\n  (no finite values)\n") {
		t.Errorf("flat and odd series:\n%s", out)
	}
}

// TestQueryPlotShared: with colours the series share one plot, whose dots and
// legend have the colour of their series.
func TestQueryPlotShared(t *testing.T) {
	u, _ := api(t, 200, `{"status":"success","data":{"resultType":"matrix","result":[
		{"metric":{"__name__":"up"},"values":[[1000,"0"],[1060,"30"]]},
		{"metric":{"__name__":"down"},"values":[[1000,"30"],[1060,"10"]]}]}}`)
	code, out, errs := ask("--url="+u, "--time=1060", "--range=1m", "--color=always", "x")
	if code != exitOK || errs != "" {
		t.Fatalf("code %d, %q", code, errs)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != sharedRows+1+2 {
		t.Fatalf("%d lines:\n%s", len(lines), out)
	}
	if lines[len(lines)-2] != "\x1b[34m━━\x1b[0m up  30" || lines[len(lines)-1] != "\x1b[31m━━\x1b[0m down  10" {
		t.Errorf("the legend is\n%q\n%q", lines[len(lines)-2], lines[len(lines)-1])
	}
	// At the top the falling line begins and the rising one ends.
	top := lines[0]
	if first, last := strings.Index(top, "\x1b[31m"), strings.LastIndex(top, "\x1b[34m"); first < 0 || last < first {
		t.Errorf("the first line is %q", top)
	}
	if code, out, _ = ask("--url="+u, "--time=1060", "--range=1m", "--color=never", "x"); code != exitOK || strings.Contains(out, "\x1b") || !strings.Contains(out, "down\n") {
		t.Errorf("without colours:\n%s", out)
	}
}

// TestHistogramQuantiles: of 10 observations in (0, 1] and 10 in (1, 3] half are at or below 1.
func TestHistogramQuantiles(t *testing.T) {
	h := histogramPoint{Buckets: []histogramBucket{{0, "0", "1", "10"}, {0, "1", "3", "10"}}}
	for q, want := range map[float64]float64{0.25: 0.5, 0.5: 1, 0.75: 2, 0.9: 2.6, 1: 3} {
		if got := h.quantile(q); math.Abs(got-want) > 1e-9 {
			t.Errorf("the quantile %g is %g, want %g", q, got, want)
		}
	}
	if got := (&histogramPoint{}).quantile(0.5); !math.IsNaN(got) {
		t.Errorf("the median of nothing is %g", got)
	}
	rows := h.rows()
	if !strings.Contains(rows, "  p50\t1\t") || !strings.Contains(rows, "  p99\t2.96\t"+strings.Repeat("─", maxBar)+"┤") {
		t.Errorf("the rows are\n%s", rows)
	}
	// In a range they are plotted.
	if got := curvesOf(series{Metric: map[string]string{"__name__": "h"}, Histograms: []histogramPoint{h}}); len(got) != 3 || got[1].name != "p90 of h" || got[1].points[0].text != "2.6" {
		t.Errorf("the curves are %v", got)
	}
}

// TestDrawExtremes: the largest and smallest numbers, times outside the range
// and single points are drawn, not panicked at.
func TestDrawExtremes(t *testing.T) {
	from := time.Unix(0, 0)
	for _, values := range [][]point{
		nil,
		{{0, "1"}},
		{{-5, "1"}, {5, "2"}, {1e12, "3"}},
		{{0, "-1.7976931348623157e308"}, {5, "1.7976931348623157e308"}},
		{{0, "5e-324"}, {5, "0"}},
		{{5, "1"}, {0, "2"}},
		{{0, "x"}},
	} {
		if lines := draw([]curve{{points: values}}, from, from.Add(10*time.Second), 20, 4); len(lines) == 0 {
			t.Errorf("%v: nothing drawn", values)
		}
	}
}

func TestQueryErrors(t *testing.T) {
	bad, _ := api(t, 400, `{"status":"error","errorType":"bad_data","error":"parse error"}`)
	page, _ := api(t, 502, "<html>\nbad gateway")
	notJSON, _ := api(t, 200, "hello")
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--url=" + bad, "x("}, exitError, "parse error"},
		{[]string{"--url=" + page, "x"}, exitError, "502"},
		{[]string{"--url=" + notJSON, "x"}, exitError, "not JSON"},
		{[]string{"--url=http://127.0.0.1:1", "x"}, exitError, "--url"},
		{[]string{"--url=://", "x"}, exitUsage, "--url"},
		{[]string{}, exitUsage, "expression"},
		{[]string{"--time=yesterday", "x"}, exitUsage, "--time"},
		{[]string{"--range=long", "x"}, exitUsage, "--range"},
		{[]string{"--output=plot", "x"}, exitUsage, "--range"},
		{[]string{"--output=png", "x"}, exitUsage, `--output: "png" is not auto, table, plot, csv, tsv or json`},
		{[]string{"--color=red", "x"}, exitUsage, "--color"},
		{[]string{"--timeout=0", "x"}, exitError, "--timeout"},
		{[]string{"sum", "(x)"}, exitUsage, "in quotes"},
		{[]string{"--user=a", "--password-file=/none", "x"}, exitUsage, "--password-file"},
	} {
		code, out, errs := ask(c.args...)
		if code != c.code || !strings.Contains(errs, c.says) || strings.Count(errs, "\n") != 1 || out != "" {
			t.Errorf("%v: code %d, output %q, errors %q; want %d and one line with %q", c.args, code, out, errs, c.code, c.says)
		}
	}
}

// TestMetricsTable holds METRICS.md to the code. `mcached metrics > METRICS.md` mends it.
func TestMetricsTable(t *testing.T) {
	var out bytes.Buffer
	if err := metricsCommand(context.Background(), nil, &out); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile("METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(file, out.Bytes()) {
		t.Error("METRICS.md is not what the code says: go run ./cmd/mcached metrics > cmd/mcached/METRICS.md")
	}
}

// TestMetricNames: what is documented follows the rules for names.
func TestMetricNames(t *testing.T) {
	twice := map[string]bool{}
	for _, r := range rows() {
		if twice[r.Name] {
			t.Errorf("%s is there twice", r.Name)
		}
		twice[r.Name] = true
		if !strings.HasPrefix(r.Name, "mcached_") || r.Help == "" || r.Kind != "gauge" && r.Kind != "counter" {
			t.Errorf("%+v", r)
		}
		if strings.HasSuffix(r.Name, "_total") != (r.Kind == "counter") {
			t.Errorf("%s: only counters end in _total, and all do", r.Name)
		}
		r.Read(func(_ float64, values ...string) {
			if len(values) != len(r.Labels) {
				t.Errorf("%s: values %q of the labels %q", r.Name, values, r.Labels)
			}
		})
		for _, l := range r.Labels {
			if l == "job" || l == "instance" {
				t.Errorf("%s: the label %s is the scraper's to set", r.Name, l)
			}
		}
	}
}

// TestStatsMetrics: what `mcached stats` asks for is documented, or one of
// those that every process has.
func TestStatsMetrics(t *testing.T) {
	names := map[string]bool{"process_resident_memory_bytes": true, "process_start_time_seconds": true}
	for _, r := range rows() {
		names[r.Name] = true
	}
	for _, row := range summary {
		if !names[row.metric] {
			t.Errorf("%s: there is no %s", row.what, row.metric)
		}
	}
}

// TestQueryFromEnvironment: every flag of a command can be given so, too.
func TestQueryFromEnvironment(t *testing.T) {
	u, asked := api(t, 200, `{"status":"success","data":{"resultType":"vector","result":[]}}`)
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"URL": u, "USER": "me", "PASSWORD_FILE": password, "TENANT": "team", "TIMEOUT": "20s", "TIME": "1700000000", "OUTPUT": "json"} {
		t.Setenv("MCACHED_"+name, value)
	}
	code, out, errs := ask("up")
	if code != exitOK || !strings.HasPrefix(out, "{") {
		t.Fatalf("code %d, %q, %q", code, out, errs)
	}
	user, secret, _ := asked.BasicAuth()
	if user != "me" || secret != "secret" || asked.Header.Get("X-Scope-OrgID") != "team" || asked.URL.Query().Get("time") != "1700000000.000" {
		t.Errorf("asked %v %v", asked.URL, asked.Header)
	}
}

// TestClientOfSeveral: a command that asks for two things at once has one client, and no
// other once that cannot be made.
func TestClientOfSeveral(t *testing.T) {
	for _, file := range []string{"", "/nonexistent"} {
		var f apiFlags
		f.add(kingpin.New("mcached", ""), "1s")
		f.caFile = file
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if c, err := f.client(); (err != nil) != (file != "") || (c == nil) != (file != "") {
					t.Errorf("with %q: %v, %v", file, c, err)
				}
			})
		}
		all.Wait()
	}
}
