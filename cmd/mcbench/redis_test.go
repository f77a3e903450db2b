package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestBenchmarkOps(t *testing.T) {
	const out = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\"\n\"SET\",\"15891.94\",\"0.5\",\"0.1\"\n"
	if ops, err := benchmarkOps(out, "set"); err != nil || ops != 15891.94 {
		t.Errorf("%v %v", ops, err)
	}
	for _, wrong := range []string{"", "\"", "\"GET\",\"1\"\n", "\"SET\"\n", "\"SET\",\"many\"\n"} {
		if ops, err := benchmarkOps(wrong, "set"); err == nil {
			t.Errorf("%q: %v", wrong, ops)
		}
	}
}

func TestRedisRows(t *testing.T) {
	var b bytes.Buffer
	rows := []redisRow{{"set", 64, 16, redisSide{2_000_000, 0.5}, redisSide{500_000, 1}}}
	if err := printRedisRows(&b, rows, 3); err != nil || !strings.Contains(b.String(), "SET     64        16   2000.0  500.0   4.00        0.50      1.00   2.00") {
		t.Errorf("%s %v", &b, err)
	}
}

func TestRedisUsage(t *testing.T) {
	for _, args := range [][]string{{"--turns", "0"}, {"--pipeline", "0"}, {"--value-size=-1"}, {"--keys", "0"}, {"--operations", "0"}} {
		if _, err := bench(t, append([]string{"redis"}, args...)...); err == nil || !strings.Contains(err.Error(), "--turns must be") {
			t.Errorf("%v: %v", args, err)
		}
	}
}

// TestRedis runs it small.
func TestRedis(t *testing.T) {
	binary := daemonBinary(t, "redis-server", "redis-benchmark")
	t.Parallel()
	out, err := bench(t, "redis", "--mcached", binary, "--turns", "2", "--pipeline", "4", "--value-size", "100", "--keys", "10", "--operations", "20000", "--json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []redisRow
	if err := json.Unmarshal([]byte(out), &rows); err != nil || len(rows) != 2 || rows[0].Command != "set" || rows[1].Command != "get" {
		t.Fatalf("%v: %s", err, out)
	}
	for _, r := range rows {
		for _, side := range []redisSide{r.Mcached, r.Redis} {
			if r.Size != 100 || r.Pipeline != 4 || side.OpsPerS <= 0 || side.CPUUsPerOp <= 0 {
				t.Errorf("%+v", r)
			}
		}
	}
}
