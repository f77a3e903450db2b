package query

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// readingOf begins to read an answer of 1,000 steps, for a client that has a loan of p.
func readingOf(t *testing.T, p *purse, answer io.Reader) *asked {
	t.Helper()
	a, _, _ := remembering(t)
	loan := p.open()
	at := &asked{span: span{from: 0, to: 1000}, ctx: context.WithValue(t.Context(), loanKey{}, loan)}
	at.reader = newMatrixReader(answer, gridOf{t0, 15_000, 1000}, at.span)
	at.begin(a.upstream)
	t.Cleanup(func() { at.reading.end(); loan.Release() })
	return at
}

// readAll takes parcels up to the end, some at a time.
func readAll(at *asked, some int) (all int, err error) {
	for {
		var held []*parcel
		for len(held) < some {
			b, err := at.reading.next(at.ctx)
			if b == nil {
				return all, err
			}
			held = append(held, b)
		}
		for all += some; len(held) > 0; held = held[1:] {
			at.done(held[0])
		}
	}
}

const (
	matrixBegins = `{"status":"success","data":{"resultType":"matrix","result":[`
	matrixEnds   = `]}}`
)

// seriesText is some series of 500 points each.
func seriesText(series int) string {
	var text []byte
	for i := range series {
		text = fmt.Appendf(text, `{"metric":{"i":"%05d"},"values":[`, i)
		for step := range int64(500) {
			text = append(appendTime(append(text, '['), t0+15_000*step), `,"1"],`...)
		}
		text = append(text[:len(text)-1], `]},`...)
	}
	return string(text[:len(text)-1])
}

// TestReadingGivesBack: what parcels took of the loan serves those after them,
// however many the client holds at a time.
func TestReadingGivesBack(t *testing.T) {
	p := &purse{limit: 1 << 30}
	const some = 20
	n, err := readAll(readingOf(t, p, strings.NewReader(matrixBegins+seriesText(2000)+matrixEnds)), some)
	if _, most := p.read(); err != nil || n < 10*some || most > 2*some*parcelBytes {
		t.Errorf("%v, %d parcels took %d bytes", err, n, most)
	}
}

// TestReadingTakesWhatItHolds: of what there is no room for no more is read than
// there is room for, be it one series.
func TestReadingTakesWhatItHolds(t *testing.T) {
	const room = 4 << 20
	p := &purse{limit: room}
	var head strings.Builder
	head.WriteString(matrixBegins + `{"metric":{},"histograms":[`)
	for step := range int64(1000) {
		fmt.Fprintf(&head, `[%s,{"buckets":["%s"]}],`, appendTime(nil, t0+15_000*step), strings.Repeat("1", 100<<10))
	}
	from := strings.NewReader(head.String())
	_, err := readAll(readingOf(t, p, from), 1)
	if read := from.Size() - int64(from.Len()); !errors.As(err, new(noRoom)) || read > 3*room {
		t.Errorf("%v, after %d bytes", err, read)
	}
}

// TestNotesAreReadToTheEnd: the notes of an answer are its reader's until it has
// come to its end.
func TestNotesAreReadToTheEnd(t *testing.T) {
	from, store := io.Pipe()
	taken := make(chan struct{})
	go func() {
		_, _ = io.WriteString(store, `{"warnings":["w"],`+matrixBegins[1:]+seriesText(20))
		<-taken
		_, _ = io.WriteString(store, matrixEnds)
		store.Close()
	}()
	at := readingOf(t, &purse{limit: 1 << 20}, from)
	more, err := at.nextParcel()
	if warnings, _ := at.notes(); !more || err != nil || warnings != nil {
		t.Errorf("%v, %v, %q while it is read", more, err, warnings)
	}
	for close(taken); more && err == nil; {
		more, err = at.nextParcel()
	}
	if warnings, _ := at.notes(); err != nil || len(warnings) != 1 {
		t.Errorf("%v, %q at the end", err, warnings)
	}
}
