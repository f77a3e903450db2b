package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"
)

// writeRounds writes rounds through a member, each until it is acknowledged.
func writeRounds(t testing.TB, s *server, writer, rounds int, start int64) {
	t.Helper()
	for round := range rounds {
		eventually(t, "a round is written", func() error {
			code, said, err := postRound(t.Context(), t, s, writer, round, start)
			if err != nil || code != http.StatusNoContent {
				return fmt.Errorf("%d %s, %v", code, said, err)
			}
			return nil
		})
	}
}

// awaitRound returns when it is the time of a round: samples are never ahead of the
// clock.
func awaitRound(start int64, round int) {
	time.Sleep(time.Until(time.UnixMilli(start + int64(round)*1000)))
}

// What a member had that was killed has two copies again, so that the next one
// may die as well: in the end the last has all alone.
func TestClusterRepair(t *testing.T) {
	t.Parallel()
	const rounds = 20
	g := startCluster(t, 3, "--cluster.write-acks=2")
	start := time.Now().UnixMilli() - rounds*1000
	writeRounds(t, g.members[0], 1, rounds, start)
	kill(g.members[1])
	g.wait("n0", "n2")
	for _, i := range []int{0, 2} {
		s := g.members[i]
		eventually(t, "each of the others has all", func() error {
			if n := s.metric("mcached_series_samples_inserted_total"); n != rounds*clusterSeries {
				return fmt.Errorf("%s has %v samples of %d", s.url, n, rounds*clusterSeries)
			}
			return nil
		})
	}
	if n := g.members[0].metric("mcached_cluster_handover_samples_total") + g.members[2].metric("mcached_cluster_handover_samples_total"); n == 0 {
		t.Error("nothing was handed over: no test")
	}
	kill(g.members[0])
	checkRounds(t, g.members[2:], 1, rounds, start)
	conserved(t, g.members[2])
}

// With a single copy a member that leaves gives what it has to those who stay,
// before it ends; and one that joins gets what it owns.
func TestClusterDrain(t *testing.T) {
	t.Parallel()
	const rounds = 60 // what is in blocks, and what is not
	g := startCluster(t, 3, "--cluster.copies=1", "--shutdown.timeout=60s")
	start := time.Now().UnixMilli() - rounds*1000
	writeRounds(t, g.members[0], 1, rounds, start)
	if n := g.members[2].metric("mcached_series_samples_inserted_total"); n == 0 {
		t.Fatal("it has nothing: no test")
	}
	if code := g.members[2].stop(); code != exitOK {
		t.Error("exit code", code)
	}
	checkRounds(t, g.members[:2], 1, rounds, start)

	joined := g.start("n3")
	g.wait("n0", "n1", "n3")
	eventually(t, "the new member gets what it owns", func() error {
		v, err := joined.cluster()
		if err != nil {
			return err
		}
		for _, m := range v.Members {
			// Slots are many, series few: a quarter of what it owns will do.
			if n := joined.metric("mcached_series_samples_inserted_total"); m.Self && n < m.Share/4*rounds*clusterSeries {
				return fmt.Errorf("it has %v samples, and owns %.2f of %d", n, m.Share, rounds*clusterSeries)
			}
		}
		return nil
	})
	for _, s := range g.running() {
		conserved(t, s)
	}
}

// With three copies two members may die at once.
func TestClusterThreeCopies(t *testing.T) {
	t.Parallel()
	const rounds = 10
	g := startCluster(t, 3, "--cluster.copies=3", "--cluster.write-acks=3", "--cluster.handover=0")
	start := time.Now().UnixMilli() - rounds*1000
	writeRounds(t, g.members[0], 1, rounds, start)
	kill(g.members[0])
	kill(g.members[1])
	checkRounds(t, g.members[2:], 1, rounds, start)
}

// Of five members with two copies two are killed at once: what only these two had is
// missing, one series in ten, and answers say so. The rest is all there.
func TestClusterTwoOfFive(t *testing.T) {
	t.Parallel()
	const rounds = 4
	g := startCluster(t, 5, "--cluster.write-acks=2")
	start := time.Now().UnixMilli() + 1000
	awaitRound(start, rounds) // answers about what is to come would not warn
	writeRounds(t, g.members[0], 1, rounds, start)
	for _, s := range g.members {
		if err := wholeAt(s, 1, rounds, start); err != nil {
			t.Error(err)
		}
	}
	for _, i := range []int{1, 3} { // both before anybody can hand over what the other had
		_ = g.members[i].cmd.Process.Kill()
	}
	for _, i := range []int{1, 3} {
		<-g.members[i].exited
	}
	look := func(when string) {
		t.Helper()
		for _, s := range g.running() {
			n, warnings, err := countOf(s, 1, rounds, start)
			if lost := rounds*clusterSeries - n; err != nil || len(warnings) == 0 || n%rounds != 0 || lost < rounds*clusterSeries/50 || lost > rounds*clusterSeries/4 {
				t.Errorf("%s %s answers %d of %d, %v, %v", when, s.url, n, rounds*clusterSeries, warnings, err)
			}
			for series, samples := range readSamples(t, s, "cluster_write", "1", start) {
				if len(samples) != rounds {
					t.Errorf("%s %s has %d of %d samples of series %s", when, s.url, len(samples), rounds, series)
				}
			}
		}
	}
	look("at once")
	g.wait("n0", "n2", "n4")
	look("when gossip has dropped them")
}

// A member that stood still, and was passed over, is sent what it missed, and may be
// the last that is left.
func TestClusterMissed(t *testing.T) {
	t.Parallel()
	const rounds = 10
	g := startCluster(t, 3, "--cluster.copies=3")
	start := time.Now().UnixMilli() - rounds*1000
	still := g.members[1]
	if err := still.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	writeRounds(t, g.members[0], 1, rounds, start)
	eventually(t, "it misses something", func() error {
		if n := g.members[0].metric("mcached_cluster_write_few_copies_series_total"); n == 0 {
			return errors.New("no series has fewer copies")
		}
		return nil
	})
	if err := still.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is sent what it missed", func() error {
		if n := still.metric("mcached_series_samples_inserted_total"); n < rounds*clusterSeries {
			return fmt.Errorf("it has %v of %d samples", n, rounds*clusterSeries)
		}
		return nil
	})
	kill(g.members[0])
	kill(g.members[2])
	checkRounds(t, []*server{still}, 1, rounds, start)
}
