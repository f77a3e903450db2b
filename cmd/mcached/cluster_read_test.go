package main

import (
	"testing"
	"time"
)

// TestBegan: a clock that was set forwards had been behind when the daemon began; that it was
// set back changes nothing.
func TestBegan(t *testing.T) {
	started := time.Now()
	for set, want := range map[time.Duration]time.Duration{0: 0, -time.Hour: 0, time.Hour: time.Hour} {
		if got := beganMs(started, set) - started.UnixMilli(); got != want.Milliseconds() {
			t.Errorf("set by %v: it began %d ms later, want %v", set, got, want)
		}
	}
}
