package query

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
)

// A remote read of a time that memory does not have all of is handed on to the
// store as a whole, if it has remote read. If it does not answer, or has none,
// the answer is what memory has, with the header that says from when on that is
// complete: the protocol has no warnings.

// readBehind answers a remote read from the store, if it should and can.
func (a *API) readBehind(w http.ResponseWriter, r *http.Request, request *prompb.ReadRequest) (done bool) {
	u := a.upstream
	if u == nil {
		return false
	}
	when, err := u.when(r.URL.Query().Get(whenParam))
	if err != nil {
		a.readError(w, asAPIError(err))
		return true
	}
	from, to := int64(math.MaxInt64), int64(math.MinInt64)
	for _, q := range request.Queries {
		from, to = min(from, q.StartTimestampMs), max(to, q.EndTimestampMs)
	}
	if when == WhenNever || when == WhenMissing && (from > to || !a.lacksTime(a.bucket(r), from, to)) {
		w.Header().Set(sourceHeader, sourceMemory)
		return false
	}
	err = a.handOnRead(w, r, request)
	if loop := new(apiError); errors.As(err, &loop) {
		a.readError(w, loop)
		return true
	}
	if err != nil {
		a.o.Logger.Debug("A remote read is answered from memory, as the store behind does not answer.", "err", err)
		w.Header().Set(sourceHeader, sourceMemory)
	}
	return err == nil
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
	v.tell(nil)
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
	case res.StatusCode/100 == 4, res.StatusCode == http.StatusNotImplemented:
		return fmt.Errorf("%w: it answers with status %d", errNoRead, res.StatusCode)
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("it answers with status %d", res.StatusCode)
	case !strings.HasPrefix(kind, "application/x-protobuf") && !strings.HasPrefix(kind, "application/x-streamed-protobuf"):
		return fmt.Errorf("%w: it answers %.100q, not what one has", errNoRead, kind)
	}
	return nil
}

// errNoRead is of a store that has no remote read, which is no reason not to ask
// it for anything else.
var errNoRead = errors.New("the store has no remote read")
