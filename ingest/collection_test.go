package ingest

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"mcached/kvcache"
)

// TestCollectionFormat holds the bytes that are stored.
func TestCollectionFormat(t *testing.T) {
	var h, s collection
	h.load(nil, kindHash, 2)
	h.set([]byte("f"), []byte("value"))
	h.set([]byte(""), bytes.Repeat([]byte("x"), 200))
	s.load(nil, kindSet, 3)
	for _, m := range []string{"10", "-5", "7"} {
		s.set([]byte(m), nil)
	}
	for _, x := range []struct{ name, got, want string }{
		{"hash", hex.EncodeToString(h.encode(nil)), "01" + "02000000" + "0166" + "0576616c7565" + "00" + "c801" + strings.Repeat("78", 200)},
		{"set of numbers", hex.EncodeToString(s.encode(nil)), "00" + "03000000" + "022d35" + "0137" + "023130"},
	} {
		if x.got != x.want {
			t.Errorf("%s: %s, want %s", x.name, x.got, x.want)
		}
	}
}

// TestCollectionModel holds random changes against a map and a list.
func TestCollectionModel(t *testing.T) {
	seed := testSeed(t)
	rng := newRand(seed)
	for _, kind := range []kvcache.Kind{kindHash, kindSet} {
		model := map[string]string{}
		var stored []byte
		tables := 0
		for op := range 3000 {
			if rng.IntN(300) == 0 {
				stored, model = nil, map[string]string{}
			}
			var x collection
			x.load(stored, kind, rng.IntN(2*scanArgs))
			for range 1 + rng.IntN(12) {
				key := fmt.Sprint(rng.IntN(700) - 50)
				if rng.IntN(50) == 0 {
					key = strings.Repeat("k", rng.IntN(80))
				}
				if rng.IntN(4) == 0 {
					_, has := model[key]
					if x.drop([]byte(key)) != has {
						t.Fatalf("seed %d op %d: drop of %q, want %v", seed, op, key, has)
					}
					delete(model, key)
					continue
				}
				value := ""
				if kind == kindHash {
					value = strings.Repeat("v", rng.IntN(70))
				}
				_, has := model[key]
				if x.set([]byte(key), []byte(value)) == has {
					t.Fatalf("seed %d op %d: set of %q, was there: %v", seed, op, key, has)
				}
				model[key] = value
			}
			x.compact()
			stored = x.encode(nil)
			if collectionCount(stored) != len(model) {
				t.Fatalf("seed %d op %d: %d items, want %d", seed, op, collectionCount(stored), len(model))
			}
			seen := 0
			eachItem(stored, kind, func(it item) bool {
				want, ok := model[string(it.key)]
				if !ok || want != string(it.value) {
					t.Fatalf("seed %d op %d: %q is %q, want %q", seed, op, it.key, it.value, want)
				}
				seen++
				return true
			})
			if seen != len(model) {
				t.Fatalf("seed %d op %d: %d items seen", seed, op, seen)
			}
			if stored[0]&inTable != 0 {
				tables++
			} else if kind == kindSet && !slices.IsSortedFunc(x.items, func(a, b item) int {
				return len(a.key) - len(b.key) // the numbers of one sign and length are for the transcripts
			}) && len(x.items) > 0 && x.items[0].key[0] != '-' {
				t.Fatalf("seed %d op %d: numbers are out of order", seed, op)
			}
		}
		if tables < 100 || tables > 2990 {
			t.Errorf("seed %d: %d of 3000 in a table", seed, tables)
		}
	}
}

// TestScansOfLargeCollections see all that stays, while others come and go.
func TestScansOfLargeCollections(t *testing.T) {
	_, addr := newServer(t, nil)
	c := newAsker(t, addr)
	args := []string{"SADD", "s"}
	for i := range 1000 {
		args = append(args, fmt.Sprint("stays:", i))
	}
	c.want(":1000\r\n", args...)
	seen, calls := map[string]bool{}, 0
	for cursor := "0"; calls == 0 || cursor != "0"; calls++ {
		parts := strings.Split(c.ask("SSCAN", "s", cursor, "COUNT", "20"), "\r\n")
		cursor = parts[2]
		for i := 5; i < len(parts); i += 2 {
			seen[parts[i]] = true
		}
		c.ask("SADD", "s", fmt.Sprint("comes:", calls))
		c.ask("SREM", "s", fmt.Sprint("comes:", calls-1))
	}
	for i := range 1000 {
		if !seen[fmt.Sprint("stays:", i)] {
			t.Fatalf("stays:%d was not seen", i)
		}
	}
	if calls < 20 || calls > 200 {
		t.Errorf("%d calls", calls)
	}
}

// TestCollectionsAreBounded by the size of a value, and what is too much changes
// nothing.
func TestCollectionsAreBounded(t *testing.T) {
	s, addr := newServer(t, nil)
	c := newAsker(t, addr)
	big := strings.Repeat("x", s.o.Blobs.At(0).MaxValue()/3)
	for i := range 2 {
		c.want(":1\r\n", "HSET", "h", fmt.Sprint("f", i), big)
		c.want(":1\r\n", "SADD", "s", fmt.Sprint(i, big))
	}
	for _, args := range [][]string{{"HSET", "h", "f2", big}, {"HSETNX", "h", "f2", big}, {"SADD", "s", "2" + big}} {
		if got := c.ask(args...); !strings.HasPrefix(got, "-ERR value size must be at most ") {
			t.Errorf("%s: %.100q", args[0], got)
		}
	}
	c.want(":2\r\n", "HLEN", "h")
	c.want(":2\r\n", "SCARD", "s")
	if got := c.ask("HRANDFIELD", "h", "-9999999"); got[0] != '-' {
		t.Errorf("HRANDFIELD: %.100q", got)
	}
}
