package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"
)

// dashboardsCommand asks what dashboards ask.
func dashboardsCommand(app *kingpin.Application) (string, action) {
	c := app.Command("dashboards", "Ask the expressions of Grafana dashboards of a server and of a reference, with variables filled in; compare the answers, the times and the processor time.")
	files := c.Arg("file", "A dashboard as JSON.").Required().ExistingFiles()
	b := boards{}
	c.Flag("url", "The server.").Default("http://127.0.0.1:9201").StringVar(&b.subject.url)
	c.Flag("pid", "Its process, for its CPU time.").IntVar(&b.subject.pid)
	c.Flag("reference-url", "The server to compare with. Default: none.").StringVar(&b.reference.url)
	c.Flag("reference-pid", "Its process.").IntVar(&b.reference.pid)
	vars := c.Flag("var", "name=value of a dashboard's variable. Others match everything. Repeatable.").Strings()
	c.Flag("range", "How far back each panel looks.").Default("1h").DurationVar(&b.window)
	c.Flag("step", "Distance of the points of an answer.").Default("15s").DurationVar(&b.step)
	end := c.Flag("end", "The end of the range, in Unix milliseconds. Default: now.").Int64()
	c.Flag("times", "How often each expression is asked, of both in turns; where the server seems slower by more than a tenth, five times as often.").Default("5").IntVar(&b.times)
	return c.FullCommand(), func(ctx context.Context, out io.Writer) error {
		if b.times < 1 || b.window < time.Second || b.step < time.Millisecond {
			return usageError{errors.New("--times must be at least 1, --range 1s, --step 1ms")}
		}
		b.variables = map[string]string{}
		for _, v := range *vars {
			name, value, ok := strings.Cut(v, "=")
			if !ok {
				return usageError{fmt.Errorf("--var must be name=value, got %q", v)}
			}
			b.variables[name] = value
		}
		if b.endMs = *end; b.endMs == 0 {
			b.endMs = time.Now().UnixMilli()
		}
		return b.run(ctx, *files, out)
	}
}

// answerer is a server that is asked.
type answerer struct {
	url string
	pid int
}

// boards is what is asked, and of whom.
type boards struct {
	subject, reference answerer
	variables          map[string]string
	window, step       time.Duration
	endMs              int64
	times              int
}

func (b *boards) run(ctx context.Context, files []string, out io.Writer) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "panel\tp50 ms\tCPU ms\treference: p50 ms\tCPU ms\ttime, ratio\tanswers")
	var sum [2]asked
	compared, same, slower := 0, 0, 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		panels, err := panelsOf(text)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		for _, p := range panels {
			q := b.question(filepath.Base(file)+": "+p.title, p.expr)
			got, want, err := b.compare(ctx, q)
			if err != nil {
				fmt.Fprintf(t, "%s\t%v: %s\n", q.name, err, p.expr)
				continue
			}
			of := got.asked()
			if want == nil {
				fmt.Fprintf(t, "%s\t%.2f\t%.2f\n", q.name, of.p50Ms, of.cpuMs)
				continue
			}
			reference, difference := want.asked(), differ(got.last, want.last)
			if difference == "" {
				same++
				difference = "the same"
			}
			ratio := of.p50Ms / reference.p50Ms
			if ratio > slowerBy {
				slower++
			}
			compared++
			for i, a := range []asked{of, reference} {
				sum[i].p50Ms += a.p50Ms
				sum[i].cpuMs += a.cpuMs
			}
			fmt.Fprintf(t, "%s\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%s\n", q.name, of.p50Ms, of.cpuMs, reference.p50Ms, reference.cpuMs, ratio, difference)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if compared > 0 {
		fmt.Fprintf(out, "%d expressions over %v at %v: sum of times %.1f ms and %.1f ms, ratio %.2f; processor time %.1f and %.1f ms, ratio %.2f; %d answers the same, %d slower by more than a tenth\n",
			compared, b.window, b.step, sum[0].p50Ms, sum[1].p50Ms, sum[0].p50Ms/sum[1].p50Ms, sum[0].cpuMs, sum[1].cpuMs, sum[0].cpuMs/sum[1].cpuMs, same, slower)
	}
	return nil
}

// panel is an expression of a dashboard.
type panel struct{ title, expr string }

// panelsOf finds the expressions in a dashboard, rows' panels included, in order.
func panelsOf(text []byte) (all []panel, err error) {
	type panelJSON struct {
		Title   string
		Targets []struct{ Expr string }
		Panels  json.RawMessage
	}
	var dig func(raw json.RawMessage) error
	dig = func(raw json.RawMessage) error {
		var panels []panelJSON
		if len(raw) == 0 {
			return nil
		}
		if err := json.Unmarshal(raw, &panels); err != nil {
			return err
		}
		for _, p := range panels {
			for _, target := range p.Targets {
				if target.Expr != "" {
					all = append(all, panel{p.Title, target.Expr})
				}
			}
			if err := dig(p.Panels); err != nil {
				return err
			}
		}
		return nil
	}
	var board struct {
		Panels json.RawMessage
		Rows   json.RawMessage // of older ones
	}
	if err := json.Unmarshal(text, &board); err != nil {
		return nil, err
	}
	if err := errors.Join(dig(board.Panels), dig(board.Rows)); err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, errors.New("there is no expression in it")
	}
	return all, nil
}

// variable is one in an expression: $name, ${name}, ${name:format}, [[name]].
var variable = regexp.MustCompile(`\$\{(\w+)(?::\w+)?\}|\$(\w+)|\[\[(\w+)\]\]`)

// fill replaces the variables of an expression. Those that Grafana has are
// computed as it does; of others the value is what --var says, or all.
func (b *boards) fill(expr string) string {
	const scrape = 15 * time.Second
	seconds := func(d time.Duration) string { return strconv.FormatInt(int64(math.Ceil(d.Seconds())), 10) + "s" }
	builtIn := map[string]string{
		"__interval": seconds(b.step), "__rate_interval": seconds(max(b.step+scrape, 4*scrape)), "__range": seconds(b.window),
		"__range_s": strconv.FormatInt(int64(b.window.Seconds()), 10), "__interval_ms": strconv.FormatInt(b.step.Milliseconds(), 10),
		"interval": seconds(max(b.step, 4*scrape)), "resolution": seconds(max(b.step, 4*scrape)),
	}
	return variable.ReplaceAllStringFunc(expr, func(found string) string {
		m := variable.FindStringSubmatch(found)
		name := m[1] + m[2] + m[3]
		if value, ok := b.variables[name]; ok {
			return value
		}
		if value, ok := builtIn[name]; ok {
			return value
		}
		return ".*"
	})
}

func (b *boards) question(name, expr string) question {
	at := func(ms int64) string { return strconv.FormatFloat(float64(ms)/1000, 'f', 3, 64) }
	expr = b.fill(expr)
	// Where a dashboard has an equals sign before what stands for all, it means a pattern.
	expr = strings.NewReplacer(`="all"`, `=~".*"`, `=".*"`, `=~".*"`).Replace(expr)
	return question{name: name, path: "/query_range", form: url.Values{
		"query": {expr}, "start": {at(b.endMs - b.window.Milliseconds())}, "end": {at(b.endMs)}, "step": {strconv.FormatFloat(b.step.Seconds(), 'f', -1, 64)},
	}}
}

// An expression is slower if its median is so by more than a tenth. One that seems
// to be is asked more often before it is said: of some hundreds of medians of
// a few answers some are chance.
const (
	slowerBy = 1.1
	askAgain = 4 // times --times
)

// compare asks a question of the server and of the reference in turns, so that
// what else the machine does strikes both. Without a reference want is nil.
func (b *boards) compare(ctx context.Context, q question) (got, want *asking, err error) {
	got = b.subject.asking()
	defer got.client.close()
	both := []*asking{got}
	if b.reference.url != "" {
		want = b.reference.asking()
		defer want.client.close()
		both = append(both, want)
	}
	turn := func(timed bool) error {
		for _, x := range both {
			status, err := x.once(ctx, q, timed)
			if err == nil {
				err = x.refused(status)
			}
			if err != nil && x == want {
				return fmt.Errorf("the reference: %w", err)
			} else if err != nil {
				return err
			}
		}
		return nil
	}
	clock := func(sign time.Duration) error {
		for _, x := range both {
			if err := x.clock(sign); err != nil {
				return err
			}
		}
		return nil
	}
	if err := turn(false); err != nil { // to warm up
		return nil, nil, err
	}
	for _, turns := range []int{b.times, askAgain * b.times} {
		if err := clock(-1); err != nil {
			return nil, nil, err
		}
		for range turns {
			if err := turn(true); err != nil {
				return nil, nil, err
			}
		}
		if err := clock(1); err != nil {
			return nil, nil, err
		}
		if want == nil || got.asked().p50Ms <= slowerBy*want.asked().p50Ms {
			break
		}
	}
	return got, want, nil
}

// asking begins to ask the server.
func (a answerer) asking() *asking {
	return &asking{base: strings.TrimSuffix(a.url, "/") + "/api/v1", client: &asker{timeout: 2 * time.Minute}, process: process{"/proc", a.pid}}
}

// seriesByName is an answer to a range query: series by their labels.
type seriesByName map[string][][2]any

func parseMatrix(body []byte) (seriesByName, error) {
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Values [][2]any
			}
		}
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&answer); err != nil {
		return nil, err
	}
	m := seriesByName{}
	for _, s := range answer.Data.Result {
		var name strings.Builder
		for _, k := range slices.Sorted(maps.Keys(s.Metric)) {
			fmt.Fprintf(&name, "%s=%q,", k, s.Metric[k])
		}
		m[name.String()] = s.Values
	}
	return m, nil
}

// closeEnough is how far two values may be apart, relatively: servers add
// floats in different orders.
const closeEnough = 1e-9

// differ says in what two answers do; nothing if in nothing.
func differ(got, want []byte) string {
	a, err := parseMatrix(got)
	if err != nil {
		return err.Error()
	}
	b, err := parseMatrix(want)
	if err != nil {
		return err.Error()
	}
	if len(a) != len(b) {
		return fmt.Sprintf("%d series, the reference has %d", len(a), len(b))
	}
	for name, x := range a {
		y, ok := b[name]
		if !ok {
			return "the reference has no {" + name + "}"
		}
		if len(x) != len(y) {
			return fmt.Sprintf("%d points, the reference has %d, of {%s}", len(x), len(y), name)
		}
		for i := range x {
			if !sameNumber(x[i][0], y[i][0]) || !sameNumber(x[i][1], y[i][1]) {
				return fmt.Sprintf("%v, the reference has %v, of {%s}", x[i], y[i], name)
			}
		}
	}
	return ""
}

func sameNumber(a, b any) bool {
	x, err1 := strconv.ParseFloat(fmt.Sprint(a), 64)
	y, err2 := strconv.ParseFloat(fmt.Sprint(b), 64)
	if err1 != nil || err2 != nil {
		return false
	}
	return x == y || math.IsNaN(x) && math.IsNaN(y) || math.Abs(x-y) <= closeEnough*max(math.Abs(x), math.Abs(y))
}
