package route

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"mcached/mcache"
	"mcached/remotewrite"
	"mcached/remotewrite/wire"
	"mcached/remotewrite/writetest"
)

// again are series with a sample each that tells which and when it was.
func again(from, n, at int) (all []writetest.Series) {
	for i := range n {
		all = append(all, writetest.Series{
			Labels:  writetest.Named("m", "i", fmt.Sprint(from+i), "job", "j"),
			Samples: []mcache.Sample{writetest.Sample(float64(at), float64(10_000*at+from+i))},
		})
	}
	return all
}

// sendTo sends series to a node, which takes them.
func sendTo(t *testing.T, x *node, p wire.Protocol, all []writetest.Series) {
	t.Helper()
	writetest.Answered(t, x.Send(p, writetest.Encode(t, p, all...)), http.StatusNoContent, "")
}

// eachHas fails unless as many nodes as there should be hold each sample.
func eachHas(t *testing.T, nodes []*node, all []writetest.Series, copies int) {
	t.Helper()
	have := copiesOf(nodes, "default")
	for _, line := range linesOf(all) {
		if have[line] != copies {
			t.Fatalf("%s has %d copies of %d", line, have[line], copies)
		}
	}
}

// Series that were sent before are named by their prints; an owner that does not know
// one, because it is gone or what it had learned is, gets the labels in the same request.
func TestKnownSeriesAreNamed(t *testing.T) {
	writetest.Both(t, func(t *testing.T, p wire.Protocol) {
		nodes := newNodes(t, 3, 2, Options{Acks: 2, Timeout: time.Minute}, remotewrite.Options{}, mcache.Options{})
		const n = 200
		at := 0
		sent := func() (bytes, unknown uint64) {
			at++
			before := nodes[0].router.Stats()
			all := again(0, n, at)
			sendTo(t, nodes[0], p, all)
			eachHas(t, nodes, all, 2)
			s := nodes[0].router.Stats()
			return s.Bytes - before.Bytes, s.Unknown - before.Unknown
		}
		_, _ = sent() // until an answer has come nobody is known to take prints,
		_, _ = sent() // with which nodes learn them.
		named, unknown := sent()
		if most := uint64(2 * n * (wire.PrintBytes + 32)); unknown != 0 || named > most {
			t.Errorf("%d bytes, more than %d, and %d unknown", named, most, unknown)
		}
		for _, c := range []struct {
			what string
			lose func()
		}{
			{"the series", func() { nodes[1].Cache.RemoveBucket("default") }},
			{"the prints", func() { nodes[1].handler.SetLimits(remotewrite.Options{}) }},
		} {
			c.lose()
			if bytes, unknown := sent(); unknown == 0 || bytes <= named {
				t.Errorf("%s are lost: %d bytes, %d unknown", c.what, bytes, unknown)
			}
			_, _ = sent() // with labels, for that so many were unknown
			if bytes, unknown := sent(); unknown != 0 || bytes != named {
				t.Errorf("%s are back: %d bytes, not %d, %d unknown", c.what, bytes, named, unknown)
			}
		}
	})
}

// What is wrong with a sample of a known series is said as by one node, which needs its
// labels.
func TestFaultsOfNamedSeriesAreDescribed(t *testing.T) {
	writetest.Both(t, func(t *testing.T, p wire.Protocol) {
		nodes := newNodes(t, 3, 2, Options{Acks: 2, Timeout: time.Minute}, remotewrite.Options{}, mcache.Options{})
		for at := range 3 {
			sendTo(t, nodes[0], p, again(0, 50, at))
		}
		bad := again(0, 50, 3)
		bad[7].Samples[0] = writetest.Sample(1e6, 1) // in the future
		w := nodes[0].Send(p, writetest.Encode(t, p, bad...))
		writetest.Answered(t, w, http.StatusBadRequest, `ahead of the clock`)
		if !strings.Contains(w.Body.String(), `i="7"`) || !strings.HasPrefix(w.Body.String(), "1 of 50 samples") {
			t.Errorf("answered %s", w.Body)
		}
		eachHas(t, nodes, append(bad[:7], bad[8:]...), 2)
	})
}

// Whatever becomes of nodes, series and what is known of prints, a sample is where it was
// acknowledged to be, and never under another series: its value says of which it is.
func TestNamedAmongFaults(t *testing.T) {
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 16))
		nodes := newNodes(t, 3+int(seed%2), 2, Options{Acks: 2, Timeout: 300 * time.Millisecond}, remotewrite.Options{}, mcache.Options{})
		sent, sure := map[string]bool{}, map[string]bool{}
		faults, losses := 0, 0
		for at := range 80 {
			y := nodes[rng.IntN(len(nodes))]
			switch rng.IntN(8) {
			case 0:
				y.fault.Store([]int32{dead, busy, deaf}[rng.IntN(3)])
				faults++
			case 1:
				y.handler.SetLimits(remotewrite.Options{})
			case 2:
				y.Cache.RemoveBucket("default")
				clear(sure) // of what was sent before
				losses++
			default:
				y.fault.Store(well)
			}
			x := nodes[rng.IntN(len(nodes))]
			if rng.IntN(2) == 0 {
				for id := range nodes {
					x.cluster.Trust(fmt.Sprintf("n%d#1", id))
				}
			}
			all := again(rng.IntN(100), 1+rng.IntN(100), at)
			if rng.IntN(4) == 0 {
				rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			}
			for k := range all {
				if rng.IntN(50) == 0 {
					all[k].Labels = append(all[k].Labels, mcache.Label{Name: "z", Value: fmt.Sprint(at)})
				}
			}
			p := wire.V1 + wire.Protocol(rng.IntN(2))
			w := x.Send(p, writetest.Encode(t, p, all...))
			for _, line := range linesOf(all) {
				sent[line] = true
				if w.Code == http.StatusNoContent {
					sure[line] = true
				}
			}
		}
		var stats Stats
		for _, x := range nodes {
			x.router.Close(t.Context())
			s := x.router.Stats()
			stats.Unknown, stats.Rerouted = stats.Unknown+s.Unknown, stats.Rerouted+s.Rerouted
		}
		have := copiesOf(nodes, "default")
		for line := range have {
			if !sent[line] {
				t.Fatalf("%s was never sent (seed %d)", line, seed)
			}
		}
		for line := range sure {
			if have[line] < 2 {
				t.Fatalf("%s was acknowledged and has %d copies (seed %d)", line, have[line], seed)
			}
		}
		if faults == 0 || losses == 0 || stats.Unknown == 0 || stats.Rerouted == 0 {
			t.Errorf("%d faults, %d losses, %+v: no test (seed %d)", faults, losses, stats, seed)
		}
	}
}
