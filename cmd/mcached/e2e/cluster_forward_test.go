package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// counter is a receiver that counts how often each point comes.
type counter struct {
	book
	t  testing.TB
	mu sync.Mutex
	// away says that nothing is taken.
	away  bool
	taken int // points, however often each
	url   string
}

func newCounter(t testing.TB) *counter {
	c := &counter{t: t}
	s := httptest.NewServer(c)
	t.Cleanup(s.Close)
	c.url = s.URL
	return c
}

func (c *counter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away {
		http.Error(w, "away", http.StatusServiceUnavailable)
		return
	}
	n, _, err := c.addRequest(r.Header.Get("Content-Type"), body, nil)
	if err != nil {
		c.t.Error(err)
	}
	c.taken += n
	w.Header().Set("X-Prometheus-Remote-Write-Samples-Written", fmt.Sprint(n))
	w.Header().Set("X-Prometheus-Remote-Write-Histograms-Written", "0")
	w.Header().Set("X-Prometheus-Remote-Write-Exemplars-Written", "0")
	w.WriteHeader(http.StatusNoContent)
}

func (c *counter) setAway(is bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = is
}

// has waits until all rounds of a writer have come.
func (c *counter) has(writer, rounds int, start int64) {
	c.t.Helper()
	want := new(book)
	for round := range rounds {
		for _, s := range clusterRound(writer, round, start) {
			key := ""
			for _, l := range s.Labels {
				key += l.Name + "=" + l.Value + ","
			}
			want.add(key, s.Samples[0].Timestamp, bits(s.Samples[0].Value))
		}
	}
	eventually(c.t, "the store has everything", func() error {
		if n := want.missing(&c.book, nil); n > 0 {
			return fmt.Errorf("%d of %d samples are missing", n, want.len())
		}
		return nil
	})
}

func (c *counter) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.taken
}

// sum is that of a metric of all running members.
func (g *group) sum(metric string) (n float64) {
	for _, s := range g.running() {
		n += s.metric(metric)
	}
	return n
}

// spread writes rounds to the running members in turn.
func (g *group) spread(writer, rounds int, start int64) {
	g.t.Helper()
	all := g.running()
	for round := range rounds {
		eventually(g.t, "a round is written", func() error {
			code, said, err := postRound(g.t.Context(), g.t, all[round%len(all)], writer, round, start)
			if err != nil || code != http.StatusNoContent {
				return fmt.Errorf("%d %s, %v", code, said, err)
			}
			return nil
		})
	}
}

// rested waits until no member has anything to forward, or keeps anything for
// another to forward.
func (g *group) rested() {
	g.t.Helper()
	eventually(g.t, "nothing waits for the store", func() error {
		if n := g.sum("mcached_forward_dirty_samples"); n > 0 {
			return fmt.Errorf("%v samples wait, %v of them on standby", n, g.sum("mcached_forward_standby_samples"))
		}
		return nil
	})
}

const reroutedSeries = "mcached_cluster_write_rerouted_series_total"

// Each sample goes to the store once, though two members hold it; also what was
// written while the store was away. Only where a member was too slow to take a
// write may it come twice, and that is then tried again.
func TestClusterForwardsOnce(t *testing.T) {
	t.Parallel()
	const rounds = 12
	store := newCounter(t)
	g := startCluster(t, 3, "--forward.url="+store.url, "--forward.max-dirty-age=1s")
	for writer := 1; ; writer++ {
		start := time.Now().UnixMilli() - rounds*1000
		disturbed := func() float64 { return g.sum(reroutedSeries) + g.sum("mcached_cluster_handover_samples_total") }
		before, taken := disturbed(), store.count()
		g.spread(writer, rounds/2, start)
		store.has(writer, rounds/2, start)
		store.setAway(true)
		g.spread(writer, rounds, start) // the first half once more, which is new to no one but the ledgers
		store.setAway(false)
		store.has(writer, rounds, start)
		g.rested()
		if disturbed() > before && writer < 5 {
			continue // the machine is busy, or members have just met
		}
		if n, want := store.count()-taken, (rounds+rounds/2)*clusterSeries; n != want {
			t.Errorf("the store got %d samples, want %d", n, want)
		}
		break
	}
	if g.sum(`mcached_forward_standby_samples_total{how="released"}`) == 0 || g.sum(`mcached_forward_standby_samples_total{how="promoted"}`) != 0 {
		t.Error("nothing was on standby, or it was taken over: no test")
	}
}

// What a member had to forward when it was killed is forwarded by another, which
// held it on standby. It stays dead.
func TestClusterForwardsWhatTheDeadDidNot(t *testing.T) {
	t.Parallel()
	const rounds = 12
	store := newCounter(t)
	g := startCluster(t, 3, "--forward.url="+store.url, "--forward.max-dirty-age=1s", "--cluster.write-acks=2")
	start := time.Now().UnixMilli() - rounds*1000
	store.setAway(true)
	g.spread(1, rounds, start)
	kill(g.members[1])
	g.wait("n0", "n2")
	store.setAway(false)
	store.has(1, rounds, start)
	g.rested()
	if g.sum(`mcached_forward_standby_samples_total{how="promoted"}`) == 0 {
		t.Error("nothing was taken over: no test")
	}
}
