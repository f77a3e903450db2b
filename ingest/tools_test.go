package ingest

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestSlowlog(t *testing.T) {
	_, addr := newServer(t, nil)
	c := newAsker(t, addr, "CLIENT SETNAME me")
	c.want(":0\r\n", "SLOWLOG", "LEN")
	c.want("+OK\r\n", "CONFIG", "SET", "slowlog-log-slower-than", "0")
	c.want("*2\r\n$23\r\nslowlog-log-slower-than\r\n$1\r\n0\r\n", "CONFIG", "GET", "slowlog-log-slower-than")
	c.want("+OK\r\n", "SLOWLOG", "RESET")
	c.want("+OK\r\n", "SET", "k", strings.Repeat("v", 200))
	many := []string{"DEL"}
	for i := range 40 {
		many = append(many, fmt.Sprint("k", i))
	}
	c.want(":0\r\n", many...)
	c.want("-ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?\r\n", "AUTH", "secret")
	c.want("-ERR Unknown option or number of arguments for CONFIG SET - 'requirepass'\r\n", "CONFIG", "SET", "requirepass", "secret", "TLS-Key-File-Pass", "secret", "timeout", "0")
	c.want("+OK\r\n", "CONFIG", "SET", "slowlog-log-slower-than", "-1")
	got := c.ask("SLOWLOG", "GET", "-1")
	for _, want := range []string{
		"*2\r\n$3\r\nset\r\n$1\r\nk\r\n", "... (1 more arguments)", // a plain SET is logged as the bundle it is
		"*32\r\n$3\r\nDEL\r\n", "... (10 more arguments)\r\n",
		c.c.LocalAddr().String(), "\r\n$2\r\nme\r\n", "*2\r\n$4\r\nAUTH\r\n$10\r\n(redacted)\r\n",
		"$11\r\nrequirepass\r\n$10\r\n(redacted)\r\n$17\r\nTLS-Key-File-Pass\r\n$10\r\n(redacted)\r\n$7\r\ntimeout\r\n$1\r\n0\r\n",
	} {
		if !strings.Contains(got, want) && !strings.Contains(strings.ReplaceAll(got, "*3\r\n$3\r\nset", "*2\r\n$3\r\nset"), want) {
			t.Errorf("SLOWLOG GET has no %q:\n%q", want, got)
		}
	}
	if strings.Contains(got, "secret") {
		t.Errorf("a password is logged: %q", got)
	}
	c.want("+OK\r\n", "CONFIG", "SET", "slowlog-max-len", "1")
	c.want(":1\r\n", "SLOWLOG", "LEN")
	for _, bad := range []string{"-2", "x", "99999999999999999999"} {
		if got := c.ask("CONFIG", "SET", "slowlog-log-slower-than", bad); got[0] != '-' {
			t.Errorf("%s: %q", bad, got)
		}
	}
}

func TestLatency(t *testing.T) {
	_, addr := newServer(t, nil)
	c := newAsker(t, addr)
	c.want("+OK\r\n", "CONFIG", "SET", "latency-monitor-threshold", "10000000") // which nothing takes
	c.want("*0\r\n", "LATENCY", "LATEST")
	c.ask("SET", "k", "v")
	for range 20 {
		c.ask("INCR", "n")
	}
	got := c.ask("LATENCY", "HISTOGRAM", "incr", "set", "config")
	for _, want := range []string{"$4\r\nincr\r\n*4\r\n$5\r\ncalls\r\n:20\r\n$14\r\nhistogram_usec\r\n", "$3\r\nset\r\n*4\r\n$5\r\ncalls\r\n:1\r\n", "$10\r\nconfig|set\r\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("LATENCY HISTOGRAM has no %q: %q", want, got)
		}
	}
	if strings.Contains(got, "latency") {
		t.Errorf("LATENCY HISTOGRAM has what was not asked for: %q", got)
	}
}

// TestSpikes are the longest of each second.
func TestSpikes(t *testing.T) {
	var l slowLog
	l.init()
	get, sort := &command{flags: fast}, &command{}
	for i := range int64(300) {
		l.spike(i/2, sort, (1+i%2)*int64(time.Millisecond))
	}
	l.spike(9, get, int64(7*time.Millisecond))
	names, events := l.latencyEvents()
	if fmt.Sprint(names) != "[command fast-command]" {
		t.Fatal(names)
	}
	e := events["command"]
	if len(e.spikes) != 150 || e.maxMs != 2 || e.spikes[149] != (latencySpike{149, 2}) {
		t.Errorf("%d spikes of at most %d ms, the last %v", len(e.spikes), e.maxMs, e.spikes[149])
	}
	for i := range int64(latencySpikes) {
		l.spike(1000+i, sort, int64(time.Millisecond))
	}
	if _, events := l.latencyEvents(); len(events["command"].spikes) != latencySpikes || events["command"].spikes[0].unix != 1000 {
		t.Errorf("%d spikes", len(events["command"].spikes))
	}
}

// TestCommandStatsAreTrue counts what was run, alone, in a pipeline and refused.
func TestCommandStatsAreTrue(t *testing.T) {
	s, addr := newServer(t, nil)
	c := newAsker(t, addr)
	c.ask("CONFIG", "RESETSTAT")
	talk(t, addr, strings.Repeat(bulks("GET", "k"), 100)+strings.Repeat(bulks("INCR", "n"), 50)+bulks("SADD", "s", "m")+bulks("GET", "s")+
		bulks("INCR", "s")+bulks("GET")+bulks("CLIENT", "ID")+bulks("CLIENT", "ID", "x")+bulks("MULTI")+bulks("INCR", "n")+bulks("EXEC")+bulks("NOSUCH"))
	waitFor(t, "the connection to be gone", func() bool { return s.Stats().Connections == 1 })
	got := c.ask("INFO", "all")
	for _, want := range []string{
		"cmdstat_get:calls=101,usec=", ",rejected_calls=1,failed_calls=1\r\n", "cmdstat_incr:calls=52,usec=", ",rejected_calls=0,failed_calls=1\r\n",
		"cmdstat_client|id:calls=1,usec=", ",rejected_calls=1,failed_calls=0\r\n", "cmdstat_exec:calls=1,", "cmdstat_multi:calls=1,",
		"errorstat_WRONGTYPE:count=2\r\n", "errorstat_ERR:count=3\r\n", "latency_percentiles_usec_get:p50=",
		"instantaneous_output_kbps:", "# Modules\r\nmodule:name=timeseries,ver=",
		"tcp_port:" + addr[strings.LastIndex(addr, ":")+1:] + "\r\n", "used_memory_peak:", "run_id:" + s.runID,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("INFO has no %q:\n%s", want, got)
		}
	}
	if got := c.ask("INFO"); strings.Contains(got, "cmdstat_") || !strings.Contains(got, "errorstat_") {
		t.Errorf("INFO without a section: %s", got)
	}
	if got := c.ask("INFO", "commandstats"); !strings.Contains(got, "cmdstat_get:calls=101,") || strings.Contains(got, "run_id") {
		t.Errorf("INFO commandstats: %s", got)
	}
}

// TestErrorsOfScriptsAreCountedOnce has an error of a command come out of a script, be
// caught there, and be made there.
func TestErrorsOfScriptsAreCountedOnce(t *testing.T) {
	_, addr := newServer(t, nil)
	c := newAsker(t, addr, "SET k v")
	for script, want := range map[string]string{
		"return redis.call('incr','k')":              "errorstat_ERR:count=1\r\n",
		"return redis.pcall('incr','k')":             "errorstat_ERR:count=1\r\n",
		"redis.pcall('incr','k') return 1":           "errorstat_ERR:count=1\r\n",
		"return redis.call('nosuch')":                "errorstat_ERR:count=1\r\n",
		"return redis.call()":                        "errorstat_ERR:count=1\r\n",
		"return {err='MINE x'}":                      "errorstat_MINE:count=1\r\n",
		"redis.pcall('incr','k') return {err='E x'}": "errorstat_E:count=1\r\nerrorstat_ERR:count=1\r\n",
		"return {redis.pcall('incr','k')}":           "errorstat_ERR:count=1\r\n",
	} {
		c.ask("CONFIG", "RESETSTAT")
		c.ask("EVAL", script, "0")
		if got := c.ask("INFO", "errorstats"); !strings.HasSuffix(got, "# Errorstats\r\n"+want+"\r\n") {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
		c.ask("CONFIG", "RESETSTAT")
		c.ask("MULTI")
		c.ask("EVAL", script, "0")
		c.ask("EXEC")
		if got := c.ask("INFO", "errorstats"); !strings.HasSuffix(got, "# Errorstats\r\n"+want+"\r\n") {
			t.Errorf("%s in a transaction: %q, want %q", script, got, want)
		}
	}
}

func TestClientKillFilters(t *testing.T) {
	s, addr := newServer(t, nil)
	admin := newAsker(t, addr)
	sub := newAsker(t, addr, "SUBSCRIBE a")
	other := newAsker(t, addr, "PING")
	if got := admin.ask("CLIENT", "LIST"); strings.Count(got, "\nid=") != 3 || !strings.Contains(got, "cmd=ping ") || !strings.Contains(got, "cmd=subscribe ") || !strings.Contains(got, "cmd=client|list ") {
		t.Errorf("CLIENT LIST: %q", got)
	}
	other.ask("CLIENT", "NO-EVICT", "ON")
	other.ask("CLIENT", "NO-TOUCH", "ON")
	other.ask("MULTI")
	other.ask("SET", "k", "v")
	for _, want := range []string{" flags=xeT ", " multi=1 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=", " rbs=0 rbp=0 obl=0 "} {
		if got := admin.ask("CLIENT", "LIST"); !strings.Contains(got, want) || strings.Count(got, " multi-mem=0 ") != 2 {
			t.Errorf("CLIENT LIST has no %q: %q", want, got)
		}
	}
	other.ask("DISCARD")
	admin.want(":0\r\n", "CLIENT", "KILL", "ADDR", "127.0.0.1:1", "TYPE", "normal")
	admin.want(":1\r\n", "CLIENT", "KILL", "TYPE", "pubsub")
	if _, err := sub.r.ReadByte(); err == nil {
		t.Error("the subscriber is still there")
	}
	admin.want(":0\r\n", "CLIENT", "KILL", "ADDR", other.c.LocalAddr().String(), "TYPE", "pubsub")
	admin.want(":1\r\n", "CLIENT", "KILL", "LADDR", addr, "USER", "default", "TYPE", "normal")
	waitFor(t, "all others to be gone", func() bool { return s.Stats().Connections == 1 })
	for _, bad := range [][]string{{"ID"}, {"ID", "0"}, {"TYPE", "foo"}, {"USER", "nobody"}, {"SKIPME", "maybe"}, {"FOO", "bar"}} {
		if got := admin.ask(append([]string{"CLIENT", "KILL"}, bad...)...); got[0] != '-' {
			t.Errorf("CLIENT KILL %q: %q", bad, got)
		}
	}
	admin.want(":1\r\n", "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no")
	if _, err := admin.r.ReadByte(); err == nil {
		t.Error("it is still there itself")
	}
}

func TestObjectIdleTime(t *testing.T) {
	clock := new(fakeClock)
	clock.ms.Store(time.Now().UnixMilli())
	_, addr := newServer(t, func(o *Options) { o.Now = clock.now })
	c := newAsker(t, addr)
	c.want("+OK\r\n", "SET", "k", "v")
	c.ask("GET", "k")
	c.want(":0\r\n", "OBJECT", "IDLETIME", "k")
	c.want(":1\r\n", "OBJECT", "REFCOUNT", "k")
	if got := c.ask("MEMORY", "DOCTOR"); !strings.Contains(got, "1 keys have") {
		t.Errorf("MEMORY DOCTOR: %q", got)
	}
	if got := c.ask("ACL", "LIST"); !strings.Contains(got, "user default on nopass") {
		t.Errorf("ACL LIST: %q", got)
	}
}
