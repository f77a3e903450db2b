package query

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/util/annotations"
)

// An answer is what an endpoint has to say.
type answer struct {
	// data writes the JSON. It may be called twice, and not at all once the
	// client has gone. Nil means that there is no content.
	data func(*jsonWriter)
	// maxBytes is at least what data writes, or 0 if that is sure to be small.
	maxBytes int64
	// notes are warnings and remarks; positions in them refer to query.
	notes annotations.Annotations
	query string
	// read is what was read, which knows what was missing; it may be nil.
	read *Queryable
	// ran is the query that was run for it; it may be nil. close closes it.
	ran *computed
	// close releases what data refers to; it may be nil.
	close func()
	// unite adds what another server notes to warnings and infos, once data was
	// written; it may be nil.
	unite func(warnings, infos []string) (_, _ []string)
	// handOn answers instead of data: with what another server says.
	handOn func(http.ResponseWriter)
	// source says where the answer is from, if there is a store behind.
	source string
}

type endpoint func(r *http.Request) (answer, error)

func (a *API) routes() *http.ServeMux {
	mux := http.NewServeMux()
	handle := func(path string, e endpoint, methods ...string) {
		h := a.handler(e)
		for _, method := range methods {
			mux.Handle(method+" /api/v1/"+path, h)
		}
	}
	const get, post = http.MethodGet, http.MethodPost
	handle("query", a.query, get, post)
	handle("query_range", a.queryRange, get, post)
	handle("query_exemplars", a.queryExemplars, get, post)
	handle("format_query", a.formatQuery, get, post)
	handle("parse_query", a.parseQuery, get, post)
	handle("series", a.series, get, post)
	handle("labels", a.labelNames, get, post)
	handle("label/{name}/values", a.labelValues, get)
	handle("metadata", a.metadata, get)
	handle("status/buildinfo", a.buildInfo, get)
	handle("status/config", a.config, get)
	handle("status/flags", a.flags, get)
	handle("status/runtimeinfo", a.runtimeInfo, get)
	handle("status/tsdb", a.tsdbStatus, get)
	handle("status/walreplay", constant(`{"min":0,"max":0,"current":0}`), get)
	handle("rules", constant(`{"groups":[]}`), get)
	handle("alerts", constant(`{"alerts":[]}`), get)
	handle("alertmanagers", constant(`{"activeAlertmanagers":[],"droppedAlertmanagers":[]}`), get)
	handle("scrape_pools", constant(`{"scrapePools":[]}`), get)
	handle("targets", constant(`{"activeTargets":[],"droppedTargets":[],"droppedTargetCounts":{}}`), get)
	handle("targets/metadata", constant(`[]`), get)
	mux.HandleFunc("POST /api/v1/read", a.remoteRead)
	mux.HandleFunc("GET /federate", a.federate)
	if a.o.FanOut != nil {
		mux.HandleFunc("POST "+AskPath, a.serveAsk)
	}
	return mux
}

// constant answers for what Prometheus has and a cache has not.
func constant(json string) endpoint {
	return func(*http.Request) (answer, error) {
		return answer{data: func(w *jsonWriter) { w.raw(json) }}, nil
	}
}

// ServeHTTP answers a request whose path begins with /api/v1/, or is /federate.
// The request's loan ends with it.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.setCORS(w, r)
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if err := a.checkTenants(r); err != nil {
		a.respondError(w, badData(err))
		return
	}
	if a.o.Admission != nil {
		l := a.o.Admission()
		defer l.Release()
		if err := l.Take(r.Context(), answerBytes); err != nil {
			a.respondError(w, asAPIError(err))
			return
		}
		r = r.WithContext(context.WithValue(r.Context(), loanKey{}, l))
	}
	a.mux.ServeHTTP(w, r)
}

func (a *API) setCORS(w http.ResponseWriter, r *http.Request) {
	if a.o.CORSOrigin == nil {
		return
	}
	h := w.Header()
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if origin == "" {
		return
	}
	h.Set("Access-Control-Allow-Headers", "Accept, Authorization, Content-Type, Origin")
	h.Set("Access-Control-Allow-Methods", "GET, POST, OPTIONS")
	h.Set("Access-Control-Expose-Headers", "Date, "+completeFromHeader+", "+sourceHeader)
	if loc := a.o.CORSOrigin.FindStringIndex(origin); loc != nil && loc[1]-loc[0] == len(origin) {
		h.Set("Access-Control-Allow-Origin", origin)
	}
}

// handler reads the parameters, runs e and writes its answer.
func (a *API) handler(e endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var got answer
		err := a.parseForm(w, r)
		if err == nil {
			got, err = e(r)
		}
		if got.close != nil {
			defer got.close()
		}
		if got.source != "" {
			w.Header().Set(sourceHeader, got.source)
		}
		if err == nil && got.data != nil {
			err = a.admit(w, r, &got)
		}
		switch {
		case err != nil:
			a.respondError(w, asAPIError(err))
		case got.handOn != nil:
			got.handOn(w)
		case got.data == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			out := a.open(w, r, &got)
			out.json.raw(`{"status":"success","data":`)
			got.data(&out.json)
			out.finish(r, &got)
		}
	})
}

// maxURLBytes bounds the parameters in a URL. A server's bound for the head of
// a request is often lower.
const maxURLBytes = 256 << 10

// parseForm reads all parameters, within the bounds. An error that is not of the
// loan is bad data.
func (a *API) parseForm(w http.ResponseWriter, r *http.Request) error {
	most := a.limits.Load().maxQueryBytes
	if n, most := len(r.URL.RawQuery), min(maxURLBytes, most); n > most {
		return badData(fmt.Errorf("parameters in the URL are too large: %d bytes, at most %d; send them in the body of a POST", n, most))
	}
	if n := r.ContentLength; n > int64(most) {
		return a.errLargeBody(most, fmt.Sprintf("%d bytes", n))
	}
	r.Body = lentBody{http.MaxBytesReader(w, r.Body, int64(most)), r.Context()}
	err := parseParameters(r, int64(most))
	switch tooLarge := new(http.MaxBytesError); {
	case err == nil, errors.As(err, new(refusal)):
		return err
	case errors.As(err, &tooLarge):
		return a.errLargeBody(most, "more")
	default:
		return badData(fmt.Errorf("error parsing form values: %w", err))
	}
}

func parseParameters(r *http.Request, maxBytes int64) error {
	if err := r.ParseForm(); err != nil {
		return err
	}
	if err := r.ParseMultipartForm(maxBytes); !errors.Is(err, http.ErrNotMultipart) {
		return err
	}
	return nil
}

func (a *API) errLargeBody(most int, came string) error {
	return badData(fmt.Errorf("parameters in the body are too large: at most %d bytes (%s), came %s", most, a.o.MaxQueryFlag, came))
}

// completeFromHeader says from when on the samples in an answer are complete.
// It is absent when nothing is known to be missing.
const completeFromHeader = "X-Mcached-Complete-From"

// noteMissing tells of samples that could not be read, in all three ways.
func (a *API) noteMissing(h http.Header, read *Queryable) (note error) {
	ms, ok := read.CompleteFrom()
	if !ok {
		return nil
	}
	text := time.UnixMilli(ms).UTC().Format(time.RFC3339Nano)
	h.Set(completeFromHeader, text)
	if read.missingReason() == reasonUncovered {
		a.counts.uncovered.Add(1)
		return fmt.Errorf("samples before %s may be missing: until then this server was down, or had not been written to", text)
	}
	a.counts.incomplete.Add(1)
	return fmt.Errorf("samples before %s may be missing: they were evicted, or the memory they were in was given back", text)
}

// annotations as Prometheus lists them: ten of each kind at most.
const maxNotes = 10

// admit does what an answer must pass before the first byte of it: notes what is
// missing, and sees to its size and to room for its buffer.
func (a *API) admit(w http.ResponseWriter, r *http.Request, result *answer) error {
	if result.read != nil {
		a.counts.series.Add(uint64(result.read.selected.Load()))
		if note := a.noteMissing(w.Header(), result.read); note != nil {
			result.notes.Add(note)
		}
		for _, note := range result.read.warnings() {
			result.notes.Add(note)
		}
	}
	if err := a.checkSize(result); err != nil {
		return err
	}
	return loanOf(r.Context()).Take(r.Context(), bufferBytes)
}

// A jsonReply is the JSON of an answer on its way to the client.
type jsonReply struct {
	sender
	json jsonWriter
	buf  *[]byte // the API's, which json began with
}

// open begins the reply to a request of which the answer was admitted.
func (a *API) open(w http.ResponseWriter, r *http.Request, result *answer) *jsonReply {
	out := &jsonReply{sender: sender{api: a, w: w, gzip: a.compresses(r)}, buf: a.buffer()}
	// Without room for a compressor it goes out as it is.
	out.gzip = out.gzip && (result.maxBytes < minGzipBytes || loanOf(r.Context()).Take(r.Context(), gzipBytes) == nil)
	out.json = jsonWriter{buf: *out.buf, flush: out.part}
	return out
}

// finish sends what remains when the data was written: warnings and the end.
func (out *jsonReply) finish(r *http.Request, result *answer) {
	jw, log := &out.json, out.api.o.Logger
	if errors.As(jw.err, new(*brokenOff)) {
		// Half of an answer must not pass for a whole one.
		log.Debug("an answer broke off", "path", r.URL.Path, "bytes", out.bytes, "err", jw.err)
		panic(http.ErrAbortHandler)
	}
	warnings, infos := result.notes.AsStrings(result.query, maxNotes, maxNotes)
	if result.unite != nil {
		warnings, infos = result.unite(warnings, infos)
	}
	if len(warnings) > 0 {
		jw.raw(`,"warnings":`)
		jw.strings(warnings)
	}
	if len(infos) > 0 {
		jw.raw(`,"infos":`)
		jw.strings(infos)
	}
	jw.raw(`}`)
	if jw.err == nil {
		jw.err = out.last(jw.buf)
	}
	out.api.counts.bytes.Add(uint64(out.bytes))
	out.api.release(out.buf, jw.buf)
	if jw.err != nil {
		log.Debug("answer was not taken", "path", r.URL.Path, "bytes", out.bytes, "err", jw.err)
	}
}

// checkSize writes an answer that may be too large once to nowhere, before any
// of it has been sent: later, an error could only be told by breaking off.
func (a *API) checkSize(result *answer) error {
	if result.maxBytes <= a.o.MaxResponseBytes {
		return nil
	}
	var n int64
	limit := a.o.MaxResponseBytes
	errFull := fmt.Errorf("the answer is too large: more than %d bytes", limit)
	count := jsonWriter{flush: func(b []byte) error {
		if n += int64(len(b)); n > limit {
			return errFull
		}
		return nil
	}}
	result.data(&count)
	if count.err == nil {
		count.err = count.flush(count.buf)
	}
	if count.err != nil {
		return &apiError{errorExec, count.err}
	}
	return nil
}

func (a *API) respondError(w http.ResponseWriter, e *apiError) {
	a.counts.errors.Add(1)
	jw := jsonWriter{}
	jw.raw(`{"status":"error","errorType":`)
	jw.escaped(e.typ.name)
	jw.raw(`,"error":`)
	jw.escaped(e.err.Error())
	jw.raw(`}`)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(jw.buf)))
	setRetryAfter(h, e)
	w.WriteHeader(e.typ.status)
	if _, err := w.Write(jw.buf); err != nil {
		a.o.Logger.Debug("error was not taken", "err", err)
	}
}

// sender hands the parts of an answer to the client.
type sender struct {
	api   *API
	w     http.ResponseWriter
	gzip  bool
	zip   Gzip // once the first part has been sent, if gzip is set
	begun bool
	bytes int64 // before compression

	contentType string // "": JSON
}

func (s *sender) begin() {
	s.begun = true
	h := s.w.Header()
	h.Set("Content-Type", cmp.Or(s.contentType, "application/json"))
	h.Add("Vary", "Accept-Encoding")
	if !s.gzip {
		return
	}
	h.Set("Content-Encoding", "gzip")
	if s.zip, _ = s.api.gzips.Get().(Gzip); s.zip == nil {
		s.zip = s.api.o.Gzip()
	}
	s.zip.Reset(s.w)
}

func (s *sender) part(b []byte) error {
	s.deadline(time.Now().Add(s.api.o.Timeout))
	return s.write(b)
}

func (s *sender) write(b []byte) error {
	if !s.begun {
		s.begin()
	}
	s.bytes += int64(len(b))
	if s.zip != nil {
		_, err := s.zip.Write(b)
		return err
	}
	_, err := s.w.Write(b)
	return err
}

// deadline says how long the client may take for the next part. Not every
// writer has deadlines; then it is the server's to end a client that stalls.
func (s *sender) deadline(t time.Time) {
	_ = http.NewResponseController(s.w).SetWriteDeadline(t)
}

func (s *sender) last(b []byte) error {
	whole := !s.begun
	if whole {
		s.gzip = s.gzip && len(b) >= minGzipBytes
		if !s.gzip {
			s.w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		}
	}
	err := s.write(b)
	if e := s.closeGzip(); err == nil {
		err = e
	}
	if !whole && err == nil {
		err = finish(s.w)
	}
	return err
}

func (s *sender) closeGzip() error {
	if s.zip == nil {
		return nil
	}
	err := s.zip.Close()
	s.api.gzips.Put(s.zip)
	s.zip = nil
	return err
}

// end ends an answer of which all parts have been sent.
func (s *sender) end() error {
	if !s.begun {
		s.gzip = false
		s.begin()
	}
	if err := s.closeGzip(); err != nil {
		return err
	}
	return finish(s.w)
}

// finish sees to it that all of an answer has gone out under its deadline, and
// lifts that: what follows on the connection must not inherit it.
func finish(w http.ResponseWriter) error {
	c := http.NewResponseController(w)
	if err := c.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	_ = c.SetWriteDeadline(time.Time{})
	return nil
}

// A buffer has room for what is written between two looks at its size: a
// block of points or a label.
const bufferBytes = flushBytes + 4<<10

func (a *API) buffer() *[]byte {
	if b, ok := a.buffers.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, 0, bufferBytes)
	return &b
}

// release takes back a buffer that has become grown. One that a huge label made
// large is left to the collector.
func (a *API) release(b *[]byte, grown []byte) {
	poison(grown)
	if cap(grown) > 4*bufferBytes {
		return
	}
	*b = grown[:0]
	a.buffers.Put(b)
}
