package mcache

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"mcached/kvcache"
	"mcached/mcache/block/mix"
)

// contents is everything a cache holds, by bucket and labels.
func contents(t *testing.T, c *Cache) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, s := range c.shards {
		s.mu.Lock()
		for id := range s.recs.All() {
			r := s.recs.At(uint32(id))
			if r.flags&flagInUse == 0 || r.flags&flagShadow != 0 {
				continue
			}
			o := s.exportLocked(uint32(id))
			key := o.Bucket + "|" + string(o.Key) + "|" + labelsKey(o.Labels)
			all[key] = fmt.Sprint(o.Samples, o.Starts, o.Records)
		}
		s.mu.Unlock()
	}
	return all
}

// variedCache holds series of every kind.
func variedCache(t *testing.T, blobs bool) *Cache {
	rnd := rand.New(rand.NewPCG(8, 8))
	c := newTestCache(t, Options{Blobs: blobs})
	var b Batch
	most := 400
	if testing.Short() {
		most = 200
	}
	for i := range 200 {
		b.Reset([]string{"default", "other"}[i%2])
		b.Series(c.Fingerprint(kubernetesLabels(i)))
		at := int64(1_700_000_000_000)
		for range 1 + rnd.IntN(most) {
			at += 15000 + rnd.Int64N(3)*int64(i%3)
			if i%7 == 0 && rnd.IntN(2) == 0 {
				b.Record(at, fmt.Append(nil, "record ", at))
				continue
			}
			b.Sample(at, rnd.Uint64())
			if i%5 == 0 {
				b.StartTime(at - rnd.Int64N(1000))
			}
		}
		if _, err := c.AppendNew(&b, 0, kubernetesLabels(i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 50 {
		v := le.AppendUint64(le.AppendUint64(nil, 1), rnd.Uint64())
		if err := errors.Join(c.Insert("raw", fmt.Append(nil, i), int64(i), v), c.InsertHPTS("pairs", fmt.Append(nil, i), v)); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// TestSaveLoad saves a cache with series of every kind and loads it into
// another, which then holds exactly the same.
func TestSaveLoad(t *testing.T) {
	t.Parallel()
	c := variedCache(t, false)
	var file bytes.Buffer
	saved, err := c.Save(&file, 12345, nil)
	if err != nil || saved.Bytes != int64(file.Len()) || saved.Series != 300 {
		t.Fatal(saved, err)
	}
	d := newTestCache(t, Options{Shards: 2})
	loaded, err := d.Load(bytes.NewReader(file.Bytes()), LoadOptions{})
	if err != nil || loaded.Saved != saved {
		t.Fatalf("saved %+v, loaded %+v, %v", saved, loaded, err)
	}
	want, got := contents(t, c), contents(t, d)
	if len(got) != len(want) {
		t.Errorf("%d series loaded, want %d", len(got), len(want))
	}
	for key, v := range want {
		if got[key] != v {
			t.Fatalf("series %s differs", key)
		}
	}
	checkCache(t, d)
	// Loading once more changes nothing.
	if _, err := d.Load(bytes.NewReader(file.Bytes()), LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	if points := d.Stats().Points; points != c.Stats().Points {
		t.Errorf("%d points after loading twice, want %d", points, c.Stats().Points)
	}
}

// oldCache is what was saved to testdata/snapshot-N, by the programs that wrote
// version N.
func oldCache(t testing.TB) *Cache { return oldCacheOf(t, 2) }

func oldCacheOf(t testing.TB, shards int) *Cache {
	c := newTestCache(t, Options{Memory: newTestMemory(t, 4<<20, 16<<10), Shards: shards})
	for i := range 20 {
		var ss []Sample
		for k := range 10*i + 1 {
			ss = append(ss, Sample{T: int64(1_700_000_000_000 + 15000*k + k%3*i/10), V: math.Float64bits(float64(i*k) / 8)})
		}
		if err := c.AppendSamples("default", kubernetesLabels(i), ss...); err != nil {
			t.Fatal(err)
		}
	}
	var b Batch
	b.Reset("other")
	b.Series(c.Fingerprint(name("typed")))
	b.Sample(1000, 1)
	b.StartTime(500)
	b.Record(2000, []byte("histogram"))
	if _, err := c.AppendNew(&b, 0, name("typed")); err != nil {
		t.Fatal(err)
	}
	if err := c.Insert("raw", []byte("key"), 7, le.AppendUint64(nil, 42)); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestLoadOld loads files of every version there was.
func TestLoadOld(t *testing.T) {
	want := contents(t, oldCache(t))
	for version := uint32(saveOldest); version <= saveVersion; version++ {
		file, err := os.ReadFile(fmt.Sprintf("testdata/snapshot-%d", version))
		if err != nil {
			t.Fatal(err)
		}
		if v := le.Uint32(file[len(saveMagic):]); v != version {
			t.Fatalf("file of version %d is of version %d", version, v)
		}
		c := newTestCache(t, Options{})
		st, err := c.Load(bytes.NewReader(file), LoadOptions{})
		if err != nil || st.TimeMs != 1234567 || st.Series != 22 {
			t.Fatalf("version %d: %+v, %v", version, st, err)
		}
		if got := contents(t, c); !maps.Equal(got, want) {
			t.Errorf("version %d: %d series, want %d, or they differ", version, len(got), len(want))
		}
		checkCache(t, c)
	}
}

// TestSaveOrder holds that series come in the order in which they were made,
// over all shards, and are made in that order by Load: batches find them by it.
func TestSaveOrder(t *testing.T) {
	t.Parallel()
	const series = 3000
	c := newTestCache(t, Options{})
	for i := range series { // so that ids are used again
		if err := c.AppendSamples("brief", kubernetesLabels(i), Sample{T: 1, V: 2}); err != nil {
			t.Fatal(err)
		}
	}
	c.RemoveBucket("brief")
	fill(t, c, series)
	for round := range 3 {
		var file bytes.Buffer
		if _, err := c.Save(&file, 0, nil); err != nil {
			t.Fatal(err)
		}
		d := newTestCache(t, Options{Shards: 4 << round})
		if _, err := d.Load(&file, LoadOptions{}); err != nil {
			t.Fatal(err)
		}
		bk, guessed := d.findBucket("default"), 0
		for _, s := range d.shards {
			var places []batchPlace
			for i := range series {
				if f := d.Fingerprint(kubernetesLabels(i)).in(bk); d.shardOf(f) == s {
					places = append(places, batchPlace{fp: f})
				}
			}
			s.mu.Lock()
			s.findAllLocked(places)
			guessed += s.guessLocked(places)
			s.mu.Unlock()
		}
		if guessed < series*9/10 {
			t.Errorf("round %d: %d of %d are where they are looked for", round, guessed, series)
		}
		c = d
	}
}

// TestSaveGone carries over what buckets remember of series that left whole.
func TestSaveGone(t *testing.T) {
	c := newTestCache(t, Options{})
	for _, metric := range []string{"went", "stays"} {
		if err := c.AppendSamples("default", name(metric), Sample{T: 5000, V: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.AppendSamples("empty", name("went"), Sample{T: 7000, V: 1}); err != nil {
		t.Fatal(err)
	}
	for _, bucket := range []string{"default", "empty"} {
		f := c.Fingerprint(name("went")).in(c.findBucket(bucket))
		s := c.shardOf(f)
		s.mu.Lock()
		id := s.findLocked(f)
		s.lost += uint64(s.pointsLocked(id))
		s.noteGoneLocked(s.recs.At(id))
		s.removeLocked(id)
		s.mu.Unlock()
	}
	var file bytes.Buffer
	if _, err := c.Save(&file, 0, nil); err != nil {
		t.Fatal(err)
	}
	d := newTestCache(t, Options{Shards: 2})
	if _, err := d.Load(&file, LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	for bucket, until := range map[string]int64{"default": 5001, "empty": 7001} {
		if got, ok := d.GoneUntil(bucket, []Matcher{{Type: MatchEqual, Name: "__name__", Value: "went"}}); !ok || got != until {
			t.Errorf("%s: gone until %d, %v, want %d", bucket, got, ok, until)
		}
	}
	if got, ok := d.GoneUntil("default", []Matcher{{Type: MatchEqual, Name: "__name__", Value: "stays"}}); ok {
		t.Errorf("what stays is gone until %d", got)
	}
}

// TestSaveLost carries over what series have lost.
func TestSaveLost(t *testing.T) {
	m := newTestMemory(t, 64*kvcache.MinRegionBytes, kvcache.MinRegionBytes)
	c := newTestCache(t, Options{Memory: m, Shards: 1})
	for at := range int64(2000) {
		for i := range 10 {
			if err := c.AppendSamples("default", kubernetesLabels(i), Sample{T: at * 15_000, V: rand.Uint64()}); err != nil {
				t.Fatal(err)
			}
		}
	}
	d := newTestCache(t, Options{})
	var file bytes.Buffer
	if _, err := c.Save(&file, 0, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Load(&file, LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	lost := 0
	for i := range 10 {
		at := func(c *Cache) int64 {
			f := c.Fingerprint(kubernetesLabels(i)).in(c.findBucket("default"))
			s := c.shardOf(f)
			s.mu.Lock()
			defer s.mu.Unlock()
			id := s.findLocked(f)
			if id == noID {
				return math.MinInt64
			}
			return s.recs.At(id).completeFrom
		}
		if a, b := at(c), at(d); a != b {
			t.Errorf("series %d: complete from %d before, %d after", i, a, b)
		} else if a != math.MinInt64 {
			lost++
		}
	}
	if lost == 0 {
		t.Error("no series has lost anything")
	}
}

func BenchmarkSave(b *testing.B) {
	for _, series := range []int{10_000, 100_000} {
		for _, samples := range []int{60, 240, 480, 1920} {
			if series*samples > 50_000_000 {
				continue // minutes to write
			}
			b.Run(fmt.Sprintf("series=%d/samples=%d", series, samples), func(b *testing.B) { benchmarkSave(b, series, samples) })
		}
	}
}

func benchmarkSave(b *testing.B, series, samples int) {
	c := newTestCache(b, Options{Memory: benchMemory(b, 1<<30)})
	fps := fill(b, c, series)
	rnd := rand.New(rand.NewPCG(1, 1))
	next := make([]func() float64, series)
	for i := range next {
		_, next[i] = mix.Generator(i, rnd)
	}
	var batch Batch
	for k := 1; k < samples; k++ {
		batch.Reset("default")
		for i, f := range fps {
			batch.Series(f)
			batch.Sample(int64(k)*benchStep, math.Float64bits(next[i]()))
		}
		if _, err := c.Append(&batch); err != nil {
			b.Fatal(err)
		}
	}
	var file bytes.Buffer
	if _, err := c.Save(&file, 0, nil); err != nil {
		b.Fatal(err)
	}
	b.Run("save", func(b *testing.B) {
		cpu := cpuTime()
		for range b.N {
			file.Reset()
			if _, err := c.Save(&file, 0, nil); err != nil {
				b.Fatal(err)
			}
		}
		b.SetBytes(int64(file.Len()))
		b.ReportMetric(float64(cpuTime()-cpu)/1e6/float64(b.N), "cpu-ms/op")
	})
	b.Run("load", func(b *testing.B) {
		var cpu time.Duration
		for range b.N {
			b.StopTimer()
			m := benchMemory(b, 1<<30)
			d := newTestCache(b, Options{Memory: m})
			b.StartTimer()
			cpu -= cpuTime()
			if _, err := d.Load(bytes.NewReader(file.Bytes()), LoadOptions{}); err != nil {
				b.Fatal(err)
			}
			cpu += cpuTime()
			b.StopTimer()
			d.Close()
			m.Close()
			b.StartTimer()
		}
		b.SetBytes(int64(file.Len()))
		b.ReportMetric(float64(cpu)/1e6/float64(b.N), "cpu-ms/op")
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(series*samples), "ns/sample")
	})
}
