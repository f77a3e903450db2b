package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/alecthomas/kingpin/v2"
)

// respLoad describes commands for a server that speaks the Redis protocol.
// Which keys they name and what values hold is computed from the seed.
type respLoad struct {
	address     string
	password    string
	keys        int
	valueBytes  int
	operations  int // of all connections together
	setPct      float64
	pipeline    int // commands sent before replies are read
	connections int
	seed        uint64
}

// respReport is the outcome, as --json prints it.
type respReport struct {
	Operations  int     `json:"operations"`
	Gets        int     `json:"gets"`
	Hits        int     `json:"hits"`
	Seconds     float64 `json:"seconds"`
	OpsPerS     float64 `json:"operations_per_second"`
	P50Ms       float64 `json:"round_trip_p50_ms"` // of a pipeline
	P99Ms       float64 `json:"round_trip_p99_ms"`
	CPUUsPerOp  float64 `json:"server_cpu_us_per_operation"`
	RSSPerEntry float64 `json:"server_rss_bytes_per_entry"` // grown while filling
	Overhead    float64 `json:"server_rss_overhead_bytes_per_entry"`
}

func respCommand(app *kingpin.Application) (string, action) {
	c := app.Command("resp", "Fill a Redis server with values, then time GET and SET. Every value that comes back is compared.")
	l := respLoad{}
	c.Flag("address", "The server.").Default("127.0.0.1:6379").StringVar(&l.address)
	c.Flag("password", "For AUTH.").StringVar(&l.password)
	c.Flag("keys", "How many keys of 16 bytes.").Default("1000000").IntVar(&l.keys)
	c.Flag("value-size", "Bytes of a value.").Default("64").IntVar(&l.valueBytes)
	c.Flag("operations", "How many commands, once the server is filled.").Default("2000000").IntVar(&l.operations)
	c.Flag("set-percent", "How many of them are SET; the others are GET.").Default("10").Float64Var(&l.setPct)
	c.Flag("pipeline", "Commands sent at a time on one connection.").Default("16").IntVar(&l.pipeline)
	c.Flag("connections", "How many send at a time.").Default("16").IntVar(&l.connections)
	c.Flag("seed", "What keys and values are computed from.").Default("1").Uint64Var(&l.seed)
	pid := c.Flag("pid", "The server's process, for its CPU time and memory.").Int()
	report := jsonFlag(c)
	return c.FullCommand(), func(ctx context.Context, out io.Writer) error {
		if l.keys < 1 || l.operations < 1 || l.pipeline < 1 || l.pipeline > 10_000 || l.connections < 1 || l.connections > 1024 || l.valueBytes < 0 || l.valueBytes > 64<<20 || l.setPct < 0 || l.setPct > 100 {
			return usageError{fmt.Errorf("--keys, --operations, --pipeline (to 10000), --connections (to 1024) must be positive, --value-size from 0 to 64 MiB, --set-percent from 0 to 100; got %d, %d, %d, %d, %d and %v",
				l.keys, l.operations, l.pipeline, l.connections, l.valueBytes, l.setPct)}
		}
		r, err := l.run(ctx, process{"/proc", *pid})
		if err != nil {
			return err
		}
		return report(out, r, func(out io.Writer) error {
			fmt.Fprintf(out, "%d keys, values of %d bytes, %v %% SET, pipeline %d, %d connections\n", l.keys, l.valueBytes, l.setPct, l.pipeline, l.connections)
			fmt.Fprintf(out, "%12.0f operations/s (%d in %.2f s; %d of %d GETs found a value)\n", r.OpsPerS, r.Operations, r.Seconds, r.Hits, r.Gets)
			fmt.Fprintf(out, "%8.2f %6.2f ms round trip of a pipeline p50, p99\n", r.P50Ms, r.P99Ms)
			if *pid != 0 {
				fmt.Fprintf(out, "%12.2f µs of server CPU per operation\n", r.CPUUsPerOp)
				if r.Overhead > 0 { // else the server had the keys before
					fmt.Fprintf(out, "%12.1f B of server memory per entry, %.1f more than key and value\n", r.RSSPerEntry, r.Overhead)
				}
			}
			return nil
		})
	}
}

// run fills the server, and then measures.
func (l *respLoad) run(ctx context.Context, p process) (respReport, error) {
	var r respReport
	empty, err := p.usage()
	if err != nil {
		return r, err
	}
	fill := *l
	fill.pipeline = max(l.pipeline, 64)
	if _, err := fill.all(ctx, func(c *respConn, from, to int) error {
		for n := from; n < to; n += fill.pipeline {
			for k := n; k < min(n+fill.pipeline, to); k++ {
				c.set(uint64(k))
			}
			if err := c.roundTrip(); err != nil {
				return err
			}
		}
		return nil
	}, l.keys); err != nil {
		return r, err
	}
	before, err := p.usage()
	if err != nil {
		return r, err
	}
	began := time.Now()
	conns, err := l.all(ctx, func(c *respConn, from, to int) error {
		random := values{state: mix(l.seed ^ mix(uint64(from)+1))}
		for n := from; n < to; n += l.pipeline {
			for range min(l.pipeline, to-n) {
				key := random.next() % uint64(l.keys)
				if random.unit()*100 < l.setPct {
					c.set(key)
				} else {
					c.get(key)
				}
			}
			if err := c.roundTrip(); err != nil {
				return err
			}
		}
		return nil
	}, l.operations)
	if err != nil {
		return r, err
	}
	r.Seconds = time.Since(began).Seconds()
	after, err := p.usage()
	if err != nil {
		return r, err
	}
	var trips []time.Duration
	for _, c := range conns {
		r.Gets += c.gets
		r.Hits += c.hits
		trips = append(trips, c.trips...)
	}
	slices.Sort(trips)
	r.Operations = l.operations
	r.OpsPerS = float64(r.Operations) / r.Seconds
	r.P50Ms, r.P99Ms = ms(percentile(trips, 50)), ms(percentile(trips, 99))
	r.CPUUsPerOp = float64((after.cpu - before.cpu).Microseconds()) / float64(r.Operations)
	if p.pid != 0 {
		r.RSSPerEntry = float64(before.rssBytes-empty.rssBytes) / float64(l.keys)
		r.Overhead = r.RSSPerEntry - keyBytes - float64(l.valueBytes)
	}
	return r, nil
}

// all shares the numbers from 0 to n among the connections, and calls f for each.
func (l *respLoad) all(ctx context.Context, f func(c *respConn, from, to int) error, n int) ([]*respConn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conns := make([]*respConn, l.connections)
	errs := make([]error, l.connections)
	var wg sync.WaitGroup
	for i := range conns {
		wg.Go(func() {
			c, err := l.dial(ctx)
			if err == nil {
				conns[i] = c
				stop := context.AfterFunc(ctx, func() { c.conn.Close() })
				err = f(c, n*i/l.connections, n*(i+1)/l.connections)
				stop()
				c.conn.Close()
			}
			if err != nil {
				errs[i] = err
				cancel()
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, net.ErrClosed) {
			return nil, err
		}
	}
	return conns, errors.Join(errs...)
}

const keyBytes = 16

// respConn is one connection, with what was sent on it and not yet answered.
type respConn struct {
	l      *respLoad
	conn   net.Conn
	in     *bufio.Reader
	out    []byte
	wanted []uint64 // of the commands under way: key*2, and 1 if it is a SET
	value  []byte
	got    []byte

	gets, hits int
	trips      []time.Duration
}

func (l *respLoad) dial(ctx context.Context) (*respConn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", l.address)
	if err != nil {
		return nil, err
	}
	c := &respConn{l: l, conn: conn, in: bufio.NewReaderSize(conn, 64<<10), value: make([]byte, l.valueBytes)}
	if l.password != "" {
		c.out = fmt.Appendf(c.out, "*2\r\n$4\r\nAUTH\r\n$%d\r\n%s\r\n", len(l.password), l.password)
		if _, err := conn.Write(c.out); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		c.out = c.out[:0]
		if _, err := c.reply(); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	return c, nil
}

func (c *respConn) get(key uint64) {
	c.out = append(c.out, "*2\r\n$3\r\nGET\r\n"...)
	c.key(key)
	c.wanted = append(c.wanted, key*2)
}

func (c *respConn) set(key uint64) {
	c.out = append(c.out, "*3\r\n$3\r\nSET\r\n"...)
	c.key(key)
	c.out = append(c.out, '$')
	c.out = strconv.AppendInt(c.out, int64(len(c.value)), 10)
	c.out = append(c.out, "\r\n"...)
	c.fill(key)
	c.out = append(c.out, c.value...)
	c.out = append(c.out, "\r\n"...)
	c.wanted = append(c.wanted, key*2+1)
}

func (c *respConn) key(key uint64) {
	c.out = append(c.out, "$16\r\nkey:"...)
	for digits := uint64(100_000_000_000); digits > 0; digits /= 10 {
		c.out = append(c.out, byte('0'+key/digits%10))
	}
	c.out = append(c.out, "\r\n"...)
}

// fill sets value to that of key.
func (c *respConn) fill(key uint64) {
	x := mix(c.l.seed ^ mix(key+1))
	for i := range c.value {
		c.value[i] = byte(x >> (8 * (i & 7)))
	}
}

// roundTrip sends what was put together and reads the replies.
func (c *respConn) roundTrip() error {
	began := time.Now()
	if _, err := c.conn.Write(c.out); err != nil {
		return err
	}
	for _, w := range c.wanted {
		value, err := c.reply()
		if err != nil {
			return err
		}
		if w&1 == 1 {
			continue
		}
		c.gets++
		if value == nil {
			continue
		}
		c.hits++
		if c.fill(w / 2); !bytes.Equal(value, c.value) {
			return fmt.Errorf("key %d has the wrong value %.80q", w/2, value)
		}
	}
	c.trips = append(c.trips, time.Since(began))
	c.out, c.wanted = c.out[:0], c.wanted[:0]
	return nil
}

// reply reads one reply: a string, which is valid until the next, or nil for none.
func (c *respConn) reply() ([]byte, error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	line = bytes.TrimSuffix(line, []byte("\r\n"))
	switch {
	case len(line) == 0:
		return nil, errors.New("an empty line for a reply")
	case line[0] == '-':
		return nil, fmt.Errorf("the server answers %s", line[1:])
	case line[0] == '+':
		return line[1:], nil
	case line[0] == '_' || bytes.Equal(line, []byte("$-1")):
		return nil, nil
	case line[0] == '$':
		n, err := strconv.Atoi(string(line[1:]))
		if err != nil || n < 0 || n > 64<<20 {
			return nil, fmt.Errorf("a reply of length %q", line[1:])
		}
		if cap(c.got) < n+2 {
			c.got = make([]byte, n+2)
		}
		c.got = c.got[:n+2]
		if _, err := io.ReadFull(c.in, c.got); err != nil {
			return nil, err
		}
		return c.got[:n], nil
	}
	return nil, fmt.Errorf("a reply that no GET or SET has: %.80q", line)
}
