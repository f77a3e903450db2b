package ingest

import (
	"strings"
	"testing"
)

// A pipeline of GETs or SETs allocates nothing.
func TestPipelineAllocatesNothing(t *testing.T) {
	c := newSession(t, nil)
	for _, command := range []string{bulks("GET", "key"), bulks("GET", "none"), bulks("SET", "key", strings.Repeat("v", 64))} {
		input := []byte(strings.Repeat(command, 16))
		// Pools may be emptied by the collector meanwhile, and under the race detector
		// lose some of what they get: so less than one for each command.
		if n := testing.AllocsPerRun(100, func() { c.feed(input) }); n >= 8 {
			t.Errorf("%d allocations for 16 of %q", int(n), command)
		}
	}
}
