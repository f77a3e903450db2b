package main

import (
	"bytes"
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
