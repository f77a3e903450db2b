package ingest

import (
	"fmt"
	"strings"
	"testing"
)

// longKey is refused by the cache, not by the framing.
var longKey = strings.Repeat("k", 1<<16)

// TestBundlesKeepTheOrder runs random pipelines over few keys, in which runs of
// GET and SET of all lengths meet other commands, against a plain map.
func TestBundlesKeepTheOrder(t *testing.T) {
	rnd := newRand(3)
	_, addr := newServer(t, nil)
	c := dial(t, addr)
	model := map[string]string{}
	bulk := func(k string) string {
		if v, ok := model[k]; ok {
			return bulks(v)[4:]
		}
		return "$-1\r\n"
	}
	for pipeline := range 200 {
		var in, want strings.Builder
		for n := 0; n < 300; {
			run := 1 + rnd.IntN(3*bundleKeys/2)
			kind := rnd.IntN(6)
			for range run {
				k := fmt.Sprint("k", rnd.IntN(8))
				n++
				switch kind {
				case 0, 1:
					in.WriteString(bulks([]string{"GET", "get", "gEt"}[n%3], k))
					want.WriteString(bulk(k))
				case 2, 3:
					v := strings.Repeat("v", rnd.IntN(20)) + fmt.Sprint(n)
					in.WriteString(bulks([]string{"SET", "set", "sEt"}[n%3], k, v))
					want.WriteString("+OK\r\n")
					model[k] = v
				case 4:
					in.WriteString(bulks("SET", k, "x", "NX"))
					if _, ok := model[k]; ok {
						want.WriteString("$-1\r\n")
					} else {
						want.WriteString("+OK\r\n")
						model[k] = "x"
					}
				case 5:
					in.WriteString(bulks("DEL", k) + bulks("MGET", "k0", k, "k1"))
					if _, ok := model[k]; ok {
						want.WriteString(":1\r\n")
					} else {
						want.WriteString(":0\r\n")
					}
					delete(model, k)
					want.WriteString("*3\r\n" + bulk("k0") + bulk(k) + bulk("k1"))
				}
			}
		}
		if pipeline%10 == 0 { // refused ones are answered in their places
			in.WriteString(bulks("SET", "k1", "a") + bulks("SET", longKey, "x") + bulks("SET", "k1", "b") + bulks("GET", "k1") + bulks("GET", longKey))
			want.WriteString("+OK\r\n-ERR key size must be at most 65535 bytes, got 65536\r\n+OK\r\n$1\r\nb\r\n$-1\r\n")
			model["k1"] = "b"
		}
		send(t, c, in.String())
		expect(t, c, want.String())
	}
}

// TestBundlesAreCounted wants the figures of commands and errors to be those
// of commands on their own, and nothing to run for clients that may not.
func TestBundlesAreCounted(t *testing.T) {
	c := newSession(t, func(o *Options) { o.Password = "p" })
	get, set := bulks("GET", "k"), bulks("SET", "k", "v")
	c.feed([]byte(strings.Repeat(set, 5) + strings.Repeat(get, 5)))
	if c.commands != 10 || c.failed != 10 {
		t.Fatalf("before AUTH: %d commands, %d failed", c.commands, c.failed)
	}
	c.feed([]byte(bulks("AUTH", "p") + strings.Repeat(set, 70) + strings.Repeat(get, 70) + strings.Repeat(bulks("SET", longKey, "v"), 3) + bulks("CLIENT", "REPLY", "OFF") + strings.Repeat(get, 5)))
	if c.commands != 10+1+140+3+1+5 || c.failed != 13 {
		t.Fatalf("%d commands, %d failed", c.commands, c.failed)
	}
	st := c.srv.o.Blobs.Stats()
	if st.Puts != 70 || st.Hits != 75 || c.bundle != nil {
		t.Fatalf("%d puts, %d hits, a bundle is left: %v", st.Puts, st.Hits, c.bundle != nil)
	}
}
