package query

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
)

// A store's version is its semantics: ranges are left-open since Prometheus 3,
// VictoriaMetrics has rules of its own. The store is asked what it is before the
// first query is split, and then every hour and after it has failed. Of one that
// is not known no query is split.

// Dialect is what a store says that it is.
type Dialect struct {
	Kind         string        // prometheus, thanos, mimir, victoriametrics, or unknown
	Version      string        // as it says; may be empty
	Lookback     time.Duration // its own; 0: not said
	SubqueryStep time.Duration // of subqueries that give none; 0: not said
	Splits       string        // what of the range queries is split: all, without-ranges, simple, or none
	Why          string        // not all
	// ClockAhead is how far its clock is ahead of this one, to the second; 0 if
	// that is less than maxClocksApart either way, or not said.
	ClockAhead time.Duration
	Silent     bool // it did not answer, and is unknown for that reason
}

// maxClocksApart is how far two clocks may be apart without a word: what a sender
// collects a batch for.
const maxClocksApart = 5 * time.Second

// What of the queries is split.
const (
	splitsAll    = "all"            // the same semantics as here
	splitsPlain  = "without-ranges" // ranges and subqueries are defined otherwise there
	splitsSimple = "simple"         // selectors, and sum, count, min and max of them
	splitsNone   = "none"
)

// Kinds of stores.
const (
	kindPrometheus = "prometheus"
	kindThanos     = "thanos"
	kindMimir      = "mimir"
	kindVictoria   = "victoriametrics"
	kindUnknown    = "unknown"
)

// dialect is a Dialect and what follows from it for requests.
type dialect struct {
	Dialect
	lookback time.Duration // that memory evaluates with; 0: the default
	params   url.Values    // added to what is asked
	seconds  bool          // it reads no step in ms
	unsorted bool          // series do not come in the order of their labels
	readless bool          // it has no remote read
}

// unknownDialect is what is known of a store that has not answered.
func unknownDialect(why string) dialect {
	return dialect{Dialect: Dialect{Kind: kindUnknown, Splits: splitsNone, Why: why}}
}

// lookbackOf is how far back a selector looks.
func (d *dialect) lookbackOf(byDefault time.Duration) time.Duration {
	if d.lookback > 0 {
		return d.lookback
	}
	return byDefault
}

// refuses says why an expression is not split with this store; "" if it may be.
func (d *dialect) refuses(expr parser.Expr) string {
	switch {
	case d.Splits == splitsAll,
		d.Splits == splitsPlain && !ranged(expr),
		d.Splits == splitsSimple && simple(expr):
		return ""
	}
	return d.Why
}

// stepText is a step as the store reads it.
func (d *dialect) stepText(ms int64) string {
	if d.seconds {
		return strconv.FormatFloat(float64(ms)/1000, 'f', -1, 64)
	}
	return strconv.FormatInt(ms, 10) + "ms" // 1.001 would be read as 1.000
}

// AskAgainAfter is how long a store that did not say what it is is not asked again.
const AskAgainAfter = 10 * time.Second

const (
	relearnEvery = time.Hour
	learnTimeout = 5 * time.Second
	maxLearnt    = 4 << 20 // bytes of an answer
)

// learner asks the store what it is.
type learner struct {
	u        *upstream
	now      func() time.Time
	features Features

	asking     sync.Mutex // held while the store is asked
	mu         sync.Mutex
	known      dialect
	until      time.Time // when it is to be asked again
	disordered bool      // an answer's series did not come in the order of their labels
}

// of is what is known of the store, which is asked if that was not done for a while.
func (l *learner) of(ctx context.Context) dialect {
	l.mu.Lock()
	known, fresh := l.known, l.now().Before(l.until)
	l.mu.Unlock()
	if fresh {
		return known
	}
	if known.Kind == "" {
		l.asking.Lock() // there is nothing to go by until one has asked
	} else if !l.asking.TryLock() {
		return known
	}
	defer l.asking.Unlock()
	l.mu.Lock()
	known, fresh = l.known, l.now().Before(l.until)
	l.mu.Unlock()
	if fresh {
		return known
	}
	generation := l.u.generation.Load()
	now, err := l.ask(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.u.generation.Load() != generation {
		return unknownDialect("it was replaced while it was asked")
	}
	silent := err != nil && !errors.Is(err, errNoPage)
	switch {
	case silent && l.u.breaker.silent():
		l.u.sayAway(err)
	case !silent && l.u.breaker.spoke():
		l.u.sayBack()
	}
	l.until = l.now().Add(relearnEvery)
	if err != nil {
		l.until = l.now().Add(AskAgainAfter)
		if known.Kind == "" || known.Kind == kindUnknown {
			l.known = unknownDialect("the store does not say what it is: " + err.Error())
			l.known.Silent = silent
		}
		return l.known
	}
	before := known.Dialect
	if before.ClockAhead = now.ClockAhead; known.Kind != "" && before != now.Dialect {
		l.u.forgetAnswers()
	}
	now.unsorted = now.unsorted || l.disordered
	l.known = now
	return now
}

// disorder notes that answers are to be sorted from now on: one was not, of
// which a part may have been passed on before that showed.
func (l *learner) disorder() {
	l.mu.Lock()
	l.disordered, l.known.unsorted = true, true
	l.mu.Unlock()
}

// noRead notes that the store has no remote read, until it is asked again what it is.
func (l *learner) noRead() {
	l.mu.Lock()
	l.known.readless = true
	l.mu.Unlock()
}

// forget has the store asked again before the next query is split.
func (l *learner) forget() {
	l.mu.Lock()
	l.until, l.disordered = time.Time{}, false
	l.mu.Unlock()
}

// renew has nothing known, as of another store.
func (l *learner) renew() {
	l.mu.Lock()
	l.known, l.until, l.disordered = dialect{}, time.Time{}, false
	l.mu.Unlock()
}

// peek is what is known without asking.
func (l *learner) peek() dialect {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known
}

// ask reads the three pages that say what a store is.
func (l *learner) ask(ctx context.Context) (dialect, error) {
	// A client that goes away does not make the store unknown.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(learnTimeout, l.u.opts().Timeout))
	defer cancel()
	var build struct{ Application, Version string }
	asked := l.now()
	header, err := l.page(ctx, "buildinfo", &build)
	if err != nil {
		return dialect{}, err
	}
	ahead := clockAhead(header, asked, l.now())
	flags := map[string]string{}
	var config struct{ YAML string }
	if header.Get("X-Server-Hostname") == "" { // VictoriaMetrics has none
		if _, err := l.page(ctx, "flags", &flags); err != nil && !errors.Is(err, errNoPage) {
			return dialect{}, err
		}
		if _, err := l.page(ctx, "config", &config); err != nil && !errors.Is(err, errNoPage) {
			return dialect{}, err
		}
	}
	d := l.judge(build.Application, build.Version, header, flags, config.YAML)
	d.ClockAhead = ahead
	return d, nil
}

// clockAhead is how far the clock of a server is ahead of the one that says when
// it was asked, and when it had answered.
func clockAhead(header http.Header, asked, answered time.Time) time.Duration {
	date, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return 0
	}
	// Its second began between the two, or up to a second before.
	switch ahead, behind := date.Sub(answered), asked.Sub(date.Add(time.Second)); {
	case ahead > maxClocksApart:
		return ahead.Round(time.Second)
	case behind > maxClocksApart:
		return -behind.Round(time.Second)
	}
	return 0
}

// noSuchPage is how servers say that they have no such page, and gateways before
// them that it is not for everybody.
var noSuchPage = []int{
	http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented,
}

// errNoPage says that a server has no such page.
var errNoPage = errors.New("there is no such page")

// page reads the data of an answer of the store's about itself.
func (l *learner) page(ctx context.Context, name string, into any) (http.Header, error) {
	to := l.u.opts().URL.JoinPath("/api/v1/status/" + name)
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, to.String(), nil)
	if err != nil {
		return nil, err
	}
	q.Header.Set(hopHeader, "1")
	res, err := l.u.opts().Client.Do(q)
	if err != nil {
		return nil, withoutURL(err)
	}
	defer res.Body.Close()
	switch {
	case slices.Contains(noSuchPage, res.StatusCode):
		return nil, fmt.Errorf("status/%s: %w: status %d", name, errNoPage, res.StatusCode)
	case res.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("status/%s answers with status %d", name, res.StatusCode)
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, maxLearnt+1))
	if err != nil {
		return nil, err
	}
	var answer struct {
		Status string
		Data   json.RawMessage
	}
	if err := json.Unmarshal(b, &answer); err != nil || answer.Status != "success" || len(b) > maxLearnt {
		return nil, fmt.Errorf("status/%s is not that of Prometheus' API", name)
	}
	if err := json.Unmarshal(answer.Data, into); err != nil {
		return nil, fmt.Errorf("status/%s is not that of Prometheus' API: %w", name, err)
	}
	return res.Header, nil
}

// judge tells what a store is by what it says.
func (l *learner) judge(application, version string, header http.Header, flags map[string]string, config string) dialect {
	d := dialect{Dialect: Dialect{Version: version}}
	major, minor, known := versionOf(version)
	_, thanos := flags["query.auto-downsampling"]
	newer := false
	switch {
	case header.Get("X-Server-Hostname") != "":
		d.Kind, d.Splits = kindVictoria, splitsSimple
		d.Why = "VictoriaMetrics defines functions otherwise"
		d.params = url.Values{"nocache": {"1"}} // else it moves start and end to multiples of the step
		d.seconds, d.unsorted, d.readless = true, true, true
		return d
	case strings.Contains(application, "Mimir"):
		d.Kind, newer = kindMimir, major > 2 || major == 2 && minor >= 15
	case thanos:
		d.Kind, newer = kindThanos, major > 0 || minor >= 39
		d.params = url.Values{"max_source_resolution": {"0"}} // what is downsampled answers otherwise
		d.readless = true                                     // its querier
	case known && application == "":
		d.Kind, newer = kindPrometheus, major >= 3
	default:
		return unknownDialect(fmt.Sprintf("the store is not known here: %.50q %.50q", application, version))
	}
	d.Lookback = durationFlag(flags, "query.lookback-delta")
	d.SubqueryStep = durationFlag(flags, "query.default-evaluation-interval")
	if s := evaluationInterval(config); s > 0 {
		d.SubqueryStep = s
	}
	d.lookback = d.Lookback
	if other := l.otherFeature(flags["enable-feature"]); other != "" {
		d.Splits, d.Why = splitsNone, other+" is on for one of memory and store only"
		return d
	}
	if d.Splits = splitsAll; !newer {
		d.Splits, d.Why = splitsPlain, "before Prometheus 3 a range has both of its ends"
		if d.lookback == 0 {
			d.lookback = 5 * time.Minute
		}
		d.lookback += time.Millisecond // the same of what a selector looks back
	}
	return d
}

// otherFeature names one that changes answers and is not the same there as here.
func (l *learner) otherFeature(list string) string {
	var theirs Features
	for _, name := range strings.Split(list, ",") {
		theirs.Enable(strings.TrimSpace(name))
	}
	switch ours := l.features; {
	case ours.DelayedNameRemoval != theirs.DelayedNameRemoval:
		return "promql-delayed-name-removal"
	case ours.TypeAndUnitLabels != theirs.TypeAndUnitLabels:
		return "type-and-unit-labels"
	case ours.UseStartTimestamps != theirs.UseStartTimestamps:
		return "use-start-timestamps"
	}
	return ""
}

func durationFlag(flags map[string]string, name string) time.Duration {
	d, err := model.ParseDuration(flags[name])
	if err != nil {
		return 0
	}
	return time.Duration(d)
}

// evaluationInterval reads it from a configuration of Prometheus', which prints
// its own in a fixed form.
func evaluationInterval(yaml string) time.Duration {
	for line := range strings.Lines(yaml) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "evaluation_interval:"); ok {
			if d, err := model.ParseDuration(strings.TrimSpace(text)); err == nil {
				return time.Duration(d)
			}
			return 0
		}
		if !strings.HasPrefix(line, "global:") && line != "" && line[0] != ' ' && line[0] != '#' {
			break // rule groups have intervals of their own, further down
		}
	}
	return 0
}

// versionOf reads the first two numbers of 3.14.0 or v2.15.0-rc.1.
func versionOf(s string) (major, minor int, ok bool) {
	parts := strings.SplitN(strings.TrimPrefix(s, "v"), ".", 3)
	if len(parts) < 2 {
		return 0, 0, false
	}
	major, err := strconv.Atoi(parts[0])
	if err != nil {
		return 0, 0, false
	}
	minor, err = strconv.Atoi(parts[1])
	return major, minor, err == nil
}

// withoutURL is an error of a request without its URL, which clients need not know.
func withoutURL(err error) error {
	if failed := new(url.Error); errors.As(err, &failed) {
		err = failed.Err
	}
	if err == io.EOF {
		return errNoAnswer
	}
	return err
}
