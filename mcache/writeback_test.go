package mcache

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"mcached/kvcache"
)

// downstream is a store that runs are sent to.
type downstream map[string]map[int64]string

// is compares what was found with what was written last and what the
// downstream store has had. Once a point has arrived its start time may vanish
// before it does, and it may be sent once more without.
func is(got, want, arrived string) bool {
	value, _, ok := strings.Cut(want, " since ")
	return got == want || ok && arrived == want && got == value+" since 0"
}

func labelsOfRun(o *Outgoing, i int) (ls []Label) {
	bytes := 0
	for _, n := range o.Run(i).Labels {
		l := o.Labels()[n]
		ls = append(ls, l)
		bytes += len(l.Name) + len(l.Value)
	}
	if bytes != o.Run(i).Bytes {
		panic(fmt.Sprintf("labels of %d bytes, said to be %d", bytes, o.Run(i).Bytes))
	}
	if r, _ := o.Plain(i); r.Changed == AllChanged {
		if !slices.Equal(r.Labels, o.Numbers(i)) {
			panic(fmt.Sprintf("all labels changed to %v, want %v", r.Labels, o.Numbers(i)))
		}
	} else {
		before := slices.Clone(o.Numbers(i - 1))
		if r.Change(before); !slices.Equal(before, o.Numbers(i)) || len(r.Labels) != bits.OnesCount32(r.Changed) {
			panic(fmt.Sprintf("labels %v changed to %v, said to be %v", o.Numbers(i-1), o.Numbers(i), before))
		}
	}
	return ls
}

func (d downstream) take(o *Outgoing) {
	labels, bytes := 0, 0
	for i := range o.Len() {
		run := o.Run(i)
		labels, bytes = labels+len(run.Labels), bytes+run.Bytes
		for _, x := range run.Records {
			bytes += len(x.Value)
		}
	}
	if l, b := o.Sizes(); l != labels || b != bytes {
		panic(fmt.Sprintf("%d labels and %d bytes, said to be %d and %d", labels, bytes, l, b))
	}
	for i := range o.Len() {
		run := o.Run(i)
		if o.runs[i].kept {
			continue
		}
		key := run.Bucket + "|" + labelsKey(labelsOfRun(o, i))
		if d[key] == nil {
			d[key] = map[int64]string{}
		}
		for k, x := range run.Samples {
			var start int64
			if run.Starts != nil {
				start = run.Starts[k]
			}
			d[key][x.T] = fmt.Sprint(x.V, " since ", start)
		}
		for _, x := range run.Records {
			d[key][x.T] = string(x.Value)
		}
	}
}

// drain sends everything that is dirty in one pass over all shards.
func drain(c *Cache, take func(*Outgoing), maxPoints int) {
	var o Outgoing
	for shard := range c.Shards() {
		var pass Pass
		for more := true; more; {
			more = c.Collect(shard, &pass, Due{Since: AllTicks}, maxPoints, &o)
			take(&o)
			c.Acknowledge(&o)
		}
		c.Settle(shard, &pass)
	}
}

// TestWriteBackModel writes series of all kinds, late and twice and anew, while
// the budget is squeezed and the downstream store refuses now and then. At any
// time every point is there or downstream with its last value; at the end all
// are downstream.
func TestWriteBackModel(t *testing.T) {
	t.Parallel()
	seeds := uint64(12)
	if testing.Short() {
		seeds = 3
	}
	blobsRead := uint64(0)
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { writeBackModel(t, seed, false) })
		t.Run(fmt.Sprint("blobs, seed ", seed), func(t *testing.T) { blobsRead += writeBackModel(t, seed, true).BlobsRead })
	}
	if blobsRead == 0 {
		t.Error("no blob was read with any seed")
	}
}

func writeBackModel(t *testing.T, seed uint64, blobs bool) Stats {
	rnd := rand.New(rand.NewPCG(seed, 77))
	const regions = 96
	m := newTestMemory(t, regions*kvcache.MinRegionBytes, kvcache.MinRegionBytes)
	c := newTestCache(t, Options{Memory: m, WriteBack: true, Shards: 2, AgeCycle: 500, Blobs: blobs})
	if blobs {
		c.SetMaxBytes(16 << 10) // clean series are evicted all the time
	}
	c.SetMaxDirty(1500)
	down, model := downstream{}, downstream{}
	arrived := downstream{} // as down, but for what came with its start time and again without
	var flying [2]Outgoing  // by shard; the first may hold runs of both
	var passes, ended [2]Pass
	tick := uint32(1)
	c.SetTick(tick)
	var refused, returned, kept, pinned, squeezed, late, joint int
	newest := map[string]int64{}

	take := func(o *Outgoing) {
		down.take(o)
		for i := range o.Len() {
			run := o.Run(i)
			if o.runs[i].kept {
				continue
			}
			key := run.Bucket + "|" + labelsKey(labelsOfRun(o, i))
			if arrived[key] == nil {
				arrived[key] = map[int64]string{}
			}
			for _, x := range run.Samples {
				at, got := x.T, down[key][x.T]
				if was := arrived[key][at]; !is(got, was, was) {
					arrived[key][at] = got
				}
			}
		}
	}
	labelsOf := func(k int) []Label {
		return []Label{{"__name__", fmt.Sprint("m", k%7)}, {"instance", fmt.Sprint(k)}}
	}
	write := func() {
		var b Batch
		b.Reset("default")
		k := rnd.IntN(40)
		ls := labelsOf(k)
		key := "default|" + labelsKey(ls)
		at := newest[key]
		b.Series(c.Fingerprint(ls))
		want := map[int64]string{}
		for range 1 + rnd.IntN(40) {
			at += 1000 + int64(rnd.IntN(2))*rnd.Int64N(300)
			when := at
			if rnd.IntN(20) == 0 {
				when -= rnd.Int64N(60_000)
				late++
			}
			if k%5 == 4 && rnd.IntN(3) == 0 {
				v := fmt.Sprint("record ", rnd.Uint64())
				b.Record(when, []byte(v))
				continue
			}
			v := rnd.Uint64()
			b.Sample(when, v)
			if k%5 == 3 {
				b.StartTime(1 + at - rnd.Int64N(1000))
			}
		}
		// Samples first, then records, as Append writes them.
		what := b.of(0)
		for i, x := range what.samples {
			var start int64
			if i < len(what.starts) {
				start = what.starts[i]
			}
			want[x.T] = fmt.Sprint(x.V, " since ", start)
		}
		for _, x := range what.records {
			want[x.T] = string(x.Value)
		}
		_, err := c.Append(&b)
		if err == nil && len(b.Missing()) > 0 {
			_, err = c.AppendNew(&b, 0, ls)
		}
		if errors.Is(err, ErrDirty) || errors.Is(err, ErrNoMemory) {
			refused++
			if errors.Is(err, ErrNoMemory) {
				// Some may have been written: the sender does not know, and
				// neither value is wrong until it is sent again.
				for at := range want {
					want[at] = ""
				}
				mergeInto(model, key, want)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		newest[key] = at
		mergeInto(model, key, want)
	}
	send := func() {
		i := rnd.IntN(len(flying))
		o := &flying[i]
		switch {
		case o.Len() == 0:
			due := Due{Since: AllTicks}
			if rnd.IntN(3) > 0 {
				due = Due{Sealed: rnd.IntN(2) == 0, Since: tick - min(tick, uint32(rnd.IntN(4)))}
			}
			if i == 1 && len(flying[0].parts) > 1 {
				return
			}
			if !c.Collect(i, &passes[i], due, 1+rnd.IntN(300), o) {
				ended[i], passes[i] = passes[i], Pass{}
			}
			if i == 0 && flying[1].Len() == 0 && rnd.IntN(2) == 0 {
				if !c.Collect(1, &passes[1], due, o.Points()+rnd.IntN(300), o) {
					ended[1], passes[1] = passes[1], Pass{}
				}
				joint++
			}
		case rnd.IntN(4) == 0:
			c.Return(o)
			passes = [2]Pass{}
			returned++
		default:
			for k := range o.Len() {
				if rnd.IntN(8) == 0 {
					o.Keep(k)
					passes = [2]Pass{}
					kept++
				}
			}
			take(o)
			c.Acknowledge(o)
			if rnd.IntN(8) == 0 {
				c.Settle(i, nil)
			} else {
				c.Settle(i, &ended[i]) // the zero value has not ended
			}
			ended[i] = Pass{}
		}
	}
	check := func() {
		t.Helper()
		here := downstream{}
		var snap Snapshot
		ids, err := c.Select("default", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range ids {
			ls, ok := c.Labels(id, nil)
			if !ok || !c.Snapshot(id, math.MinInt64, math.MaxInt64, &snap) {
				continue
			}
			points := map[int64]string{}
			for it := snap.Iterator(); it.Next(); {
				if it.OnRecord() {
					points[it.Record().T] = string(it.Record().Value)
				} else {
					points[it.At().T] = fmt.Sprint(it.At().V, " since ", it.StartTime())
				}
			}
			here["default|"+labelsKey(ls)] = points
		}
		for key, points := range model {
			for at, want := range points {
				if want == "" {
					continue
				}
				if got, ok := here[key][at]; ok && !is(got, want, arrived[key][at]) {
					t.Fatalf("%s at %d: the cache has %q, want %q", key, at, got, want)
				} else if !ok && !is(down[key][at], want, arrived[key][at]) {
					t.Fatalf("%s at %d: lost, downstream has %q, want %q", key, at, down[key][at], want)
				}
			}
		}
	}
	for step := range 4000 {
		switch r := rnd.IntN(100); {
		case r < 55:
			write()
		case r < 85:
			send()
		case r < 92:
			tick++
			c.SetTick(tick)
		case r < 95:
			c.Maintain()
		default:
			m.SetBudget(int64(regions/4+rnd.IntN(regions)) * kvcache.MinRegionBytes)
			squeezed++
			pinned += m.Stats().RegionsPinned
		}
		if step%400 == 399 {
			check()
			checkCache(t, c)
		}
	}
	m.SetBudget(regions * kvcache.MinRegionBytes)
	for i := range flying {
		take(&flying[i])
		c.Acknowledge(&flying[i])
	}
	drain(c, take, 1000)
	if st := c.Dirty(); st.Points != 0 || st.OldestTick != 0 {
		t.Errorf("after draining: %+v", st)
	}
	for key, points := range model {
		for at, want := range points {
			if want != "" && !is(down[key][at], want, arrived[key][at]) {
				t.Fatalf("%s at %d: downstream has %q, want %q", key, at, down[key][at], want)
			}
		}
	}
	// All is clean: everything may go.
	tick++
	c.SetTick(tick)
	for i := range c.Shards() {
		c.Settle(i, nil)
	}
	m.SetBudget(kvcache.MinRegionBytes)
	if m.Used() > m.Budget() {
		t.Errorf("%d bytes used of %d when all is clean", m.Used(), m.Budget())
	}
	st := c.Stats()
	t.Logf("%d late, %d refused, %d returned, %d squeezes, %d pinned, %d reclaimed, %d evictions", late, refused, returned, squeezed, pinned, st.Reclaimed, st.Evictions)
	if blobs && (st.BlobsWritten < 50 || st.BlobsLost == 0) {
		t.Errorf("the interesting did not happen with blobs: %+v", st)
	}
	if late == 0 || refused == 0 || returned == 0 || kept == 0 || joint == 0 || pinned == 0 || st.Reclaimed == 0 {
		t.Errorf("the interesting did not happen")
	}
	return st
}

func mergeInto(d downstream, key string, points map[int64]string) {
	if d[key] == nil {
		d[key] = map[int64]string{}
	}
	maps.Copy(d[key], points)
}

// TestWriteBackDue says which series are collected when.
func TestWriteBackDue(t *testing.T) {
	c := newTestCache(t, Options{WriteBack: true, Shards: 1})
	var o Outgoing
	collect := func(due Due) (names []string) {
		var pass Pass
		c.Collect(0, &pass, due, 1<<20, &o)
		for i := range o.Len() {
			names = append(names, fmt.Sprint(labelsOfRun(&o, i)[0].Value, " ", len(o.Run(i).Samples)))
		}
		c.Acknowledge(&o)
		return names
	}
	add := func(name string, from, n int64) {
		t.Helper()
		var ss []Sample
		for i := from; i < from+n; i++ {
			ss = append(ss, Sample{T: i * 1000, V: uint64(i)})
		}
		if err := c.AppendSamples("default", []Label{{"__name__", name}}, ss...); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(due Due, want string) {
		t.Helper()
		if got := fmt.Sprint(collect(due)); got != want {
			t.Errorf("due %+v: %s, want %s", due, got, want)
		}
	}
	c.SetTick(10)
	add("a", 0, 5)
	c.SetTick(20)
	add("b", 0, 100) // some of them are sealed, but do not fill a block
	expect(Due{Since: 9}, "[]")
	expect(Due{Since: 10}, "[a 5]")
	expect(Due{Sealed: true}, "[]")
	add("b", 100, 28)
	expect(Due{Sealed: true}, "[b 128]")
	expect(Due{Since: AllTicks}, "[]")
	add("a", 5, 1)
	add("a", 2, 1) // again
	expect(Due{Since: 20}, "[a 2]")
	if n := c.Dirty().Points; n != 0 {
		t.Errorf("%d points dirty", n)
	}
	// Buckets that are left out are collected later, and so is what is kept.
	for _, bucket := range []string{"default", "other", "third"} {
		if err := c.AppendSamples(bucket, []Label{{"__name__", "x " + bucket}}, Sample{T: 1000, V: 1}); err != nil {
			t.Fatal(err)
		}
	}
	expect(Due{Since: AllTicks, Without: []string{"default", "third", "none such"}}, "[x other 1]")
	var pass Pass
	if c.Collect(0, &pass, Due{Since: AllTicks, Without: []string{"third"}}, 10, &o); o.Len() != 1 {
		t.Fatalf("%d runs collected", o.Len())
	}
	o.Keep(0)
	c.Acknowledge(&o)
	if n := c.Dirty().Points; n != 2 {
		t.Errorf("%d points dirty, want the one that was left out and the one that was kept", n)
	}
	expect(Due{Since: AllTicks}, "[x default 1 x third 1]")
	// Raw keys are nobody's downstream.
	if err := c.Insert("raw", []byte("k"), 0, make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	// The bound, and the kick before it.
	c.SetMaxDirty(10)
	for len(c.kick) > 0 {
		<-c.Kick()
	}
	add("a", 10, 6)
	add("a", 20, 6)
	select {
	case <-c.Kick():
	default:
		t.Error("half of the bound is dirty, and no kick")
	}
	if err := c.AppendSamples("default", []Label{{"__name__", "a"}}, Sample{T: 99_000, V: 1}); !errors.Is(err, ErrDirty) {
		t.Errorf("beyond the bound: %v", err)
	}
	expect(Due{Since: AllTicks}, "[a 12]")
	add("a", 99, 1)
}

// TestWriteBackLocal: what is written locally is never handed on, neither by
// itself nor with what others write to its series later; nor does a full bound
// keep it out.
func TestWriteBackLocal(t *testing.T) {
	c := newTestCache(t, Options{WriteBack: true})
	name := func(n string) []Label { return []Label{{"__name__", n}} }
	local := func(n string, at int64) {
		t.Helper()
		if err := c.AppendLocal("default", name(n), Sample{T: at, V: 1}); err != nil {
			t.Fatal(err)
		}
	}
	global := func(n string, at int64) error { return c.AppendSamples("default", name(n), Sample{T: at, V: 2}) }
	sent := downstream{}
	expect := func(want string) {
		t.Helper()
		clear(sent)
		drain(c, sent.take, 1<<20)
		if got := fmt.Sprint(sent); got != want {
			t.Errorf("sent %s, want %s", got, want)
		}
	}
	for at := range int64(1000) { // sealed blocks as well
		local("own", at)
	}
	if n := c.Dirty().Points; n != 0 {
		t.Errorf("%d local points are dirty", n)
	}
	expect("map[]")
	if err := global("own", 1000); err != nil { // in order behind them
		t.Fatal(err)
	}
	local("own", 1001)
	local("other", 1001)
	c.SetMaxDirty(1)
	if err := global("third", 1); !errors.Is(err, ErrDirty) {
		t.Errorf("beyond the bound: %v", err)
	}
	local("third", 1)
	key := "default|" + labelsKey(name("own"))
	if drain(c, sent.take, 1<<20); len(sent) != 1 || sent[key][1000] != "2 since 0" || len(sent[key]) > 2 {
		t.Errorf("sent %v, want what was written at 1000", sent)
	}
	local("own", 1002)
	expect("map[]")
	if err := global("own", 500); err != nil { // late, among local ones
		t.Fatal(err)
	}
	expect("map[" + key + ":map[500:2 since 0]]")
	for _, n := range []string{"own", "other", "third"} {
		if len(everythingOf(t, c, n)) == 0 {
			t.Errorf("%s is not there", n)
		}
	}
}

// TestLocalBucket: no way of writing but AppendLocal leads into the local bucket.
func TestLocalBucket(t *testing.T) {
	c := newTestCache(t, Options{LocalBucket: "own"})
	labels := []Label{{"__name__", "x"}}
	if err := c.AppendLocal("own", labels, Sample{T: 1, V: 1}); err != nil {
		t.Fatal(err)
	}
	var b Batch
	b.Reset("own")
	b.Series(c.Fingerprint(labels))
	b.Sample(2, 2)
	_, batch := c.Append(&b)
	_, anew := c.AppendNew(&b, 0, labels)
	for how, err := range map[string]error{
		"Append": batch, "AppendNew": anew, "AppendSamples": c.AppendSamples("own", labels, Sample{T: 2, V: 2}),
		"Insert": c.Insert("own", []byte("k"), 0, make([]byte, 8)), "InsertHPTS": c.InsertHPTS("own", []byte("k"), make([]byte, 16)),
	} {
		if !errors.Is(err, ErrLocal) {
			t.Errorf("%s: %v", how, err)
		}
	}
	if err := c.AppendSamples("owner", labels, Sample{T: 2, V: 2}); err != nil {
		t.Error(err)
	}
}

// everythingOf reads the samples of one series of the default bucket.
func everythingOf(t *testing.T, c *Cache, name string) (ss []Sample) {
	t.Helper()
	m, err := NewMatcher(MatchEqual, "__name__", name)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := c.Select("default", []Matcher{m}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var snap Snapshot
	for _, id := range ids {
		c.Snapshot(id, math.MinInt64, math.MaxInt64, &snap)
		for it := snap.Iterator(); it.Next(); {
			ss = append(ss, it.At())
		}
	}
	return ss
}

// TestSaveUnsent carries what is dirty over a restart.
func TestSaveUnsent(t *testing.T) {
	from := newTestCache(t, Options{WriteBack: true})
	for i := range 100 {
		for at := range int64(50 + i) {
			if err := from.AppendSamples("default", kubernetesLabels(i), Sample{T: at * 15_000, V: uint64(at)}); err != nil {
				t.Fatal(err)
			}
		}
		if i == 49 {
			drain(from, func(*Outgoing) {}, 1000)
		}
	}
	for i := range 10 { // one more for some that are clean
		if err := from.AppendSamples("default", kubernetesLabels(i), Sample{T: 1 << 40, V: 1}); err != nil {
			t.Fatal(err)
		}
	}
	to := newTestCache(t, Options{WriteBack: true})
	var file bytes.Buffer
	if _, err := from.Save(&file, 0, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := to.Load(&file, LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	if a, b := from.Dirty().Points, to.Dirty().Points; a != b || a == 0 {
		t.Errorf("%d points were dirty, %d are", a, b)
	}
	if err := to.AppendSamples("default", kubernetesLabels(20), Sample{T: 1 << 41, V: 1}); err != nil {
		t.Fatal(err)
	}
	// What was dirty is pinned at once.
	to.memory.SetBudget(1)
	to.memory.SetBudget(from.memory.Budget())
	if to.memory.Stats().RegionsPinned == 0 {
		t.Error("nothing is pinned")
	}
	down := downstream{}
	drain(to, down.take, 1000)
	for i := range 100 {
		want := 0
		switch {
		case i >= 50:
			want = 50 + i
		case i < 10 || i == 20:
			want = 1
		}
		if got := len(down["default|"+labelsKey(kubernetesLabels(i))]); got != want {
			t.Errorf("series %d: %d points were sent, want %d", i, got, want)
		}
	}
}
