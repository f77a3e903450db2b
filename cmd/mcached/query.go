package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/alecthomas/kingpin/v2"
	"golang.org/x/term"
)

// apiFlags say which daemon a command talks to.
type apiFlags struct {
	url, user, passwordFile, tokenFile, caFile string
	tenant, tenantHeader                       string
	timeout                                    duration

	client func() (*http.Client, error) // the same each time, whoever asks
}

// add declares them, with how long to wait by default.
func (f *apiFlags) add(app *kingpin.Application, timeout string) {
	f.client = sync.OnceValues(func() (*http.Client, error) { return clientFor(f.caFile) })
	app.HelpFlag.Short('h')
	app.HelpFlag.NoEnvar()
	app.UsageWriter(os.Stdout)
	flag(app, "url", "The daemon, or any server with Prometheus' API, as http://host:9201 or host:9201.").Default("http://127.0.0.1:9201").StringVar(&f.url)
	flag(app, "ca-file", "Certificates (PEM) that the daemon's is to be signed by, instead of the system's.").PlaceHolder("FILE").StringVar(&f.caFile)
	flag(app, "user", "User for basic authentication.").PlaceHolder("NAME").StringVar(&f.user)
	flag(app, "password-file", "File with the password for basic authentication.").PlaceHolder("FILE").StringVar(&f.passwordFile)
	flag(app, "bearer-token-file", "File with a token to authenticate by, for a proxy say.").PlaceHolder("FILE").StringVar(&f.tokenFile)
	flag(app, "tenant", "Bucket to read, sent as --tenant-header.").PlaceHolder("NAME").StringVar(&f.tenant)
	flag(app, "tenant-header", "Header that names the bucket, the daemon's --tenancy.header.").Default("X-Scope-OrgID").StringVar(&f.tenantHeader)
	flag(app, "timeout", "How long to wait for the answer.").Default(timeout).SetValue(namedValue{&f.timeout, "timeout"})
}

// clientFor makes a client that trusts the certificates of a file, or the system's
// if there is none.
func clientFor(caFile string) (*http.Client, error) {
	if caFile == "" {
		return http.DefaultClient, nil
	}
	b, err := os.ReadFile(caFile)
	if err != nil {
		return nil, usageError{fmt.Errorf("--ca-file: %w", err)}
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(b) {
		return nil, usageError{fmt.Errorf("--ca-file: there is no certificate in %s", caFile)}
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	return &http.Client{Transport: t}, nil
}

// base is the URL that paths are below.
func (f *apiFlags) base() (string, error) {
	text := strings.TrimSuffix(f.url, "/")
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", usageError{fmt.Errorf("--url must be host:port, http://… or https://…, got %q", f.url)}
	}
	return text, nil
}

// flag declares one that is read from the environment as well: --password-file
// from MCACHED_PASSWORD_FILE, of whichever command.
func flag(app *kingpin.Application, name, help string) *kingpin.FlagClause {
	variable := variableOf(name)
	if !slices.Contains(clientVariables, variable) {
		panic(variable + " is not among those that are known") // a test calls every command
	}
	return app.Flag(name, help).Envar(variable)
}

// maxAnswerBytes is as much of an answer as a terminal is shown.
const maxAnswerBytes = 256 << 20

// do is ask; a status other than 200 is an error.
func (f *apiFlags) do(ctx context.Context, method, path string, q url.Values) (*http.Response, error) {
	res, err := f.ask(ctx, method, path, q)
	if err != nil || res.StatusCode == http.StatusOK {
		return res, err
	}
	defer res.Body.Close()
	const maxErrorBytes = 64 << 10
	b, err := io.ReadAll(io.LimitReader(res.Body, maxErrorBytes))
	if err != nil {
		return nil, err
	}
	return nil, statusError{res.StatusCode, answerError(res.Status, b)}
}

// ask asks the daemon for a path below its URL. The caller closes the answer's body.
func (f *apiFlags) ask(ctx context.Context, method, path string, q url.Values) (*http.Response, error) {
	client, err := f.client()
	if err != nil {
		return nil, err
	}
	u, err := f.base()
	if err != nil {
		return nil, err
	}
	u += path
	if q != nil {
		u += "?" + q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, nil)
	if err != nil {
		return nil, usageError{fmt.Errorf("--url: %w", err)}
	}
	if f.user != "" && f.tokenFile != "" {
		return nil, usageError{errors.New("--user and --bearer-token-file are two ways to authenticate: give one")}
	}
	if f.user != "" {
		password := ""
		if f.passwordFile != "" {
			if password, err = readPassword(f.passwordFile); err != nil {
				return nil, usageError{fmt.Errorf("--password-file: %w", err)}
			}
		}
		req.SetBasicAuth(f.user, password)
	}
	if f.tokenFile != "" {
		token, err := readPassword(f.tokenFile)
		if err != nil {
			return nil, usageError{fmt.Errorf("--bearer-token-file: %w", err)}
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if f.tenant != "" {
		req.Header.Set(f.tenantHeader, f.tenant)
	}
	res, err := client.Do(req)
	if err != nil {
		reason := err
		if ue := (*url.Error)(nil); errors.As(err, &ue) {
			reason = ue.Err // the rest repeats the URL
		}
		if errors.Is(err, context.DeadlineExceeded) {
			return nil, fmt.Errorf("%s did not answer within %s: --timeout gives it longer", f.url, &f.timeout)
		}
		return nil, fmt.Errorf("%s does not answer: %w (is the daemon running? another is named by --url)", f.url, reason)
	}
	return res, nil
}

// statusError is an answer of another status than 200.
type statusError struct {
	code int
	error
}

func (s statusError) Unwrap() error { return s.error }

// get fetches a path below the daemon's URL.
func (f *apiFlags) get(ctx context.Context, path string, q url.Values) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, f.timeout.std())
	defer cancel()
	res, err := f.do(ctx, http.MethodGet, path, q)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswerBytes+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxAnswerBytes {
		return nil, fmt.Errorf("the answer is longer than %d bytes: ask for less", maxAnswerBytes)
	}
	return b, nil
}

// answerError is the API's own words, if it has any.
func answerError(status string, b []byte) error {
	var a struct{ ErrorType, Error string }
	if err := json.Unmarshal(b, &a); err == nil && a.Error != "" {
		return fmt.Errorf("%s: %s", a.ErrorType, a.Error)
	}
	text, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return fmt.Errorf("%s: %.200s", status, strings.TrimPrefix(text, "mcached: "))
}

// queryCommand is `mcached query`.
func queryCommand(ctx context.Context, args []string, out, errOut io.Writer) error {
	app := kingpin.New("mcached query", "Ask PromQL of a running daemon. Without --range the values of one moment, as a table; with it, plots of the series.")
	var f apiFlags
	f.add(app, "1m")
	var window, step duration
	var at string
	output, colour := oneOf{of: []string{"auto", "table", "plot", "csv", "tsv", "json"}}, oneOf{of: []string{"auto", "always", "never"}}
	expr := app.Arg("expression", "PromQL, as 'rate(mcached_resp_commands_total[1m])'.").Required().String()
	flag(app, "range", "How far back to look, as 1h.").PlaceHolder("DURATION").SetValue(namedValue{&window, "range"})
	flag(app, "step", "Distance of points in a range, as 15s; by default what fits the plot.").PlaceHolder("DURATION").SetValue(namedValue{&step, "step"})
	flag(app, "time", "The moment, or the end of the range: RFC 3339 or Unix seconds; by default now.").PlaceHolder("TIME").StringVar(&at)
	flag(app, "output", "How to show the answer: auto, table, plot, csv, tsv or json.").Short('o').Default("auto").PlaceHolder("auto").HintOptions(output.of...).SetValue(namedValue{&output, "output"})
	flag(app, "color", "Whether all series share one plot, in colours: auto on a terminal, unless NO_COLOR is set.").Default("auto").PlaceHolder("auto").HintOptions(colour.of...).SetValue(namedValue{&colour, "color"})
	if _, err := app.Parse(args); err != nil {
		if strings.HasPrefix(err.Error(), "unexpected ") {
			err = fmt.Errorf("%w: the expression is one argument, so put it in quotes", err)
		}
		return usageError{err}
	}
	end := time.Now()
	if at != "" {
		var err error
		if end, err = parseTime(at); err != nil {
			return usageError{fmt.Errorf("--time: %w", err)}
		}
	}

	q := url.Values{"query": {*expr}}
	path := "/api/v1/query"
	width := terminalWidth(out)
	if window == 0 {
		q.Set("time", unixSeconds(end))
		if output.is == "plot" {
			return usageError{errors.New("a plot needs --range")}
		}
	} else {
		if step == 0 {
			step = duration(max(window.std()/time.Duration(plotWidth(width)-1), time.Second).Round(time.Second))
		}
		path = "/api/v1/query_range"
		q.Set("start", unixSeconds(end.Add(-window.std())))
		q.Set("end", unixSeconds(end))
		q.Set("step", strconv.FormatFloat(step.std().Seconds(), 'f', -1, 64))
	}
	b, err := f.get(ctx, path, q)
	if err != nil {
		return err
	}
	if output.is == "json" {
		_, err := fmt.Fprintf(out, "%s\n", b)
		return err
	}
	var a answer
	if err := json.Unmarshal(b, &a); err != nil {
		return fmt.Errorf("the answer is not JSON as Prometheus writes it: %w", err)
	}
	said := out
	if output.is == "csv" || output.is == "tsv" {
		said = errOut // what programs read has rows only
	}
	for _, w := range append(a.Warnings, a.Infos...) {
		fmt.Fprintf(said, "# %s\n", printable(w))
	}
	switch {
	case output.is == "csv":
		return separated(out, a, ',')
	case output.is == "tsv":
		return separated(out, a, '\t')
	case a.Data.ResultType == "matrix" && window > 0 && output.is != "table":
		return plot(out, a, end.Add(-window.std()), end, width, wantsColours(colour.is, out))
	}
	return table(out, a)
}

// answer is what the API says to a query.
type answer struct {
	Warnings, Infos []string
	Data            struct {
		ResultType string
		Result     json.RawMessage
	}
}

// series is one of an answer's, with values or native histograms, or in a range
// some of both.
type series struct {
	Metric     map[string]string
	Value      point
	Values     []point
	Histogram  *histogramPoint
	Histograms []histogramPoint
}

// point is a time in seconds and a value.
type point struct {
	seconds float64
	text    string
}

// UnmarshalJSON reads [1700000000.123, "1.5"].
func (p *point) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &[2]any{&p.seconds, &p.text})
}

func (p point) value() float64 {
	v, err := strconv.ParseFloat(p.text, 64)
	if err != nil {
		return math.NaN()
	}
	return v
}

func (p point) time() time.Time { return time.UnixMilli(int64(math.Round(p.seconds * 1000))) }

// list gives the series of an answer; a scalar or string is one without labels.
func (a answer) list() ([]series, error) {
	var err error
	list := []series{}
	if a.Data.ResultType == "scalar" || a.Data.ResultType == "string" {
		list = append(list, series{})
		err = json.Unmarshal(a.Data.Result, &list[0].Value)
	} else {
		err = json.Unmarshal(a.Data.Result, &list)
	}
	if err != nil {
		return nil, fmt.Errorf("the answer's result is not as Prometheus writes it: %w", err)
	}
	return list, nil
}

// table prints a line for each value, and some for each native histogram.
func table(out io.Writer, a answer) error {
	list, err := a.list()
	if err != nil {
		return err
	}
	if len(list) == 0 {
		fmt.Fprintln(out, "(no series)")
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	for _, s := range list {
		name := seriesName(s.Metric)
		switch {
		case s.Histogram != nil:
			fmt.Fprintf(w, "%s\t%s\n%s", name, s.Histogram.summary(), s.Histogram.rows())
		case s.Values == nil && s.Histograms == nil:
			fmt.Fprintf(w, "%s\t%s\n", name, printable(s.Value.text))
		}
		for _, v := range s.Values {
			fmt.Fprintf(w, "%s\t%s\t%s\n", name, v.time().Format(time.RFC3339Nano), printable(v.text))
		}
		for _, h := range s.Histograms {
			fmt.Fprintf(w, "%s\t%s\t%s\n%s", name, h.time().Format(time.RFC3339Nano), h.summary(), h.rows())
		}
	}
	return w.Flush()
}

// seriesName spells labels as PromQL does.
func seriesName(metric map[string]string) string {
	names := make([]string, 0, len(metric))
	for n := range metric {
		if n != "__name__" {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	for i, n := range names {
		names[i] = spellName(n) + "=" + strconv.Quote(metric[n])
	}
	name := metric["__name__"]
	if name != "" && !plainName.MatchString(name) {
		return "{" + strings.Join(append([]string{strconv.Quote(name)}, names...), ",") + "}"
	}
	if len(names) == 0 {
		return cmp.Or(name, "{}")
	}
	return name + "{" + strings.Join(names, ",") + "}"
}

// plainName is a name that PromQL takes without quotes.
var plainName = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*$`)

func spellName(n string) string {
	if plainName.MatchString(n) && !strings.Contains(n, ":") {
		return n
	}
	return strconv.Quote(n)
}

// printable keeps what others wrote from steering the terminal, and from
// turning its text around.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || unicode.Is(unicode.Bidi_Control, r) {
			return '�'
		}
		return r
	}, s)
}

// parseTime reads RFC 3339 or Unix seconds.
func parseTime(s string) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	seconds, err := strconv.ParseFloat(s, 64)
	if err != nil || math.Abs(seconds) > 1e11 || math.IsNaN(seconds) {
		return time.Time{}, fmt.Errorf("%q is neither RFC 3339, as 2026-01-02T15:04:05Z, nor Unix seconds", s)
	}
	return time.UnixMilli(int64(seconds * 1000)), nil
}

func unixSeconds(t time.Time) string {
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64)
}

// isTerminal says whether out is one.
func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// wantsColours decides what --color says, as https://no-color.org has it.
func wantsColours(flag string, out io.Writer) bool {
	if flag == "auto" {
		return isTerminal(out) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	return flag == "always"
}

// terminalWidth is that of the terminal that out is, or what fits a page.
func terminalWidth(out io.Writer) int {
	if f, ok := out.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			return w
		}
	}
	return 100
}
