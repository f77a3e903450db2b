package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/golang/snappy"

	"mcached/remotewrite/wire"
)

// forwardCommand measures what forwarding costs the cache: it writes the same
// load to an mcached that forwards and to one that does not, in turns.
func forwardCommand(app *kingpin.Application) (string, action) {
	c := app.Command("forward", "Write the same load to an mcached that forwards and to one that does not, in turns, and compare their processor time.")
	binary := mcachedFlag(c)
	f := forwarding{}
	c.Flag("turns", "How often each is measured; the medians are compared.").Default("7").IntVar(&f.turns)
	c.Flag("max-dirty-age", "The daemon's --forward.max-dirty-age. Runs are as long as what comes in that time.").Default("6s").DurationVar(&f.age)
	c.Flag("receiver", "Who gets what is forwarded: another mcached, or a server that reads and discards it, so that two daemons do not compete for the caches of one processor.").Default("mcached").EnumVar(&f.receiver, "mcached", "discard")
	c.Flag("flag", "Another flag for the daemon. Repeatable.").StringsVar(&f.flags)
	c.Flag("per-request", "Samples in a request of the load.").Default("2000").IntVar(&f.perRequest)
	c.Flag("rate", "Samples a second over both connections. Default: as fast as it goes.").Float64Var(&f.rate)
	protocol := c.Flag("protocol", "Version of remote write that the load comes by.").Default("2").Enum("1", "2")
	data := loadFlags(c)
	return c.FullCommand(), func(ctx context.Context, out io.Writer) (err error) {
		if f.load, err = data(); err != nil {
			return err
		}
		if f.turns < 1 || f.turns > 1000 || f.age < time.Second || f.age > time.Hour || f.perRequest < 1 || f.rate < 0 {
			return usageError{fmt.Errorf("--turns must be from 1 to 1000, --max-dirty-age from 1s to 1h, and --per-request positive, got %d, %v and %d", f.turns, f.age, f.perRequest)}
		}
		if f.cache, err = installed(peers(*binary)[0]); err != nil {
			return err
		}
		f.protocol = protocolOf(*protocol)
		return f.run(ctx, out)
	}
}

// forwarding is what is measured.
type forwarding struct {
	load       load
	cache      peer
	turns      int
	age        time.Duration
	receiver   string
	flags      []string
	perRequest int
	rate       float64
	protocol   wire.Protocol
}

// forwardTurn is what one daemon took, in µs for 1,000 samples.
type forwardTurn struct {
	samples           float64
	user, system, all float64
	bytesPerSample    float64
	perRequest        float64
	perRun            float64
	samplesPerS       float64 // of the load
}

func (f *forwarding) run(ctx context.Context, out io.Writer) error {
	var alone, forwards []forwardTurn
	fmt.Fprintf(out, "%d series × %d samples, protocol %d, %d samples a request, %d turns, forwarded to %s within %v\n",
		f.load.series, f.load.samples, f.protocol, f.perRequest, f.turns, f.receiver, f.age)
	for range f.turns {
		t, err := f.turn(ctx)
		if err != nil {
			return err
		}
		alone = append(alone, t)
		if t, err = f.forwardingTurn(ctx); err != nil {
			return err
		}
		forwards = append(forwards, t)
	}
	all := func(t forwardTurn) float64 { return t.all }
	t := newTable(out)
	fmt.Fprintln(t, "cache\tCPU µs/1,000\tfrom\tto\tuser\tsystem\tsamples/s\tsamples/request\t/run\twire B/sample\t")
	for _, way := range []struct {
		name  string
		turns []forwardTurn
	}{{"alone", alone}, {"forwards", forwards}} {
		of := func(field func(forwardTurn) float64) float64 { return median(way.turns, field) }
		byAll := func(a, b forwardTurn) int { return cmp.Compare(a.all, b.all) }
		fmt.Fprintf(t, "%s\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.1f\t%.1f\t\n", way.name, of(all), slices.MinFunc(way.turns, byAll).all, slices.MaxFunc(way.turns, byAll).all,
			of(func(t forwardTurn) float64 { return t.user }), of(func(t forwardTurn) float64 { return t.system }),
			of(func(t forwardTurn) float64 { return t.samplesPerS }), of(func(t forwardTurn) float64 { return t.perRequest }),
			of(func(t forwardTurn) float64 { return t.perRun }),
			of(func(t forwardTurn) float64 { return t.bytesPerSample }))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	a, b := median(alone, all), median(forwards, all)
	_, err := fmt.Fprintf(out, "forwarding costs %.0f µs for 1,000 samples, %+.0f %%\n", b-a, (b/a-1)*100)
	return err
}

func median(turns []forwardTurn, field func(forwardTurn) float64) float64 {
	var all []float64
	for _, t := range turns {
		all = append(all, field(t))
	}
	return medianOf(all)
}

// settleTime is what comes after the age until all must have been forwarded.
const settleTime = 2 * time.Second

// turn starts a daemon that does not forward, and writes the load.
func (f *forwarding) turn(ctx context.Context) (forwardTurn, error) {
	return f.write(ctx, f.cache, func(*server, *forwardTurn) error { return nil })
}

// forwardingTurn starts one that does, and a receiver behind it.
func (f *forwarding) forwardingTurn(ctx context.Context) (t forwardTurn, err error) {
	to, stop, err := f.receive(ctx)
	if err != nil {
		return t, err
	}
	defer stop()
	p := f.cache.with(append([]string{"--forward.url=" + to, "--forward.max-dirty-age=" + f.age.String()}, f.flags...)...)
	return f.write(ctx, p, func(s *server, t *forwardTurn) error { return f.readBooks(ctx, s, t) })
}

// write starts p and writes the load. The processor's books are read after
// everything had to be forwarded, and before books are, which reads /metrics:
// that would count, too.
func (f *forwarding) write(ctx context.Context, p peer, books func(*server, *forwardTurn) error) (t forwardTurn, err error) {
	s, err := start(ctx, p)
	if err != nil {
		return t, err
	}
	defer s.stop()
	proc := s.process()
	if err := sleep(ctx, time.Second); err != nil {
		return t, err
	}
	before, err := proc.usage()
	if err != nil {
		return t, err
	}
	w := writer{load: f.load, url: s.url + "/api/v1/write", protocol: f.protocol, perRequest: f.perRequest, connections: 2, rate: f.rate}
	done, err := w.run(ctx)
	if err != nil {
		return t, err
	}
	if err := sleep(ctx, f.age+settleTime); err != nil {
		return t, err
	}
	after, err := proc.usage()
	if err != nil {
		return t, err
	}
	n := float64(done.samples)
	per := func(d time.Duration) float64 { return float64(d.Microseconds()) / n * 1000 }
	t.user, t.system = per(after.user-before.user), per(after.cpu-after.user-before.cpu+before.user)
	t.all, t.samplesPerS = t.user+t.system, n/done.elapsed.Seconds()
	t.samples = n
	return t, books(s, &t)
}

// readBooks reads what a daemon has forwarded, which must be all.
func (f *forwarding) readBooks(ctx context.Context, s *server, t *forwardTurn) error {
	left, err1 := s.metric(ctx, "mcached_forward_dirty_samples")
	sent, err2 := s.metric(ctx, `mcached_forward_samples_total{result="taken"}`)
	bytes, err3 := s.metric(ctx, "mcached_forward_bytes_total")
	requests, err4 := s.metric(ctx, "mcached_forward_requests_total")
	runs, err5 := s.metric(ctx, "mcached_forward_runs_total")
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return err
	}
	if left > 0 || sent != t.samples {
		return fmt.Errorf("%.0f of %.0f samples were forwarded %v after the last, and %.0f wait", sent, t.samples, f.age+settleTime, left)
	}
	t.bytesPerSample, t.perRequest, t.perRun = bytes/sent, sent/requests, sent/runs
	return nil
}

// receive starts the receiver, and returns its URL and what ends it.
func (f *forwarding) receive(ctx context.Context) (to string, stop func(), err error) {
	if f.receiver == "mcached" {
		s, err := start(ctx, f.cache)
		if err != nil {
			return "", nil, err
		}
		return s.url + f.cache.write, s.stop, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	s := &http.Server{Handler: http.HandlerFunc(discard)}
	go s.Serve(l) // ends with Close
	return "http://" + l.Addr().String() + "/api/v1/write", func() { s.Close() }, nil
}

// discard keeps nothing, and answers that everything was written, in the words of
// protocol 2.0: one who counts wrong is not taken to know it.
func discard(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		body, err = snappy.Decode(nil, body)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set(wire.HeaderSamplesWritten, strconv.Itoa(samplesIn(body)))
	w.WriteHeader(http.StatusNoContent)
}

// samplesIn counts the samples of a request by protocol 2.0.
func samplesIn(body []byte) (n int) {
	for i := 0; i < len(body); {
		tag, at := wire.Tag(body, i)
		if at < 0 {
			return n
		}
		if i = wire.Skip(body, tag, at); i < 0 {
			return n
		}
		if tag == wire.TagV2Series {
			from, to := wire.Bytes(body, at)
			n += wire.Count(wire.V2, body[from:to]).Samples
		}
	}
	return n
}
