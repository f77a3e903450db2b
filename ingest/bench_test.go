package ingest

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"mcached/kvcache"
	"mcached/mcache"
)

// sink is a socket that takes everything.
type sink struct{ net.Conn }

func (sink) Write(b []byte) (int, error)     { return len(b), nil }
func (sink) RemoteAddr() net.Addr            { return &net.TCPAddr{} }
func (sink) LocalAddr() net.Addr             { return &net.TCPAddr{} }
func (sink) Close() error                    { return nil }
func (sink) SetReadDeadline(time.Time) error { return nil }
func (sink) Read([]byte) (int, error)        { return 0, io.EOF }

// newSession is a connection without a socket, for what happens between two
// system calls.
func newSession(t testing.TB, change func(o *Options)) *conn {
	t.Helper()
	mem, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 256 << 20})
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := kvcache.NewDatabases(kvcache.CacheOptions{Memory: mem}, 16)
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := mcache.New(mcache.Options{Memory: mem})
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Blobs: blobs, Memory: mem, Metrics: metrics, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&o)
	}
	s, err := NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.Shutdown(t.Context())
		blobs.Close()
		_ = metrics.Close()
		mem.Close()
	})
	return newConn(s, sink{}, 1)
}

// feed runs what one read would have brought.
func (c *conn) feed(input []byte) {
	for len(input) > 0 && !c.quit {
		c.takeInput()
		n := copy(c.in[c.end:], input)
		c.end += n
		input = input[n:]
		c.consume()
		_ = c.flush()
		if c.in != nil && c.start > 0 {
			c.end = copy(c.in, c.in[c.start:c.end])
			c.start = 0
		}
		if c.in != nil && c.end == len(c.in) {
			if c.grow() != nil {
				return
			}
		}
	}
}

// Everything between the read and the write, for a pipeline of 16.
func BenchmarkPipeline(b *testing.B) {
	value := strings.Repeat("v", 64)
	for _, keys := range []int{1000, 1_000_000} {
		for _, bench := range []struct {
			name    string
			command func(key string) string
		}{
			{"GET", func(k string) string { return bulks("GET", k) }},
			{"SET", func(k string) string { return bulks("SET", k, value) }},
			{"INCR", func(k string) string { return bulks("INCR", "n"+k[4:]) }},
		} {
			b.Run(fmt.Sprintf("%s/keys=%d/value=64", bench.name, keys), func(b *testing.B) {
				c := newSession(b, nil)
				rng := newRand(1)
				key := func() string { return fmt.Sprintf("key:%012d", rng.IntN(keys)) }
				for i := range keys {
					if err := c.cache().Put(fmt.Appendf(nil, "key:%012d", i), []byte(value), 0); err != nil {
						b.Fatal(err)
					}
				}
				batches := make([][]byte, 4096)
				for i := range batches {
					var s strings.Builder
					for range 16 {
						s.WriteString(bench.command(key()))
					}
					batches[i] = []byte(s.String())
				}
				b.ReportAllocs()
				b.ResetTimer()
				for i := 0; i < b.N; i += 16 {
					c.feed(batches[i/16%len(batches)])
				}
				b.StopTimer()
				if c.failed > 0 || c.commands < uint64(b.N) {
					b.Fatalf("%d commands, %d failed", c.commands, c.failed)
				}
			})
		}
	}
}

// Ten SETs, each a turn, in a pipeline and in a transaction.
func BenchmarkTransaction(b *testing.B) {
	var alone [][]byte
	pipeline := ""
	for i := range 10 {
		alone = append(alone, []byte(bulks("SET", fmt.Sprint("key:", i), strings.Repeat("v", 64))))
		pipeline += string(alone[i])
	}
	for name, inputs := range map[string][][]byte{
		"alone": alone, "pipeline": {[]byte(pipeline)}, "multi": {[]byte(bulks("MULTI") + pipeline + bulks("EXEC"))},
	} {
		b.Run(name, func(b *testing.B) {
			c := newSession(b, nil)
			b.ReportAllocs()
			for b.Loop() {
				for _, in := range inputs {
					c.feed(in)
				}
			}
			if c.failed > 0 {
				b.Fatalf("%d failed", c.failed)
			}
		})
	}
}

// One command a turn, as of a client without a pipeline.
func BenchmarkAlone(b *testing.B) {
	for _, size := range []int{64, 10_000, 100_000} {
		for _, name := range []string{"GET", "SET"} {
			b.Run(fmt.Sprintf("%s/value=%d", name, size), func(b *testing.B) {
				c := newSession(b, nil)
				set := bulks("SET", "key", strings.Repeat("v", size))
				c.feed([]byte(set))
				in := []byte(bulks("GET", "key"))
				if name == "SET" {
					in = []byte(set)
				}
				b.ReportAllocs()
				for b.Loop() {
					c.feed(in)
				}
			})
		}
	}
}

func BenchmarkSeriesAdd(b *testing.B) {
	for _, series := range []int{1, 10_000} {
		for _, pipeline := range []int{1, 16} {
			b.Run(fmt.Sprintf("series=%d/pipeline=%d", series, pipeline), func(b *testing.B) {
				c := newSession(b, nil)
				name := make([]string, series)
				for i := range series {
					name[i] = fmt.Sprintf("s:%d", i)
					c.feed([]byte(bulks("TS.CREATE", name[i], "LABELS", "room", "a", "kind", "temp")))
				}
				in := make([]byte, 0, 1<<14)
				b.ReportAllocs()
				b.ResetTimer()
				for i := range b.N {
					n := name[i%series]
					in = fmt.Appendf(in, "*4\r\n$6\r\nTS.ADD\r\n$%d\r\n%s\r\n$13\r\n%d\r\n$4\r\n20.5\r\n", len(n), n, 1_700_000_000_000+i/series*15_000)
					if i%pipeline == pipeline-1 {
						c.feed(in)
						in = in[:0]
					}
				}
				b.StopTimer()
				if c.failed > 0 {
					b.Fatalf("%d failed", c.failed)
				}
			})
		}
	}
}

// Over a socket, one client with a pipeline of 16.
func BenchmarkSocket(b *testing.B) {
	_, addr := newServer(b, nil)
	c := dial(b, addr)
	_ = c.SetDeadline(time.Now().Add(5 * time.Minute))
	in := []byte(strings.Repeat(bulks("SET", "key", strings.Repeat("v", 64)), 16))
	out := make([]byte, 16*len("+OK\r\n"))
	b.ReportAllocs()
	for i := 0; i < b.N; i += 16 {
		if _, err := c.Write(in); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, out); err != nil {
			b.Fatal(err)
		}
	}
}
