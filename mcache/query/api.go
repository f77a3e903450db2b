package query

import (
	"compress/gzip"
	"context"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"

	"mcached/mcache"
)

// askedFactor is how many questions of other members run at a time for each
// query that may: each query of each of them asks.
const askedFactor = 2

// maxPoints is how many steps a range query may have: an hour's for a year, or
// a minute's for a week.
const maxPoints = 11000

// Options configure an API; the zero value of a field means its default.
type Options struct {
	// Timeout bounds the time from the arrival of a request to its result,
	// waiting included, and then again the time between two parts of the
	// answer being taken by the client. Default: two minutes.
	Timeout time.Duration
	// MaxSamples bounds the samples a query holds at once, and those of an
	// answer to a remote read. Default: 50 million.
	MaxSamples int
	// MaxConcurrency bounds the queries that run at once, and likewise the
	// remote reads and the requests for series and labels. Default: 20.
	MaxConcurrency int
	// MaxWaiting bounds, for each of the three and for the questions of other
	// members, those that wait for it. Others are rejected, clients with status
	// 503. Default: 1,000.
	MaxWaiting int
	// MaxSeries bounds what one selector may match. Default: a million.
	MaxSeries int
	// MaxQueryBytes bounds the parameters in a request's body. Default: 8 MiB,
	// which is room for a list of some 100,000 names.
	MaxQueryBytes int
	// LimitFlags says by which flag an operator sets a bound, by its name here,
	// for the errors about it. Default: the name itself is said.
	LimitFlags map[string]string
	// MaxQueryFlag is named by the error about that bound: what raises it.
	// Default: the name of the option.
	MaxQueryFlag string
	// MaxResponseBytes bounds an answer before compression. Default: 1 GiB.
	MaxResponseBytes int64
	// MaxReadQueries bounds the queries in one remote read. Prometheus sends
	// one, others one for each selector of a query. Default: 100.
	MaxReadQueries int
	// MaxFrameBytes is about where an answer to a streamed remote read cuts a
	// series. Default: 1 MiB, as Prometheus has it.
	MaxFrameBytes int
	// MaxLabelCacheBytes bounds the label sets kept between queries. Default: 16 MiB.
	MaxLabelCacheBytes int

	// LookbackDelta is how long a sample stands for its series. Default: five minutes.
	LookbackDelta time.Duration
	// SubqueryStep is the step of subqueries that give none. Default: one minute.
	SubqueryStep time.Duration
	// SlowerThan is how long a query or remote read takes, waiting included,
	// that the Logger is told of. Default: none is.
	SlowerThan time.Duration
	// Features are what PromQL has not settled on yet. Default: none.
	Features Features

	// TenancyHeader names the header whose value is the bucket to read, or
	// several that are read as one, as a|b. Default: none, all read DefaultBucket.
	TenancyHeader string
	// DefaultBucket is read when there is no such header. Default: "default".
	DefaultBucket string
	// CORSOrigin matches, in full, the origins whose pages may read. Default: none.
	CORSOrigin *regexp.Regexp

	// BuildInfo is the answer to status/buildinfo.
	BuildInfo BuildInfo
	// Flags returns the answer to status/flags, which stays as it is. Default: empty.
	Flags func() map[string]string
	// Config returns the YAML of status/config. Default: empty.
	Config func() string
	// Metadata returns what is known of the metrics of a bucket, of all or of
	// the one that is named. Default: nothing is.
	Metadata func(bucket, metric string) map[string][]metadata.Metadata
	// Exemplars returns the exemplars of a bucket. Default: there are none.
	Exemplars func(ctx context.Context, bucket string) (storage.ExemplarQuerier, error)

	// Keys calls put for each name that this member has for series of its own accord,
	// as another door has them, in a form that is that door's, as is what is asked
	// for. It is for members that ask: see KeysOfAll. Default: there are none.
	Keys func(of []byte, put func(text string) error) error

	// Admission opens a loan for each request, of which all that it holds is
	// taken. Default: no bound.
	Admission func() Loan

	// FanOut is the Source of several daemons, if the API reads one: members of it
	// are answered, and metadata and exemplars are those of all. Default: none.
	FanOut *FanOut

	// Upstream is the store that is asked for what memory lacks. Default: none.
	Upstream *UpstreamOptions

	// Results is memory for what queries over many samples came to, so that a second
	// look computes what is new. Default: nothing is remembered.
	Results Remembers

	// Gzip makes what compresses answers. Default: compress/gzip at its fastest.
	Gzip func() Gzip
	// GzipLocal compresses for clients on this machine, too: where a tunnel, or
	// a proxy that does not say that it is one, stands before the API. Default:
	// only what leaves the machine is compressed.
	GzipLocal bool

	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Logger hears of what the answer can not tell. Default: nobody does.
	Logger *slog.Logger
}

// Gzip compresses a stream in gzip's format. It is reused: Reset begins a new
// stream. *gzip.Writer of the standard library is one.
type Gzip interface {
	io.WriteCloser
	Reset(w io.Writer)
}

// flag is how an operator changes a bound, for an error.
func (o *Options) flag(bound string) string {
	if f := o.LimitFlags[bound]; f != "" {
		bound = f
	}
	return " (" + bound + ")"
}

func (o Options) withDefaults() Options {
	setDefault(&o.Timeout, 2*time.Minute)
	setDefault(&o.MaxSamples, 50_000_000)
	setDefault(&o.MaxConcurrency, 20)
	o.MaxConcurrency = min(o.MaxConcurrency, maxSlots)
	setDefault(&o.MaxWaiting, 1000)
	setDefault(&o.MaxSeries, 1_000_000)
	setDefault(&o.MaxQueryBytes, 8<<20)
	setDefault(&o.MaxQueryFlag, "MaxQueryBytes")
	setDefault(&o.MaxResponseBytes, 1<<30)
	setDefault(&o.MaxReadQueries, 100)
	setDefault(&o.MaxFrameBytes, 1<<20)
	setDefault(&o.MaxLabelCacheBytes, 16<<20)
	setDefault(&o.LookbackDelta, 5*time.Minute)
	setDefault(&o.SubqueryStep, time.Minute)
	setDefault(&o.DefaultBucket, "default")
	if o.Gzip == nil {
		o.Gzip = func() Gzip {
			w, _ := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed) // the level exists
			return w
		}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// API answers the reading half of Prometheus' HTTP API, version 1, and remote
// reads. It is an http.Handler for everything below /api/v1/ and safe for
// concurrent use.
type API struct {
	o       Options
	source  Source
	limits  atomic.Pointer[limits]
	parser  boundedParser
	handoff handoff
	mux     *http.ServeMux
	started time.Time
	buffers sync.Pool // *[]byte of flushBytes and some, for answers
	gzips   sync.Pool // Gzip

	messages sync.Pool // *messageBuffers
	room     room
	results  *results // nil: none

	queries, reads, lookups *gate
	asked                   *gate // by other members

	counts  counts
	slowLog slowLog

	answerQuery func(*http.Request, slow) (answer, error) // evaluate, or readThrough
	upstream    *upstream                                 // nil: none
}

// counts is Stats while it is counted.
type counts struct {
	instant, ranges, lookups, reads, errors, incomplete, uncovered atomic.Uint64
	series, samples, bytes, slow                                   atomic.Uint64
}

// Stats counts what an API has done since it was made.
type Stats struct {
	InstantQueries uint64
	RangeQueries   uint64
	Lookups        uint64 // of series and labels
	RemoteReads    uint64
	Errors         uint64 // answers with a status of 400 and above
	Rejected       uint64 // of these, because too many waited already
	Incomplete     uint64 // answers that told of samples that were evicted or reclaimed
	Uncovered      uint64 // answers that told of samples that never came, or came to a process before this one
	Slow           uint64 // queries and remote reads that took SlowerThan or longer
	Series         uint64 // selected
	Samples        uint64 // read
	ResponseBytes  uint64 // before compression
	Running        int    // requests that read the cache now
	Waiting        int    // requests that wait for that

	// Aggregations over time, of which results may be remembered.
	ResultsRecalled uint64 // as a whole
	ResultsExtended uint64 // of which the newest steps were computed
	ResultsComputed uint64 // as a whole

	// Queries that the store behind was to answer.
	UpstreamAnswered uint64
	UpstreamRefused  uint64 // it said that the query is wrong, or that it cannot answer such
	UpstreamFailed   uint64 // no answer, or none that is one
	UpstreamSkipped  uint64 // not asked, as it had failed

	UpstreamBytes      uint64  // of its answers, as received
	UpstreamSeconds    float64 // that requests waited for the heads of answers
	UpstreamSplit      uint64  // range queries that memory and store answered together
	UpstreamDisagreed  uint64  // of which the two had other values where they meet
	UpstreamStepsHere  uint64  // steps of queries that memory computed
	UpstreamStepsAsked uint64  // steps that the store did
	UpstreamRecalled   uint64  // steps that the store had answered before
	UpstreamKept       uint64  // steps of answers that were put into memory
	UpstreamUnrecorded uint64  // answers that were to be, and for which there was no room
	UpstreamRecording  int     // answers that are being read, or encoded, to be put there
	UpstreamPaused     int     // metrics that are not split now

	// Queries answered from memory that the store was asked as well.
	UpstreamAuditsAgreed   uint64
	UpstreamAuditsDiffered uint64
	UpstreamAuditsFailed   uint64 // the store did not answer
	UpstreamAuditsSkipped  uint64 // another was under way, or the two cannot be compared
}

// NewAPI returns an API that reads c.
func NewAPI(c *mcache.Cache, o Options) *API {
	o = o.withDefaults()
	return NewAPIOf(FromCache(c, NewLabelCache(o.MaxLabelCacheBytes)), o)
}

// NewAPIOfMembers returns an API that reads c and what the other members have.
func NewAPIOfMembers(c *mcache.Cache, m Members, f FanOutOptions, o Options) *API {
	o = o.withDefaults()
	f.MaxAnswerBytes, f.Now, f.Logger = o.MaxResponseBytes, o.Now, o.Logger
	o.FanOut = NewFanOut(FromCache(c, NewLabelCache(o.MaxLabelCacheBytes)), m, f)
	return NewAPIOf(o.FanOut, o)
}

// FanOut is what the API reads, if that is several daemons; nil if not.
func (a *API) FanOut() *FanOut { return a.o.FanOut }

// NewAPIOf returns an API that reads s.
func NewAPIOf(s Source, o Options) *API {
	o = o.withDefaults()
	a := &API{
		o:       o,
		source:  s,
		parser:  newBoundedParser(o.Features.parserOptions()),
		started: o.Now(),
		results: newResults(o.Results),
		queries: newGate(o.MaxConcurrency, o.MaxWaiting),
		reads:   newGate(o.MaxConcurrency, o.MaxWaiting),
		lookups: newGate(o.MaxConcurrency, o.MaxWaiting),
		asked:   newGate(askedFactor*o.MaxConcurrency, o.MaxWaiting),
	}
	if o.FanOut != nil {
		o.FanOut.bind(&a.o, &a.limits)
	}
	a.handoff.Parser = a.parser
	a.SetLimits(o)
	a.answerQuery = a.evaluate
	if o.Upstream != nil {
		a.upstream = newUpstream(*o.Upstream, o.Now, o.Features, o.Logger)
		a.answerQuery = a.readThrough
	}
	a.mux = a.routes()
	return a
}

// Stats returns a reading of the counters.
func (a *API) Stats() Stats {
	s := Stats{
		InstantQueries: a.counts.instant.Load(),
		RangeQueries:   a.counts.ranges.Load(),
		Lookups:        a.counts.lookups.Load(),
		RemoteReads:    a.counts.reads.Load(),
		Errors:         a.counts.errors.Load(),
		Incomplete:     a.counts.incomplete.Load(),
		Uncovered:      a.counts.uncovered.Load(),
		Slow:           a.counts.slow.Load(),
		Series:         a.counts.series.Load(),
		Samples:        a.counts.samples.Load(),
		ResponseBytes:  a.counts.bytes.Load(),
	}
	if u := a.upstream; u != nil {
		s.UpstreamAnswered, s.UpstreamRefused = u.answered.Load(), u.refused.Load()
		s.UpstreamFailed, s.UpstreamSkipped = u.failed.Load(), u.skipped.Load()
		s.UpstreamBytes, s.UpstreamSeconds = u.bytes.Load(), time.Duration(u.nanoseconds.Load()).Seconds()
		s.UpstreamSplit, s.UpstreamDisagreed = u.split.Load(), u.disagreed.Load()
		s.UpstreamStepsHere, s.UpstreamStepsAsked = u.stepsHere.Load(), u.stepsAsked.Load()
		s.UpstreamRecalled, s.UpstreamKept = u.stepsRecalled.Load(), u.kept.Load()
		s.UpstreamUnrecorded, s.UpstreamRecording = u.recorder.dropped.Load(), int(u.recorder.under.Load())
		s.UpstreamAuditsAgreed, s.UpstreamAuditsDiffered = u.auditsAgreed.Load(), u.auditsDiffered.Load()
		s.UpstreamAuditsFailed, s.UpstreamAuditsSkipped = u.auditsFailed.Load(), u.auditsSkipped.Load()
		s.UpstreamPaused = u.paused.len(a.o.Now())
	}
	if m := a.results; m != nil {
		s.ResultsRecalled, s.ResultsExtended, s.ResultsComputed = m.recalled.Load(), m.extended.Load(), m.computed.Load()
	}
	for _, g := range [...]*gate{a.queries, a.reads, a.lookups} {
		s.Rejected += g.rejected.Load()
		s.Running += g.slots.taken()
		s.Waiting += int(g.waiting.Load())
	}
	return s
}

// subqueryStep is that of subqueries that give none: the store's, if it is known.
func (a *API) subqueryStep() time.Duration {
	if a.upstream != nil {
		if step := a.upstream.dialect.peek().SubqueryStep; step > 0 {
			return step
		}
	}
	return a.o.SubqueryStep
}

// queryable returns what one request reads.
func (a *API) queryable(r *http.Request) *Queryable {
	bucket := a.bucket(r)
	q := NewQueryable(a.sourceOf(bucket), bucket, QueryableOptions{MaxSeries: a.limits.Load().maxSeries, MaxSeriesFlag: a.o.flag("MaxSeries")})
	q.unplanned = a.o.Features.unplanned()
	q.loan = loanOf(r.Context())
	return q
}

func (a *API) bucket(r *http.Request) string {
	if a.o.TenancyHeader != "" {
		if b := r.Header.Get(a.o.TenancyHeader); b != "" {
			return b
		}
	}
	return a.o.DefaultBucket
}
