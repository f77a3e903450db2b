package route

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"mcached/remotewrite/wire"
)

// frame is the items of one flight that go to one node. Its body is a request
// of the flight's protocol: what all frames begin with, then the items.
type frame struct {
	flight *flight
	node   int // in the flight's table
	items  []int32
	copies wire.Bits // of items, by their place in it: another node forwards them
	// series and standby are the number of those that are no metadata, and which
	// of them are copies.
	series  int
	standby wire.Bits
	repeats wire.Bits // of items: the node was sent them before, as copies
	teaches bool      // the node learns prints of it
	prints  []byte    // of those that are no metadata, if it teaches
	printed bool      // body is wire.Printed
	body    []byte
	plain   int       // bytes of the items before they are packed
	packed  bool      // body is wire.PackedV1
	last    int32     // of a packed one: the item that the next series refers to, or none
	since   time.Time // when it was put into the outbox
	lent    bool      // a transport may still read body
}

// size is the bytes that are sent of it.
func (f *frame) size() int { return len(f.body) + len(f.prints) }

// keepFrameBytes is the largest buffer that is kept for the next request.
const keepFrameBytes = 4 << 20

func (r *Router) putBack(f *frame) {
	if f.lent || cap(f.body) > keepFrameBytes {
		return
	}
	poison(f.body)
	*f = frame{items: f.items[:0], body: f.body[:0], copies: f.copies[:0], standby: f.standby[:0], repeats: f.repeats[:0], prints: f.prints[:0]}
	r.frames.Put(f)
}

// maxUnderWay is how many requests are under way to a node at a time: while one
// is worked on there, the next is on the wire.
const maxUnderWay = 2

// maxParts of a bundle bounds the answers to it.
const maxParts = 1 << 10

// outbox is what waits for one node. It has no goroutine of its own.
type outbox struct {
	r       *Router
	id, url string
	self    bool        // it is this node's: frames are stored here
	packs   atomic.Bool // the node takes packed frames
	knows   knowledge   // of prints

	mu      sync.Mutex
	waiting []*frame
	bytes   int // of waiting and under way
	busy    int // requests under way
}

// put takes a frame, unless the outbox is full. The flight hears of it by
// flight.answered. That of this node is never full: it is the last to ask, and
// what it holds was lent by admission. It goes out when begin is called.
func (o *outbox) put(f *frame) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.self && o.bytes > 0 && o.bytes+f.size() > o.r.o.MaxOutboxBytes {
		return false
	}
	o.bytes += f.size()
	o.r.counters.outboxBytes.Add(int64(f.size()))
	f.since = time.Now()
	o.waiting = append(o.waiting, f)
	return true
}

// begin has what waits sent, if fewer requests are under way than may be.
func (o *outbox) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waiting) > 0 && o.busy < maxUnderWay {
		o.busy++
		o.r.run(o)
	}
}

// run has an outbox worked on by a goroutine that has nothing to do, or a new one: the
// stack of that must grow to several times what it begins with.
func (r *Router) run(o *outbox) {
	r.active.Add(1)
	select {
	case r.idle <- o:
	default:
		r.workers.Go(func() {
			for o != nil {
				o.work()
				select {
				case o = <-r.idle:
				case <-r.ctx.Done():
					o = nil
				}
			}
		})
	}
}

// take is what goes in the next request, or nothing, and then the worker ends.
// What has waited for too long is in late.
func (o *outbox) take() (next, late []*frame) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	n, bytes := 0, 0
	for n < len(o.waiting) && now.Sub(o.waiting[n].since) > o.r.o.Timeout && !o.self {
		n++
	}
	late = append(late, o.waiting[:n]...)
	o.waiting = o.waiting[n:]
	for n = 0; n < len(o.waiting) && n < maxParts; n++ {
		if bytes += o.waiting[n].size(); n > 0 && bytes > o.r.o.MaxBundleBytes {
			break
		}
	}
	next = append(next, o.waiting[:n]...)
	if o.waiting = o.waiting[n:]; len(o.waiting) == 0 {
		o.waiting = nil
	}
	if len(next)+len(late) == 0 {
		o.busy--
	}
	return next, late
}

// drain is all that waits.
func (o *outbox) drain() []*frame {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := o.waiting
	o.waiting = nil
	return all
}

// work sends until nothing waits.
func (o *outbox) work() {
	defer o.r.active.Done()
	for {
		next, late := o.take()
		if len(next)+len(late) == 0 {
			return
		}
		if len(late) > 0 {
			o.failed(late, fmt.Errorf("it is too slow: %d frames waited for more than %v", len(late), o.r.o.Timeout))
		}
		if len(next) == 0 {
			continue
		}
		if o.self {
			for _, f := range next {
				a := o.r.o.Store(o.r.ctx, f.part())
				o.done(f, &a)
			}
			continue
		}
		answers, err := o.send(next)
		if err != nil {
			o.failed(append(next, o.drain()...), err)
			continue
		}
		if refused := slices.IndexFunc(answers, func(a wire.Answer) bool { return a.Refused() }); refused >= 0 {
			o.suspect(fmt.Errorf("it has no room: %s", answers[refused].Retry))
		} else {
			o.r.o.Cluster.Trust(o.id)
		}
		for k, f := range next {
			if answers[k].Refused() {
				o.r.counters.refusedFrames.Add(1)
			}
			o.done(f, &answers[k])
		}
	}
}

// failed tells flights that the node has not taken frames.
func (o *outbox) failed(frames []*frame, err error) {
	o.r.counters.failedFrames.Add(uint64(len(frames)))
	o.suspect(err)
	for _, f := range frames {
		a := wire.Answer{Status: http.StatusServiceUnavailable, Retry: "a node of the cluster did not take it: " + err.Error()}
		o.done(f, &a)
	}
}

func (o *outbox) suspect(err error) {
	if o.self {
		return
	}
	o.r.o.Cluster.Suspect(o.id)
	if o.r.maySay() {
		o.r.o.Logger.Warn("A node of the cluster does not take writes; others get what it would have.", "node", o.id, "url", o.url, "err", err)
	}
}

// done hands a frame back to its flight.
func (o *outbox) done(f *frame, a *wire.Answer) {
	n := f.size()
	f.flight.answered(f, a)
	o.mu.Lock()
	o.bytes -= n
	o.mu.Unlock()
	o.r.counters.outboxBytes.Add(-int64(n))
}

// sayGap is the least time between two lines in the log.
const sayGap = 10 * time.Second

func (r *Router) maySay() bool {
	now, was := time.Now().UnixMilli(), r.loggedMs.Load()
	return now-was >= sayGap.Milliseconds() && r.loggedMs.CompareAndSwap(was, now)
}

// send posts frames as a bundle and returns an answer for each.
func (o *outbox) send(frames []*frame) ([]wire.Answer, error) {
	ctx, cancel := context.WithTimeout(o.r.ctx, o.r.o.Timeout)
	defer cancel()
	b := newBundle(frames)
	req, err := o.r.request(ctx, o.url, b)
	if err != nil {
		return nil, err
	}
	c := &o.r.counters
	c.requests.Add(1)
	c.frames.Add(uint64(len(frames)))
	c.bytes.Add(uint64(b.size))
	began := time.Now()
	answers, err := b.exchange(o.r.o.Client, req, len(frames))
	if b.readers.Load() != 0 { // the transport still reads, to an end that nobody waits for
		for _, f := range frames {
			f.lent = true
		}
	}
	if err == nil {
		c.nanos.Add(uint64(time.Since(began)))
		o.packs.Store(b.packs)
		o.knows.takes.Store(o.r.o.Prints != nil && b.prints == o.r.o.Prints.Check())
	}
	return answers, err
}

// request is one that carries a bundle to a node.
func (r *Router) request(ctx context.Context, url string, b *bundle) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+r.o.Path, nil)
	if err != nil {
		return nil, err
	}
	req.ContentLength, req.GetBody = int64(b.size), b.reader
	req.Body, _ = b.reader()
	req.Header.Set("Content-Type", wire.ContentTypeBundle)
	req.Header.Set("Content-Encoding", "identity")
	req.Header.Set("User-Agent", "mcached")
	r.o.Sign(req, b.pieces...)
	return req, nil
}

// maxAnswerBytes of an answer: losses of all series of a bundle, and then some.
const maxAnswerBytes = 8 << 20

// bundle is the body of a request under way: pieces that are sent as they lie.
type bundle struct {
	pieces  [][]byte
	size    int
	readers atomic.Int32 // that are not closed
	packs   bool         // the node that answered takes packed parts
	prints  string       // its check of prints, if it takes any
}

func newBundle(frames []*frame) *bundle {
	n := 1
	for _, f := range frames {
		n += wire.MaxPartHeadBytes + len(f.flight.part.Bucket) + len(f.standby) + len(f.prints)
	}
	heads := wire.AppendBundle(make([]byte, 0, n))
	b := &bundle{pieces: make([][]byte, 0, 2*len(frames))}
	from := 0
	for _, f := range frames {
		heads = wire.AppendPartHead(heads, f.part())
		b.pieces = append(b.pieces, heads[from:], f.body)
		from = len(heads)
	}
	for _, p := range b.pieces {
		b.size += len(p)
	}
	return b
}

// part is the frame as a request of its own.
func (f *frame) part() wire.Part {
	p := f.flight.part.Protocol
	switch {
	case f.packed:
		p = wire.PackedV1
	case f.printed:
		p = wire.Printed
	}
	return wire.Part{Protocol: p, Bucket: f.flight.part.Bucket, Body: f.body, Standby: f.standby, Prints: f.prints}
}

func (b *bundle) reader() (io.ReadCloser, error) {
	b.readers.Add(1)
	return &bundleReader{of: b, pieces: b.pieces}, nil
}

// exchange sends the bundle, of n parts, and reads what the node says about them.
func (b *bundle) exchange(client *http.Client, req *http.Request, n int) ([]wire.Answer, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != wire.ContentTypeAnswers {
		return nil, fmt.Errorf("it answers %s: %s", resp.Status, wire.Quote(string(text)))
	}
	b.packs, b.prints = resp.Header.Get(wire.HeaderPacked) != "", resp.Header.Get(wire.HeaderPrints)
	return wire.Answers(text, n, make([]wire.Answer, 0, n))
}

type bundleReader struct {
	of     *bundle
	pieces [][]byte
	at     int // in the first of them
	closed atomic.Bool
}

// Read implements io.Reader.
func (r *bundleReader) Read(p []byte) (n int, err error) {
	for n < len(p) && len(r.pieces) > 0 {
		k := copy(p[n:], r.pieces[0][r.at:])
		n += k
		if r.at += k; r.at == len(r.pieces[0]) {
			r.pieces, r.at = r.pieces[1:], 0
		}
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Close implements io.Closer. It may be called more than once.
func (r *bundleReader) Close() error {
	if !r.closed.Swap(true) {
		r.of.readers.Add(-1)
	}
	return nil
}
