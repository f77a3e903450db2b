package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"mcached/remotewrite/wire"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "mcbench:", err)
	var u usageError
	if errors.As(err, &u) {
		os.Exit(2)
	}
	os.Exit(1)
}

// usageError is a mistake in the command line.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

// run is main with its surroundings passed in.
func run(ctx context.Context, args []string, out io.Writer) error {
	app := kingpin.New("mcbench", "Measures servers for metrics and blobs with one load, and reads back what they kept.")
	app.HelpFlag.Short('h')
	commands := map[string]func(context.Context, io.Writer) error{}
	for _, add := range []func(*kingpin.Application) (string, func(context.Context, io.Writer) error){
		writeCommand, queryCommand, respCommand, hitsCommand, compareCommand, smallCommand, growCommand, concurrentCommand, dashboardsCommand, benefitCommand, forwardCommand, neighbourCommand, takerCommand,
	} {
		name, f := add(app)
		commands[name] = f
	}
	if len(args) == 0 {
		return usageError{errors.New("which command? Try mcbench --help")}
	}
	chosen, err := app.Parse(args)
	if err != nil {
		return usageError{err}
	}
	return commands[chosen](ctx, out)
}

// headers parses --header flags.
func headers(lines []string) (http.Header, error) {
	h := make(http.Header)
	for _, l := range lines {
		name, value, ok := strings.Cut(l, ":")
		if !ok || name == "" {
			return nil, usageError{fmt.Errorf("--header must be 'Name: value', got %q", l)}
		}
		h.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	return h, nil
}

// loadFlags declares what a load is made of.
func loadFlags(c *kingpin.CmdClause) func() (load, error) {
	series := c.Flag("series", "How many series.").Default("100000").Int()
	samples := c.Flag("samples", "How many samples of each.").Default("60").Int()
	start := c.Flag("start", "Time of the first samples, in Unix milliseconds. Default: so that the last are of now.").Int64()
	interval := c.Flag("interval", "Distance of a series' samples.").Default("15s").Duration()
	jitter := c.Flag("jitter", "By how much a sample may be off the interval's grid, either way.").Default("0s").Duration()
	late := c.Flag("late", "Percent of samples that are delivered 1 to 4 intervals late.").Default("0").Float64()
	seed := c.Flag("seed", "What values, jitter and lateness are computed from.").Default("1").Uint64()
	return func() (load, error) {
		l := load{*series, *samples, *start, interval.Milliseconds(), jitter.Milliseconds(), *late, *seed}
		switch {
		case l.series < 1 || l.series > 1<<24:
			return l, usageError{fmt.Errorf("--series must be from 1 to %d, got %d", 1<<24, l.series)}
		case l.samples < 1 || l.samples > 1<<24:
			return l, usageError{fmt.Errorf("--samples must be from 1 to %d, got %d", 1<<24, l.samples)}
		case l.intervalMs < 1:
			return l, usageError{fmt.Errorf("--interval must be at least 1ms, got %v", *interval)}
		case l.jitterMs < 0 || l.jitterMs >= (l.intervalMs+1)/2:
			return l, usageError{fmt.Errorf("--jitter must be less than half of --interval, got %v", *jitter)}
		case l.latePct < 0 || l.latePct > 100:
			return l, usageError{fmt.Errorf("--late must be from 0 to 100, got %v", l.latePct)}
		}
		if l.startMs == 0 {
			now := time.Now().UnixMilli()
			l.startMs = (now/l.intervalMs - int64(l.samples) + 1) * l.intervalMs
		}
		return l, nil
	}
}

func writeCommand(app *kingpin.Application) (string, func(context.Context, io.Writer) error) {
	c := app.Command("write", "Write a load, and report what it cost the server.")
	to := c.Flag("url", "The receiver.").Default("http://127.0.0.1:9201/api/v1/write").String()
	api := c.Flag("api-url", "The HTTP API that --check reads from. Default: /api/v1 of the receiver's host.").String()
	pid := c.Flag("pid", "The server's process, for its CPU time and memory.").Int()
	version := c.Flag("protocol", "Version of remote write.").Default("1").Enum("1", "2")
	perRequest := c.Flag("per-request", "Samples in a request.").Default("2000").Int()
	connections := c.Flag("connections", "How many send at a time.").Default("2").Int()
	rate := c.Flag("rate", "Samples a second over all connections. Default: as fast as it goes.").Float64()
	header := c.Flag("header", "'Name: value' to send with each request. Repeatable.").Strings()
	check := c.Flag("check", "Read all samples back and compare.").Bool()
	noWrite := c.Flag("no-write", "Only check; give the --start of when it was written.").Bool()
	asJSON := c.Flag("json", "Report as JSON.").Bool()
	data := loadFlags(c)
	return c.FullCommand(), func(ctx context.Context, out io.Writer) error {
		l, err := data()
		if err != nil {
			return err
		}
		h, err := headers(*header)
		if err != nil {
			return err
		}
		base, err := apiURL(*to, *api)
		if err != nil {
			return err
		}
		if *perRequest < 1 || *connections < 1 || *connections > 1024 {
			return usageError{fmt.Errorf("--per-request must be positive and --connections from 1 to 1024, got %d and %d", *perRequest, *connections)}
		}
		r := report{Series: l.series, SamplesPerSeries: l.samples, Protocol: *version, StartMs: l.startMs}
		if !*noWrite {
			w := writer{load: l, url: *to, protocol: wire.V1, perRequest: *perRequest, connections: *connections, rate: *rate, header: h}
			if *version == "2" {
				w.protocol = wire.V2
			}
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
		if err := r.print(out, *asJSON); err != nil {
			return err
		}
		if r.Checked && !r.Check.ok() {
			return fmt.Errorf("what came back is not what was written: %s", r.Check.first)
		}
		return nil
	}
}

// apiURL is where the API of the server that receives at receiver is.
func apiURL(receiver, api string) (string, error) {
	if api != "" {
		return strings.TrimSuffix(api, "/"), nil
	}
	u, err := url.Parse(receiver)
	if err != nil || u.Host == "" {
		return "", usageError{fmt.Errorf("--url must be http://host:port/path, got %q", receiver)}
	}
	return u.Scheme + "://" + u.Host + "/api/v1", nil
}
