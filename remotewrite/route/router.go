package route

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mcached/remotewrite/wire"
)

// Table says which nodes own a slot. It never changes, and is compared with ==.
type Table interface {
	// Nodes is their number, and Self the place of this one among them, or -1.
	Nodes() int
	Self() int
	// Node is the name of a node, unique for each of its lives, and the root of
	// its HTTP server, as http://host:port.
	Node(i int) (id, url string)
	// Owners are the nodes that hold a slot, and Order all nodes, beginning
	// with these, in order of preference. The slices are not changed; Order
	// may use buf.
	Owners(slot uint16) []uint16
	Order(slot uint16, buf []uint16) []uint16
	// OwnersWithout appends to buf those that would own a slot if some nodes were
	// gone. In a table with zones they need not be the next of the order.
	OwnersWithout(slot uint16, gone []bool, buf []uint16) []uint16
}

// Cluster is what a Router knows of the others. It is safe for concurrent use.
type Cluster interface {
	Table() Table
	// Use says that a request is routed by a table.
	Use(t Table)
	// PassedOver says that items of a request are stored as if a table had only the
	// nodes of which with reports true: what others own of them they were not sent,
	// or did not take. It is said before the request is answered, and does not wait.
	PassedOver(t Table, with func(node int) bool)
	// Suspect says that a node failed, and Trust that it did not. Suspected
	// reports whether it should be passed over.
	Suspect(id string)
	Trust(id string)
	Suspected(id string) bool
}

// Loan is bytes that admission has lent. The error may say when to ask again,
// by a method RetryAfter() (after time.Duration, ok bool); not ok that it would
// always be refused.
type Loan interface {
	Try(n int64) error
	Release()
}

// own is the receiver that has a request in hand.
type own struct {
	store func(skip []bool, standby wire.Bits, names []wire.Named) wire.Answer
	done  func(spare []byte)
}

// Options configure a Router. The zero value of a field means its default.
type Options struct {
	Cluster Cluster // required
	Hash    Hash    // required
	// Prints are those by which nodes name series to each other that they have sent
	// before. Default: none, series go with their labels.
	Prints Prints
	// Store writes a part that comes to this node as the heir of another.
	// Required. It keeps nothing of it.
	Store func(ctx context.Context, p wire.Part) wire.Answer
	// Forwards says that nodes forward what they hold to a store, each series by
	// its first owner (standby.go). A series is not acknowledged before a node has
	// it that forwards it.
	Forwards bool
	// Acks is how many nodes must have a series before its sender is told so, however
	// few there are: a node that is cut off from all others has no more than one copy.
	// Default 1.
	Acks int
	// Timeout is how long a node may be silent. Default 500 ms.
	Timeout time.Duration
	// MaxOutboxBytes bounds what waits for one node and is on its way to it.
	// Default 16 MiB.
	MaxOutboxBytes int
	// MaxBundleBytes is how much is joined in one request; a larger frame goes
	// by itself. Default 2 MiB.
	MaxBundleBytes int
	// MaxSeries and MaxSymbols of a request, as the receiver has them, which says
	// so when there are more. How many samples it may hold comes with it.
	MaxSeries, MaxSymbols int
	// Path of the receiver on other nodes. Default /api/v1/write.
	Path string
	// Header is the one of requests between nodes. Sign puts the proof into it
	// that a request with that body comes from one, and Verify looks at it.
	// Required.
	Header string
	Sign   func(r *http.Request, body ...[]byte)
	Verify func(r *http.Request, body []byte) error
	// Client sends requests to nodes. Its time-out is not needed. Default: what is
	// written goes over links, which cost less than half, and all else by a client
	// of this package, which follows no redirection.
	Client *http.Client
	// Admission opens a loan for frames. Default: no bound.
	Admission func() Loan
	// RetryAfter is what a sender is told if no node takes a write. Default 1 s.
	RetryAfter time.Duration
	// Logger is told of nodes that fail, at most once in ten seconds, and of those of
	// which it was told when they do not any more. Default: nobody.
	Logger *slog.Logger
}

const (
	defaultTimeout     = 500 * time.Millisecond
	defaultOutboxBytes = 16 << 20
	defaultBundleBytes = 2 << 20
	defaultMaxSeries   = 200_000
	defaultMaxSymbols  = 400_000

	// maxOrder is how many nodes of a slot's order are tried at the most:
	// places are bits of state.tried.
	maxOrder = 32
)

// Router cuts requests and sends them on. It is safe for concurrent use.
type Router struct {
	o        Options
	linked   bool // bundles go over links, where these can be had
	counters counters
	flights  sync.Pool // of *flight
	frames   sync.Pool // of *frame

	boxes atomic.Pointer[boxes] // of the table that was seen last

	mu      sync.Mutex
	all     map[string]*outbox // by the id of the node
	ctx     context.Context    // ends with the Router
	cancel  context.CancelFunc
	closed  bool
	active  sync.WaitGroup // outboxes that are worked on
	workers sync.WaitGroup // those who do, as many as ever did at a time, until ctx ends
	idle    chan *outbox   // for one of them

	loggedMs atomic.Int64
	seen     *seen                   // nil without Prints
	standby  atomic.Pointer[Standby] // nil without one
	claims   claims
}

// boxes are the outboxes of a table's nodes. That of this one is written here.
type boxes struct {
	table Table
	by    []*outbox
}

// New returns a Router. It sends nothing yet.
func New(o Options) (*Router, error) {
	if o.Cluster == nil || o.Hash == nil || o.Store == nil || o.Header == "" || o.Sign == nil || o.Verify == nil {
		return nil, errors.New("route: Cluster, Hash, Store, Header, Sign and Verify are required")
	}
	o.Header = http.CanonicalHeaderKey(o.Header)
	o.Acks = cmp.Or(o.Acks, 1)
	o.Timeout = cmp.Or(o.Timeout, defaultTimeout)
	o.MaxOutboxBytes = cmp.Or(o.MaxOutboxBytes, defaultOutboxBytes)
	o.MaxBundleBytes = cmp.Or(o.MaxBundleBytes, defaultBundleBytes)
	o.MaxSeries, o.MaxSymbols = cmp.Or(o.MaxSeries, defaultMaxSeries), cmp.Or(o.MaxSymbols, defaultMaxSymbols)
	o.Path = cmp.Or(o.Path, "/api/v1/write")
	o.RetryAfter = cmp.Or(o.RetryAfter, time.Second)
	linked := o.Client == nil
	if linked {
		o.Client = &http.Client{Transport: transport(), CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	r := &Router{o: o, linked: linked, all: make(map[string]*outbox), idle: make(chan *outbox)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.flights.New = func() any {
		f := &flight{r: r, ready: make(chan struct{}, 1)}
		f.cut = cutter{hash: o.Hash, prints: o.Prints, maxSeries: o.MaxSeries, maxSymbols: o.MaxSymbols}
		return f
	}
	if o.Prints != nil {
		r.seen = new(seen)
	}
	r.frames.New = func() any { return new(frame) }
	return r, nil
}

// transport is one for what goes to nodes and does not go over links.
func transport() *http.Transport {
	const buffer = 64 << 10
	d := net.Dialer{Timeout: defaultTimeout, KeepAlive: keepAlive}
	return &http.Transport{
		DialContext:         d.DialContext,
		MaxIdleConnsPerHost: maxUnderWay,
		IdleConnTimeout:     linkIdle,
		DisableCompression:  true,
		WriteBufferSize:     buffer,
		ReadBufferSize:      buffer,
	}
}

// Close waits until what is on its way has an end, or ctx has: then it is given
// up. Nothing may be routed any more.
func (r *Router) Close(ctx context.Context) {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	done := make(chan struct{})
	go func() {
		r.active.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		r.cancel()
		<-done
	}
	r.cancel()
	r.workers.Wait()
	r.o.Client.CloseIdleConnections()
}

// Claims reports whether a request says that it comes from another node.
func (r *Router) Claims(req *http.Request) bool { return len(req.Header[r.o.Header]) > 0 }

// Verify reports what is wrong with the proof of a request that it comes from a
// node of this cluster.
func (r *Router) Verify(req *http.Request, body []byte) error {
	err := r.o.Verify(req, body)
	if err != nil {
		r.counters.forged.Add(1)
	}
	return err
}

// outboxes are those for the nodes of t.
func (r *Router) outboxes(t Table) *boxes {
	if b := r.boxes.Load(); b != nil && b.table == t {
		return b
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	b := &boxes{table: t, by: make([]*outbox, t.Nodes())}
	keep := make(map[string]*outbox, len(b.by))
	for i := range b.by {
		id, url := t.Node(i)
		o := r.all[id]
		if o == nil || o.url != url {
			o = &outbox{r: r, id: id, url: url, self: i == t.Self(), linked: r.linked && strings.HasPrefix(url, "http://")}
		}
		b.by[i], keep[id] = o, o
	}
	r.all = keep // one that is left out ends when what it holds has
	r.boxes.Store(b)
	return b
}

// Route cuts a request, has store write what belongs to this node, and sends on
// the rest. It returns when each series has its acknowledgements, or cannot get them,
// or ctx has ended.
//
// Store is called once at most, with the series, by their place in the request, that are
// of others, nil if none is; those that another node forwards; and the names of those
// that are not of others, in their order, which it may change, nil if there are none.
//
// The body of p is the Router's until it calls done, which it does always, and before it
// waits: with the body, or, if it keeps that, with another buffer, of any size or nil.
// Called again, done must do nothing.
func (r *Router) Route(ctx context.Context, p wire.Part, store func(skip []bool, standby wire.Bits, names []wire.Named) wire.Answer, done func(spare []byte)) wire.Answer {
	defer done(p.Body)
	t := r.o.Cluster.Table()
	if t == nil || t.Nodes() == 0 {
		return store(nil, nil, nil)
	}
	r.o.Cluster.Use(t)
	if t.Nodes() == 1 && t.Self() == 0 && r.o.Acks == 1 {
		return store(nil, nil, nil)
	}
	f := r.flights.Get().(*flight)
	f.refs = 1
	if !f.cut.scan(p) {
		r.counters.uncut.Add(1)
		f.release()
		return store(nil, nil, nil) // which says what is wrong with it
	}
	a := f.fly(ctx, p, t, own{store, done})
	f.release()
	return a
}
