package block

import (
	"math"
	"testing"
)

// TestCheckChunk takes no chunk whose times go beyond what can be stored.
func TestCheckChunk(t *testing.T) {
	b := AppendChunk(nil, []Record{{5, []byte("a")}, {6, []byte("b")}})
	for start, want := range map[int64]bool{5: true, MaxTime - 1: true, MaxTime: false, -MaxTime: true, -MaxTime - 1: false, math.MaxInt64: false, math.MinInt64: false} {
		if got := CheckChunk(b, start); got != want {
			t.Errorf("from %d: %v", start, got)
		}
	}
}
