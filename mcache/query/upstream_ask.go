package query

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// visit is a turn with the store: the requests that are made for one query. All
// of them take one of the slots, so that none waits for another of its own.
type visit struct {
	a    *API
	u    *upstream
	r    *http.Request // of the client
	ctx  context.Context
	stop context.CancelCauseFunc

	told atomic.Bool // the breaker
}

// errLoop is the answer to a query that came from another daemon.
var errLoop = &apiError{errorType{"unavailable", http.StatusLoopDetected},
	errors.New("this query came from another mcached and memory lacks it: queries are passed on once only")}

// errVisitOver ends requests whose answers are not wanted any more, as where
// memory's part of a query is an error. It says nothing of the store.
var errVisitOver = errors.New("the query is over")

// errLoopBehind says that the store is an mcached that lacks it, too. It is well
// nevertheless.
var errLoopBehind = errors.New("it answers with status 508: it is an mcached, and lacks it, too")

// visit waits for a turn. An error says why there is no answer; one that is an
// *apiError must be the answer. The visit must be ended.
func (a *API) visit(r *http.Request) (*visit, error) {
	u := a.upstream
	if r.Header.Get(hopHeader) != "" {
		return nil, errLoop
	}
	if !u.breaker.allows(a.o.Now()) {
		u.skipped.Add(1)
		return nil, errors.New("it failed several times and is not retried yet")
	}
	ctx, stop := context.WithCancelCause(r.Context())
	wait := time.NewTimer(u.opts().Timeout)
	defer wait.Stop()
	select {
	case <-u.slots.free:
		return &visit{a: a, u: u, r: r, ctx: ctx, stop: stop}, nil
	case <-wait.C:
		stop(nil)
		u.breaker.forget()
		u.failed.Add(1)
		return nil, fmt.Errorf("%d requests to it are under way: no answer within %s", u.opts().MaxConcurrency, u.opts().Timeout)
	case <-ctx.Done():
		stop(nil)
		u.breaker.forget()
		u.failed.Add(1)
		return nil, fmt.Errorf("%d requests to it are under way: %w", u.opts().MaxConcurrency, context.Cause(ctx))
	}
}

// end ends the requests that are still under way.
func (v *visit) end() {
	v.tell(nil)
	v.stop(errVisitOver)
	v.u.slots.leave()
}

// tell is the breaker's: the first request of a visit that fails, or else one
// that does not, says how the store is.
func (v *visit) tell(err error) {
	if v.told.Swap(true) {
		return
	}
	switch {
	case err == nil:
		failedBefore, back := v.u.breaker.answered()
		if failedBefore {
			v.u.dialect.forget() // it may be another one now
		}
		if back {
			v.u.sayBack()
		}
	case v.r.Context().Err() != nil, saysNothing(err):
		v.u.breaker.forget()
	default:
		if v.u.breaker.failed(v.a.o.Now()) {
			v.u.sayAway(err)
		}
	}
}

// cannot reports that an error is the word of a store that is well, and cannot do this.
func cannot(err error) bool { return errors.Is(err, errLoopBehind) || errors.Is(err, errNoRead) }

// saysNothing reports that an error says nothing of how the store is: the query is
// over, a limit of this process is exceeded, or the store is well and cannot do this.
func saysNothing(err error) bool {
	return cannot(err) || errors.Is(err, errRawHistograms) || errors.Is(err, errVisitOver) || errors.As(err, new(*apiError)) || errors.As(err, new(refusal))
}

// storeAnswer is what the store says. Its body must be closed.
type storeAnswer struct {
	*http.Response
	u    *upstream
	late *time.Timer
	stop context.CancelCauseFunc
	left int64 // bytes that it may still have

	waited time.Duration // for the part that is being read
	part   int           // bytes of it

	head  []byte // that was read, and not given
	ended bool   // behind it nothing comes
	empty bool   // it is a whole answer to a query, without series
}

// minPart is how much of an answer must come within the time-out, or all that is left.
const minPart = readBytes

// refused reports that the store says that the request is wrong.
func (s *storeAnswer) refused() bool { return s.StatusCode != http.StatusOK }

// errLargeAnswer says that an answer exceeds its bound.
var errLargeAnswer = errors.New("its answer is longer than --query.upstream.max-body-size")

// Read reads the answer, within its bounds of time and size.
func (s *storeAnswer) Read(p []byte) (int, error) {
	if len(s.head) > 0 {
		n := copy(p, s.head)
		s.head = s.head[n:]
		return n, nil
	}
	if s.ended {
		return 0, io.EOF
	}
	return s.readBody(p)
}

func (s *storeAnswer) readBody(p []byte) (int, error) {
	s.late.Reset(s.u.opts().Timeout - s.waited)
	began := time.Now()
	n, err := s.Body.Read(p)
	s.late.Stop() // what takes time from now on is not the store
	s.waited += time.Since(began)
	if s.part += n; s.part >= minPart {
		s.waited, s.part = 0, 0
	}
	s.u.bytes.Add(uint64(n))
	if s.left -= int64(n); s.left < 0 {
		return n, fmt.Errorf("%w=%d", errLargeAnswer, s.u.opts().MaxBodyBytes)
	}
	return n, err
}

// Close ends the request.
func (s *storeAnswer) Close() error {
	s.late.Stop()
	err := s.Body.Close()
	s.stop(nil)
	return err
}

// ask sends a form to a path of the store's API and returns the head of its
// answer: a success, or a refusal of what was asked.
func (v *visit) ask(path string, form url.Values, encoding string) (*storeAnswer, error) {
	return v.exchange(path, func(ctx context.Context) (*http.Response, error) {
		return v.u.send(ctx, v.r, path, form, encoding)
	}, checkAnswer)
}

// exchange sends a request, and checks the head of the answer.
func (v *visit) exchange(path string, send func(context.Context) (*http.Response, error), check func(*http.Response) error) (*storeAnswer, error) {
	began := time.Now()
	ctx, stop := context.WithCancelCause(v.ctx)
	late := time.AfterFunc(v.u.opts().Timeout, func() { stop(fmt.Errorf("no answer within %s", v.u.opts().Timeout)) })
	res, err := send(ctx)
	if err == nil {
		if err = check(res); err != nil {
			res.Body.Close()
		}
	}
	v.u.nanoseconds.Add(uint64(time.Since(began)))
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		late.Stop()
		stop(nil)
		if errors.Is(err, errVisitOver) {
			v.tell(err)
			return nil, err
		}
		if cannot(err) {
			v.u.refused.Add(1)
		} else {
			v.u.failed.Add(1)
		}
		v.tell(err)
		v.a.o.Logger.Debug("The store behind did not answer.", "path", path, "err", err)
		return nil, err
	}
	if res.StatusCode == http.StatusOK {
		v.u.answered.Add(1)
	} else {
		v.u.refused.Add(1)
	}
	late.Stop()
	return &storeAnswer{Response: res, u: v.u, late: late, stop: stop, left: v.u.opts().MaxBodyBytes}, nil
}

// askWhole sends the query of a request to the store unchanged. Without an error the
// visit and what the store says must be ended, see handOn.
func (a *API) askWhole(r *http.Request) (*visit, *storeAnswer, error) {
	v, err := a.visit(r)
	if err != nil {
		return nil, nil, err
	}
	encoding := "identity"
	if acceptsGzip(r) {
		encoding = "gzip"
	}
	res, err := v.ask(r.URL.Path, a.upstream.wholeForm(r), encoding)
	if err == nil {
		err = v.judge(res, res.readJSONHead)
	}
	if err != nil {
		v.end()
		return nil, nil, err
	}
	return v, res, nil
}

// judge reads the beginning of an answer, before any of it is handed on. What is not
// to be handed on is closed.
func (v *visit) judge(res *storeAnswer, head func(context.Context) error) error {
	err := head(v.r.Context())
	if err != nil {
		if cause := context.Cause(v.r.Context()); cause != nil {
			err = cause
		}
		v.u.failed.Add(1)
		res.Close()
	}
	v.tell(err)
	return err
}

// wholeForm is the form of a request, as the store is to read it.
func (u *upstream) wholeForm(r *http.Request) url.Values {
	known := u.dialect.peek()
	if len(known.params) == 0 && !r.Form.Has(whenParam) {
		return r.Form
	}
	form := url.Values{}
	for k, v := range r.Form {
		if k != whenParam {
			form[k] = v
		}
	}
	for k, v := range known.params {
		form[k] = v
	}
	return form
}

// handOn is the store's own answer.
func (a *API) handOn(res *storeAnswer, end func()) answer {
	return answer{
		source: sourceUpstream,
		handOn: func(w http.ResponseWriter) { res.handOn(w) },
		close:  func() { res.Close(); end() },
	}
}

// send sends a form: as the body of a POST, where a path has no other method in the URL.
func (u *upstream) send(ctx context.Context, r *http.Request, path string, form url.Values, encoding string) (*http.Response, error) {
	to := u.opts().URL.JoinPath(path)
	method, body := http.MethodPost, form.Encode()
	if strings.HasSuffix(path, "/values") || strings.HasSuffix(path, "/metadata") {
		method, to.RawQuery, body = http.MethodGet, body, ""
	}
	q, err := http.NewRequestWithContext(ctx, method, to.String(), strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if method == http.MethodPost {
		q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	q.Header.Set("Accept-Encoding", encoding)
	return u.do(q, r)
}

// do sends a request for the client's request r.
func (u *upstream) do(q, r *http.Request) (*http.Response, error) {
	q.Header.Set(hopHeader, "1")
	if h := u.opts().TenancyHeader; h != "" && r.Header.Get(h) != "" {
		q.Header.Set(h, r.Header.Get(h))
	}
	res, err := u.opts().Client.Do(q)
	return res, withoutURL(err)
}

// checkAnswer tells answers of Prometheus' API from those of proxies, login
// pages, and servers that are in trouble.
func checkAnswer(res *http.Response) error {
	kind, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	switch code := res.StatusCode; {
	case code >= 300 && code < 400:
		return fmt.Errorf("it redirects (%d) to %.100q", code, res.Header.Get("Location"))
	case code == http.StatusLoopDetected:
		return errLoopBehind
	case code != http.StatusOK && code != http.StatusBadRequest && code != http.StatusUnprocessableEntity:
		return fmt.Errorf("it answers with status %d", code)
	case err != nil || kind != "application/json" && kind != "application/stream+json": // VictoriaMetrics' form of x[5m]
		return fmt.Errorf("it answers %.100q, not JSON", res.Header.Get("Content-Type"))
	}
	return checkEncoding(res)
}

// handOn sends the store's answer to the client. If it breaks off, so does ours.
func (s *storeAnswer) handOn(w http.ResponseWriter) {
	for _, h := range [...]string{"Content-Type", "Content-Encoding", "Content-Length"} {
		if v := s.Header.Get(h); v != "" {
			w.Header().Set(h, v)
		}
	}
	w.WriteHeader(s.StatusCode)
	control := http.NewResponseController(w)
	buf := make([]byte, 32<<10)
	for {
		n, err := s.Read(buf)
		if errors.Is(err, errLargeAnswer) {
			panic(http.ErrAbortHandler)
		}
		_ = control.SetWriteDeadline(time.Now().Add(s.u.opts().Timeout)) // not every writer has deadlines
		if _, e := w.Write(buf[:n]); e != nil {
			return // the client has gone
		}
		if err == io.EOF {
			_ = finish(w)
			return
		}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	}
}
