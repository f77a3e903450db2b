package mcache

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"mcached/kvcache"
)

// TestSqueezed takes nearly all memory away from a cache that many series are
// written to, and from a client that stores values beside it: down to where
// the index alone was more, and to the last few regions. Whatever is written
// is taken all the same; the cache holds fewer series, but as many as fit, and
// all of them again as soon as it may.
func TestSqueezed(t *testing.T) {
	const series, perRequest, regionBytes = 20_000, 2_000, 64 << 10
	m := newTestMemory(t, 128<<20, regionBytes)
	clients, err := kvcache.NewCache(kvcache.CacheOptions{Memory: m, Account: clientsAcct, Shards: 8, SweepEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer clients.Close()
	c := newTestCache(t, Options{Memory: m, Shards: 8, Blobs: true, BlobAccount: overflowAcct})
	labels := func(i int) []Label {
		return []Label{{"__name__", fmt.Sprintf("metric_%d", i%50)}, {"host", fmt.Sprintf("host-%d", i/500)}, {"n", fmt.Sprint(i)}}
	}
	prints := make([]Fingerprint, series)
	for i := range prints {
		prints[i] = c.Fingerprint(labels(i))
	}
	var b Batch
	now := int64(0)
	request := func(from int) error {
		b.Reset("default")
		for i := from; i < from+perRequest; i++ {
			b.Series(prints[i])
			b.Sample(now, uint64(i))
		}
		if _, err := c.Append(&b); err != nil {
			return err
		}
		for _, i := range b.Missing() {
			if n, err := c.AppendNew(&b, i, labels(from+i)); err != nil || n != 1 {
				return fmt.Errorf("%d written, %w", n, err)
			}
		}
		return nil
	}
	value, keys := make([]byte, 4000), 0
	rounds := func(n int) {
		t.Helper()
		for range n {
			now += 15_000
			for from := 0; from < series; from += perRequest {
				if err := request(from); err != nil {
					t.Fatalf("budget %d KiB, %d used: %v", m.Budget()>>10, m.Used()>>10, err)
				}
				for range 10 {
					keys++
					if err := clients.Put(fmt.Appendf(nil, "key %d", keys), value, 0); err != nil {
						t.Fatalf("budget %d KiB: %v", m.Budget()>>10, err)
					}
				}
			}
		}
	}
	rounds(5)
	if n := c.Stats().Series; n != series {
		t.Fatalf("%d series of %d", n, series)
	}
	index := c.Stats().IndexBytes
	// Enough for all; for half of the index; for little more than each shard's open
	// regions; for less than these.
	open := int64(c.Shards() * regionBytes)
	for _, x := range []struct {
		budget int64
		series int // at least, thereafter
	}{{2*index + 5*open, series}, {index/2 + 3*open, series / 4}, {5 * open, series / 16}, {open, 1}, {2*index + 5*open, series}} {
		m.SetBudget(x.budget)
		if used := m.Used(); used > x.budget {
			t.Errorf("%d KiB used of %d", used>>10, x.budget>>10)
		}
		rounds(3)
		st := checkCache(t, c)
		t.Logf("budget %5d KiB, of which %5d are index: %5d of %d series, %d values", x.budget>>10, st.IndexBytes>>10, st.Series, series, clients.Len())
		if st.Series < x.series {
			t.Errorf("budget %d KiB: only %d series are left", x.budget>>10, st.Series)
		}
		if st.Series == series && x.budget < index {
			t.Errorf("%d KiB hold all series: nothing was short", x.budget>>10)
		}
		// What was written last is there, where a request fits into the cache, but
		// for a shard or two that a value may have cost which a client stored then.
		there := 0
		for i := series - perRequest; i < series; i++ {
			if got := readAll(t, c, "default", labels(i), now, math.MaxInt64); len(got) == 1 && got[0].V == uint64(i) {
				there++
			}
		}
		if x.series >= 2*perRequest && there < perRequest/2 {
			t.Errorf("budget %d KiB: %d of the last %d samples are there", x.budget>>10, there, perRequest)
		}
	}
}

// TestSqueezedDirty: what the downstream store has not got stays, and is what a
// writer may be refused for; no longer than until it is acknowledged.
func TestSqueezedDirty(t *testing.T) {
	m := newTestMemory(t, 32<<20, 16<<10)
	c := newTestCache(t, Options{Memory: m, Shards: 8, WriteBack: true, Blobs: true})
	c.SetTick(2)
	write := func(from, to int) error {
		for i := from; i < to; i++ {
			if err := c.AppendSamples("default", name(fmt.Sprint("series ", i)), Sample{T: 1000, V: uint64(i)}); err != nil {
				return err
			}
		}
		return nil
	}
	if err := write(0, 10_000); err != nil {
		t.Fatal(err)
	}
	m.SetBudget(1 << 20)
	if err := write(10_000, 20_000); !errors.Is(err, ErrNoMemory) {
		t.Fatalf("all is dirty, and a write gets %v", err)
	}
	st := c.Stats()
	if st.Reclaimed+st.Evicted != 0 || st.Points < 10_000 {
		t.Fatalf("dirty points are gone: %+v", st)
	}
	tick := uint32(2)
	acknowledge := func() {
		tick++
		c.SetTick(tick)
		var o Outgoing
		for shard := range c.Shards() {
			var pass Pass
			for more := true; more; {
				more = c.Collect(shard, &pass, Due{Since: AllTicks}, 1000, &o)
				c.Acknowledge(&o)
			}
			c.Settle(shard, &pass)
		}
	}
	acknowledge()
	if used := m.Used(); used > 1<<20 {
		t.Errorf("%d KiB used of 1,024 although all was acknowledged", used>>10)
	}
	// What is new is dirty, too, and may stand in a shard whose index is too large
	// for what there is: then that has to be acknowledged, and no more.
	refused := 0
	for i := 20_000; i < 20_500; i++ {
		err := write(i, i+1)
		if errors.Is(err, ErrNoMemory) {
			refused++
			acknowledge()
			err = write(i, i+1)
		}
		if err != nil {
			t.Fatalf("all was acknowledged, and a write gets %v", err)
		}
	}
	if refused > 5 {
		t.Errorf("%d writes were refused at first", refused)
	}
	checkCache(t, c)
}
