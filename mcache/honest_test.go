package mcache

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// An answer that may lack something says from when on it is complete. These
// tests hold every answer to that: each point at or after that time which was
// acknowledged is there, with its last value, whatever was reclaimed, evicted,
// moved into blobs, saved and loaded, or handed to another store meanwhile.

const (
	honestSeries = 48
	honestStepMs = 15_000
)

// honestOptions are what a run is about.
type honestOptions struct {
	seed      uint64
	blobs     bool
	writeBack bool
	maxBytes  int64
}

// honestWorld is a cache and what was written to it.
type honestWorld struct {
	honestOptions
	t   *testing.T
	rnd *rand.Rand
	c   *Cache

	points [honestSeries]map[int64]uint64 // acknowledged
	unsure [honestSeries]map[int64]bool   // of writes that failed: nobody knows what became of them
	newest [honestSeries]int64
	down   [honestSeries]map[int64]uint64 // what the store behind has

	lost                  Stats // of caches that were replaced
	reloads, deletes      int
	missing, held, listed int // points that were not there; points that had to be; values that had to be listed
	wholeSeries           int // answers in which a series that was written was not found at all
}

func (w *honestWorld) newCache() *Cache {
	const budget, region = 4 << 20, 8 << 10
	return newTestCache(w.t, Options{Memory: newTestMemory(w.t, budget, region), Shards: 2, MaxBytes: w.maxBytes, AgeCycle: 3000, Blobs: w.blobs, WriteBack: w.writeBack})
}

// honestLabels has three series to a metric.
func honestLabels(i int) []Label {
	return []Label{{metricName, fmt.Sprint("m", i/3)}, {"i", fmt.Sprint(i)}}
}

func honestNumber(ls []Label) (i int) {
	_, err := fmt.Sscan(ls[1].Value, &i)
	if err != nil {
		panic(err)
	}
	return i
}

// write appends some samples to a series, most of them on time.
func (w *honestWorld) write(i int) {
	var ss []Sample
	for range 1 + w.rnd.IntN(30) {
		w.newest[i] += honestStepMs
		at := w.newest[i]
		switch w.rnd.IntN(40) {
		case 0:
			at -= w.rnd.Int64N(200 * honestStepMs) // late
		case 1:
			w.newest[i] += w.rnd.Int64N(honestStepMs) // another phase
		}
		ss = append(ss, Sample{T: at, V: w.rnd.Uint64() >> uint(w.rnd.IntN(40))})
	}
	err := w.c.AppendSamples("b", honestLabels(i), ss...)
	if err != nil && !errors.Is(err, ErrNoMemory) && !errors.Is(err, ErrDirty) {
		w.t.Fatal(err)
	}
	for _, s := range ss {
		if err != nil {
			w.unsure[i][s.T] = true
		} else {
			delete(w.unsure[i], s.T)
		}
		w.points[i][s.T] = s.V
	}
}

// read asks for series by one of several selectors, whole or in a range, and
// holds the answer to what it says.
func (w *honestWorld) read() {
	i := w.rnd.IntN(honestSeries)
	var ms []Matcher
	asked := func(k int) bool { return true }
	switch w.rnd.IntN(4) {
	case 0:
		ms = []Matcher{{Type: MatchEqual, Name: metricName, Value: fmt.Sprint("m", i/3)}}
		asked = func(k int) bool { return k/3 == i/3 }
	case 1:
		ms = []Matcher{{Type: MatchEqual, Name: metricName, Value: fmt.Sprint("m", i/3)}, {Type: MatchEqual, Name: "i", Value: fmt.Sprint(i)}}
		asked = func(k int) bool { return k == i }
	case 2:
		ms = []Matcher{{Type: MatchEqual, Name: "i", Value: fmt.Sprint(i)}}
		asked = func(k int) bool { return k == i }
	}
	from, to := int64(-1<<40), int64(1<<40)
	if w.newest[i] > 0 && w.rnd.IntN(2) == 0 {
		from = w.rnd.Int64N(w.newest[i])
		to = from + w.rnd.Int64N(w.newest[i]-from+1)
	}
	w.readPoints(ms, asked, from, to)
	w.readLabels(ms, asked, from, to)
}

func (w *honestWorld) readPoints(ms []Matcher, asked func(int) bool, from, to int64) {
	t := w.t
	gone, ok := w.c.GoneUntil("b", ms)
	if !ok {
		gone = math.MinInt64
	}
	ids, err := w.c.Select("b", ms, nil)
	if err != nil {
		t.Fatal(err)
	}
	found := map[int]bool{}
	var snap Snapshot
	for _, id := range ids {
		ls, ok := w.c.Labels(id, nil)
		if !ok || !w.c.Snapshot(id, from, to, &snap) {
			t.Fatalf("%v vanished although nothing happened", ls)
		}
		i := honestNumber(ls)
		if !asked(i) || found[i] {
			t.Fatalf("%v is in an answer that it does not belong to, or twice", ls)
		}
		found[i] = true
		got := map[int64]uint64{}
		last := int64(math.MinInt64)
		for it := snap.Iterator(); it.Next(); {
			x := it.At()
			if want, ok := w.points[i][x.T]; x.T <= last || x.T < from || x.T > to || (!ok || want != x.V) && !w.unsure[i][x.T] {
				t.Fatalf("series %d from %d to %d: %x at %d behind %d, want %x, %v", i, from, to, x.V, x.T, last, want, ok)
			}
			last = x.T
			got[x.T] = x.V
		}
		w.hold(i, got, from, to, max(gone, snap.CompleteFrom()))
	}
	for i := range honestSeries {
		if asked(i) && !found[i] && len(w.points[i]) > 0 {
			w.wholeSeries++
			w.hold(i, nil, from, to, gone)
		}
	}
}

// hold holds what was read of a series to what it is complete from.
func (w *honestWorld) hold(i int, got map[int64]uint64, from, to, complete int64) {
	for at := range w.points[i] {
		if at < from || at > to || w.unsure[i][at] {
			continue
		}
		if at >= complete {
			w.held++
		}
		if _, ok := got[at]; ok {
			continue
		}
		w.missing++
		if at >= complete {
			w.t.Fatalf("series %d lacks %d and says to be complete from %d; %d points from %d to %d are there, newest written %d",
				i, at, complete, len(got), from, to, w.newest[i])
		}
		if v, ok := w.down[i][at]; w.writeBack && (!ok || v != w.points[i][at]) {
			w.t.Fatalf("series %d lacks %d, which the store behind has not got", i, at)
		}
	}
}

// readLabels asks which values of a label have points in a range.
func (w *honestWorld) readLabels(ms []Matcher, asked func(int) bool, from, to int64) {
	values, complete, err := w.c.LabelValuesIn("b", "i", ms, from, to, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	if gone, ok := w.c.GoneUntil("b", ms); ok {
		complete = max(complete, gone)
	}
	for i := range honestSeries {
		if !asked(i) {
			continue
		}
		for at := range w.points[i] {
			if at < max(from, complete) || at > to || w.unsure[i][at] {
				continue
			}
			w.listed++
			if !slices.Contains(values, fmt.Sprint(i)) {
				w.t.Fatalf("series %d has a point at %d and is not listed from %d to %d, complete from %d: %v", i, at, from, to, complete, values)
			}
			break
		}
	}
}

// forget removes a range of a series because a client wants it gone.
func (w *honestWorld) forget(i int) {
	if w.newest[i] == 0 {
		return
	}
	from := w.rnd.Int64N(w.newest[i])
	to := from + w.rnd.Int64N(20*honestStepMs)
	ids, err := w.c.Select("b", []Matcher{{Type: MatchEqual, Name: "i", Value: fmt.Sprint(i)}}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, id := range ids {
		if _, err := w.c.Delete(id, from, to); errors.Is(err, ErrNoMemory) {
			for at := range w.points[i] {
				w.unsure[i][at] = w.unsure[i][at] || at >= from && at <= to
			}
			return
		} else if err != nil {
			w.t.Fatal(err)
		}
		w.deletes++
	}
	for at := range w.points[i] {
		if at >= from && at <= to {
			delete(w.points[i], at)
			delete(w.unsure[i], at)
		}
	}
}

// send hands what is dirty to the store behind.
func (w *honestWorld) send() {
	drain(w.c, func(o *Outgoing) {
		for k := range o.Len() {
			i := honestNumber(labelsOfRun(o, k))
			for _, s := range o.Run(k).Samples {
				w.down[i][s.T] = s.V
			}
		}
	}, 500)
}

// reload saves the cache and goes on with another that has loaded it.
func (w *honestWorld) reload() {
	var file bytes.Buffer
	if _, err := w.c.Save(&file, 1, nil); err != nil {
		w.t.Fatal(err)
	}
	st := checkCache(w.t, w.c)
	w.lost.Reclaimed += st.Reclaimed
	w.lost.Evictions += st.Evictions
	w.lost.BlobsLost += st.BlobsLost
	next := w.newCache()
	if _, err := next.Load(&file, LoadOptions{}); err != nil {
		w.t.Fatal(err)
	}
	if err := w.c.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.c = next
	w.reloads++
}

func (w *honestWorld) squeeze() {
	m := w.c.memory
	m.SetBudget(m.Used() - int64(w.rnd.IntN(4)*m.RegionBytes()))
	m.SetBudget(4 << 20)
}

func (w *honestWorld) run(operations int) {
	for range operations {
		switch x := w.rnd.IntN(1000); {
		case x < 860:
			w.write(w.rnd.IntN(honestSeries))
		case x < 930:
			w.read()
		case x < 955:
			w.c.Maintain()
		case x < 980:
			w.squeeze()
		case x < 990:
			w.forget(w.rnd.IntN(honestSeries))
		case x < 991:
			w.reload()
		case w.writeBack:
			w.send()
		}
	}
	for range 50 {
		w.read()
	}
	st := checkCache(w.t, w.c)
	w.lost.Reclaimed += st.Reclaimed
	w.lost.Evictions += st.Evictions
	w.lost.BlobsLost += st.BlobsLost
}

// TestHonest holds all answers of seeded runs to what they say.
func TestHonest(t *testing.T) {
	t.Parallel()
	const operations = 4000 // with fewer, some of the runs lose nothing
	var sum honestWorld
	seeds := uint64(2)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		for _, o := range []honestOptions{
			{seed, false, false, 0}, {seed, true, false, 0}, {seed, false, false, 60 << 10}, {seed, true, false, 60 << 10},
			{seed, false, true, 0}, {seed, true, true, 0},
		} {
			t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
				w := &honestWorld{honestOptions: o, t: t, rnd: rand.New(rand.NewPCG(o.seed, 4242))}
				w.c = w.newCache()
				for i := range honestSeries {
					w.points[i], w.unsure[i], w.down[i] = map[int64]uint64{}, map[int64]bool{}, map[int64]uint64{}
				}
				w.run(operations)
				t.Logf("%d points were missing, %d had to be there, %d values had to be listed, %d series were not found; %d reloads, %d ranges deleted; %d points reclaimed, %d evictions, %d blobs lost",
					w.missing, w.held, w.listed, w.wholeSeries, w.reloads, w.deletes, w.lost.Reclaimed, w.lost.Evictions, w.lost.BlobsLost)
				if w.missing == 0 || w.held < operations || w.listed < operations/40 || w.lost.Reclaimed == 0 && w.lost.Evictions == 0 {
					t.Error("too little happened")
				}
				sum.missing += w.missing
				sum.wholeSeries += w.wholeSeries
				sum.reloads += w.reloads
				sum.deletes += w.deletes
				sum.lost.Reclaimed += w.lost.Reclaimed
				sum.lost.Evictions += w.lost.Evictions
				sum.lost.BlobsLost += w.lost.BlobsLost
			})
		}
	}
	if sum.wholeSeries == 0 || sum.reloads == 0 || sum.deletes == 0 || sum.lost.Reclaimed == 0 || sum.lost.Evictions == 0 || sum.lost.BlobsLost == 0 {
		t.Errorf("too little happened: %d series not found, %d reloads, %d deletes, %+v", sum.wholeSeries, sum.reloads, sum.deletes, sum.lost)
	}
}
