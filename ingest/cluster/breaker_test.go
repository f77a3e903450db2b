package cluster

import (
	"testing"
	"time"
)

func TestBreaker(t *testing.T) {
	now := time.Unix(1000, 0)
	b := breaker{now: func() time.Time { return now }}
	if b.suspected("a") {
		t.Fatal("suspected from the beginning")
	}
	b.trust("a")
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		b.suspect("a")
		b.suspect("a") // of requests that were under way together
		now = now.Add(want*time.Second - time.Millisecond)
		if !b.suspected("a") || b.suspected("b") {
			t.Fatalf("not passed over for %v s, or another is", int(want))
		}
		now = now.Add(time.Millisecond)
		if b.suspected("a") {
			t.Fatalf("nobody tries after %v s", int(want))
		}
		if !b.suspected("a") {
			t.Fatal("two try at a time")
		}
	}
	// One that tried and said nothing does not keep the others away forever.
	now = now.Add(suspectFor)
	if b.suspected("a") {
		t.Fatal("nobody tries again")
	}
	b.trust("a")
	if b.suspected("a") || len(b.suspects()) != 0 {
		t.Fatal("suspected although it answered")
	}
	b.suspect("a")
	now = now.Add(suspectFor - 1)
	if !b.suspected("a") {
		t.Fatal("not suspected again")
	}
	b.keep(func(id string) bool { return id != "a" })
	if b.suspected("a") || b.some.Load() != 0 {
		t.Fatal("one that is gone is remembered")
	}
}
