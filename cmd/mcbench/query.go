package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
)

// question is one request of the API, timed again and again.
type question struct {
	name string
	path string // below /api/v1
	form url.Values
	// read is a request to read, compressed, in place of a form. With neither it is a GET.
	read []byte
}

func (q *question) request(ctx context.Context, base string, h http.Header) (*http.Request, error) {
	method, contentType := http.MethodPost, "application/x-www-form-urlencoded"
	var body io.Reader
	switch {
	case q.read != nil:
		body, contentType = bytes.NewReader(q.read), "application/x-protobuf"
	case q.form != nil:
		body = strings.NewReader(q.form.Encode())
	default:
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(ctx, method, base+q.path, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", contentType)
	}
	if q.read != nil {
		req.Header.Set("Content-Encoding", "snappy")
		req.Header.Set("X-Prometheus-Remote-Read-Version", "0.1.0")
	}
	for k, v := range h {
		req.Header[k] = v
	}
	return req, nil
}

func unixSeconds(ms int64) string { return strconv.FormatFloat(float64(ms)/1000, 'f', 3, 64) }

// endMs is the time of the last samples.
func (l *load) endMs() int64 { return l.startMs + int64(l.samples-1)*l.intervalMs }

// questions are asked of a load: the rows of the targets for queries. A load
// of less than 50,000 series has fewer than their names say.
func questions(l load) []question {
	endMs, at := l.endMs(), unixSeconds
	beginMs := max(l.startMs, endMs-time.Hour.Milliseconds())
	step := strconv.FormatFloat(float64(l.intervalMs)/1000, 'f', -1, 64)
	ranged := func(name, query string) question {
		return question{name: name, path: "/query_range", form: url.Values{"query": {query}, "start": {at(beginMs)}, "end": {at(endMs)}, "step": {step}}}
	}
	read := func(name string, kind prompb.ReadRequest_ResponseType) question {
		raw, err := (&prompb.ReadRequest{
			AcceptedResponseTypes: []prompb.ReadRequest_ResponseType{kind},
			Queries: []*prompb.Query{{StartTimestampMs: beginMs, EndTimestampMs: endMs, Matchers: []*prompb.LabelMatcher{
				{Name: "__name__", Value: metricName(0)},
				{Type: prompb.LabelMatcher_RE, Name: "instance", Value: "10.0.0.[0-9]:9100"},
			}}},
		}).Marshal()
		if err != nil {
			panic(err) // the message is ours
		}
		return question{name: name, path: "/read", read: snappy.Encode(nil, raw)}
	}
	// Of one metric a target has 10 series.
	one := fmt.Sprintf(`%s{instance=%q,handler="/api/v1/orders/4"}`, metricName(0), instance(0))
	hundred := fmt.Sprintf(`%s{instance=~"10.0.0.[0-9]:9100"}`, metricName(0))
	thousand := fmt.Sprintf(`%s{instance=~"10.0.0.[0-9]{1,2}:9100"}`, metricName(0))
	return []question{
		ranged("one series raw", one),
		ranged("100 series raw", hundred),
		ranged("sum by over 1,000 series", "sum by (handler) ("+thousand+")"),
		ranged("rate[5m] of 100 series", "rate("+hundred+"[5m])"),
		ranged("sum(rate[5m]) of 1,000 series", "sum(rate("+thousand+"[5m]))"),
		{name: "instant sum of 1,000 series", path: "/query", form: url.Values{"query": {"sum(" + thousand + ")"}, "time": {at(endMs)}}},
		{name: "series, 100", path: "/series", form: url.Values{"match[]": {hundred}, "start": {at(beginMs)}, "end": {at(endMs)}}},
		{name: "1, nothing read", path: "/query", form: url.Values{"query": {"1"}, "time": {at(endMs)}}},
		read("remote read of 100, samples", prompb.ReadRequest_SAMPLES),
		read("remote read of 100, chunks", prompb.ReadRequest_STREAMED_XOR_CHUNKS),
	}
}

func queryCommand(app *kingpin.Application) (string, action) {
	c := app.Command("query", "Time queries over a load that was written before.")
	base := c.Flag("api-url", "The HTTP API.").Default("http://127.0.0.1:9201/api/v1").String()
	pid := c.Flag("pid", "The server's process, for its CPU time.").Int()
	times := c.Flag("times", "How often each is asked.").Default("100").Int()
	extra := c.Flag("query", "A range query of your own, over the last --range of the load. Repeatable.").Strings()
	length := c.Flag("range", "How long the time of --query is.").Default("1h").Duration()
	header := headerFlag(c, "'Name: value' to send with each request.")
	data := loadFlags(c)
	return c.FullCommand(), func(ctx context.Context, out io.Writer) error {
		l, err := data()
		if err != nil {
			return err
		}
		h, err := header()
		if err != nil {
			return err
		}
		if *times < 1 {
			return usageError{fmt.Errorf("--times must be positive, got %d", *times)}
		}
		qs := questions(l)
		for _, q := range *extra {
			own := qs[0]
			start := max(l.startMs, l.endMs()-length.Milliseconds())
			own.name, own.form = q, url.Values{"query": {q}, "start": {unixSeconds(start)}, "end": own.form["end"], "step": own.form["step"]}
			qs = append(qs, own)
		}
		table := newTable(out)
		fmt.Fprintln(table, "query\tp50 ms\tp99 ms\tCPU ms\tanswer bytes\t")
		client := asker{timeout: 2 * time.Minute}
		defer client.close()
		for _, q := range qs {
			a, err := ask(ctx, &client, strings.TrimSuffix(*base, "/"), h, q, *times, process{"/proc", *pid})
			if err != nil {
				return fmt.Errorf("%s: %w", q.name, err)
			}
			fmt.Fprintf(table, "%s\t%.2f\t%.2f\t%.2f\t%d\t\n", q.name, a.p50Ms, a.p99Ms, a.cpuMs, a.bytes)
		}
		return table.Flush()
	}
}

// asked is what a question cost.
type asked struct {
	p50Ms, p99Ms, cpuMs float64
	bytes               int  // of the last answer
	lacking             bool // the server knows no such request
}

// String is p50 and the server's CPU time.
func (a asked) String() string {
	if a.lacking {
		return "-"
	}
	return fmt.Sprintf("%.2f / %.2f", a.p50Ms, a.cpuMs)
}

// computeAnew has mcached compute all that it is asked, and remember none of it.
var computeAnew = http.Header{"Cache-Control": {"no-store"}}

// ask asks a question so many times, and once before to warm up.
func ask(ctx context.Context, client *asker, base string, h http.Header, q question, times int, p process) (asked, error) {
	x := asking{base: base, header: h, client: client, process: p}
	for i := range times + 1 {
		if i == 1 {
			if err := x.clock(-1); err != nil {
				return asked{}, err
			}
		}
		status, err := x.once(ctx, q, i > 0)
		if err != nil {
			return asked{}, err
		}
		if q.read != nil && status/100 == 4 {
			return asked{lacking: true}, nil // VictoriaMetrics
		}
		if err := x.refused(status); err != nil {
			return asked{}, err
		}
		if bytes.Contains(x.last, []byte(`"result":[]`)) || bytes.Contains(x.last, []byte(`"data":[]`)) {
			return asked{}, errors.New("the answer is empty: was the load written with this --start?")
		}
	}
	err := x.clock(1)
	return x.asked(), err
}

// asking is a question put to a server again and again.
type asking struct {
	base      string // URL of the API
	header    http.Header
	client    *asker
	process   process // the server's
	latencies []time.Duration
	cpu       time.Duration // of the server, meanwhile
	last      []byte        // answer, valid until the client asks again
}

// once asks once more; timed says that it counts.
func (x *asking) once(ctx context.Context, q question, timed bool) (status int, err error) {
	req, err := q.request(ctx, x.base, x.header)
	if err != nil {
		return 0, err
	}
	got, err := x.client.do(ctx, req)
	if err != nil {
		return 0, err
	}
	if x.last = got.body; timed {
		x.latencies = append(x.latencies, got.took)
	}
	return got.status, nil
}

// refused is the error of an answer that is none.
func (x *asking) refused(status int) error {
	if status == http.StatusOK {
		return nil
	}
	return fmt.Errorf("%d %.200s", status, x.last)
}

// clock adds the server's processor time so far, times sign, to cpu.
func (x *asking) clock(sign time.Duration) error {
	if x.process.pid == 0 {
		return nil
	}
	t, err := x.process.cpuTime()
	x.cpu += sign * t
	return err
}

// asked sums up what was timed.
func (x *asking) asked() asked {
	sorted := slices.Sorted(slices.Values(x.latencies))
	return asked{p50Ms: ms(percentile(sorted, 50)), p99Ms: ms(percentile(sorted, 99)), cpuMs: ms(x.cpu) / float64(len(sorted)), bytes: len(x.last)}
}
