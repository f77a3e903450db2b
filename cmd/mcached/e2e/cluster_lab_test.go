package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// labWriter writes rounds to a member as time passes, and notes how long each took.
type labWriter struct {
	t      testing.TB
	to     *server
	writer int
	every  time.Duration
	start  int64

	stop chan struct{}
	done chan struct{}

	rounds atomic.Int64
	took   []time.Duration // until done
}

// startLabWriter writes until the writer is ended. None of its writes may fail.
func startLabWriter(t testing.TB, to *server, writer int, start int64, every time.Duration) *labWriter {
	w := &labWriter{t: t, to: to, writer: writer, every: every, start: start, stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for round := 0; !ended(w.stop); round++ {
			began := time.Now()
			code, said, err := postRound(t.Context(), t, to, writer, round, start)
			if err != nil || code != http.StatusNoContent {
				t.Errorf("writer %d, round %d: %d %s, %v", writer, round, code, said, err)
				return
			}
			w.took = append(w.took, time.Since(began))
			w.rounds.Add(1)
			time.Sleep(every - time.Since(began))
		}
	}()
	return w
}

// more returns when so many rounds were written from now on.
func (w *labWriter) more(rounds int) {
	w.t.Helper()
	more(w.t, "the writer goes on", &w.rounds, int64(rounds))
}

// end returns how many rounds were written, and the 99th percentile of what they took.
func (w *labWriter) end() (rounds int, p99 time.Duration) {
	close(w.stop)
	<-w.done
	slices.Sort(w.took)
	if len(w.took) == 0 {
		w.t.Fatal("nothing was written: no test")
	}
	return int(w.rounds.Load()), w.took[len(w.took)*99/100]
}

// wholeAt reports what a member lacks of what a writer wrote.
func wholeAt(s *server, writer, rounds int, start int64) error {
	n, warnings, err := countOf(s, writer, rounds, start)
	if err != nil || n != rounds*clusterSeries || len(warnings) > 0 {
		return fmt.Errorf("%s answers %d of %d, %v, %v", s.url, n, rounds*clusterSeries, warnings, err)
	}
	return nil
}

// The network is cut in two for a while, and both sides are written to. Each takes
// all and never says that it has what it has not. Healed, each member answers for
// all that was written on either side.
func TestClusterCut(t *testing.T) {
	inLab(t, 4, func(l *lab) {
		g := l.cluster()
		start := time.Now().UnixMilli() + 1000 // answers about the time before would warn
		const before = 5
		awaitRound(start, before) // answers about what is to come would not warn
		writeRounds(t, g.members[0], 1, before, start)
		for _, s := range g.members {
			eventually(t, "all is there before the cut", func() error { return wholeAt(s, 1, before, start) })
		}
		const every = time.Second // as the times of rounds
		start2 := time.Now().UnixMilli()
		l.cut(2)
		cut := time.Now()
		left := startLabWriter(t, g.members[0], 2, start2, every)
		right := startLabWriter(t, g.members[3], 3, start2, every)
		warned := 0
		// What is written beyond the cut is missing, also long after the others were given up.
		beyond := func(s *server, w *labWriter) {
			const last = 2
			from := w.rounds.Load() - last
			if from < 0 {
				return
			}
			n, warnings, err := countOf(s, w.writer, last, start2+from*every.Milliseconds())
			if err != nil || n != last*clusterSeries && len(warnings) == 0 {
				t.Errorf("%v after the cut %s answers %d of the last %d of the other side without a warning, %v", time.Since(cut), s.url, n, last*clusterSeries, err)
			}
		}
		lasts := long(12*time.Second, 60*time.Second)
		eventually(t, "the cut has lasted, and answers warned", func() error {
			for _, s := range g.members {
				n, warnings, err := countOf(s, 1, before, start)
				if err != nil || n != before*clusterSeries && len(warnings) == 0 {
					t.Errorf("%s answers %d of %d without a warning, %v", s.url, n, before*clusterSeries, err)
				}
				if len(warnings) > 0 {
					warned++
				}
			}
			beyond(g.members[0], right)
			beyond(g.members[3], left)
			if d := time.Since(cut); d < lasts || warned == 0 {
				return fmt.Errorf("cut for %v, %d answers warned", d, warned)
			}
			return nil
		})
		left.more(1)
		right.more(1)
		wrote := [2]int{}
		wrote[0], _ = left.end()
		wrote[1], _ = right.end()
		lasted := time.Since(cut)
		l.heal()
		healed := time.Now()
		for _, s := range g.members {
			for i, rounds := range wrote {
				eventually(t, "each member answers for both sides", func() error { return wholeAt(s, 2+i, rounds, start2) })
			}
			eventually(t, "and for what was before", func() error { return wholeAt(s, 1, before, start) })
		}
		took := time.Since(healed)
		t.Logf("figure: a cut of %v, %d and %d rounds of %d samples on its sides, whole %v after", lasted.Round(time.Second), wrote[0], wrote[1], clusterSeries, took.Round(100*time.Millisecond))
		if most := long(time.Hour, 12*time.Second); took > most {
			t.Errorf("whole after %v, more than %v", took, most)
		}
		for i, rounds := range wrote {
			checkRounds(t, g.members[1:2], 2+i, rounds, start2)
			checkRounds(t, g.members[2:3], 2+i, rounds, start2)
		}
	})
}

// One member stands still for a while, then another's network is slow and loses
// frames: no write fails, none takes long, nothing is missing in the end.
func TestClusterSlowMember(t *testing.T) {
	inLab(t, 3, func(l *lab) {
		g := l.cluster()
		start := time.Now().UnixMilli() - 3_600_000
		const every, some = 50 * time.Millisecond, 20 // rounds
		const reroutedMetric = "mcached_cluster_write_rerouted_series_total"
		lasts := long(6*time.Second, 20*time.Second)
		for i, c := range []struct {
			what       string
			reroutes   bool
			begin, end func()
		}{
			{"SIGSTOP", true, func() { _ = g.members[1].cmd.Process.Signal(syscall.SIGSTOP) }, func() { _ = g.members[1].cmd.Process.Signal(syscall.SIGCONT) }},
			{"300 ms later, a fifth lost", false, func() { l.ports[2].slow.Store(true) }, func() { l.ports[2].slow.Store(false) }},
		} {
			w := startLabWriter(t, g.members[0], 1+i, start, every)
			w.more(some)
			rerouted := g.members[0].metric(reroutedMetric)
			c.begin()
			time.Sleep(lasts)
			if c.reroutes {
				eventually(t, "what the member owns goes elsewhere", func() error {
					if g.members[0].metric(reroutedMetric) == rerouted {
						return errors.New("nothing is rerouted")
					}
					return nil
				})
			}
			w.more(some)
			c.end()
			w.more(some)
			rounds, p99 := w.end()
			t.Logf("figure: %s for %v: %d rounds of %d samples, p99 %v", c.what, lasts, rounds, clusterSeries, p99.Round(time.Millisecond))
			if most := long(time.Hour, time.Second); p99 > most {
				t.Errorf("%s: p99 %v, more than %v", c.what, p99, most)
			}
			g.wait("n0", "n1", "n2")
			for _, s := range g.members {
				checkRounds(t, []*server{s}, 1+i, rounds, start)
			}
		}
	})
}
