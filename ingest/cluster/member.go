package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
)

// State is what a member takes part in.
type State uint8

const (
	// Joining members own slots, and are written to, but do not have yet what
	// was written before they came. See NewTable for slots of keys.
	Joining State = iota
	// Ready members own slots and have what they own.
	Ready
	// Leaving members own nothing any more, and still answer reads.
	Leaving
)

// String is how a state is shown.
func (s State) String() string {
	switch s {
	case Joining:
		return "joining"
	case Ready:
		return "ready"
	case Leaving:
		return "leaving"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// A Member is one life of one daemon. It is a value: nothing changes it.
type Member struct {
	// ID is Name#start, unique for each life of a process: a daemon that comes
	// back under its name comes back empty.
	ID string
	// Name decides which slots are the member's, so that it gets the same ones
	// in its next life.
	Name string
	HTTP string // http(s)://host:port of the HTTP front door, for other members
	RESP string // literal host:port that Redis clients are told; "" for none
	Zone string // copies are put in different zones first; "" is a zone, too
	// Weight is its share in half powers of two, see WeightOf.
	Weight int
	State  State
	// Place is a fingerprint of what decides which slot a series has: members
	// that differ in it disagree about owners.
	Place uint32
	// Common is what it has of flags that all members must have the same: see Common.
	Common string
	// Version of the program, to be shown.
	Version string
	// Fills says that the member, while it joins, is sent the keys that are promised
	// to it, and sends others theirs: see Table.Promised.
	Fills bool
}

// Start is when this life began, in Unix ms: the number behind the name in an ID,
// by which the lives of one name are put in order; 0 where there is none.
func (m *Member) Start() int64 {
	n, _ := strconv.ParseInt(m.ID[strings.LastIndexByte(m.ID, '#')+1:], 10, 64)
	return n
}

// MemberID is the ID of the daemon of that name that was started at that time.
func MemberID(name string, startMs int64) string {
	return name + "#" + strconv.FormatInt(startMs, 10)
}

// LifeOf is what an ID says: the name, and when the daemon was started; never, in
// ms, if it is none.
func LifeOf(id string) (name string, startMs int64) {
	i := strings.LastIndexByte(id, '#')
	start, err := strconv.ParseInt(id[i+1:], 10, 64)
	if i < 0 || err != nil {
		return id, math.MaxInt64
	}
	return id[:i], start
}

// Weights are half powers of two: a member of weight w+2 gets twice what one of
// weight w gets. They are coarse so that a machine with a few MiB more or less
// moves nothing, and integers so that all members reckon alike.
const (
	weightUnit = 64 << 20 // bytes: weight 0
	maxWeight  = 40       // 64 TiB
)

// WeightOf is the weight of a member with that much memory. It has to be the
// nominal size, never the budget of the moment: a member that is squeezed
// forgets old hours, it does not shed slots.
func WeightOf(bytes int64) int {
	if bytes <= weightUnit {
		return 0
	}
	return min(maxWeight, int(math.Round(2*math.Log2(float64(bytes)/weightUnit))))
}

// What a member says of itself travels in each gossip message about it, so its
// size is bounded (memberlist's own bound is the same).
const (
	maxStateBytes = 512
	// MaxNameBytes bounds names of members, zones and clusters.
	MaxNameBytes = 64
)

// ErrMember says that a member's description is not acceptable.
var ErrMember = errors.New("cluster: not a member's description")

// wireMember is how a Member is gossiped: short names, nothing that is empty.
type wireMember struct {
	ID      string `json:"i"`
	HTTP    string `json:"h,omitempty"`
	RESP    string `json:"r,omitempty"`
	Zone    string `json:"z,omitempty"`
	Weight  int    `json:"w,omitempty"`
	State   State  `json:"s,omitempty"`
	Place   uint32 `json:"p,omitempty"`
	Version string `json:"v,omitempty"`
	Fills   bool   `json:"f,omitempty"`
	Common  string `json:"c,omitempty"`
}

// encode gives what is gossiped, at most maxStateBytes.
func (m *Member) encode() ([]byte, error) {
	w := wireMember{m.ID, m.HTTP, m.RESP, m.Zone, m.Weight, m.State, m.Place, m.Version, m.Fills, m.Common}
	b, err := json.Marshal(w)
	if err == nil && len(b) > maxStateBytes {
		w.Common = "" // it is only to be shown
		b, err = json.Marshal(w)
	}
	if err != nil {
		return nil, err
	}
	if len(b) > maxStateBytes {
		return nil, fmt.Errorf("%w: name, zone and addresses take %d bytes, more than %d", ErrMember, len(b), maxStateBytes)
	}
	return b, nil
}

// decodeMember reads what encode wrote, or somebody else did.
func decodeMember(b []byte) (Member, error) {
	if len(b) > maxStateBytes {
		return Member{}, fmt.Errorf("%w: %d bytes, more than %d", ErrMember, len(b), maxStateBytes)
	}
	var w wireMember
	if err := json.Unmarshal(b, &w); err != nil {
		return Member{}, fmt.Errorf("%w: %v", ErrMember, err)
	}
	m := w.member()
	return m, errors.Join(m.check(), m.checkAddresses())
}

// member is what was gossiped, not checked.
func (w *wireMember) member() Member {
	m := Member{ID: w.ID, HTTP: w.HTTP, RESP: w.RESP, Zone: w.Zone, Weight: w.Weight, State: w.State, Place: w.Place, Version: w.Version, Fills: w.Fills, Common: w.Common}
	if at := strings.LastIndexByte(m.ID, '#'); at > 0 {
		m.Name = m.ID[:at]
	}
	return m
}

// checkAddresses is for members that are there.
func (m *Member) checkAddresses() error {
	switch {
	case m.RESP != "" && !literal(m.RESP):
		return fmt.Errorf("%w: Redis clients cannot be sent to %.100q", ErrMember, m.RESP)
	case !strings.HasPrefix(m.HTTP, "http://") && !strings.HasPrefix(m.HTTP, "https://"):
		return fmt.Errorf("%w: there is no HTTP at %.100q", ErrMember, m.HTTP)
	}
	return nil
}

// literal says whether an address is one that needs no looking up, with a port.
func literal(address string) bool {
	a, err := netip.ParseAddrPort(address)
	return err == nil && a.Port() != 0
}

// check is what every description has to keep, of whomever it is.
func (m *Member) check() error {
	switch {
	case m.Name == "" || len(m.Name) > MaxNameBytes || m.ID != MemberID(m.Name, m.Start()):
		return fmt.Errorf("%w: the ID %.100q is not NAME#START with a name of 1 to %d bytes", ErrMember, m.ID, MaxNameBytes)
	case len(m.Zone) > MaxNameBytes:
		return fmt.Errorf("%w: the zone has %d bytes, more than %d", ErrMember, len(m.Zone), MaxNameBytes)
	case m.Weight < 0 || m.Weight > maxWeight:
		return fmt.Errorf("%w: the weight is %d, not 0 to %d", ErrMember, m.Weight, maxWeight)
	case len(m.Common) > maxCommonBytes:
		return fmt.Errorf("%w: it tells %d bytes of its flags, more than %d", ErrMember, len(m.Common), maxCommonBytes)
	case m.State > Leaving:
		return fmt.Errorf("%w: %v is unknown", ErrMember, m.State)
	}
	return nil
}
