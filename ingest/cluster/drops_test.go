package cluster

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// life is a member of a test's tables.
func life(name string) Member { return Member{ID: name + "#1", Name: name, State: Ready} }

func tableOf(names ...string) (all []Member) {
	for _, n := range names {
		all = append(all, life(n))
	}
	return all
}

func TestDrops(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	full := tableOf("a", "b", "c")
	// b stands still: a and c drop it, and it does not drop them.
	var a, b drops
	if back := a.follow(now, full, tableOf("a", "c")); len(back) != 0 {
		t.Errorf("back while it is gone: %q", back)
	}
	if !b.hear(now, "b#1", a.told("a#1")) {
		t.Error("b is not told while it is gone")
	}
	if b.hear(now, "b#1", a.told("a#1")) {
		t.Error("b is told the same twice")
	}
	if back := a.follow(now, tableOf("a", "c"), full); len(back) != 1 || back[0] != "b#1" {
		t.Errorf("back: %q", back)
	}
	if !b.hear(now, "b#1", a.told("a#1")) {
		t.Error("a had its slots until it was back, and b believes that it knows")
	}
	if b.hear(now, "b#1", wireDrops{}) || b.hear(now, "c#1", a.told("a#1")) {
		t.Error("displaced by nobody, or in another's place")
	}
	// Who leaves owns nothing, and is not dropped.
	leaving := tableOf("a", "b", "c")
	leaving[2].State = Leaving
	var l drops
	if l.follow(now, leaving, tableOf("a", "b")); len(l.told("a#1").Drops) != 0 {
		t.Error("one that left was dropped")
	}
}

// A drop is news though the one before was forgotten for those of others.
func TestDropsForgotten(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	var a, b drops
	full, without := tableOf("a", "b"), tableOf("a")
	for range 2 {
		a.follow(now, full, without)
		a.follow(now, without, full)
	}
	if !b.hear(now, "b#1", a.told("a#1")) {
		t.Fatal("b is not told")
	}
	for i := range dropMost {
		now = now.Add(time.Second)
		a.follow(now, append(tableOf("a", "b"), life(fmt.Sprint("x", i))), full)
	}
	if len(a.of) != dropMost || a.of["b#1"] != nil {
		t.Fatal("nothing was forgotten: no test")
	}
	a.follow(now, full, without)
	if !b.hear(now, "b#1", a.told("a#1")) {
		t.Error("b is not told that it was dropped again")
	}
}

// The larger side of a cut keeps what it has, whoever of it is told.
func TestDropsCut(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	for _, tt := range []struct {
		left, right        []string
		leftTold, rightHas bool // displaced
	}{
		{[]string{"a", "b"}, []string{"c"}, false, true},
		{[]string{"a"}, []string{"b"}, true, true},
		{[]string{"a"}, []string{"b", "c", "d"}, true, false},
		{[]string{"a", "b"}, []string{"c", "d"}, true, true},
	} {
		all := append(append([]string{}, tt.left...), tt.right...)
		cut := func(side, other []string) *drops {
			d, at := new(drops), tableOf(all...)
			for i := range other { // gossip drops one after the other
				next := tableOf(append(append([]string{}, side...), other[i+1:]...)...)
				d.follow(now, at, next)
				at = next
			}
			return d
		}
		left, right := cut(tt.left, tt.right), cut(tt.right, tt.left)
		x, y := tt.left[0]+"#1", tt.right[0]+"#1"
		if got := left.hear(now, x, right.told(y)); got != tt.leftTold {
			t.Errorf("%v of %v: displaced %v", tt.left, all, got)
		}
		if got := right.hear(now, y, left.told(x)); got != tt.rightHas {
			t.Errorf("%v of %v: displaced %v", tt.right, all, got)
		}
		// They are back, and it is said again soon.
		left.follow(now, tableOf(tt.left...), tableOf(all...))
		right.follow(now, tableOf(tt.right...), tableOf(all...))
		if got := left.hear(now.Add(time.Second), x, right.told(y)); got != tt.leftTold {
			t.Errorf("%v of %v, whole again: displaced %v", tt.left, all, got)
		}
		// Long after it who is dropped was not cut off by the one who says so.
		right.follow(now, tableOf(all...), tableOf(tt.right...))
		if !left.hear(now.Add(time.Hour), x, right.told(y)) {
			t.Errorf("%v of %v: an old cut hides that it stood still", tt.left, all)
		}
	}
}

// What is remembered has a bound.
func TestDropsMost(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	var d drops
	for i := range dropMost + 10 {
		d.follow(now.Add(time.Duration(i)*time.Second), tableOf("a", fmt.Sprint("m", i)), tableOf("a"))
	}
	told := d.told("a#1")
	if len(told.Drops) != dropMost || d.of["m9#1"] != nil || d.of["m10#1"] == nil {
		t.Errorf("%d are remembered", len(told.Drops))
	}
	_, back, err := decodeHistory(encodeHistory(nil, told))
	if err != nil || back.By != "a#1" || len(back.Drops) != dropMost {
		t.Errorf("%v: %d", err, len(back.Drops))
	}
}

// A member that the others dropped is told when they have it back, though its own
// table never was another, or says so when it is asked.
func TestDisplaced(t *testing.T) {
	var displaced atomic.Int64
	a := start(t, "a", nil)
	b := start(t, "b", func(o *Options) { o.OnDisplaced = func() { displaced.Add(1) } }, a)
	eventually(t, "they see each other", func() bool {
		return a.sees("a joining", "b joining") && b.sees("a joining", "b joining")
	})
	version := b.Table().Version
	if b.Reassure(context.Background()); displaced.Load() != 0 {
		t.Error("displaced without having been dropped")
	}
	at := b.asGossiped()
	d := delegate{a.Cluster}
	d.NotifyLeave(at)
	eventually(t, "a dropped b", func() bool { return a.sees("a joining") })
	d.NotifyJoin(at)
	eventually(t, "b is told", func() bool { return displaced.Load() == 1 })
	if b.Table().Version != version {
		t.Error("b's own table is another: no test")
	}

	a.drops.mu.Lock()
	a.drops.of[b.Self().ID].count++
	a.drops.mu.Unlock()
	if b.Reassure(context.Background()); displaced.Load() != 2 {
		t.Errorf("displaced %d times, when it asked", displaced.Load())
	}
	a.Close() // and does not answer: b is alone in the end
	b.Reassure(context.Background())
	if displaced.Load() != 2 {
		t.Error("displaced by nobody")
	}
}
