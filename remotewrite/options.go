package remotewrite

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"mcached/remotewrite/wire"
)

// Options configure a Handler. The zero value of a field means its default.
// Every bound is checked before memory is taken for what it bounds.
type Options struct {
	// MaxBodyBytes of a request as it is sent. Default 32 MiB.
	MaxBodyBytes int
	// MaxDecodedBytes of a request when decompressed, at most 1 GiB. Default
	// 64 MiB: snappy makes of the usual 20,000 samples about 5 MiB.
	MaxDecodedBytes int
	// MaxSamples, which counts histograms and exemplars, too, MaxSeries and
	// MaxSymbols of a request. An empty message is
	// two bytes on the wire and 8 to 48 here, so the bounds on bytes do not
	// bound these. Defaults 1,000,000, 200,000 and 400,000: 16 MiB, 10 MiB
	// and 19 MiB.
	MaxSamples, MaxSeries, MaxSymbols int
	// MaxLabels of a series, those with an empty value included. Default 128.
	MaxLabels int
	// MaxLabelNameBytes. Default 1 KiB.
	MaxLabelNameBytes int
	// MaxLabelValueBytes. Default 16 KiB.
	MaxLabelValueBytes int
	// MaxMetadata is how many metrics' descriptions are kept. Default 20,000.
	MaxMetadata int
	// MaxMetadataBytes of text of all descriptions. Default 8 MiB.
	MaxMetadataBytes int
	// MaxExemplars is how many of the latest exemplars are kept. Default 10,000.
	MaxExemplars int
	// MaxExemplarBytes of all exemplars, with their series' labels. Default 8 MiB.
	MaxExemplarBytes int
	// MaxBucketBytes of a tenant's name. Default 150.
	MaxBucketBytes int

	// MaxNewSeriesPerSecond bounds how many series are created, with as many
	// at once as half a minute allows. Those beyond are answered 503, and known
	// series are written all the same. Default: no bound.
	MaxNewSeriesPerSecond int

	// MaxConcurrent is how many requests are decoded and written at a time.
	// More wait, with what they have read. It bounds what pools keep for the
	// next requests; what tables grow to is asked of Admission. Default twice GOMAXPROCS: the work is the processors' alone.
	MaxConcurrent int

	// MaxAhead is how far ahead of the clock a sample may be. Default 10 minutes.
	MaxAhead time.Duration
	// BodyTimeout is how long a sender may take over a body. Default 30 s.
	BodyTimeout time.Duration
	// RetryAfter is what a sender is told when memory does not suffice. Default 1 s.
	RetryAfter time.Duration

	// TenancyHeader names the header that names the bucket. Default: none,
	// everything goes to DefaultBucket.
	TenancyHeader string
	// DefaultBucket takes requests without TenancyHeader. Default "default".
	DefaultBucket string

	// Admission bounds what all requests have in hand together: bodies as they
	// come in, decompressed, and what they are decoded into. It is called at the head of each request, and
	// cut, which may be called at any time, ends the wait for the rest of that
	// request. Default: no bound.
	Admission func(cut func()) Loan
	// Router spreads requests over the nodes of a cluster. Default: none,
	// everything is kept here.
	Router Router
	// Flags says by which flag an operator sets an option, by its name, as
	// "MaxLabels": the texts that name a limit name it, too. "Limits.Series" and
	// "Limits.SeriesPerMetric" are those of the cache. Default: none.
	Flags map[string]string
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Logger is told about refused requests, at most once a second. Default: nobody.
	Logger *slog.Logger
}

// Loan is what one request has in hand. Its errors may have a method
// RetryAfter() (after time.Duration, ok bool), which says when to retry;
// not ok that it would always be refused.
type Loan interface {
	// Try takes n bytes more.
	Try(n int64) error
	// Begin says that the request is whole and to be worked on.
	Begin() error
	// Release ends the request and gives everything back.
	Release()
}

// Router spreads requests over the nodes of a cluster. It is safe for concurrent use.
type Router interface {
	// Claims reports whether a request says that it comes from another node.
	// Such a one is written here and never routed again.
	Claims(r *http.Request) bool
	// Verify looks whether a request that says so does, now that its body is there.
	Verify(r *http.Request, body []byte) error
	// Route has the request written by those who own its series, and says what
	// came of it. It calls store, at most once, for what belongs here: with the
	// series, by their place in the request, that do not, or nil if all do, and with
	// those that another node forwards, and with the names of those that do belong here, in
	// their order, or nil, which it may change. The body is its own until it calls done, before it
	// waits for others, with the body, or with another buffer, or nil, and then it keeps the body.
	Route(ctx context.Context, p wire.Part, store func(skip []bool, standby wire.Bits, names []wire.Named) wire.Answer, done func(spare []byte)) wire.Answer
	// Claim takes a part of the protocol wire.Claim, which another node sent.
	Claim(body []byte) error
	// Answered adds to the answer to a bundle what its sender has to know.
	Answered(h http.Header)
}

// DefaultMaxLabels is what Options.MaxLabels is if it is not set.
const DefaultMaxLabels = 128

// maxDecodedBytes is what a piece can address, and then some.
const maxDecodedBytes = 1 << 30

func (o Options) withDefaults() Options {
	def(&o.MaxBodyBytes, 32<<20)
	def(&o.MaxDecodedBytes, 64<<20)
	o.MaxDecodedBytes = min(o.MaxDecodedBytes, maxDecodedBytes)
	def(&o.MaxSamples, 1_000_000)
	def(&o.MaxSeries, 200_000)
	def(&o.MaxSymbols, 400_000)
	def(&o.MaxLabels, DefaultMaxLabels)
	def(&o.MaxLabelNameBytes, 1<<10)
	def(&o.MaxLabelValueBytes, 16<<10)
	def(&o.MaxMetadata, 20_000)
	def(&o.MaxMetadataBytes, 8<<20)
	def(&o.MaxExemplars, 10_000)
	def(&o.MaxExemplarBytes, 8<<20)
	def(&o.MaxBucketBytes, 150)
	def(&o.MaxConcurrent, 2*runtime.GOMAXPROCS(0))
	def(&o.MaxAhead, 10*time.Minute)
	def(&o.BodyTimeout, 30*time.Second)
	def(&o.RetryAfter, time.Second)
	def(&o.DefaultBucket, "default")
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return o
}

// flag is how an operator changes an option, for a text.
func (o *Options) flag(option string) string {
	if f := o.Flags[option]; f != "" {
		return " (" + f + ")"
	}
	return ""
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}
