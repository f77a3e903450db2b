package main

import (
	"bytes"
	"cmp"
	"context"
	"math"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"mcached/ingest/cluster"
	"mcached/mcache/query"
)

// newQueries makes what answers those who read: from this daemon's cache, or from
// those of all members of its cluster.
func (d *daemon) newQueries(o query.Options) *query.API {
	f := &d.config.cluster
	if !f.on() {
		return query.NewAPI(d.metrics, o)
	}
	return query.NewAPIOfMembers(d.metrics, &readCluster{d: d, hash: f.hash}, query.FanOutOptions{
		ReadTimeout: f.readTimeout.std(),
		Began:       func() int64 { return beganMs(d.started, cluster.SetBy(d.started, time.Now())) },
		ClocksApart: func() time.Duration {
			if d.node == nil {
				return 0
			}
			return d.node.ClocksApart()
		},
		Claims: d.claims,
	}, o)
}

// readCluster shows the cluster to those who read. Before the daemon is a member
// of it there is nobody to ask.
type readCluster struct {
	d    *daemon
	hash *cluster.SeriesHash

	mu     sync.Mutex
	owners map[uint64]*query.Owners // by Era.ID, of those that were asked for last
}

// Self implements query.Members, as all of these.
func (c *readCluster) Self() string {
	if c.d.node == nil {
		return ""
	}
	return c.d.node.Self().Name
}

func (c *readCluster) Peers() []query.Peer {
	n := c.d.node
	if n == nil {
		return nil
	}
	t := n.Table()
	self := n.Self().ID
	var peers []query.Peer
	for _, m := range t.Members() {
		if m.ID != self {
			peers = append(peers, query.Peer{Name: m.Name, ID: m.ID, Address: m.HTTP, Suspect: n.Suspected(m.ID)})
		}
	}
	return peers
}

// Eras are those that the cluster remembers, and that of members which may be beyond a
// cut of the network. Their owners are made once: see Era.Table.
func (c *readCluster) Eras(since int64) []query.Era {
	n := c.d.node
	if n == nil {
		return nil
	}
	told := n.Eras(since)
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]query.Era, len(told))
	for i, e := range told {
		list[i] = c.eraLocked(e)
	}
	// Where times are doubted they may be in another order.
	slices.SortStableFunc(list, func(a, b query.Era) int { return cmp.Compare(a.From, b.From) })
	if e := n.Beyond(); e != nil && len(list) > 0 { // not the first, which is one from the beginning
		list = append(list, c.eraLocked(e))
	}
	return list
}

// beganMs is when the daemon began, in unix ms, whose clock was set since. One that was set
// forwards had been behind then: to have begun later claims less.
func beganMs(started time.Time, set time.Duration) int64 {
	return started.Add(max(set, 0)).UnixMilli()
}

// eraLocked is an era for who reads: as long as it may have lasted.
func (c *readCluster) eraLocked(e *cluster.Era) query.Era {
	id := e.ID()
	owners, ok := c.owners[id]
	if !ok {
		owners = ownersOf(e)
		if c.owners == nil || len(c.owners) >= maxReadEras {
			c.owners = map[uint64]*query.Owners{}
		}
		c.owners[id] = owners
	}
	until := e.Until + e.Doubt
	if e.Until == 0 {
		until = math.MaxInt64
	}
	return query.NewEra(id, e.From-e.Doubt, until, owners)
}

// maxReadEras is of how many eras the owners are kept, 32 KiB each.
const maxReadEras = 512

func ownersOf(e *cluster.Era) *query.Owners {
	names := make([]string, len(e.Members))
	for i := range e.Members {
		names[i] = e.Members[i].Name
	}
	return query.NewOwners(names, cluster.Slots, e.Owners)
}

func (c *readCluster) Slot(bucket string, ls labels.Labels) uint16 {
	sum := c.hash.Bucket(bucket)
	ls.Range(func(l labels.Label) { sum += c.hash.Pair(l.Name, l.Value) })
	return c.hash.Slot(sum)
}

func (c *readCluster) Post(ctx context.Context, p query.Peer, path string, body []byte) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.Address+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	f := &c.d.config.cluster
	f.keys.Sign(r, body)
	return f.http.Do(r)
}

func (c *readCluster) Heard(p query.Peer, err error) {
	if err == nil {
		c.d.node.Trust(p.ID)
	} else {
		c.d.node.Suspect(p.ID)
	}
}

func (c *readCluster) Verify(r *http.Request, body []byte) error {
	return c.d.config.cluster.keys.Verify(r, body)
}
