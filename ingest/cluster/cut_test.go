package cluster

import (
	"log/slog"
	"slices"
	"testing"
	"time"
)

// Whoever lost as many members as are left, or more, may be cut off from them: they
// have an era of their own until they are there again, have said that they leave, or
// an hour is over.
func TestBeyondACut(t *testing.T) {
	all := some(5)
	for _, c := range []struct {
		what       string
		left, lost []Member
		cut        bool
	}{
		{"of five one is lost", all[:4], all[4:], false},
		{"of five two are lost", all[:3], all[3:], false},
		{"of five three are lost", all[:2], all[2:], true},
		{"of four two are lost", all[:2], all[2:4], true},
		{"of three two are lost", all[:1], all[1:3], true},
		{"of two one is lost", all[:1], all[1:2], false},
		{"nobody is lost", all[:1], nil, false},
	} {
		x := new(Cluster)
		x.o.Layout = Layout{Copies: 2}
		x.table.Store(NewTable(1, c.left[0].ID, c.left, x.o.Layout))
		lostAt := time.Now().Add(-time.Minute)
		for _, m := range c.lost {
			x.lost.add(m, lostAt)
		}
		e := x.Beyond()
		if (e != nil) != c.cut {
			t.Errorf("%s: %v", c.what, e)
		}
		if e == nil {
			continue
		}
		if !slices.EqualFunc(e.Members, owning(c.lost), func(a, b Member) bool { return a.ID == b.ID }) || e.From >= lostAt.UnixMilli() || e.Until < time.Now().Add(-time.Second).UnixMilli() {
			t.Errorf("%s: %+v", c.what, e)
		}
		again := slices.Clone(c.lost)
		for i := range again {
			again[i].ID += "0" // started again
		}
		if back := x.lost.found(again); len(back) != len(again) || len(x.lost.found(again)) > 0 {
			t.Errorf("%s, and back are %v", c.what, back)
		}
		if e := x.Beyond(); e != nil {
			t.Errorf("%s, and are back: %v", c.what, e)
		}
		for _, m := range c.lost {
			x.lost.add(m, time.Now().Add(-lostFor-time.Minute))
		}
		if e := x.Beyond(); e != nil {
			t.Errorf("%s, long ago: %v", c.what, e)
		}
	}
}

// Members that went without a word are lost when they are given up.
func TestBuriedIsLost(t *testing.T) {
	all := some(4)
	x := new(Cluster)
	x.o.refuteFor = time.Second
	x.o.Logger = slog.New(slog.DiscardHandler)
	x.table.Store(NewTable(1, all[0].ID, all[:1], Layout{Copies: 2}))
	x.seeds = newSeeds(nil, nil)
	now := time.Now()
	x.there = map[string]presence{all[1].ID: {Member: all[1]}, all[2].ID: {Member: all[2], dead: now}, all[3].ID: {Member: all[3], dead: now}}
	x.bury(now)
	if len(x.lost.by) != 0 {
		t.Errorf("who may yet say that it lives is lost: %v", x.lost.by)
	}
	x.bury(now.Add(time.Minute))
	if _, ok := x.lost.by[all[1].Name]; ok || len(x.lost.by) != 2 {
		t.Errorf("lost are %v", x.lost.by)
	}
}
