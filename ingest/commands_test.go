package ingest

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"mcached/kvcache"
)

// fakeClock is a time that tests set.
type fakeClock struct{ ms atomic.Int64 }

func (c *fakeClock) now() time.Time { return time.UnixMilli(c.ms.Load()) }

func TestTimeToLiveIsExactToTheMillisecond(t *testing.T) {
	var clock fakeClock
	clock.ms.Store(1_700_000_000_123)
	_, addr := newServer(t, func(o *Options) { o.Now = clock.now })
	set := []string{"SET a v PX 100", "PSETEX b 100 v", "SET c v", "PEXPIRE c 100", "SET d v PXAT 1700000000223", "SET e v", "GETEX e PX 100", "SET f v EX 1"}
	for i, a := range converse(t, addr, set...) {
		if a[0] == '-' {
			t.Fatalf("%s: %q", set[i], a)
		}
	}
	clock.ms.Add(99)
	for _, k := range []string{"a", "b", "c", "d", "e"} {
		if got := converse(t, addr, "PTTL "+k, "GET "+k); got[0] != ":1\r\n" || got[1] != "$1\r\nv\r\n" {
			t.Errorf("%s after 99 ms: %q", k, got)
		}
	}
	clock.ms.Add(1)
	for _, k := range []string{"a", "b", "c", "d", "e"} {
		got := converse(t, addr, "GET "+k, "PTTL "+k, "EXISTS "+k, "TYPE "+k, "STRLEN "+k, "OBJECT FREQ "+k, "SCAN 0 COUNT 1000 MATCH "+k)
		want := []string{"$-1\r\n", ":-2\r\n", ":0\r\n", "+none\r\n", ":0\r\n", "$-1\r\n", "*2\r\n$1\r\n0\r\n*0\r\n"}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s after 100 ms: %q", k, got)
		}
	}
	if got := converse(t, addr, "TTL f", "EXPIRETIME f", "PEXPIRETIME f", "TIME"); fmt.Sprint(got) != fmt.Sprint([]string{":1\r\n", ":1700000001\r\n", ":1700000001123\r\n", "*2\r\n$10\r\n1700000000\r\n$6\r\n223000\r\n"}) {
		t.Errorf("got %q", got)
	}
}

// TestTheLatestTimeOfExpiration holds what Redis' own EXPIRETIME overflows at.
func TestTheLatestTimeOfExpiration(t *testing.T) {
	_, addr := newServer(t, nil)
	const latest = "9223372036854775807"
	got := converse(t, addr, "SET k v", "PEXPIREAT k "+latest, "EXPIRETIME k", "PEXPIRETIME k", "GET k",
		"SET k v PXAT "+latest, "EXPIRETIME k", "GETEX k PXAT "+latest, "EXPIRETIME k", "PTTL k", "INFO keyspace",
		"PSETEX k 9223370000000000000 v", "PTTL k")
	for i, want := range map[int]string{2: ":9223372036854776\r\n", 3: ":" + latest + "\r\n", 6: ":9223372036854776\r\n", 8: ":9223372036854776\r\n"} {
		if got[i] != want {
			t.Errorf("%d: %q, want %q", i, got[i], want)
		}
	}
	for _, i := range []int{9, 12} {
		if ms, _ := strconv.ParseInt(short(t, got[i]), 10, 64); ms < 9223360000000000000 {
			t.Errorf("%d: %q", i, got[i])
		}
	}
	if l := short(t, got[10]); !strings.Contains(l, "db0:keys=1,expires=1,avg_ttl=4611686018427387904") {
		t.Errorf("INFO: %s", l)
	}
}

// TestInfoKeyspace counts what a monitor wants to know of the keys.
func TestInfoKeyspace(t *testing.T) {
	clock := &fakeClock{}
	clock.ms.Store(1_700_000_000_000)
	_, addr := newServer(t, func(o *Options) { o.Now = clock.now })
	got := converse(t, addr, "INFO keyspace", "MSET a 1 b 2 c 3 d 4", "PEXPIRE a 1000", "SET b 2 PX 3000", "SET c 3 EX 100", "SET c 3", "INFO keyspace", "PERSIST a", "INFO keyspace", "DEL b", "INFO keyspace")
	for i, want := range map[int]string{0: "# Keyspace\r\n", 6: "# Keyspace\r\ndb0:keys=4,expires=2,avg_ttl=2000\r\n",
		8: "# Keyspace\r\ndb0:keys=4,expires=1,avg_ttl=3000\r\n", 10: "# Keyspace\r\ndb0:keys=3,expires=0,avg_ttl=0\r\n"} {
		if got := short(t, got[i]); got != want {
			t.Errorf("%d: %q, want %q", i, got, want)
		}
	}
}

// TestScanKeepsItsPromise: what is there throughout is seen at least once,
// whatever comes and goes meanwhile, and nothing that was never there is.
func TestScanKeepsItsPromise(t *testing.T) {
	s, addr := newServer(t, nil)
	const stay = 3000
	for i := range stay {
		if err := s.o.Blobs.At(0).Put(fmt.Appendf(nil, "stay:%d", i), []byte("v"), 0); err != nil {
			t.Fatal(err)
		}
	}
	c := dial(t, addr)
	r := bufio.NewReader(c)
	seen := map[string]int{}
	calls, coming := 0, 0
	for cursor := "0"; ; {
		send(t, c, bulks("SCAN", cursor, "COUNT", "50"))
		a, err := readReply(r)
		if err != nil {
			t.Fatal(err)
		}
		fields := strings.Fields(short(t, a))
		cursor = strings.TrimPrefix(fields[0], "[")
		for _, k := range fields[1:] {
			if k = strings.Trim(k, "[]"); k != "" {
				seen[k]++
			}
		}
		if calls++; cursor == "0" {
			break
		}
		for range 100 { // the index grows and shrinks under the cursor
			coming++
			_ = s.o.Blobs.At(0).Put(fmt.Appendf(nil, "come:%d", coming), []byte("v"), 0)
			if coming > 2000 {
				s.o.Blobs.At(0).Delete(fmt.Appendf(nil, "come:%d", coming-2000))
			}
		}
	}
	for i := range stay {
		if seen["stay:"+strconv.Itoa(i)] == 0 {
			t.Fatalf("stay:%d was not seen in %d calls", i, calls)
		}
	}
	if calls < 20 || coming < 1000 {
		t.Fatalf("only %d calls, %d keys came", calls, coming)
	}
	for k := range seen {
		if !strings.HasPrefix(k, "stay:") && !strings.HasPrefix(k, "come:") {
			t.Fatalf("saw %q", k)
		}
	}
	if got := short(t, converse(t, addr, "KEYS stay:12?")[0]); strings.Count(got, "stay:") != 10 {
		t.Errorf("KEYS: %s", got)
	}
}

func TestConcurrentClientsLoseNothing(t *testing.T) {
	_, addr := newServer(t, nil)
	const clients, rounds = 8, 300
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			c := dial(t, addr)
			r := bufio.NewReader(c)
			for i := range rounds {
				pipeline := bulks("INCR", "n") + bulks("APPEND", "s", "x") + bulks("TS.INCRBY", "ts", "1", "TIMESTAMP", "1000") +
					bulks("TS.ADD", "sum", "5", "1", "ON_DUPLICATE", "SUM") + bulks("MSETNX", "once", "1", "n", "2")
				if i%50 == 1 {
					e := "e" + strconv.Itoa(i-1)
					pipeline += bulks("TS.ADD", e, "7", "1") + bulks("TS.ALTER", e, "LABELS", "a", strconv.Itoa(i)) + bulks("TS.DEL", e, "-", "+") + bulks("TS.MGET", "FILTER", "a!=", "a=(1,2)") + bulks("DEL", e)
				}
				if i%50 == 0 {
					pipeline += bulks("TS.CREATE", "e"+strconv.Itoa(i), "LABELS", "a", "1") + bulks("TS.ALTER", "e"+strconv.Itoa(i), "LABELS", "a", "2") + bulks("TS.QUERYINDEX", "a=2")
				}
				if _, err := c.Write([]byte(pipeline)); err != nil {
					t.Error(err)
					return
				}
				for range strings.Count(pipeline, "*") {
					if _, err := readReply(r); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	total := strconv.Itoa(clients * rounds)
	got := converse(t, addr, "GET n", "STRLEN s", "TS.GET ts", "TS.GET sum", "EXISTS once")
	for i, want := range []string{total, total, "[1000 " + total + "]", "[5 " + total + "]", "0"} {
		if g := short(t, got[i]); g != want {
			t.Errorf("%d: got %s, want %s", i, g, want)
		}
	}
}

func TestClientCommands(t *testing.T) {
	_, addr := newServer(t, nil)
	other := dial(t, addr)
	ro := bufio.NewReader(other)
	ask := func(args ...string) string {
		send(t, other, bulks(args...))
		a, err := readReply(ro)
		if err != nil {
			t.Fatal(err)
		}
		return short(t, a)
	}
	ask("CLIENT", "SETNAME", "other")
	ask("CLIENT", "SETINFO", "LIB-NAME", "lib")
	id := ask("CLIENT", "ID")
	got := converse(t, addr, "CLIENT LIST", "CLIENT LIST ID "+id, "CLIENT LIST TYPE pubsub", "CLIENT INFO", "CLIENT KILL ID "+id, "CLIENT HELP", "CLIENT SETINFO LIB-NAME \"a b\"", "CLIENT SETINFO FOO x")
	if l := short(t, got[0]); strings.Count(l, "\n") != 2 || !strings.Contains(l, "name=other ") || !strings.Contains(l, "lib-name=lib ") || !strings.Contains(l, "cmd=client|list ") {
		t.Errorf("CLIENT LIST: %s", l)
	}
	if l := short(t, got[1]); strings.Count(l, "\n") != 1 || !strings.HasPrefix(l, "id="+id+" ") {
		t.Errorf("CLIENT LIST ID: %s", l)
	}
	for i, want := range map[int]string{2: "$0\r\n\r\n", 4: ":1\r\n", 6: "-ERR lib-name cannot contain spaces, newlines or special characters.\r\n", 7: "-ERR Unrecognized option 'FOO'\r\n"} {
		if got[i] != want {
			t.Errorf("%d: %q, want %q", i, got[i], want)
		}
	}
	if _, err := ro.ReadByte(); err == nil || errors.Is(err, net.ErrClosed) {
		t.Errorf("the killed client is still there: %v", err)
	}
}

func TestClientReply(t *testing.T) {
	_, addr := newServer(t, func(o *Options) { o.MaxOutputBytes = 1024 })
	big := strings.Repeat("v", 3000)
	got := talk(t, addr, "ECHO a\r\nCLIENT REPLY SKIP\r\nECHO b\r\nECHO c\r\nCLIENT REPLY OFF\r\nECHO d\r\n"+
		bulks("SET", "k", big)+"MGET k k k\r\nFOO\r\nCLIENT REPLY ON\r\nECHO e\r\n")
	if want := "$1\r\na\r\n$1\r\nc\r\n+OK\r\n$1\r\ne\r\n"; got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestConfigAndMemory(t *testing.T) {
	var set atomic.Int64
	s, addr := newServer(t, func(o *Options) {
		o.SetBudget = func(n int64) error {
			if n < 1<<20 {
				return errors.New("too little")
			}
			set.Store(n)
			o.Memory.SetBudget(n)
			return nil
		}
	})
	got := converse(t, addr, "CONFIG SET maxmemory 16mb", "CONFIG GET maxmemory", "CONFIG SET maxmemory x", "CONFIG SET maxmemory 5", "CONFIG SET databases 32",
		"CONFIG SET save \"\" appendonly no", "CONFIG GET max*", "SET k v", "MEMORY USAGE k", "MEMORY USAGE k SAMPLES 0", "MEMORY USAGE k FOO 0", "MEMORY STATS", "MEMORY PURGE", "INFO", "INFO memory keyspace", "INFO nosuch")
	for i, want := range map[int]string{
		0: "OK", 1: "[maxmemory 16777216]",
		2: "-ERR CONFIG SET failed (possibly related to argument 'maxmemory') - argument must be a memory value",
		3: "-ERR CONFIG SET failed (possibly related to argument 'maxmemory') - too little",
		4: "-ERR CONFIG SET failed (possibly related to argument 'databases') - can't set immutable config",
		5: "OK", 6: "[maxclients 10000 maxmemory 16777216 maxmemory-policy allkeys-lru]", 10: "-ERR syntax error", 12: "OK", 15: "",
	} {
		if g := short(t, got[i]); g != want {
			t.Errorf("%d: got %s, want %s", i, g, want)
		}
	}
	if set.Load() != 16<<20 || s.o.Memory.Budget() != 16<<20 {
		t.Errorf("the budget is %d", s.o.Memory.Budget())
	}
	if n, err := strconv.Atoi(short(t, got[8])); err != nil || n < 10 || n > 64 {
		t.Errorf("MEMORY USAGE: %s", got[8])
	}
	if l := short(t, got[14]); !strings.Contains(l, "# Memory\r\n") || !strings.Contains(l, "maxmemory:16777216\r\n") || !strings.Contains(l, "db0:keys=1,expires=0,avg_ttl=0\r\n") || strings.Contains(l, "# Server") {
		t.Errorf("INFO: %s", l)
	}
	var colour atomic.Value
	colour.Store("blue")
	_, more := newServer(t, func(o *Options) {
		o.Parameters = []Parameter{{Name: "colour", Get: func() string { return colour.Load().(string) }, Set: func(v string) error {
			if v == "none" {
				return errors.New("it needs one")
			}
			colour.Store(v)
			return nil
		}}}
	})
	got = converse(t, more, "CONFIG GET col*", "CONFIG SET Colour red", "CONFIG GET colour", "CONFIG SET colour none", "CONFIG SET colour green nosuch 1", "CONFIG GET colour",
		"CONFIG SET colour green COLOUR yellow", "CONFIG SET colour green slowlog-max-len x", "CONFIG SET colour green slowlog-max-len -5", "CONFIG GET colour", "CONFIG SET colour green slowlog-max-len 5", "CONFIG GET colour slowlog-max-len")
	for i, want := range []string{"[colour blue]", "OK", "[colour red]", "-ERR CONFIG SET failed (possibly related to argument 'colour') - it needs one",
		"-ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'", "[colour red]",
		"-ERR CONFIG SET failed (possibly related to argument 'colour') - duplicate parameter",
		"-ERR CONFIG SET failed (possibly related to argument 'slowlog-max-len') - argument couldn't be parsed into an integer",
		"-ERR CONFIG SET failed (possibly related to argument 'slowlog-max-len') - argument must be between 0 and 4096 inclusive",
		"[colour red]", "OK", "[colour green slowlog-max-len 5]"} {
		if g := short(t, got[i]); g != want {
			t.Errorf("a parameter of the caller's, %d: got %s, want %s", i, g, want)
		}
	}
	_, fixed := newServer(t, nil)
	if g := converse(t, fixed, "CONFIG SET maxmemory 16mb")[0]; !strings.Contains(g, "follows what the machine has to spare") {
		t.Errorf("without SetBudget: %q", g)
	}
}

// TestInfoIsTrue compares figures of INFO with what was done.
func TestInfoIsTrue(t *testing.T) {
	_, addr := newServer(t, shortTimeouts) // so that the rate is of less than a second ago
	figures := func() map[string]int {
		m := map[string]int{}
		for l := range strings.SplitSeq(short(t, converse(t, addr, "INFO")[0]), "\r\n") {
			if k, v, ok := strings.Cut(l, ":"); ok {
				if n, err := strconv.Atoi(v); err == nil {
					m[k] = n
				}
			}
		}
		return m
	}
	before := figures()
	for i := range 100 {
		converse(t, addr, fmt.Sprintf("MSET k%d %0100d j%d x", i, i, i), fmt.Sprintf("GET k%d", i), "GET absent")
	}
	waitFor(t, "a rate", func() bool { return figures()["instantaneous_ops_per_sec"] > 0 })
	after := figures()
	for k, least := range map[string]int{"total_commands_processed": 300, "keyspace_hits": 100, "keyspace_misses": 100, "used_memory_dataset": 100 * 100, "used_memory_overhead": 200 * 8, "total_net_input_bytes": 100 * 100, "total_connections_received": 100} {
		if grown := after[k] - before[k]; grown < least || grown > 50*least {
			t.Errorf("%s has grown by %d, want at least %d", k, grown, least)
		}
	}
	if rss := after["used_memory_rss"]; rss < 1<<20 || rss > 1<<34 {
		t.Errorf("used_memory_rss is %d", rss)
	}
}

func TestResidentBytes(t *testing.T) {
	for statm, want := range map[string]int64{"1000 7 3 0 0 0 0\n": int64(7 * os.Getpagesize()), "": 0, "x y": 0, "5": 0} {
		if got := residentBytes(fstest.MapFS{"statm": {Data: []byte(statm)}}); got != want {
			t.Errorf("of %q: %d, want %d", statm, got, want)
		}
	}
	if got := residentBytes(fstest.MapFS{}); got != 0 {
		t.Errorf("of no file: %d", got)
	}
}

// TestNoMemory: where nothing fits, writers are told so and readers go on.
func TestNoMemory(t *testing.T) {
	s, addr := newServer(t, nil)
	s.o.Memory.SetBudget(0)
	got := converse(t, addr, "SET k v", "GET k", "TS.ADD s 1 1", "PING")
	for i, want := range []string{"-OOM ", "$-1\r\n", "-OOM ", "+PONG"} {
		if !strings.HasPrefix(got[i], want) {
			t.Errorf("%d: %q, want %q", i, got[i], want)
		}
	}
	s.o.Memory.SetBudget(8 << 20)
	if got := converse(t, addr, "SET k v", "TS.ADD s 1 1"); got[0] != "+OK\r\n" || got[1] != ":1\r\n" {
		t.Errorf("with memory again: %q", got)
	}
}

// TestIdleConnectionsAreCheap bounds what a connection that asks nothing holds.
func TestIdleConnectionsAreCheap(t *testing.T) {
	_, addr := newServer(t, nil)
	inUse := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapInuse + m.StackInuse)
	}
	before := inUse()
	const n = 500
	conns := make([]net.Conn, n)
	for i := range conns {
		conns[i] = dial(t, addr)
		send(t, conns[i], bulks("SET", "k", "v")+bulks("GET", "k"))
		expect(t, conns[i], "+OK\r\n$1\r\nv\r\n")
	}
	// Half of it is the client's side of the connection.
	if per := (inUse() - before) / n; per > 24<<10 {
		t.Fatalf("an idle connection holds %d bytes", per)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	mem, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	blobs, err := kvcache.NewDatabases(kvcache.CacheOptions{Memory: mem, Shards: 1}, 16)
	if err != nil {
		t.Fatal(err)
	}
	defer blobs.Close()
	for name, o := range map[string]Options{
		"Blobs":          {Memory: mem},
		"Memory":         {Blobs: blobs},
		"MaxConnections": {Blobs: blobs, Memory: mem, MaxConnections: -1},
		"MaxArgs":        {Blobs: blobs, Memory: mem, MaxArgs: 3},
		"MaxBulkBytes":   {Blobs: blobs, Memory: mem, MaxBulkBytes: 1 << 40},
		"WriteTimeout":   {Blobs: blobs, Memory: mem, WriteTimeout: -1},
	} {
		if _, err := NewServer(o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLongPatternsAreRefused(t *testing.T) {
	_, addr := newServer(t, nil)
	long := "*" + strings.Repeat("a", 60_000) + "b"
	for _, command := range [][]string{{"SCAN", "0", "MATCH", long}, {"KEYS", long}, {"COMMAND", "LIST", "FILTERBY", "PATTERN", long}} {
		if got := ask(t, addr, bulks(command...)); got != fmt.Sprintf("-ERR pattern of %d bytes is too long, the limit is 1024, which no setting changes", len(long)) {
			t.Errorf("got %.100q", got)
		}
	}
	want := fmt.Sprintf("-ERR patterns of %d bytes together are too long, the limit is 1024, which no setting changes", 11+len(long))
	if got := ask(t, addr, bulks("CONFIG", "GET", "maxmemory-*", long)); got != want {
		t.Errorf("got %.100q", got)
	}
	if got := ask(t, addr, bulks("CONFIG", "GET", "maxmemory-pol*", "databases")); got != "*4" {
		t.Errorf("got %.100q", got)
	}
}
