package main

import (
	"context"
	"net/http"
	"time"

	"mcached/ingest/admission"
	"mcached/ingest/cluster"
	"mcached/remotewrite"
	"mcached/remotewrite/route"
	"mcached/remotewrite/wire"
)

// openRouter makes what spreads writes over the members. It asks for the table
// with the first request, by when the daemon is one of them.
func (d *daemon) openRouter() error {
	c := d.config
	f := &c.cluster
	if !f.on() {
		return nil
	}
	var prints route.Prints // that holds no nil pointer
	if f.prints != nil {
		prints = f.prints
	}
	var err error
	d.router, err = route.New(route.Options{
		Cluster: writeCluster{d}, Hash: f.hash, Prints: prints, Acks: int(f.writeAcks), Forwards: c.forward.url != "",
		Store:  func(ctx context.Context, p wire.Part) wire.Answer { return d.writes.Store(ctx, p) },
		Header: cluster.Header, Sign: f.keys.Sign, Verify: f.keys.Verify, Client: f.writeClient(),
		MaxOutboxBytes: d.outboxBytes(),
		Admission:      d.admitFrames, Logger: d.log,
	})
	return err
}

// writeClient is what sends writes to the other members. Nil is for a client of
// package route, which costs less than half, but knows nothing of what the file
// may ask for: TLS, passwords, a proxy.
func (f *clusterConfig) writeClient() *http.Client {
	if f.httpConfigFile != "" {
		return f.http
	}
	return nil
}

// writeRouter is the router for those who may have none: an interface that
// holds a nil pointer would not be nil.
func (d *daemon) writeRouter() remotewrite.Router {
	if d.router == nil {
		return nil
	}
	return d.router
}

// openStandby makes what looks after samples that other members forward.
func (d *daemon) openStandby() {
	if d.router == nil || d.forwarder == nil {
		return
	}
	const asksPerAge, least, most = 8, 100 * time.Millisecond, 10 * time.Second
	d.standby = d.router.NewStandby(d.forwarder, min(max(d.config.forward.maxDirtyAge.std()/asksPerAge, least), most))
}

// outboxPart of admission is what may be on its way to one member: one that
// stands still must not take what the others need.
const outboxPart = 8

func (d *daemon) outboxBytes() int {
	const least, most = 1 << 20, 64 << 20
	return int(min(max(d.admissionBytes(d.config)/outboxPart, least), most))
}

// admitFrames opens the lease of what is on its way to other members for one request.
func (d *daemon) admitFrames() route.Loan {
	l := new(admission.Lease)
	l.Open(d.admission, admission.Write, nil)
	return l
}

// closeRouter waits for what is on its way to other members.
func (d *daemon) closeRouter() {
	if d.router == nil {
		return
	}
	const most = 2 * time.Second // several times what a member may be silent
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	d.router.Close(ctx)
}

// writeCluster shows the cluster to those who write.
type writeCluster struct{ d *daemon }

func (c writeCluster) Table() route.Table {
	if c.d.node == nil {
		return nil
	}
	return writeTable{c.d.node.Table()}
}

func (c writeCluster) Use(t route.Table) { t.(writeTable).Use() }

func (c writeCluster) PassedOver(t route.Table, with func(node int) bool) {
	c.d.node.PassedOver(t.(writeTable).Table, with)
}

func (c writeCluster) Suspect(id string)        { c.d.node.Suspect(id) }
func (c writeCluster) Trust(id string)          { c.d.node.Trust(id) }
func (c writeCluster) Suspected(id string) bool { return c.d.node.Suspected(id) }

// writeTable is a table as those who write see it.
type writeTable struct{ *cluster.Table }

func (t writeTable) Nodes() int { return len(t.Members()) }

func (t writeTable) Node(i int) (id, url string) {
	m := &t.Members()[i]
	return m.ID, m.HTTP
}
