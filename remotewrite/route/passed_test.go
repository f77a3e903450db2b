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
	"mcached/remotewrite/wire"
	"mcached/remotewrite/writetest"
)

// Whatever nodes do: of each sample that was acknowledged either all owners have it,
// or the cluster was told of nodes among which all that would be its owners do.
// So nobody takes an owner that was passed over for one that has it.
func TestWhoLacksIsTold(t *testing.T) {
	for _, c := range []struct{ nodes, copies, acks, zones int }{{2, 2, 1, 0}, {3, 1, 1, 0}, {4, 2, 1, 0}, {5, 3, 2, 0}, {4, 2, 1, 2}, {5, 2, 1, 3}} {
		t.Run(fmt.Sprintf("%d nodes in %d zones, %d copies, %d acks", c.nodes, c.zones, c.copies, c.acks), func(t *testing.T) {
			o := Options{Acks: c.acks, Timeout: 150 * time.Millisecond, MaxOutboxBytes: 16 << 10, MaxBundleBytes: 4 << 10}
			nodes := newNodes(t, c.nodes, c.copies, o, remotewrite.Options{}, mcache.Options{})
			for _, x := range nodes {
				if c.zones > 0 {
					x.cluster.table.(*table).setZones(c.zones)
				}
			}
			seed := uint64(100*c.nodes + c.copies)
			slots := map[string]uint16{} // by line, of all that senders may write
			for from := 0; from < 40_000; from += 100 {
				for _, s := range metrics(30, from) {
					slots[linesOf([]writetest.Series{s})[0]] = slotOf("default", s.Labels)
				}
			}
			var acknowledged []string
			writeAmongFaults(t, nodes, seed, 4, choosy, func(lines []string, w *httptest.ResponseRecorder) {
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
				if !explained(tab, slot, told, lacks) {
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

// explained reports whether those who would own a slot if only some nodes of which was
// told were there lack nothing.
func explained(tab Table, slot uint16, told map[string]bool, lacks func(node uint16) bool) bool {
	for left := range told {
		gone := make([]bool, tab.Nodes())
		for i := range gone {
			gone[i] = !strings.Contains(left, fmt.Sprint(i))
		}
		if !slices.ContainsFunc(tab.OwnersWithout(slot, gone, nil), lacks) {
			return true
		}
	}
	return false
}

// In zones the next in order is often not who would be an owner if another was gone,
// but it has what that one was not sent.
func TestWhoLacksIsToldInZones(t *testing.T) {
	nodes := newNodes(t, 4, 2, Options{Acks: 2, Timeout: time.Minute}, remotewrite.Options{}, mcache.Options{})
	tab := nodes[0].cluster.table.(*table)
	tab.setZones(2)
	nodes[0].cluster.Suspect("n1#1")
	all := metrics(300, 0)
	writetest.Answered(t, nodes[0].Send(wire.V1, writetest.Encode(t, wire.V1, all...)), http.StatusNoContent, "")
	others := 0
	has := make([]map[string]int, len(nodes))
	for i := range nodes {
		has[i] = copiesOf(nodes[i:i+1], "default")
	}
	for _, s := range all {
		slot, line := slotOf("default", s.Labels), linesOf([]writetest.Series{s})[0]
		lacks := func(node uint16) bool { return has[node][line] == 0 }
		if !slices.Contains(tab.Owners(slot), 1) {
			continue
		}
		if slices.ContainsFunc(tab.OwnersWithout(slot, []bool{1: true, 3: false}, nil), lacks) {
			others++
		}
		if !explained(tab, slot, nodes[0].cluster.passed, lacks) {
			t.Fatalf("slot %d, order %v: only of %v was told", slot, tab.Order(slot, nil), nodes[0].cluster.passed)
		}
	}
	if others == 0 {
		t.Error("who took the place of node 1 would always be the owner without it: no test")
	}
}
