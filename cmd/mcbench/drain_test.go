package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestDrain: a member of a real cluster ends, and the others have all that it had.
func TestDrain(t *testing.T) {
	binary := daemonBinary(t)
	t.Parallel()
	var out bytes.Buffer
	if err := run(t.Context(), []string{"drain", "--mcached", binary, "--series=2000", "--samples=60", "--memory=128MiB"}, &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, want := range []string{"it had", "  0, 0.00 %", "it ended after", "others' CPU"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it prints no %q:\n%s", want, &out)
		}
	}
}

func TestDrainRefuses(t *testing.T) {
	for _, args := range [][]string{{"--members=1"}, {"--connections=0"}, {"--series=0"}, {"--mcached=/nonexistent"}} {
		if err := run(t.Context(), append([]string{"drain"}, args...), new(bytes.Buffer)); err == nil {
			t.Errorf("drain %v: no error", args)
		}
	}
}
