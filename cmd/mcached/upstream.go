package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"mcached/kvcache"
	"mcached/mcache/query"
)

// upstreamConfig says which store is asked for what memory lacks, and how.
type upstreamConfig struct {
	url            string // empty: none
	httpConfigFile string
	timeout        duration
	maxConcurrency count
	maxBody        byteSize
	when           oneOf // missing, never or always
	settled        duration
	audit          portion
	authoritative  []string
	dropLabels     string

	parsed    *url.URL
	selectors [][]*labels.Matcher // authoritative
	dropped   []string            // dropLabels
	files     []string            // that httpConfigFile names, and itself
	http      *http.Client        // by httpConfigFile
}

func (u *upstreamConfig) addFlags(app *kingpin.Application, add addFlag) {
	app.Flag("query.upstream", "Server of Prometheus' API, without /api/v1, that instant and range queries are passed to if memory lacks a part of their data. Empty for none.").
		PlaceHolder("URL").StringVar(&u.url)
	app.Flag("query.upstream.http-config-file", "File with TLS, proxy, basic authentication or credentials for that server, as Prometheus spells them (http_config).").
		PlaceHolder("FILE").StringVar(&u.httpConfigFile)
	add("query.upstream.timeout", "30s", &u.timeout,
		"Longest time to wait for the server's answer, and then for each 64 KiB of it. After that the query falls back to memory, with a warning.")
	add("query.upstream.max-concurrency", "10", &u.maxConcurrency,
		"Queries to the server at a time; others wait, up to --query.upstream.timeout.")
	add("query.upstream.max-body-size", "1GiB", &u.maxBody,
		"Bytes of one answer of the server; a longer one is aborted.")
	u.when.of = []string{"missing", "never", "always"}
	add("query.upstream.when", "missing", &u.when,
		"When the server is asked: missing, never or always.")
	add("query.upstream.settled", "1h", &u.settled,
		"Age from which on the server's answers are remembered, in memory of their own (--memory.answers-share); out-of-order samples come before that. 0 remembers nothing.")
	add("query.upstream.audit", "0%", &u.audit,
		"Share of the queries answered from memory, as 1%, that the server is asked as well afterwards, one at a time; what differs is counted and logged.")
	app.Flag("query.upstream.authoritative", "Selector of what memory has whenever the server has it, as {job=\"node\"}: where it matches nothing here there is nothing, and its queries are split without a look at where the parts meet. Repeatable.").
		PlaceHolder("SELECTOR").StringsVar(&u.authoritative)
	app.Flag("query.upstream.drop-labels", "Labels, as cluster,replica, that senders add on their way here (external_labels) and the server's series have not: series here are read without them.").
		PlaceHolder("NAMES").StringVar(&u.dropLabels)
}

// check reads what the flags name. listen are the daemon's own addresses.
func (u *upstreamConfig) check(listen []string) error {
	if u.url == "" {
		if u.httpConfigFile != "" {
			return fmt.Errorf("--query.upstream.http-config-file is for --query.upstream, which is not given")
		}
		if len(u.authoritative) > 0 {
			return fmt.Errorf("--query.upstream.authoritative is for --query.upstream, which is not given")
		}
		return nil
	}
	var err error
	u.parsed, err = url.Parse(u.url)
	switch {
	case err != nil || u.parsed.Scheme != "http" && u.parsed.Scheme != "https" || u.parsed.Host == "" || impossiblePort(u.parsed):
		return fmt.Errorf("--query.upstream must be http://… or https://…, as http://127.0.0.1:9090, got %q", u.url)
	case u.parsed.User != nil:
		return fmt.Errorf("--query.upstream must not hold a password, which others can see: put it in --query.upstream.http-config-file")
	case u.parsed.RawQuery != "" || u.parsed.Fragment != "":
		return fmt.Errorf("--query.upstream must have no parameters, got %q", u.url)
	case u.timeout == 0:
		return fmt.Errorf("--query.upstream.timeout must be more than 0")
	case u.maxBody == 0:
		return fmt.Errorf("--query.upstream.max-body-size must be more than 0")
	}
	for _, a := range listen {
		if sameAddress(u.parsed, a) {
			return fmt.Errorf("--query.upstream=%s is this daemon itself, which listens on %s", u.url, a)
		}
	}
	if u.selectors, err = parser.NewParser(parser.Options{}).ParseMetricSelectors(u.authoritative); err != nil {
		return fmt.Errorf("--query.upstream.authoritative: %w", err)
	}
	if u.dropped = nil; u.dropLabels != "" {
		for _, name := range strings.Split(u.dropLabels, ",") {
			if name = strings.TrimSpace(name); !model.UTF8Validation.IsValidLabelName(name) || name == model.MetricNameLabel {
				return fmt.Errorf("--query.upstream.drop-labels must be names of labels, as cluster,replica, got %q", u.dropLabels)
			}
			u.dropped = append(u.dropped, name)
		}
	}
	as := forwardConfig{httpConfigFile: u.httpConfigFile} // no timeout: an answer may take long as a whole
	if u.http, err = as.client(); err != nil {
		return fmt.Errorf("--query.upstream.http-config-file: %w", err)
	}
	u.files = as.files
	u.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return nil
}

// options are those of the query API; nil if no server is to be asked.
func (u *upstreamConfig) options(tenancyHeader string) *query.UpstreamOptions {
	if u.url == "" {
		return nil
	}
	return &query.UpstreamOptions{
		URL: u.parsed, Client: u.http, Timeout: u.timeout.std(), MaxConcurrency: int(u.maxConcurrency), MaxBodyBytes: int64(u.maxBody),
		When: query.When(u.when.is), Settled: u.settled.std(), Audit: float64(u.audit), Authoritative: u.selectors, DropLabels: u.dropped, TenancyHeader: tenancyHeader,
	}
}

// upstreamFlags are those that can change while the daemon runs, if there is a
// server and still is.
func (d *daemon) upstreamFlags() applicable {
	return applicable{
		[]string{"query.upstream", "query.upstream.http-config-file", "query.upstream.timeout", "query.upstream.max-concurrency", "query.upstream.max-body-size", "query.upstream.when",
			"query.upstream.settled", "query.upstream.audit", "query.upstream.authoritative", "query.upstream.drop-labels"},
		func(c *config) error {
			o := c.upstream.options(c.tenancyHeader)
			if o == nil || d.config.upstream.url == "" {
				return errRestart
			}
			d.queries.SetUpstream(*o)
			return nil
		},
	}
}

// portion is a flag's value: a part of what comes, spelt as 1%.
type portion float64

// Set implements kingpin.Value.
func (p *portion) Set(in string) error {
	digits, ok := strings.CutSuffix(strings.TrimSpace(in), "%")
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || !ok || !(n >= 0 && n <= 100) {
		return fmt.Errorf("%q is not a part from 0%% to 100%%", in)
	}
	*p = portion(n / 100)
	return nil
}

// String implements kingpin.Value.
func (p *portion) String() string { return strconv.FormatFloat(float64(*p)*100, 'g', 6, 64) + "%" }

// openAnswers makes the memory for what the server answered and for results of queries.
func (d *daemon) openAnswers() (err error) {
	if d.config.upstream.url == "" && !bool(d.config.queryRemember) {
		return nil
	}
	d.answers, err = kvcache.NewCache(kvcache.CacheOptions{Memory: d.memory, Account: accountAnswers, Shards: answerShards, MaxLargeBytes: query.MaxRememberedBytes})
	return err
}

// answersBytes is the share of that memory.
func (d *daemon) answersBytes() int64 {
	d.sharing.mu.Lock()
	defer d.sharing.mu.Unlock()
	return int64(float64(d.sharing.answers) * float64(d.memory.Budget()))
}

// upstreamOptions are those of the query API, with that memory.
func (d *daemon) upstreamOptions() *query.UpstreamOptions {
	o := d.config.upstream.options(d.config.tenancyHeader)
	if o != nil {
		o.Memory, o.MemoryBytes = d.answers, d.answersBytes
	}
	return o
}

// answerShards is few: a dashboard reads them for some seconds a minute, and
// each shard has two regions that are half empty.
const answerShards = 4

// rereadUpstream reads --query.upstream.http-config-file again when it changes.
func (d *daemon) rereadUpstream() {
	u := &d.config.upstream
	if u.url == "" || u.httpConfigFile == "" {
		return
	}
	files := u.files
	d.reloader.add(&source{
		flag:  "query.upstream.http-config-file",
		files: func() []string { return files },
		read: func() error {
			next := d.live.Load().upstream
			if err := next.check(nil); err != nil {
				return err
			}
			files = next.files
			d.queries.SetUpstream(*next.options(d.config.tenancyHeader))
			return nil
		},
	})
}

// spellDialect says what a server is, and what is split with it.
func spellDialect(url string, d query.Dialect) string {
	name := d.Kind
	switch {
	case d.Version != "":
		name += " " + d.Version
	case d.Splits == "none": // as long as it is not known what it is
		name = "of an unknown kind"
	}
	said := map[string]string{
		"all":            "range queries are split between memory and it",
		"without-ranges": "range queries are split if they have no range or subquery",
		"simple":         "selectors, and sum, count, min and max of them, are split",
		"none":           "no query is split, and queries that memory cannot answer are passed to it whole",
	}[d.Splits]
	if d.Why != "" {
		said += " (" + d.Why + ")"
	}
	if d.Lookback > 0 {
		said += fmt.Sprintf("; it looks back %s", d.Lookback)
	}
	if d.SubqueryStep > 0 {
		said += fmt.Sprintf("; its evaluation interval is %s", d.SubqueryStep)
	}
	if by := d.ClockAhead; by != 0 {
		word := "ahead of"
		if by < 0 {
			by, word = -by, "behind"
		}
		said += fmt.Sprintf("; its clock is %s %s this one, so that queries of the last %s may lack samples: set both clocks", by, word, by)
	}
	return fmt.Sprintf("--query.upstream=%s is %s: %s", url, name, said)
}

// tellUpstream asks the server what it is, and logs what that means. One that does not
// answer, which is logged where that is noticed, it asks again whenever wait has waited.
func (d *daemon) tellUpstream(ctx context.Context, wait func(context.Context) bool) {
	dialect, level := d.queries.Upstream(ctx), slog.LevelInfo
	for dialect.Silent {
		if !wait(ctx) {
			return
		}
		dialect = d.queries.Upstream(ctx)
	}
	if dialect.ClockAhead != 0 {
		level = slog.LevelWarn
	}
	d.log.Log(ctx, level, spellDialect(d.config.upstream.url, dialect))
}
