package ingest

import (
	"bufio"
	"bytes"
	"cmp"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"

	"mcached/ingest/resp"
)

// capture is a socket that keeps what is written.
type capture struct {
	sink
	b *bytes.Buffer
}

func (c capture) Write(b []byte) (int, error) { return c.b.Write(b) }

// commandSeeds are what FuzzCommands begins with: each command is in one of them.
var commandSeeds = []string{
	"SET k v EX 10 NX GET\nGETEX k PERSIST\nSCAN 0 MATCH * COUNT 5 TYPE string\n",
	"TS.ADD k 1 2 RETENTION 5 LABELS a b IGNORE 1 2\nTS.ADD k 2 3\nTS.RANGE k - + ALIGN 3 AGGREGATION avg,twa 7 BUCKETTIMESTAMP ~ EMPTY\n",
	"TS.ADD k 1 2 LABELS a b\nTS.ADD k 900 2\nTS.MRANGE - + FILTER_BY_VALUE 1 2 WITHLABELS AGGREGATION twa 9 EMPTY FILTER a=(b,c) GROUPBY a REDUCE std.s\n",
	"TS.CREATE k LABELS a b\nTS.ALTER k LABELS c d\nTS.MGET SELECTED_LABELS a FILTER c!=\nTS.INFO k\nTS.QUERYINDEX a=b\n",
	"MC.INSERT b k 5 aaaaaaaa\nMC.RANGE b k 0 9\nMC.TAKE b k\nMC.STATS b\nMC.POP\nMC.HPTS c k aaaaaaaabbbbbbbb\n",
	"HELLO 3 SETNAME x\nCOMMAND DOCS get\nCOMMAND INFO set client\nCONFIG GET *\nMEMORY STATS\nCLIENT LIST\nINFO\n",
	"EVAL \"redis.call('set',KEYS[1],ARGV[1]) return {redis.call('get',KEYS[1]),1.5,{ok='x'},cjson.encode({1})}\" 1 k v\nEVALSHA ffffffffffffffffffffffffffffffffffffffff 0\nSCRIPT LOAD \"return redis.pcall('nosuch')\"\nEVAL_RO \"return redis.call('del','k')\" 0\n",
	"SELECT 1\nSET k v EX 10\nMOVE k 0\nSWAPDB 0 1\nMULTI\nSELECT 2\nEVAL \"return redis.call('select',3)\" 0\nEXEC\nFLUSHDB\nSCRIPT KILL\nSCRIPT EXISTS a\nSCRIPT FLUSH ASYNC\n",
	"HSET h f v g 5\nHINCRBY h g 3\nHINCRBYFLOAT h g .5\nHGETALL h\nHDEL h f\nHSCAN h 0 MATCH * COUNT 3\nHRANDFIELD h -3 WITHVALUES\nGET h\nRENAME h i\nCOPY i j REPLACE\nSETRANGE k 3 x\n",
	"SADD s 1 2 x\nSREM s 1\nSMEMBERS s\nSPOP s 2\nSRANDMEMBER s -2\nSMOVE s t x\nSINTER s t\nSUNION s t\nSDIFF s t\nSSCAN s 0\nSMISMEMBER s 1 2\nOBJECT ENCODING s\n",
	"CLIENT TRACKING on OPTIN\nCLIENT CACHING yes\nGET a\nCLIENT TRACKINGINFO\nCLIENT GETREDIR\nPUBLISH a b\nPUBSUB NUMSUB a\nSLOWLOG GET 3\nLATENCY HISTOGRAM get\nINFO all\nCLIENT KILL ID 77\nCOMMAND GETKEYS MSET a b c d\nACL CAT set\n",
	"SET k v IFNE x GET EX 10\nSET k w IFDEQ 0123456789abcdef\nDIGEST k\nDELEX k IFDNE 0123456789abcdef\nDELEX k IFNE v\nDELIFEQ k v\nDELEX k\n",
	"TS.CREATE s\nTS.CREATE d\nTS.CREATERULE s d AGGREGATION twa 5 2\nTS.ADD s 1 2\nTS.ADD s 9 3\nTS.ADD s 4 nan\nTS.DEL s 2 9\nTS.GET d LATEST\nTS.INFO s\nRENAME s t\nTS.INCRBY t 3\nTS.DELETERULE t d\n",
	"TS.ADD k 1 2\nRENAME k l\nCOPY l m\nEXPIRE l 100\nTTL l\nSET l v\nSCAN 0 TYPE tsdb-type\nDBSIZE\nTYPE m\nMEMORY USAGE m\n",
	"TS.RANGE up{a=\"b\"} 0 9223372036854775807 AGGREGATION sum 2305843009213693952 EMPTY\n",
	"PING\nECHO a\nAUTH x\nCLIENT ID\nCLIENT SETNAME a\nCLIENT GETNAME\nCLIENT SETINFO LIB-NAME a\nCLIENT INFO\nCLIENT UNPAUSE\nCLIENT NO-EVICT on\nCLIENT NO-TOUCH on\nCLIENT HELP\nTIME\nRESET\nQUIT\n",
	"COMMAND COUNT\nCOMMAND LIST FILTERBY PATTERN g*\nCOMMAND HELP\nCONFIG SET maxmemory 1\nCONFIG RESETSTAT\nCONFIG REWRITE\nCONFIG HELP\nFUNCTION FLUSH\nFUNCTION\nMODULE LIST\nMODULE HELP\nMODULE\nWAIT 0 0\nMEMORY DOCTOR\nMEMORY PURGE\nMEMORY HELP\nROLE\nFLUSHALL ASYNC\n",
	"ACL WHOAMI\nACL USERS\nACL LIST\nACL GETUSER default\nACL HELP\nSLOWLOG LEN\nSLOWLOG RESET\nSLOWLOG HELP\nLATENCY LATEST\nLATENCY HISTORY a\nLATENCY RESET a\nLATENCY DOCTOR\nLATENCY HELP\n",
	"SETNX k v\nSETEX k 5 v\nPSETEX k 5000 v\nGETSET k w\nGETDEL k\nMSET a 1 b 2\nMGET a b c\nMSETNX a 1 d 2\nAPPEND a x\nSTRLEN a\nGETRANGE a 0 -1\nSUBSTR a -2 9\nINCR b\nDECR b\nINCRBY b 5\nDECRBY b -5\nINCRBYFLOAT b 1.5\n",
	"SET a 1 EX 100\nEXISTS a a b\nTOUCH a b\nPTTL a\nEXPIRETIME a\nPEXPIRETIME a\nPEXPIRE a 5000 NX\nEXPIREAT a 99999999999 GT\nPEXPIREAT a 1 LT\nPERSIST a\nKEYS *\nRANDOMKEY\nOBJECT IDLETIME a\nOBJECT REFCOUNT a\nOBJECT FREQ a\nOBJECT HELP\nRENAMENX a b\nDEL a\nUNLINK b c\n",
	"WATCH a b\nMULTI\nINCR a\nHGET a b\nNOSUCH\nMULTI\nEXEC\nMULTI\nDISCARD\nUNWATCH\nDISCARD\nEXEC\n",
	"SPUBLISH a b\nPUBSUB CHANNELS *\nPUBSUB NUMPAT\nPUBSUB SHARDCHANNELS\nPUBSUB SHARDNUMSUB a\nPUBSUB HELP\nEVALSHA_RO ffffffffffffffffffffffffffffffffffffffff 1 k\nSCRIPT HELP\n",
	"HMSET h a 1 b 2\nHSETNX h c 3\nHGET h a\nHMGET h a z\nHKEYS h\nHVALS h\nHEXISTS h a\nHLEN h\nHSTRLEN h a\nSISMEMBER h a\nSADD s a\nSISMEMBER s a\nSCARD s\n",
	"CLUSTER INFO\nCLUSTER SLOTS\nCLUSTER SHARDS\nCLUSTER NODES\nCLUSTER MYID\nCLUSTER KEYSLOT a\nCLUSTER COUNTKEYSINSLOT 5\nCLUSTER GETKEYSINSLOT 5 2\nCLUSTER REPLICAS a\nCLUSTER LINKS\nCLUSTER HELP\nCLUSTER\nREADONLY\nREADWRITE\nASKING\nMC.PEER a\nMC.COPY a b c\n",
	"TS.CREATE a LABELS l x\nTS.CREATE b LABELS l y\nTS.MADD a 1 2 b 2 3 a 1 x\nTS.INCRBY a 5 TIMESTAMP 9\nTS.DECRBY a 1 TIMESTAMP 9\nTS.REVRANGE a - + COUNT 3 AGGREGATION max 5\nTS.MREVRANGE - + WITHLABELS FILTER l!= GROUPBY l REDUCE max\n",
	"MC.INSERT b k 5 aaaaaaaa\nMC.GET b k 5\nMC.AGE b\nMC.BUCKETS\nMC.DROP b\n",
}

// FuzzCommands types random lines: nothing panics, every command is answered
// by one well-formed answer, in either protocol.
func FuzzCommands(f *testing.F) {
	for _, s := range commandSeeds {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, input []byte, resp3 bool) {
		c := newSession(t, func(o *Options) { o.MaxReplySamples, o.MaxScriptSteps = 1000, 50_000 })
		out := new(bytes.Buffer)
		c.nc = capture{b: out}
		c.V3 = resp3
		want := 0
		for line := range bytes.SplitSeq(input, []byte("\n")) {
			if bytes.ContainsAny(line, "\x00\r") || len(line) > 10_000 {
				continue
			}
			args, ok := resp.SplitLine(line, nil)
			if !ok || len(args) == 0 || resp.EqualFold(args[0], "client") && len(args) > 1 && resp.EqualFold(args[1], "reply") || crossProtocol(args[0]) {
				continue
			}
			words := make([]string, len(args))
			for i, a := range args {
				words[i] = string(a)
			}
			if answersOtherwise(words) {
				continue
			}
			c.feed([]byte(bulks(words...)))
			if want++; c.quit {
				break
			}
		}
		r := bufio.NewReader(out)
		for i := range want {
			if a, err := readReply(r); err != nil {
				t.Fatalf("answer %d of %d: %q, %v", i, want, a, err)
			}
		}
		if rest, _ := io.ReadAll(r); len(rest) > 0 {
			t.Fatalf("%d answers were expected, then came %q", want, rest)
		}
	})
}

// TestFuzzKnowsEveryCommand: none is left out of what the fuzzer begins with, but
// for those that it cannot ask, as one answer to each is what it counts on.
func TestFuzzKnowsEveryCommand(t *testing.T) {
	known := map[string]bool{}
	for _, seed := range commandSeeds {
		for line := range strings.Lines(seed) {
			words := strings.Fields(strings.ToLower(line))
			known[words[0]] = true
			known[strings.Join(words[:min(2, len(words))], " ")] = true
		}
	}
	check := func(words ...string) {
		name := strings.Join(words, " ")
		if !known[name] && !answersOtherwise(words) && !crossProtocol([]byte(words[0])) && name != "client reply" {
			t.Errorf("%s is in no seed", name)
		}
	}
	for _, m := range newCommandSet(true).rows {
		check(m.name)
		for _, sub := range m.subs {
			check(m.name, sub.name)
		}
	}
}

// answersOtherwise says that a command is not answered once: because it answers for
// each name, because more comes behind its answer, or because all that follows waits.
func answersOtherwise(words []string) bool {
	name := strings.ToLower(words[0])
	return strings.HasSuffix(name, "subscribe") || name == "monitor" ||
		name == "client" && len(words) > 1 && strings.EqualFold(words[1], "pause")
}

// testSeed is what random tests begin with: the same each time, so that a run
// says something of the code and not of the day, unless SEED names another.
func testSeed(t *testing.T) uint64 {
	t.Helper()
	text := cmp.Or(os.Getenv("SEED"), "1")
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("SEED: %v", err)
	}
	return seed
}

// TestAggregateIsWhatItSays compares bucketing with the definition, bucket by
// bucket, over random series and bounds.
func TestAggregateIsWhatItSays(t *testing.T) {
	seed := testSeed(t)
	rng := newRand(seed)
	filled, emptied := 0, 0
	for range 2000 {
		var points []point
		for at := int64(rng.IntN(50)); len(points) < 1+rng.IntN(30); at += 1 + int64(rng.IntN(40)) {
			points = append(points, point{at, float64(rng.IntN(20) - 10)})
		}
		a := aggregation{kinds: []string{"sum", "count", "min", "last"}, bucketMs: 1 + int64(rng.IntN(60)), alignMs: int64(rng.IntN(100)), stamp: '-', empty: rng.IntN(2) == 0}
		first, end := points[0].t, points[len(points)-1].t
		w := window{from: first - int64(rng.IntN(90)), to: end + int64(rng.IntN(90))}
		if rng.IntN(2) == 0 {
			w.before = &point{w.from - 1 - int64(rng.IntN(9)), 7}
		}
		if rng.IntN(2) == 0 {
			w.after = &point{w.to + 1 + int64(rng.IntN(9)), 8}
		}
		if a.empty && w.before != nil {
			first = w.from
		}
		if a.empty && w.after != nil {
			end = w.to
		}
		got, ok := a.aggregate(points, w, 1<<20)
		if !ok {
			t.Fatal("refused")
		}
		i := 0
		for (first-a.alignMs)%a.bucketMs != 0 {
			first--
		}
		for start := first; start <= end; start += a.bucketMs {
			n, sum, least, last := 0, 0.0, 0.0, 7.0
			for _, p := range points {
				if p.t < start+a.bucketMs {
					last = p.v
				}
				if p.t < start || p.t >= start+a.bucketMs {
					continue
				}
				if n++; n == 1 || p.v < least {
					least = p.v
				}
				sum += p.v
			}
			if n == 0 && !a.empty {
				continue
			}
			if i >= got.len() {
				t.Fatalf("seed %d: bucket %d is missing", seed, start)
			}
			row := got.row(i)
			if got.times[i] != max(start, 0) || row[0] != sum || row[1] != float64(n) || row[3] != last || n > 0 && row[2] != least {
				t.Fatalf("seed %d: bucket %d of %d ms: got %d %v, want %v %d %v %v", seed, start, a.bucketMs, got.times[i], row, sum, n, least, last)
			}
			if i++; n == 0 {
				emptied++
			} else {
				filled++
			}
		}
		if i != got.len() {
			t.Fatalf("seed %d: %d buckets too many", seed, got.len()-i)
		}
	}
	if filled < 1000 || emptied < 1000 {
		t.Fatalf("%d buckets with and %d without samples: too few", filled, emptied)
	}
}
