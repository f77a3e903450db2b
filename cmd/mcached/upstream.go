package main

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"mcached/mcache/query"
)

// upstreamConfig says which store is asked for what memory lacks, and how.
type upstreamConfig struct {
	url            string // empty: none
	httpConfigFile string
	timeout        duration
	maxConcurrency count
	maxBody        byteSize
	when           string
	authoritative  []string

	parsed    *url.URL
	selectors [][]*labels.Matcher // authoritative
	http      *http.Client        // by httpConfigFile
}

func (u *upstreamConfig) addFlags(app *kingpin.Application, add func(name, byDefault string, v kingpin.Value, help string)) {
	app.Flag("query.upstream", "Server of Prometheus' API, without /api/v1, that instant and range queries are passed to if memory lacks a part of their data. Empty for none.").
		PlaceHolder("URL").StringVar(&u.url)
	app.Flag("query.upstream.http-config-file", "File with TLS, proxy, basic authentication or credentials for that server, as Prometheus spells them (http_config).").
		PlaceHolder("FILE").StringVar(&u.httpConfigFile)
	add("query.upstream.timeout", "30s", &u.timeout,
		"Longest time to wait for the server's answer, and then for each part of it. After that the query falls back to memory, with a warning.")
	add("query.upstream.max-concurrency", "10", &u.maxConcurrency,
		"Queries to the server at a time; others wait, up to --query.upstream.timeout.")
	add("query.upstream.max-body-size", "1GiB", &u.maxBody,
		"Bytes of one answer of the server; a longer one is aborted.")
	app.Flag("query.upstream.when", "When the server is asked: missing, never or always.").
		Default("missing").PlaceHolder("missing").EnumVar(&u.when, "missing", "never", "always")
	app.Flag("query.upstream.authoritative", "Selector of what memory has whenever the server has it, as {job=\"node\"}: where it matches nothing here there is nothing, and its queries are split without a look at where the parts meet. Repeatable.").
		PlaceHolder("SELECTOR").StringsVar(&u.authoritative)
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
	case err != nil || u.parsed.Scheme != "http" && u.parsed.Scheme != "https" || u.parsed.Host == "":
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
	as := forwardConfig{httpConfigFile: u.httpConfigFile} // no timeout: an answer may take long as a whole
	if u.http, err = as.client(); err != nil {
		return fmt.Errorf("--query.upstream.http-config-file: %w", err)
	}
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
		When: query.When(u.when), Authoritative: u.selectors, TenancyHeader: tenancyHeader,
	}
}
