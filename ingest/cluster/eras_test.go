package cluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

func idsOf(e *Era) (ids []string) {
	for _, m := range e.Members {
		ids = append(ids, m.ID)
	}
	return ids
}

func TestHistory(t *testing.T) {
	h := history{settled: true}
	members := some(4)
	l := Layout{Copies: 2}
	h.observe(1000, members[:1], l).Store(true)
	h.observe(2000, members[:1], l) // nothing new
	h.observe(3000, members[:3], l)
	members[2].State, members[2].HTTP = Leaving, "http://elsewhere"
	h.observe(4000, members[:3], l)
	members[2].State = Ready
	h.observe(5000, members[:2], l) // it owned nothing already
	want := []struct {
		from, until int64
		n           int
	}{{1000, 3000, 1}, {3000, 4000, 3}, {4000, 0, 2}}
	all := h.since(0)
	if len(all) != len(want) {
		t.Fatalf("%d eras, want %d", len(all), len(want))
	}
	for i, w := range want {
		if e := all[i]; e.From != w.from || e.Until != w.until || len(e.Members) != w.n {
			t.Errorf("era %d: from %d until %d with %d members, want %+v", i, e.From, e.Until, len(e.Members), w)
		}
	}
	if got := h.since(3500); len(got) != 2 || got[0] != all[1] {
		t.Error("since 3500:", len(got))
	}
	// The owners of an era are those that the table had.
	tab := table(members[:3], l)
	for slot := range uint16(500) {
		var got []string
		for _, o := range all[1].Owners(slot) {
			got = append(got, all[1].Members[o].Name)
		}
		if !slices.Equal(got, names(tab, tab.Owners(slot))) {
			t.Fatalf("slot %d: owners %v in the era, %v in the table", slot, got, names(tab, tab.Owners(slot)))
		}
	}
	if (&Era{}).Owners(7) != nil && len((&Era{}).Owners(7)) != 0 {
		t.Error("an era of which nothing is known has owners")
	}
}

// Two members that see the same thing at times that differ have one era of it,
// and what is said again changes nothing.
func TestHistoryMerge(t *testing.T) {
	l := Layout{Copies: 2}
	members := some(3)
	a, b := history{settled: true}, history{settled: true}
	a.observe(1_000_000, members[:2], l)
	a.observe(1_100_000, members, l)
	b.observe(1_100_400, members, l) // began empty
	exchange := func(now int64) {
		for _, x := range [][2]*history{{&a, &b}, {&b, &a}} {
			told, err := decodeEras(encodeEras(x[0].since(0)))
			if err != nil {
				t.Fatal(err)
			}
			x[1].merge(now, told)
		}
	}
	for i := range int64(3) {
		exchange(1_110_000 + i*15_000)
	}
	for name, h := range map[string]*history{"a": &a, "b": &b} {
		all := h.since(0)
		if len(all) != 2 || all[0].From != 1_000_000 || all[0].Until != 1_100_000 || all[1].From != 1_100_000 || all[1].Until != 0 {
			t.Errorf("%s: %v", name, all)
		}
	}
	// The third is cut off: each side has an era of its own, and both have both after it.
	a.observe(1_200_000, members[:2], l)
	b.observe(1_200_900, members[2:], l).Store(true)
	a.observe(1_300_000, members, l)
	b.observe(1_300_100, members, l)
	exchange(1_301_000)
	exchange(1_302_000)
	for name, h := range map[string]*history{"a": &a, "b": &b} {
		var alone, together int
		for _, e := range h.since(1_199_000) {
			switch {
			case e.From == 1_200_000 && e.Until == 1_300_000 && len(e.Members) == 2:
				together++
			case e.From == 1_200_900 && e.Until == 1_300_100 && len(e.Members) == 1:
				alone++
			}
		}
		if alone != 1 || together != 1 {
			t.Errorf("%s does not know of both sides of the cut: %d, %d", name, together, alone)
		}
	}
	// Whoever is not heard of any more has no era in force.
	var c history
	c.observe(2_000_000, members[:1], l)
	c.merge(2_001_000, []*Era{{From: 2_000_000, Members: owning(members[1:]), Layout: l}, {From: 2_000_000, Until: 9_000_000, Members: owning(members[2:]), Layout: l},
		{From: 3_000_000, Until: 3_000_001, Members: owning(members), Layout: l}})
	for _, e := range c.since(0) {
		if e != c.now && (e.Until == 0 || e.Until > 2_001_000) || len(e.Members) == 3 {
			t.Errorf("what another member said lasts from %d until %d", e.From, e.Until)
		}
	}
}

// What another member says is news if it ended lately and was not known, but for as
// long at either end as an era may have been written in anyway.
func TestHistoryNews(t *testing.T) {
	l := Layout{Copies: 2}
	members := some(3)
	const now = 1_000_000_000
	h := history{settled: true}
	h.observe(now-newsMs, members, l)
	for _, c := range []struct {
		what        string
		of          []Member
		from, until int64 // before now; until 0: it lasts
		news        bool
	}{
		{"what ended long ago", members[:1], 3 * newsMs, 2 * newsMs, false},
		{"what ended lately", members[:1], 20_000, 10_000, true},
		{"the same again", members[:1], 20_000, 10_000, false},
		{"a little more of it", members[:1], 20_000 + lagMs, 10_000 - lagMs, false},
		{"much more of its end", members[:1], 20_000, 5000, true},
		{"much more of its beginning", members[:1], 30_000, 5000, true},
		{"what lasts", members[:2], 20_000, 0, true},
		{"what lasts, a little later", members[:2], 20_000, 0, false},
		{"what this member sees itself", members, newsMs, 0, false},
	} {
		e := &Era{From: now - c.from, Members: owning(c.of), Layout: l}
		if c.until != 0 {
			e.Until = now - c.until
		}
		if news := h.merge(now, []*Era{e}); (len(news) == 1) != c.news {
			t.Errorf("%s: %v", c.what, news)
		}
	}
}

// A member that starts sees tables that nobody else has. They were eras only if it
// routed by them, or if others say so.
func TestHistoryOfAStart(t *testing.T) {
	l := Layout{Copies: 2}
	members := some(5)
	start := func() *history {
		h := new(history)
		for i := range members { // it meets one after the other
			h.observe(1_000_000+int64(i), members[:i+1], l)
		}
		h.settle()
		return h
	}
	sizes := func(eras []*Era) (n []int) {
		for _, e := range eras {
			n = append(n, len(e.Members))
		}
		return n
	}
	h := start()
	if all := h.since(0); !slices.Equal(sizes(all), []int{5}) || all[0] != h.now || !slices.Equal(sizes(h.told()), []int{5}) {
		t.Errorf("eras of %d", sizes(all))
	}
	// While it lasts, and before it has met all, the present era can be read.
	h = new(history)
	h.observe(1_000_000, members[:1], l)
	used := h.observe(1_000_001, members[:2], l)
	if !slices.Equal(sizes(h.since(0)), []int{2}) || len(h.told()) != 0 {
		t.Errorf("eras of %d, told %d", sizes(h.since(0)), sizes(h.told()))
	}
	// It routes by it, and a request in hand may do so when it is over.
	h.observe(1_000_002, members, l)
	h.settle()
	used.Store(true)
	if !slices.Equal(sizes(h.since(0)), []int{2, 5}) || !slices.Equal(sizes(h.told()), []int{2, 5}) {
		t.Errorf("eras of %d", sizes(h.since(0)))
	}
	// Another routed by one of them.
	h = start()
	h.merge(1_000_500, []*Era{{From: 1_000_001, Until: 1_000_400, Members: owning(members[:3]), Layout: l}})
	if !slices.Equal(sizes(h.since(0)), []int{3, 5}) {
		t.Errorf("eras of %d", sizes(h.since(0)))
	}
	// Later what it sees counts, since others may see it, but for being alone.
	h.observe(2_000_000, members[:4], l)
	alone := h.observe(2_000_100, members[:1], l)
	h.observe(2_000_200, members[:4], l)
	if !slices.Equal(sizes(h.since(1_900_000)), []int{5, 4}) || alone.Load() {
		t.Errorf("eras of %d", sizes(h.since(1_900_000)))
	}
	if h.observe(2_000_000+2*forgetUnused, members, l); slices.ContainsFunc(h.eras, func(e *Era) bool { return !e.counts() }) {
		t.Error("what was nothing is remembered")
	}
}

// Who is passed over makes an era without it, which is one with what gossip says later.
func TestPassOverIsAnEra(t *testing.T) {
	l := Layout{Copies: 2}
	members := some(3)
	h := history{settled: true}
	h.observe(1_000_000, members, l)
	e := h.passOver(1_100_000, members[:2], l)
	if e.From != 1_100_000-passedBefore || e.Until != 1_100_000+passedEvery || !slices.Equal(idsOf(e), idsOf(&Era{Members: members[:2]})) {
		t.Errorf("from %d until %d: %v", e.From, e.Until, idsOf(e))
	}
	h.passOver(1_102_000, members[:2], l) // the same
	h.passOver(1_102_000, members[1:], l) // another
	if all := h.since(1_050_000); len(all) != 3 || all[0].Until != 0 || all[1].From != e.From && all[2].From != e.From {
		t.Errorf("%d eras", len(all))
	}
	h.observe(1_104_000, members[:2], l)
	if h.now.From != e.From || len(h.since(0)) != 3 {
		t.Errorf("from %d, %d eras", h.now.From, len(h.since(0)))
	}
	if e.ID() == 0 || e.ID() != h.now.ID() || e.ID() == (&Era{Members: owning(members), Layout: l}).ID() || e.ID() == (&Era{Members: owning(members[:2]), Layout: Layout{Copies: 1}}).ID() || (&Era{}).ID() != 0 {
		t.Error("IDs of eras do not tell owners apart")
	}
}

// Who hears of it no other way than being told knows of all that was passed over, as
// long as it lasts, but for less than an era may be written in after its end.
func TestPassedOverIsToldWhileItLasts(t *testing.T) {
	l := Layout{Copies: 2}
	members := some(3)
	here, there := history{settled: true}, history{settled: true}
	var p passed
	const from, to = int64(1_000_000), int64(1_060_000)
	said, told := 0, 0
	for now := from; now < to; now += 10 {
		again, tell := p.say([]byte("some"), now)
		if tell && !again {
			t.Fatal("others are told what is not said")
		}
		if again {
			said++
			e := here.passOver(now, members[:2], l)
			if tell {
				told++
				there.merge(now, []*Era{{From: e.From, Until: e.Until, Members: e.Members, Layout: e.Layout}})
			}
		}
		if all := there.since(0); len(all) != 1 || all[0].From != from-passedBefore || now-all[0].Until >= tellEvery+passedEvery {
			t.Fatalf("after %d ms others know of %+v", now-from, all)
		}
	}
	if said != int(to-from)/passedEvery || told != int(to-from)/tellEvery {
		t.Errorf("said %d times, told %d times", said, told)
	}
	if again, tell := p.say([]byte("others"), to); !again || !tell {
		t.Error("others are not told of another set at once")
	}
}

// However much happens or is made up, the history is bounded, this member's own
// era lasts, and of what was dropped nothing is said to be known.
func TestHistoryIsBounded(t *testing.T) {
	h := history{settled: true}
	l := Layout{Copies: 2}
	r := rand.New(rand.NewPCG(5, 6))
	h.observe(1, some(3), l)
	h.observe(2, some(4), l)
	for i := range 4 * maxEras {
		now := int64(100_000 * (i + 1))
		if i%2 == 0 {
			h.observe(now, some(3+r.IntN(5)), l)
		}
		h.merge(now, []*Era{{From: now - 50_000, Until: now - 1, Layout: l,
			Members: []Member{{ID: MemberID("liar", now), Name: "liar"}}}})
		if len(h.eras) > maxEras+1 {
			t.Fatalf("%d eras", len(h.eras))
		}
	}
	all := h.since(0)
	if all[0].Members != nil || all[0].From != 1 || all[0].Until < 100_000 {
		t.Errorf("the oldest era is from %d until %d with %d members, want one of which nothing is known", all[0].From, all[0].Until, len(all[0].Members))
	}
	if !slices.Contains(all, h.now) || h.now.Until != 0 {
		t.Error("the era in force is gone")
	}
	for i := 1; i < len(all); i++ {
		if all[i].From < all[i-1].From {
			t.Fatal("the eras are not in order")
		}
	}
}

func TestErasTravel(t *testing.T) {
	var eras []*Era
	for i := range 20 {
		members := some(30)
		for j := range members {
			members[j].Zone, members[j].Weight, members[j].Place = string(rune('a'+j%3)), j%5, uint32(i/10)
		}
		eras = append(eras, &Era{From: int64(i + 1), Until: int64(i+2) * int64(min(1, 19-i)), Members: owning(members[i:]), Layout: Layout{Copies: 2}})
	}
	eras = append(eras, &Era{From: 5, Until: 6})
	back, err := decodeEras(encodeEras(eras))
	if err != nil || len(back) != len(eras) {
		t.Fatal(len(back), err)
	}
	for i := range eras {
		if !reflect.DeepEqual(eras[i], back[i]) {
			t.Errorf("era %d: %v %v, want %v %v", i, back[i].From, idsOf(back[i]), eras[i].From, idsOf(eras[i]))
		}
	}
	for _, bad := range []string{"", "[]", `{"e":[{"f":0}]}`, `{"e":[{"f":5,"u":4}]}`, `{"e":[{"f":5,"c":9}]}`, `{"e":[{"f":5,"b":"AAAA"}]}`,
		`{"m":[{"i":"x"}],"e":[]}`, `{"m":[{"i":"a#1"},{"i":"a#1"}],"e":[{"f":5,"b":"Aw=="}]}`} {
		if got, err := decodeEras([]byte(bad)); !errors.Is(err, errHistory) {
			t.Errorf("%s: %v, %v", bad, got, err)
		}
	}
}

func FuzzDecodeEras(f *testing.F) {
	f.Add(encodeEras([]*Era{{From: 5, Until: 6, Members: owning(some(3)), Layout: Layout{Copies: 2}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		eras, err := decodeEras(b)
		if err != nil {
			return
		}
		var h history
		h.observe(1000, some(2), Layout{Copies: 2})
		h.merge(2000, eras)
		for _, e := range h.since(0) {
			for _, o := range e.Owners(7) {
				_ = e.Members[o]
			}
		}
		if h.now == nil || !slices.Contains(h.eras, h.now) {
			t.Fatal("the era in force is gone")
		}
		if _, err := decodeEras(encodeEras(h.since(0))); err != nil && len(h.eras) <= maxEras {
			t.Fatal("what was taken over cannot be told on:", err)
		}
	})
}

func FuzzDecodeMember(f *testing.F) {
	m := some(1)[0]
	b, _ := m.encode()
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMember(b)
		if err == nil {
			_ = NewTable(1, m.ID, []Member{m, some(1)[0]}, Layout{}).Order(9, nil)
			_ = fmt.Sprint(m.State)
		}
	})
}

// encodeEras and decodeEras are those of a history without drops.
func encodeEras(eras []*Era) []byte { return encodeHistory(eras, wireDrops{}) }

func decodeEras(b []byte) ([]*Era, error) {
	eras, _, err := decodeHistory(b)
	return eras, err
}
