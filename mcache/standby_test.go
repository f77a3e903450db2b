package mcache

import (
	"slices"
	"testing"
)

// TestStandbyBehindDeleted: the newest points of a series are sent and deleted. What another
// cache hands on and has such a time is dirty until that says so, whatever it said before.
func TestStandbyBehindDeleted(t *testing.T) {
	c := newTestCache(t, Options{WriteBack: true, Shards: 1})
	var mine bool
	var before uint32
	settle := func() (released, promoted int64) {
		return c.SettleStandby(0, StandbyRules{
			Slot:  func(string, []Label) uint16 { return 0 },
			Judge: func(uint16, uint32, uint32) (uint32, bool) { return before, mine },
		})
	}
	standby := func(at int64) {
		t.Helper()
		var b Batch
		b.Reset("default")
		b.Series(c.Fingerprint(name("m")))
		b.Duty(Standby)
		b.Sample(at, uint64(at))
		if n, err := c.Append(&b); err != nil || n != 1 {
			t.Fatal(n, err)
		}
		checkCache(t, c)
	}
	c.SetTick(1)
	if err := c.AppendSamples("default", name("m"), Sample{T: 1000}, Sample{T: 2000}, Sample{T: 3000}, Sample{T: 4000}); err != nil {
		t.Fatal(err)
	}
	drain(c, func(*Outgoing) {}, 100)
	if n, err := c.Delete(mustSelect(t, c, name("m"))[0], 3000, 4000); err != nil || n != 2 {
		t.Fatal(n, err)
	}
	c.SetTick(2)
	standby(2000)
	settle() // makes a checkpoint
	c.SetTick(3)
	standby(3000)
	before = 3
	if released, _ := settle(); released != 1 {
		t.Errorf("%d points are released, want that from before the checkpoint", released)
	}
	checkCache(t, c)
	mine = true
	settle()
	var got []Sample
	drain(c, func(o *Outgoing) {
		for i := range o.Len() {
			got = append(got, o.Run(i).Samples...)
		}
	}, 100)
	if !slices.Contains(got, Sample{T: 3000, V: 3000}) {
		t.Errorf("sent are %v", got)
	}
}
