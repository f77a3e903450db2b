package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// A history travels as JSON: each member once, and the eras as sets of bits
// over them. memberlist compresses it.
type wireHistory struct {
	Members []wireMember `json:"m"`
	Eras    []wireEra    `json:"e"`
	wireDrops
}

type wireEra struct {
	From   int64  `json:"f"`
	Until  int64  `json:"u,omitempty"`
	Copies int    `json:"c,omitempty"`
	In     []byte `json:"b,omitempty"` // bit i: member i is in it
}

// errHistory says that what another member told of eras is not acceptable.
var errHistory = errors.New("cluster: not a history")

// encodeHistory gives what decodeHistory reads.
func encodeHistory(eras []*Era, drops wireDrops) []byte {
	type identity struct {
		id, zone string
		weight   int
		place    uint32
	}
	w := wireHistory{wireDrops: drops}
	known := map[identity]int{}
	for _, e := range eras {
		we := wireEra{From: e.From, Until: e.Until, Copies: e.Layout.Copies}
		for _, m := range e.Members {
			k := identity{m.ID, m.Zone, m.Weight, m.Place}
			n, ok := known[k]
			if !ok {
				n = len(w.Members)
				known[k] = n
				w.Members = append(w.Members, wireMember{ID: m.ID, Zone: m.Zone, Weight: m.Weight, Place: m.Place})
			}
			for len(we.In) <= n/8 {
				we.In = append(we.In, 0)
			}
			we.In[n/8] |= 1 << (n % 8)
		}
		w.Eras = append(w.Eras, we)
	}
	b, err := json.Marshal(w)
	if err != nil {
		panic("cluster: numbers and strings that are no JSON: " + err.Error())
	}
	return b
}

// decodeHistory reads what encodeHistory wrote, or somebody else did. b is not kept.
func decodeHistory(b []byte) (eras []*Era, drops wireDrops, err error) {
	if len(b) > maxHistoryBytes {
		return nil, drops, fmt.Errorf("%w: %d bytes, more than %d", errHistory, len(b), maxHistoryBytes)
	}
	var w wireHistory
	if err := json.Unmarshal(b, &w); err != nil {
		return nil, drops, fmt.Errorf("%w: %v", errHistory, err)
	}
	if len(w.Eras) > maxEras || len(w.Members) > maxEras*8 {
		return nil, drops, fmt.Errorf("%w: %d eras of %d members, more than %d of %d", errHistory, len(w.Eras), len(w.Members), maxEras, maxEras*8)
	}
	members := make([]Member, len(w.Members))
	for i := range w.Members {
		m := w.Members[i].member()
		if err := m.check(); err != nil {
			return nil, drops, fmt.Errorf("%w: %v", errHistory, err)
		}
		members[i] = Member{ID: m.ID, Name: m.Name, Zone: m.Zone, Weight: m.Weight, Place: m.Place, State: Ready}
	}
	for _, we := range w.Eras {
		e := &Era{From: we.From, Until: we.Until, Layout: Layout{Copies: we.Copies}}
		if we.From <= 0 || we.Until < 0 || we.Until != 0 && we.Until < we.From || we.Copies < 0 || we.Copies > MaxCopies || len(we.In)*8 > len(members)+7 {
			return nil, drops, fmt.Errorf("%w: an era from %d to %d at %d copies", errHistory, we.From, we.Until, we.Copies)
		}
		for i, m := range members {
			if i/8 < len(we.In) && we.In[i/8]>>(i%8)&1 != 0 {
				e.Members = append(e.Members, m)
			}
		}
		slices.SortFunc(e.Members, byID)
		if len(slices.CompactFunc(slices.Clone(e.Members), func(a, b Member) bool { return a.ID == b.ID })) != len(e.Members) {
			return nil, drops, fmt.Errorf("%w: an era has a member twice", errHistory)
		}
		eras = append(eras, e)
	}
	return eras, w.wireDrops, nil
}
