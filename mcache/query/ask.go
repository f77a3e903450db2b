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
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"mcached/mcache"
)

// AskPath is where a member answers others.
const AskPath = "/api/v1/cluster/ask"

// question is what a member is asked.
type question struct {
	Version  int
	What     string
	Bucket   []byte
	Matchers []matcher `json:",omitempty"`
	From, To int64     // unix ms, inclusive
	Limit    int       `json:",omitempty"`
	Name     []byte    `json:",omitempty"` // of a label, or a metric; what is wanted of keys
	Last     bool      `json:",omitempty"` // of samples the newest alone

	Selectors [][]matcher `json:",omitempty"` // of exemplars

	// Only is the hashes of the series that are wanted, in order; nil: all are.
	Only []uint64 `json:",omitempty"`
	// Plan is to be carried out for the series of the slots whose bit is set in
	// Slots, but those of the hashes in Not, which are in order.
	Plan  *wirePlan `json:",omitempty"`
	Slots []byte    `json:",omitempty"`
	Not   []uint64  `json:",omitempty"`
}

// What a question is about.
const (
	askSamples            = "samples"
	askSeries             = "series" // that have a point, without samples
	askNames              = "names"
	askValues             = "values"
	askPlan               = "plan"
	askCardinality        = "cardinality"
	askChunkStats         = "extent"
	askChunkStatsByMetric = "extent by metric"
	askMetadata           = "metadata"
	askExemplars          = "exemplars"
	askKeys               = "keys"
	askCoverage           = "coverage"
)

// maxQuestionBytes bounds a question: hashes of some 50,000 series fit.
const maxQuestionBytes = 1 << 20

// matcher is a labels.Matcher on its way.
type matcher struct {
	Type        labels.MatchType
	Name, Value []byte
}

func toWire(ms []*labels.Matcher) []matcher {
	out := make([]matcher, len(ms))
	for i, m := range ms {
		out[i] = matcher{m.Type, []byte(m.Name), []byte(m.Value)}
	}
	return out
}

func fromWire(ms []matcher) ([]*labels.Matcher, error) {
	out := make([]*labels.Matcher, len(ms))
	for i, m := range ms {
		var err error
		if m.Type < labels.MatchEqual || m.Type > labels.MatchNotRegexp {
			return nil, fmt.Errorf("a matcher of the type %d", m.Type)
		}
		if out[i], err = labels.NewMatcher(m.Type, string(m.Name), string(m.Value)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (f *FanOut) questionOf(what string, s Selection) question {
	return question{Version: wireVersion, What: what, Bucket: []byte(s.Bucket), Matchers: toWire(s.Matchers), From: s.From, To: s.To}
}

// collected is a member's answer, as far as it has come.
type collected struct {
	missing   Missing
	series    []collectedSeries
	texts     []string
	groups    []group
	digests   []digest
	json      []byte
	exemplars []exemplarsOfSeries
	reader    *frameReader
}

type collectedSeries struct {
	labels   labels.Labels
	snapshot *mcache.Snapshot // nil where samples are not wanted
}

// reply is what became of a member's request.
type reply struct {
	name string
	got  *collected // nil: none
	err  error
	late bool
}

// errDoneWithout is for a member that the others made up for.
var errDoneWithout = errors.New("it was done without")

// fatal reports that an error of a member is one of the query.
func fatal(err error) bool {
	return errors.Is(err, ErrMaxSeries) || errors.Is(err, errUnplanned) || errors.As(err, new(promql.ErrTooManySamples))
}

// asker asks all members the same, or each something else.
type asker struct {
	f     *FanOut
	ctx   context.Context
	loan  *sharedLoan
	peers []Peer
	// enough reports that the answers which have come have everything; nil: all
	// are waited for.
	enough func([]reply) bool
}

// exemplarBytes is what one takes, with the id of a trace.
const exemplarBytes = 160

// sharedLoan is a Loan that several goroutines take from, some of which may end
// after the request.
type sharedLoan struct {
	mu    sync.Mutex
	loan  Loan
	ended bool
}

func (l *sharedLoan) take(ctx context.Context, n int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return errDoneWithout
	}
	return l.loan.Take(ctx, n)
}

func (l *sharedLoan) end() {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
}

func (f *FanOut) asker(ctx context.Context) *asker {
	return &asker{f: f, ctx: ctx, loan: &sharedLoan{loan: loanOf(ctx)}, peers: f.members.Peers()}
}

// all asks the others, and this member meanwhile. The replies are this one's and
// then, in the order of peers, theirs. of is what the i-th is asked, local how this
// one answers.
func (a *asker) all(of func(i int) *question, local func(*collected) error) []reply {
	replies := make([]reply, 1+len(a.peers))
	replies[0].name = a.f.members.Self()
	for i, p := range a.peers {
		replies[i+1] = reply{name: p.Name, err: errDoneWithout, late: true}
	}
	ctx, cancel := context.WithCancel(a.ctx)
	defer cancel()
	defer a.loan.end()
	type numbered struct {
		i int
		reply
	}
	came := make(chan numbered, len(a.peers)) // so that nobody waits who is done without
	pending := 0
	for i, p := range a.peers {
		q := of(i + 1)
		if q == nil {
			replies[i+1].late = false
			continue
		}
		pending++
		go func() {
			got, err := a.f.ask(ctx, p, q, a.loan)
			came <- numbered{i + 1, reply{name: p.Name, got: got, err: err}}
		}()
	}
	if of(0) != nil {
		got := new(collected)
		if err := local(got); err != nil {
			replies[0].err = err
			return replies
		}
		replies[0].got = got
	}
	slow := time.NewTimer(a.f.o.ReadTimeout)
	defer slow.Stop()
	late := false
	for pending > 0 {
		if a.enough != nil && (late || a.onlySuspects(replies)) && a.enough(replies) {
			a.f.counts.late.Add(uint64(pending))
			for i, p := range a.peers {
				if replies[i+1].late {
					a.f.members.Heard(p, errDoneWithout)
				}
			}
			return replies
		}
		select {
		case n := <-came:
			pending--
			replies[n.i] = n.reply
			if n.err != nil && fatal(n.err) {
				return replies
			}
		case <-slow.C:
			late = true
		case <-a.ctx.Done():
			replies[0].got, replies[0].err = nil, a.ctx.Err()
			return replies
		}
	}
	return replies
}

// onlySuspects reports that all who have not answered are not likely to.
func (a *asker) onlySuspects(replies []reply) bool {
	for i, p := range a.peers {
		if replies[i+1].late && !p.Suspect {
			return false
		}
	}
	return true
}

// maxSilence is how many times ReadTimeout a member may send nothing.
const maxSilence = 5

// ask asks one member.
func (f *FanOut) ask(ctx context.Context, p Peer, q *question, loan *sharedLoan) (got *collected, err error) {
	outer := ctx
	silent := false // it is the member that did not answer, not this one that did not ask or listen
	defer func() {
		switch {
		case err == nil || fatal(err) || errors.Is(err, errNotSpoken):
			f.counts.answered.Add(1)
			f.members.Heard(p, nil)
		case outer.Err() != nil, errors.Is(err, errDoneWithout): // it was not waited for
		default:
			f.counts.failed.Add(1)
			if silent {
				f.members.Heard(p, err)
			}
			f.o.Logger.Debug("A member did not answer.", "member", p.Name, "err", err)
		}
	}()
	body, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	if len(body) > maxQuestionBytes {
		return nil, fmt.Errorf("the question is too large: %d bytes, at most %d", len(body), maxQuestionBytes)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := maxSilence * f.o.ReadTimeout
	patience := time.AfterFunc(silence, func() { cancel(fmt.Errorf("it sent nothing for %s", silence)) })
	defer patience.Stop()
	res, err := f.members.Post(ctx, p, AskPath, body)
	if err != nil {
		silent = true
		return nil, causeOf(ctx, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		const maxTextBytes = 200
		text, _ := io.ReadAll(io.LimitReader(res.Body, maxTextBytes))
		return nil, fmt.Errorf("it answers with status %d: %s", res.StatusCode, strings.TrimSpace(string(text)))
	}
	b := &heardReader{r: res.Body, heard: func(n int) {
		patience.Reset(silence)
		f.counts.received.Add(uint64(n))
	}}
	got = new(collected)
	if err := got.read(ctx, b, f.o.MaxAnswerBytes, loan, q); err != nil {
		silent = ctx.Err() != nil
		return nil, causeOf(ctx, err)
	}
	return got, nil
}

// causeOf is why a request failed, in few words.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	if failed := new(url.Error); errors.As(err, &failed) {
		return failed.Err // the rest is the URL
	}
	return err
}

// heardReader tells of what it reads.
type heardReader struct {
	r     io.Reader
	heard func(n int)
}

func (h *heardReader) Read(b []byte) (int, error) {
	n, err := h.r.Read(b)
	if n > 0 {
		h.heard(n)
	}
	return n, err
}

// read reads an answer as a whole. What it keeps of it is taken from the loan.
func (c *collected) read(ctx context.Context, r io.Reader, maxBytes int64, loan *sharedLoan, q *question) error {
	fr, err := newFrameReader(r, maxBytes)
	if err != nil {
		return err
	}
	c.reader = fr
	c.missing = nothingMissing
	lent, want := int64(0), int64(0)
	for {
		kind, b, err := fr.next()
		if err != nil {
			return err
		}
		switch kind {
		case frameEnd:
			c.reader = nil
			return nil
		case frameError:
			return errorOf(b)
		}
		n, err := c.take(kind, b, q)
		if err != nil {
			return err
		}
		if want += n; want > lent {
			more := max(want-lent, 64<<10)
			if err := loan.take(ctx, more); err != nil {
				return err
			}
			lent += more
		}
	}
}

// errorOf is the error that a member sent.
func errorOf(b []byte) error {
	if len(b) == 0 {
		return errWire
	}
	text := string(b[1:])
	switch b[0] {
	case errorSeries:
		return fmt.Errorf("%w%s", ErrMaxSeries, strings.TrimPrefix(text, ErrMaxSeries.Error()))
	case errorSamples:
		return promql.ErrTooManySamples("query execution")
	case errorNotPlan:
		return errUnplanned
	case errorNotSpoken:
		return fmt.Errorf("%w%s", errNotSpoken, strings.TrimPrefix(text, errNotSpoken.Error()))
	}
	return errors.New(text)
}

// take takes in a frame and returns how many bytes it keeps of it.
func (c *collected) take(kind byte, b []byte, q *question) (kept int64, err error) {
	switch kind {
	case frameMissing:
		c.missing, err = takeMissing(b)
	case frameSeries:
		var s collectedSeries
		if s.labels, b, err = c.reader.takeLabels(b); err != nil {
			return 0, err
		}
		kept = seriesBytes + int64(s.labels.ByteSize())
		if q.What == askSamples {
			s.snapshot = new(mcache.Snapshot)
			if err := mcache.ReadSnapshot(s.snapshot, b); err != nil {
				return 0, err
			}
			s.snapshot.Shrink()
			kept += s.snapshot.Held()
		}
		c.series = append(c.series, s)
	case frameText:
		c.texts = append(c.texts, string(b))
		kept = int64(len(b)) + textBytes
	case frameGroup:
		if q.Plan == nil {
			return 0, errWire
		}
		var g group
		if g, err = c.reader.takeGroup(b, q.Plan); err == nil {
			c.groups = append(c.groups, g)
			kept = seriesBytes + 8*int64(len(g.value)+len(g.carry)+len(g.count))
		}
	case frameDigests:
		n := len(c.digests)
		c.digests, err = takeDigests(c.digests, b)
		kept = digestBytes * int64(len(c.digests)-n)
	case frameJSON:
		c.json, kept = slices.Clone(b), int64(len(b))
	case frameExemplars:
		var x exemplarsOfSeries
		if x, err = c.reader.takeExemplars(b); err == nil {
			c.exemplars, kept = append(c.exemplars, x), seriesBytes+exemplarBytes*int64(len(x.Exemplars))
		}
	default:
		err = fmt.Errorf("%w: a frame of the kind %q", errWire, kind)
	}
	return kept, err
}
