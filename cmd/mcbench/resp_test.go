package main

import (
	"encoding/json"
	"net"
	"strings"
	"testing"

	"mcached/ingest"
	"mcached/kvcache"
)

func newResp(t *testing.T) string {
	t.Helper()
	memory, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 32 << 20, ReserveBytes: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := kvcache.NewDatabases(kvcache.CacheOptions{Memory: memory}, 16)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ingest.NewServer(ingest.Options{Blobs: blobs, Memory: memory, Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Shutdown(t.Context())
		<-served
		blobs.Close()
		memory.Close()
	})
	return l.Addr().String()
}

func TestResp(t *testing.T) {
	address := newResp(t)
	args := []string{"resp", "--address", address, "--json", "--keys", "500", "--operations", "3000", "--set-percent", "30", "--connections", "3"}
	for _, more := range [][]string{{"--pipeline", "1"}, {"--pipeline", "7", "--value-size", "1000"}, {"--value-size", "0"}} {
		out, err := bench(t, append(append(args, "--password", "secret"), more...)...)
		if err != nil {
			t.Fatalf("%v: %v", more, err)
		}
		var r respReport
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatal(err)
		}
		if r.Operations != 3000 || r.Gets < 1900 || r.Gets > 2300 || r.Hits != r.Gets || r.P99Ms < r.P50Ms {
			t.Errorf("%v: %s", more, out)
		}
	}
	if _, err := bench(t, args...); err == nil || !strings.Contains(err.Error(), "NOAUTH") {
		t.Errorf("without a password: %v", err)
	}
	if _, err := bench(t, "resp", "--address", address, "--pipeline", "0"); err == nil {
		t.Error("a pipeline of 0 passes")
	}
}

// A value that is not the one that was set must not go unnoticed.
func TestRespFindsWrongValues(t *testing.T) {
	address := newResp(t)
	base := respLoad{address: address, password: "secret", keys: 50, valueBytes: 20, operations: 100, pipeline: 5, connections: 1, seed: 1}
	if _, err := base.run(t.Context(), process{}); err != nil {
		t.Fatal(err)
	}
	c, err := base.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.conn.Close()
	other := base
	other.seed = 2
	c.l = &other
	c.get(7)
	if err := c.roundTrip(); err == nil || !strings.Contains(err.Error(), "key 7 has the wrong value") {
		t.Errorf("the value of another seed: %v", err)
	}
}
