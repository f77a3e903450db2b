package ingest

import (
	"bufio"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// TestCompare is what Redis 8.4 and Valkey 9 answer, in words of their manuals and
// tests.
func TestCompare(t *testing.T) {
	_, addr := newServer(t, nil)
	const digest, zeros = "b6acb9d84a38ff74", "v8lf0c11xh8ymlqztfd3eeq16kfn4sspw7fqmnuuq3k3t75em5wdizgcdw7uc26nnf961u2jkfzkjytls2kwlj7626sd"
	wrong, not, invalid, short := "-"+errWrongType+"\r\n", "-ERR Key should be of string type if conditions are specified\r\n", "-ERR Invalid condition. Use IFEQ, IFNE, IFDEQ, or IFDNE\r\n", "-ERR must be exactly 16 hexadecimal characters\r\n"
	syntax, arity := "-ERR syntax error\r\n", "-ERR wrong number of arguments for 'delex' command\r\n"
	for _, c := range [][2]string{
		{`DIGEST k`, "$-1\r\n"},
		{`SET k "Hello world"`, "+OK\r\n"},
		{`DIGEST k`, "$16\r\n" + digest + "\r\n"},
		{`SET z ` + zeros, "+OK\r\n"},
		{`DIGEST z`, "$16\r\n00006c38adf31777\r\n"},
		{`HSET h f v`, ":1\r\n"},
		{`DIGEST h`, wrong},

		{`DELEX k IFEQ x`, ":0\r\n"},
		{`DELEX k ifne "Hello world"`, ":0\r\n"},
		{`DELEX k IFDEQ b6acb9d84a38ff75`, ":0\r\n"},
		{`DELEX k IFDNE B6ACB9D84A38FF74`, ":0\r\n"},
		{`DELEX k IFDEQ 0123`, short},
		{`DELEX k IFDNE 0` + digest, short},
		{`DELEX k IFXX x`, invalid},
		{`DELEX k IFEQ`, arity},
		{`DELEX k IFEQ a b`, arity},
		{`DELEX nosuch IFEQ`, arity},
		{`DELEX nosuch IFXX x`, ":0\r\n"},
		{`DELEX nosuch IFDEQ 1`, ":0\r\n"},
		{`DELEX nosuch IFNE 1`, ":0\r\n"},
		{`DELEX nosuch`, ":0\r\n"},
		{`DELEX h IFEQ v`, not},
		{`DELEX h IFXX v`, not},
		{`DELEX h`, ":1\r\n"},
		{`DELEX k IFDEQ B6acb9d84a38ff74`, ":1\r\n"},
		{`EXISTS k`, ":0\r\n"},
		{`DELEX z IFDNE zzzzzzzzzzzzzzzz`, ":1\r\n"},

		{`SET k a IFEQ x`, "$-1\r\n"},
		{`SET k a IFDEQ x`, "$-1\r\n"},
		{`EXISTS k`, ":0\r\n"},
		{`SET k a IFEQ x GET`, "$-1\r\n"},
		{`SET k a IFNE x PX 100000`, "+OK\r\n"},
		{`SET k b IFNE a`, "$-1\r\n"},
		{`SET k b GET IFNE a`, "$1\r\na\r\n"},
		{`GET k`, "$1\r\na\r\n"},
		{`SET k b IFEQ a KEEPTTL GET`, "$1\r\na\r\n"},
		{`TTL k`, ":100\r\n"},
		{`SET k c ifeq b`, "+OK\r\n"},
		{`TTL k`, ":-1\r\n"},
		{`SET k d IFDEQ 0123`, short},
		{`SET k d GET IFDEQ 0123`, short},
		{`SET nosuch d IFDEQ 0123`, "$-1\r\n"},
		{`SET k d IFDNE 0123456789abcdef EX 0`, "-ERR invalid expire time in 'set' command\r\n"},
		{`SET k d IFDNE 0123456789abcdef`, "+OK\r\n"},
		{`SET k e IFEQ d NX`, syntax},
		{`SET k e XX IFEQ d`, syntax},
		{`SET k e IFEQ d IFNE d`, syntax},
		{`SET k e IFEQ`, syntax},
		{`GETEX k IFEQ d`, syntax},
		{`GET k`, "$1\r\nd\r\n"},
		{`SADD s v`, ":1\r\n"},
		{`SET s d IFEQ d`, wrong},
		{`SET s d IFNE d`, wrong},
		{`SET s d IFEQ d GET`, wrong},
		{`SCARD s`, ":1\r\n"},
		{`TS.ADD t 1 2`, ":1\r\n"},
		{`SET t d IFNE d`, wrong},
		{`DELEX t IFNE d`, not},
		{`DELIFEQ t d`, wrong},
		{`DIGEST t`, wrong},
		{`TYPE t`, "+TSDB-TYPE\r\n"},
		{`DELEX t`, ":1\r\n"},

		{`DELIFEQ nosuch v`, ":0\r\n"},
		{`DELIFEQ s v`, wrong},
		{`DELIFEQ k v`, ":0\r\n"},
		{`DELIFEQ k d`, ":1\r\n"},
		{`DELIFEQ k d`, ":0\r\n"},
	} {
		if got := converse(t, addr, c[0])[0]; got != c[1] {
			t.Errorf("%s: %q, want %q", c[0], got, c[1])
		}
	}
}

// TestCompareLarge: a value in parts is compared whole.
func TestCompareLarge(t *testing.T) {
	s, addr := newServer(t, nil)
	big := strings.Repeat("x", s.o.Blobs.At(0).MaxValue()+1000)
	got := talk(t, addr, bulks("SET", "k", big)+bulks("DELIFEQ", "k", big[1:])+bulks("DIGEST", "k")+
		bulks("SET", "k", big+"y", "IFEQ", big)+bulks("STRLEN", "k")+bulks("DELEX", "k", "IFNE", big)+bulks("EXISTS", "k"))
	text := digestOf([]byte(big))
	if want := fmt.Sprintf("+OK\r\n:0\r\n$16\r\n%s\r\n+OK\r\n:%d\r\n:1\r\n:0\r\n", text, len(big)+1); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestCompareModel holds random commands against a map.
func TestCompareModel(t *testing.T) {
	_, addr := newServer(t, nil)
	seed := testSeed(t)
	rng := newRand(seed)
	c := dial(t, addr)
	r := bufio.NewReader(c)
	model := map[string]string{}
	values := []string{"", "1", "a", "abc", strings.Repeat("y", 300)}
	value := func() string { return values[rng.IntN(len(values))] }
	stored, removed, kept := 0, 0, 0
	for i := range 5000 {
		key := string(rune('a' + rng.IntN(3)))
		old, there := model[key]
		word, operand := comparisonWords[rng.IntN(4)], value()
		holds := (old == operand) == word.equal
		if word.digest {
			text := digestOf([]byte(operand))
			if operand = string(text[:]); rng.IntN(2) == 0 {
				operand = strings.ToUpper(operand)
			}
		}
		var args []string
		var want string
		switch rng.IntN(4) {
		case 0, 1:
			v := value()
			args = []string{"SET", key, v, word.name, operand}
			does := there && holds || !there && !word.equal
			want = "$-1\r\n"
			if does {
				want = "+OK\r\n"
			}
			if rng.IntN(2) == 0 {
				args = slices.Insert(args, 3+2*rng.IntN(2), "GET")
				if want = "$-1\r\n"; there {
					want = "$" + strconv.Itoa(len(old)) + "\r\n" + old + "\r\n"
				}
			}
			if does {
				model[key] = v
				stored++
			} else {
				kept++
			}
		case 2:
			args, want = []string{"DELEX", key, word.name, operand}, ":0\r\n"
			if there && holds {
				delete(model, key)
				want = ":1\r\n"
				removed++
			}
		default:
			operand = value()
			args, want = []string{"DELIFEQ", key, operand}, ":0\r\n"
			if there && old == operand {
				delete(model, key)
				want = ":1\r\n"
				removed++
			}
		}
		send(t, c, bulks(args...))
		if got, err := readReply(r); err != nil || got != want {
			t.Fatalf("seed %d, command %d, %q with %q, %v: got %q, want %q, %v", seed, i, args, old, there, got, want, err)
		}
	}
	if min(stored, removed, kept) < 300 {
		t.Fatalf("%d stored, %d removed, %d kept: the commands do not try much", stored, removed, kept)
	}
}

// TestCompareIsAtomic counts up by compare and set from several connections, and
// lets one of them have a lock at a time.
func TestCompareIsAtomic(t *testing.T) {
	_, addr := newServer(t, nil)
	converse(t, addr, "SET n 0")
	const clients, times = 4, 50
	var wg sync.WaitGroup
	var holders, most int
	var mu sync.Mutex
	for i := range clients {
		wg.Go(func() {
			c := dial(t, addr)
			r := bufio.NewReader(c)
			ask := func(args ...string) string {
				send(t, c, bulks(args...))
				got, err := readReply(r)
				if err != nil {
					t.Error(err)
				}
				return got
			}
			hold := func(d int) {
				mu.Lock()
				holders += d
				most = max(most, holders)
				mu.Unlock()
			}
			token := strconv.Itoa(i)
			for range times {
				for !t.Failed() {
					old := strings.Split(ask("GET", "n"), "\r\n")[1]
					n, _ := strconv.Atoi(old)
					if ask("SET", "n", strconv.Itoa(n+1), "IFEQ", old) == "+OK\r\n" {
						break
					}
				}
				if ask("SET", "lock", token, "NX") == "+OK\r\n" {
					hold(1)
					hold(-1)
					if got := ask("DELEX", "lock", "IFEQ", token); got != ":1\r\n" {
						t.Errorf("released: %q", got)
					}
				} else if got := ask("DELIFEQ", "lock", token); got != ":0\r\n" {
					t.Errorf("another's lock is released: %q", got)
				}
			}
		})
	}
	wg.Wait()
	if got := converse(t, addr, "GET n")[0]; got != "$3\r\n200\r\n" || most != 1 {
		t.Errorf("%d increments are %q; %d had the lock at once", clients*times, got, most)
	}
}
