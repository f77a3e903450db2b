package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/redis/go-redis/v9"
)

// The attacks happen in a control group of a gigabyte, with a fixed size and
// else defaults: the heap's limit follows the group.
const (
	attackLimit  = 1 << 30
	attackBudget = 64 << 20
	attackHeap   = 256 << 20
	// attackOverhead is what the process has beside the budget and the heap: its
	// program, stacks of goroutines and threads, tables of the collector, and
	// pages that were given back and not taken yet.
	attackOverhead = 128 << 20
	// attackFor is how long they go on after all have begun.
	attackFor = 8 * time.Second
)

// attack is what one hostile client does, again and again, until ctx ends.
type attack struct {
	name    string
	clients int
	once    func(ctx context.Context, v *victim, client int) error
	// rounds counts how often it was done.
	rounds atomic.Int64
}

// victim is the daemon under attack, and what attackers know.
type victim struct {
	*server
	password string
}

// raw opens a connection to an address and sends b. It is closed when ctx ends.
func (v *victim) raw(ctx context.Context, address string, b []byte) (net.Conn, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { c.Close() })
	_, err = c.Write(b)
	return c, err
}

// unread asks for something on a connection and reads the answer as slowly as a
// client can: not at all, until ctx ends or the daemon closes.
func (v *victim) unread(ctx context.Context, address string, ask []byte) error {
	c, err := v.raw(ctx, address, ask)
	if err != nil {
		return err
	}
	defer c.Close()
	select {
	case <-ctx.Done():
	case <-time.After(5 * time.Second):
	}
	return nil
}

func (v *victim) http() string { return strings.TrimPrefix(v.url, "http://") }

// redisAsk is commands of a client that has the password.
func (v *victim) redisAsk(commands ...[]string) []byte {
	var b bytes.Buffer
	for _, args := range append([][]string{{"AUTH", v.password}}, commands...) {
		fmt.Fprintf(&b, "*%d\r\n", len(args))
		for _, a := range args {
			fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
		}
	}
	return b.Bytes()
}

func (v *victim) query(ctx context.Context, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.url+path, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return err
}

func readEverything(queries int, streamed bool) []byte {
	r := &prompb.ReadRequest{}
	for range queries {
		r.Queries = append(r.Queries, &prompb.Query{EndTimestampMs: 1 << 50, Matchers: []*prompb.LabelMatcher{{Name: "__name__", Type: prompb.LabelMatcher_RE, Value: ".+"}}})
	}
	if streamed {
		r.AcceptedResponseTypes = []prompb.ReadRequest_ResponseType{prompb.ReadRequest_STREAMED_XOR_CHUNKS}
	}
	raw, err := r.Marshal()
	if err != nil {
		panic(err)
	}
	body := snappy.Encode(nil, raw)
	return fmt.Appendf(nil, "POST /api/v1/read HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// attacks are those that ended the process once, and some of their kind.
func attacks(now time.Time) []*attack {
	rangeQuery := fmt.Appendf(nil, "GET /api/v1/query_range?query=long&start=%d&end=%d&step=1 HTTP/1.1\r\nHost: localhost\r\n\r\n", now.Unix()-3600, now.Unix())
	big := strings.Repeat("x", 250_000)
	tiny := []byte("GET / HTTP/1.1\r\nHost: localhost\r\n") // and no end: a megabyte each when parsed
	for i := 0; len(tiny) < 60_000; i++ {
		tiny = fmt.Appendf(tiny, "%x:\n", i)
	}
	return []*attack{
		{name: "a subquery of 43 million steps", clients: 2, once: func(ctx context.Context, v *victim, _ int) error {
			return v.query(ctx, "/api/v1/query?query=sum_over_time(vector(1)[5d:10ms])")
		}},
		{name: "a subquery over everything", clients: 2, once: func(ctx context.Context, v *victim, _ int) error {
			return v.query(ctx, "/api/v1/query?query=sum_over_time({__name__=~\".%2B\"}[1h:10ms])")
		}},
		{name: "3,000 remote reads in one", clients: 2, once: func(ctx context.Context, v *victim, _ int) error {
			return v.unread(ctx, v.http(), readEverything(3000, false))
		}},
		{name: "100 remote reads in one", clients: 2, once: func(ctx context.Context, v *victim, _ int) error {
			return v.unread(ctx, v.http(), readEverything(100, true))
		}},
		{name: "unread remote reads of all samples", clients: 20, once: func(ctx context.Context, v *victim, _ int) error {
			return v.unread(ctx, v.http(), readEverything(1, false))
		}},
		{name: "unread range queries", clients: 150, once: func(ctx context.Context, v *victim, _ int) error {
			return v.unread(ctx, v.http(), rangeQuery)
		}},
		{name: "keys with huge labels", clients: 2, once: func(ctx context.Context, v *victim, client int) error {
			return v.unread(ctx, v.resp, v.redisAsk([]string{"TS.CREATE", fmt.Sprint("huge", client, time.Now().UnixNano()), "LABELS", "l", big}))
		}},
		{name: "keys with large labels", clients: 2, once: func(ctx context.Context, v *victim, client int) error {
			var all [][]string
			for i := range 500 {
				all = append(all, []string{"TS.CREATE", fmt.Sprint("large", client, time.Now().UnixNano(), i), "LABELS", "l", big[:16000]})
			}
			return v.unread(ctx, v.resp, v.redisAsk(all...))
		}},
		{name: "unread MC.GET", clients: 20, once: func(ctx context.Context, v *victim, _ int) error {
			return v.unread(ctx, v.resp, v.redisAsk([]string{"MC.GET", "raw", "points"}))
		}},
		{name: "unread TS.RANGE", clients: 60, once: func(ctx context.Context, v *victim, _ int) error {
			return v.unread(ctx, v.resp, v.redisAsk([]string{"TS.RANGE", "samples", "-", "+"}))
		}},
		{name: "unread pipelines", clients: 20, once: func(ctx context.Context, v *victim, _ int) error {
			var all [][]string
			for range 2000 {
				all = append(all, []string{"GET", "blob"})
			}
			return v.unread(ctx, v.resp, v.redisAsk(all...))
		}},
		{name: "halves of an AUTH", clients: 1100, once: func(ctx context.Context, v *victim, _ int) error {
			return v.unread(ctx, v.resp, []byte("*2\r\n$4\r\nAUTH\r\n$16384\r\n"+big[:16_300]))
		}},
		{name: "halves of a SET", clients: 60, once: func(ctx context.Context, v *victim, _ int) error {
			half := v.redisAsk([]string{"SET", "k", big})
			return v.unread(ctx, v.resp, half[:len(half)-10])
		}},
		{name: "heads of tiny headers", clients: 600, once: func(ctx context.Context, v *victim, _ int) error {
			return v.unread(ctx, v.http(), tiny)
		}},
		{name: "halves of a body", clients: 150, once: func(ctx context.Context, v *victim, _ int) error {
			return v.unread(ctx, v.http(), []byte("POST /api/v1/write HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30000000\r\n\r\n"+big+big))
		}},
	}
}

// fillVictim writes what the attacks ask for.
func fillVictim(t *testing.T, v *victim, now time.Time) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	post := func(b []byte) {
		if code, said, err := v.post(ctx, b); err != nil || code != http.StatusNoContent {
			t.Fatalf("%d %s %v", code, said, err)
		}
	}
	for i := range 20 {
		post(numbered(t, "many", 1000*i, 1000))
	}
	var long []prompb.TimeSeries // 300 of an hour, one a second: 35 MB as JSON
	for i := range 300 {
		s := oneSeries(now.UnixMilli(), 1, "__name__", "long", "i", fmt.Sprint(i))
		s.Samples = s.Samples[:0]
		for at := now.Unix() - 3600; at < now.Unix(); at += 15 {
			s.Samples = append(s.Samples, prompb.Sample{Timestamp: at * 1000, Value: float64(at)})
		}
		long = append(long, s)
	}
	post(snappy.Encode(nil, body(t, long...)))
	s := oneSeries(now.UnixMilli(), 1, "__name__", "samples")
	for part := range 10 {
		s.Samples = s.Samples[:0]
		for i := range 100_000 {
			s.Samples = append(s.Samples, prompb.Sample{Timestamp: now.UnixMilli() - 1_000_000 + int64(part*100_000+i), Value: 1})
		}
		post(snappy.Encode(nil, body(t, s)))
	}
	c := v.client()
	defer c.Close()
	values := strings.Repeat("\x01\x00\x00\x00\x00\x00\x00\x00", 25_000)
	for i := range 320 {
		if err := c.Do(ctx, "MC.INSERT", "raw", "points", i*25_000, values).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Set(ctx, "blob", strings.Repeat("b", 1000), 0).Err(); err != nil {
		t.Fatal(err)
	}
}

func (v *victim) client() *redis.Client {
	return redis.NewClient(&redis.Options{Addr: v.resp, Password: v.password, MaxRetries: -1, DialTimeout: patience, ReadTimeout: patience})
}

// peakRSS is the most memory that the process has had.
func (p *process) peakRSS() int64 {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		var kib int64
		if n, _ := fmt.Sscanf(in.Text(), "VmHWM: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	p.t.Fatal("no VmHWM")
	return 0
}

// TestE2EAttacks: hostile clients of all kinds at once neither end the process,
// nor make it larger than it is allowed to be, nor keep others from being served.
func TestE2EAttacks(t *testing.T) {
	if testing.Short() {
		t.Skip("takes all there is of the machine for a while")
	}
	within := memoryGroup(t, attackLimit)
	now := time.Now()
	v := &victim{password: "a password"}
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(v.password), 0o600); err != nil {
		t.Fatal(err)
	}
	v.server = startServerBy(t, within, fmt.Sprintf("--memory.size=%d", attackBudget), "--memory.heap-limit=0", "--resp.password-file="+file)
	if got := v.metric("mcached_memory_heap_limit_bytes"); got != attackHeap {
		t.Errorf("the heap's limit is %v: it does not follow the group", got)
	}
	fillVictim(t, v, now)

	ctx, cancel := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	defer busy.Wait()
	defer cancel()
	served, anew := serveOthers(ctx, t, v, &busy)
	eventually(t, "others are served", func() error { return served(1) })
	all := attacks(now)
	for _, a := range all {
		for client := range a.clients {
			busy.Go(func() {
				for ctx.Err() == nil {
					if err := a.once(ctx, v, client); err != nil {
						time.Sleep(100 * time.Millisecond) // refused, as it should be
					}
					a.rounds.Add(1)
				}
			})
		}
	}
	anew()
	eventually(t, "every attack was made, and others were served meanwhile", func() error {
		for _, a := range all {
			if a.rounds.Load() < int64(a.clients) {
				return fmt.Errorf("%s: %d times by %d", a.name, a.rounds.Load(), a.clients)
			}
		}
		return served(10)
	})
	end := time.Now().Add(attackFor)
	eventually(t, "the attacks last", func() error {
		v.alive()
		if time.Now().Before(end) {
			return errors.New("they go on")
		}
		return served(20)
	})
	rss := v.peakRSS()
	t.Logf("%d MiB at the most: a budget of %d, a heap of %d, %d for the rest", rss>>20, attackBudget>>20, attackHeap>>20, attackOverhead>>20)
	if rss > attackBudget+attackHeap+attackOverhead {
		t.Errorf("it took %d MiB, %d more than the budget and the heap's limit", rss>>20, (rss-attackBudget-attackHeap)>>20)
	}
	for _, kind := range []string{"read", "input", "stranger"} {
		if v.metric(`mcached_admission_refused_total{bound="bytes",kind="`+kind+`"}`)+v.metric(`mcached_admission_cut_total{kind="`+kind+`"}`) == 0 {
			t.Errorf("nothing was refused for want of bytes of %s: the attacks are none", kind)
		}
	}
	cancel()
	busy.Wait()
	if err := served(1); err != nil {
		t.Error(err)
	}
	v.alive()
}

// serveOthers has well-behaved clients write, and read by both front doors, until
// ctx ends. served says whether each was served so often, and never refused, since the
// beginning or since anew was called.
func serveOthers(ctx context.Context, t *testing.T, v *victim, busy *sync.WaitGroup) (served func(times int64) error, anew func()) {
	type client struct {
		what  string
		do    func() error
		times atomic.Int64
	}
	// Each has its connection before the attacks begin: one that has not said its password
	// yet makes way like any other.
	get, set := v.client(), v.client()
	busy.Go(func() {
		<-ctx.Done()
		get.Close()
		set.Close()
	})
	clients := []*client{
		{what: "remote write", do: func() error {
			// Beyond --web.max-connections idle ones are closed, and this may be one as the
			// next request is on its way: with the header it is sent again, as by senders.
			code, said, err := v.post(ctx, numbered(t, "good", 0, 100), "Idempotency-Key", "good")
			if err == nil && code != http.StatusNoContent {
				err = fmt.Errorf("%d %s", code, said)
			}
			return err
		}},
		{what: "GET", do: func() error { return get.Get(ctx, "blob").Err() }},
		{what: "SET", do: func() error { return set.Set(ctx, "other", "x", 0).Err() }},
		{what: "query", do: func() error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.url+"/api/v1/query?query=good{i=%227%22}", nil)
			if err != nil {
				return err
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			defer res.Body.Close()
			b, err := io.ReadAll(res.Body)
			if err == nil && res.StatusCode != http.StatusOK {
				err = fmt.Errorf("%s: %s", res.Status, b)
			}
			return err
		}},
	}
	for _, c := range clients {
		busy.Go(func() {
			for ctx.Err() == nil {
				if err := c.do(); err != nil && ctx.Err() == nil {
					t.Errorf("%s: %v", c.what, err)
					return
				}
				c.times.Add(1)
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	served = func(times int64) error {
		for _, c := range clients {
			if n := c.times.Load(); n < times {
				return fmt.Errorf("%s: served %d times", c.what, n)
			}
		}
		return nil
	}
	anew = func() {
		for _, c := range clients {
			c.times.Store(0)
		}
	}
	return served, anew
}
