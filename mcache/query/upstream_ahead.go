package query

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// Of each answer of the store the beginning is read before anything is sent to the
// client: what is wrong with a short one, and with the head of any, does no harm.

const (
	// readAhead is how much of an answer is read before anything is sent.
	readAhead = 1 << 20
	// maxUnsorted bounds an answer whose series do not come in order.
	maxUnsorted = 64 << 20
)

// receive waits for the heads of the store's answers, and reads ahead.
func (j *joint) receive(requests chan *asked) error {
	for range cap(requests) {
		<-requests
	}
	for _, p := range slices.Concat(j.askeds, j.seams) {
		if p.err != nil {
			return p.err
		}
	}
	if j.refusal() != nil {
		return nil
	}
	for _, p := range slices.Concat(j.askeds, j.seams) {
		if err := j.readAhead(p); err != nil {
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

// readAhead reads the beginning of an answer. If that is all, it is sound.
func (j *joint) readAhead(p *asked) error {
	p.ctx, p.store = j.r.Context(), &j.a.upstream.dialect
	p.ahead.pool = &j.a.upstream.ahead
	limit := int64(readAhead)
	unsorted := p.store.peek().unsorted
	if unsorted {
		limit = maxUnsorted
	}
	loan, lent := loanOf(j.r.Context()), int64(0)
	if err := loan.Take(j.r.Context(), separatorBytes*int64(p.to-p.from)); err != nil {
		return err
	}
	for int64(p.ahead.size) < limit {
		if need := int64(p.ahead.size) + readBytes; need > lent {
			if err := loan.Take(j.r.Context(), max(lent, readBytes)); err != nil {
				return err
			}
			lent += max(lent, readBytes)
		}
		switch err := p.ahead.more(p.res); err {
		case nil:
		case io.EOF:
			return j.check(p, unsorted)
		default:
			return fmt.Errorf("its answer breaks off: %w", err)
		}
	}
	if unsorted {
		return fmt.Errorf("its answer is too long to be sorted: more than %d bytes", limit)
	}
	p.reader = newMatrixReader(io.MultiReader(p.ahead.reader(), p.res), j.d.grid, p.span)
	return nil
}

// ahead is what was read of an answer before its turn: parts of readBytes, of
// which the last may have room.
type ahead struct {
	pool  *sync.Pool // of parts
	parts []*[readBytes]byte
	size  int
}

// more reads a part, or up to the end or an error.
func (x *ahead) more(r io.Reader) error {
	part, _ := x.pool.Get().(*[readBytes]byte)
	if part == nil {
		part = new([readBytes]byte)
	}
	x.parts = append(x.parts, part)
	for n := 0; n < readBytes; {
		got, err := r.Read(part[n:])
		n, x.size = n+got, x.size+got
		if err != nil {
			return err
		}
	}
	return nil
}

// reader reads it, from the beginning.
func (x *ahead) reader() io.Reader { return &aheadReader{of: x} }

type aheadReader struct {
	of *ahead
	at int
}

func (r *aheadReader) Read(b []byte) (int, error) {
	if r.at == r.of.size {
		return 0, io.EOF
	}
	part := r.of.parts[r.at/readBytes]
	n := copy(b, part[r.at%readBytes:min(readBytes, r.at%readBytes+r.of.size-r.at)])
	r.at += n
	return n, nil
}

// release gives the parts back. Nobody may read it any more.
func (x *ahead) release() {
	for _, part := range x.parts {
		poison(part[:])
		x.pool.Put(part)
	}
	x.parts, x.size = nil, 0
}

// check reads an answer that is here as a whole.
func (j *joint) check(p *asked, sorting bool) error {
	p.reader = newMatrixReader(p.ahead.reader(), j.d.grid, p.span)
	last := labels.Labels{}
	for n := 0; ; n++ {
		s, err := p.reader.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if sorting {
			p.list = append(p.list, matrixSeries{s.labels, bytes.Clone(s.floats), bytes.Clone(s.histograms)})
			continue
		}
		if n > 0 && labels.Compare(last, s.labels) >= 0 {
			p.store.disorder()
			return errUnsorted
		}
		last = s.labels
	}
	if sorting {
		slices.SortFunc(p.list, func(a, b matrixSeries) int { return labels.Compare(a.labels, b.labels) })
		return nil
	}
	p.reader = newMatrixReader(p.ahead.reader(), j.d.grid, p.span)
	return nil
}

// errUnsorted is of answers that can be handed on, but not joined.
var errUnsorted error = &wholeError{errors.New("its series are not in the order of their labels")}
