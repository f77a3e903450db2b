package ingest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"mcached/ingest/admission"
)

// TestTransactionsAreAtomic has clients of all kinds, in loops and outside of
// them, move one unit at a time between two keys by transactions.
func TestTransactionsAreAtomic(t *testing.T) {
	_, addr := newServer(t, nil)
	c := redis.NewClient(&redis.Options{Addr: addr, Protocol: 2, DisableIdentity: true})
	defer c.Close()
	sumStays(t, c, 150, func(ctx context.Context) error {
		_, err := c.TxPipelined(ctx, func(p redis.Pipeliner) error {
			p.Decr(ctx, "a")
			p.Incr(ctx, "b")
			return nil
		})
		return err
	})
}

// sumStays has four clients move units from a to b, so many times each, while as
// many others look at both: all see the same sum, and in the end all were moved.
func sumStays(t *testing.T, c *redis.Client, rounds int, move func(context.Context) error) {
	t.Helper()
	const clients = 4
	ctx := context.Background()
	if err := c.MSet(ctx, "a", 1000, "b", 1000).Err(); err != nil {
		t.Fatal(err)
	}
	var movers, readers sync.WaitGroup
	done := make(chan struct{})
	for range clients {
		movers.Go(func() {
			for range rounds {
				if err := move(ctx); err != nil {
					t.Error(err)
					return
				}
			}
		})
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				v, err := c.MGet(ctx, "a", "b").Result()
				if err != nil {
					t.Error(err)
					return
				}
				var a, b int
				_, _ = fmt.Sscan(v[0].(string), &a)
				_, _ = fmt.Sscan(v[1].(string), &b)
				if a+b != 2000 {
					t.Errorf("%d and %d", a, b)
					return
				}
			}
		})
	}
	movers.Wait()
	close(done)
	readers.Wait()
	if v := c.MGet(ctx, "a", "b").Val(); fmt.Sprint(v) != fmt.Sprint([]any{fmt.Sprint(1000 - clients*rounds), fmt.Sprint(1000 + clients*rounds)}) {
		t.Errorf("%v", v)
	}
}

// TestWatchLosesNoUpdate counts by hand: read, add one, write if nobody else did.
func TestWatchLosesNoUpdate(t *testing.T) {
	s, addr := newServer(t, nil)
	ctx := context.Background()
	c := redis.NewClient(&redis.Options{Addr: addr, DisableIdentity: true})
	defer c.Close()
	const clients, rounds = 4, 60
	var wg sync.WaitGroup
	for range clients {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for n := 0; n < rounds; {
				err := c.Watch(ctx, func(tx *redis.Tx) error {
					v, err := tx.Get(ctx, "n").Int()
					if err != nil && !errors.Is(err, redis.Nil) {
						return err
					}
					_, err = tx.TxPipelined(ctx, func(p redis.Pipeliner) error { p.Set(ctx, "n", v+1, 0); return nil })
					return err
				}, "n")
				switch {
				case err == nil:
					n++
				case !errors.Is(err, redis.TxFailedErr):
					t.Error(err)
					return
				}
			}
		}()
	}
	wg.Wait()
	if v := c.Get(ctx, "n").Val(); v != fmt.Sprint(clients*rounds) {
		t.Errorf("%s, want %d", v, clients*rounds)
	}
	c.Close()
	eventually(t, "nothing is watched", func() error {
		s.watchers.mu.Lock()
		defer s.watchers.mu.Unlock()
		if len(s.watchers.keys) > 0 || s.watchers.some.Load() {
			return fmt.Errorf("%d keys are watched", len(s.watchers.keys))
		}
		return nil
	})
}

// TestWatchSeesAllWays writes a watched key in each of the ways there are.
func TestWatchSeesAllWays(t *testing.T) {
	clock := &fakeClock{}
	clock.ms.Store(1_700_000_000_000)
	s, addr := newServer(t, func(o *Options) { o.Now = clock.now })
	for name, change := range map[string]func(t *testing.T){
		"alone":       func(t *testing.T) { converse(t, addr, "APPEND k x") },
		"plain":       func(t *testing.T) { converse(t, addr, "SET k v") },
		"bundle":      func(t *testing.T) { talk(t, addr, strings.Repeat(bulks("SET", "j", "v"), 3)+bulks("SET", "k", "v")) },
		"mset":        func(t *testing.T) { converse(t, addr, "MSET j 1 k 1") },
		"transaction": func(t *testing.T) { talk(t, addr, "MULTI\r\nSET k 1\r\nEXEC\r\n") },
		"series":      func(t *testing.T) { converse(t, addr, "TS.ADD k * 1") },
		"expired":     func(*testing.T) { clock.ms.Add(5000) },
		"gone":        func(*testing.T) { s.o.Blobs.Clear() }, // as when memory is wanted
		"flush":       func(t *testing.T) { converse(t, addr, "FLUSHDB") },
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, addr)
			r := bufio.NewReader(c)
			say := func(line, want string) {
				t.Helper()
				send(t, c, line+"\r\n")
				if got, err := readReply(r); got != want || err != nil {
					t.Fatalf("%s: %q %v, want %q", line, got, err, want)
				}
			}
			for _, again := range []bool{false, true} {
				converse(t, addr, "SET k v PX 1000")
				say("WATCH k", "+OK\r\n")
				change(t)
				if again { // which forgets nothing
					say("WATCH k other", "+OK\r\n")
				}
				say("MULTI", "+OK\r\n")
				say("PING", "+QUEUED\r\n")
				say("EXEC", "*-1\r\n")
				say("PING", "+PONG\r\n")
				converse(t, addr, "DEL k")
			}
		})
	}
}

// TestFlushSparesWhatIsNotThere: a watched key that was not there is not changed
// by FLUSHALL.
func TestFlushSparesWhatIsNotThere(t *testing.T) {
	_, addr := newServer(t, nil)
	if got := talk(t, addr, "WATCH none\r\nFLUSHALL\r\nMULTI\r\nPING\r\nEXEC\r\n"); got != "+OK\r\n+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n+PONG\r\n" {
		t.Errorf("got %q", got)
	}
}

// TestTransactionsAreBounded: what a client queues and never runs is limited,
// and held from the same room as everything else.
func TestTransactionsAreBounded(t *testing.T) {
	_, addr := newServer(t, func(o *Options) { o.MaxBulkBytes, o.MaxCommandBytes = 64<<10, 100<<10 })
	got := talk(t, addr, "MULTI\r\n"+strings.Repeat(bulks("SET", "k", strings.Repeat("v", 40<<10)), 3)+"EXEC\r\nGET k\r\n")
	want := "+OK\r\n+QUEUED\r\n+QUEUED\r\n-ERR too many bytes in a transaction: 123324, the limit is 102400\r\n-EXECABORT Transaction discarded because of previous errors.\r\n$-1\r\n"
	if got != want {
		t.Errorf("got %q", got)
	}
	_, large := newServer(t, nil)
	got = talk(t, large, "MULTI\r\n"+strings.Repeat("PING\r\n", maxQueued+1)+"EXEC\r\n")
	if !strings.HasSuffix(got, "-ERR too many commands in a transaction, the limit is 65536\r\n-EXECABORT Transaction discarded because of previous errors.\r\n") {
		t.Errorf("got %q", got[max(len(got)-200, 0):])
	}
	// Answers beyond the bound end the connection, and nobody else's.
	got = talk(t, addr, bulks("SET", "k", strings.Repeat("v", 60<<10))+"MULTI\r\nGET k\r\nGET k\r\nSET l 1\r\nEXEC\r\nPING\r\n")
	if !strings.Contains(got, "-ERR the answers of the transaction are too long, the limit is 102400 bytes\r\n") || strings.Contains(got, "PONG") {
		t.Errorf("got %.300q", got)
	}
	if got := converse(t, addr, "GET l"); got[0] != "$1\r\n1\r\n" {
		t.Errorf("got %q", got)
	}
}

// TestTransactionsEndWithTheirConnection gives back what they hold.
func TestTransactionsEndWithTheirConnection(t *testing.T) {
	pool := newPool(t, admission.Options{})
	_, addr := newServer(t, func(o *Options) { o.Admission = pool })
	for _, end := range []string{"", "RESET\r\nPING\r\n", "QUIT\r\n", "DISCARD\r\nPING\r\n", "EXEC\r\n", "NOSUCH\r\nEXEC\r\n"} {
		talk(t, addr, "WATCH a b\r\nMULTI\r\n"+strings.Repeat(bulks("SET", "k", strings.Repeat("v", 10<<10)), 20)+end)
		nothingHeld(t, pool)
	}
}

// TestTransactionsAnswerAsAlone runs random commands one by one, and on another server
// in transactions: the answers are the same, GETs and SETs that were run together
// included.
func TestTransactionsAnswerAsAlone(t *testing.T) {
	rng := newRand(testSeed(t))
	alone, queued := newSession(t, nil), newSession(t, nil)
	answers := func(c *conn, input string) string {
		var out strings.Builder
		c.nc = writer{w: &out}
		c.feed([]byte(input))
		return out.String()
	}
	key := func() string { return string(rune('a' + rng.IntN(5))) }
	long, wrong := 0, 0
	for round := range 400 {
		n := 1 + rng.IntN(30)
		if round%20 == 0 {
			n = 200 // several bundles, and more than a loop runs
		}
		var want strings.Builder
		tx := bulks("MULTI")
		for range n {
			command := [][]string{
				{"SET", key(), fmt.Sprint(rng.IntN(1000))}, {"set", key(), strings.Repeat("v", rng.IntN(3000))}, {"GET", key()}, {"get", key()},
				{"SET", key(), "1", "NX"}, {"INCR", key()}, {"MSET", key(), "1", key(), "2"}, {"MGET", key(), key()}, {"DEL", key()}, {"HSET", key(), "f", "v"},
				{"SELECT", fmt.Sprint(rng.IntN(2))},
			}[rng.IntN(11)]
			want.WriteString(answers(alone, bulks(command...)))
			tx += bulks(command...)
		}
		got := answers(queued, tx+bulks("EXEC"))
		head := "+OK\r\n" + strings.Repeat("+QUEUED\r\n", n) + fmt.Sprintf("*%d\r\n", n)
		if got != head+want.String() {
			t.Fatalf("round %d: %q\n got %.3000q\nwant %.3000q", round, tx, got, head+want.String())
		}
		wrong += strings.Count(got, "-WRONGTYPE")
		if n > turnCommands {
			long++
		}
	}
	if wrong < 50 || long < 10 || alone.failed != queued.failed {
		t.Fatalf("%d errors, %d long transactions, %d and %d failed", wrong, long, alone.failed, queued.failed)
	}
}

// TestShortTransactionsStayInTheLoop, and long ones leave it.
func TestShortTransactionsStayInTheLoop(t *testing.T) {
	s, addr := newServer(t, nil)
	c := dial(t, addr)
	r := bufio.NewReader(c)
	run := func(n int, command ...string) {
		send(t, c, bulks("MULTI")+strings.Repeat(bulks(command...), n)+bulks("EXEC"))
		for range n + 2 {
			if a, err := readReply(r); err != nil || a[0] == '-' {
				t.Fatalf("%q, %v", a, err)
			}
		}
	}
	send(t, c, "PING\r\n")
	if _, err := readReply(r); err != nil {
		t.Fatal(err)
	}
	if n := looped(s); n != 1 {
		t.Fatalf("%d connections in loops, want 1", n)
	}
	run(10, "SET", "k", "v")
	run(turnCommands, "GET", "k")
	if n := looped(s); n != 1 {
		t.Errorf("%d connections in loops after short transactions, want 1", n)
	}
	run(1, "KEYS", "*")
	if n := looped(s); n != 0 {
		t.Errorf("%d connections in loops after a slow transaction, want 0", n)
	}
	run(10, "SET", "k", "v") // outside of it
}
