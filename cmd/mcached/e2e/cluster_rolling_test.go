package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

// handedOver waits until a member has been handed over all of the slots that it owns.
func handedOver(t testing.TB, s *server) {
	t.Helper()
	eventually(t, "the member is handed over what it owns", func() error {
		if has, owns := s.metric("mcached_cluster_handover_claimed_slots"), s.metric(`mcached_cluster_slots{of="series"}`); has < owns {
			return fmt.Errorf("%v slots of %v", has, owns)
		}
		return nil
	})
}

// countOf asks for how many samples of a writer's rounds there are, and for what
// the answer warns of.
func countOf(s *server, writer, rounds int, start int64) (n int, warnings []string, err error) {
	res, err := http.Get(s.url + "/api/v1/query?" + url.Values{
		"query": {fmt.Sprintf(`sum(count_over_time(cluster_write{writer="%d"}[%ds]))`, writer, rounds)},
		"time":  {strconv.FormatFloat(float64(start)/1000+float64(rounds)-0.5, 'f', 3, 64)},
	}.Encode())
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, nil, err
	}
	var a struct {
		Warnings []string
		Data     struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := json.Unmarshal(body, &a); err != nil || res.StatusCode != http.StatusOK {
		return 0, nil, fmt.Errorf("%s %s, %v", res.Status, body, err)
	}
	if len(a.Data.Result) == 1 {
		n, err = strconv.Atoi(a.Data.Result[0].Value[1].(string))
	}
	return n, a.Warnings, err
}

// One member after the other is restarted, without a snapshot, while writers write
// and readers read: nothing is missing, and no answer is incomplete, though of the
// two owners of some series none has been there since the beginning.
func TestClusterRollingRestart(t *testing.T) {
	t.Parallel()
	const before = 10
	const members, restarts = 3, 2
	g := startCluster(t, members, "--cluster.write-acks=2", "--shutdown.timeout=60s", "--cluster.read-timeout=20s")
	start := time.Now().UnixMilli() + 4000 // when the eras with fewer members are over, with what may come late
	g.spread(1, before, start)

	var stopping atomic.Pointer[server] // is not asked
	stopping.Store(&server{})
	reader, done := make(chan struct{}), make(chan struct{})
	serving := atomic.Pointer[[]*server]{}
	tell := func() { all := g.running(); serving.Store(&all) }
	tell()
	answers := 0
	go func() {
		defer close(done)
		for {
			select {
			case <-reader:
				return
			case <-time.After(20 * time.Millisecond):
			}
			for _, s := range *serving.Load() {
				if s == stopping.Load() {
					continue
				}
				n, warnings, err := countOf(s, 1, before, start)
				if s == stopping.Load() || !slices.Contains(*serving.Load(), s) {
					continue // it was stopped meanwhile
				}
				if err != nil || len(warnings) > 0 || n != before*clusterSeries {
					t.Errorf("%s answers %d of %d, %v, %v", s.url, n, before*clusterSeries, warnings, err)
					return
				}
				answers++
			}
		}
	}()
	stop := func(i int) {
		s := g.members[i]
		stopping.Store(s)
		if code := s.stop(); code != exitOK {
			t.Error("exit code", code)
		}
		tell()
	}
	names := []string{"n0", "n1", "n2"}
	round := 0
	write := func() { // to whoever is there
		t.Helper()
		for _, s := range g.running() {
			eventually(t, "a round is written", func() error { // at once, but on a busy machine
				code, said, err := postRound(t.Context(), t, s, 2, round, start)
				if err != nil || code != http.StatusNoContent {
					return fmt.Errorf("%d %s, %v", code, said, err)
				}
				return nil
			})
			round++
		}
	}
	for i := range restarts {
		stop(i)
		write()
		s := g.start(names[i])
		g.wait(names...)
		write()
		handedOver(t, s)
		tell()
	}
	close(reader)
	<-done
	if answers == 0 {
		t.Error("nothing was asked: no test")
	}
	checkRounds(t, g.running(), 1, before, start)
	checkRounds(t, g.running(), 2, round, start)
}
