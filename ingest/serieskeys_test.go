package ingest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// scanAll is all keys that SCAN gives.
func (a *asker) scanAll(options ...string) (keys []string) {
	a.t.Helper()
	for cursor := "0"; ; {
		parts := strings.Split(a.ask(append([]string{"SCAN", cursor}, options...)...), "\r\n")
		cursor = parts[2]
		for i := 5; i < len(parts); i += 2 {
			keys = append(keys, parts[i])
		}
		if cursor == "0" {
			slices.Sort(keys)
			return keys
		}
	}
}

const wrongType = "-" + errWrongType + "\r\n"

// TestSeriesAreKeys holds series to what all keys are held to.
func TestSeriesAreKeys(t *testing.T) {
	clock := new(fakeClock)
	clock.ms.Store(time.Now().UnixMilli())
	s, addr := newServer(t, func(o *Options) { o.Now = clock.now; o.CommandTimeout = 100 * time.Millisecond })
	c := newAsker(t, addr)
	var all []string
	for i := range 30 {
		all = append(all, fmt.Sprintf("ts:%02d", i), fmt.Sprintf("str:%02d", i))
		c.want(":1000\r\n", "TS.ADD", fmt.Sprintf("ts:%02d", i), "1000", "1", "LABELS", "room", fmt.Sprint(i))
		c.want("+OK\r\n", "SET", fmt.Sprintf("str:%02d", i), "v")
	}
	slices.Sort(all)
	if got := c.scanAll("COUNT", "7"); !slices.Equal(got, all) {
		t.Fatalf("SCAN: %q", got)
	}
	if got := c.scanAll("TYPE", "TSDB-TYPE"); len(got) != 30 || !strings.HasPrefix(got[0], "ts:") {
		t.Fatalf("SCAN TYPE TSDB-TYPE: %q", got)
	}
	if got := c.scanAll("TYPE", "string", "MATCH", "*1"); len(got) != 3 {
		t.Fatalf("SCAN TYPE string: %q", got)
	}
	c.want(":60\r\n", "DBSIZE")
	if got := c.ask("KEYS", "ts:0*"); !strings.HasPrefix(got, "*10\r\n") {
		t.Errorf("KEYS: %q", got)
	}
	if got := c.ask("INFO", "keyspace"); !strings.Contains(got, "db0:keys=60,") {
		t.Errorf("INFO: %q", got)
	}
	some := map[byte]bool{}
	for range 200 {
		some[strings.Split(c.ask("RANDOMKEY"), "\r\n")[1][0]] = true
	}
	if !some['t'] || !some['s'] {
		t.Errorf("RANDOMKEY gives one type: %v", some)
	}
	c.want("+TSDB-TYPE\r\n", "TYPE", "ts:01")
	if got := c.ask("MEMORY", "USAGE", "ts:01"); got[0] != ':' || len(got) < 6 {
		t.Errorf("MEMORY USAGE: %q", got)
	}

	// Wrong types, both ways.
	for _, args := range [][]string{
		{"GET", "ts:01"}, {"APPEND", "ts:01", "x"}, {"INCR", "ts:01"}, {"GETSET", "ts:01", "x"}, {"GETDEL", "ts:01"}, {"STRLEN", "ts:01"}, {"SETRANGE", "ts:01", "0", "x"},
		{"HSET", "ts:01", "a", "b"}, {"HGET", "ts:01", "a"}, {"SADD", "ts:01", "a"}, {"SMEMBERS", "ts:01"}, {"SET", "ts:01", "x", "GET"},
		{"TS.GET", "str:01"}, {"TS.RANGE", "str:01", "-", "+"}, {"TS.INFO", "str:01"}, {"TS.DEL", "str:01", "0", "1"}, {"TS.ALTER", "str:01"},
	} {
		c.want(wrongType, args...)
	}
	c.want("-"+errNotTSDB+"\r\n", "TS.ADD", "str:01", "1", "1")
	c.want("-"+errKeyExists+"\r\n", "TS.CREATE", "str:01")
	c.want("*1\r\n-"+errNotTSDB+"\r\n", "TS.MADD", "str:01", "1", "1")
	c.want("*2\r\n$-1\r\n$1\r\nv\r\n", "MGET", "ts:01", "str:01")
	// So does a GET in a pipeline.
	if got := talk(t, addr, bulks("GET", "str:01")+bulks("GET", "ts:01")+bulks("GET", "ts:02")); got != "$1\r\nv\r\n"+wrongType+wrongType {
		t.Errorf("a pipeline of GETs: %q", got)
	}
	c.want(":0\r\n", "SETNX", "ts:01", "x")
	c.want("$-1\r\n", "SET", "ts:01", "x", "NX")
	c.want(":0\r\n", "MSETNX", "new", "x", "ts:01", "x")

	// A string takes the place of a series.
	c.want("+OK\r\n", "SET", "ts:01", "now a string")
	c.want("+string\r\n", "TYPE", "ts:01")
	c.want("+OK\r\n", "MSET", "ts:02", "a", "ts:03", "b")
	c.want("+OK\r\n", "SETEX", "ts:04", "100", "c")
	if n := s.series.keys(); n != 26 {
		t.Errorf("%d series are left", n)
	}
	c.want(":60\r\n", "DBSIZE")

	// Expiry.
	c.want(":-1\r\n", "TTL", "ts:05")
	c.want(":1\r\n", "EXPIRE", "ts:05", "100")
	c.want(":0\r\n", "EXPIRE", "ts:05", "200", "NX")
	c.want(":100\r\n", "TTL", "ts:05")
	c.want(":1\r\n", "PERSIST", "ts:05")
	c.want(":0\r\n", "PERSIST", "ts:05")
	c.want(":1\r\n", "PEXPIRE", "ts:05", "5000")
	c.want(":1\r\n", "EXPIRE", "ts:06", "5")
	clock.ms.Add(6000)
	c.want("$-1\r\n", "GET", "ts:05")
	c.want(":-2\r\n", "TTL", "ts:05")
	c.want(":0\r\n", "EXISTS", "ts:05")
	c.want("-"+errNoKey+"\r\n", "TS.GET", "ts:05")
	c.want(":2000\r\n", "TS.ADD", "ts:05", "2000", "2")
	c.want("*1\r\n*2\r\n:2000\r\n$1\r\n2\r\n"[:0]+"*1\r\n*2\r\n:2000\r\n+2\r\n", "TS.RANGE", "ts:05", "-", "+") // the old one has gone
	waitFor(t, "the sweeper to remove the other", func() bool { return s.series.keys() == 25 })
	c.want(":1\r\n", "EXPIREAT", "ts:07", "1")
	c.want(":0\r\n", "EXISTS", "ts:07")

	// RENAME moves the samples along with the name.
	c.want("+OK\r\n", "RENAME", "ts:08", "moved")
	c.want("*2\r\n:1000\r\n+1\r\n", "TS.GET", "moved")
	c.want("*1\r\n$5\r\nmoved\r\n", "TS.QUERYINDEX", "room=8")
	c.want("-"+errNoKey+"\r\n", "TS.GET", "ts:08")
	c.want("+OK\r\n", "RENAME", "moved", "str:00") // over a string
	c.want("+TSDB-TYPE\r\n", "TYPE", "str:00")
	c.want("+OK\r\n", "RENAME", "str:01", "str:00") // and back
	c.want("$1\r\nv\r\n", "GET", "str:00")
	c.want(":0\r\n", "RENAMENX", "ts:09", "str:00")
	c.want("+OK\r\n", "TS.CREATE", "named", "LABELS", "__name__", "other", "a", "b")
	c.want(":1\r\n", "TS.ADD", "named", "1", "1")
	c.want("+OK\r\n", "RENAME", "named", "renamed") // whose labels stay
	c.want("*1\r\n$7\r\nrenamed\r\n", "TS.QUERYINDEX", "a=b")
	c.want("*2\r\n:1\r\n+1\r\n", "TS.GET", "renamed")

	// COPY makes another.
	c.want(":1\r\n", "EXPIRE", "ts:09", "1000")
	c.want(":1\r\n", "COPY", "ts:09", "copied")
	c.want(":0\r\n", "COPY", "ts:09", "copied")
	c.want(":1\r\n", "COPY", "ts:09", "copied", "REPLACE")
	c.want(":1000\r\n", "TTL", "copied")
	c.want(":1500\r\n", "TS.ADD", "copied", "1500", "7")
	c.want("*2\r\n:1000\r\n+1\r\n", "TS.GET", "ts:09")
	c.want("*2\r\n:1500\r\n+7\r\n", "TS.GET", "copied")
	if got := c.ask("COPY", "renamed", "twin"); !strings.Contains(got, "has the same name and labels") {
		t.Errorf("COPY of a series with a name of its own: %q", got)
	}

	c.want(":2\r\n", "DEL", "copied", "renamed")
	c.want("+OK\r\n", "FLUSHALL")
	c.want(":0\r\n", "DBSIZE")
	if n := len(s.series.order) - s.series.unlisted; n != 0 || s.series.bytes != 0 {
		t.Errorf("%d series are listed, %d bytes", n, s.series.bytes)
	}
}

// TestScanOfSeriesKeepsItsPromise while others come and go: what is there from the
// first call to the last is seen.
func TestScanOfSeriesKeepsItsPromise(t *testing.T) {
	s, addr := newServer(t, nil)
	c := newAsker(t, addr)
	name := func(kind string, i int) string { return fmt.Sprintf("%s:%03d", kind, i) }
	for i := range 200 {
		c.want("+OK\r\n", "TS.CREATE", name("stays", i))
		c.want("+OK\r\n", "TS.CREATE", name("goes", i))
	}
	seen := map[string]bool{}
	cursor, round := uint64(0), 0
	for first := true; first || cursor != 0; first = false {
		next := s.series.scan(cursor, 5, func(n string) { seen[n] = true })
		for i := range 8 {
			s.series.remove([]byte(name("goes", (round*8+i)%200)))
			c.want("+OK\r\n", "TS.CREATE", fmt.Sprintf("comes:%d:%d", round, i))
			s.series.remove(fmt.Appendf(nil, "comes:%d:%d", round-1, i))
		}
		c.want("+OK\r\n", "TS.ALTER", name("stays", round%200), "LABELS", "round", fmt.Sprint(round))
		if cursor, round = next, round+1; round > 1000 {
			t.Fatal("it does not end")
		}
	}
	for i := range 200 {
		if !seen[name("stays", i)] {
			t.Errorf("%s was not seen", name("stays", i))
		}
	}
}
