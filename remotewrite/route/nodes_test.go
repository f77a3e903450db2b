package route

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang/snappy"

	"mcached/mcache"
	"mcached/remotewrite"
	"mcached/remotewrite/wire"
	"mcached/remotewrite/writetest"
)

// node is a receiver with its cache, server and Router.
type node struct {
	*writetest.Receiver
	handler *remotewrite.Handler
	router  *Router
	cluster *testCluster
	server  *httptest.Server

	instead atomic.Pointer[http.HandlerFunc] // serves requests from other nodes; nil: the node

	fault  atomic.Int32 // what becomes of requests from other nodes
	hurt   atomic.Int32 // how many there were that met it
	served atomic.Int32 // requests from other nodes
}

const (
	well   = iota
	dead   // the connection ends
	frozen // no answer until the other end gives up
	busy   // 503
	deaf   // written, and the answer is lost
	choosy // 429, of each part: too many new series
)

// newNodes starts n of them that know each other.
func newNodes(t *testing.T, n, copies int, o Options, r remotewrite.Options, c mcache.Options) []*node {
	t.Helper()
	nodes := make([]*node, n)
	for i := range nodes {
		x := &node{Receiver: writetest.New(t, c), cluster: &testCluster{}}
		nodes[i] = x
		ro := o
		ro.Cluster = x.cluster
		ro.Store = func(ctx context.Context, p wire.Part) wire.Answer { return x.handler.Store(ctx, p) }
		x.router = newRouter(t, ro)
		ho := r
		ho.Router = x.router
		ho.Now = func() time.Time { return writetest.Now }
		x.handler = remotewrite.NewHandler(x.Cache, ho)
		x.To = x.handler
		x.server = httptest.NewServer(http.HandlerFunc(x.serve))
		t.Cleanup(x.server.Close)
	}
	for i, x := range nodes {
		tab := newTable(n, i, copies)
		for k, y := range nodes {
			tab.urls[k] = y.server.URL
		}
		x.cluster.table = tab
	}
	t.Cleanup(func() {
		for _, x := range nodes {
			x.router.Close(t.Context())
			if got := x.router.Stats().OutboxBytes; got != 0 {
				t.Errorf("%d bytes are left in outboxes", got)
			}
		}
	})
	return nodes
}

func (x *node) serveBy(f http.HandlerFunc) { x.instead.Store(&f) }

// overheard has see called with each part that x is sent, and edit with the headers of
// its answers. A node with a fault hangs up, whatever that is.
func (x *node) overheard(see func(wire.Part), edit func(answer http.Header)) {
	x.serveBy(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			x.T.Error(err)
		}
		fails := x.fault.Load() != well
		_ = wire.Parts(body, func(p wire.Part) bool {
			see(p)
			return true
		})
		if fails {
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		got := httptest.NewRecorder()
		x.handler.ServeHTTP(got, r)
		edit(got.Header())
		maps.Copy(w.Header(), got.Header())
		w.WriteHeader(got.Code)
		_, _ = w.Write(got.Body.Bytes())
	})
}

func (x *node) serve(w http.ResponseWriter, r *http.Request) {
	if f := x.instead.Load(); f != nil {
		(*f)(w, r)
		return
	}
	x.served.Add(1)
	if f := x.fault.Load(); f != well {
		x.hurt.Add(1)
		switch f {
		case dead:
			panic(http.ErrAbortHandler)
		case frozen:
			_, _ = io.Copy(io.Discard, r.Body) // or the server does not see that the other end has gone
			<-r.Context().Done()
			return
		case busy:
			http.Error(w, "no room", http.StatusServiceUnavailable)
			return
		case deaf:
			x.handler.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		case choosy:
			x.choose(w, r)
			return
		}
	}
	x.handler.ServeHTTP(w, r)
}

// choose takes no part of a bundle, as no other node with as many new series would.
func (x *node) choose(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	answers := wire.AppendAnswers(nil)
	_ = wire.Parts(body, func(wire.Part) bool {
		answers = wire.AppendAnswer(answers, &wire.Answer{Status: http.StatusTooManyRequests, Retry: "too many"})
		return true
	})
	w.Header().Set("Content-Type", wire.ContentTypeAnswers)
	_, _ = w.Write(answers)
}

// owners are the nodes of a series of the default bucket.
func (x *node) owners(ls []mcache.Label) []uint16 {
	return x.cluster.Table().Owners(slotOf("default", ls))
}

// copiesOf is how many nodes hold a line of Contents.
func copiesOf(nodes []*node, bucket string) map[string]int {
	n := make(map[string]int)
	for _, x := range nodes {
		for _, line := range x.Contents(bucket) {
			labels, samples, _ := strings.Cut(line, "} ")
			for s := range strings.FieldsSeq(samples) {
				n[labels+"} "+s]++
			}
		}
	}
	return n
}

// linesOf are the samples of series as copiesOf has them.
func linesOf(all []writetest.Series) (lines []string) {
	for _, s := range all {
		for _, x := range s.Samples {
			lines = append(lines, writetest.Line(writetest.LabelText(s.Labels), x))
		}
	}
	return lines
}

func metrics(n, from int) []writetest.Series {
	var all []writetest.Series
	for i := range n {
		all = append(all, writetest.Series{Labels: writetest.Named("m", "i", fmt.Sprint(from+i), "job", "j"), Samples: []mcache.Sample{writetest.Sample(float64(i%7), float64(i))}})
	}
	return all
}

// Each series is where it belongs, as often as it should be, and nowhere else,
// whichever node it came to; and the sender is told of each sample once.
func TestOwnersGetTheirSeries(t *testing.T) {
	writetest.Both(t, func(t *testing.T, p wire.Protocol) {
		nodes := newNodes(t, 4, 2, Options{Acks: 2, Timeout: time.Minute}, remotewrite.Options{}, mcache.Options{})
		var sent []writetest.Series
		for i, x := range nodes {
			all := metrics(100, 1000*i)
			sent = append(sent, all...)
			w := x.Send(p, writetest.Encode(t, p, all...))
			writetest.Answered(t, w, http.StatusNoContent, "")
			if p == wire.V2 {
				writetest.Wrote(t, w, 100, 0, 0)
			}
		}
		for i, x := range nodes {
			var want []string
			for _, s := range sent {
				if slices.Contains(x.owners(s.Labels), uint16(i)) {
					want = append(want, writetest.Line(writetest.LabelText(s.Labels), s.Samples...))
				}
			}
			if len(want) < 100 || len(want) == len(sent) {
				t.Fatalf("node %d owns %d of %d: no test", i, len(want), len(sent))
			}
			x.Holds(want...)
			if s := x.router.Stats(); s.Rerouted+s.FewCopies+s.Unacknowledged != 0 {
				t.Errorf("of node %d: %+v", i, s)
			}
		}
	})
}

// With everything well nobody is answered otherwise than by one node.
func TestOneNodeIsNoCluster(t *testing.T) {
	writetest.Both(t, func(t *testing.T, p wire.Protocol) {
		x := newNodes(t, 1, 2, Options{}, remotewrite.Options{}, mcache.Options{})[0]
		all := metrics(10, 0)
		writetest.Answered(t, x.Send(p, writetest.Encode(t, p, all...)), http.StatusNoContent, "")
		if n := len(x.Contents("default")); n != 10 {
			t.Errorf("%d of 10 series", n)
		}
	})
}

// What fewer nodes have than must is not acknowledged, though no node fails: there
// are no more. It is kept, and acknowledged when it is sent again to more.
func TestFewerNodesThanAcknowledgements(t *testing.T) {
	for have := range 3 {
		have++
		t.Run(fmt.Sprint(have, " of 3"), func(t *testing.T) {
			writetest.Both(t, func(t *testing.T, p wire.Protocol) {
				nodes := newNodes(t, have, 3, Options{Acks: 3, Timeout: time.Minute}, remotewrite.Options{}, mcache.Options{})
				w := nodes[0].Send(p, writetest.Encode(t, p, metrics(10, 0)...))
				if have == 3 {
					writetest.Answered(t, w, http.StatusNoContent, "")
				} else {
					writetest.Answered(t, w, http.StatusServiceUnavailable, fmt.Sprintf("10 series have fewer than 3 acknowledgements: the cluster has no more than %d that take writes", have))
				}
				for i, x := range nodes {
					if n := len(x.Contents("default")); n != 10 {
						t.Errorf("node %d has %d of 10 series", i, n)
					}
				}
			})
		})
	}
}

// A node that fails, however it does, is passed over at once; the sender is
// told of success and each sample has its copies.
func TestFailingNodeIsPassedOver(t *testing.T) {
	for name, fault := range map[string]int32{"dead": dead, "frozen": frozen, "busy": busy, "deaf": deaf} {
		t.Run(name, func(t *testing.T) {
			writetest.Both(t, func(t *testing.T, p wire.Protocol) {
				o := Options{Acks: 2, Timeout: time.Minute}
				if fault == frozen {
					o.Timeout = 100 * time.Millisecond // the others may be suspected, too, and are asked again
				}
				nodes := newNodes(t, 4, 2, o, remotewrite.Options{}, mcache.Options{})
				nodes[2].fault.Store(fault)
				all := metrics(200, 0)
				for i := range 4 {
					if i == 2 {
						continue
					}
					w := nodes[i].Send(p, writetest.Encode(t, p, all...))
					for fault == frozen && w.Code == http.StatusServiceUnavailable { // on a busy machine others are too slow as well
						w = nodes[i].Send(p, writetest.Encode(t, p, all...))
					}
					writetest.Answered(t, w, http.StatusNoContent, "")
				}
				if nodes[2].hurt.Load() == 0 {
					t.Fatal("nobody met the fault")
				}
				others := []*node{nodes[0], nodes[1], nodes[3]}
				have := copiesOf(others, "default")
				for _, line := range linesOf(all) {
					if have[line] < 2 {
						t.Fatalf("%s has %d copies", line, have[line])
					}
				}
				if fault != frozen && (nodes[0].router.Stats().Rerouted == 0 || nodes[0].cluster.told == 0) {
					t.Errorf("it was not noticed: %+v", nodes[0].router.Stats())
				}
			})
		})
	}
}

// That a node does not take writes is logged, once in a while, and once that it does again.
func TestFailingNodeIsLogged(t *testing.T) {
	var log lockedBuffer
	nodes := newNodes(t, 2, 1, Options{Acks: 1, Timeout: time.Minute, Logger: slog.New(slog.NewTextHandler(&log, nil))}, remotewrite.Options{}, mcache.Options{})
	send := func() {
		writetest.Answered(t, nodes[0].Send(wire.V2, writetest.Encode(t, wire.V2, metrics(50, 0)...)), http.StatusNoContent, "")
	}
	expect := func(what string, gone, back int) {
		t.Helper()
		text := log.String()
		if n, m := strings.Count(text, "does not take writes"), strings.Count(text, "takes writes again"); n != gone || m != back {
			t.Errorf("%s: %d and %d lines, want %d and %d: %s", what, n, m, gone, back, text)
		}
	}
	send()
	expect("it is well", 0, 0)
	nodes[1].fault.Store(dead)
	for range 3 {
		send()
		nodes[0].cluster.Trust("n1#1") // it is tried again
	}
	expect("it is dead", 1, 0)
	nodes[1].fault.Store(0)
	send()
	send()
	expect("it is back", 1, 1)
}

// lockedBuffer is for a log that several goroutines write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A copy whose node fails after the sender had its answer is made elsewhere.
func TestSecondCopyIsMadeAllTheSame(t *testing.T) {
	nodes := newNodes(t, 3, 2, Options{Acks: 1, Timeout: time.Minute}, remotewrite.Options{}, mcache.Options{})
	answered := make(chan struct{})
	nodes[1].serveBy(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-answered
		panic(http.ErrAbortHandler)
	})
	all := metrics(100, 0)
	writetest.Answered(t, nodes[0].Send(wire.V2, writetest.Encode(t, wire.V2, all...)), http.StatusNoContent, "")
	close(answered)
	nodes[0].router.Close(t.Context()) // waits for what is under way
	have := copiesOf([]*node{nodes[0], nodes[2]}, "default")
	for _, line := range linesOf(all) {
		if have[line] != 2 {
			t.Fatalf("%s has %d copies", line, have[line])
		}
	}
}

// Series are packed for nodes that say that they take it, from the second request
// on. One of a release that knows nothing of it gets them unchanged, and one that
// fails leaves them to others, who get them unchanged, too.
func TestPackedForThoseThatTakeIt(t *testing.T) {
	nodes := newNodes(t, 3, 2, Options{Acks: 2, Timeout: time.Minute}, remotewrite.Options{}, mcache.Options{})
	var parts, packed [3]atomic.Int32
	for i, x := range nodes {
		x.overheard(func(p wire.Part) {
			parts[i].Add(1)
			if p.Protocol == wire.PackedV1 {
				packed[i].Add(1)
			}
		}, func(answer http.Header) {
			if i == 1 {
				answer.Del(wire.HeaderPacked)
			}
		})
	}
	var want []writetest.Series
	send := func() {
		all := metrics(200, len(want))
		want = append(want, all...)
		writetest.Answered(t, nodes[0].Send(wire.V1, writetest.Encode(t, wire.V1, all...)), http.StatusNoContent, "")
	}
	for range 3 {
		send()
	}
	if parts[1].Load() != 3 || packed[1].Load() != 0 || parts[2].Load() != 3 || packed[2].Load() != 2 {
		t.Errorf("of %d parts %d are packed for one that takes none, of %d %d for one that does", parts[1].Load(), packed[1].Load(), parts[2].Load(), packed[2].Load())
	}
	nodes[2].fault.Store(dead)
	send()
	if packed[2].Load() < 3 || nodes[0].router.Stats().Rerouted == 0 {
		t.Errorf("%d parts were packed, %+v", packed[2].Load(), nodes[0].router.Stats())
	}
	nodes[0].router.Close(t.Context())
	have := copiesOf(nodes, "default")
	for _, line := range linesOf(want) {
		if have[line] != 2 {
			t.Fatalf("%s has %d copies", line, have[line])
		}
	}
}

// While any node can take it a write succeeds, with the acknowledgements that
// there can be; and 503 is the answer when there are fewer than asked for.
func TestLastNodeTakesAll(t *testing.T) {
	for _, acks := range []int{1, 2} {
		nodes := newNodes(t, 3, 2, Options{Acks: acks, Timeout: time.Minute}, remotewrite.Options{}, mcache.Options{})
		nodes[1].fault.Store(dead)
		nodes[2].fault.Store(dead)
		all := metrics(100, 0)
		for range 3 { // once both are suspect, too
			w := nodes[0].Send(wire.V2, writetest.Encode(t, wire.V2, all...))
			if acks == 1 {
				writetest.Answered(t, w, http.StatusNoContent, "")
				writetest.Wrote(t, w, 100, 0, 0)
			} else {
				writetest.Answered(t, w, http.StatusServiceUnavailable, "fewer than 2 acknowledgements")
				if w.Header().Get("Retry-After") == "" {
					t.Error("without Retry-After")
				}
			}
		}
		if acks == 1 && len(nodes[0].Contents("default")) != 100 {
			t.Error("the last node has not all")
		}
		nodes[1].fault.Store(well)
		w := nodes[0].Send(wire.V2, writetest.Encode(t, wire.V2, all...))
		writetest.Answered(t, w, http.StatusNoContent, "")
	}
}

// What is wrong with single series is said once, with the sum of what was not
// written, however many nodes found it so.
func TestRejectionsAreSummedUp(t *testing.T) {
	writetest.Both(t, func(t *testing.T, p wire.Protocol) {
		nodes := newNodes(t, 3, 2, Options{Timeout: time.Minute}, remotewrite.Options{}, mcache.Options{})
		one := writetest.New(t, mcache.Options{})
		one.To = remotewrite.NewHandler(one.Cache, remotewrite.Options{Now: func() time.Time { return writetest.Now }})
		all := metrics(300, 0)
		for i := range all {
			switch {
			case i%10 == 3:
				all[i].Samples = append(all[i].Samples, writetest.Sample(1e6, 1), writetest.Sample(2e6, 1)) // in the future
			case i == 77:
				all[i].Labels = writetest.Labels("no", "name")
			}
		}
		body := writetest.Encode(t, p, all...)
		want, got := one.Send(p, body), nodes[1].Send(p, body)
		if got.Code != want.Code || got.Code != http.StatusBadRequest {
			t.Errorf("answered %d, one node %d", got.Code, want.Code)
		}
		first := func(s string) string { s, _, _ = strings.Cut(s, ":"); return s }
		if first(got.Body.String()) != first(want.Body.String()) || !strings.Contains(got.Body.String(), "ahead of the clock") {
			t.Errorf("answered\n%s\none node\n%s", got.Body, want.Body)
		}
		if p == wire.V2 {
			writetest.Wrote(t, got, 299, 0, 0)
			writetest.Wrote(t, want, 299, 0, 0)
		}
		have := copiesOf(nodes, "default")
		for _, line := range one.Contents("default") {
			if line, _, _ := strings.Cut(line, " since"); have[line] != 2 {
				t.Fatalf("%s has %d copies", line, have[line])
			}
		}
	})
}

// A request that is wrong as a whole gets the same answer from many nodes as
// from one, and leaves nothing anywhere.
func TestWrongRequestsAreAnsweredAsByOne(t *testing.T) {
	nodes := newNodes(t, 3, 2, Options{Timeout: time.Minute, MaxSeries: 50}, remotewrite.Options{MaxSeries: 50}, mcache.Options{})
	one := writetest.New(t, mcache.Options{})
	one.To = remotewrite.NewHandler(one.Cache, remotewrite.Options{MaxSeries: 50, Now: func() time.Time { return writetest.Now }})
	good := writetest.Encode(t, wire.V2, metrics(10, 0)...)
	for name, send := range map[string]func(r *writetest.Receiver) *httptest.ResponseRecorder{
		"cut short":      func(r *writetest.Receiver) *httptest.ResponseRecorder { return r.Send(wire.V2, good[:len(good)-1]) },
		"other protocol": func(r *writetest.Receiver) *httptest.ResponseRecorder { return r.Send(wire.V1, good) },
		"no snappy": func(r *writetest.Receiver) *httptest.ResponseRecorder {
			return r.Post(wire.ContentTypeV2, "snappy", good)
		},
		"identity": func(r *writetest.Receiver) *httptest.ResponseRecorder {
			return r.Post(wire.ContentTypeV2, "identity", good)
		},
		"bundle without a header": func(r *writetest.Receiver) *httptest.ResponseRecorder {
			return r.Post(wire.ContentTypeBundle, "identity", []byte{1})
		},
		"too many": func(r *writetest.Receiver) *httptest.ResponseRecorder {
			return r.Send(wire.V1, writetest.Encode(t, wire.V1, metrics(51, 0)...))
		},
	} {
		t.Run(name, func(t *testing.T) {
			want, got := send(one), send(nodes[0].Receiver)
			if got.Code != want.Code || got.Body.String() != want.Body.String() || want.Code/100 == 2 {
				t.Errorf("answered %d %s, by one node %d %s", got.Code, got.Body, want.Code, want.Body)
			}
		})
	}
	for _, x := range nodes {
		x.Holds()
	}
}

// Members whose bounds of requests are lower, as in a rolling reload, take what one let in.
func TestLowerBoundsAtOthers(t *testing.T) {
	writetest.Both(t, func(t *testing.T, p wire.Protocol) {
		nodes := newNodes(t, 3, 2, Options{Acks: 2, Timeout: time.Minute}, remotewrite.Options{}, mcache.Options{})
		for _, x := range nodes[1:] {
			x.handler.SetLimits(remotewrite.Options{MaxSamples: 5, MaxDecodedBytes: 1 << 10})
		}
		var want []writetest.Series
		for range 3 { // from the second on they are packed
			all := metrics(200, len(want))
			want = append(want, all...)
			writetest.Answered(t, nodes[0].Send(p, writetest.Encode(t, p, all...)), http.StatusNoContent, "")
		}
		writetest.Answered(t, nodes[1].Send(p, writetest.Encode(t, p, metrics(6, 0)...)), http.StatusRequestEntityTooLarge, "more than 5 samples")
		nodes[0].router.Close(t.Context())
		have := copiesOf(nodes, "default")
		for _, line := range linesOf(want) {
			if have[line] != 2 {
				t.Fatalf("%s has %d copies", line, have[line])
			}
		}
	})
}

// What says that it comes from a node, and does not prove it, changes nothing.
func TestForgedHeader(t *testing.T) {
	nodes := newNodes(t, 3, 2, Options{}, remotewrite.Options{}, mcache.Options{})
	plain := writetest.Encode(t, wire.V2, metrics(10, 0)...)
	bundle := wire.AppendBundle(nil)
	bundle = append(wire.AppendPartHead(bundle, wire.Part{Protocol: wire.V2, Bucket: "default", Body: plain}), plain...)
	for _, c := range []struct {
		contentType, encoding string
		body                  []byte
	}{{wire.ContentTypeV2, "snappy", snappy.Encode(nil, plain)}, {wire.ContentTypeBundle, "identity", bundle}} {
		req := httptest.NewRequest("POST", "/api/v1/write", bytes.NewReader(c.body))
		req.Header.Set("Content-Type", c.contentType)
		req.Header.Set("Content-Encoding", c.encoding)
		req.Header.Set(testHeader, "secret 1")
		w := httptest.NewRecorder()
		nodes[0].To.ServeHTTP(w, req)
		writetest.Answered(t, w, http.StatusForbidden, errForged.Error())
	}
	for _, x := range nodes {
		x.Holds()
	}
	if n := nodes[0].router.Stats().Forged; n != 2 {
		t.Errorf("%d forged", n)
	}
}

// One hop: what a node gets from another it keeps, though its own table says
// that it is not its own.
func TestWhatComesFromANodeIsNeverRoutedAgain(t *testing.T) {
	nodes := newNodes(t, 3, 1, Options{Timeout: time.Minute}, remotewrite.Options{}, mcache.Options{})
	stranger := *nodes[1].cluster.table.(*table)
	stranger.orders = [][]uint16{{2, 0, 1}} // all belongs to the third
	nodes[1].cluster.table = &stranger
	all := metrics(100, 0)
	writetest.Answered(t, nodes[0].Send(wire.V1, writetest.Encode(t, wire.V1, all...)), http.StatusNoContent, "")
	n := 0
	for _, s := range all {
		if nodes[0].owners(s.Labels)[0] == 1 {
			n++
		}
	}
	if got := len(nodes[1].Contents("default")); got != n || n == 0 {
		t.Errorf("it holds %d series, not %d", got, n)
	}
	if nodes[1].router.Stats().Requests != 0 {
		t.Error("it sent some on")
	}
}

// Exemplars, histograms, metadata and start times come along, and tenants keep
// what is theirs.
func TestAllThatARequestHoldsIsRouted(t *testing.T) {
	writetest.Both(t, func(t *testing.T, p wire.Protocol) {
		nodes := newNodes(t, 4, 2, Options{Acks: 2, Timeout: time.Minute}, remotewrite.Options{TenancyHeader: "X-Scope-Orgid"}, mcache.Options{})
		req := httptest.NewRequest("POST", "/api/v1/write", bytes.NewReader(snappy.Encode(nil, full(t, p))))
		req.Header.Set("Content-Type", writetest.ContentType(p))
		req.Header.Set("X-Scope-Orgid", "tenant")
		w := httptest.NewRecorder()
		nodes[0].To.ServeHTTP(w, req)
		if p == wire.V1 {
			writetest.Answered(t, w, http.StatusNoContent, "")
		} else { // it has a series without samples
			writetest.Answered(t, w, http.StatusBadRequest, "all 2 samples were written, but: a series without samples")
			writetest.Wrote(t, w, 1, 1, 1)
		}
		series, exemplars, metadata, starts := 0, 0, 0, 0
		for _, x := range nodes {
			x.Holds()
			for _, line := range x.Contents("tenant") {
				series++
				if !strings.Contains(line, ":record:") {
					t.Errorf("no histogram: %s", line)
				}
				if strings.Contains(line, "(since ") {
					starts++
				}
			}
			exemplars += len(x.handler.Exemplars("tenant", 0, writetest.Now.UnixMilli()+1, func([]mcache.Label) bool { return true }))
			if _, ok := x.handler.Describe("tenant", "full"); ok {
				metadata++
			}
		}
		if p == wire.V1 && metadata == 3 {
			metadata-- // the node that it came to keeps it in any case
		}
		if series != 2 || exemplars != 2 || metadata != 2 || starts != 2*int(p-wire.V1) {
			t.Errorf("%d series, %d with exemplars, %d with metadata, %d with start times: not 2 of each", series, exemplars, metadata, starts)
		}
	})
}
