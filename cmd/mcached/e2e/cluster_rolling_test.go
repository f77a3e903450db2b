package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// handedOver checks that a member, which is ready, was handed over all of the slots
// that it owns.
func handedOver(t testing.TB, s *server) {
	t.Helper()
	if has, owns := s.metric("mcached_cluster_handover_claimed_slots"), s.metric(`mcached_cluster_slots{of="series"}`); has < owns {
		t.Errorf("%s is ready, and was handed over %v slots of the %v that it owns", s.url, has, owns)
	}
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

// changing is a cluster of which members come and go, while writers write to all
// that serve and readers ask all that serve. Nothing may be missing, no write be
// refused, and no answer be incomplete.
type changing struct {
	*group
	start  int64 // of the first round
	round  int   // of writer 2, which writes throughout
	wrote  atomic.Int64
	asked  atomic.Int64
	serves atomic.Pointer[[]*server] // who is written to and asked
}

// roundsBefore are those that writer 1 has written before anything changes.
const roundsBefore = 3

// startChanging returns when writers write and readers read. What it returns ends them.
func startChanging(t *testing.T, members int, flags ...string) (c *changing, end func()) {
	c = &changing{group: startCluster(t, members, append(flags, "--shutdown.timeout=60s", "--cluster.key-file="+keyFile(t))...)}
	c.serve(c.members...)
	c.start = time.Now().UnixMilli() + 1000 // queries are about no time before the cluster was there
	for round := range roundsBefore {
		awaitRound(c.start, round)
		code, said, err := postRound(t.Context(), t, c.members[round%members], 1, round, c.start)
		if err != nil || code != http.StatusNoContent {
			t.Fatalf("round %d: %d %s, %v", round, code, said, err)
		}
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; !ended(done); i++ {
			all := *c.serves.Load()
			s := all[i%len(all)]
			n, warnings, err := countOf(s, 1, roundsBefore, c.start)
			if !slices.Contains(*c.serves.Load(), s) {
				continue // it was stopped meanwhile
			}
			if err != nil || len(warnings) > 0 || n != roundsBefore*clusterSeries {
				t.Errorf("%s answers %d of %d, %v, %v", s.url, n, roundsBefore*clusterSeries, warnings, err)
				return
			}
			c.asked.Add(1)
			time.Sleep(20 * time.Millisecond) // the machine is shared
		}
	})
	wg.Go(func() {
		for ; !ended(done); c.round++ {
			all := *c.serves.Load()
			s := all[c.round%len(all)]
			code, said, err := postRound(t.Context(), t, s, 2, c.round, c.start)
			if err != nil || code != http.StatusNoContent {
				t.Errorf("round %d at %s: %d %s, %v", c.round, s.url, code, said, err)
				return
			}
			c.wrote.Add(1)
			awaitRound(c.start, c.round+1)
		}
	})
	return c, func() {
		close(done)
		wg.Wait()
	}
}

func ended(done chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// serve says who is written to and asked, as a load balancer would. It returns when
// nobody is that is not among them.
func (c *changing) serve(members ...*server) { c.serves.Store(&members) }

// leave stops a member.
func (c *changing) leave(i int) {
	c.t.Helper()
	s := c.members[i]
	c.serve(slices.DeleteFunc(c.running(), func(o *server) bool { return o == s })...)
	c.meanwhile()
	if code := s.stop(); code != exitOK {
		c.t.Error("exit code", code)
	}
}

// join starts a member and returns when it, and all others, have been handed over
// what they own.
func (c *changing) join(name string, names ...string) {
	c.t.Helper()
	handedOver(c.t, c.group.start(name))
	c.wait(names...)
	c.serve(c.running()...)
}

// meanwhile returns when something was written and something was read.
func (c *changing) meanwhile() {
	c.t.Helper()
	wrote, asked := c.wrote.Load(), c.asked.Load()
	eventually(c.t, "writers write and readers read", func() error {
		if c.wrote.Load() < wrote+2 || c.asked.Load() < asked+2 {
			return fmt.Errorf("%d rounds, %d answers", c.wrote.Load(), c.asked.Load())
		}
		return nil
	})
}

// check is for the end: all that was written is there.
func (c *changing) check() {
	c.t.Helper()
	for _, s := range c.running() {
		n, warnings, err := countOf(s, 1, roundsBefore, c.start)
		if err != nil || len(warnings) > 0 || n != roundsBefore*clusterSeries {
			c.t.Errorf("%s answers %d of %d, %v, %v", s.url, n, roundsBefore*clusterSeries, warnings, err)
		}
		checkRounds(c.t, []*server{s}, 1, roundsBefore, c.start)
		checkRounds(c.t, []*server{s}, 2, c.round, c.start)
	}
}

// Each of five members is restarted, without a snapshot: in the end none is there
// that was at the beginning, and all that was written is.
func TestClusterRollingRestart(t *testing.T) {
	t.Parallel()
	names := []string{"n0", "n1", "n2", "n3", "n4"}
	c, end := startChanging(t, len(names), "--cluster.write-acks=2")
	for i, name := range names {
		c.leave(i)
		c.join(name, names...)
	}
	c.meanwhile()
	end()
	c.check()
}

// A cluster grows from three to five, and shrinks to three again by two of those
// that were there first, one right after the other.
func TestClusterGrowsAndShrinks(t *testing.T) {
	t.Parallel()
	c, end := startChanging(t, 3, "--cluster.write-acks=2")
	c.join("n3", "n0", "n1", "n2", "n3")
	c.join("n4", "n0", "n1", "n2", "n3", "n4")
	c.leave(0)
	c.leave(1)
	c.wait("n2", "n3", "n4")
	c.meanwhile()
	end()
	c.check()
}

// With a single copy, too, nothing is missing when members are restarted: who
// leaves hands over what it has.
func TestClusterRollingRestartOfOneCopy(t *testing.T) {
	t.Parallel()
	names := []string{"n0", "n1", "n2"}
	c, end := startChanging(t, len(names), "--cluster.copies=1")
	for i, name := range names[:2] {
		c.leave(i)
		c.join(name, names...)
	}
	c.meanwhile()
	end()
	c.check()
}
