package ingest

import (
	"bufio"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"mcached/ingest/resp"
	"mcached/mcache"
)

// converse sends commands, typed as in redis-cli, one at a time and returns
// the answers as they are on the wire.
func converse(t testing.TB, addr string, commands ...string) []string {
	t.Helper()
	c := dial(t, addr)
	r := bufio.NewReader(c)
	var answers []string
	for _, typed := range commands {
		args, ok := resp.SplitLine([]byte(typed), nil)
		if !ok {
			t.Fatalf("unbalanced quotes: %s", typed)
		}
		list := make([]string, len(args))
		for i, a := range args {
			list[i] = string(a)
		}
		send(t, c, bulks(list...))
		a, err := readReply(r)
		if err != nil {
			t.Fatalf("%s: after %q: %v", typed, a, err)
		}
		answers = append(answers, a)
	}
	return answers
}

// short writes an answer on one line: RESP2 arrays as [a b], doubles as they are.
func short(t testing.TB, answer string) string {
	t.Helper()
	r := bufio.NewReader(strings.NewReader(answer))
	s := shortOne(t, r)
	if r.Buffered() > 0 {
		t.Fatalf("something is left of %q", answer)
	}
	return s
}

func shortOne(t testing.TB, r *bufio.Reader) string {
	line, err := r.ReadString('\n')
	if err != nil {
		t.Fatalf("answer ends early: %v", err)
	}
	line = strings.TrimSuffix(line, "\r\n")
	n, _ := strconv.Atoi(line[1:])
	switch line[0] {
	case '$':
		if n < 0 {
			return "null"
		}
		b := make([]byte, n+2)
		for i := range b {
			b[i], _ = r.ReadByte()
		}
		return string(b[:n])
	case '*', '~', '%':
		if n < 0 {
			return "null"
		}
		if line[0] == '%' {
			n *= 2
		}
		var parts []string
		for range n {
			parts = append(parts, shortOne(t, r))
		}
		open := map[byte]string{'*': "[]", '~': "()", '%': "{}"}[line[0]]
		return open[:1] + strings.Join(parts, " ") + open[1:]
	case '_':
		return "null"
	case '-':
		return line
	}
	return line[1:]
}

// TestSeriesCommands is a conversation about time series; "command → answer".
func TestSeriesCommands(t *testing.T) {
	for name, script := range map[string]string{
		"edges": `
TS.MADD none 1 1 → [-ERR TSDB: the key does not exist]
TS.ADD k 10 100 → 10
TS.ADD k 20 110 → 20
TS.RANGE k 12 17 AGGREGATION twa 2 EMPTY → [[12 103] [14 105] [16 106.5]]
TS.RANGE k 11 13 AGGREGATION last 1 EMPTY → [[11 100] [12 100] [13 100]]
TS.RANGE k 18 22 AGGREGATION last 1 EMPTY → [[18 100] [19 100] [20 110]]
TS.RANGE k 8 12 AGGREGATION last 1 EMPTY → [[10 100] [11 100] [12 100]]
TS.REVRANGE k 8 12 AGGREGATION count 1 EMPTY → [[12 0] [11 0] [10 1]]
TS.RANGE k 2 5 AGGREGATION sum 1 EMPTY → []
TS.RANGE k 25 30 AGGREGATION sum 1 EMPTY → []
TS.RANGE k 12 13 AGGREGATION avg,sum 1 EMPTY → [[12 NaN 0] [13 NaN 0]]
TS.RANGE k 12 13 AGGREGATION sum 1 → []
TS.RANGE k 15 25 AGGREGATION twa 10 → [[20 110]]
TS.RANGE k 15 25 AGGREGATION twa 10 EMPTY → [[10 107.5] [20 110]]
TS.RANGE k - + AGGREGATION twa 8 → [[8 103] [16 108]]
TS.RANGE k 12 17 FILTER_BY_VALUE 110 200 AGGREGATION sum 2 EMPTY → []`,
		"NaN": `
TS.CREATE k DUPLICATE_POLICY MAX → OK
TS.ADD k 1 1 → 1
TS.ADD k 2 nan → 2
TS.ADD k 3 -NaN → 3
TS.ADD k 4 3 → 4
TS.ADD k 4 nan → -ERR TSDB: Error at upsert, update is not supported when either current or new value is NaN and DUPLICATE_POLICY is MAX/MIN/SUM
TS.ADD k 2 1 → -ERR TSDB: Error at upsert, update is not supported when either current or new value is NaN and DUPLICATE_POLICY is MAX/MIN/SUM
TS.ADD k 4 nan ON_DUPLICATE LAST → 4
TS.ADD k 3 7 ON_DUPLICATE FIRST → 3
TS.ADD k 3 nan ON_DUPLICATE BLOCK → -ERR TSDB: Error at upsert, update is not supported when DUPLICATE_POLICY is set to BLOCK mode
TS.RANGE k - + → [[1 1] [2 NaN] [3 7] [4 3]]
TS.RANGE k - + AGGREGATION sum,countnan,countall 1 → [[1 1 0 1] [2 0 1 1] [3 7 0 1] [4 3 0 1]]
TS.RANGE k - + AGGREGATION count 1 → [[1 1] [3 1] [4 1]]
TS.RANGE k 2 2 AGGREGATION twa 1 EMPTY → [[2 4]]
TS.ADD n 1 nan → 1
TS.INCRBY n 1 TIMESTAMP 2 → -ERR TSDB: cannot increment/decrement NaN value
TS.INCRBY n nan → -ERR TSDB: invalid increase/decrease value
TS.ADD n 2 1. → -ERR TSDB: invalid value
TS.ADD n 2 .1 → -ERR TSDB: invalid value
TS.ADD n 2 0x1 → -ERR TSDB: invalid value
TS.ADD n 2 1.e5 → -ERR TSDB: invalid value
TS.ADD n 2 -1.5e+1 → 2`,
		"many": `
TS.CREATE a LABELS g x n a → OK
TS.ADD b 1 2 LABELS g x n b → 1
TS.ADD c 1 nan LABELS g x n c → 1
TS.MRANGE - + EXCLUDEEMPTY FILTER g=x → [[b [] [[1 2]]] [c [] [[1 NaN]]]]
TS.MREVRANGE 2 3 FILTER g=x EXCLUDEEMPTY → []
TS.MRANGE - + EXCLUDEEMPTY AGGREGATION sum 10 FILTER g=x → [[b [] [[0 2]]]]
TS.MRANGE - + EXCLUDEEMPTY FILTER g=x GROUPBY g REDUCE sum → -ERR TSDB: EXCLUDEEMPTY cannot be used with GROUPBY
TS.RANGE b - + EXCLUDEEMPTY → -ERR TSDB: unknown argument 'excludeempty'
TS.MRANGE - + FILTER g=x GROUPBY g REDUCE countnan → [[g=x [] [[1 1]]]]
TS.MRANGE - + FILTER g=x GROUPBY g REDUCE countall → [[g=x [] [[1 2]]]]
TS.MRANGE - + FILTER n=c GROUPBY g REDUCE count → [[g=x [] [[1 0]]]]
TS.MRANGE - + FILTER n=c GROUPBY g REDUCE max → [[g=x [] [[1 NaN]]]]
TS.QUERYINDEX n=(a,b) → [a b]
TS.QUERYINDEX n=(a,) → -ERR TSDB: failed parsing labels
TS.QUERYINDEX n=(a,,b) → -ERR TSDB: failed parsing labels
TS.QUERYINDEX n=() → -ERR TSDB: failed parsing labels
MODULE LIST → [[name timeseries ver 11000 path  args []]]
FLUSHALL → OK
TS.QUERYINDEX g=x → []
EXISTS a b c → 0`,
		"ignore": `
TS.INCRBY i 1 TIMESTAMP 100 IGNORE 100000 5 → 100
TS.INCRBY i 3 TIMESTAMP 150 → 100
TS.RANGE i - + → [[100 1]]
TS.INCRBY i 7 TIMESTAMP 100 → 100
TS.DECRBY i 5 TIMESTAMP 160 → 100
TS.DECRBY i 6 TIMESTAMP 170 → 170
TS.RANGE i - + → [[100 8] [170 2]]
TS.CREATE j IGNORE -1 5 → -ERR TSDB: IGNORE arguments cannot be negative
TS.CREATE j IGNORE 1 → -ERR TSDB: Couldn't parse IGNORE
TS.CREATE j LABELS a "b,c" → -ERR TSDB: Couldn't parse LABELS`,
		"create": `
TS.CREATE k RETENTION 60000 CHUNK_SIZE 128 DUPLICATE_POLICY LAST LABELS a 1 → OK
TS.CREATE k → -ERR TSDB: key already exists
TS.CREATE l RETENTION x → -ERR TSDB: Couldn't parse RETENTION
TS.CREATE l RETENTION -1 → -ERR TSDB: Couldn't parse RETENTION
TS.CREATE l RETENTION → -ERR TSDB: Couldn't parse RETENTION
TS.CREATE l CHUNK_SIZE 13 → -ERR TSDB: CHUNK_SIZE value must be a multiple of 8 in the range [48 .. 1048576]
TS.CREATE l DUPLICATE_POLICY foo → -ERR TSDB: Unknown DUPLICATE_POLICY
TS.CREATE l ENCODING foo → -ERR TSDB: unknown ENCODING parameter
TS.CREATE l LABELS a → -ERR TSDB: Couldn't parse LABELS
TS.CREATE l LABELS a b a c → -ERR TSDB: Couldn't parse LABELS
TS.CREATE l FOO → -ERR TSDB: unknown argument 'foo'
TS.CREATE → -ERR wrong number of arguments for 'ts.create' command
TS.CREATE m LABELS __name__ k a 1 → -ERR TSDB: the key "k" has the same name and labels
TYPE k → TSDB-TYPE
TS.CREATE "" LABELS a 5 → OK
TS.CREATE "" → -ERR TSDB: key already exists
TS.ADD "" 1 2 → 1
TS.GET "" → [1 2]
TYPE "" → TSDB-TYPE
EXISTS "" → 1
TS.ADD "\xff\x00" 1 2 LABELS a 6 → 1
TS.MADD "\xff\x00" 2 3 "" 2 3 → [2 2]
TS.MGET FILTER a=5 → [[ [] [2 3]]]
TS.RANGE "\xff\x00" - + → [[1 2] [2 3]]
DEL "" "\xff\x00" → 2
TS.GET "" → -ERR TSDB: the key does not exist
TS.GET k → []
TS.QUERYINDEX a=1 → [k]
TS.ALTER k LABELS a 2 → OK
TS.QUERYINDEX a=1 → []
TS.QUERYINDEX a=2 → [k]
TS.ADD k 1 1 → 1
TS.ADD k 5 2 → 5
TS.ALTER k LABELS a 3 → OK
TS.QUERYINDEX a=2 → []
TS.QUERYINDEX a=3 → [k]
TS.RANGE k - + → [[1 1] [5 2]]
TS.DEL k 2 + → 1
TS.CREATE o LABELS __name__ k a 4 → OK
TS.ALTER k LABELS a 4 → -ERR TSDB: the key "o" has the same name and labels
TS.ALTER k RETENTION 10 → OK
TS.ALTER nokey → -ERR TSDB: the key does not exist
TS.INFO k → [totalSamples 1 memoryUsage 412 firstTimestamp 1 lastTimestamp 1 retentionTime 10 chunkCount 1 chunkSize 128 chunkType compressed duplicatePolicy last labels [[a 3]] sourceKey null rules [] ignoreMaxTimeDiff 0 ignoreMaxValDiff 0]`,
		"add": `
TS.ADD k 1000 1.5 → 1000
TS.ADD k 1000 2 → -ERR TSDB: Error at upsert, update is not supported when DUPLICATE_POLICY is set to BLOCK mode
TS.ADD k 1000 2 ON_DUPLICATE FIRST → 1000
TS.GET k → [1000 1.5]
TS.ADD k 1000 2 ON_DUPLICATE SUM → 1000
TS.GET k → [1000 3.5]
TS.ADD k 1000 2 ON_DUPLICATE MIN → 1000
TS.ADD k 1000 9 ON_DUPLICATE MIN → 1000
TS.GET k → [1000 2]
TS.ADD k 1000 4 ON_DUPLICATE MAX → 1000
TS.GET k → [1000 4]
TS.ADD k 1000 -1e300 ON_DUPLICATE LAST → 1000
TS.GET k → [1000 -1e+300]
TS.ADD k -1 1 → -ERR TSDB: invalid timestamp, must be a nonnegative integer
TS.ADD k x 1 → -ERR TSDB: invalid timestamp, must be a nonnegative integer
TS.ADD k 1 x → -ERR TSDB: invalid value
TS.ADD k 500 7 → 500
TS.RANGE k - + → [[500 7] [1000 -1e+300]]
TS.ADD r 100000 1 RETENTION 1000 → 100000
TS.ADD r 98999 1 → -ERR TSDB: Timestamp is older than retention
TS.ADD r 99000 1 → 99000
TS.ADD r 100500 1 → 100500
TS.RANGE r - + → [[100000 1] [100500 1]]
TS.ADD i 10 1 DUPLICATE_POLICY LAST IGNORE 5 0.5 → 10
TS.ADD i 12 1.2 → 10
TS.ADD i 12 2 → 12
TS.MADD k 2000 1 r 100600 2 nokey 1 1 → [2000 100600 -ERR TSDB: the key does not exist]
TS.MADD k 2000 → -ERR wrong number of arguments for 'ts.madd' command
TS.INCRBY c 5 TIMESTAMP 10 → 10
TS.INCRBY c 2.5 TIMESTAMP 10 → 10
TS.DECRBY c 1 TIMESTAMP 20 → 20
TS.INCRBY c 1 TIMESTAMP 5 → -ERR TSDB: timestamp must be equal to or higher than the maximum existing timestamp
TS.RANGE c - + → [[10 7.5] [20 6.5]]
TS.DEL c 30 40 → 0
TS.DEL c 10 10 → 1
TS.RANGE c - + → [[20 6.5]]
TS.ADD c 20 1 → -ERR TSDB: Error at upsert, update is not supported when DUPLICATE_POLICY is set to BLOCK mode
TS.DEL c - + → 1
TS.GET c → []
TS.ADD c 15 3 → 15
TS.GET c → [15 3]
TS.DEL c x 10 → -ERR TSDB: wrong fromTimestamp
TS.DEL c 1 x → -ERR TSDB: wrong toTimestamp
TS.CREATE e LABELS l e → OK
TS.ADD e 1 1 → 1
TS.DEL e 0 5 → 1
TS.QUERYINDEX l=e → [e]
TS.ADD e 2 1 → 2
TS.QUERYINDEX l=e → [e]
EXISTS e c nokey → 2
DEL e nokey → 1
EXISTS e → 0
TS.GET e → -ERR TSDB: the key does not exist
TS.QUERYINDEX l=e → []
TYPE e → none
TS.ADD e 1 7 LABELS l f → 1
TS.QUERYINDEX l=f → [e]
TS.DEL nokey 1 2 → -ERR TSDB: the key does not exist`,
		"range": `
TS.ADD k 10 1 → 10
TS.ADD k 20 2 → 20
TS.ADD k 30 3 → 30
TS.ADD k 60 6 → 60
TS.RANGE k - + → [[10 1] [20 2] [30 3] [60 6]]
TS.RANGE k 20 30 → [[20 2] [30 3]]
TS.RANGE k 70 80 → []
TS.RANGE k 80 70 → []
TS.REVRANGE k - + COUNT 2 → [[60 6] [30 3]]
TS.RANGE k - + COUNT 2 → [[10 1] [20 2]]
TS.RANGE k - + COUNT 0 → -ERR TSDB: Invalid COUNT value
TS.RANGE k - + FILTER_BY_TS 10 30 31 → [[10 1] [30 3]]
TS.RANGE k - + FILTER_BY_VALUE 2 3 → [[20 2] [30 3]]
TS.RANGE k - + FILTER_BY_TS 10 30 FILTER_BY_VALUE 2 3 COUNT 5 → [[30 3]]
TS.RANGE k - + AGGREGATION sum 20 → [[0 1] [20 5] [60 6]]
TS.REVRANGE k - + AGGREGATION sum 20 COUNT 1 → [[60 6]]
TS.RANGE k - + AGGREGATION avg 100 → [[0 3]]
TS.RANGE k - + AGGREGATION min,max,count,range 100 → [[0 1 6 4 5]]
TS.RANGE k - + AGGREGATION first,last 100 → [[0 1 6]]
TS.RANGE k - + AGGREGATION var.p,var.s 100 → [[0 3.5 4.666666666666667]]
TS.RANGE k - + AGGREGATION std.p,std.s 100 → [[0 1.8708286933869707 2.160246899469287]]
TS.RANGE k 10 + ALIGN start AGGREGATION sum 20 → [[10 3] [30 3] [50 6]]
TS.RANGE k - + ALIGN 5 AGGREGATION sum 20 → [[5 3] [25 3] [45 6]]
TS.RANGE k - 65 ALIGN end AGGREGATION sum 20 → [[5 3] [25 3] [45 6]]
TS.RANGE k - + ALIGN start AGGREGATION sum 20 → -ERR TSDB: start alignment can only be used with explicit start timestamp
TS.RANGE k - + AGGREGATION sum 20 BUCKETTIMESTAMP + → [[20 1] [40 5] [80 6]]
TS.RANGE k - + AGGREGATION sum 20 BUCKETTIMESTAMP ~ → [[10 1] [30 5] [70 6]]
TS.RANGE k - + AGGREGATION sum,avg,last 20 EMPTY → [[0 1 1 1] [20 5 2.5 3] [40 0 NaN 3] [60 6 6 6]]
TS.RANGE k - + AGGREGATION twa 20 → [[0 1.5] [20 3] [60 6]]
TS.RANGE k 20 30 AGGREGATION twa 20 → [[20 2.5]]
TS.RANGE k 20 30 AGGREGATION twa 20 EMPTY → [[20 2.5]]
TS.RANGE k - + AGGREGATION twa 20 EMPTY → [[0 1.5] [20 3] [40 5] [60 6]]
TS.RANGE k - + AGGREGATION foo 20 → -ERR TSDB: Unknown aggregation type
TS.RANGE k - + AGGREGATION sum 0 → -ERR TSDB: bucketDuration must be greater than zero
TS.RANGE k - + AGGREGATION sum x → -ERR TSDB: Couldn't parse AGGREGATION
TS.RANGE k x + → -ERR TSDB: wrong fromTimestamp
TS.RANGE k - x → -ERR TSDB: wrong toTimestamp
TS.RANGE k - + COUNT x → -ERR TSDB: Couldn't parse COUNT
TS.RANGE k - + FOO → -ERR TSDB: unknown argument 'foo'
TS.RANGE nokey - + → -ERR TSDB: the key does not exist
TS.RANGE k - → -ERR wrong number of arguments for 'ts.range' command`,
		"multi": `
TS.ADD a:1 10 1 LABELS kind x room a → 10
TS.ADD a:2 10 2 LABELS kind x room b → 10
TS.ADD a:2 20 4 → 20
TS.ADD b:1 10 3 LABELS kind y → 10
TS.QUERYINDEX kind=x → [a:1 a:2]
TS.QUERYINDEX kind=x room!=a → [a:2]
TS.QUERYINDEX kind=(x,y) → [a:1 a:2 b:1]
TS.QUERYINDEX kind=(x,y) room= → [b:1]
TS.QUERYINDEX kind=(x,y) room!= → [a:1 a:2]
TS.QUERYINDEX kind=(x,y) room!=(a,c) → [a:2 b:1]
TS.QUERYINDEX kind!=x → -ERR TSDB: please provide at least one matcher
TS.QUERYINDEX room= → -ERR TSDB: please provide at least one matcher
TS.QUERYINDEX foo → -ERR TSDB: failed parsing labels
TS.QUERYINDEX kind=(x → -ERR TSDB: failed parsing labels
TS.MRANGE - + FILTER kind=x → [[a:1 [] [[10 1]]] [a:2 [] [[10 2] [20 4]]]]
TS.MREVRANGE - + COUNT 1 FILTER kind=x → [[a:1 [] [[10 1]]] [a:2 [] [[20 4]]]]
TS.MRANGE - + WITHLABELS FILTER room=a → [[a:1 [[kind x] [room a]] [[10 1]]]]
TS.MRANGE - + SELECTED_LABELS room nope FILTER kind=y → [[b:1 [[room null] [nope null]] [[10 3]]]]
TS.MRANGE - + FILTER kind=x GROUPBY kind REDUCE sum → [[kind=x [] [[10 3] [20 4]]]]
TS.MRANGE - + WITHLABELS FILTER kind=x GROUPBY kind REDUCE max → [[kind=x [[kind x] [__reducer__ max] [__source__ a:1,a:2]] [[10 2] [20 4]]]]
TS.MREVRANGE - + COUNT 1 FILTER kind=(x,y) GROUPBY kind REDUCE avg → [[kind=x [] [[20 4]]] [kind=y [] [[10 3]]]]
TS.MRANGE - + AGGREGATION sum 100 FILTER kind=x GROUPBY kind REDUCE max → [[kind=x [] [[0 6]]]]
TS.MRANGE - + FILTER kind=x GROUPBY kind REDUCE twa → -ERR TSDB: Invalid reducer type
TS.MRANGE - + WITHLABELS SELECTED_LABELS a FILTER kind=x → -ERR TSDB: cannot accept WITHLABELS and SELECTED_LABELS together
TS.MRANGE - + COUNT 1 WITHLABELS → -ERR TSDB: missing FILTER argument
TS.MGET WITHLABELS FILTER kind=x → [[a:1 [[kind x] [room a]] [10 1]] [a:2 [[kind x] [room b]] [20 4]]]
TS.MGET SELECTED_LABELS room FILTER kind=y → [[b:1 [[room null]] [10 3]]]
TS.MGET FOO FILTER kind=y → -ERR TSDB: unknown argument 'foo'`,
		"resp3": `
CLIENT SETNAME x → OK
TS.ADD k 10 1.5 LABELS a b → 10
TS.GET k → [10 1.5]
TS.RANGE k - + → [[10 1.5]]
TS.MGET WITHLABELS FILTER a=b → {k [{a b} [10 1.5]]}
TS.MRANGE - + WITHLABELS FILTER a=b → {k [{a b} {aggregators []} [[10 1.5]]]}
TS.MRANGE - + SELECTED_LABELS z AGGREGATION sum,max 10 FILTER a=b → {k [{z null} {aggregators [sum max]} [[10 1.5 1.5]]]}
TS.MRANGE - + WITHLABELS FILTER a=b GROUPBY a REDUCE sum → {a=b [{a b} {reducers [sum]} {sources [k]} [[10 1.5]]]}
TS.QUERYINDEX a=b → (k)`,
	} {
		t.Run(name, func(t *testing.T) {
			_, addr := newServer(t, nil)
			var commands, want []string
			if name == "resp3" {
				commands, want = append(commands, "HELLO 3"), append(want, "")
			}
			for line := range strings.SplitSeq(strings.TrimSpace(script), "\n") {
				c, w, _ := strings.Cut(line, " → ")
				commands, want = append(commands, c), append(want, w)
			}
			for i, a := range converse(t, addr, commands...) {
				if got := short(t, a); got != want[i] && want[i] != "" {
					t.Errorf("%s\n got %s\nwant %s", commands[i], got, want[i])
				}
			}
		})
	}
}

// TestRetentionHoldsForAll: what TS.RANGE does not show, no other reader of the
// cache shows, be it that the key was created, altered, given labels or removed.
func TestRetentionHoldsForAll(t *testing.T) {
	s, addr := newServer(t, nil)
	shown := func(ms ...mcache.Matcher) string {
		t.Helper()
		ids, err := s.o.Metrics.Select("default", ms, nil)
		if err != nil || len(ids) != 1 {
			t.Fatalf("%d series, %v", len(ids), err)
		}
		var snap mcache.Snapshot
		s.o.Metrics.Snapshot(ids[0], -mcache.MaxTime, mcache.MaxTime, &snap)
		var times []int64
		for it := snap.Iterator(); it.Next(); {
			times = append(times, it.At().T)
		}
		return fmt.Sprint(times)
	}
	k, room := mcache.Matcher{Name: nameLabel, Value: "k"}, mcache.Matcher{Name: "room", Value: "b"}
	for _, step := range []struct{ commands, want string }{
		{"TS.CREATE k RETENTION 50|TS.ADD k 100 1|TS.ADD k 140 2|TS.ADD k 160 3", "[140 160]"},
		{"TS.ALTER k RETENTION 10", "[160]"},
		{"TS.ALTER k LABELS room b", "[160]"}, // hidden samples do not move
		{"TS.ADD k 150 4|TS.ADD k 165 5", "[160 165]"},
		{"TS.ALTER k RETENTION 0", "[150 160 165]"},
		{"TS.ALTER k RETENTION 10|DEL k|TS.ADD k 100 1|TS.ADD k 200 1", "[100 200]"},
	} {
		for i, a := range converse(t, addr, strings.Split(step.commands, "|")...) {
			if a[0] == '-' {
				t.Fatalf("%s: %d: %s", step.commands, i, a)
			}
		}
		ms := []mcache.Matcher{k}
		if strings.Contains(step.want, "165") {
			ms = append(ms, room)
		}
		if got := shown(ms...); got != step.want {
			t.Errorf("%s: %s, want %s", step.commands, got, step.want)
		}
	}
}

// TestSeriesAreThoseOfPrometheus: what TS.ADD wrote is found by its labels in
// the cache, and what came in by labels is found by the TS commands.
func TestSeriesAreThoseOfPrometheus(t *testing.T) {
	s, addr := newServer(t, nil)
	m := s.o.Metrics
	converse(t, addr, "TS.ADD temp:1 1000 20.5 LABELS room a", "TS.ADD t2 1000 21 LABELS __name__ temp room b")
	for want, ms := range map[string][]mcache.Matcher{
		`temp:1{room="a"}`: {{Name: "room", Value: "a"}},
		`temp{room="b"}`:   {{Name: nameLabel, Value: "temp"}},
	} {
		ids, err := m.Select("default", ms, nil)
		if err != nil || len(ids) != 1 {
			t.Fatalf("%v: %d series, %v", ms, len(ids), err)
		}
		labels, _ := m.Labels(ids[0], nil)
		if got := selector(labels); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		var snap mcache.Snapshot
		m.Snapshot(ids[0], 0, 2000, &snap)
		it := snap.Iterator()
		if !it.Next() || it.At().T != 1000 || math.Float64frombits(it.At().V) < 20 {
			t.Errorf("%s: the sample is not there", want)
		}
	}

	up := func(instance string) []mcache.Label {
		return []mcache.Label{{Name: nameLabel, Value: "up"}, {Name: "instance", Value: instance}, {Name: "job", Value: `j"\`}}
	}
	for i := range 3 {
		if err := m.AppendSamples("default", up(fmt.Sprint("x:", i)),
			mcache.Sample{T: 1000, V: math.Float64bits(float64(i))}, mcache.Sample{T: 2000, V: staleBits}); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.AppendSamples("default", []mcache.Label{{Name: nameLabel, Value: "up"}}, mcache.Sample{T: 1000, V: math.Float64bits(9)}); err != nil {
		t.Fatal(err)
	}
	key := strconv.Quote(selector(up("x:1")))
	got := converse(t, addr, "TS.QUERYINDEX __name__=up", "TS.RANGE "+key+" - +", "TS.GET up", "TS.ADD "+key+" 3000 7", "TS.MGET FILTER instance=x:1", "TS.ADD "+key+" 3000 8")
	want := []string{
		`[up up{instance="x:0",job="j\"\\"} up{instance="x:1",job="j\"\\"} up{instance="x:2",job="j\"\\"}]`,
		"[[1000 1]]", "[1000 9]", "3000", `[[up{instance="x:1",job="j\"\\"} [] [3000 7]]]`, errBlocked,
	}
	for i := range got {
		if g := short(t, got[i]); strings.TrimPrefix(g, "-") != want[i] {
			t.Errorf("%d: got %s, want %s", i, g, want[i])
		}
	}
}

func TestSelectorRoundTrip(t *testing.T) {
	for _, labels := range [][]mcache.Label{
		{{Name: nameLabel, Value: "up"}},
		{{Name: nameLabel, Value: "a{b"}},
		{{Name: nameLabel, Value: "a"}, {Name: "b", Value: `"},\`}},
		{{Name: "b", Value: "c"}},
		{{Name: nameLabel, Value: "ü"}, {Name: "my label", Value: "\n"}, {Name: "z", Value: "{}"}},
	} {
		s := selector(labels)
		got, ok := parseSelector(s)
		if !ok && len(labels) == 1 {
			got, ok = []mcache.Label{{Name: nameLabel, Value: s}}, true
		}
		slices.SortFunc(got, func(a, b mcache.Label) int { return strings.Compare(a.Name, b.Name) })
		if !ok || !slices.Equal(got, labels) {
			t.Errorf("%s: %v, want %v", s, got, labels)
		}
	}
	for _, s := range []string{"a{", "a{}x", "{", "{}", `a{b}`, `a{b="c}`, `a{b="c"`, `a{b="c" }`, `a{b="c",}`, `a{="c"}`, "a{b=`c`}"} {
		if l, ok := parseSelector(s); ok && len(l) > 1 {
			t.Errorf("%s means %v", s, l)
		}
	}
}

// TestTWAEndsAtTheRange draws no line beyond the range that was asked for.
func TestTWAEndsAtTheRange(t *testing.T) {
	_, addr := newServer(t, nil)
	var adds []string
	for i := range 121 {
		adds = append(adds, fmt.Sprintf("TS.ADD g %d %d", i*1000, 100+i%2*10))
	}
	converse(t, addr, adds...)
	for command, want := range map[string]string{
		"TS.RANGE g 30000 90000 AGGREGATION twa 60000":             "[[0 105] [60000 105]]",
		"TS.REVRANGE g 30000 90000 AGGREGATION twa 60000":          "[[60000 105] [0 105]]",
		"TS.RANGE g 30500 30900 AGGREGATION twa 60000 EMPTY":       "[[0 107]]",
		"TS.RANGE g 0 120000 AGGREGATION twa 60000":                "[[0 105] [60000 105] [120000 100]]",
		"TS.RANGE g 29000 31000 AGGREGATION twa 60000":             "[[0 105]]",
		"TS.RANGE g 30000 90000 ALIGN start AGGREGATION twa 60000": "[[30000 105] [90000 100]]",
	} {
		if got := short(t, converse(t, addr, command)[0]); got != want {
			t.Errorf("%s: %s, want %s", command, got, want)
		}
	}
}

func TestMaxKeysAndReplySamples(t *testing.T) {
	_, addr := newServer(t, func(o *Options) { o.MaxKeys, o.MaxReplySamples, o.Flags = 2, 3, map[string]string{"MaxKeys": "--keys"} })
	got := converse(t, addr, "TS.ADD a 1 1", "TS.ADD b 1 1", "TS.ADD c 1 1",
		"TS.MADD a 2 1 a 3 1", "TS.RANGE a - +", "TS.ADD a 4 1", "TS.RANGE a - +", "TS.RANGE a - + COUNT 2", "TS.RANGE a - + AGGREGATION sum 1")
	for i, want := range map[int]string{2: "-ERR TSDB: too many keys, the limit is 2 (--keys), there are 2", 4: "[[1 1] [2 1] [3 1]]", 6: "limit is 3", 7: "[[1 1] [2 1]]", 8: "limit is 3"} {
		if g := short(t, got[i]); !strings.Contains(g, want) {
			t.Errorf("%d: got %s, want %s", i, g, want)
		}
	}
}

func TestMetricCacheCommands(t *testing.T) {
	_, addr := newServer(t, nil)
	script := `
MC.INSERT b k 10 "aaaaaaaabbbbbbbb" → OK
MC.INSERT b k 13 "dddddddd" → OK
MC.GET b k → [[10 aaaaaaaabbbbbbbb] [13 dddddddd]]
MC.INSERT b k 12 "cccccccc" → OK
MC.GET b k → [[10 aaaaaaaabbbbbbbbccccccccdddddddd]]
MC.RANGE b k 11 12 → [[11 bbbbbbbbcccccccc]]
MC.RANGE b k x 12 → -ERR value is not an integer or out of range
MC.GET b nokey → []
MC.GET nobucket k → []
MC.INSERT b k x "aaaaaaaa" → -ERR value is not an integer or out of range
MC.BUCKETS → [b]
MC.AGE b → OK
MC.TAKE b k → [[10 aaaaaaaabbbbbbbbccccccccdddddddd]]
MC.TAKE b k → []
MC.INSERT b k 1 "aaaaaaaa" → OK
MC.POP → [b k [[1 aaaaaaaa]]]
MC.POP → null
MC.DROP b → 1
MC.DROP b → 0
MC.STATS nobucket → -ERR no such bucket`
	var commands, want []string
	for line := range strings.SplitSeq(strings.TrimSpace(script), "\n") {
		c, w, _ := strings.Cut(line, " → ")
		commands, want = append(commands, c), append(want, w)
	}
	for i, a := range converse(t, addr, commands...) {
		if got := short(t, a); got != want[i] {
			t.Errorf("%s\n got %s\nwant %s", commands[i], got, want[i])
		}
	}
	for _, bad := range []string{`MC.INSERT b k 1 "aaa"`, `MC.INSERT b k 1 ""`, `MC.INSERT b "" 1 "aaaaaaaa"`, `MC.HPTS b k "aaaaaaaa"`} {
		if a := converse(t, addr, bad)[0]; a[0] != '-' {
			t.Errorf("%s: %q", bad, a)
		}
	}
	if a := converse(t, addr, `MC.INSERT b k 1 "aaaaaaaa"`, `MC.HPTS b l "aaaaaaaabbbbbbbb"`)[1]; a[0] != '-' {
		t.Errorf("two widths in one bucket: %q", a)
	}
}

// Series that come by commands are held to the bucket's limits, those that are
// there are not, and a key whose first sample is refused does not exist.
func TestSeriesLimitsHoldForCommands(t *testing.T) {
	var cache *mcache.Cache
	_, addr := newServer(t, func(o *Options) {
		var err error
		cache, err = mcache.New(mcache.Options{Memory: o.Memory, Shards: 2,
			Limits: mcache.Limits{Series: 3, SeriesPerMetric: 2}, BucketLimits: map[string]mcache.Limits{"raw": {Series: 1}}})
		if err != nil {
			t.Fatal(err)
		}
		o.Metrics = cache
	})
	defer cache.Close()
	for _, c := range []struct{ command, answer string }{
		{"TS.ADD a 1 1 LABELS __name__ m i 1", ":1\r\n"},
		{"TS.ADD b 1 1 LABELS __name__ m i 2", ":1\r\n"},
		{"TS.ADD c 1 1 LABELS __name__ m i 3", "-ERR TSDB: too many series of one metric: \"m\" of bucket \"default\" has 2, its limit is 2\r\n"},
		{"TS.ADD c 1 1 LABELS __name__ n i 3", ":1\r\n"}, // the refused one left nothing
		{"TS.INCRBY d 1", "-ERR too many series: bucket \"default\" has 3, its limit is 3\r\n"},
		{"TS.INFO d", "-ERR TSDB: the key does not exist\r\n"},
		{"TS.ADD a 2 2", ":2\r\n"},
		{"TS.INCRBY b 1 TIMESTAMP 5", ":5\r\n"},
		{"TS.CREATE e", "+OK\r\n"}, // a name, no series yet
		{"TS.MADD e 1 1 a 3 3", "*2\r\n-ERR TSDB: too many series: bucket \"default\" has 3, its limit is 3\r\n:3\r\n"},
		{"MC.INSERT raw a 0 12345678", "+OK\r\n"},
		{"MC.INSERT raw b 0 12345678", "-ERR too many series: bucket \"raw\" has 1, its limit is 1\r\n"},
		{"MC.INSERT raw a 1 12345678", "+OK\r\n"},
	} {
		if got := converse(t, addr, c.command)[0]; got != c.answer {
			t.Errorf("%s: %q, want %q", c.command, got, c.answer)
		}
	}
}

// A series of histograms, which remote write brings, has no sample that these
// commands show.
func TestSeriesOfHistograms(t *testing.T) {
	s, addr := newServer(t, nil)
	var b mcache.Batch
	labels := []mcache.Label{{Name: "__name__", Value: "h"}}
	for i := range int64(3) {
		b.Reset("default")
		b.Series(s.o.Metrics.Fingerprint(labels))
		b.Record(1000+i, []byte("whatever a histogram is"))
		if _, err := s.o.Metrics.Append(&b); err != nil {
			t.Fatal(err)
		}
		for _, k := range b.Missing() {
			if _, err := s.o.Metrics.AppendNew(&b, k, labels); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, typed := range [][2]string{
		{"ts.add h 1001 5", ":1001\r\n"}, {"ts.add h 1001 6 on_duplicate max", ":1001\r\n"}, {"ts.range h - +", "*1\r\n*2\r\n:1001\r\n+6\r\n"},
		{"rename h h2", "-ERR TSDB: " + strings.TrimPrefix(errHistograms.Error(), "TSDB: ") + "\r\n"}, {"ts.del h 1001 1001", ":1\r\n"},
	} {
		if got := converse(t, addr, typed[0]); got[0] != typed[1] {
			t.Errorf("%s: %q, want %q", typed[0], got, typed[1])
		}
	}
	for cmd, want := range map[string]string{
		"ts.mrange - + filter __name__=h": "*1\r\n*3\r\n$1\r\nh\r\n*0\r\n*0\r\n", "ts.mget filter __name__=h": "*1\r\n*3\r\n$1\r\nh\r\n*0\r\n*0\r\n",
		"ts.range h - +": "*0\r\n", "ts.get h": "*0\r\n",
	} {
		if got := converse(t, addr, cmd); got[0] != want {
			t.Errorf("%s: %q", cmd, got)
		}
	}
}
