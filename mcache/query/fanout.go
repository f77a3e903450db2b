package query

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"
)

// Reading from several daemons that are one cache. Whichever is asked is the
// coordinator of that query, and asks all others; a FanOut is the Source that
// does. What it keeps between queries, beside counters, can be had anew: what
// members claim, and who evaluates which slots.
//
// # Who is asked
//
// All members, each time: who owned a series before still has the past, and a
// series can be at a member that should not have it. A request goes one hop: the
// member that gets it reads its own cache and asks nobody. It is admitted and
// waits for its turn as a client's does, at a gate of its own: members that wait
// for each other must not hold what the other waits for.
//
// A member that does not answer within ReadTimeout is done without if the others
// have all of what is asked for, see completeFrom in eras.go. Else it is waited
// for, as long as it is silent for no more than maxSilence times as long.
//
// # Wire form
//
// A request is JSON (question), its answer frames: see wire.go. Series travel as
// mcache.Snapshot has them, still encoded, about a byte a sample. A request names
// its version; a member that knows another one answers so, and is done without.
//
// # Merging
//
// Series are put together by their labels, and of each the points by time, those
// of one time once (mcache.Snapshot.Union). Series come in the order of their
// labels, which is the same whoever coordinates; on one node it is that in which
// they were made. Sums of floats depend on it in their last digits.
//
// # Push-down
//
// What is a plan on one node (see plan.go) is carried out by the members: each
// series by one of them, the first of its owners that is there, which sends what
// became of its groups. Moving rows instead of samples is worth 15 to 20 times
// the time. See pushdown.go for how the coordinator knows that a member had all
// samples of a series, and what it does if not.
//
// # Completeness
//
// Each member says what it lacks of what it was sent. What that means for the
// answer depends on who owned what when: see eras.go. A series of which one copy
// lacks something is as complete as the copies of its slot together are. Warnings
// name the members that did not answer, but only if something may be missing.
//
// What members cover together, before a store that is asked for the rest, is
// stricter: see coverage.go.
//
// # Bounds
//
// The coordinator holds what came, encoded, until the query ends: it is taken
// from the request's loan as it comes. Points are decoded series by series.
// A member is sent at most maxQuestionBytes, and sends no frame above maxFrame.
//
// # Cost
//
// A request to a member costs some 100 µs of processor time on both ends, a series
// 2 to 3 µs with its labels, a sample of two copies some 15 ns to be merged. A plan
// that is pushed down costs each member what its own series cost it, and besides
// 17 bytes for each copy of a series.

// Members is what a FanOut has to know of the others. It must be safe for
// concurrent use.
type Members interface {
	// Self is the name of this member.
	Self() string
	// Peers are the other members that can be asked, in an order that is the same
	// for everybody. The slice must not change.
	Peers() []Peer
	// Eras are those that end after a time, in unix ms, in order; they may overlap, and one may last.
	Eras(since int64) []Era
	// Slot is that of a series.
	Slot(bucket string, ls labels.Labels) uint16
	// Post sends a request to a member so that it passes its Verify. The answer
	// may have any status.
	Post(ctx context.Context, p Peer, path string, body []byte) (*http.Response, error)
	// Heard is told what became of a request: nil if the member answered.
	Heard(p Peer, err error)
	// Verify says why a request is not from a member of the cluster, if it is not.
	Verify(r *http.Request, body []byte) error
}

// Peer is another member.
type Peer struct {
	Name string
	// ID and Address are for those who implement Members.
	ID, Address string
	// Suspect says that it is not likely to answer.
	Suspect bool
}

// FanOutOptions configure a FanOut; the zero value of a field means its default.
type FanOutOptions struct {
	// ReadTimeout is how long a member may take before it is done without if that
	// is possible. Default: one second.
	ReadTimeout time.Duration
	// Began is when this process began to take what it is sent, in unix ms by its clock
	// as it is now; it is asked with each query. What it does not have from then on it was
	// not sent. Default: when the FanOut was made.
	Began func() int64
	// ClocksApart is by how much the clocks of members may differ that are known not to
	// agree; it is asked with each query. Default: they agree.
	ClocksApart func() time.Duration
	// Claims are what was handed over to this member, with a number that changes
	// when they do, beginning with 0 for none. Default: none.
	Claims func() (version uint64, list []SlotClaim)
	// MaxAnswerBytes bounds what one member may answer. Default: 1 GiB.
	MaxAnswerBytes int64
	// NoPushDown merges samples where members could have computed. Default: they do.
	NoPushDown bool
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Logger hears of members that did not answer. Default: nobody does.
	Logger *slog.Logger
}

// FanOut is the Source of all members together: of this one's, and of those
// that it asks. It is safe for concurrent use.
type FanOut struct {
	local   Source
	members Members
	o       FanOutOptions

	// What follows is the API's that reads it, see bind.
	limits    *atomic.Pointer[limits]
	metadata  metadataFunc
	exemplars exemplarsFunc
	keys      func(of []byte, put func(text string) error) error

	room   room
	shares atomic.Pointer[shares]
	counts fanOutCounts
	known  claimCache
}

type (
	metadataFunc  = func(bucket, metric string) map[string][]metadata.Metadata
	exemplarsFunc = func(ctx context.Context, bucket string) (storage.ExemplarQuerier, error)
)

// fanOutCounts is FanOutStats while it is counted.
type fanOutCounts struct {
	answered, failed, late, served, refused, sent, received atomic.Uint64
	pushed, repaired, raw, unequal                          atomic.Uint64
}

// FanOutStats counts what a FanOut has done since it was made.
type FanOutStats struct {
	Answered uint64 // requests to other members that were answered
	Failed   uint64 // those that were not
	Late     uint64 // those that were not waited for, because the others had everything
	Served   uint64 // requests of other members that were answered
	Refused  uint64 // requests to the endpoint that were not from a member, or not understood
	Sent     uint64 // bytes of answers to members
	Received uint64 // bytes of their answers

	// Plans, by how they were carried out.
	Pushed   uint64 // by the members
	Repaired uint64 // by the members but for series whose copies were unequal
	Raw      uint64 // here, after all
	Unequal  uint64 // series whose copies were unequal
}

// NewFanOut returns the Source of local together with those of all members.
func NewFanOut(local Source, m Members, o FanOutOptions) *FanOut {
	setDefault(&o.ReadTimeout, time.Second)
	setDefault(&o.MaxAnswerBytes, 1<<30)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Began == nil {
		made := o.Now().UnixMilli()
		o.Began = func() int64 { return made }
	}
	if o.ClocksApart == nil {
		o.ClocksApart = func() time.Duration { return 0 }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &FanOut{local: local, members: m, o: o}
}

// bind takes over what the options of an API have for this member alone, and puts
// what all members have in its place. It is called before anything is asked.
func (f *FanOut) bind(o *Options, l *atomic.Pointer[limits]) {
	f.limits = l
	f.metadata, f.exemplars, f.keys = o.Metadata, o.Exemplars, o.Keys
	o.Metadata, o.Exemplars = f.allMetadata, f.allExemplars
}

// SeriesOf implements Source, without asking anybody.
func (f *FanOut) SeriesOf(bucket string) int {
	members := 1
	if e := current(f.members.Eras(never - 1)); e != nil {
		members = max(members, len(e.owners.names))
	}
	return members * f.local.SeriesOf(bucket)
}

// Stats returns a reading of the counters.
func (f *FanOut) Stats() FanOutStats {
	c := &f.counts
	return FanOutStats{
		Answered: c.answered.Load(), Failed: c.failed.Load(), Late: c.late.Load(), Served: c.served.Load(), Refused: c.refused.Load(),
		Sent: c.sent.Load(), Received: c.received.Load(),
		Pushed: c.pushed.Load(), Repaired: c.repaired.Load(), Raw: c.raw.Load(), Unequal: c.unequal.Load(),
	}
}
