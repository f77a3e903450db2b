package route

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"

	"mcached/remotewrite/send"
	"mcached/remotewrite/wire"
)

// sumHash is a keyed sum that leaves out le, as a cluster's is.
type sumHash struct{ seed maphash.Seed }

var testHash = sumHash{maphash.MakeSeed()}

func (h sumHash) Bucket(bucket string) uint64 { return maphash.String(h.seed, bucket) }
func (h sumHash) Slot(sum uint64) uint16      { return uint16(sum*0x9e3779b97f4a7c15>>48) & 16383 }
func (h sumHash) Pair(name, value string) uint64 {
	if name == "le" {
		return 0
	}
	return (maphash.String(h.seed, name) ^ 0x9e3779b97f4a7c15) * (maphash.String(h.seed, value) | 1)
}

// testPrints are sums as well.
type testPrints struct{ sumHash }

func (testPrints) Check() string { return "check" }
func (h testPrints) BucketPrint(bucket string) (a, b uint64) {
	x := maphash.String(h.seed, "bucket "+bucket)
	return x, x * 0xd1b54a32d192ed03
}
func (h testPrints) Name(name string) (a, b uint64, kind uint8) {
	if name == "le" {
		kind = 1
	}
	return maphash.String(h.seed, name), maphash.String(h.seed, name+"="), kind
}
func (h testPrints) Pair(a, b uint64, kind uint8, value string) (slot, x, y uint64) {
	v, w := maphash.String(h.seed, value), maphash.String(h.seed, value+"=")
	if kind == 0 {
		slot = (a ^ 0x9e3779b97f4a7c15) * (v | 1)
	}
	return slot, (a ^ 0x8cb92ba72f3d8dd7) * (v | 1), (b ^ 0xaef17502108ef2d9) * (w | 1)
}

// table gives each slot its nodes by the number of the slot alone.
type table struct {
	ids, urls    []string
	self, copies int
	zones        int        // a node's is its number modulo them; 0: none
	orders       [][]uint16 // by slot modulo their number
}

// newTable is one in which all orders are equally frequent.
func newTable(nodes, self, copies int) *table {
	t := &table{self: self, copies: min(copies, nodes)}
	for i := range nodes {
		t.ids, t.urls = append(t.ids, fmt.Sprintf("n%d#1", i)), append(t.urls, fmt.Sprintf("http://n%d", i))
	}
	for slot := range 997 {
		order := make([]uint16, 0, nodes)
		for i := range nodes {
			order = append(order, uint16(i))
		}
		slices.SortFunc(order, func(a, b uint16) int { return int(slot*7919>>(a%8)%101) - int(slot*7919>>(b%8)%101) })
		if slot%2 == 0 {
			slices.Reverse(order)
		}
		for range slot % nodes {
			order = append(order[1:], order[0])
		}
		t.orders = append(t.orders, order)
	}
	return t
}

// setZones has nodes be in zones, and owners in different ones.
func (t *table) setZones(n int) {
	t.zones = n
	none := make([]bool, t.Nodes())
	for slot, order := range t.orders {
		all := t.OwnersWithout(uint16(slot), none, nil)
		for _, o := range order {
			if !slices.Contains(all, o) {
				all = append(all, o)
			}
		}
		t.orders[slot] = all
	}
}

func (t *table) Nodes() int                  { return len(t.ids) }
func (t *table) Self() int                   { return t.self }
func (t *table) Node(i int) (string, string) { return t.ids[i], t.urls[i] }
func (t *table) Owners(slot uint16) []uint16 {
	return t.orders[int(slot)%len(t.orders)][:t.copies]
}
func (t *table) Order(slot uint16, buf []uint16) []uint16 { return t.orders[int(slot)%len(t.orders)] }

// OwnersWithout spares nodes of the zone of the first that is left, if there are zones.
func (t *table) OwnersWithout(slot uint16, gone []bool, buf []uint16) []uint16 {
	at := len(buf)
	for _, o := range t.Order(slot, nil) {
		if !gone[o] && (t.zones == 0 || len(buf) == at || int(o)%t.zones != int(buf[at])%t.zones) {
			buf = append(buf, o)
		}
	}
	for _, o := range t.Order(slot, nil) {
		if !gone[o] && !slices.Contains(buf[at:], o) {
			buf = append(buf, o)
		}
	}
	return buf[:min(len(buf), at+t.copies)]
}

// testCluster is a table and a breaker without a clock: a suspect is one until
// it is trusted, or the test says so.
type testCluster struct {
	mu       sync.Mutex
	table    Table
	suspects map[string]bool
	told     int             // of suspicions
	used     int             // requests that were routed
	passed   map[string]bool // the nodes that were left, by their numbers
}

func (c *testCluster) Use(Table) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used++
}

func (c *testCluster) PassedOver(t Table, with func(node int) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	left := ""
	for i := range t.Nodes() {
		if with(i) {
			left += fmt.Sprint(i)
		}
	}
	if c.passed == nil {
		c.passed = make(map[string]bool)
	}
	c.passed[left] = true
}

func (c *testCluster) Table() Table {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.table
}

func (c *testCluster) Suspect(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.suspects == nil {
		c.suspects = make(map[string]bool)
	}
	c.suspects[id] = true
	c.told++
}

func (c *testCluster) Trust(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.suspects, id)
}

func (c *testCluster) Suspected(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.suspects[id]
}

const testHeader = "X-Test-Cluster"

var errForged = errors.New("not one of us")

// newRouter returns one with o, and what tests do not care about.
func newRouter(t testing.TB, o Options) *Router {
	t.Helper()
	o.Header = testHeader
	o.Sign = func(r *http.Request, body ...[]byte) {
		n := 0
		for _, b := range body {
			n += len(b)
		}
		r.Header.Set(testHeader, fmt.Sprint("secret ", n))
	}
	o.Verify = func(r *http.Request, body []byte) error {
		if r.Header.Get(testHeader) != fmt.Sprint("secret ", len(body)) {
			return errForged
		}
		return nil
	}
	if o.Hash == nil {
		o.Hash, o.Prints = testHash, testPrints{testHash}
	}
	if o.Store == nil {
		o.Store = func(context.Context, wire.Part) wire.Answer {
			return wire.Answer{Status: http.StatusServiceUnavailable}
		}
	}
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// answering is a transport to a node that answers parts so.
func answering(f func(p wire.Part) wire.Answer) http.RoundTripper {
	return roundTrip(func(r *http.Request) (*http.Response, error) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		_ = r.Body.Close()
		answers := wire.AppendAnswers(nil)
		err = wire.Parts(b, func(p wire.Part) bool {
			a := f(p)
			answers = wire.AppendAnswer(answers, &a)
			return true
		})
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {wire.ContentTypeAnswers}}, Body: io.NopCloser(bytes.NewReader(answers))}, err
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// passes are holdings that a function has: the newest of them, and the rest, from a time on.
type passes func(newest bool, from int64, f func(string, uint16, send.Series) bool)

func (e passes) Newest(from, _ int64, _ func(uint16) bool, f func(string, uint16, int64, send.Series) bool) {
	e(true, from, func(bucket string, slot uint16, s send.Series) bool { return f(bucket, slot, 0, s) })
}

func (e passes) Rest(from int64, _ func(uint16) bool, f func(string, uint16, int64, send.Series) bool) {
	e(false, from, func(bucket string, slot uint16, s send.Series) bool { return f(bucket, slot, 0, s) })
}

// contextWithCancel ends with the test's function, which waits for done.
func contextWithCancel(t *testing.T) (ctx context.Context, done func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return ctx, sync.OnceFunc(func() { close(ended) })
}
