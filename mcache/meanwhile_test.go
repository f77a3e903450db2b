package mcache

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"mcached/kvcache"
)

// squeezer holds memory that nobody else has, and calls meanwhile each time that it is
// asked for some: whoever asks has let go of the lock of his shard.
type squeezer struct {
	tables    *kvcache.Tables
	meanwhile func()
	asked     int
}

func newSqueezer(m *kvcache.Memory) *squeezer {
	q := &squeezer{}
	q.tables = kvcache.NewTables(m, m.Register(q), kvcache.Log, func(uint16, uint32, kvcache.Ref, kvcache.Ref) int { panic("moved") })
	return q
}

func (q *squeezer) squeeze(atMost int) {
	for range atMost {
		if _, _, ok := q.tables.Alloc(q.tables.MaxValue(), 0, 1, 1); !ok {
			return
		}
	}
}

func (q *squeezer) DropRegion(r kvcache.Region, epoch uint32) bool {
	if !q.tables.Owns(r, epoch) {
		return false
	}
	q.asked++
	q.tables.Drop(r) // who writes meanwhile may ask, too
	q.meanwhile()
	return true
}

func (q *squeezer) DropAll() { q.tables.DropAll() }

// noise is n samples a second apart that cannot be compressed.
func noise(n int) (ss []Sample) {
	rnd := rand.New(rand.NewPCG(7, 8))
	for i := range n {
		ss = append(ss, Sample{T: int64(i) * 1000, V: rnd.Uint64()})
	}
	return ss
}

// TestEvictedMeanwhile: a series to which samples are written that are out of order is
// evicted while they wait for memory, and made anew by another: to that they are in order.
func TestEvictedMeanwhile(t *testing.T) {
	for _, writeBack := range []bool{false, true} {
		t.Run(fmt.Sprint("write-back ", writeBack), func(t *testing.T) { evictedMeanwhile(t, writeBack) })
	}
}

func evictedMeanwhile(t *testing.T, writeBack bool) {
	m := newTestMemory(t, 64*16<<10, 16<<10)
	q := newSqueezer(m)
	q.squeeze(32) // the oldest there are
	c := newTestCache(t, Options{Memory: m, Shards: 1, WriteBack: writeBack})
	written := noise(4000)
	if err := c.AppendSamples("default", name("m"), written...); err != nil {
		t.Fatal(err)
	}
	other := Sample{T: 2_000_500, V: 1}
	q.meanwhile = func() {
		if q.asked > 1 {
			return
		}
		if _, err := c.Delete(mustSelect(t, c, name("m"))[0], -MaxTime, MaxTime); err != nil {
			t.Error(err)
		}
		if err := c.AppendSamples("default", name("m"), other); err != nil {
			t.Error(err)
		}
	}
	q.squeeze(64)
	var again []Sample // in all blocks
	for i := 10; i < len(written); i += 60 {
		again = append(again, Sample{T: written[i].T + 1, V: uint64(i)}, Sample{T: written[i].T + 2, V: uint64(i)})
	}
	if err := c.AppendSamples("default", name("m"), again...); err != nil {
		t.Fatal(err)
	}
	checkCache(t, c)
	got := readAll(t, c, "default", name("m"), -MaxTime, MaxTime)
	if q.asked == 0 || !slices.Contains(got, other) || len(got) == 1 || got[len(got)-1] != again[len(again)-1] {
		t.Errorf("memory was asked for %d times, and there are %d samples", q.asked, len(got))
	}
	if sent := sentOf(c); writeBack && !slices.Equal(sent, got) {
		t.Errorf("%d samples are sent of %d", len(sent), len(got))
	}
}

// snapshotFile is what Save writes.
func snapshotFile(t *testing.T, c *Cache) *bytes.Buffer {
	t.Helper()
	var file bytes.Buffer
	if _, err := c.Save(&file, 0, nil); err != nil {
		t.Fatal(err)
	}
	return &file
}

// sentOf drains a cache, of one series, and returns what was sent.
func sentOf(c *Cache) (ss []Sample) {
	drain(c, func(o *Outgoing) {
		for i := range o.Len() {
			ss = append(ss, o.Run(i).Samples...)
		}
	}, 10_000)
	return ss
}

// TestDeletedMeanwhile: a series that is loaded is deleted while its blocks wait for memory,
// and made anew by another: it is loaded all the same, and what was not sent is.
func TestDeletedMeanwhile(t *testing.T) {
	c := newTestCache(t, Options{Shards: 1, WriteBack: true})
	saved := noise(4000)
	if err := c.AppendSamples("default", name("m"), saved...); err != nil {
		t.Fatal(err)
	}
	file := snapshotFile(t, c)
	m := newTestMemory(t, 128*16<<10, 16<<10)
	q := newSqueezer(m)
	d := newTestCache(t, Options{Memory: m, Shards: 1, WriteBack: true})
	other, deleted := Sample{T: saved[len(saved)-1].T + 500, V: 1}, 0
	q.meanwhile = func() {
		if deleted > 0 || d.Stats().Points == 0 {
			return
		}
		var err error
		if deleted, err = d.Delete(mustSelect(t, d, name("m"))[0], -MaxTime, MaxTime); err != nil {
			t.Error(err)
		}
		if err := d.AppendSamples("default", name("m"), other); err != nil {
			t.Error(err)
		}
	}
	q.squeeze(128)
	if st, err := d.Load(file, LoadOptions{}); err != nil || st.Points != uint64(len(saved)) {
		t.Fatal(st, err)
	}
	checkCache(t, d)
	if got, want := sentOf(d), append(saved, other); deleted == 0 || !slices.Equal(got, want) {
		t.Errorf("%d samples were deleted, and %d are sent of %d", deleted, len(got), len(want))
	}
	checkCache(t, d)
}

// TestBucketRemovedMeanwhile: while the blocks of a series that is loaded wait for memory, its
// bucket is removed, and another takes the place. The series is not made anew in that.
func TestBucketRemovedMeanwhile(t *testing.T) {
	c := newTestCache(t, Options{Shards: 1})
	if err := c.AppendSamples("default", name("m"), noise(4000)...); err != nil {
		t.Fatal(err)
	}
	file := snapshotFile(t, c)
	m := newTestMemory(t, 128*16<<10, 16<<10)
	q := newSqueezer(m)
	d := newTestCache(t, Options{Memory: m, Shards: 1})
	var other *bucket
	q.meanwhile = func() {
		was := d.findBucket("default")
		if other != nil || d.Stats().Points == 0 {
			return
		}
		d.RemoveBucket("default")
		var err error
		if other, err = d.openBucket("other", widthHPTS); err != nil || other.id != was.id {
			t.Errorf("the other bucket is not in place %d: %v", was.id, err)
		}
	}
	q.squeeze(128)
	st, err := d.Load(file, LoadOptions{})
	if other == nil || !errors.Is(err, ErrBuckets) || st.Series != 0 || st.Points != 0 || st.Refused != 1 {
		t.Errorf("%+v, %v", st, err)
	}
	if n := d.SeriesOf("other"); n != 0 {
		t.Errorf("the other bucket has %d series", n)
	}
	checkCache(t, d)
}

// appendWithStarts writes samples to the series m, each with a start time if there are to be some.
func appendWithStarts(t *testing.T, c *Cache, samples []Sample, starts bool) {
	t.Helper()
	var b Batch
	b.Reset("default")
	b.Series(c.Fingerprint(name("m")))
	for i, x := range samples {
		if b.Sample(x.T, x.V); starts {
			b.StartTime(int64(i + 1))
		}
	}
	if _, err := c.AppendNew(&b, 0, name("m")); err != nil {
		t.Fatal(err)
	}
}

// TestWrittenMeanwhile: to a series that is loaded, with start times or without, others write
// while its blocks wait for memory.
func TestWrittenMeanwhile(t *testing.T) {
	for _, starts := range []bool{false, true} {
		c := newTestCache(t, Options{Shards: 1})
		saved := noise(4000)
		appendWithStarts(t, c, saved, starts)
		file := snapshotFile(t, c)
		m := newTestMemory(t, 64*16<<10, 16<<10)
		q := newSqueezer(m)
		d := newTestCache(t, Options{Memory: m, Shards: 1})
		var mine []Sample
		q.meanwhile = func() {
			if q.asked > 10 {
				return
			}
			at := len(saved) - 1 - q.asked*7
			x := Sample{T: saved[at].T + 1, V: 1}
			if err := d.AppendSamples("default", name("m"), x); err != nil {
				t.Error(err)
			}
			mine = append(mine, x)
		}
		q.squeeze(60)
		if _, err := d.Load(file, LoadOptions{}); err != nil {
			t.Fatal(err)
		}
		checkCache(t, d)
		got := readAll(t, d, "default", name("m"), -MaxTime, MaxTime)
		if len(mine) < 2 || len(got) != len(saved)+len(mine) {
			t.Errorf("%d samples, want %d and %d that were written meanwhile", len(got), len(saved), len(mine))
		}
	}
}

// TestGoneMeanwhile: a series that is evicted while memory is looked for in vain has no id any
// more, so that nothing is noted of one that has its id, or of none.
func TestGoneMeanwhile(t *testing.T) {
	c := newTestCache(t, Options{Shards: 1})
	if err := c.AppendSamples("default", name("m"), noise(10)...); err != nil {
		t.Fatal(err)
	}
	f := c.Fingerprint(name("m")).in(c.findBucket("default"))
	s := c.shards[0]
	s.mu.Lock()
	defer s.mu.Unlock()
	id, tries := s.findLocked(f), 0
	err := s.retryLocked(&id, f, func() bool {
		if tries++; tries > roomTries { // the last time
			s.removeLocked(id)
		}
		return false
	})
	if !errors.Is(err, ErrNoMemory) || id != noID {
		t.Errorf("after %d tries: series %d, %v", tries, id, err)
	}
}

// TestSettledMeanwhile: what a snapshot has that was not sent is dirty while the rest of its
// series waits for memory, though ticks pass, and regions that hold nothing dirty are given up.
func TestSettledMeanwhile(t *testing.T) {
	for _, there := range []int{0, 10} { // samples that the series has when it is loaded
		for _, starts := range []bool{false, true} {
			c := newTestCache(t, Options{Shards: 1, WriteBack: true})
			saved := noise(4000)
			const sent = 1500
			appendWithStarts(t, c, saved[:sent], starts)
			drain(c, func(*Outgoing) {}, 10_000)
			appendWithStarts(t, c, saved[sent:], starts)
			file := snapshotFile(t, c)

			m := newTestMemory(t, 128*16<<10, 16<<10)
			q := newSqueezer(m)
			d := newTestCache(t, Options{Memory: m, Shards: 1, WriteBack: true})
			tick := uint32(1)
			d.SetTick(tick)
			if there > 0 {
				if err := d.AppendSamples("default", name("m"), saved[:there]...); err != nil {
					t.Fatal(err)
				}
				drain(d, func(*Outgoing) {}, 10_000)
			}
			q.meanwhile = func() {
				tick++
				d.SetTick(tick)
				d.Settle(0, nil)
			}
			q.squeeze(128)
			if _, err := d.Load(file, LoadOptions{}); err != nil {
				t.Fatal(err)
			}
			checkCache(t, d)
			tick++
			d.SetTick(tick)
			d.Settle(0, nil)
			m.SetBudget(1)
			checkCache(t, d)
			if n := d.Dirty().Points; n != int64(len(saved)-sent) {
				t.Errorf("%d points there, start times %v: %d points are dirty, want %d", there, starts, n, len(saved)-sent)
			}
			if got := sentOf(d); q.asked < 3 || !slices.Equal(got, saved[sent:]) {
				t.Errorf("%d points there, start times %v: memory was asked for %d times, and %d samples are sent of %d", there, starts, q.asked, len(got), len(saved)-sent)
			}
		}
	}
}
