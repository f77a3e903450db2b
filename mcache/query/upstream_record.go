package query

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
)

// Recording: what is to be remembered of an answer is encoded off the path of the
// client, and most of it when that has the end of its answer. Until then its text
// is kept, in the parcels that it was read into:
//
//	merge ────────▶ parcels ─────────▶ encoder ──▶ pieces, one an extent ──▶ Remembers
//	client's        recordParcels      a goroutine, begun when there are      when all of the
//	goroutine       of them            as many, or at the end of the answer   answer was written
//
// So an answer shorter than recordParcels costs its client nothing. A longer one is
// encoded while it is written, and waits for its encoder when that falls behind.
//
// Bounds: maxRecordings are under way at a time, with maxRecordingBytes of text,
// labels and pieces in sum; the pieces of one take one part in rememberedShare of
// the memory for answers at most, and maxRecordedBytes. All that is held is taken
// from a loan of its own, which does not wait. An answer for which there is no room
// is not remembered, and counted: its second look is slower. Encoders have turns,
// parcel by parcel, half as many as there are processors.
//
// Cost: 25 ns a point for the encoder: what BenchmarkRemembered takes to record, less
// the 14 of BenchmarkMatrixReader.

const (
	// recordParcels of an answer's text wait for its end: 32 MiB.
	recordParcels = 512

	maxRecordings     = 64
	maxRecordingBytes = 128 << 20
	maxRecordedBytes  = 64 << 20
	// lendRecorded is how much the pieces of a recording take of its loan at a time.
	lendRecorded = 256 << 10
)

// recorder is what recordings share.
type recorder struct {
	chores  // encoders
	turns   chan struct{}
	ahead   int             // parcels of each that wait for its encoder
	atOnce  context.Context // has ended, so that nothing waits for a loan
	held    atomic.Int64    // bytes, of all
	under   atomic.Int64    // recordings that have begun and not ended
	dropped atomic.Uint64   // for want of room
}

func (r *recorder) init(processors int) {
	r.ahead = recordParcels
	r.chores, r.turns = newChores(), make(chan struct{}, max(1, processors/2))
	ended, end := context.WithCancel(context.Background())
	end()
	r.atOnce = ended
}

// recording is what is to be kept of a part that the store is asked for. The
// client's goroutine adds to it, and ends it by keep or abandon; nil is none.
type recording struct {
	c      *recall
	of     *recorder
	text   int // bytes of points
	added  int // series
	series int // how many memory has of the answer, about as many as will come
	full   chan *parcel
	begun  bool // the encoder
	ended  bool
	kept   *keptNotes // once all is in full, which is closed behind it; nil: nothing is kept
	spoilt atomic.Bool

	mu   sync.Mutex // of what follows
	loan Loan       // nil behind the end, which a stop brings before the client's
	held int64      // of it, and of recorder.held

	// Of the encoder's goroutine:
	encoder recordEncoder
	lent    int64 // of held, for its pieces
}

// keptNotes are those of an answer, as they are kept.
type keptNotes struct{ infos []string }

// record begins one, of the steps of a span that may be kept; nil if none may.
func (c *recall) record(s span) *recording {
	if c == nil {
		return nil
	}
	rec := &recording{c: c, of: &c.u.recorder, loan: unbounded{}}
	e := &rec.encoder
	e.c, e.expected = c, separators{grid: c.grid, from: s.from}
	for step := s.from; step < s.to; step++ {
		if !c.mayKeep(step) {
			continue
		}
		number, _ := c.place(step)
		if n := len(e.pieces); n > 0 && e.pieces[n-1].number == number && e.pieces[n-1].to == step {
			e.pieces[n-1].to++
			continue
		}
		e.pieces = append(e.pieces, &piece{number: number, from: step, to: step + 1})
	}
	if len(e.pieces) == 0 {
		return nil
	}
	if rec.of.under.Add(1) > maxRecordings {
		rec.of.under.Add(-1)
		rec.of.dropped.Add(1)
		return nil
	}
	if c.lend != nil {
		rec.loan = c.lend()
	}
	rec.full = make(chan *parcel, rec.of.ahead)
	return rec
}

// settledBy reports that all that is to be kept is settled by the store's clock, too, as
// far as its answer says what that shows.
func (rec *recording) settledBy(header http.Header) bool {
	if rec == nil {
		return true
	}
	c := rec.c
	behind := min(clockAhead(header, c.asked, c.asked), 0).Milliseconds()
	if behind == 0 {
		return true
	}
	for _, p := range rec.encoder.pieces {
		for step := p.from; step < p.to; step++ {
			if c.windows.of(step).to > c.settled+behind {
				return false
			}
		}
	}
	return true
}

// take keeps a parcel of the store's answer, which is the recording's from then on.
// If it reports false, it is not.
func (rec *recording) take(b *parcel) bool {
	if rec == nil || rec.spoilt.Load() {
		return false
	}
	rec.added += len(b.series)
	rec.text += len(b.text)
	if rec.text > rec.c.u.maxText || rec.tooLong() {
		rec.spoil()
		rec.c.tooLarge()
		return false
	}
	if !rec.hold(b.size()) || len(rec.full) == cap(rec.full) && !rec.begin() {
		rec.drop()
		return false
	}
	select {
	case rec.full <- b:
		return true
	case <-rec.of.quit:
		rec.drop()
		return false
	}
}

// tooLong reports that the answer will be too long by far, if its other series
// are like those so far. To find that out at the end is what recording costs.
func (rec *recording) tooLong() bool {
	most := rec.c.u.maxText
	return rec.text > most/8 && rec.text/rec.added*rec.series > 2*most
}

// spoil has nothing kept.
func (rec *recording) spoil() { rec.spoilt.Store(true) }

// drop is spoil for want of room.
func (rec *recording) drop() {
	if !rec.spoilt.Swap(true) {
		rec.of.dropped.Add(1)
	}
}

// hold takes bytes from the loan, if there is room and it has not ended.
func (rec *recording) hold(n int64) bool {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if rec.loan == nil {
		return false
	}
	if rec.of.held.Add(n) > maxRecordingBytes || rec.loan.Take(rec.of.atOnce, n) != nil {
		rec.of.held.Add(-n)
		return false
	}
	rec.held += n
	return true
}

// give gives them back.
func (rec *recording) give(n int64) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.of.held.Add(-n)
	rec.held -= n
	rec.loan.Keep(rec.held)
}

// begin begins the encoder.
func (rec *recording) begin() bool {
	if rec.begun {
		return true
	}
	if rec.begun = rec.of.begin(); rec.begun {
		go rec.run()
	}
	return rec.begun
}

// keep ends it: what was recorded is put into memory, with what was there. notes
// are those of the answer, which has come to its end.
func (rec *recording) keep(warnings, infos []string) {
	if rec == nil || rec.ended {
		return
	}
	if rec.spoilt.Load() || len(warnings) > 0 || len(infos) > maxExtentInfos {
		rec.abandon()
		return
	}
	kept, size := make([]string, len(infos)), 0
	for i, info := range infos {
		kept[i] = rec.c.byToken(info)
		size += len(info)
	}
	if size > maxExtentInfoBytes {
		rec.abandon()
		return
	}
	if rec.spoilt.Load() || !rec.begin() {
		rec.abandon()
		return
	}
	rec.ended, rec.kept = true, &keptNotes{kept}
	close(rec.full)
}

// abandon ends it: nothing is kept.
func (rec *recording) abandon() {
	if rec == nil || rec.ended {
		return
	}
	rec.ended = true
	rec.spoil()
	close(rec.full)
	if !rec.begun {
		rec.end()
	}
}

// end gives back all that is held.
func (rec *recording) end() {
	rec.mu.Lock()
	rec.of.held.Add(-rec.held)
	rec.held = 0
	rec.loan.Release()
	rec.loan = nil
	rec.mu.Unlock()
	for _, p := range rec.encoder.pieces {
		if p.body != nil {
			rec.c.u.spare(&extent{body: p.body})
			p.body = nil
		}
	}
	rec.of.under.Add(-1)
}

// run encodes what was added, and keeps it if it is to be kept.
func (rec *recording) run() {
	defer rec.of.done()
	defer rec.end()
	for rec.encodeNext() {
	}
	if !rec.spoilt.Load() && rec.kept != nil { // in this order: a stop does not wait for the client
		rec.of.turns <- struct{}{}
		rec.put()
		<-rec.of.turns
	}
}

// encodeNext encodes a parcel, once there is one. It reports false behind the last.
func (rec *recording) encodeNext() bool {
	var b *parcel
	select {
	case b = <-rec.full:
	case <-rec.of.quit:
		rec.spoil()
	}
	if b == nil {
		return false
	}
	rec.of.turns <- struct{}{}
	if !rec.spoilt.Load() && !rec.encoder.add(b) {
		rec.spoil()
	}
	<-rec.of.turns
	size := b.size()
	rec.c.u.parcels.put(b)
	rec.give(size)
	size = rec.encoder.size()
	if need := size - rec.lent; need > 0 {
		need += lendRecorded
		rec.lent += need
		if !rec.hold(need) {
			rec.drop()
		}
	}
	if size > rec.c.u.mostRemembered() {
		rec.spoil()
		rec.c.tooLarge()
	}
	return true
}

// mostRemembered is how much an answer may take as extents.
func (u *upstream) mostRemembered() int64 {
	most := int64(maxRecordedBytes)
	if room := u.opts().MemoryBytes; room != nil {
		most = min(most, room()/rememberedShare)
	}
	return most
}

// put puts what was encoded into memory, with what was there.
func (rec *recording) put() {
	c, blob := rec.c, []byte(nil)
	for _, p := range rec.encoder.pieces {
		_, lo := c.place(p.from)
		x := &extent{lo: lo, hi: lo + p.to - p.from, infos: rec.kept.infos, body: p.body}
		if x.hi-x.lo < extentSteps && !rec.unite(x, p.number) || len(x.body) > maxExtentBytes {
			continue
		}
		blob = x.appendBlob(blob[:0])
		if c.memory.Put(c.key(p.number), blob, rememberFor) == nil {
			c.u.kept.Add(uint64(p.to - p.from))
		}
	}
}

// unite adds to an extent what is remembered of it. False means that this is to
// stay as it is.
func (rec *recording) unite(x *extent, number int64) bool {
	blob, ok := rec.c.memory.Get(nil, rec.c.key(number))
	if !ok {
		return true
	}
	old, err := openExtent(blob, nil)
	if err != nil {
		return true
	}
	n := int64(len(blob) + cap(old.body))
	if !rec.hold(2 * n) { // and the two as one
		return false
	}
	defer rec.give(2 * n)
	both, err := unite(old, x)
	switch {
	case err != nil:
	case both != nil && len(both.infos) <= maxExtentInfos:
		*x = *both
	case old.hi-old.lo > x.hi-x.lo:
		return false
	}
	return true
}
