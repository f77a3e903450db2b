package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/common/version"

	"mcached/ingest/cluster"
)

// node is the daemon as one of several: what the doors are given to ask where
// things belong, and what it takes to ask the others. Nil for one that is alone.
type node struct {
	*cluster.Cluster
	client *http.Client // for the other members; requests have their own deadlines
	began  time.Time
	serves atomic.Bool // it is one of the cluster, and serves Redis keys
	handed atomic.Bool // it has what it owns, or has waited for long enough

	showMu sync.Mutex
	shown  atomic.Pointer[cluster.Table] // the last by which both doors act, as cluster.Start has made one
}

const (
	// aloneFor is how long a daemon that cannot find its seeds is not ready, so
	// that nobody writes to a cluster of one that should have been several.
	aloneFor = 30 * time.Second
	// leaveFor is how long a daemon that is asked to stop serves on after it told
	// the others that it leaves, to send clients of Redis on to them. That those
	// who read learn what was handed over is waited for by route.Handover.
	leaveFor = 700 * time.Millisecond
)

// openCluster begins to look for the others. The doors must be ready to serve:
// members that are found send requests.
func (d *daemon) openCluster() error {
	c := d.config
	f := &c.cluster
	if !f.on() {
		return nil
	}
	self, err := d.member()
	if err != nil {
		return err
	}
	n := &node{client: f.http, began: time.Now()}
	n.Cluster, err = cluster.Start(cluster.Options{
		Name: f.name, Self: self, Listen: f.bind, Advertise: d.gossipAddress(), Seeds: f.join, Keys: f.keys, Hash: f.hash,
		Layout: cluster.Layout{Copies: int(f.copies), BlobCopies: int(f.blobCopies)}, Logger: d.log,
		OnChange: func(t *cluster.Table) { d.showRESP(n, t) }, OnDisplaced: d.displaced,
	})
	if err != nil {
		return gossipError(f.listen, err)
	}
	d.node = n
	d.joined.Store(n.Cluster)
	d.log.Info("Cluster.", "name", f.name, "member", self.Name, "gossip", n.Address(), "http", self.HTTP, "resp", self.RESP, "seeds", len(f.join))
	return nil
}

// gossipError says which flag would help, as listen does. The library hands on
// why it cannot listen as text alone, behind what it was about to do.
func gossipError(address string, err error) error {
	for _, reason := range []syscall.Errno{syscall.EADDRINUSE, syscall.EADDRNOTAVAIL, syscall.EACCES} {
		if strings.HasSuffix(err.Error(), ": "+reason.Error()) {
			return cannotListen("other members", address, reason, "choose another with --cluster.listen-address")
		}
	}
	return fmt.Errorf("--cluster.listen-address=%s: %w", address, err)
}

// gossipAddress is how others reach the gossip, if that is not the listener's
// own address.
func (d *daemon) gossipAddress() netip.AddrPort {
	f := &d.config.cluster
	a := f.reachedBy
	if !a.IsValid() && f.bind.Addr().IsUnspecified() {
		a = netip.AddrPortFrom(machineAddress(), 0)
	}
	if a.IsValid() && a.Port() == 0 {
		a = netip.AddrPortFrom(a.Addr(), f.bind.Port())
	}
	return a
}

// member is how the daemon describes itself to the others.
func (d *daemon) member() (cluster.Member, error) {
	f := &d.config.cluster
	name := f.nodeName
	if name == "" {
		name = instanceName("", d.webListeners[0].Addr())
	}
	host := f.bind.Addr()
	if a := d.gossipAddress(); a.IsValid() {
		host = a.Addr()
	}
	web, ok := reachedAt(host, listenerAddresses(d.webListeners))
	if !ok {
		return cluster.Member{}, fmt.Errorf("no --web.listen-address can be reached at %v, where the other members are told that this one is", host)
	}
	scheme := "http"
	if d.config.webSettings.tls != nil {
		scheme = "https"
	}
	m := cluster.Member{ID: cluster.MemberID(name, d.started.UnixMilli()), Name: name, HTTP: scheme + "://" + web.String(), Zone: f.zone,
		Weight: cluster.WeightOf(d.config.nominalBytes(machineBytes())), Version: version.Version, Common: cluster.Common(d.config.common())}
	if len(m.Version) > maxVersionBytes {
		m.Version = m.Version[:maxVersionBytes]
	}
	// A socket of the file system alone is of no use to clients elsewhere.
	if resp, ok := reachedAt(host, listenerAddresses(d.respListeners)); ok {
		m.RESP = resp.String()
	}
	if f.advertiseRESP != "" {
		m.RESP = f.advertiseRESP
	}
	return m, nil
}

// common are the flags that all members must have the same. Those that say how many
// members acknowledge, wait or are asked are each member's own.
func (c *config) common() []cluster.Setting {
	f := &c.cluster
	labels := slices.Sorted(slices.Values(f.ignoreLabels))
	return []cluster.Setting{
		{Flag: "--cluster.copies", Value: strconv.Itoa(int(f.copies))},
		{Flag: "--cluster.blob-copies", Value: strconv.Itoa(int(f.blobCopies))},
		{Flag: "--cluster.spread", Value: strconv.Itoa(int(f.spread))},
		{Flag: "--cluster.ignore-labels", Value: strings.Join(slices.Compact(labels), ",")},
		{Flag: "--tenancy.header", Value: http.CanonicalHeaderKey(c.tenancyHeader)},
	}
}

// maxVersionBytes of the program's version that others are told.
const maxVersionBytes = 40

func listenerAddresses(ls []net.Listener) (all []netip.AddrPort) {
	for _, l := range ls {
		if t, ok := l.Addr().(*net.TCPAddr); ok {
			a := t.AddrPort()
			all = append(all, netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))
		}
	}
	return all
}

// reachedAt is the listener that is reached by a host: one on that address or on
// all; or else one on another address, which is told as it is: of loopback if the
// host is, and not otherwise.
func reachedAt(host netip.Addr, listeners []netip.AddrPort) (netip.AddrPort, bool) {
	for _, l := range listeners {
		if l.Addr() == host || l.Addr().IsUnspecified() {
			return netip.AddrPortFrom(host, l.Port()), true
		}
	}
	i := slices.IndexFunc(listeners, func(l netip.AddrPort) bool { return l.Addr().IsLoopback() == host.IsLoopback() })
	if i < 0 {
		return netip.AddrPort{}, false
	}
	return listeners[i], true
}

// machineAddress is one of the machine's own: a private one of IPv4 if there is
// any, as in a container or a data centre, else another, of IPv4 if possible, else
// loopback.
func machineAddress() netip.Addr {
	best := netip.MustParseAddr("127.0.0.1")
	all, err := net.InterfaceAddrs()
	if err != nil {
		return best
	}
	for _, a := range all {
		p, err := netip.ParsePrefix(a.String())
		ip := p.Addr().Unmap()
		switch {
		case err != nil || !ip.IsGlobalUnicast():
		case ip.IsPrivate() && ip.Is4():
			return ip
		case best.IsLoopback() || best.Is6() && ip.Is4():
			best = ip
		}
	}
	return best
}

// showRESP shows clients of Redis a table, by which series go already; nil is the one
// that they were shown last.
func (d *daemon) showRESP(n *node, t *cluster.Table) {
	n.showMu.Lock()
	defer n.showMu.Unlock()
	if t == nil {
		t = n.shown.Load()
	}
	if d.resp != nil {
		d.resp.SetCluster(respView(t, n.serves.Load()))
	}
	n.shown.Store(t)
}

// displaced is that other members had all of this one's slots.
func (d *daemon) displaced() {
	if d.resp != nil {
		d.resp.Displaced()
	}
}

// reassure is what the Redis door does after it stood still.
func (d *daemon) reassure(ctx context.Context) {
	if n := d.joined.Load(); n != nil {
		n.Reassure(ctx)
	}
}

// met says whether the others were met, or have been waited for long enough.
func (n *node) met() bool {
	return n == nil || n.Joined() || time.Since(n.began) > aloneFor
}

// ready says whether the daemon is one of the cluster, and has what it owns.
func (n *node) ready() bool {
	return n == nil || n.handed.Load()
}

// becomeReady tells the others when the daemon is ready.
func (d *daemon) becomeReady(ctx context.Context) error {
	const look = 50 * time.Millisecond
	n := d.node
	keys := d.resp != nil && d.config.cluster.blobCopies > 1
	for !n.met() || keys && !n.Met() { // by a table of some members others' keys would be taken
		if !sleep(ctx, look) {
			return nil
		}
	}
	n.serves.Store(true)
	d.showRESP(n, nil)
	if d.handover != nil && !awaitHandover(ctx, n.others, d.isOwed) {
		if ctx.Err() != nil {
			return nil
		}
		d.log.Warn("Ready, though other members of the cluster still send what this one owns.", "waited", handoverFor)
	}
	if keys && !awaitKeys(ctx, d.resp.OwedKeys) {
		if ctx.Err() != nil {
			return nil
		}
		d.log.Warn("Ready, though other members of the cluster did not send all Redis keys that this one serves.", "waited_for_more", keysSilent)
	}
	n.handed.Store(true)
	n.SetState(cluster.Ready)
	<-ctx.Done()
	return nil
}

// leave tells the others that the daemon stops, and serves on until they know.
func (n *node) leave() {
	if n == nil {
		return
	}
	n.SetState(cluster.Leaving)
	if len(n.Table().Members()) > 1 {
		time.Sleep(leaveFor)
	}
}

// close says goodbye, when nothing is served any more.
func (n *node) close() {
	if n != nil {
		n.Close()
	}
}
