package route

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"mcached/mcache"
	"mcached/remotewrite"
	"mcached/remotewrite/wire"
	"mcached/remotewrite/writetest"
)

// Whatever nodes do, a sample that was acknowledged is in as many caches as
// were asked for, nothing is anywhere that was not sent, and outboxes are empty
// in the end. Requests of both protocols come to all nodes at once, while nodes
// die, stand still, have no room, or write and lose the answer.
func TestAcknowledgedIsStored(t *testing.T) {
	for _, c := range []struct{ nodes, copies, acks int }{{2, 2, 1}, {3, 2, 1}, {4, 2, 2}, {5, 3, 2}} {
		t.Run(fmt.Sprintf("%d nodes, %d copies, %d acks", c.nodes, c.copies, c.acks), func(t *testing.T) {
			o := Options{Acks: c.acks, Timeout: 150 * time.Millisecond, MaxOutboxBytes: 16 << 10, MaxBundleBytes: 4 << 10}
			nodes := newNodes(t, c.nodes, c.copies, o, remotewrite.Options{}, mcache.Options{})
			seed := uint64(10*c.nodes + c.copies)
			acknowledged, sent := map[string]bool{}, map[string]bool{}
			refused := 0
			writeAmongFaults(t, nodes, seed, 4, deaf, func(lines []string, w *httptest.ResponseRecorder) {
				for _, line := range lines {
					sent[line] = true
					if w.Code == http.StatusNoContent {
						acknowledged[line] = true
					}
				}
				if w.Code != http.StatusNoContent {
					if refused++; w.Code != http.StatusServiceUnavailable {
						t.Errorf("answered %d %s", w.Code, w.Body)
					}
				}
			})
			hurt := met(nodes)
			have := copiesOf(nodes, "default")
			for line := range acknowledged {
				if have[line] < c.acks {
					t.Fatalf("%s was acknowledged and has %d copies (seed %d)", line, have[line], seed)
				}
			}
			for line := range have {
				if !sent[line] {
					t.Fatalf("%s was never sent (seed %d)", line, seed)
				}
			}
			if hurt == 0 || len(acknowledged) == 0 {
				t.Fatalf("%d requests met a fault, %d samples were acknowledged: no test (seed %d)", hurt, len(acknowledged), seed)
			}
			if c.acks == 1 && refused > 0 {
				t.Errorf("%d requests were refused, though the node that they came to could take them (seed %d)", refused, seed)
			}
		})
	}
}

// writeAmongFaults has senders write to nodes, of which now one and now another
// has a fault, up to the worst, until some request has met one, and closes the routers. answered is
// told of each answer and of the samples that it is about, one at a time.
func writeAmongFaults(t *testing.T, nodes []*node, seed uint64, senders, worst int, answered func(lines []string, w *httptest.ResponseRecorder)) {
	t.Helper()
	const requests, most, series = 15, 90, 30
	var mu sync.Mutex
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(s)))
			for i := 0; i < requests || i < most && met(nodes) == 0; i++ {
				all := metrics(series, s*10_000+i*100)
				p := wire.V1 + wire.Protocol(rng.IntN(2))
				x := nodes[rng.IntN(len(nodes))]
				switch y := nodes[rng.IntN(len(nodes))]; rng.IntN(3) {
				case 0:
					y.fault.Store(int32(1 + rng.IntN(worst)))
				case 1:
					y.fault.Store(well)
				}
				if rng.IntN(4) == 0 {
					for id := range nodes {
						x.cluster.Trust(fmt.Sprintf("n%d#1", id))
					}
				}
				w := x.Send(p, writetest.Encode(t, p, all...))
				mu.Lock()
				answered(linesOf(all), w)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for _, x := range nodes {
		x.router.Close(t.Context())
	}
}

// met is how many requests have met a fault of a node.
func met(nodes []*node) (n int32) {
	for _, x := range nodes {
		n += x.hurt.Load()
	}
	return n
}

// What is on its way to a node that stands still is bounded; what goes beyond
// goes to others, and the sender notices nothing.
func TestOutboxIsBounded(t *testing.T) {
	const bound = 8 << 10
	nodes := newNodes(t, 3, 2, Options{Timeout: time.Minute, MaxOutboxBytes: bound}, remotewrite.Options{}, mcache.Options{})
	release := make(chan struct{})
	nodes[1].serveBy(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
		http.Error(w, "late", http.StatusServiceUnavailable)
	})
	for i := range 30 {
		all := metrics(50, 100*i)
		writetest.Answered(t, nodes[0].Send(wire.V1, writetest.Encode(t, wire.V1, all...)), http.StatusNoContent, "")
		nodes[0].cluster.Trust("n1#1")                      // or the outbox would never fill
		for nodes[0].router.boxes.Load().by[2].held() > 0 { // which would be full as well
			time.Sleep(time.Millisecond)
		}
		if n := nodes[0].router.boxes.Load().by[1].held(); n > bound {
			t.Fatalf("%d bytes are on their way to it, more than %d", n, bound)
		}
	}
	close(release)
	nodes[0].router.Close(t.Context())
	if s := nodes[0].router.Stats(); s.FullOutboxes == 0 || s.FewCopies != 0 {
		t.Errorf("%+v", s)
	}
	have := copiesOf(nodes, "default")
	for i := range 30 {
		for _, line := range linesOf(metrics(50, 100*i)) {
			if have[line] < 2 {
				t.Fatalf("%s has %d copies", line, have[line])
			}
		}
	}
}

// held is what waits for the node and is on its way.
func (o *outbox) held() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.bytes
}

// loan counts what is lent, of at most limit bytes.
type loan struct {
	all   *sync.Mutex
	used  *int64
	limit int64
	n     int64
}

type noRoom struct{ never bool }

func (noRoom) Error() string                       { return "no room for it" }
func (e noRoom) RetryAfter() (time.Duration, bool) { return 3 * time.Second, !e.never }

func (l *loan) Try(n int64) error {
	l.all.Lock()
	defer l.all.Unlock()
	if *l.used+n > l.limit {
		return noRoom{never: n > l.limit}
	}
	*l.used += n
	l.n += n
	return nil
}

func (l *loan) Release() {
	l.all.Lock()
	defer l.all.Unlock()
	*l.used -= l.n
	l.n = 0
}

// Frames are lent by admission, and given back when the flight ends. What will
// never be lent is kept by the node that it came to.
func TestFramesAreLent(t *testing.T) {
	var mu sync.Mutex
	var used int64
	limit := int64(1 << 20)
	o := Options{Timeout: time.Minute, Acks: 2, Admission: func() Loan { return &loan{all: &mu, used: &used, limit: limit} }}
	nodes := newNodes(t, 3, 2, o, remotewrite.Options{}, mcache.Options{})
	body := writetest.Encode(t, wire.V2, metrics(50, 0)...)
	writetest.Answered(t, nodes[0].Send(wire.V2, body), http.StatusNoContent, "")
	nodes[0].router.Close(t.Context())
	if used != 0 {
		t.Errorf("%d bytes are lent still", used)
	}
	used = limit // others have all
	w := nodes[1].Send(wire.V2, body)
	writetest.Answered(t, w, http.StatusServiceUnavailable, "no room for it")
	if w.Header().Get("Retry-After") != "3" {
		t.Errorf("Retry-After is %q", w.Header().Get("Retry-After"))
	}
	limit, used = 100, 0
	writetest.Answered(t, nodes[2].Send(wire.V2, body), http.StatusNoContent, "")
	if n := len(nodes[2].Contents("default")); n != 50 {
		t.Errorf("it has %d of 50 series", n)
	}
}
