package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestHitModels holds the models to what is known of them: a loop over a little more
// than there is room for has no hits where the least recently used goes, all
// are equal where everything fits, and nothing is ever beyond the room.
func TestHitModels(t *testing.T) {
	loop := requestMix{kind: "loop", keys: 110, requests: 4400, valueBytes: 50}
	for _, p := range policies {
		ratio := hitRatio(p.make(100*100), loop.generate())
		if p.name == "LRU" && ratio != 0 || p.name == "S3-FIFO" && ratio < 0.5 {
			t.Errorf("%s: hit ratio %v of a loop", p.name, ratio)
		}
		if ratio := hitRatio(p.make(110*100), loop.generate()); ratio != 39./40 {
			t.Errorf("%s: hit ratio %v of a loop that fits", p.name, ratio)
		}
	}
	once := requestMix{kind: "zipf", skew: 1, keys: 10_000, requests: 100_000, oncePct: 30, valueBytes: 50}
	all := once.generate()
	for _, p := range policies {
		model := p.make(1000 * 100)
		ratio := hitRatio(model, all)
		if ratio < 0.35 || ratio > 0.7 {
			t.Errorf("%s: hit ratio %v", p.name, ratio)
		}
		used := map[string]func() int64{
			"LRU":     func() int64 { return model.(*lru).used },
			"SIEVE":   func() int64 { return model.(*sieve).used },
			"S3-FIFO": func() int64 { return model.(*s3fifo).usedSmall + model.(*s3fifo).usedAt },
		}[p.name]()
		if used > 1000*100 || used < 990*100 {
			t.Errorf("%s holds %d bytes of 100000", p.name, used)
		}
	}
	if n := distinct(all); n < 30_000 || n > 40_000 {
		t.Errorf("%d keys", n)
	}
}

// TestHits replays mixes and a trace against a server, whose memory is smaller.
func TestHits(t *testing.T) {
	address := newResp(t) // of 32 MiB
	hits := func(args ...string) (r hitsReport) {
		t.Helper()
		out, err := bench(t, append([]string{"hits", "--json", "--password", "secret"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	trace := filepath.Join(t.TempDir(), "trace")
	if err := os.WriteFile(trace, []byte(strings.Repeat("a,10\nb\nc,2000\nb\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := hits("--address", address, "--trace", trace); r.Requests != 400 || r.Keys != 3 || r.Server != 397./400 || r.Models["LRU"] != r.Server {
		t.Errorf("%+v", r)
	}
	// 60,000 keys of 1 KiB are twice what fits.
	for _, kind := range []string{"zipf", "shift", "scan"} {
		r := hits("--address", address, "--mix", kind, "--keys", "60000", "--requests", "120000", "--bytes", "32MiB", "--seed", "7")
		if r.Requests != 120_000 || r.Server < r.Models["LRU"]-0.03 || r.Server > 1 {
			t.Errorf("%s: %+v", kind, r)
		}
	}
	if r := hits("--address", "none", "--requests", "1000"); r.Server != -1 || r.Models["SIEVE"] <= 0 {
		t.Errorf("%+v", r)
	}
	for _, bad := range []string{"", "a,b\n", "a,-1\n", ",5\n"} {
		if err := os.WriteFile(trace, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := bench(t, "hits", "--address", "none", "--trace", trace); err == nil {
			t.Errorf("%q is accepted as a trace", bad)
		}
	}
}
