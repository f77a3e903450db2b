package query

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"
)

// Each answer of the store is read and checked by a goroutine of its own, while
// the client's writes what was read before:
//
//	store ──▶ reader ──▶ parcels of series, maxParcels ──▶ merge ──▶ client
//
// Before anything is sent to the client, the beginning of each answer is read, up to
// readAhead: what is wrong with a short one, and with the head of any, does no harm.
//
// A loan belongs to the client's goroutine. What the reader needs of it the
// client's takes, while it waits for the next parcel.

const (
	// readAhead is how much of an answer is read before anything is sent.
	readAhead = 1 << 20
	// maxUnsorted bounds an answer whose series do not come in order.
	maxUnsorted = 64 << 20
	// parcelBytes of text are a parcel, or one series that has more.
	parcelBytes = 64 << 10
	// maxParcels wait for the client's goroutine, behind what was read ahead.
	maxParcels = 4
)

// parcel is some series of an answer.
type parcel struct {
	text   []byte
	series []parcelSeries
	beside int64 // bytes that the series take beside their text
	lent   int64 // bytes of the client's loan
}

// parcelSeriesBytes is more than a parcelSeries takes, in a list that grows, without
// what its labels say.
const parcelSeriesBytes = 64

// parcelSeries has its floats and its histograms next in the text.
type parcelSeries struct {
	labels             labels.Labels
	floats, histograms int
}

// size is what it takes.
func (p *parcel) size() int64 { return int64(cap(p.text)) + p.beside }

// reset empties it for others.
func (p *parcel) reset() {
	poison(p.text)
	clear(p.series)
	p.text, p.series, p.beside = p.text[:0], p.series[:0], 0
}

// parcels are those that are not in use: of parcelBytes, and of long series.
type parcels struct{ usual, long sync.Pool }

// get is one with room for so many bytes, or parcelBytes if those are more.
func (x *parcels) get(bytes int) *parcel {
	from := &x.usual
	if bytes > parcelBytes {
		from = &x.long
	}
	if p, ok := from.Get().(*parcel); ok && cap(p.text) >= bytes {
		return p
	}
	return &parcel{text: make([]byte, 0, max(bytes, parcelBytes))}
}

// put takes one back, if others may have use for it.
func (x *parcels) put(p *parcel) {
	p.reset()
	p.lent = 0
	switch n := cap(p.text); {
	case n == parcelBytes:
		x.usual.Put(p)
	case n > parcelBytes && n <= readAhead:
		x.long.Put(p)
	}
}

// reading is an answer that is being read.
type reading struct {
	m     *matrixReader
	store *learner
	spare *parcels

	full  chan *parcel // closed behind the last
	free  chan *parcel // that were written
	wants chan int64   // bytes of the loan
	lent  chan error   // the loan's answer
	quit  chan struct{}
	given atomic.Int64 // bytes of parcels that are no part of this any more
	err   error        // why it ended, if not by the end of the answer; set before full is closed

	// Of the reader's goroutine:
	last  labels.Labels
	size  int   // of the last series' text
	taken int64 // of the loan
	left  int64 // of it, that no parcel has
}

// begin begins to read an answer.
func (p *asked) begin(u *upstream) {
	p.reading = &reading{
		m: p.reader, store: &u.dialect, spare: &u.parcels,
		full: make(chan *parcel, maxParcels), free: make(chan *parcel, maxParcels),
		wants: make(chan int64), lent: make(chan error, 1), quit: make(chan struct{}),
	}
	p.reader.grown = grownBy(p.reading.borrow)
	go p.reading.run()
}

func (x *reading) run() {
	x.err = x.readAll()
	close(x.full)
}

// readAll reads series up to the end, or an error.
func (x *reading) readAll() error {
	for n := 0; ; {
		b, err := x.empty()
		if err != nil {
			return err
		}
		for more := true; more; n++ {
			x.m.at.floats = b.text[len(b.text):]
			s, err := x.m.next()
			if err == io.EOF {
				err = x.hand(b)
				x.m.drain()
				return err
			}
			if err != nil {
				return err
			}
			if n > 0 && labels.Compare(x.last, s.labels) >= 0 {
				x.store.disorder()
				return errUnsorted
			}
			x.last = s.labels
			if more, err = x.put(b, s); err != nil {
				return err
			}
		}
		if err := x.hand(b); err != nil {
			return err
		}
	}
}

// put adds a series to a parcel, and reports whether there is room for another.
func (x *reading) put(b *parcel, s *matrixSeries) (more bool, err error) {
	n, size := len(b.text), len(s.floats)+len(s.histograms)
	switch {
	case unsafe.SliceData(s.floats) == unsafe.SliceData(b.text[n:cap(b.text)]):
		b.text = b.text[:n+len(s.floats)] // where they are
	case n == 0: // they are longer
		b.text = s.floats
	default:
		b.text = append(b.text, s.floats...)
	}
	b.text = append(b.text, s.histograms...)
	x.size = size
	b.series = append(b.series, parcelSeries{s.labels, len(s.floats), len(s.histograms)})
	b.beside += parcelSeriesBytes + int64(s.labels.ByteSize())
	if err := x.lend(b); err != nil {
		return false, err
	}
	return len(b.text)+size+size/8 <= cap(b.text) && len(b.text) < parcelBytes && b.beside < parcelBytes, nil
}

// lend has taken from the loan what a parcel takes.
func (x *reading) lend(b *parcel) error {
	need := b.size() - b.lent
	if need <= 0 {
		return nil
	}
	b.lent += need
	return x.borrow(need)
}

// borrow has taken so many bytes from the loan.
func (x *reading) borrow(need int64) error {
	x.left += x.given.Swap(0)
	if more := need - x.left; more > 0 {
		more = max(more, min(x.taken/4, readAhead/4)) // in few steps
		select {
		case x.wants <- more:
		case <-x.quit:
			return errVisitOver
		}
		if err := <-x.lent; err != nil {
			return err
		}
		x.taken, x.left = x.taken+more, x.left+more
	}
	x.left -= need
	return nil
}

// empty is a parcel to be filled.
func (x *reading) empty() (*parcel, error) {
	select {
	case b := <-x.free:
		return b, nil
	default:
	}
	b := x.spare.get(x.size + x.size/8)
	return b, x.lend(b)
}

// hand hands a parcel on, if there is anything in it.
func (x *reading) hand(b *parcel) error {
	if len(b.series) == 0 {
		x.spare.put(b)
		return nil
	}
	select {
	case x.full <- b:
		return nil
	case <-x.quit:
		return errVisitOver
	}
}

// next is the next parcel; nil behind the last, or with an error. It lends what the
// reader wants.
func (x *reading) next(ctx context.Context) (*parcel, error) {
	for {
		select {
		case b, more := <-x.full:
			if !more {
				return nil, x.err
			}
			return b, nil
		case n := <-x.wants:
			x.lent <- loanOf(ctx).Take(ctx, n)
		}
	}
}

// done takes a parcel back.
func (x *reading) done(b *parcel) {
	b.reset()
	select {
	case x.free <- b:
	default:
		x.given.Add(b.lent)
		x.spare.put(b)
	}
}

// done gives a parcel back, or leaves it to the recording.
func (p *asked) done(b *parcel) {
	lent := b.lent
	if p.record.take(b) {
		p.reading.given.Add(lent)
		return
	}
	p.reading.done(b)
}

// end has the reader stop, and waits for it. Its request must have been ended.
func (x *reading) end() {
	close(x.quit)
	for b := range x.full {
		x.spare.put(b)
	}
	for {
		select {
		case b := <-x.free:
			x.spare.put(b)
		default:
			return
		}
	}
}

// receive waits for the heads of the store's answers, and reads ahead. Meanwhile
// memory's part is written as text.
func (j *joint) receive(requests chan *asked) error {
	j.writeAhead(requests)
	all := slices.Concat(j.askeds, j.seams)
	for _, p := range all {
		if p.err != nil {
			return p.err
		}
	}
	if j.refusal() != nil {
		return nil
	}
	for _, p := range all {
		if err := j.begin(p); err != nil {
			return err
		}
	}
	for _, p := range all {
		if err := p.readAhead(); err != nil {
			return err
		}
	}
	j.storeTook = time.Since(j.began)
	return nil
}

// refusal is the store's word that it does not like the query.
func (j *joint) refusal() *storeAnswer {
	for _, p := range slices.Concat(j.askeds, j.seams) {
		if p.res != nil && p.res.refused() {
			return p.res
		}
	}
	return nil
}

// begin begins to read an answer. One that has to be sorted is read as a whole.
func (j *joint) begin(p *asked) error {
	p.ctx = j.r.Context()
	if err := loanOf(p.ctx).Take(p.ctx, readBytes+separatorBytes*int64(p.to-p.from)); err != nil {
		return err
	}
	if !p.record.settledBy(p.res.Header) {
		p.record.abandon()
		p.record = nil
	}
	p.reader = newMatrixReader(p.res, j.d.grid, p.span)
	if j.a.upstream.dialect.peek().unsorted {
		return p.sort()
	}
	p.begin(j.a.upstream)
	return nil
}

// readAhead reads the beginning of an answer. If that is all, it is sound.
func (p *asked) readAhead() error {
	if p.reading == nil {
		return nil
	}
	for size := int64(0); size < readAhead; {
		b, err := p.reading.next(p.ctx)
		if b == nil {
			return err
		}
		p.ahead = append(p.ahead, b)
		size += int64(len(b.text)) + b.beside
	}
	return nil
}

// sort reads an answer whose series do not come in order. Nothing of it is kept.
func (p *asked) sort() error {
	p.record.abandon()
	loan, size, lent := loanOf(p.ctx), int64(0), int64(0)
	p.reader.grown = grownBy(func(n int64) error { return loan.Take(p.ctx, n) })
	for {
		s, err := p.reader.next()
		if err == io.EOF {
			p.reader.drain()
			break
		}
		if err != nil {
			return err
		}
		size += int64(len(s.floats)+len(s.histograms)) + int64(s.labels.ByteSize()) + parcelSeriesBytes
		if size > maxUnsorted {
			return fmt.Errorf("its answer is too long to be sorted: more than %d bytes", maxUnsorted)
		}
		if size > lent {
			more := max(lent, readBytes)
			if err := loan.Take(p.ctx, more); err != nil {
				return err
			}
			lent += more
		}
		p.list = append(p.list, matrixSeries{s.labels, bytes.Clone(s.floats), bytes.Clone(s.histograms)})
	}
	slices.SortFunc(p.list, func(a, b matrixSeries) int { return labels.Compare(a.labels, b.labels) })
	return nil
}

// errUnsorted is of answers that can be handed on, but not joined.
var errUnsorted error = &wholeError{errors.New("its series are not in the order of their labels")}

// While the store computes, memory's part is written as text, as far as that takes
// no more than readAhead.

// written is text of the floats of a part's first series.
type written struct {
	parcels []*parcel
	texts   [][]byte // in them
}

// maxWritten is more than a point takes.
const maxWritten = 2*numberBytes + len(`[,""],`)

// writeAhead waits for the heads of the store's answers.
func (j *joint) writeAhead(requests chan *asked) {
	waiting := cap(requests)
	for more := true; more && waiting > 0; {
		select {
		case <-requests:
			waiting--
		default:
			more = j.writeNext()
		}
	}
	for ; waiting > 0; waiting-- {
		<-requests
	}
}

// writeNext writes a series. It reports false if there is none, or no room.
func (j *joint) writeNext() bool {
	for _, h := range j.heres {
		if n := len(h.text.texts); n < h.count() {
			at := h.at
			h.at = n
			ok := j.write(h, h.count()-n)
			h.at = at
			return ok
		}
	}
	return false
}

// write writes the series that h is at, of so many that are left.
func (j *joint) write(h *here, left int) bool {
	x, points := &h.text, h.floatsOf()
	most := len(points)*maxWritten + 1
	if most > parcelBytes {
		return false
	}
	n := len(x.parcels)
	if n == 0 || cap(x.parcels[n-1].text)-len(x.parcels[n-1].text) < most {
		p := j.roomToWrite(int64(most) * int64(left))
		if p == nil {
			return false
		}
		x.parcels = append(x.parcels, p)
		n++
	}
	p := x.parcels[n-1]
	w, from := jsonWriter{buf: p.text}, len(p.text)
	w.floats(points, &h.times) // there is no need to flush
	p.text = w.buf
	x.texts = append(x.texts, p.text[from:])
	return true
}

// roomToWrite is an empty parcel, if there may be another: a shorter one if there
// are fewer bytes to be written.
func (j *joint) roomToWrite(bytes int64) *parcel {
	bytes = min(bytes, parcelBytes)
	u, ctx := j.a.upstream, j.r.Context()
	if j.written+bytes > readAhead || loanOf(ctx).Take(u.recorder.atOnce, bytes) != nil {
		return nil
	}
	j.written += bytes
	if bytes < parcelBytes {
		return &parcel{text: make([]byte, 0, bytes)}
	}
	return u.parcels.get(parcelBytes)
}

// of is the text of a series, if it was written.
func (x *written) of(series int) []byte {
	if series < len(x.texts) {
		return x.texts[series]
	}
	return nil
}

func (x *written) release(to *parcels) {
	for _, p := range x.parcels {
		to.put(p)
	}
	*x = written{}
}
