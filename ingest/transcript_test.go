package ingest

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mcached/ingest/resp"
)

var update = flag.Bool("update", false, "record testdata/*.txt anew from redis-server")

// Transcripts are conversations with redis-server 7.0.15, recorded with
// `go test ./ingest -run Transcript -update`. A line "> …" is a command, typed
// as in redis-cli, the lines "< …" behind it are the answer, quoted. Each file
// is one connection to an empty server, in RESP3 if its name begins so.
//
// Replayed to our server the answers have to be the same to the byte.
// Replayed to redis-server, if there is one, they prove the recording.

func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			_, addr := newServer(t, nil)
			replay(t, addr, file, false)
		})
		t.Run("goroutine/"+filepath.Base(file), func(t *testing.T) {
			s, addr := newServerOf(t, true, nil)
			replay(t, addr, file, false)
			if n := looped(s); n != 0 {
				t.Errorf("%d connections were in a loop", n)
			}
		})
	}
}

func TestTranscriptsAreTrue(t *testing.T) {
	addr := startRedis(t)
	files, _ := filepath.Glob("testdata/*.txt")
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) { replay(t, addr, file, *update) })
	}
}

func replay(t *testing.T, addr, file string, record bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := talk(t, addr, "FLUSHALL\r\n"); got != "+OK\r\n" {
		t.Fatalf("FLUSHALL: %q", got)
	}
	c := dial(t, addr)
	r := bufio.NewReader(c)
	if strings.HasPrefix(filepath.Base(file), "resp3") {
		send(t, c, "HELLO 3\r\n")
		if hello, err := readReply(r); err != nil || hello[0] != '%' {
			t.Fatalf("HELLO 3: %q %v", hello, err)
		}
	}
	var recorded bytes.Buffer
	commands := 0
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	for i := 0; i < len(lines); {
		line := lines[i]
		i++
		typed, ok := strings.CutPrefix(line, "> ")
		if !ok {
			if record && !strings.HasPrefix(line, "< ") {
				recorded.WriteString(line + "\n")
			}
			continue
		}
		want := ""
		if i < len(lines) && strings.HasPrefix(lines[i], "< ") {
			if want, err = strconv.Unquote(lines[i][2:]); err != nil {
				t.Fatalf("%s:%d: %v", file, i+1, err)
			}
			i++
		}
		args, ok := resp.SplitLine([]byte(typed), nil)
		if !ok {
			t.Fatalf("%s:%d: unbalanced quotes", file, i)
		}
		words := make([]string, len(args))
		for j, a := range args {
			words[j] = string(a)
		}
		send(t, c, bulks(words...))
		got, err := readReply(r)
		if err != nil {
			t.Fatalf("%s:%d: %s: after %q: %v", file, i, typed, got, err)
		}
		commands++
		if record {
			fmt.Fprintf(&recorded, "%s\n< %s\n", line, strconv.Quote(got))
		} else if got != want {
			t.Errorf("%s:%d: %s\n got %q\nwant %q", file, i, typed, got, want)
		}
	}
	if commands == 0 {
		t.Fatalf("%s holds no commands", file)
	}
	if record {
		if err := os.WriteFile(file, recorded.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// readReply reads one answer of either protocol, as it is on the wire.
func readReply(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return line, err
	}
	n, _ := strconv.Atoi(strings.TrimSpace(line[1:]))
	switch line[0] {
	case '$', '=', '!':
		if n < 0 {
			return line, nil
		}
		b := make([]byte, n+2)
		for at := 0; at < len(b); {
			k, err := r.Read(b[at:])
			if err != nil {
				return line + string(b[:at]), err
			}
			at += k
		}
		return line + string(b), nil
	case '%':
		n *= 2
		fallthrough
	case '*', '~', '>':
		for range n {
			e, err := readReply(r)
			line += e
			if err != nil {
				return line, err
			}
		}
	}
	return line, nil
}

// program finds a program of Debian's packages redis-server and redis-tools.
// It must be there on the machine that decides whether a change is good.
func program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		const how = "%s is not installed (apt-get install redis-server redis-tools)"
		if os.Getenv("CI") == "true" {
			t.Fatalf(how, name)
		}
		t.Skipf(how, name)
	}
	return path
}

// startRedis runs a redis-server until the test ends. It cannot say which port
// the kernel chose for it, so it is given one that the kernel gives to nobody
// who does not ask for it, and another if that is in use.
func startRedis(t testing.TB) (addr string) {
	t.Helper()
	path := program(t, "redis-server")
	for range 20 {
		port := strconv.Itoa(10_000 + rand.IntN(20_000))
		cmd := exec.CommandContext(t.Context(), path, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
		addr = net.JoinHostPort("127.0.0.1", port)
		gone := false
		waitFor(t, "redis-server to listen or to end", func() bool {
			c, err := net.Dial("tcp", addr)
			if err == nil {
				c.Close()
			}
			select {
			case <-ended:
				gone = true
			default:
			}
			return err == nil || gone
		})
		if !gone {
			return addr
		}
	}
	t.Fatal("redis-server finds no port")
	return ""
}

// TestRandomCommandsAsRedis sends the same random commands to redis-server and
// to ours and compares every answer: few keys, small numbers, all of the
// options, so that commands meet each other's leavings.
func TestRandomCommandsAsRedis(t *testing.T) {
	theirs := startRedis(t)
	clock := time.Now() // ours stands still, and the times used are far away
	_, ours := newServer(t, func(o *Options) { o.Now = func() time.Time { return clock } })
	seed := testSeed(t)
	t.Logf("seed %d", seed)
	rng := newRand(seed)
	pick := func(of ...string) string { return of[rng.IntN(len(of))] }
	key := func() string { return pick("a", "b", "c", "d") }
	value := func() string {
		return pick("", "1", "-7", "10", "3.5", "abc", "9223372036854775807", "01", " 1", "1e3", strings.Repeat("x", 50))
	}
	number := func() string {
		return pick("0", "1", "-1", "2", "5", "-3", "100", "x", "9223372036854775807", "-9223372036854775808", "")
	}
	seconds := func() string { return pick("1000", "2000", "0", "-1", "x", "9223372036854775807") }
	ttl := func() []string {
		switch rng.IntN(6) {
		case 0:
			return []string{pick("EX", "ex"), seconds()}
		case 1:
			return []string{"PX", pick("1000000", "0", "x")}
		case 2:
			return []string{"EXAT", pick("99999999999", "0")}
		case 3:
			return []string{"PXAT", pick("99999999999999", "-5")}
		}
		return nil
	}
	option := func(of ...string) []string {
		if rng.IntN(2) == 0 {
			return nil
		}
		return []string{pick(of...)}
	}
	join := func(parts ...[]string) (all []string) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	one := func(w ...string) []string { return w }
	unique := 0
	commands := []func() []string{
		func() []string { return one("GET", key()) },
		func() []string { return one("set", key(), value()) },
		func() []string {
			return join(one("SET", key(), value()), option("NX", "XX", "nx"), option("GET", "KEEPTTL"), ttl(), option("GET", "XX", "KEEPTTL"))
		},
		func() []string { return one("SETNX", key(), value()) },
		func() []string { return one("SETEX", key(), seconds(), value()) },
		func() []string { return one("PSETEX", key(), pick("1000000", "0", "x"), value()) },
		func() []string { return one("GETSET", key(), value()) },
		func() []string { return one("GETDEL", key()) },
		func() []string { return join(one("GETEX", key()), ttl(), option("PERSIST")) },
		func() []string { return one("MGET", key(), key(), key()) },
		func() []string { return one("MSET", key(), value(), key(), value()) },
		func() []string { return one("MSETNX", key(), value(), key(), value()) },
		func() []string { return one("APPEND", key(), pick("", "y", "5")) }, // no x: 0x5 is five to INCRBYFLOAT there
		func() []string { return one("STRLEN", key()) },
		func() []string { return one("GETRANGE", key(), number(), number()) },
		func() []string { return one("INCR", key()) },
		func() []string { return one("DECR", key()) },
		func() []string { return one("INCRBY", key(), number()) },
		func() []string { return one("DECRBY", key(), number()) },
		func() []string { return one("INCRBYFLOAT", key(), pick("1", "0.5", "-2.25", "x", "inf", "1e2")) },
		func() []string { return one("DEL", key(), key()) },
		func() []string { return one("UNLINK", key()) },
		func() []string { return one("EXISTS", key(), key()) },
		func() []string { return one("TOUCH", key(), key()) },
		func() []string { return one("TYPE", key()) },
		func() []string { return one(pick("TTL", "EXPIRETIME"), key()) },
		func() []string {
			// No two times are so close that it matters whose clock runs on.
			unique++
			at := strconv.Itoa(unique*7919%20_000*10_000 + 5000)
			return join(one(pick("EXPIRE", "PEXPIRE"), key(), pick(at, at, at, "-1", "x", "9223372036854775807")),
				option("NX", "XX", "GT", "LT", "foo"), option("LT", "XX"))
		},
		func() []string {
			return join(one(pick("EXPIREAT", "PEXPIREAT"), key(), pick("99999999999", "1")), option("NX", "XX", "GT", "LT"))
		},
		func() []string { return one("PERSIST", key()) },
		func() []string { return one("OBJECT", "ENCODING", "z") },
		func() []string { return one("DBSIZE") },
		func() []string { return join(one("HSET", key(), value(), value()), option("f", "g"), option("1")) },
		func() []string { return one("HSETNX", key(), value(), value()) },
		func() []string { return one(pick("HGET", "HEXISTS", "HSTRLEN"), key(), value()) },
		func() []string { return one("HMGET", key(), value(), value()) },
		func() []string { return one(pick("HGETALL", "HKEYS", "HVALS", "HLEN"), key()) },
		func() []string { return one("HDEL", key(), value(), value()) },
		func() []string { return one("HINCRBY", key(), value(), number()) },
		func() []string {
			return one("HINCRBYFLOAT", key(), value(), pick("1", "0.5", "-2.25", "x", "inf", "1e2"))
		},
		func() []string { return one("HSCAN", key(), "0", "MATCH", pick("*", "a*", "1*")) },
		func() []string { return one(pick("SADD", "SREM"), key(), value(), value()) },
		func() []string { return one("SMISMEMBER", key(), value(), value()) },
		func() []string { return one(pick("SMEMBERS", "SCARD"), key()) },
		func() []string { return one("SMOVE", key(), key(), value()) },
		func() []string { return one(pick("SINTER", "SUNION", "SDIFF"), key(), key()) },
		func() []string { return one(pick("RENAME", "RENAMENX"), key(), key()) },
		func() []string { return join(one("COPY", key(), key()), option("REPLACE"), option("DB", "FOO")) },
		func() []string { return one("SETRANGE", key(), pick("0", "3", "-1", "x"), pick("", "abc")) },
		func() []string { return one("OBJECT", "REFCOUNT", "z") },
		func() []string { return one("SELECT", pick("0", "0", "1", "2", "-1", "16", "x")) },
		func() []string { return one("MOVE", key(), pick("0", "1", "2", "16", "x")) },
		func() []string { return one("SWAPDB", pick("0", "1"), pick("1", "2", "x")) },
		func() []string { return one(pick("FLUSHDB", "DBSIZE", "DBSIZE", "DBSIZE")) },
		func() []string { return one(pick("GET", "SET", "MSET", "INCRBY", "EXPIRE", "FOO", "OBJECT"), key()) },
		func() []string { return one(pick("MULTI", "MULTI", "EXEC", "EXEC", "DISCARD", "UNWATCH")) },
		func() []string {
			return one(pick("EVAL", "EVAL_RO"), pick(
				"return {redis.call('get', KEYS[1]), redis.pcall('incrby', KEYS[1], ARGV[1])}",
				"redis.call('append', KEYS[1], ARGV[1]) return redis.call('hset', KEYS[1], 'f', 1)",
				"return redis.call(unpack(ARGV))",
				"local t = redis.pcall('hgetall', KEYS[1]) return {#t, t.err or t}",
			), "1", key(), value())
		},
	}
	a, b := dial(t, ours), dial(t, theirs)
	ra, rb := bufio.NewReader(a), bufio.NewReader(b)
	errors, nulls, transactions := 0, 0, 0
	resp3, queues := false, false
	for i := range 20_000 {
		if i >= 10_000 && !resp3 && !queues { // in a transaction HELLO would be one of its answers
			resp3 = true
			for _, c := range []*bufio.Reader{ra, rb} {
				conn := map[*bufio.Reader]net.Conn{ra: a, rb: b}[c]
				send(t, conn, bulks("HELLO", "3"))
				if _, err := readReply(c); err != nil {
					t.Fatal(err)
				}
			}
		}
		args := commands[rng.IntN(len(commands))]()
		if queues && rng.IntN(6) == 0 {
			args = one("EXEC")
		}
		if queues && strings.Contains("TTL EXPIRETIME SMEMBERS SINTER SUNION SDIFF", args[0]) {
			continue // see below
		}
		send(t, a, bulks(args...))
		send(t, b, bulks(args...))
		got, err := readReply(ra)
		if err != nil {
			t.Fatalf("command %d, %q: %v", i, args, err)
		}
		want, err := readReply(rb)
		if err != nil {
			t.Fatalf("command %d, %q: redis: %v", i, args, err)
		}
		// Redis' clock runs on meanwhile.
		if strings.Contains("TTL EXPIRETIME", args[0]) && near(got, want, 60) {
			continue
		}
		if got[0] == '*' || got[0] == '~' { // what Redis has in a table is in no order
			if strings.Contains("SMEMBERS SINTER SUNION SDIFF", args[0]) {
				got, want = sorted(got), sorted(want)
			}
		}
		if got != want {
			t.Fatalf("seed %d, command %d, %q: got %q, redis %q", seed, i, args, got, want)
		}
		switch {
		case args[0] == "MULTI" && got[0] == '+':
			queues = true
		case queues && len(args) == 1 && strings.Contains("EXEC DISCARD", args[0]):
			queues = false
			transactions++
		}
		if got[0] == '-' {
			errors++
		}
		if got == "$-1\r\n" || got == "_\r\n" {
			nulls++
		}
	}
	if errors < 1000 || nulls < 1000 || transactions < 100 {
		t.Fatalf("only %d errors, %d nulls and %d transactions: the commands do not try much", errors, nulls, transactions)
	}
}

// sorted is a reply of bulks with these in order.
func sorted(reply string) string {
	parts := strings.Split(reply, "$")
	slices.Sort(parts[1:])
	return strings.Join(parts, "$")
}

func near(a, b string, d int) bool {
	x, err1 := strconv.Atoi(strings.Trim(a, ":\r\n"))
	y, err2 := strconv.Atoi(strings.Trim(b, ":\r\n"))
	return err1 == nil && err2 == nil && x-y <= d && y-x <= d && (x < 0) == (y < 0)
}
