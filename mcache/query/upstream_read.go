package query

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
)

// A remote read of a time that memory does not have all of is handed on to the
// store as a whole, if it has remote read. If it has none, its samples come by a
// query, see upstream_raw.go, as do those of a selector of which memory has no
// series at all. If it does not answer, the answer is what memory has, with the
// header that says from when on that is complete: the protocol has no warnings.

// readBehind answers a remote read from the store, if it should and can. Else it
// says what is to be read; nil if that is memory.
func (a *API) readBehind(w http.ResponseWriter, r *http.Request, request *prompb.ReadRequest) (from Source, done bool) {
	u := a.upstream
	if u == nil {
		return nil, false
	}
	when, err := u.when(r.URL.Query().Get(whenParam))
	if err != nil {
		a.readError(w, asAPIError(err))
		return nil, true
	}
	w.Header().Set(sourceHeader, sourceMemory)
	if when == WhenNever {
		return nil, false
	}
	both := &behind{Source: a.sourceOf(a.bucket(r)), a: a, r: r, h: w.Header(), always: when == WhenAlways}
	if both.lacking = both.always || a.lacksAnyOf(r, request); !both.lacking {
		return both, false
	}
	if known := u.dialect.peek(); known.readless {
		return both, false
	}
	err = a.handOnRead(w, r, request)
	switch loop := new(apiError); {
	case err == nil:
		return nil, true
	case errors.As(err, &loop):
		a.readError(w, loop)
		return nil, true
	case errors.Is(err, errReadRefused):
		return both, false
	case errors.Is(err, errNoRead):
		u.dialect.noRead()
		return both, false
	}
	a.o.Logger.Debug("A remote read is answered from memory, as the store behind does not answer.", "err", err)
	return nil, false
}

// lacksAnyOf reports that memory does not have all of the time of a remote read.
func (a *API) lacksAnyOf(r *http.Request, request *prompb.ReadRequest) bool {
	from, to := int64(math.MaxInt64), int64(math.MinInt64)
	for _, q := range request.Queries {
		from, to = min(from, q.StartTimestampMs), max(to, q.EndTimestampMs)
	}
	return from <= to && a.lacksTime(a.bucket(r), from, to)
}

// handOnRead asks the store the same, and hands its answer on. There is an error
// only as long as nothing has been sent.
func (a *API) handOnRead(w http.ResponseWriter, r *http.Request, request *prompb.ReadRequest) error {
	raw, err := request.Marshal()
	if err != nil {
		return err
	}
	v, err := a.visit(r)
	if err != nil {
		return err
	}
	defer v.end()
	send := func(ctx context.Context) (*http.Response, error) {
		q, err := http.NewRequestWithContext(ctx, http.MethodPost, a.upstream.opts().URL.JoinPath("/api/v1/read").String(), bytes.NewReader(snappy.Encode(nil, raw)))
		if err != nil {
			return nil, err
		}
		q.Header.Set("Content-Type", "application/x-protobuf")
		q.Header.Set("Content-Encoding", "snappy")
		q.Header.Set("X-Prometheus-Remote-Read-Version", "0.1.0")
		return a.upstream.do(q, r)
	}
	res, err := v.exchange("/api/v1/read", send, checkRead)
	if err != nil {
		return err
	}
	if err := v.judge(res, res.readHead); err != nil {
		return err
	}
	defer res.Close()
	w.Header().Set(sourceHeader, sourceUpstream)
	res.handOn(w)
	return nil
}

// checkRead tells answers to remote reads from those of what has none.
func checkRead(res *http.Response) error {
	switch kind := res.Header.Get("Content-Type"); {
	case res.StatusCode == http.StatusLoopDetected:
		return errLoopBehind
	case slices.Contains(refusedRead, res.StatusCode):
		return fmt.Errorf("%w: it answers with status %d", errReadRefused, res.StatusCode)
	case slices.Contains(noSuchRead, res.StatusCode):
		return fmt.Errorf("%w: it answers with status %d", errNoRead, res.StatusCode)
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("it answers with status %d", res.StatusCode)
	case !strings.HasPrefix(kind, "application/x-protobuf") && !strings.HasPrefix(kind, "application/x-streamed-protobuf"):
		return fmt.Errorf("%w: it answers %.100q, not what one has", errNoRead, kind)
	}
	return nil
}

// How servers say that they have no remote read, or none for this request.
var (
	noSuchRead  = []int{http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented}
	refusedRead = []int{http.StatusBadRequest, http.StatusNotAcceptable, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity}
)

// errNoRead is of a store that has no remote read, which is no reason not to ask
// it for anything else; errReadRefused of one that may have it.
var (
	errNoRead      = errors.New("the store has no remote read")
	errReadRefused = fmt.Errorf("%w for this", errNoRead)
)
