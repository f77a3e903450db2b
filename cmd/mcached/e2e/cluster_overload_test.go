package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// A member of tiny memory, whose store takes nothing, is soon full of what it may
// not lose, and answers 503. Writers at every member notice nothing, what waits for
// it and the memory of all stay within their bounds, no sample is missing, and when
// its store takes samples again, so does it.
func TestClusterOverloadedMember(t *testing.T) {
	t.Parallel()
	const (
		memory, tiny, heap = 64 << 20, 16 << 20, 128 << 20
		refusedRounds      = 100 // that are written once it takes nothing
		// What waits for a member is at most an eighth of what may be in hand at a
		// time, which is half of the heap's limit; each member has two others.
		mostWaiting = 2 * heap / 2 / 8
	)
	store, full := newCounter(t), newCounter(t)
	full.setAway(true)
	g := startCluster(t, 0, fmt.Sprintf("--memory.heap-limit=%d", heap), "--forward.max-dirty-age=1s", "--cluster.handover=0s")
	for _, name := range []string{"n0", "n1"} {
		g.start(name, fmt.Sprintf("--memory.size=%d", memory), "--forward.url="+store.url)
	}
	n2 := g.start("n2", fmt.Sprintf("--memory.size=%d", tiny), "--forward.url="+full.url, "--forward.max-dirty-size=1MiB")
	g.wait("n0", "n1", "n2")

	start := time.Now().UnixMilli() - 1_000_000
	rounds := 0
	round := func() {
		t.Helper()
		for writer, s := range g.members {
			for code := 0; code != http.StatusNoContent; {
				var said string
				var err error
				code, said, err = postRound(t.Context(), t, s, writer, rounds, start)
				// On a busy machine both others may be slow at a time, and that one takes nothing itself.
				if again := s == n2 && code == http.StatusServiceUnavailable; err != nil || code != http.StatusNoContent && !again {
					t.Fatalf("writer %d, round %d: %d %s, %v", writer, rounds, code, said, err)
				}
			}
			if n := s.metric("mcached_cluster_write_outbox_bytes"); n > mostWaiting {
				t.Fatalf("%v bytes wait for others at %s, more than %d", n, s.url, mostWaiting)
			}
		}
		rounds++
	}
	refused := func() float64 { return g.sum(`mcached_cluster_write_failures_total{reason="refused"}`) }
	eventually(t, "the member is full and refuses", func() error {
		if round(); refused() == 0 {
			return fmt.Errorf("it refused nothing in %d rounds", rounds)
		}
		return nil
	})
	before := rounds
	for rounds < before+refusedRounds {
		round()
	}
	if n := g.members[0].metric("mcached_cluster_passed_over_total"); n == 0 {
		t.Error("the member is never passed over: each write asks it in vain")
	}
	if g.sum(reroutedSeries) == 0 {
		t.Error("nothing was rerouted: no test")
	}
	for i, s := range g.members {
		most := int64(memory)
		if s == n2 {
			most = tiny
		}
		if rss := s.peakRSS(); rss > most+heap+attackOverhead {
			t.Errorf("member %d took %d MiB, more than %d of memory, %d of heap and %d for the rest", i, rss>>20, most>>20, heap>>20, attackOverhead>>20)
		}
	}
	had := n2.metric("mcached_series_samples_inserted_total")
	full.setAway(false)
	eventually(t, "the member takes samples again", func() error {
		if round(); n2.metric("mcached_series_samples_inserted_total") < had+clusterSeries {
			return fmt.Errorf("none since its store does")
		}
		return nil
	})
	for writer := range g.members {
		checkRounds(t, g.members[:2], writer, rounds, start)
	}
}
