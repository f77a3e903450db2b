package ingest

import (
	"encoding/binary"
	"encoding/hex"

	"github.com/zeebo/xxh3"

	"mcached/ingest/resp"
	"mcached/kvcache"
)

// Compare and set, compare and delete: what a lock's client needs so that it
// releases or prolongs its own lock only. Names, answers and errors are those of
// Redis 8.4 (SET … IFEQ, DELEX, DIGEST) and of Valkey 9 (DELIFEQ).

func compareCommands() []command {
	one := [3]int{1, 1, 1}
	return []command{
		{name: "delex", arity: -2, group: groupString, syntax: "key [IFEQ value | IFNE value | IFDEQ digest | IFDNE digest]", summary: "Removes a key if its value, or the digest of it, is or is not what is given.", flags: write | fast, keys: one, run: delEx},
		{name: "delifeq", arity: 3, group: groupString, syntax: "key value", summary: "Removes a key if it has that value.", flags: write | fast, keys: one, run: delIfEq},
		{name: "digest", arity: 2, group: groupString, syntax: "key", summary: "Returns the digest of a value, its XXH3 in 16 hexadecimal digits.", flags: readonly | fast, keys: one, run: digest},
	}
}

// digestDigits is how many hexadecimal digits a digest has.
const digestDigits = 16

const (
	errDigest    = "ERR must be exactly 16 hexadecimal characters"
	errCondition = "ERR Invalid condition. Use IFEQ, IFNE, IFDEQ, or IFDNE"
	errNotString = "ERR Key should be of string type if conditions are specified"
)

// digestOf is what DIGEST answers for a value: XXH3 of 64 bits, seed 0.
func digestOf(value []byte) [digestDigits]byte { return digestText(xxh3.Hash(value)) }

func digestText(hash uint64) (text [digestDigits]byte) {
	var sum [digestDigits / 2]byte
	binary.BigEndian.PutUint64(sum[:], hash)
	hex.Encode(text[:], sum[:])
	return text
}

// comparison is what a value has to be for something to be done.
type comparison struct {
	*comparisonWord        // nil for none
	operand         []byte // a value or a digest
}

type comparisonWord struct {
	name   string
	digest bool // it is digests that are compared
	equal  bool // they have to be equal, else to differ
}

var comparisonWords = [...]comparisonWord{{"ifeq", false, true}, {"ifne", false, false}, {"ifdeq", true, true}, {"ifdne", true, false}}

func findComparison(b []byte) *comparisonWord {
	for i := range comparisonWords {
		if resp.EqualFold(b, comparisonWords[i].name) {
			return &comparisonWords[i]
		}
	}
	return nil
}

// problem says what is wrong with the operand, which Redis wants to know only of
// a key that is there: nothing but the length, so that other 16 characters are a
// digest that no value has.
func (q comparison) problem() string {
	if q.digest && len(q.operand) != digestDigits {
		return errDigest
	}
	return ""
}

// holds reports whether a value is as it has to be.
func (q comparison) holds(value []byte) bool {
	if !q.digest {
		return (string(value) == string(q.operand)) == q.equal
	}
	text := digestOf(value)
	return resp.EqualFold(q.operand, string(text[:])) == q.equal
}

func delEx(c *conn, args [][]byte) {
	switch len(args) {
	case 2:
		del(c, args)
		return
	case 4:
	default:
		c.wrongArity("delex")
		return
	}
	q := comparison{findComparison(args[2]), args[3]}
	problem, done := "", false
	err := c.cache().Update(args[1], func(old kvcache.Entry, ok bool) (kvcache.Entry, kvcache.Op) {
		problem, done = "", false
		switch {
		case ok && old.Kind != kvcache.String || !ok && c.srv.isSeries(c.db, args[1]):
			problem = errNotString
		case !ok:
		case q.comparisonWord == nil:
			problem = errCondition
		default:
			problem = q.problem()
			done = problem == "" && q.holds(old.Value)
		}
		return old, removeIf(done)
	})
	if !c.unchanged(err, problem) {
		c.Flag(done)
	}
}

func delIfEq(c *conn, args [][]byte) {
	done := false
	err := c.updateString(args[1], func(old kvcache.Entry, ok bool) (kvcache.Entry, kvcache.Op) {
		done = ok && string(old.Value) == string(args[2])
		return old, removeIf(done)
	})
	if !c.unchanged(err, "") {
		c.Flag(done)
	}
}

func removeIf(holds bool) kvcache.Op {
	if holds {
		return kvcache.Remove
	}
	return kvcache.Keep
}

func digest(c *conn, args [][]byte) {
	answer := func(sum uint64, kind kvcache.Kind, ok bool) {
		kind, ok = c.srv.typed(c.db, args[1], kind, ok)
		text := digestText(sum)
		c.answerGet(text[:], kind, ok)
	}
	large := c.cache().View(args[1], func(value []byte, kind kvcache.Kind, ok bool) { answer(xxh3.Hash(value), kind, ok) })
	if large {
		h := xxh3.New()
		ok, _ := c.cache().ViewLarge(args[1], func(int) error { h.Reset(); return nil }, func(part []byte) { _, _ = h.Write(part) })
		answer(h.Sum64(), kvcache.String, ok)
	}
}
