package cluster

import (
	"encoding/binary"
	"time"

	"github.com/hashicorp/memberlist"
)

// maxSkew is how far clocks may differ before it is told: signatures of requests are
// valid for two minutes, and answers are taken for complete later (clock.go).
const maxSkew = 5 * time.Second

// maxSkewUs is the largest difference that is told, some 35 years.
const maxSkewUs = 1 << 50

// Probe is the last probe that a member, by its ID, answered.
func (c *Cluster) Probe(member string) (p Probe, ok bool) {
	c.thereMu.Lock()
	defer c.thereMu.Unlock()
	p = c.there[member].probe
	return p, p.RTT > 0
}

// AckPayload goes with each answer to a probe: this member's clock.
func (d *delegate) AckPayload() []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixMicro()))
}

// NotifyPingComplete learns how far away a member is, and its clock.
func (d *delegate) NotifyPingComplete(n *memberlist.Node, rtt time.Duration, payload []byte) {
	p := Probe{RTT: max(rtt, 1)}
	if len(payload) == 8 {
		// It was read about half-way. Differences of centuries do not fit, and
		// are as wrong as those that do.
		us := int64(binary.BigEndian.Uint64(payload)) - time.Now().Add(-rtt/2).UnixMicro()
		p.ClockAhead = time.Duration(max(min(us, maxSkewUs), -maxSkewUs)) * time.Microsecond
	}
	d.c.watchClock()
	d.c.thereMu.Lock()
	was, ok := d.c.there[n.Name]
	if ok {
		was.probe = p
		d.c.there[n.Name] = was
	}
	d.c.thereMu.Unlock()
	d.c.compareClocks()
	if ok && p.ClockAhead.Abs() > maxSkew && !d.c.skewed.Swap(true) {
		d.c.o.Logger.Error("The clock of another member differs: from two minutes on its requests are rejected, and before that answers are taken for complete only from that much, twice, after a change of the members.",
			"member", was.Name, "ahead_seconds", p.ClockAhead.Seconds())
	}
}

// clockSkew is the largest of any member.
func (c *Cluster) clockSkew() (most time.Duration) {
	c.thereMu.Lock()
	defer c.thereMu.Unlock()
	for _, p := range c.there {
		most = max(most, p.probe.ClockAhead.Abs())
	}
	return most
}
