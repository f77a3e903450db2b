package ingest

import (
	"bufio"
	"bytes"
	"fmt"
	"math"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestRules is a conversation about compactions: what RedisTimeSeries answers.
func TestRules(t *testing.T) {
	_, addr := newServer(t, nil)
	for i, line := range strings.Split(strings.TrimSpace(`
TS.CREATE s → OK
TS.CREATE d → OK
TS.CREATERULE s d AGGREGATION avg → -ERR wrong number of arguments for 'ts.createrule' command
TS.CREATERULE s d AGGREGATE avg 10 → -ERR wrong number of arguments for 'ts.createrule' command
TS.CREATERULE s d AGGREGATION avg 10 0 0 → -ERR wrong number of arguments for 'ts.createrule' command
TS.CREATERULE s d AGGREGATION foo 10 → -ERR TSDB: Unknown aggregation type
TS.CREATERULE s d AGGREGATION avg,sum 10 → -ERR TSDB: CREATERULE requires exactly one aggregation type
TS.CREATERULE s d AGGREGATION avg 0 → -ERR TSDB: bucketDuration must be greater than zero
TS.CREATERULE s d AGGREGATION avg -10 → -ERR TSDB: bucketDuration must be greater than zero
TS.CREATERULE s d AGGREGATION avg x → -ERR TSDB: Couldn't parse AGGREGATION
TS.CREATERULE s d AGGREGATION avg 10 x → -ERR TSDB: Couldn't parse alignTimestamp
TS.CREATERULE s d AGGREGATION avg 10 -1 → -ERR TSDB: alignTimestamp should be greater or equal to 0
TS.CREATERULE s s AGGREGATION avg 10 → -ERR TSDB: the source key and destination key should be different
TS.CREATERULE s nosuch AGGREGATION avg 10 → -ERR TSDB: the key does not exist
TS.CREATERULE nosuch d AGGREGATION avg 10 → -ERR TSDB: the key does not exist
SET str v → OK
TS.CREATERULE s str AGGREGATION avg 10 → -WRONGTYPE Operation against a key holding the wrong kind of value
TS.DELETERULE s d → -ERR TSDB: compaction rule does not exist
TS.DELETERULE nosuch d → -ERR TSDB: the key does not exist
TS.CREATERULE s d AGGREGATION avg 10 5 → OK
TS.CREATERULE s d AGGREGATION avg 10 → -ERR TSDB: the destination key already has a src rule
TS.CREATE e → OK
TS.CREATERULE d e AGGREGATION avg 10 → -ERR TSDB: the source key already has a source rule
TS.CREATERULE e s AGGREGATION avg 10 → -ERR TSDB: the destination key already has a dst rule
TS.CREATERULE s e AGGREGATION std.p 100 → OK
TS.GET d LATEST → []
TS.ADD s 3 4 → 3
TS.GET d → []
TS.GET d LATEST → [0 4]
TS.RANGE d - + LATEST → [[0 4]]
TS.RANGE d - + → []
TS.MADD s 9 8 s 12 4 → [9 12]
TS.RANGE d - + → [[0 4]]
TS.RANGE d - + LATEST → [[0 4] [5 6]]
TS.REVRANGE d - + LATEST → [[5 6] [0 4]]
TS.RANGE d - 4 LATEST → [[0 4]]
TS.RANGE d - + LATEST COUNT 1 → [[0 4]]
TS.RANGE d - + LATEST FILTER_BY_VALUE 5 9 → [[5 6]]
TS.RANGE d - + LATEST AGGREGATION sum 100 → [[0 10]]
TS.GET d LATEST → [5 6]
TS.GET s LATEST → [12 4]
TS.MGET LATEST FILTER __name__=d → [[d [] [5 6]]]
TS.MGET FILTER __name__=d → [[d [] [0 4]]]
TS.MRANGE - + LATEST FILTER __name__=d → [[d [] [[0 4] [5 6]]]]
TS.ADD s 2 8 → 2
TS.RANGE d - + → [[0 6]]
TS.ADD s 10 0 → 10
TS.GET d LATEST → [5 4]
TS.DECRBY s 4 TIMESTAMP 12 → 12
TS.INCRBY s 2 TIMESTAMP 15 → 15
TS.RANGE d - + → [[0 6] [5 2.6666666666666665]]
TS.DEL s 2 2 → 1
TS.RANGE d - + → [[0 4] [5 2.6666666666666665]]
TS.DEL s 15 20 → 1
TS.RANGE d - + → [[0 4]]
TS.GET d LATEST → [5 2.6666666666666665]
TS.DEL s 0 9 → 2
TS.RANGE d - + LATEST → [[5 0]]
RENAME d f → OK
RENAME s q → OK
TS.ADD q 30 1 → 30
TS.RANGE f - + LATEST → [[5 0] [25 1]]
TS.ALTER f LABELS a b → OK
TS.ADD q 40 1 → 40
TS.RANGE f - + → [[5 0] [25 1]]
TS.DELETERULE q d → -ERR TSDB: compaction rule does not exist
TS.DELETERULE q f → OK
TS.ADD q 50 1 → 50
TS.RANGE f - + LATEST → [[5 0] [25 1]]
DEL e → 1
TS.CREATE e → OK
TS.CREATERULE e f AGGREGATION sum 10 → OK
DEL e → 1
TS.CREATERULE q f AGGREGATION sum 10 → OK
SET f v → OK
TS.ADD q 70 1 → 70
GET f → v
FLUSHALL → OK
TS.CREATE s → OK
TS.CREATE d → OK
TS.CREATERULE s d AGGREGATION count 10 → OK
TS.ADD s 1 1 → 1
PEXPIRE d 0 → 1
TS.ADD s 11 1 → 11
EXISTS d → 0`), "\n") {
		command, want, _ := strings.Cut(line, " → ")
		if got := short(t, converse(t, addr, command)[0]); got != want {
			t.Errorf("line %d, %s: %s, want %s", i+1, command, got, want)
		}
	}
}

// TestRulesAreShown is TS.INFO in both protocols.
func TestRulesAreShown(t *testing.T) {
	_, addr := newServer(t, nil)
	got := converse(t, addr, "TS.CREATE s", "TS.CREATE d", "TS.CREATE e", "TS.CREATERULE s d AGGREGATION std.p 10", "TS.CREATERULE s e AGGREGATION countNaN 20 5",
		"TS.INFO s", "TS.INFO d", "HELLO 3", "TS.INFO s", "DEL d", "TS.INFO s", "DEL s", "TS.INFO e")
	for i, want := range map[int]string{
		5: "sourceKey null rules [[d 10 STD.P 0] [e 20 COUNTNAN 5]] ", 6: "sourceKey s rules [] ",
		8: "sourceKey null rules {d [10 STD.P 0] e [20 COUNTNAN 5]} ", 10: "sourceKey null rules {e [20 COUNTNAN 5]} ", 12: "sourceKey null rules {} ",
	} {
		if s := short(t, got[i]); !strings.Contains(s, want) {
			t.Errorf("answer %d: %s, want %s", i, s, want)
		}
	}
}

// TestRulesAreBounded counts rules and what they take.
func TestRulesAreBounded(t *testing.T) {
	s, addr := newServer(t, nil)
	converse(t, addr, "TS.CREATE s")
	for i := range maxRules {
		name := fmt.Sprint("d", i)
		if got := converse(t, addr, "TS.CREATE "+name, "TS.CREATERULE s "+name+" AGGREGATION sum 10"); got[1] != "+OK\r\n" {
			t.Fatal(got)
		}
	}
	if got := converse(t, addr, "TS.CREATE e", "TS.CREATERULE s e AGGREGATION sum 10")[1]; got != "-ERR TSDB: too many rules of one key, the limit is 128\r\n" {
		t.Errorf("%q", got)
	}
	if got := converse(t, addr, "DEL d7", "TS.CREATERULE s e AGGREGATION sum 10", "TS.CREATE d7", "FLUSHALL"); got[1] != "+OK\r\n" {
		t.Errorf("%q", got)
	}
	if s.series.bytes != 0 {
		t.Errorf("%d bytes are counted of no keys", s.series.bytes)
	}
	_, addr = newServer(t, func(o *Options) { o.MaxKeyBytes = 1300 })
	if got := converse(t, addr, "TS.CREATE a", "TS.CREATE b", "TS.CREATERULE a b AGGREGATION sum 10")[2]; !strings.HasPrefix(got, "-ERR TSDB: no room for a rule of 400 bytes: all keys have 1") {
		t.Errorf("%q", got)
	}
}

// TestRulesModel holds destinations, one for each aggregator, against TS.RANGE of
// the source over the buckets that are closed: samples in order and late, of the
// same time, NaN, removed ones, and keys that are renamed.
func TestRulesModel(t *testing.T) {
	_, addr := newServer(t, nil)
	seed := testSeed(t)
	rng := newRand(seed)
	c := dial(t, addr)
	r := bufio.NewReader(c)
	answer := func() string {
		t.Helper()
		got, err := readReply(r)
		if err != nil {
			t.Fatal(err)
		}
		return short(t, got)
	}
	ask := func(args ...string) string {
		t.Helper()
		send(t, c, bulks(args...))
		return answer()
	}
	compared, late, removed, nan := 0, 0, 0, 0
	for round := range 6 {
		source := fmt.Sprint("s", round)
		bucket, align := 1+rng.IntN(40), rng.IntN(50)
		ask("TS.CREATE", source, "DUPLICATE_POLICY", "LAST")
		for _, a := range aggregators {
			ask("TS.CREATE", source+a)
			if got := ask("TS.CREATERULE", source, source+a, "AGGREGATION", a, strconv.Itoa(bucket), strconv.Itoa(align)); got != "OK" {
				t.Fatal(got)
			}
		}
		last := 0
		for step := range 120 {
			value := strconv.Itoa(rng.IntN(40) - 20)
			if rng.IntN(8) == 0 {
				value = "nan"
				nan++
			}
			switch n := rng.IntN(20); {
			case n < 10:
				last += 1 + rng.IntN(20)
				ask("TS.ADD", source, strconv.Itoa(last), value)
			case n < 12:
				args := []string{"TS.MADD"}
				for range 1 + rng.IntN(5) {
					last += 1 + rng.IntN(10)
					args = append(args, source, strconv.Itoa(last), strconv.Itoa(rng.IntN(9)))
				}
				ask(args...)
			case n < 13:
				if last += rng.IntN(3); ask("TS.INCRBY", source, "2", "TIMESTAMP", strconv.Itoa(last))[0] == '-' {
					last, _ = strconv.Atoi(strings.Trim(strings.Fields(ask("TS.GET", source) + " 0")[0], "[]")) // NaN, or it is empty
				}
			case n < 14:
				from := rng.IntN(last + 10)
				if ask("TS.DEL", source, strconv.Itoa(from), strconv.Itoa(from+rng.IntN(60))) != "0" {
					removed++
				}
			case n == 14 && rng.IntN(5) == 0:
				next := source + "x"
				ask("RENAME", source, next)
				for _, a := range aggregators {
					ask("RENAME", source+a, next+a)
				}
				source = next
			default:
				late++
				ask("TS.ADD", source, strconv.Itoa(rng.IntN(last+1)), value)
			}
			var both strings.Builder
			for _, a := range aggregators {
				both.WriteString(bulks("TS.RANGE", source, "-", "+", "ALIGN", strconv.Itoa(align), "AGGREGATION", a, strconv.Itoa(bucket)))
				both.WriteString(bulks("TS.RANGE", source+a, "-", "+", "LATEST"))
			}
			send(t, c, both.String())
			for _, a := range aggregators {
				want, got := answer(), answer()
				if !closeTo(got, want) {
					t.Fatalf("seed %d, round %d, step %d, %s of %d aligned to %d, last %d:\n got %s\nwant %s\nof %s", seed, round, step, a, bucket, align, last, got, want, ask("TS.RANGE", source, "-", "+"))
				}
				compared++
			}
		}
	}
	if min(late, nan) < 50 || removed < 10 || compared < 10_000 {
		t.Fatalf("%d late samples, %d NaN, %d removals, %d comparisons: too few", late, nan, removed, compared)
	}
}

// closeTo says that two lists of samples are the same but for the last digits.
func closeTo(a, b string) bool {
	x, y := strings.Fields(strings.NewReplacer("[", " ", "]", " ").Replace(a)), strings.Fields(strings.NewReplacer("[", " ", "]", " ").Replace(b))
	if len(x) != len(y) {
		return false
	}
	for i := range x {
		v, err1 := strconv.ParseFloat(x[i], 64)
		w, err2 := strconv.ParseFloat(y[i], 64)
		if err1 != nil || err2 != nil || math.Abs(v-w) > 1e-9*max(1, math.Abs(v)) {
			return false
		}
	}
	return true
}

// TestRulesKeepWhatTheSourceForgot: what is beyond the source's retention stays in
// the destination as it was.
func TestRulesKeepWhatTheSourceForgot(t *testing.T) {
	_, addr := newServer(t, nil)
	for _, c := range [][2]string{
		{"TS.CREATE s RETENTION 100 DUPLICATE_POLICY LAST", "OK"}, {"TS.CREATE d", "OK"}, {"TS.CREATERULE s d AGGREGATION sum 200", "OK"},
		{"TS.ADD s 10 1", "10"}, {"TS.ADD s 150 2", "150"}, {"TS.ADD s 190 3", "190"},
		{"TS.ADD s 120 50", "120"}, // its bucket is no longer whole
		{"TS.GET d LATEST", "[0 6]"},
		{"TS.ADD s 210 1", "210"},
		{"TS.RANGE d - +", "[[0 6]]"},
		{"TS.ADD s 130 9", "130"},
		{"TS.RANGE d - +", "[[0 6]]"},
		{"TS.ADD s 5 9", "-ERR TSDB: Timestamp is older than retention"},
		{"TS.ADD s 900 9", "900"},
		{"TS.RANGE d - +", "[[0 6] [200 1]]"},
	} {
		if got := short(t, converse(t, addr, c[0])[0]); got != c[1] {
			t.Errorf("%s: %s, want %s", c[0], got, c[1])
		}
	}
}

// TestRulesTellWatchers: a destination that is written by its rule has changed.
func TestRulesTellWatchers(t *testing.T) {
	_, addr := newServer(t, nil)
	converse(t, addr, "TS.CREATE s", "TS.CREATE d", "TS.CREATERULE s d AGGREGATION sum 10", "TS.ADD s 1 1")
	c := dial(t, addr)
	r := bufio.NewReader(c)
	send(t, c, bulks("WATCH", "d")+bulks("MULTI")+bulks("TS.GET", "d"))
	for range 3 {
		if _, err := readReply(r); err != nil {
			t.Fatal(err)
		}
	}
	converse(t, addr, "TS.ADD s 11 1")
	send(t, c, bulks("EXEC"))
	if got, err := readReply(r); err != nil || got != "*-1\r\n" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestRulesAreMadeAndUsedAtOnce has clients write sources, make and end rules, rename
// and remove keys: none waits for another forever.
func TestRulesAreMadeAndUsedAtOnce(t *testing.T) {
	s, addr := newServer(t, nil)
	done := make(chan bool)
	const clients = 4
	for i := range clients {
		go func() {
			defer func() { done <- true }()
			rng := newRand(uint64(i))
			c := dial(t, addr)
			r := bufio.NewReader(c)
			key := func() string { return string(rune('a' + rng.IntN(4))) }
			for n := range 1000 {
				args := [][]string{
					{"TS.ADD", key(), strconv.Itoa(n * 3), "1"},
					{"TS.ADD", key(), strconv.Itoa(n * 2), "1", "ON_DUPLICATE", "SUM"},
					{"TS.MADD", key(), strconv.Itoa(n * 3), "1", key(), strconv.Itoa(n*3 + 1), "2"},
					{"TS.CREATERULE", key(), key(), "AGGREGATION", "twa", "10"},
					{"TS.CREATERULE", key(), key(), "AGGREGATION", "sum", "20"},
					{"TS.DELETERULE", key(), key()},
					{"TS.INFO", key()}, {"TS.GET", key(), "LATEST"}, {"TS.RANGE", key(), "-", "+", "LATEST"},
					{"TS.DEL", key(), strconv.Itoa(n), strconv.Itoa(n * 3)},
					{"RENAME", key(), key()}, {"TS.ALTER", key(), "LABELS", "l", key()}, {"DEL", key()}, {"COPY", key(), key(), "REPLACE"},
				}[rng.IntN(14)]
				send(t, c, bulks(args...))
				if _, err := readReply(r); err != nil {
					t.Errorf("%q: %v", args, err)
					return
				}
			}
		}()
	}
	for range clients {
		select {
		case <-done:
		case <-time.After(2 * time.Minute):
			t.Fatal("commands wait for each other")
		}
	}
	converse(t, addr, "FLUSHALL")
	if s.series.bytes != 0 {
		t.Errorf("%d bytes are counted of no keys", s.series.bytes)
	}
}

// linkedKeys are two keys of a server, the first of which is compacted into the other.
func linkedKeys(t *testing.T) (d *directory, source, dest *seriesKey) {
	t.Helper()
	s, addr := newServer(t, nil)
	converse(t, addr, "TS.CREATE s", "TS.CREATE d", "TS.CREATERULE s d AGGREGATION sum 10")
	return s.series, s.series.byName["s"], s.series.byName["d"]
}

// TestRulesBetweenKeysThatChangeSides: who writes a source may be about to lock its
// destination. If that is removed at this moment, one who would make it the source, and
// the old source its destination, must not wait for the writer with it locked.
func TestRulesBetweenKeysThatChangeSides(t *testing.T) {
	d, s, dest := linkedKeys(t)
	rule := s.rules[0]
	dest.mu.Lock() // as who removes it
	linked := make(chan string, 1)
	go func() { linked <- d.link(dest, s, rule.agg) }()
	waitFor(t, "a rule is made the other way round, as soon as its source is free", func() bool {
		stacks := make([]byte, 8<<20)
		for _, g := range bytes.Split(stacks[:runtime.Stack(stacks, true)], []byte("\n\n")) {
			if bytes.Contains(g, []byte("ingest.(*directory).link(")) && bytes.Contains(g, []byte("[sync.Mutex.Lock")) {
				return true
			}
		}
		return false
	})
	s.mu.Lock() // as who writes it, and has seen the rule
	d.mu.Lock()
	d.leaveLocked(dest)
	d.mu.Unlock()
	d.leaveRulesLocked(dest)
	dest.mu.Unlock()
	waitFor(t, "the destination is free", func() bool {
		select {
		case problem := <-linked:
			if problem != errNoKey {
				t.Errorf("the rule: %q", problem)
			}
			return true
		default:
			return false
		}
	})
	if (&conn{srv: &Server{series: d}}).lockDestination(rule) != nil {
		t.Error("what was removed is written")
	}
	s.mu.Unlock()
}

// TestRulesThatEndedLockNothing: their destination may be the source of other rules.
func TestRulesThatEndedLockNothing(t *testing.T) {
	d, s, dest := linkedKeys(t)
	rule := s.rules[0]
	d.detach(rule) // as who has found the destination expired
	dest.mu.Lock()
	defer dest.mu.Unlock()
	looked := make(chan *seriesKey, 1)
	go func() { looked <- (&conn{srv: &Server{series: d}}).lockDestination(rule) }()
	waitFor(t, "the rule is found to have ended", func() bool {
		select {
		case k := <-looked:
			return k == nil
		default:
			return false
		}
	})
}
