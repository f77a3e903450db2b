package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// clusterSeries is how many series a round has: each with one sample.
const clusterSeries = 500

// clusterRound is what writers send: series of one writer, one sample each, at
// a time of its own. From 1 on the value tells writer, round and series.
func clusterRound(writer, round int, start int64) (all []prompb.TimeSeries) {
	for i := range clusterSeries {
		all = append(all, oneSeries(start+int64(round)*1000, float64(writer*1_000_000_000+round*10_000+i),
			"__name__", "cluster_write", "instance", fmt.Sprint(i%50), "job", "test", "series", fmt.Sprint(i), "writer", fmt.Sprint(writer)))
	}
	return all
}

// encodeV2 is a request of protocol 2.0 with the series.
func encodeV2(t testing.TB, all []prompb.TimeSeries) []byte {
	t.Helper()
	symbols := writev2.NewSymbolTable()
	var r writev2.Request
	for _, s := range all {
		var ts writev2.TimeSeries
		for _, l := range s.Labels {
			ts.LabelsRefs = append(ts.LabelsRefs, symbols.Symbolize(l.Name), symbols.Symbolize(l.Value))
		}
		for _, x := range s.Samples {
			ts.Samples = append(ts.Samples, writev2.Sample{Timestamp: x.Timestamp, Value: x.Value})
		}
		r.Timeseries = append(r.Timeseries, ts)
	}
	r.Symbols = symbols.Symbols()
	b, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// postRound sends a round by protocol 1.0, or 2.0 if round is odd.
func postRound(ctx context.Context, t testing.TB, s *server, writer, round int, start int64) (code int, said string, err error) {
	all := clusterRound(writer, round, start)
	if round%2 == 0 {
		return s.post(ctx, snappy.Encode(nil, body(t, all...)))
	}
	return s.post(ctx, snappy.Encode(nil, encodeV2(t, all)), "Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request")
}

// checkRounds fails unless the members hold together each sample of the first
// rounds of a writer, and none with another value.
func checkRounds(t testing.TB, members []*server, writer, rounds int, start int64) {
	t.Helper()
	have := make(map[string]map[int64]float64) // series, time, value
	for _, s := range members {
		for series, samples := range readSamples(t, s, "cluster_write", fmt.Sprint(writer), start) {
			if have[series] == nil {
				have[series] = samples
				continue
			}
			for at, v := range samples {
				if was, ok := have[series][at]; ok && was != v {
					t.Fatalf("series %s has at %d both %v and %v", series, at, was, v)
				}
				have[series][at] = v
			}
		}
	}
	missing := 0
	for round := range rounds {
		for i := range clusterSeries {
			at := start + int64(round)*1000
			if v, ok := have[fmt.Sprint(i)][at]; !ok || v != float64(writer*1_000_000_000+round*10_000+i) {
				if missing++; missing == 1 {
					t.Errorf("writer %d, round %d, series %d: %v, %v", writer, round, i, v, ok)
				}
			}
		}
	}
	if missing > 0 {
		t.Errorf("%d of %d acknowledged samples of writer %d are missing", missing, rounds*clusterSeries, writer)
	}
}

// readSamples is what a server answers to a remote read for one writer, by the
// label series.
func readSamples(t testing.TB, s *server, name, writer string, start int64) map[string]map[int64]float64 {
	t.Helper()
	match := func(name, value string) *prompb.LabelMatcher {
		return &prompb.LabelMatcher{Type: prompb.LabelMatcher_EQ, Name: name, Value: value}
	}
	request, err := (&prompb.ReadRequest{Queries: []*prompb.Query{{StartTimestampMs: start, EndTimestampMs: start + int64(time.Hour/time.Millisecond),
		Matchers: []*prompb.LabelMatcher{match("__name__", name), match("writer", writer)}}}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.Post(s.url+"/api/v1/read", "application/x-protobuf", bytes.NewReader(snappy.Encode(nil, request)))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	packed, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("remote read: %s %q, %v", res.Status, packed, err)
	}
	var answer prompb.ReadResponse
	plain, err := snappy.Decode(nil, packed)
	if err == nil {
		err = answer.Unmarshal(plain)
	}
	if err != nil {
		t.Fatal(err)
	}
	have := make(map[string]map[int64]float64)
	for _, ts := range answer.Results[0].Timeseries {
		for _, l := range ts.Labels {
			if l.Name == "series" {
				have[l.Value] = make(map[int64]float64)
				for _, x := range ts.Samples {
					have[l.Value][x.Timestamp] = x.Value
				}
			}
		}
	}
	return have
}

// conserved fails unless what a member was given is what it holds and what has left it.
func conserved(t testing.TB, s *server) {
	t.Helper()
	// One number is read after the other, and other members may hand on meanwhile.
	eventually(t, s.url+" holds what it was given", func() error {
		in, held, left := s.metric("mcached_series_samples_inserted_total"), 0.0, 0.0
		for _, generation := range []string{"1", "2", "3", "overflow"} {
			held += s.metric(`mcached_series_points{generation="` + generation + `"}`)
		}
		for _, how := range []string{"evicted", "taken", "popped", "removed", "erased", "reclaimed"} {
			left += s.metric(`mcached_series_samples_left_total{how="` + how + `"}`)
		}
		if left != 0 {
			t.Fatalf("%s: %v samples have left", s.url, left)
		}
		if in != held {
			return fmt.Errorf("given %v, held %v", in, held)
		}
		return nil
	})
}

// Each sample is on as many members as there are copies, whichever of them it
// came to, and no member has any twice.
func TestClusterWrites(t *testing.T) {
	t.Parallel()
	const rounds = 40
	g := startCluster(t, 3, "--cluster.write-acks=2", "--cluster.key-file="+keyFile(t))
	start := time.Now().UnixMilli() - rounds*1000
	for round := range rounds {
		for writer, s := range g.members {
			eventually(t, "a round is written", func() error { // two members may be slow at a time, on a busy machine
				code, said, err := postRound(t.Context(), t, s, writer, round, start)
				if err != nil || code != http.StatusNoContent && code != http.StatusServiceUnavailable {
					t.Fatalf("round %d at %s: %d %s, %v", round, s.url, code, said, err)
				}
				if code != http.StatusNoContent {
					return errors.New(said)
				}
				return nil
			})
		}
	}
	const sent = 3 * rounds * clusterSeries
	eventually(t, "all copies have come", func() error {
		stored, short := 0.0, 0.0
		for _, s := range g.members {
			stored += s.metric("mcached_series_samples_inserted_total")
			// A member that was slow was passed over: there may be a third copy.
			short += s.metric("mcached_cluster_write_rerouted_series_total") - s.metric("mcached_cluster_write_few_copies_series_total")
		}
		if stored < 2*sent || stored > 2*sent+short {
			return fmt.Errorf("%v samples are stored, of %d sent and %v on other ways", stored, sent, short)
		}
		return nil
	})
	for writer, s := range g.members {
		conserved(t, s)
		for _, reader := range g.members { // each of them alone
			checkRounds(t, []*server{reader}, writer, rounds, start)
		}
	}

	// What claims to come from a member changes nothing.
	for _, claim := range []string{"", "1 x", fmt.Sprintf("%d %s", time.Now().UnixMilli(), strings.Repeat("A", 43))} {
		code, said, err := g.members[0].post(t.Context(), snappy.Encode(nil, body(t, oneSeries(start, 1, "__name__", "forged"))), "X-Mcached-Cluster", claim)
		if err != nil || code != http.StatusForbidden {
			t.Errorf("a forged header is answered %d %s, %v", code, said, err)
		}
	}
	for _, s := range g.members {
		if got, err := s.instant("count(forged)"); err != nil || len(got) > 0 {
			t.Errorf("%v, %v", got, err)
		}
	}
}

// Writers notice nothing of a member that is killed, and of one that stands
// still: every write is acknowledged at once, and every sample is there.
func TestClusterWritesGoOn(t *testing.T) {
	t.Parallel()
	g := startCluster(t, 3, "--cluster.key-file="+keyFile(t))
	start := time.Now().UnixMilli() - 1_000_000
	const writers = 2
	to := g.members[0] // the list of them changes below
	var rounds [writers]atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for round := 0; ctx.Err() == nil; round++ {
				code, said, err := postRound(context.WithoutCancel(ctx), t, to, w, round, start)
				if err != nil || code != http.StatusNoContent {
					t.Errorf("writer %d, round %d: %d %s, %v", w, round, code, said, err)
					return
				}
				rounds[w].Store(int64(round) + 1)
				time.Sleep(5 * time.Millisecond) // the machine is shared
			}
		})
	}
	more(t, "rounds with all members", &rounds[0], 20)
	kill(g.members[1])
	more(t, "rounds with one killed", &rounds[0], 40)
	g.wait("n0", "n2")
	g.start("n1")
	g.wait("n0", "n1", "n2")
	more(t, "rounds with one that is new", &rounds[0], 20)
	stopped := g.members[2].cmd.Process
	if err := stopped.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	more(t, "rounds with one that stands still", &rounds[0], 40)
	if err := stopped.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	more(t, "rounds with all again", &rounds[0], 20)
	cancel()
	wg.Wait()
	g.wait("n0", "n1", "n2")
	if g.members[0].metric("mcached_cluster_write_rerouted_series_total") == 0 {
		t.Error("nothing was rerouted: no test")
	}
	for w := range writers {
		checkRounds(t, g.running(), w, int(rounds[w].Load()), start)
	}
	for _, s := range g.running() {
		conserved(t, s)
	}
}

// kill ends a process as a crash does.
func kill(s *server) {
	_ = s.cmd.Process.Kill()
	<-s.exited
}
