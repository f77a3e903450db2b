package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/golang/snappy"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

func writeCommand(app *kingpin.Application) (string, action) {
	c := app.Command("write", "Write a load, and report what it cost the server.")
	to := c.Flag("url", "The receiver.").Default("http://127.0.0.1:9201/api/v1/write").String()
	api := c.Flag("api-url", "The HTTP API that --check reads from. Default: /api/v1 of the receiver's host.").String()
	pid := c.Flag("pid", "The server's process, for its CPU time and memory.").Int()
	version := c.Flag("protocol", "Version of remote write.").Default("1").Enum("1", "2")
	sending := sendFlags(c)
	rate := c.Flag("rate", "Samples a second over all connections, behind the first of each series. Default: as fast as it goes.").Float64()
	header := headerFlag(c, "'Name: value' to send with each request.")
	check := c.Flag("check", "Read all samples back and compare.").Bool()
	churn := c.Flag("churn", "Percent of the targets that new ones take the place of in each minute of the load's time.").Default("0").Float64()
	noWrite := c.Flag("no-write", "Only check; give the --start of when it was written.").Bool()
	report := jsonFlag(c)
	data := loadFlags(c)
	return c.FullCommand(), func(ctx context.Context, out io.Writer) error {
		l, err := data()
		if err != nil {
			return err
		}
		h, err := header()
		if err != nil {
			return err
		}
		base, err := apiURL(*to, *api)
		if err != nil {
			return err
		}
		w, err := sending()
		if err != nil {
			return err
		}
		if l.churnPct = *churn; l.churnPct < 0 || l.churnPct > 100 || l.churnPct > 0 && *check {
			return usageError{fmt.Errorf("--churn must be from 0 to 100, and 0 with --check, got %v", l.churnPct)}
		}
		r := writeReport{Series: l.series, SamplesPerSeries: l.samples, Protocol: *version, StartMs: l.startMs}
		if !*noWrite {
			w.load, w.url, w.protocol, w.rate, w.header = l, *to, protocolOf(*version), *rate, h
			w.creates = *rate > 0
			if err := r.write(ctx, &w, process{"/proc", *pid}); err != nil {
				return err
			}
		}
		if *check {
			k := checker{load: l, url: base, http: &http.Client{Timeout: 2 * time.Minute}, header: h}
			if r.Check, err = k.run(ctx); err != nil {
				return err
			}
			r.Checked = true
		}
		if err := report(out, &r, r.print); err != nil {
			return err
		}
		if r.Checked && !r.Check.ok() {
			return fmt.Errorf("what came back is not what was written: %s", r.Check.first)
		}
		return nil
	}
}

// writer sends a load.
type writer struct {
	load        load
	url         string
	urls        []string // of several servers, to which connections go in turn; nil: only url
	protocol    wire.Protocol
	perRequest  int     // samples
	connections int     // each with series of its own
	rate        float64 // samples/s over all connections; 0: as fast as it goes
	creates     bool    // the first round, of new series, goes as fast as it can in any case, and is in no time of a request
	header      http.Header
}

// written is what a writer did.
type written struct {
	samples, requests, retries int
	bodyBytes                  int64
	elapsed                    time.Duration
	latencies                  []time.Duration // of requests from when they were sent to their answers, sorted
	delays                     []time.Duration // with a rate: the same from when they were due, sorted
}

// run sends everything, and returns when all of it has been acknowledged.
func (w *writer) run(ctx context.Context) (written, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	parts := make([]written, w.connections)
	errs := make([]error, w.connections)
	var wg sync.WaitGroup
	began, line := time.Now(), startLine{all: make(chan struct{})}
	line.missing.Store(int32(w.connections))
	for c := range parts {
		wg.Go(func() {
			if errs[c] = w.connection(ctx, c, &line, &parts[c]); errs[c] != nil {
				cancel() // of no use to the others, either
			}
		})
	}
	wg.Wait()
	total := written{elapsed: time.Since(began)}
	for _, p := range parts {
		total.samples += p.samples
		total.requests += p.requests
		total.retries += p.retries
		total.bodyBytes += p.bodyBytes
		total.latencies = append(total.latencies, p.latencies...)
		total.delays = append(total.delays, p.delays...)
	}
	slices.Sort(total.latencies)
	slices.Sort(total.delays)
	return total, errors.Join(errs...)
}

// urlOf is where a connection sends to.
func (w *writer) urlOf(connection int) string {
	if len(w.urls) == 0 {
		return w.url
	}
	return w.urls[connection%len(w.urls)]
}

// lateSample waits for its round.
type lateSample struct {
	series int
	mcache.Sample
}

// startLine is where connections wait for one another.
type startLine struct {
	missing atomic.Int32
	all     chan struct{} // closed when none is missing
}

func (l *startLine) wait(ctx context.Context) error {
	if l.missing.Add(-1) == 0 {
		close(l.all)
	}
	select {
	case <-l.all:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// connection sends the series whose request is c modulo connections, round by
// round. A round is one sample of each series, as a scrape is.
func (w *writer) connection(ctx context.Context, c int, line *startLine, out *written) error {
	s := sender{w: w, url: w.urlOf(c), out: out, bodies: newBodies(&w.load, w.protocol, maxFrameBytes/w.connections), server: asker{timeout: time.Minute}}
	defer s.server.close()
	var mine []values // of my series, in the order below
	l := &w.load
	each := func(f func(n, at int)) {
		at := 0
		for first := c * w.perRequest; first < l.series; first += w.connections * w.perRequest {
			for n := first; n < min(first+w.perRequest, l.series); n++ {
				f(n, at)
				at++
			}
		}
	}
	each(func(n, _ int) { mine = append(mine, l.values(n)) })
	creating := 0 // rounds
	if w.creates {
		creating = 1
	}
	var waiting [maxLateRounds + 1][]lateSample
	for i := range l.samples + maxLateRounds {
		if i == creating {
			if err := line.wait(ctx); err != nil {
				return err
			}
			s.paced(c)
		}
		each(func(n, at int) {
			if i >= l.samples || s.err != nil {
				return
			}
			x := lateSample{n, mcache.Sample{T: l.time(n, i), V: bits(mine[at].value())}}
			if late := l.late(n, i); late > 0 {
				slot := &waiting[(i+late)%len(waiting)]
				*slot = append(*slot, x)
				return
			}
			s.add(ctx, x)
		})
		due := &waiting[i%len(waiting)]
		for _, x := range *due {
			s.add(ctx, x)
		}
		*due = (*due)[:0]
		s.flush(ctx)
		if s.err != nil {
			return s.err
		}
	}
	return nil
}

// takes is the time in which so many samples are due, over all connections.
func (w *writer) takes(samples int) time.Duration {
	return time.Duration(float64(samples) / w.rate * float64(time.Second))
}

// sender collects samples into requests of one connection.
type sender struct {
	w      *writer
	url    string
	out    *written
	server asker
	due    time.Time // of the next request; zero while there is no pace
	bodies *bodies
	err    error // the first; nothing is sent after it

	samples       []lateSample // of the next request
	plain, packed []byte
}

// paced begins the pace of a connection, and forgets how long requests before took.
// Requests of all connections are due evenly, one behind the other.
func (s *sender) paced(connection int) {
	s.out.latencies = s.out.latencies[:0]
	if s.w.rate > 0 {
		s.due = time.Now().Add(s.w.takes(connection * s.w.perRequest))
	}
}

func (s *sender) add(ctx context.Context, x lateSample) {
	if s.samples = append(s.samples, x); len(s.samples) == s.w.perRequest {
		s.flush(ctx)
	}
}

// flush sends what was collected.
func (s *sender) flush(ctx context.Context) {
	if len(s.samples) == 0 || s.err != nil {
		return
	}
	if s.plain, s.err = s.bodies.append(s.plain[:0], s.samples); s.err != nil {
		return
	}
	s.packed = snappy.Encode(s.packed[:cap(s.packed)], s.plain)
	s.err = s.post(ctx, len(s.samples))
	s.samples = s.samples[:0]
}

// maxRetries of one request that is answered 5xx or 429.
const maxRetries = 50

// post sends packed until it is taken, with a rate not before it is due. It was made
// before that.
func (s *sender) post(ctx context.Context, samples int) error {
	due := s.due
	if !due.IsZero() {
		if err := sleep(ctx, time.Until(due)); err != nil {
			return err
		}
		s.due = due.Add(s.w.takes(samples * s.w.connections))
	}
	for try := 0; ; try++ {
		began := time.Now()
		status, retryAfter, text, err := s.once(ctx, samples)
		if err != nil {
			return err
		}
		switch {
		case status/100 == 2:
			s.out.latencies = append(s.out.latencies, time.Since(began))
			if !due.IsZero() {
				s.out.delays = append(s.out.delays, time.Since(due))
			}
			s.out.samples += samples
			s.out.requests++
			s.out.bodyBytes += int64(len(s.packed))
			return nil
		case (status/100 == 5 || status == http.StatusTooManyRequests) && try < maxRetries:
			s.out.retries++
			if err := sleep(ctx, max(retryAfter, 100*time.Millisecond)); err != nil {
				return err
			}
		default:
			return fmt.Errorf("request %d of %d samples, try %d: %d %s", s.out.requests+1, samples, try+1, status, text)
		}
	}
}

func (s *sender) once(ctx context.Context, samples int) (status int, retryAfter time.Duration, text string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(s.packed))
	if err != nil {
		return 0, 0, "", err
	}
	wire.SetHeaders(req.Header, s.w.protocol)
	for k, v := range s.w.header {
		req.Header[k] = v
	}
	got, err := s.server.do(ctx, req)
	if err != nil {
		return 0, 0, "", err
	}
	if seconds, err := strconv.Atoi(got.header.Get("Retry-After")); err == nil {
		retryAfter = time.Duration(seconds) * time.Second
	}
	status, text = got.status, strings.TrimSpace(string(got.body))
	if s.w.protocol == wire.V2 && status/100 == 2 {
		// A server that answers 204 to what it does not understand has no such header.
		if n, err := strconv.Atoi(got.header.Get("X-Prometheus-Remote-Write-Samples-Written")); err != nil || n != samples {
			return 400, 0, fmt.Sprintf("answered %d, but with %q of %d samples written",
				status, got.header.Get("X-Prometheus-Remote-Write-Samples-Written"), samples), nil
		}
	}
	return status, retryAfter, text, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
