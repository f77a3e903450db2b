package main

import (
	"bufio"
	"context"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/alecthomas/kingpin/v2"
)

// hitsReport is the outcome, as --json prints it.
type hitsReport struct {
	Requests int                `json:"requests"`
	Keys     int                `json:"keys"`
	Bytes    int64              `json:"bytes"`
	Server   float64            `json:"hit_ratio"` // -1 if no server was asked
	Models   map[string]float64 `json:"models"`
}

func hitsCommand(app *kingpin.Application) (string, action) {
	c := app.Command("hits", "Replay requests as a cache gets them (GET, and SET on a miss) against a Redis server, and compare what it kept with models of known policies.")
	l := respLoad{}
	c.Flag("address", "The server; none asks only the models.").Default("127.0.0.1:6379").StringVar(&l.address)
	c.Flag("password", "For AUTH.").StringVar(&l.password)
	bytes := c.Flag("bytes", "What the server may hold, which is what the models get: value bytes and 50 an entry.").Default("64MiB").Bytes()
	trace := c.Flag("trace", "File with a request a line: KEY, or KEY,BYTES of its value. Replaces --mix.").ExistingFile()
	m := requestMix{}
	c.Flag("mix", "Synthetic requests: zipf, loop over all keys, shift (half of the keys change six times), scan (twice over as many keys again).").Default("zipf").EnumVar(&m.kind, "zipf", "loop", "shift", "scan")
	c.Flag("skew", "Of the Zipf distribution: the n-th key is asked for 1/n^skew as often as the first.").Default("1.0").Float64Var(&m.skew)
	c.Flag("keys", "How many keys.").Default("1000000").IntVar(&m.keys)
	c.Flag("requests", "How many requests.").Default("2000000").IntVar(&m.requests)
	c.Flag("once-percent", "Percent of requests for keys that never return.").Default("0").Float64Var(&m.oncePct)
	c.Flag("seed", "What the requests are computed from.").Default("1").Uint64Var(&m.seed)
	c.Flag("value-size", "Bytes of a value.").Default("1024").IntVar(&m.valueBytes)
	report := jsonFlag(c)
	return c.FullCommand(), func(ctx context.Context, out io.Writer) error {
		if m.keys < 1 || m.requests < 1 || m.valueBytes < 0 || m.valueBytes > 64<<20 || m.oncePct < 0 || m.oncePct > 100 || *bytes < 1 {
			return usageError{fmt.Errorf("--keys, --requests and --bytes must be positive, --value-size from 0 to 64 MiB, --once-percent from 0 to 100; got %d, %d, %d, %d and %v",
				m.keys, m.requests, *bytes, m.valueBytes, m.oncePct)}
		}
		var all []request
		if *trace != "" {
			var err error
			if all, err = readTrace(*trace, m.valueBytes); err != nil {
				return err
			}
		} else {
			all = m.generate()
		}
		r := hitsReport{Requests: len(all), Keys: distinct(all), Bytes: int64(*bytes), Server: -1, Models: map[string]float64{}}
		if l.address != "none" {
			var err error
			if r.Server, err = l.replay(ctx, all); err != nil {
				return err
			}
		}
		for _, p := range policies {
			r.Models[p.name] = hitRatio(p.make(int64(*bytes)), all)
		}
		return report(out, r, r.print)
	}
}

func (r *hitsReport) print(out io.Writer) error {
	fmt.Fprintf(out, "%d requests for %d keys, %d bytes\n", r.Requests, r.Keys, r.Bytes)
	if r.Server >= 0 {
		fmt.Fprintf(out, "%8.4f the server\n", r.Server)
	}
	for _, p := range policies {
		fmt.Fprintf(out, "%8.4f %s\n", r.Models[p.name], p.name)
	}
	return nil
}

// request is one for a key, whose value has so many bytes.
type request struct {
	key   uint64
	bytes int32
}

func distinct(all []request) int {
	seen := map[uint64]struct{}{}
	for _, q := range all {
		seen[q.key] = struct{}{}
	}
	return len(seen)
}

// replay asks for one key after the other over one connection, and stores what
// is not there. It returns the share of the requests that found a value.
func (l *respLoad) replay(ctx context.Context, all []request) (ratio float64, err error) {
	for _, q := range all {
		l.valueBytes = max(l.valueBytes, int(q.bytes))
	}
	c, err := l.dial(ctx)
	if err != nil {
		return 0, err
	}
	defer c.conn.Close()
	for i, q := range all {
		if i%1024 == 0 && ctx.Err() != nil {
			return 0, ctx.Err()
		}
		hits := c.hits
		c.value = c.value[:q.bytes]
		c.get(q.key)
		if err := c.roundTrip(); err != nil {
			return 0, err
		}
		if c.hits == hits {
			c.set(q.key)
			if err := c.roundTrip(); err != nil {
				return 0, err
			}
		}
		c.trips = c.trips[:0]
	}
	return float64(c.hits) / float64(len(all)), nil
}

// readTrace reads a file with a request a line.
func readTrace(path string, valueBytes int) (all []request, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	seed := maphash.MakeSeed()
	in := bufio.NewScanner(f)
	for line := 1; in.Scan(); line++ {
		key, size, sized := strings.Cut(strings.TrimSpace(in.Text()), ",")
		n := valueBytes
		if sized {
			if n, err = strconv.Atoi(strings.TrimSpace(size)); err != nil || n < 0 || n > 64<<20 {
				return nil, fmt.Errorf("%s:%d: the bytes of a value must be from 0 to 64 MiB, got %q", path, line, size)
			}
		}
		if key == "" {
			return nil, fmt.Errorf("%s:%d: a line must be KEY or KEY,BYTES, got %q", path, line, in.Text())
		}
		all = append(all, request{maphash.String(seed, key) % maxRespKey, int32(n)})
	}
	if err := in.Err(); err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no requests", path)
	}
	return all, nil
}
