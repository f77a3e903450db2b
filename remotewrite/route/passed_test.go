package route

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"mcached/mcache"
	"mcached/remotewrite"
	"mcached/remotewrite/writetest"
)

// Whatever nodes do: of each sample that was acknowledged either all owners have it,
// or the cluster was told of nodes among which all that would be its owners do.
// So nobody takes an owner that was passed over for one that has it.
func TestWhoLacksIsTold(t *testing.T) {
	for _, c := range []struct{ nodes, copies, acks int }{{2, 2, 1}, {3, 1, 1}, {4, 2, 1}, {5, 3, 2}} {
		t.Run(fmt.Sprintf("%d nodes, %d copies, %d acks", c.nodes, c.copies, c.acks), func(t *testing.T) {
			o := Options{Acks: c.acks, Timeout: 150 * time.Millisecond, MaxOutboxBytes: 16 << 10, MaxBundleBytes: 4 << 10}
			nodes := newNodes(t, c.nodes, c.copies, o, remotewrite.Options{}, mcache.Options{})
			seed := uint64(100*c.nodes + c.copies)
			slots := map[string]uint16{} // by line, of all that senders may write
			for from := 0; from < 40_000; from += 100 {
				for _, s := range metrics(30, from) {
					slots[linesOf([]writetest.Series{s})[0]] = slotOf("default", s.Labels)
				}
			}
			var acknowledged []string
			writeAmongFaults(t, nodes, seed, 4, func(lines []string, w *httptest.ResponseRecorder) {
				if w.Code == http.StatusNoContent {
					acknowledged = append(acknowledged, lines...)
				}
			})
			has := make([]map[string]int, len(nodes))
			told := map[string]bool{} // who is left, when others are passed over
			for i, x := range nodes {
				has[i] = copiesOf(nodes[i:i+1], "default")
				for left := range x.cluster.passed {
					told[left] = true
				}
				if x.cluster.used == 0 {
					t.Error("nothing was routed by a node")
				}
			}
			tab := nodes[0].cluster.table
			passed := 0
			for _, line := range acknowledged {
				slot, ok := slots[line]
				if !ok {
					t.Fatalf("%s is none that senders write", line)
				}
				holds := func(node uint16) bool { return has[node][line] > 0 }
				lacks := func(node uint16) bool { return !holds(node) }
				if !slices.ContainsFunc(tab.Owners(slot), lacks) {
					continue
				}
				passed++
				explained := false
				for left := range told {
					order := slices.DeleteFunc(slices.Clone(tab.Order(slot, nil)), func(node uint16) bool { return !strings.Contains(left, fmt.Sprint(node)) })
					explained = explained || !slices.ContainsFunc(order[:min(c.copies, len(order))], lacks)
				}
				if !explained {
					t.Fatalf("%s of slot %d, order %v, is at %v, and only of %v was told (seed %d)", line, slot, tab.Order(slot, nil),
						slices.DeleteFunc([]uint16{0, 1, 2, 3, 4}[:c.nodes], lacks), told, seed)
				}
			}
			t.Logf("%d of %d samples are not at all of their owners; told of %d sets", passed, len(acknowledged), len(told))
			if passed == 0 {
				t.Error("all owners have all: no test")
			}
		})
	}
}
