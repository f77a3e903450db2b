package ingest

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"mcached/mcache"
)

// TestAlterRace alters several keys to the same labels at a time: one of them
// gets these, the others keep their own, and no sample is lost or in another's
// series. Others read, write and remove keys meanwhile.
func TestAlterRace(t *testing.T) {
	s, _ := newServer(t, func(*Options) {})
	d := s.series
	const rounds, keys, samples = 40, 4, 3000
	same := []mcache.Label{{Name: "__name__", Value: "wanted"}, {Name: "a", Value: "b"}}
	won, lost := 0, 0
	for round := range rounds {
		ks := make([]*seriesKey, keys)
		for i := range ks {
			name := fmt.Sprintf("k%d-%d", round, i)
			k, _, err := d.create(name, nil, seriesOptions{})
			if err != nil {
				t.Fatal(err)
			}
			ss := make([]mcache.Sample, samples)
			for j := range ss {
				ss[j] = mcache.Sample{T: int64(j*keys + i), V: uint64(i)}
			}
			if err := d.cache.AppendSamples(d.bucket, k.labels, ss...); err != nil {
				t.Fatal(err)
			}
			d.mu.Lock()
			delete(d.empty, k)
			d.mu.Unlock()
			ks[i] = k
		}
		errs := make([]error, keys)
		var wg sync.WaitGroup
		begin := make(chan struct{})
		for i, k := range ks {
			wg.Go(func() {
				<-begin
				_, errs[i] = d.relabel(k, same)
			})
		}
		wg.Go(func() {
			<-begin
			_, _ = d.cutLocked(&seriesKey{name: "wanted", labels: same, print: d.cache.Fingerprint(same)}, 1<<40, 1<<41, 0)
			d.find("wanted{a=\"b\"}")
		})
		close(begin)
		wg.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner >= 0:
				t.Fatalf("round %d: keys %d and %d have the same labels", round, winner, i)
			case err == nil:
				winner = i
				won++
			case strings.Contains(err.Error(), "has the same name and labels"):
				lost++
			default:
				t.Fatal(err)
			}
		}
		if winner < 0 {
			t.Fatalf("round %d: nobody got the labels", round)
		}
		for i, k := range ks {
			now, ok := d.find(k.name)
			if !ok || (fmt.Sprint(now.labels) == fmt.Sprint(same)) != (i == winner) {
				t.Fatalf("round %d: key %d of winner %d is %v", round, i, winner, now)
			}
			var snap mcache.Snapshot
			if !d.locate(now) || !d.cache.Snapshot(now.id, 0, mcache.MaxTime, &snap) {
				t.Fatalf("round %d: key %d has no series", round, i)
			}
			n := 0
			for it := snap.Iterator(); it.Next(); n++ {
				if it.At().V != uint64(i) {
					t.Fatalf("round %d: key %d has a sample of key %d", round, i, it.At().V)
				}
			}
			if n != samples {
				t.Fatalf("round %d: key %d has %d samples of %d", round, i, n, samples)
			}
		}
		for _, k := range ks {
			if !d.remove([]byte(k.name)) {
				t.Fatalf("round %d: %s is not there to be removed", round, k.name)
			}
		}
	}
	if won != rounds || lost != rounds*(keys-1) {
		t.Errorf("%d won, %d lost", won, lost)
	}
}

// TestAlterRemoved does not bring a key back that was removed meanwhile.
func TestAlterRemoved(t *testing.T) {
	s, _ := newServer(t, func(*Options) {})
	d := s.series
	k, _, err := d.create("k", nil, seriesOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !d.remove([]byte("k")) {
		t.Fatal("it is not there")
	}
	if _, err := d.relabel(k, []mcache.Label{{Name: "a", Value: "b"}}); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("%v", err)
	}
	if _, ok := d.find("k"); ok || len(d.byPrint) != 0 {
		t.Error("it is back")
	}
}

// TestLateSampleAfterDelete: an out-of-order sample that follows the removal of the youngest is
// not taken for the youngest, so that policies hold for those that are.
func TestLateSampleAfterDelete(t *testing.T) {
	_, addr := newServer(t, nil)
	got := converse(t, addr, "TS.ADD k 10 1", "TS.ADD k 20 2", "TS.ADD k 30 3", "TS.DEL k 30 30", "TS.ADD k 5 0", "TS.ADD k 20 9", "TS.RANGE k - +")
	if !strings.HasPrefix(got[5], "-ERR TSDB: Error at upsert") || short(t, got[6]) != "[[5 0] [10 1] [20 2]]" {
		t.Errorf("%q", got)
	}
}
