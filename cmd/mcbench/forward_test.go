package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestForward(t *testing.T) {
	binary := daemonBinary(t)
	t.Parallel()
	var out bytes.Buffer
	args := []string{"forward", "--mcached", binary, "--turns", "1", "--series", "300", "--samples", "8", "--per-request", "100", "--max-dirty-age", "1s", "--receiver", "discard"}
	if err := run(t.Context(), args, &out); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, "forwards") || !strings.Contains(got, "8.0") || !strings.Contains(got, "forwarding costs") {
		t.Errorf("it prints\n%s", got)
	}
	for _, args := range [][]string{{"--turns", "0"}, {"--max-dirty-age", "1ms"}, {"--rate", "-1"}, {"--receiver", "nobody"}, {"--mcached", "/nonexistent"}} {
		if err := run(t.Context(), append([]string{"forward"}, args...), &out); err == nil {
			t.Errorf("forward %v: no error", args)
		}
	}
}

func TestMedian(t *testing.T) {
	all := func(t forwardTurn) float64 { return t.all }
	for want, turns := range map[float64][]forwardTurn{3: {{all: 3}}, 2: {{all: 9}, {all: 1}, {all: 2}}, 1.5: {{all: 2}, {all: 1}}} {
		if got := median(turns, all); got != want {
			t.Errorf("the median of %v is %v, want %v", turns, got, want)
		}
	}
}
