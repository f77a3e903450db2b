package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"mcached/remotewrite/wire"
)

// forwardCommand measures what forwarding costs the cache: it writes the same
// load to an mcached that forwards and to one that does not, in turns.
func forwardCommand(app *kingpin.Application) (string, func(context.Context, io.Writer) error) {
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
		if f.protocol = wire.V1; *protocol == "2" {
			f.protocol = wire.V2
		}
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
		for _, forward := range []bool{false, true} {
			t, err := f.turn(ctx, forward)
			if err != nil {
				return err
			}
			if forward {
				forwards = append(forwards, t)
			} else {
				alone = append(alone, t)
			}
		}
	}
	all := func(t forwardTurn) float64 { return t.all }
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
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
	slices.Sort(all)
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}

// settleTime is what comes after the age until all must have been forwarded.
const settleTime = 2 * time.Second

// turn starts a daemon, and a receiver behind it whether or not it forwards to
// it, and writes the load. The books are read after everything had to be
// forwarded, and before /metrics are: that would count, too.
func (f *forwarding) turn(ctx context.Context, forward bool) (t forwardTurn, err error) {
	p := f.cache
	args := p.args
	if forward {
		to, stop, err := f.receive(ctx)
		if err != nil {
			return t, err
		}
		defer stop()
		p.args = func(dir, address string) []string {
			return append(append(args(dir, address), "--forward.url="+to, "--forward.max-dirty-age="+f.age.String()), f.flags...)
		}
	}
	s, err := start(ctx, p)
	if err != nil {
		return t, err
	}
	defer s.stop()
	proc := process{"/proc", s.cmd.Process.Pid}
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
	if !forward {
		return t, nil
	}
	left, err1 := s.metric(ctx, "mcached_forward_dirty_samples")
	sent, err2 := s.metric(ctx, `mcached_forward_samples_total{result="taken"}`)
	bytes, err3 := s.metric(ctx, "mcached_forward_bytes_total")
	requests, err4 := s.metric(ctx, "mcached_forward_requests_total")
	runs, err5 := s.metric(ctx, "mcached_forward_runs_total")
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return t, err
	}
	if left > 0 || sent != n {
		return t, fmt.Errorf("%.0f of %.0f samples were forwarded %v after the last, and %.0f wait", sent, n, f.age+settleTime, left)
	}
	t.bytesPerSample, t.perRequest, t.perRun = bytes/n, n/requests, n/runs
	return t, nil
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

// discard answers that everything was written.
func discard(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	w.Header().Set("X-Prometheus-Remote-Write-Samples-Written", strconv.Itoa(math.MaxInt32))
	w.WriteHeader(http.StatusNoContent)
}
