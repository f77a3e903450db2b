package main

import (
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/hex"
	"net"
	"net/netip"

	"mcached/ingest"
	"mcached/ingest/cluster"
)

// clusterOptions are those of the Redis door; nil for a daemon that is alone.
func (c *config) clusterOptions() *ingest.ClusterOptions {
	f := &c.cluster
	if !f.on() {
		return nil
	}
	o := &ingest.ClusterOptions{KeySlot: cluster.KeySlot, Proxy: f.resp.is == respProxy, Copies: int(f.blobCopies), Prove: f.keys.Prove, Proven: f.keys.Proven}
	if c.respCertificate != nil {
		d := tls.Dialer{Config: f.tls}
		o.Dial = func(ctx context.Context, address string) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) }
	}
	return o
}

// respView is the table as Redis clients are shown it: the members that serve
// them, each as a master.
func respView(t *cluster.Table, serves bool) *ingest.ClusterView {
	v := &ingest.ClusterView{Self: -1, Group: t.KeyGroup(), Down: !serves, Epoch: 1}
	number := make([]int, len(t.Members()))
	for i, m := range t.Members() {
		number[i] = -1
		a, err := netip.ParseAddrPort(m.RESP)
		if err != nil {
			continue
		}
		if i == t.Self() {
			v.Self = len(v.Nodes)
		}
		number[i] = len(v.Nodes)
		id := sha1.Sum([]byte(m.ID))
		v.Nodes = append(v.Nodes, ingest.ClusterNode{ID: hex.EncodeToString(id[:]), Host: a.Addr().String(), Port: int(a.Port())})
		v.Epoch = max(v.Epoch, uint64(m.Start()/1000)) // grows with whoever comes
	}
	for slot := 0; slot < cluster.Slots; slot += v.Group {
		owners := t.KeyOwners(uint16(slot))
		v.Promised = append(v.Promised, t.Promised(uint16(slot)))
		v.Copies = len(owners)
		for _, o := range owners {
			if number[o] < 0 {
				v.Copies, v.Owners = 0, nil // an address that is none: nobody is sent there
				return v
			}
			v.Owners = append(v.Owners, uint16(number[o]))
		}
	}
	return v
}
