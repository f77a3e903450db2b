package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
)

// wideCommand asks what looks at thousands of series.
func wideCommand(app *kingpin.Application) (string, action) {
	c := app.Command("wide", "Write the same load to mcached and the peers, and as many series of buckets, and ask all of them, in turns, what looks at thousands of series: aggregations, quantiles of histograms, joins, the largest, instant queries, values of labels. mcached and VictoriaMetrics are told to use nothing that they remember of results.")
	f := fieldFlags(c)
	times := c.Flag("times", "How often each is asked.").Default("7").Int()
	some := c.Flag("questions", "Ask only those in whose names this regular expression is found.").Regexp()
	data := loadFlags(c)
	return c.FullCommand(), func(ctx context.Context, out io.Writer) error {
		l, err := data()
		if err != nil {
			return err
		}
		if *times < 1 {
			return usageError{fmt.Errorf("--times must be positive, got %d", *times)}
		}
		all, err := f.contestants(out, "1")
		if err != nil {
			return err
		}
		questions := wideQuestions(l)
		if *some != nil {
			questions = slices.DeleteFunc(questions, func(q question) bool { return !(*some).MatchString(q.name) })
		}
		return measureWide(ctx, out, all, l, *times, questions)
	}
}

// measureWide prints p50 and the server's CPU time of each question, and the time of
// the first server as a part of that of the fastest of the others.
func measureWide(ctx context.Context, out io.Writer, all []contestant, l load, times int, questions []question) error {
	servers, head := make([]*server, len(all)), "query\t"
	for i, c := range all {
		s, err := start(ctx, c.peer)
		if err != nil {
			return err
		}
		defer s.stop()
		of := l
		for _, of.buckets = range []bool{false, true} {
			if _, err := c.writeTo(ctx, s, writer{load: of, perRequest: 2000, connections: 2}); err != nil {
				return err
			}
		}
		servers[i] = s
		head += c.name + "\t"
	}
	fmt.Fprintf(out, "%d series × %d samples, as many of buckets; m and n are two metrics, all are all; p50 ms / server CPU ms, median of %d\n", l.series, l.samples, times)
	t := newTable(out)
	fmt.Fprintln(t, head+"time, of the best other\t")
	client := asker{timeout: 2 * time.Minute}
	defer client.close()
	for _, q := range questions {
		line, best := q.name+"\t", math.NaN()
		var own float64
		for i, s := range servers {
			a, err := ask(ctx, &client, s.url+"/api/v1", computeAnew, q, times, s.process())
			if err != nil {
				return fmt.Errorf("%v: %s: %w", all[i], q.name, err)
			}
			line += a.String() + "\t"
			if i == 0 {
				own = a.p50Ms
			} else if !(a.p50Ms >= best) {
				best = a.p50Ms
			}
		}
		if math.IsNaN(best) { // there is no other
			fmt.Fprintln(t, line+"-\t")
			continue
		}
		fmt.Fprintf(t, "%s%.2f\t\n", line, own/best)
	}
	return errors.Join(t.Flush(), ctx.Err())
}

// wideQuestions are asked of a load: of all series but buckets, of five metrics, of two of
// them, m and n, and of few, which are m's series of a hundred targets; and of buckets,
// all of them or those of twenty targets, some, which are ten thousand.
func wideQuestions(l load) (all []question) {
	in := questions(l)[0].form // the last hour
	fill := strings.NewReplacer("$m", metricName(0), "$n", metricName(1), "$few", metricName(0)+`{instance=~"10.0.0.[0-9]{1,2}:9100"}`,
		"$five", `{__name__=~"checkout_http_request_0[0-4]_total"}`, "$all", `{__name__=~"checkout.*_total"}`,
		"$buckets", bucketMetric, "$some", bucketMetric+`{instance=~"10.0.0.1?[0-9]:9100"}`,
		"$regexps", bucketMetric+`{handler=~"/api/v1/orders/(1|2)[0-9]",pod!~".*[05]"}`)
	for _, q := range []string{
		"sum by (handler) (rate($m[5m]))", "topk(5, $m)", "topk(5, sum by (instance) (rate($m[5m])))", "max by (handler) (max_over_time($m[5m]))",
		"quantile by (handler) (0.9, $m)", "quantile by (handler) (0.9, $few)", "avg by (handler) (avg_over_time($few[5m]))",
		"$m * on (instance) group_left () sum by (instance) ($n)", "rate($m[5m]) / on (instance, handler) rate($n[5m])",
		"count by (pod) ($five)", "topk(10, $five)",
		"histogram_quantile(0.9, sum by (le) (rate($some[5m])))", "histogram_quantile(0.9, sum by (le, handler) (rate($some[5m])))",
		"histogram_quantile(0.9, rate($some[5m]))", "rate($some[5m]) * on (instance) group_left () sum by (instance) ($n)",
		"histogram_quantile(0.9, sum by (le) (rate($buckets[5m])))", "histogram_quantile(0.9, sum by (le, instance) (rate($buckets[5m])))",
		"sum by (handler) (rate($buckets[5m]))", "topk(10, rate($buckets[5m]))", "quantile by (handler) (0.9, rate($buckets[5m]))",
		"sum by (le) (rate($regexps[5m]))",
	} {
		all = append(all, question{name: strings.ReplaceAll(q, "$", ""), path: "/query_range", form: url.Values{
			"query": {fill.Replace(q)}, "start": in["start"], "end": in["end"], "step": in["step"], "nocache": {"1"}}})
	}
	for _, q := range []string{
		"topk(10, $five)", "quantile(0.9, $five)", "sum by (instance) ($five)", "$m * on (instance) group_left () sum by (instance) ($n)",
		"count by (job) ($all)", "topk(10, $all)", "histogram_quantile(0.9, sum by (le, instance) (rate($buckets[5m])))",
		"histogram_quantile(0.9, rate($some[5m]))",
	} {
		all = append(all, question{name: "instant: " + strings.ReplaceAll(q, "$", ""), path: "/query", form: url.Values{
			"query": {fill.Replace(q)}, "time": in["end"], "nocache": {"1"}}})
	}
	for _, name := range []string{"pod", "instance", "__name__"} {
		values := question{name: "values of " + name, path: "/label/" + name + "/values"}
		within := question{name: values.name + " in the hour", path: values.path + "?" + url.Values{"start": in["start"], "end": in["end"]}.Encode()}
		all = append(all, values, within)
	}
	return all
}
