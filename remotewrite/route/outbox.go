package route

import (
	"context"
	"errors"
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

const (
	// maxUnderWay is how many requests are under way to a node at a time: while one
	// is worked on there, the next is on the wire.
	maxUnderWay = 2
	// joinBytes have to wait before a second is under way: 3,500 series by their prints,
	// some times what a request costs beside them. Less goes together when the first is
	// answered.
	joinBytes = 128 << 10
)

// maxParts of a bundle bounds the answers to it.
const maxParts = 1 << 10

// outbox is what waits for one node. Its goroutines are those of its links; to a node
// that links cannot be had to (Options.Client), and to this one itself, frames go by a
// worker of the Router, as those do that need a new link.
type outbox struct {
	r       *Router
	id, url string
	self    bool        // it is this node's: frames are stored here
	linked  bool        // bundles go over links
	packs   atomic.Bool // the node takes packed frames
	away    atomic.Bool // it was logged that the node does not take writes
	knows   knowledge   // of prints

	mu      sync.Mutex
	waiting []*frame
	waits   int     // bytes of waiting
	bytes   int     // and with those under way
	busy    int     // requests under way
	idle    []*link // the one that was used last at the end; with busy no more than maxUnderWay
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
	o.waits += f.size()
	return true
}

// begin sends what waits, if none is under way, or few enough for as much as that is. It
// waits for nothing.
func (o *outbox) begin() {
	o.mu.Lock()
	if len(o.waiting) == 0 || o.busy >= maxUnderWay || o.busy > 0 && o.waits < joinBytes {
		o.mu.Unlock()
		return
	}
	o.busy++
	o.r.active.Add(1)
	n := len(o.idle)
	if n == 0 || o.lateLocked(time.Now()) > 0 {
		o.r.run(o)
		o.mu.Unlock()
		return
	}
	l := o.idle[n-1]
	o.idle = o.idle[:n-1]
	l.frames = o.takeLocked(l.room)
	frames := l.frames
	o.mu.Unlock()
	l.post(frames)
}

// run has an outbox worked on by a goroutine that has nothing to do, or a new one: the
// stack of that must grow to several times what it begins with.
func (r *Router) run(o *outbox) {
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

// lateLocked is how many of those that wait have done so for too long.
func (o *outbox) lateLocked(now time.Time) (n int) {
	for n < len(o.waiting) && now.Sub(o.waiting[n].since) > o.r.o.Timeout && !o.self {
		n++
	}
	return n
}

// takeLocked moves what goes in the next request to dst, which is empty.
func (o *outbox) takeLocked(dst []*frame) []*frame {
	n, bytes := 0, 0
	for ; n < len(o.waiting) && n < maxParts; n++ {
		if bytes += o.waiting[n].size(); n > 0 && bytes > o.r.o.MaxBundleBytes {
			break
		}
	}
	return o.moveLocked(dst, n)
}

// moveLocked moves the first n of those that wait to dst, which is empty.
func (o *outbox) moveLocked(dst []*frame, n int) []*frame {
	dst = append(dst[:0], o.waiting[:n]...)
	for _, f := range dst {
		o.waits -= f.size()
	}
	left := copy(o.waiting, o.waiting[n:])
	clear(o.waiting[left:])
	o.waiting = o.waiting[:left]
	return dst
}

// next is what goes in the next request over l, or, without a link, by a worker. Without
// any l is idle and the request that was under way has ended.
func (o *outbox) next(l *link) []*frame {
	for {
		o.mu.Lock()
		if n := o.lateLocked(time.Now()); n > 0 {
			late := o.moveLocked(nil, n)
			o.mu.Unlock()
			o.failed(late, fmt.Errorf("it is too slow: %d frames waited for more than %v", n, o.r.o.Timeout))
			continue
		}
		var room []*frame
		if l != nil {
			room = l.room
		}
		frames := o.takeLocked(room)
		if len(frames) == 0 {
			frames = nil
			o.busy--
			o.r.active.Done()
		}
		if l != nil {
			if l.frames = frames; frames == nil {
				o.idle = append(o.idle, l)
			}
		}
		o.mu.Unlock()
		return frames
	}
}

// drain is all that waits.
func (o *outbox) drain() []*frame {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.moveLocked(nil, len(o.waiting))
}

// work sends until nothing waits, or there is a link, which does it from then on.
func (o *outbox) work() {
	for next := o.next(nil); next != nil; next = o.next(nil) {
		switch {
		case o.self:
			for _, f := range next {
				a := o.r.o.Store(o.r.ctx, f.part())
				o.done(f, &a)
			}
		case o.linked:
			l, err := o.r.dial(o.url)
			if err == nil {
				l.frames = next
				o.r.workers.Go(func() { o.serve(l) })
				l.post(next)
				return
			}
			o.failed(append(next, o.drain()...), err)
		default:
			answers, err := o.send(next)
			if err != nil {
				o.failed(append(next, o.drain()...), err)
				continue
			}
			o.answered(next, answers)
		}
	}
}

// serve reads the answers to what goes over a link, and sends what has come meanwhile.
func (o *outbox) serve(l *link) {
	defer l.close()
	for {
		a, begun, err := l.read()
		o.mu.Lock()
		frames := l.frames
		if frames == nil {
			o.idle = slices.DeleteFunc(o.idle, func(other *link) bool { return other == l })
			o.mu.Unlock()
			return
		}
		o.mu.Unlock()
		if err != nil || a.last {
			l.close() // or what cannot be written would be waited for
		}
		<-l.sent
		if err == nil {
			l.answers, err = wire.Answers(a.text, len(frames), l.answers[:0])
		}
		switch took := l.rests(); {
		case err == nil:
			o.r.counters.nanos.Add(uint64(took))
			o.packs.Store(a.packs)
			o.knows.takes.Store(a.prints)
			o.answered(frames, l.answers)
		case l.used && !begun && !errors.Is(err, context.DeadlineExceeded):
			// A node may have closed a connection while nobody used it.
			o.again(frames)
			return
		default:
			o.failed(append(frames, o.drain()...), err)
		}
		clear(frames)
		l.room, l.used = frames, true
		if err != nil || a.last {
			o.goOn()
			return
		}
		if frames = o.next(l); frames != nil {
			l.post(frames)
		}
	}
}

// again has frames sent before what waits.
func (o *outbox) again(frames []*frame) {
	o.mu.Lock()
	for _, f := range frames {
		o.waits += f.size()
	}
	o.waiting = append(frames, o.waiting...)
	o.mu.Unlock()
	o.goOn()
}

// goOn has a worker do what one was about.
func (o *outbox) goOn() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.r.run(o)
}

// answered tells flights what the node says.
func (o *outbox) answered(frames []*frame, answers []wire.Answer) {
	if refused := slices.IndexFunc(answers, func(a wire.Answer) bool { return a.Refused() }); refused >= 0 {
		o.suspect(fmt.Errorf("it has no room: %s", answers[refused].Retry))
	} else {
		o.r.o.Cluster.Trust(o.id)
		if o.away.Load() && o.away.Swap(false) {
			o.r.o.Logger.Info("A node of the cluster takes writes again.", "node", o.id, "url", o.url)
		}
	}
	for k, f := range frames {
		if answers[k].Refused() {
			o.r.counters.refusedFrames.Add(1)
		}
		o.done(f, &answers[k])
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
		o.away.Store(true)
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

// send posts frames as a bundle by the Client and returns an answer for each.
func (o *outbox) send(frames []*frame) ([]wire.Answer, error) {
	ctx, cancel := context.WithTimeout(o.r.ctx, o.r.o.Timeout)
	defer cancel()
	b := new(bundle)
	b.set(frames)
	req, err := o.r.request(ctx, o.url, b)
	if err != nil {
		return nil, err
	}
	c := &o.r.counters
	c.requests.Add(1)
	c.frames.Add(uint64(len(frames)))
	c.bytes.Add(uint64(b.size))
	began := time.Now()
	answers, err := b.exchange(o.r, req, len(frames))
	if b.readers.Load() != 0 { // the transport still reads, to an end that nobody waits for
		for _, f := range frames {
			f.lent = true
		}
	}
	if err == nil {
		c.nanos.Add(uint64(time.Since(began)))
		o.packs.Store(b.packs)
		o.knows.takes.Store(b.prints)
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
	r.describe(req)
	r.o.Sign(req, b.pieces...)
	return req, nil
}

// describe says what the body of a request is.
func (r *Router) describe(req *http.Request) {
	req.Header.Set("Content-Type", wire.ContentTypeBundle)
	req.Header.Set("Content-Encoding", "identity")
	req.Header.Set("User-Agent", "mcached")
}

// maxAnswerBytes of an answer: losses of all series of a bundle, and then some.
const maxAnswerBytes = 8 << 20

// bundleBuffer is frames as pieces that are sent as they lie.
type bundleBuffer struct {
	heads  []byte
	pieces [][]byte
	size   int
}

// set has b hold frames, in place of what it held.
func (b *bundleBuffer) set(frames []*frame) {
	n := 1
	for _, f := range frames {
		n += wire.MaxPartHeadBytes + len(f.flight.part.Bucket) + len(f.standby) + len(f.prints)
	}
	b.heads = wire.AppendBundle(slices.Grow(b.heads[:0], n))
	b.pieces, b.size = b.pieces[:0], 0
	from := 0
	for _, f := range frames {
		b.heads = wire.AppendPartHead(b.heads, f.part())
		b.pieces = append(b.pieces, b.heads[from:], f.body)
		from = len(b.heads)
	}
	for _, p := range b.pieces {
		b.size += len(p)
	}
}

// bundle is the body of a request of the Client that is under way.
type bundle struct {
	bundleBuffer
	readers atomic.Int32 // that are not closed
	packs   bool         // the node that answered takes packed parts
	blocks  bool         // it takes wire.Blocks
	prints  bool         // it takes prints of this one
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
func (b *bundle) exchange(r *Router, req *http.Request, n int) ([]wire.Answer, error) {
	resp, err := r.o.Client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return nil, err
	}
	if err := refusal(resp, text); err != nil {
		return nil, err
	}
	b.packs, b.prints = resp.Header.Get(wire.HeaderPacked) != "", r.printsBy(resp.Header.Get(wire.HeaderPrints))
	b.blocks = resp.Header.Get(wire.HeaderBlocks) == wire.BlocksForm
	return wire.Answers(text, n, make([]wire.Answer, 0, n))
}

// refusal is what a node says instead of answers.
func refusal(resp *http.Response, text []byte) error {
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != wire.ContentTypeAnswers {
		return fmt.Errorf("it answers %s: %s", resp.Status, wire.Quote(string(text)))
	}
	return nil
}

// printsBy reports whether a node that says so takes the prints of this one.
func (r *Router) printsBy(check string) bool {
	return r.o.Prints != nil && check == r.o.Prints.Check()
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
