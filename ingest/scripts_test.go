package ingest

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mcached/ingest/script"
)

// TestScriptsAreAtomic has scripts move units between two keys, across pipelines
// of plain commands; every reader, and every script, sees the same sum.
func TestScriptsAreAtomic(t *testing.T) {
	_, addr := newServer(t, nil)
	c := redis.NewClient(&redis.Options{Addr: addr, DisableIdentity: true})
	defer c.Close()
	mover := redis.NewScript(`local a = redis.call('decr', KEYS[1]) local b = redis.call('incr', KEYS[2]) return a + b`)
	sumStays(t, c, 100, func(ctx context.Context) error {
		n, err := mover.Run(ctx, c, []string{"a", "b"}).Int()
		if err == nil && n != 2000 {
			err = fmt.Errorf("a script saw %d", n)
		}
		return err
	})
}

// TestOthersAreToldOfLongScripts: who waits for a script is told BUSY after a
// while, can end it by SCRIPT KILL unless it has written, and is served again.
func TestOthersAreToldOfLongScripts(t *testing.T) {
	s, addr := newServer(t, func(o *Options) { o.ScriptTimeout, o.MaxScriptSteps = 500*time.Millisecond, 1<<30 })
	for _, wrote := range []bool{false, true} {
		t.Run(fmt.Sprint("wrote ", wrote), func(t *testing.T) {
			source := "while true do redis.call('get','k') end"
			if wrote {
				source = "redis.call('set','w','1') " + source
			}
			loops := dial(t, addr) // served in the loop before the script begins
			r := bufio.NewReader(loops)
			say := func(args ...string) string {
				t.Helper()
				send(t, loops, bulks(args...))
				got, err := readReply(r)
				if err != nil {
					t.Fatal(err)
				}
				return strings.TrimSpace(got)
			}
			if got := say("PING"); got != "+PONG" {
				t.Fatal(got)
			}
			runner := dial(t, addr)
			send(t, runner, bulks("EVAL", source, "0"))
			waitFor(t, "the script to run", func() bool { return s.scripts.now.Load() != nil })
			busy, killed := false, ""
			for s.scripts.now.Load() != nil {
				got := say("GET", "k")
				busy = busy || got == "-"+errBusy
				if busy && killed == "" {
					killed = say("SCRIPT", "KILL")
				}
			}
			answer, err := readReply(bufio.NewReader(runner))
			if err != nil {
				t.Fatal(err)
			}
			// On a machine that is very slow the script may be over before anybody is told.
			switch {
			case !busy:
				t.Log("the script was over before anybody was told")
			case killed == "+OK" && !strings.HasPrefix(answer, "-ERR Script killed by user with SCRIPT KILL."),
				strings.HasPrefix(killed, "-UNKILLABLE") && !strings.HasPrefix(answer, "-ERR script ended after 500ms; what it has written stays"),
				strings.HasPrefix(killed, "-UNKILLABLE") != wrote && !strings.HasPrefix(killed, "-NOTBUSY"):
				t.Errorf("killed: %q, answer: %q", killed, answer)
			}
			if got := say("GET", "k"); got != "$-1" {
				t.Errorf("afterwards: %q", got)
			}
			if got := say("GET", "w"); (got == "$1\r\n1") != wrote {
				t.Errorf("what was written: %q", got)
			}
		})
	}
	if got := talk(t, addr, "SCRIPT KILL\r\n"); got != "-NOTBUSY No scripts in execution right now.\r\n" {
		t.Errorf("got %q", got)
	}
}

// TestInfoCountsScripts that are kept.
func TestInfoCountsScripts(t *testing.T) {
	_, addr := newServer(t, nil)
	a := newAsker(t, addr)
	for i := range 3 {
		a.ask("EVAL", fmt.Sprint("return ", i), "0")
	}
	if info := a.ask("INFO", "memory"); !strings.Contains(info, "number_of_cached_scripts:3\r\n") {
		t.Errorf("%q", info)
	}
	a.want("+OK\r\n", "SCRIPT", "FLUSH")
	if info := a.ask("INFO", "memory"); !strings.Contains(info, "number_of_cached_scripts:0\r\n") {
		t.Errorf("after SCRIPT FLUSH: %q", info)
	}
}

// TestExecIsAbortedWhileBusy: a transaction that meets a long script is over, and
// what was queued does not run.
func TestExecIsAbortedWhileBusy(t *testing.T) {
	s, addr := newServer(t, nil)
	c, d := newAsker(t, addr), newAsker(t, addr)
	for _, a := range []*asker{c, d} {
		a.want("+OK\r\n", "MULTI")
	}
	c.want("+QUEUED\r\n", "SET", "k", "1")
	run := &scriptRun{busy: make(chan struct{}), over: make(chan struct{})}
	s.mu.Lock()
	gates := slices.Clone(s.gates.all)
	s.mu.Unlock()
	for _, gate := range gates {
		gate.Lock()
	}
	close(run.busy)
	s.scripts.now.Store(run)
	d.want("-"+errBusy+"\r\n", "SET", "k", "2")
	c.want("-EXECABORT Transaction discarded because of: "+errBusy+"\r\n", "EXEC")
	s.scripts.now.Store(nil)
	close(run.over)
	for _, gate := range gates {
		gate.Unlock()
	}
	c.want("$-1\r\n", "GET", "k")
	c.want("-ERR EXEC without MULTI\r\n", "EXEC")
	d.want("-EXECABORT Transaction discarded because of previous errors.\r\n", "EXEC")
}

// TestScriptsAreForgotten, those first that were not used for the longest time.
func TestScriptsAreForgotten(t *testing.T) {
	k := newScripting(&Options{ScriptTimeout: time.Second})
	sha := func(i int) string { return script.SHA(fmt.Appendf(nil, "return %d", i)) }
	for i := range maxScripts + 10 {
		p, err := script.Compile(fmt.Appendf(nil, "return %d", i))
		if err != nil {
			t.Fatal(err)
		}
		k.keep(p)
		k.find(sha(0))
	}
	if len(k.cache) != maxScripts || k.find(sha(0)) == nil || k.find(sha(1)) != nil || k.find(sha(maxScripts+9)) == nil {
		t.Errorf("%d scripts are kept", len(k.cache))
	}
	for i := range 3 {
		k.keep(&script.Program{SHA: fmt.Sprint("large", i), Bytes: maxScriptBytes / 2})
	}
	if len(k.cache) != 2 || k.bytes != maxScriptBytes/2*2 {
		t.Errorf("%d scripts of %d bytes", len(k.cache), k.bytes)
	}
}

// TestScriptsOfClients are in the shapes of those that libraries send: locks that
// are taken, kept and given back, sessions that are locked, rates that are counted.
func TestScriptsOfClients(t *testing.T) {
	clock := &fakeClock{}
	clock.ms.Store(1_700_000_000_000)
	_, addr := newServer(t, func(o *Options) { o.Now = clock.now })
	say := func(want string, args ...string) {
		t.Helper()
		if got := talk(t, addr, bulks(args...)); got != want {
			t.Errorf("%q: %q, want %q", args, got, want)
		}
	}
	t.Run("lock", func(t *testing.T) { // as of redis-py, redlock, bsm/redislock
		release := "local token = redis.call('get', KEYS[1])\nif not token or token ~= ARGV[1] then return 0 end\nredis.call('del', KEYS[1])\nreturn 1"
		extend := "local token = redis.call('get', KEYS[1])\nif not token or token ~= ARGV[1] then return 0 end\nlocal left = redis.call('pttl', KEYS[1])\nif not left then left = 0 end\nif left < 0 then return 0 end\nlocal new = ARGV[2]\nif ARGV[3] == '0' then new = ARGV[2] + left end\nredis.call('pexpire', KEYS[1], new)\nreturn 1"
		refresh := `if redis.call("get", KEYS[1]) == ARGV[1] then return redis.call("pexpire", KEYS[1], ARGV[2]) else return 0 end`
		say("+OK\r\n", "SET", "lock", "mine", "NX", "PX", "10000")
		say("$-1\r\n", "SET", "lock", "yours", "NX", "PX", "10000")
		say(":0\r\n", "EVAL", release, "1", "lock", "yours")
		say(":1\r\n", "EVAL", extend, "1", "lock", "mine", "5000", "0")
		say(":15000\r\n", "PTTL", "lock")
		say(":1\r\n", "EVAL", extend, "1", "lock", "mine", "5000", "1")
		say(":5000\r\n", "PTTL", "lock")
		say(":1\r\n", "EVAL", refresh, "1", "lock", "mine", "7000")
		say(":1\r\n", "EVAL", release, "1", "lock", "mine")
		say(":0\r\n", "EXISTS", "lock")
		many := "local n = 0\nfor i, key in ipairs(KEYS) do\n if redis.call('set', key, ARGV[1], 'NX', 'PX', ARGV[2]) then n = n + 1 end\nend\nif n ~= #KEYS then\n for i, key in ipairs(KEYS) do if redis.call('get', key) == ARGV[1] then redis.call('del', key) end end\n return redis.status_reply('taken')\nend\nreturn redis.status_reply('OK')"
		say("+OK\r\n", "EVAL", many, "2", "l1", "l2", "me", "1000")
		say("+taken\r\n", "EVAL", many, "2", "l3", "l2", "you", "1000")
		say(":0\r\n", "EXISTS", "l3")
	})
	t.Run("session", func(t *testing.T) { // as of phpredis: the lock's token, and 1, 2, 3
		release := "if redis.call(\"get\",KEYS[1]) == ARGV[1] then return redis.call(\"del\",KEYS[1]) else return 0 end"
		sha := script.SHA([]byte(release))
		for i := 1; i <= 3; i++ {
			say("+OK\r\n", "SET", "PHPREDIS_SESSION:s_LOCK", fmt.Sprint("host|", i), "NX", "PX", "30000")
			say("$-1\r\n", "SET", "PHPREDIS_SESSION:s_LOCK", "other", "NX", "PX", "30000")
			count := fmt.Sprintf("count|i:%d;", i)
			say("+OK\r\n", "SETEX", "PHPREDIS_SESSION:s", "1440", count)
			say(bulk(count), "GET", "PHPREDIS_SESSION:s")
			if i == 1 {
				say("-"+errNoScript+"\r\n", "EVALSHA", sha, "1", "PHPREDIS_SESSION:s_LOCK", "host|1")
				say(":1\r\n", "EVAL", release, "1", "PHPREDIS_SESSION:s_LOCK", "host|1")
			} else {
				say(":1\r\n", "EVALSHA", sha, "1", "PHPREDIS_SESSION:s_LOCK", fmt.Sprint("host|", i))
			}
		}
	})
	t.Run("rate", func(t *testing.T) { // as of rate-limiter-flexible
		limit := "redis.call('set', KEYS[1], 0, 'EX', ARGV[2], 'NX') local consumed = redis.call('incrby', KEYS[1], ARGV[1]) local ttl = redis.call('pttl', KEYS[1]) if ttl == -1 then redis.call('expire', KEYS[1], ARGV[2]) ttl = 1000 * ARGV[2] end return {consumed, ttl}"
		say("*2\r\n:1\r\n:60000\r\n", "EVAL", limit, "1", "rate", "1", "60")
		clock.ms.Add(1000)
		say("*2\r\n:3\r\n:59000\r\n", "EVAL", limit, "1", "rate", "2", "60")
		clock.ms.Add(60_000)
		say("*2\r\n:1\r\n:60000\r\n", "EVAL", limit, "1", "rate", "1", "60")
	})
	t.Run("semaphore", func(t *testing.T) { // a bucket of tokens, kept as JSON
		bucket := "local now, b = tonumber(ARGV[1]), redis.call('get', KEYS[1])\nb = b and cjson.decode(b) or {tokens = 2, at = now}\nb.tokens = math.min(2, b.tokens + (now - b.at) / 1000) b.at = now\nlocal ok = b.tokens >= 1\nif ok then b.tokens = b.tokens - 1 end\nredis.call('setex', KEYS[1], 10, cjson.encode(b))\nreturn {ok, tostring(b.tokens)}"
		say("*2\r\n:1\r\n$1\r\n1\r\n", "EVAL", bucket, "1", "bucket", "1000")
		say("*2\r\n:1\r\n$1\r\n0\r\n", "EVAL", bucket, "1", "bucket", "1000")
		say("*2\r\n$-1\r\n$3\r\n0.5\r\n", "EVAL", bucket, "1", "bucket", "1500")
		say("*2\r\n:1\r\n$1\r\n0\r\n", "EVAL", bucket, "1", "bucket", "2000")
	})
}

// TestScriptsAnswerNobodyWhoSaidSo: CLIENT REPLY, and answers of a script that are
// too long for a connection.
func TestScriptsAnswerNobodyWhoSaidSo(t *testing.T) {
	_, addr := newServer(t, func(o *Options) { o.MaxBulkBytes, o.MaxCommandBytes, o.MaxOutputBytes = 64<<10, 100<<10, 1024 })
	long := strings.Repeat("v", 60<<10)
	got := talk(t, addr, bulks("SET", "k", long)+"CLIENT REPLY OFF\r\n"+bulks("EVAL", "redis.call('set','l',#redis.call('get','k')) return redis.call('get','k')", "0")+"CLIENT REPLY ON\r\nGET l\r\n")
	if want := "+OK\r\n+OK\r\n$5\r\n61440\r\n"; got != want {
		t.Errorf("got %.200q", got)
	}
	got = talk(t, addr, bulks("EVAL", "local v = redis.call('get','k') return {v,v,v}", "0")+"PING\r\n")
	if want := "-ERR the answers of the script are too long, the limit is 102400 bytes\r\n"; got != want {
		t.Errorf("got %.200q", got)
	}
}

// TestEndedScriptsAreCounted by what ended them.
func TestEndedScriptsAreCounted(t *testing.T) {
	s, addr := newServer(t, func(o *Options) { o.MaxScriptSteps, o.MaxScriptBytes = 100_000, 1<<20 })
	talk(t, addr, bulks("EVAL", "while true do end", "0")+bulks("EVAL", "while true do end", "0")+bulks("EVAL", "return string.rep('x', 3e6)", "0")+bulks("EVAL", "return error('x')", "0")+bulks("EVAL", "return 1", "0"))
	st := s.Stats()
	got := map[string]float64{}
	for _, m := range st.Metrics() {
		if m.Name == "mcached_resp_scripts_ended_total" {
			m.Read(func(v float64, labels ...string) { got[labels[0]] = v })
		}
	}
	if want := map[string]float64{"time": 0, "memory": 1, "instructions": 2, "kill": 0, "failure": 0}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestQueuesHoldNobody: while transactions are queued to their bound and run, and a
// script does not end, everybody else is answered, and in the end served.
func TestQueuesHoldNobody(t *testing.T) {
	s, addr := newServer(t, func(o *Options) { o.ScriptTimeout = 300 * time.Millisecond })
	other := newAsker(t, addr)
	full, over := dial(t, addr), dial(t, addr)
	queue := bulks("MULTI") + strings.Repeat(bulks("INCR", "n"), maxQueued)
	go func() { _, _ = full.Write([]byte(queue)) }()
	go func() { _, _ = over.Write([]byte(queue + bulks("INCR", "n"))) }()
	fullAnswers, overAnswers := bufio.NewReaderSize(full, 1<<20), bufio.NewReaderSize(over, 1<<20)
	for _, r := range []*bufio.Reader{fullAnswers, overAnswers} {
		for i := range maxQueued + 1 {
			if a, err := readReply(r); err != nil || a[0] != '+' {
				t.Fatalf("answer %d: %q, %v", i, a, err)
			}
			if i%8192 == 0 {
				other.want("$-1\r\n", "GET", "n")
			}
		}
	}
	if a, err := readReply(overAnswers); err != nil || a != "-ERR too many commands in a transaction, the limit is 65536\r\n" {
		t.Fatalf("%q, %v", a, err)
	}
	runner := dial(t, addr)
	send(t, runner, bulks("EVAL", "while true do end", "0"))
	waitFor(t, "the script to run", func() bool { return s.scripts.now.Load() != nil })
	send(t, full, bulks("EXEC"))
	send(t, over, bulks("EXEC"))
	for s.scripts.now.Load() != nil {
		if a := other.ask("GET", "k"); a != "-"+errBusy+"\r\n" && a != "$-1\r\n" {
			t.Fatalf("meanwhile: %q", a)
		}
	}
	if a, err := readReply(bufio.NewReader(runner)); err != nil || !strings.HasPrefix(a, "-ERR script ended after 300ms") {
		t.Errorf("the script: %q, %v", a, err)
	}
	// Who asks for EXEC while the script is at work is told so, or waits for its end.
	if a, err := readReply(overAnswers); err != nil || !strings.HasPrefix(a, "-EXECABORT") && a != "-"+errBusy+"\r\n" {
		t.Errorf("over: %q, %v", a, err)
	}
	if a, err := readReply(fullAnswers); err != nil || !strings.HasPrefix(a, "*65536\r\n:1\r\n") && !strings.HasPrefix(a, "-EXECABORT") && a != "-"+errBusy+"\r\n" {
		t.Errorf("full: %.100q, %v", a, err)
	}
	other.want("+OK\r\n", "SET", "k", "v")
}
