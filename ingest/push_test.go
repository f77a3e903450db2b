package ingest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// asker is a client that sends a command and reads what comes.
type asker struct {
	t testing.TB
	c net.Conn
	r *bufio.Reader
}

func newAsker(t testing.TB, addr string, first ...string) *asker {
	c := dial(t, addr)
	a := &asker{t, c, bufio.NewReader(c)}
	for _, line := range first {
		a.ask(strings.Fields(line)...)
	}
	return a
}

// read is what comes next, an answer or a push.
func (a *asker) read() string {
	a.t.Helper()
	got, err := readReply(a.r)
	if err != nil {
		a.t.Fatalf("after %q: %v", got, err)
	}
	return got
}

func (a *asker) ask(args ...string) string {
	a.t.Helper()
	send(a.t, a.c, bulks(args...))
	return a.read()
}

func (a *asker) want(want string, args ...string) {
	a.t.Helper()
	if got := a.ask(args...); got != want {
		a.t.Fatalf("%q: %q, want %q", args, got, want)
	}
}

// told fails unless the next thing to come is a push or a message.
func (a *asker) told(want string) {
	a.t.Helper()
	if got := a.read(); got != want {
		a.t.Fatalf("told %q, want %q", got, want)
	}
}

func invalidation(key string) string {
	return fmt.Sprintf(">2\r\n$10\r\ninvalidate\r\n*1\r\n$%d\r\n%s\r\n", len(key), key)
}

const allInvalid = ">2\r\n$10\r\ninvalidate\r\n_\r\n"

func TestSubscriptions(t *testing.T) {
	_, addr := newServer(t, nil)
	for _, resp3 := range []bool{false, true} {
		sub, pub := newAsker(t, addr), newAsker(t, addr)
		push := "*"
		if resp3 {
			sub.ask("HELLO", "3")
			push = ">"
		}
		sub.want(push+"3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", "SUBSCRIBE", "a")
		sub.want(push+"3\r\n$10\r\npsubscribe\r\n$2\r\na*\r\n:2\r\n", "PSUBSCRIBE", "a*")
		sub.want(push+"3\r\n$10\r\nssubscribe\r\n$1\r\na\r\n:1\r\n", "SSUBSCRIBE", "a")
		pub.want(":2\r\n", "PUBLISH", "a", "hello")
		sub.told(push + "3\r\n$7\r\nmessage\r\n$1\r\na\r\n$5\r\nhello\r\n")
		sub.told(push + "4\r\n$8\r\npmessage\r\n$2\r\na*\r\n$1\r\na\r\n$5\r\nhello\r\n")
		pub.want(":1\r\n", "SPUBLISH", "a", "shard")
		sub.told(push + "3\r\n$8\r\nsmessage\r\n$1\r\na\r\n$5\r\nshard\r\n")
		pub.want(":0\r\n", "PUBLISH", "b", "x")
		pub.want("*1\r\n$1\r\na\r\n", "PUBSUB", "CHANNELS")
		pub.want("*4\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n:0\r\n", "PUBSUB", "NUMSUB", "a", "b")
		pub.want(":1\r\n", "PUBSUB", "NUMPAT")
		if line := pub.ask("CLIENT", "LIST", "TYPE", "pubsub"); !strings.Contains(line, " sub=1 psub=1 ssub=1 ") || !strings.Contains(line, " flags=P ") {
			t.Errorf("CLIENT LIST: %q", line)
		}
		if resp3 {
			sub.want("$-1\r\n"[:0]+"_\r\n", "GET", "none")
		}
		sub.c.Close()
		waitFor(t, "the subscriptions to end", func() bool { return pub.ask("PUBSUB", "CHANNELS") == "*0\r\n" })
	}
}

// TestPushesDoNotOvertakeAnswers has a client track and read a key again and again
// while others write it. The client keeps what it was answered until it is told to
// forget it. In the end, when nobody writes any more, what it keeps must be what is
// there: an invalidation that comes before the old value it is about leaves that
// forever.
func TestPushesDoNotOvertakeAnswers(t *testing.T) {
	_, addr := newServer(t, nil)
	const keys, writers, writes, enough = 8, 3, 400, 50
	key := func(i int) string { return fmt.Sprint("key:", i) }
	reader := newAsker(t, addr, "HELLO 3", "CLIENT TRACKING on")
	var wg sync.WaitGroup
	var done atomic.Bool
	var told atomic.Int64
	for w := range writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c := newAsker(t, addr)
			for i := 0; i < writes || told.Load() < enough; i++ {
				c.want("+OK\r\n", "SET", key((i+w)%keys), fmt.Sprint(w, "-", i))
			}
		}()
	}
	go func() { wg.Wait(); done.Store(true) }()
	kept := map[string]string{}
	hear := func(got string) bool { // reports whether it was a push
		if !strings.HasPrefix(got, ">2\r\n$10\r\ninvalidate\r\n*1\r\n") {
			return false
		}
		parts := strings.Split(got, "\r\n")
		delete(kept, parts[5])
		told.Add(1)
		return true
	}
	for last := false; ; {
		if done.Load() {
			if last {
				break
			}
			last = true
		}
		// A pipeline, so that there are answers for pushes to overtake.
		var in strings.Builder
		var asked []string
		for i := range keys {
			if _, ok := kept[key(i)]; !ok {
				asked = append(asked, key(i))
				in.WriteString(bulks("GET", key(i)))
			}
		}
		in.WriteString(bulks("ECHO", "end"))
		send(t, reader.c, in.String())
		for {
			got := reader.read()
			if hear(got) {
				continue
			}
			if len(asked) == 0 {
				break // the echo
			}
			kept[asked[0]] = got
			asked = asked[1:]
		}
	}
	plain := newAsker(t, addr)
	plain.ask("HELLO", "3")
	// What was told at the end may still be on its way.
	for i := range keys {
		now := plain.ask("GET", key(i))
		for have, ok := kept[key(i)]; ok && have != now; have, ok = kept[key(i)] {
			if got := reader.read(); !hear(got) {
				t.Fatalf("%s is kept as %q, is %q, and then came %q", key(i), have, now, got)
			}
		}
	}
}

func TestTrackingModes(t *testing.T) {
	_, addr := newServer(t, nil)
	w := newAsker(t, addr)
	null := "_\r\n"

	d := newAsker(t, addr, "HELLO 3", "CLIENT TRACKING on")
	d.want(null, "GET", "a")
	d.want("*2\r\n_\r\n_\r\n", "MGET", "b", "c")
	w.want("+OK\r\n", "SET", "a", "1")
	d.told(invalidation("a"))
	w.want("+OK\r\n", "SET", "a", "2") // of which it is not told again
	w.want("+OK\r\n", "MSET", "b", "1", "c", "1")
	d.told(invalidation("b"))
	d.told(invalidation("c"))
	// What it writes itself, it is told of behind the answer.
	d.want("$1\r\n2\r\n", "GET", "a")
	d.want("+OK\r\n", "SET", "a", "3")
	d.told(invalidation("a"))
	d.want("$1\r\n3\r\n", "GET", "a")
	w.want("+OK\r\n", "FLUSHALL")
	d.told(allInvalid)
	// In a transaction, too.
	d.want("+OK\r\n", "MULTI")
	d.want("+QUEUED\r\n", "GET", "a")
	d.want("*1\r\n_\r\n", "EXEC")
	w.ask("HSET", "a", "f", "v")
	d.told(invalidation("a"))
	d.want("$1\r\nv\r\n", "HGET", "a", "f")
	w.want(":1\r\n", "EXPIRE", "a", "100")
	d.told(invalidation("a"))

	n := newAsker(t, addr, "HELLO 3", "CLIENT TRACKING on NOLOOP")
	n.want(null, "GET", "k")
	n.want("+OK\r\n", "SET", "k", "own")
	n.want("$3\r\nown\r\n", "GET", "k")
	w.want("+OK\r\n", "SET", "k", "other")
	n.told(invalidation("k"))

	in := newAsker(t, addr, "HELLO 3", "CLIENT TRACKING on OPTIN")
	in.want("$5\r\nother\r\n", "GET", "k")
	in.want("+OK\r\n", "CLIENT", "CACHING", "yes")
	in.want(null, "GET", "l")
	in.want(null, "GET", "m")
	w.want("+OK\r\n", "MSET", "k", "1", "l", "1", "m", "1")
	in.told(invalidation("l"))
	in.want("+PONG\r\n", "PING") // and of nothing else
	in.want("+OK\r\n", "CLIENT", "CACHING", "yes")
	in.want("+OK\r\n", "MULTI")
	in.want("+QUEUED\r\n", "PTTL", "k")
	in.want("+QUEUED\r\n", "GET", "m")
	in.want("*2\r\n:-1\r\n$1\r\n1\r\n", "EXEC")
	in.want("$1\r\n1\r\n", "GET", "l")
	w.want(":3\r\n", "DEL", "k", "l", "m")
	in.told(invalidation("k"))
	in.told(invalidation("m"))
	in.want("+PONG\r\n", "PING")

	out := newAsker(t, addr, "HELLO 3", "CLIENT TRACKING on OPTOUT")
	out.want(null, "GET", "k")
	out.want("+OK\r\n", "CLIENT", "CACHING", "no")
	out.want(null, "GET", "l")
	w.want("+OK\r\n", "MSET", "l", "1", "k", "1")
	out.told(invalidation("k"))
	out.want("+PONG\r\n", "PING")

	b := newAsker(t, addr, "HELLO 3", "CLIENT TRACKING on BCAST PREFIX user: PREFIX img:")
	w.want("+OK\r\n", "SET", "other", "1")
	w.want("+OK\r\n", "SET", "user:1", "1")
	b.told(invalidation("user:1"))
	w.want("+OK\r\n", "SET", "user:1", "2") // every time
	b.told(invalidation("user:1"))
	w.want(":1\r\n", "DEL", "user:1")
	b.told(invalidation("user:1"))
	b.want("+OK\r\n", "CLIENT", "TRACKING", "off")
	w.want("+OK\r\n", "SET", "user:1", "2")
	b.want("+PONG\r\n", "PING")

	if info := w.ask("INFO", "clients"); !strings.Contains(info, "tracking_clients:4\r\n") {
		t.Errorf("INFO: %q", info)
	}
}

// TestBroadcastsAreOne: who tracks with BCAST gets one message for a prefix and a
// command, a transaction or a script that wrote, with each key once.
func TestBroadcastsAreOne(t *testing.T) {
	_, addr := newServer(t, nil)
	b := newAsker(t, addr, "HELLO 3", "CLIENT TRACKING on BCAST PREFIX user: PREFIX img:")
	w := newAsker(t, addr, "HELLO 3", "CLIENT TRACKING on BCAST NOLOOP")
	const two = ">2\r\n$10\r\ninvalidate\r\n*2\r\n$6\r\nuser:a\r\n$6\r\nuser:b\r\n"
	w.want("+OK\r\n", "MSET", "user:b", "1", "other", "1", "user:a", "1", "user:b", "2")
	b.told(two)
	w.want("+OK\r\n", "MULTI")
	for _, key := range []string{"user:b", "user:a", "user:b"} {
		w.want("+QUEUED\r\n", "SET", key, "1")
	}
	w.want("*3\r\n+OK\r\n+OK\r\n+OK\r\n", "EXEC")
	b.told(two)
	// One that does not track has the SETs of its transactions run in bundles.
	p := newAsker(t, addr)
	p.want("+OK\r\n", "MULTI")
	for _, args := range [][]string{{"SET", "user:b", "1"}, {"GET", "user:b"}, {"SET", "user:a", "2"}, {"SET", "user:b", "3"}, {"INCR", "user:b"}, {"SET", "user:a", "4"}} {
		p.want("+QUEUED\r\n", args...)
	}
	p.want("*6\r\n+OK\r\n$1\r\n1\r\n+OK\r\n+OK\r\n:4\r\n+OK\r\n", "EXEC")
	b.told(two)
	w.told(two)
	w.want("_\r\n", "EVAL", "for _, k in ipairs(KEYS) do redis.call('set', k, 1) end", "3", "user:a", "user:b", "other")
	b.told(two)
	w.want("+OK\r\n", "SET", "img:1", "1")
	b.told(invalidation("img:1"))

	// Many are told in several, and none is left out.
	args, left := []string{"MSET"}, map[string]bool{}
	for i := range broadcastKeys + 10 {
		key := fmt.Sprint("user:", i)
		args, left[key] = append(args, key, "1"), true
	}
	w.want("+OK\r\n", args...)
	for messages := 0; len(left) > 0; messages++ {
		if messages == 3 { // the two clients have a prefix each
			t.Fatalf("%d keys are in no message", len(left))
		}
		for _, line := range strings.Split(b.read(), "\r\n") {
			delete(left, line)
		}
	}
	w.want("+PONG\r\n", "PING") // its own writes are not told it
	b.want("+PONG\r\n", "PING")
}

// TestPushesAreNotSilenced by CLIENT REPLY, which is about answers.
func TestPushesAreNotSilenced(t *testing.T) {
	_, addr := newServer(t, nil)
	for _, push := range []string{"*", ">"} {
		c, w := newAsker(t, addr), newAsker(t, addr)
		if push == ">" {
			c.ask("HELLO", "3")
		}
		send(t, c.c, bulks("CLIENT", "REPLY", "OFF")+bulks("UNSUBSCRIBE"))
		null := map[string]string{"*": "$-1\r\n", ">": "_\r\n"}[push]
		c.told(push + "3\r\n$11\r\nunsubscribe\r\n" + null + ":0\r\n")
		send(t, c.c, bulks("SET", "k", "v")+bulks("SUBSCRIBE", "news"))
		c.told(push + "3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n")
		w.want(":1\r\n", "PUBLISH", "news", "x")
		c.told(push + "3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$1\r\nx\r\n")
		send(t, c.c, bulks("UNSUBSCRIBE", "news")+bulks("GET", "k")+bulks("CLIENT", "REPLY", "ON"))
		c.told(push + "3\r\n$11\r\nunsubscribe\r\n$4\r\nnews\r\n:0\r\n")
		c.told("+OK\r\n")
	}
}

// TestTrackingRedirects to another connection, as clients of RESP2 do.
func TestTrackingRedirects(t *testing.T) {
	_, addr := newServer(t, nil)
	ear, mouth, w := newAsker(t, addr), newAsker(t, addr), newAsker(t, addr)
	id := strings.Trim(ear.ask("CLIENT", "ID"), ":\r\n")
	ear.ask("SUBSCRIBE", "__redis__:invalidate")
	mouth.want("+OK\r\n", "CLIENT", "TRACKING", "on", "REDIRECT", id)
	mouth.want(":"+id+"\r\n", "CLIENT", "GETREDIR")
	mouth.want("$-1\r\n", "GET", "a")
	w.want("+OK\r\n", "SET", "a", "1")
	ear.told("*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n*1\r\n$1\r\na\r\n")
	w.want("+OK\r\n", "FLUSHALL")
	ear.told("*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n$-1\r\n")
	mouth.ask("HELLO", "3")
	ear.c.Close()
	mouth.told(">2\r\n$21\r\ntracking-redir-broken\r\n:" + id + "\r\n")
	if info := mouth.ask("CLIENT", "TRACKINGINFO"); !strings.Contains(info, "broken_redirect") {
		t.Errorf("TRACKINGINFO: %q", info)
	}
	mouth.want("_\r\n", "GET", "a")
	w.want("+OK\r\n", "SET", "a", "1")
	mouth.told(">2\r\n$21\r\ntracking-redir-broken\r\n:" + id + "\r\n") // and no key
	mouth.want("$1\r\n1\r\n", "GET", "a")
}

// TestTrackingRedirectsUnasked: who speaks RESP3 is told without having subscribed, be
// it idle, in a loop or not, and whenever it began to; who speaks RESP2 if it has
// subscribed to anything.
func TestTrackingRedirectsUnasked(t *testing.T) {
	for _, alone := range []bool{false, true} {
		_, addr := newServerOf(t, alone, nil)
		ear, late, deaf, pattern, w := newAsker(t, addr, "HELLO 3"), newAsker(t, addr), newAsker(t, addr), newAsker(t, addr), newAsker(t, addr)
		redirects := func(to *asker) string {
			id := strings.Trim(to.ask("CLIENT", "ID"), ":\r\n")
			newAsker(t, addr, "CLIENT TRACKING on BCAST REDIRECT "+id)
			return id
		}
		id := redirects(ear)
		w.want("+OK\r\n", "SET", "k", "1")
		ear.told(invalidation("k"))
		redirects(late)
		w.want("+OK\r\n", "SET", "k", "1")
		ear.told(invalidation("k"))
		late.ask("HELLO", "3")
		w.want("+OK\r\n", "SET", "k", "1")
		late.told(invalidation("k"))
		redirects(deaf)
		redirects(pattern)
		pattern.ask("PSUBSCRIBE", "nothing*")
		w.want("+OK\r\n", "FLUSHALL")
		pattern.told("*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n$-1\r\n")
		ear.told(invalidation("k"))
		ear.told(">2\r\n$10\r\ninvalidate\r\n_\r\n")
		ear.want(":"+id+"\r\n", "CLIENT", "ID") // it is served as before
		deaf.want("+PONG\r\n", "PING")
	}
}

// TestTrackingSeesWhatVanishes without a write: what expires, what is evicted or
// reclaimed, and what the table has no room for.
func TestTrackingSeesWhatVanishes(t *testing.T) {
	clock := new(fakeClock)
	clock.ms.Store(time.Now().UnixMilli())
	s, addr := newServer(t, func(o *Options) {
		o.Now = clock.now
		o.MaxTrackedKeys = 100
		o.CommandTimeout = 100 * time.Millisecond // so that sweeps are often
	})
	w := newAsker(t, addr)
	d := newAsker(t, addr, "HELLO 3", "CLIENT TRACKING on")
	w.want("+OK\r\n", "SET", "a", "1", "PX", "5000")
	d.want("$1\r\n1\r\n", "GET", "a")
	clock.ms.Add(6000)
	d.told(invalidation("a"))

	w.want("+OK\r\n", "SET", "b", "1")
	d.want("$1\r\n1\r\n", "GET", "b")
	s.o.Memory.SetBudget(0) // all of it is wanted
	d.told(invalidation("b"))
	s.o.Memory.SetBudget(16 << 20)

	// One key more than the table has.
	for i := range 101 {
		d.want("_\r\n", "GET", fmt.Sprint("key:", i))
	}
	if got := d.read(); !strings.HasPrefix(got, ">2\r\n$10\r\ninvalidate\r\n*1\r\n") {
		t.Fatalf("told %q", got)
	}
	if got := w.ask("INFO", "stats"); !strings.Contains(got, "tracking_total_keys:100\r\n") {
		t.Errorf("other than 100 keys are tracked: %s", got)
	}
	d.c.Close()
	waitFor(t, "the table to be empty", func() bool { return strings.Contains(w.ask("INFO", "stats"), "tracking_total_keys:0\r\n") })
}

// TestTrackedBytesAreBounded: the table has no more bytes than it may have, however
// long the names and however many the clients.
func TestTrackedBytesAreBounded(t *testing.T) {
	const most = 16 << 10
	s, addr := newServer(t, func(o *Options) { o.MaxTrackedBytes = most })
	w := newAsker(t, addr)
	for _, nameBytes := range []int{1, 100, 1000} {
		for client := range 3 {
			d := newAsker(t, addr, "HELLO 3", "CLIENT TRACKING on")
			go io.Copy(io.Discard, d.c)
			var b bytes.Buffer
			for i := range 200 {
				name := fmt.Sprint(i, strings.Repeat("x", nameBytes))
				fmt.Fprintf(&b, "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", len(name), name)
			}
			done := fmt.Sprintf("done:%d:%d", nameBytes, client)
			fmt.Fprintf(&b, "SET %s 1\r\n", done)
			if _, err := d.c.Write(b.Bytes()); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "the keys to be read", func() bool { return w.ask("EXISTS", done) == ":1\r\n" })
			s.tracking.mu.Lock()
			keys, took := len(s.tracking.slots), s.tracking.bytesLocked()
			s.tracking.mu.Unlock()
			if took > most || took < most/2 {
				t.Errorf("names of %d bytes, %d clients: %d keys take %d bytes, the limit is %d", nameBytes, client+1, keys, took, most)
			}
		}
	}
}

// TestWhoFallsBehindIsClosed: nobody waits for a client that is told faster than it
// reads, and what waits for it is bounded.
func TestWhoFallsBehindIsClosed(t *testing.T) {
	s, addr := newServer(t, nil)
	sub, pub := newAsker(t, addr), newAsker(t, addr)
	sub.ask("SUBSCRIBE", "a")
	big := strings.Repeat("x", 200<<10)
	sent := 0
	for n := ":1\r\n"; n == ":1\r\n"; n = pub.ask("PUBLISH", "a", big) {
		if sent++; sent > 1000 {
			t.Fatal("all of it was taken")
		}
	}
	if sent*len(big) < backlogBytes/2 {
		t.Errorf("closed after %d messages of %d bytes", sent, len(big))
	}
	waitFor(t, "the client to be gone", func() bool { return s.Stats().Connections == 1 })
}

func TestMonitor(t *testing.T) {
	_, addr := newServer(t, func(o *Options) { o.Password = "secret" })
	m, w := newAsker(t, addr, "AUTH secret", "MONITOR"), newAsker(t, addr, "AUTH secret")
	w.want("+OK\r\n", "SET", "k\n\"", "\x00é\\")
	w.want("+OK\r\n", "MULTI")
	w.want("+QUEUED\r\n", "GET", "a")
	w.want("*1\r\n$-1\r\n", "EXEC")
	w.want("+OK\r\n", "AUTH", "secret")
	w.ask("HELLO", "2", "AUTH", "default", "secret", "SETNAME", "me")
	w.ask("HELLO", "auth", "default", "secret")
	w.want("$1\r\nv\r\n", "EVAL", "redis.call('set',KEYS[1],'v') return redis.call('get',KEYS[1])", "1", "k")
	w.want("+PONG\r\n", "PING")
	from := " [0 " + w.c.LocalAddr().String() + "] "
	for _, want := range []string{`"AUTH" "(redacted)"`, `"SET" "k\n\"" "\x00\xc3\xa9\\"`, `"MULTI"`, `"EXEC"`, `"GET" "a"`,
		`"AUTH" "(redacted)"`, `"HELLO" "2" "AUTH" "(redacted)" "(redacted)" "SETNAME" "me"`, `"HELLO" "auth" "(redacted)" "(redacted)"`,
		`"EVAL" "redis.call('set',KEYS[1],'v') return redis.call('get',KEYS[1])" "1" "k"`, `lua "set" "k" "v"`, `lua "get" "k"`, `"PING"`} {
		line, from := m.read(), from
		if called, ok := strings.CutPrefix(want, "lua "); ok {
			want, from = called, " [0 lua] "
		}
		if _, got, ok := strings.Cut(line, from); !ok || got != want+"\r\n" || line[0] != '+' {
			t.Fatalf("monitored %q, want %q", line, want)
		}
	}
	m.want("+RESET\r\n", "RESET")
	w.want("+PONG\r\n", "PING")
	m.want("-NOAUTH Authentication required.\r\n", "GET", "k")
	waitFor(t, "the monitor to be gone", func() bool { return !strings.Contains(w.ask("CLIENT", "LIST"), "flags=O") })
	w.want("+PONG\r\n", "PING")
}

// TestPauseOfWriters holds what may write, in a transaction and in a script, too.
func TestPauseOfWriters(t *testing.T) {
	_, addr := newServer(t, nil)
	admin := newAsker(t, addr)
	admin.want("+OK\r\n", "CLIENT", "PAUSE", "1000000", "WRITE")
	reader := newAsker(t, addr, "MULTI", "GET k")
	reader.want("*1\r\n$-1\r\n", "EXEC")
	writer, runner := newAsker(t, addr, "MULTI", "SET k 1"), newAsker(t, addr)
	send(t, writer.c, bulks("EXEC"))
	send(t, runner.c, bulks("EVAL", "return 1", "0"))
	waitFor(t, "both to wait", func() bool { return strings.Contains(admin.ask("INFO", "clients"), "blocked_clients:2\r\n") })
	admin.want("+OK\r\n", "CLIENT", "UNPAUSE")
	writer.told("*1\r\n+OK\r\n")
	runner.told(":1\r\n")
	waitFor(t, "nobody to wait", func() bool { return strings.Contains(admin.ask("INFO", "clients"), "blocked_clients:0\r\n") })
}

// TestPause holds writers, and all others when it is asked for, until it is over.
func TestPause(t *testing.T) {
	s, addr := newServer(t, nil)
	admin, c := newAsker(t, addr), newAsker(t, addr)
	c.want("+OK\r\n", "SET", "k", "1")
	admin.want("+OK\r\n", "CLIENT", "PAUSE", "1000000", "WRITE")
	c.want("$1\r\n1\r\n", "GET", "k")
	send(t, c.c, bulks("SET", "k", "2")+bulks("GET", "k"))
	waitFor(t, "the writer to wait outside of the loop", func() bool { return looped(s) == 1 })
	admin.want("$1\r\n1\r\n", "GET", "k")
	admin.want("+OK\r\n", "CLIENT", "PAUSE", "1000000", "ALL")
	d := newAsker(t, addr)
	send(t, d.c, bulks("GET", "k"))
	waitFor(t, "the reader to wait outside of the loop", func() bool { return looped(s) == 1 && s.Stats().Connections == 3 })
	admin.want("+OK\r\n", "CLIENT", "UNPAUSE")
	c.told("+OK\r\n")
	c.told("$1\r\n2\r\n")
	if got := d.read(); got != "$1\r\n2\r\n" && got != "$1\r\n1\r\n" {
		t.Errorf("GET: %q", got)
	}
	admin.want("+OK\r\n", "CLIENT", "PAUSE", "1") // which ends by itself
	c.want("+OK\r\n", "SET", "k", "3")
	// Who waits goes when the server does.
	admin.want("+OK\r\n", "CLIENT", "PAUSE", "1000000")
	send(t, c.c, bulks("SET", "k", "4"))
	for _, bad := range [][]string{{"x"}, {"-1"}, {"1", "FOO"}, {"1", "ALL", "x"}} {
		if got := admin.ask(append([]string{"CLIENT", "PAUSE"}, bad...)...); got[0] != '-' {
			t.Errorf("CLIENT PAUSE %q: %q", bad, got)
		}
	}
}
