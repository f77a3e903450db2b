package mcache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"mcached/mcache/block"
)

// payloadOf is b with the capacity that the reader wants behind it.
func payloadOf(b []byte) []byte { return append(make([]byte, 0, len(b)+block.Slack), b...) }

// TestReadSizes takes sizes in, and makes room for them within reason.
func TestReadSizes(t *testing.T) {
	for _, factor := range []uint64{0, 1, 1 << 20, 1 << 30} {
		c := newTestCache(t, Options{Memory: newTestMemory(t, 4<<20, 16<<10), Shards: 1})
		var payload []byte
		z := saveSizes{shards: 1, series: 1000 * factor, setBytes: 1000 * factor, textBytes: 1000 * factor, pairs: 10 * factor, postingBytes: 100 * factor}
		for _, v := range z.fields() {
			payload = binary.AppendUvarint(payload, *v)
		}
		l := c.newLoader(saveVersion, LoadOptions{})
		if o := l.frame(frame{kind: frameSizes, payload: payloadOf(payload), checksum: checksum(payload)}); o != (outcome{}) {
			t.Errorf("factor %d: %+v", factor, o)
		}
		if n := c.shards[0].recs.Cap(); (n >= 1000) != (factor == 1) {
			t.Errorf("factor %d: room for %d series", factor, n)
		}
		checkCache(t, c)
	}
	l := savedReader{version: saveVersion}
	l.begin(frame{payload: []byte{0, 1, 1, 1, 1, 1}})
	if err := l.read(frameSizes); !errors.Is(err, ErrDamaged) {
		t.Errorf("no shards: %v", err)
	}
	l.begin(frame{payload: []byte{1}})
	if err := l.read(frameKind('?')); !errors.Is(err, ErrDamaged) {
		t.Errorf("an unknown kind: %v", err)
	}
}

// TestCheckRecord leaves out what the caller does not want of records, and
// keeps the rest of the series.
func TestCheckRecord(t *testing.T) {
	c := newTestCache(t, Options{})
	var b Batch
	b.Reset("default")
	b.Series(c.Fingerprint(name("m")))
	b.Sample(1, math.Float64bits(1))
	for i := range 200 {
		b.Record(int64(10+i), []byte{byte(i)})
	}
	if _, err := c.AppendNew(&b, 0, name("m")); err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	saved, err := c.Save(&file, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	bad := errors.New("bad")
	d := newTestCache(t, Options{})
	st, err := d.Load(&file, LoadOptions{CheckRecord: func(v []byte) error {
		if v[0] == 100 {
			return bad
		}
		return nil
	}})
	if err == nil || errors.Is(err, ErrDamaged) || st.Refused != 1 || st.Damaged != 0 || st.Series != 1 || st.Points < 100 || st.Points >= saved.Points {
		t.Fatalf("%+v of %+v, %v", st, saved, err)
	}
	var snap Snapshot
	d.Snapshot(mustSelect(t, d, name("m"))[0], 0, 1000, &snap)
	n := uint64(0)
	for it := snap.Iterator(); it.Next(); n++ {
		if it.OnRecord() && it.Record().Value[0] == 100 {
			t.Error("a record that was refused is there")
		}
	}
	if n != st.Points {
		t.Errorf("%d points, %d told", n, st.Points)
	}
}

// TestLoadRefused keeps all but what has no place: in a bucket of another
// width, or in one bucket more than there may be.
func TestLoadRefused(t *testing.T) {
	c := variedCache(t, false)
	var file bytes.Buffer
	if _, err := c.Save(&file, 0, nil); err != nil {
		t.Fatal(err)
	}
	d := newTestCache(t, Options{})
	if err := d.Insert("default", []byte("key"), 1, make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	st, err := d.Load(bytes.NewReader(file.Bytes()), LoadOptions{})
	if !errors.Is(err, ErrDataSize) || st.Refused != 100 || st.Series != 200 || st.Damaged != 0 || st.LostSeries != 0 {
		t.Errorf("%+v, %v", st, err)
	}
	checkCache(t, d)
	few := newTestCache(t, Options{MaxBuckets: 2})
	if st, err := few.Load(&file, LoadOptions{}); !errors.Is(err, ErrBuckets) || st.Refused == 0 || st.Series+st.Refused != 300 || st.Damaged != 0 {
		t.Errorf("%+v, %v", st, err)
	}
	checkCache(t, few)
}

// savedSeeds are payloads of all kinds, by kind.
func savedSeeds(f *testing.F) {
	c := newTestCache(f, Options{Memory: newTestMemory(f, 16<<20, 64<<10), Shards: 1})
	_ = c.AppendSamples("default", name("a"), Sample{T: 1, V: 2}, Sample{T: 3, V: 4})
	b, _ := c.shards[0].appendSeriesLocked(nil, 0)
	f.Add(byte(frameSeries), b)
	f.Add(byte(frameSeries), append(b, b...))
	f.Add(byte(frameSizes), c.appendSizes(nil))
	f.Add(byte(frameGone), appendText(nil, "b\x01\x02\x03"))
	f.Add(byte(frameCover), appendIntervals(appendText(nil, "b"), []Interval{{-1, 5}, {7, 9}}))
	d := oldCacheOf(f, 2)
	d.findBucket("default").note(3, 1000)
	var file bytes.Buffer
	if _, err := d.Save(&file, 0, nil); err != nil {
		f.Fatal(err)
	}
	for _, s := range framesOf(f, file.Bytes()) {
		f.Add(byte(s.kind), file.Bytes()[s.from+frameHeader:s.to])
	}
}

// FuzzSavedReader reads arbitrary payloads, past their checksum, without a cache.
func FuzzSavedReader(f *testing.F) {
	savedSeeds(f)
	f.Fuzz(func(t *testing.T, kind byte, payload []byte) {
		for version := uint32(saveOldest); version <= saveVersion; version++ {
			l := savedReader{version: version, checkRecord: func([]byte) error { return nil }}
			l.begin(frame{payload: payloadOf(payload)})
			for left := len(l.payload) + 1; l.more(); {
				if len(l.payload)-l.at >= left {
					t.Fatal("no end")
				}
				left = len(l.payload) - l.at
				_ = l.read(frameKind(kind))
				for i := range l.series {
					x := &l.series[i]
					if _, err := checkLabels(l.appendLabels(nil, x)); x.flags&flagRaw == 0 && err != nil {
						t.Fatal(err)
					}
					last := int64(-MaxTime - 1)
					for _, b := range l.samplesOf(x) {
						n, err := l.decode(&b)
						if err != nil || n != b.n {
							t.Fatalf("%d samples of %d: %v", n, b.n, err)
						}
						for _, y := range l.out[:n] {
							if y.T <= last || y.T > MaxTime {
								t.Fatalf("time %d after %d", y.T, last)
							}
							last = y.T
						}
					}
				}
			}
		}
	})
}

// FuzzLoadSeries loads arbitrary payloads, past their checksum.
func FuzzLoadSeries(f *testing.F) {
	c := newTestCache(f, Options{Memory: newTestMemory(f, 16<<20, 64<<10), Shards: 1})
	savedSeeds(f)
	f.Fuzz(func(t *testing.T, kind byte, payload []byte) {
		l := c.newLoader(saveVersion, LoadOptions{})
		l.frame(frame{kind: frameKind(kind), payload: payloadOf(payload), checksum: checksum(payload)})
		// What was taken in can be read.
		var snap Snapshot
		for _, s := range c.shards {
			for id := range s.recs.All() {
				if s.recs.At(uint32(id)).flags&flagInUse != 0 {
					c.Snapshot(s.seriesIDLocked(uint32(id)), -MaxTime, MaxTime, &snap)
					for it := snap.Iterator(); it.Next(); {
					}
				}
			}
		}
	})
}

// FuzzLoadFile loads arbitrary files.
func FuzzLoadFile(f *testing.F) {
	c := newTestCache(f, Options{Memory: newTestMemory(f, 16<<20, 64<<10), Shards: 1})
	var file bytes.Buffer
	if _, err := oldCacheOf(f, 2).Save(&file, 0, nil); err != nil {
		f.Fatal(err)
	}
	f.Add(file.Bytes())
	f.Add(asUntyped(f, file.Bytes()))
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := c.Load(bytes.NewReader(b), LoadOptions{})
		if (err == nil) != (st.Damaged == 0 && st.Refused == 0) {
			t.Errorf("%+v, %v", st, err)
		}
		if st.Bytes > int64(len(b)) {
			t.Errorf("%d bytes read of %d", st.Bytes, len(b))
		}
	})
}

// TestLoadOpen: a file says that a block is open, which none that Save writes is,
// and would have samples put into it where the last block of a series lies.
func TestLoadOpen(t *testing.T) {
	for _, samples := range []int{1, 2, 5} {
		ss := make([]Sample, samples)
		for i := range ss {
			ss[i] = Sample{T: 1000 + int64(i)*1000, V: uint64(i)}
		}
		b := make([]byte, block.OpenBytes(openRoom))
		block.PutOpen(b, ss)
		payload := appendText([]byte{saveLabelled}, "default")
		payload = appendText(appendText(append(payload, 1), "__name__"), "m")
		payload = binary.AppendVarint(append(payload, 0, 1), ss[0].T)
		payload = append(appendText(payload, string(b)), 0, 0)
		c := newTestCache(t, Options{Shards: 1})
		o := c.newLoader(saveVersion, LoadOptions{}).frame(frame{kind: frameSeries, payload: payloadOf(payload), checksum: checksum(payload)})
		if !errors.Is(o.damage, ErrDamaged) || o.series != 0 {
			t.Errorf("%d samples: %+v", samples, o)
		}
		for _, at := range []int64{1500, 500, 1501} {
			if err := c.AppendSamples("default", name("m"), Sample{T: at, V: 1}); err != nil {
				t.Fatal(err)
			}
		}
		checkCache(t, c)
	}
}

// TestReadAlike reads series that have much in common with those before, in
// order or not, some written so that the same labels are other bytes: each has
// its own labels, says rightly what is the same, and has its own fingerprint.
func TestReadAlike(t *testing.T) {
	c := newTestCache(t, Options{Memory: newTestMemory(t, 4<<20, 16<<10)})
	rnd := rand.New(rand.NewPCG(5, 6))
	alike, odd, empty := 0, 0, 0
	for round := range 200 {
		var payload []byte
		var want [][]Label
		ls := []Label{{"__name__", "m"}}
		for range 20 {
			switch k := rnd.IntN(len(ls)); rnd.IntN(4) {
			case 0:
				ls = append(ls, Label{fmt.Sprintf("l%02d", rnd.IntN(40)), "value"})
				slices.SortFunc(ls, byName)
				ls = slices.CompactFunc(ls, func(x, y Label) bool { return x.Name == y.Name })
			case 1:
				ls = slices.Delete(ls, k, k+1)
				ls = append(ls, Label{"zone", fmt.Sprint(rnd.IntN(3))})
				ls = slices.CompactFunc(ls, func(x, y Label) bool { return x.Name == y.Name })
			case 2:
				ls[k].Value = strings.Repeat("v", 1+rnd.IntN(200))
			}
			want = append(want, slices.Clone(ls))
			written := slices.Clone(ls)
			if rnd.IntN(10) == 0 { // one that is none
				written = append(written, Label{"~", ""})
				empty++
			}
			if rnd.IntN(4) == 0 {
				rnd.Shuffle(len(written), func(i, j int) { written[i], written[j] = written[j], written[i] })
			}
			payload = append(appendText(append(payload, saveLabelled), "b"), byte(len(written)))
			for _, l := range written {
				if rnd.IntN(16) == 0 { // a length in one byte more
					payload = append(append(payload, byte(len(l.Name))|0x80, 0), l.Name...)
					odd++
				} else {
					payload = appendText(payload, l.Name)
				}
				payload = appendText(payload, l.Value)
			}
			payload = append(payload, 0, 0, 0, 0)
		}
		l := c.newLoader(saveVersion, LoadOptions{})
		l.begin(frame{payload: payloadOf(payload)})
		if err := l.read(frameSeries); err != nil || len(l.series) != len(want) {
			t.Fatalf("round %d: %d series, %v", round, len(l.series), err)
		}
		l.aim(&outcome{})
		b, _ := c.openBucket("b", widthHPTS)
		for i := range want {
			got := l.appendLabels(nil, &l.series[i])
			if !slices.Equal(got, want[i]) {
				t.Fatalf("round %d, series %d: %v, want %v", round, i, got, want[i])
			}
			if f := c.Fingerprint(want[i]).in(b); l.targets[i].fp != f {
				t.Fatalf("round %d, series %d: fingerprint %x, want %x", round, i, l.targets[i].fp, f)
			}
			for j, k := range l.numbersOf(&l.series[i]) {
				if h := l.hashes[k]; h.name != c.HashString(got[j].Name) || h.value != c.HashString(got[j].Value) {
					t.Fatalf("round %d, series %d: hashes of another label than %v", round, i, got[j])
				}
			}
		}
		alike += len(l.labels) - len(l.known.of)
	}
	if alike < 1000 || odd < 100 || empty < 100 {
		t.Errorf("%d labels are those of a series before, %d are written oddly, %d have no value", alike, odd, empty)
	}
}

// TestLoadPairs reads series of two buckets, one of which is said to be of two kinds, and
// finds the pairs of their labels in indexes of which one comes after the other.
func TestLoadPairs(t *testing.T) {
	c := newTestCache(t, Options{Shards: 1})
	var payload []byte
	add := func(kind byte, bucket string, labels ...Label) {
		payload = append(appendText(append(payload, kind), bucket), byte(len(labels)))
		for _, l := range labels {
			payload = appendText(appendText(payload, l.Name), l.Value)
		}
		payload = append(payload, 0, 0, 0, 0)
	}
	a, b, key, none := Label{"a", "1"}, Label{"b", "2"}, Label{rawName, "key"}, Label{rawName, ""}
	for range 3 {
		add(saveLabelled, "x", a, b)
		add(saveLabelled, "y", a, Label{"b", "1"})
		add(saveLabelled, "y", b)
		add(saveRaw, "y", key)
		add(saveRaw, "z", key)
		add(saveRaw, "z", none)
	}
	l := c.newLoader(saveVersion, LoadOptions{})
	l.begin(frame{payload: payloadOf(payload)})
	if err := l.read(frameSeries); err != nil {
		t.Fatal(err)
	}
	var o outcome
	l.aim(&o)
	if o.refused != 3 || o.read != 18 {
		t.Errorf("%d of %d series are refused, want those 3 of another kind than their bucket", o.refused, o.read)
	}
	s := c.shards[0]
	s.mu.Lock()
	defer s.mu.Unlock()
	l.pairs.forget(len(l.known.of))
	for round := range 3 {
		if err := s.rebuildLocked(); err != nil { // the pairs are none any more
			t.Fatal(err)
		}
		if round == 1 { // one that has their numbers
			if _, err := s.pairLocked(Label{"c", "3"}, labelHash{c.HashString("c"), c.HashString("3")}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range l.series {
			x, bucket := &l.series[i], l.targets[i].bucket
			if bucket == nil {
				continue
			}
			if err := l.pairsLocked(s, bucket, x); err != nil {
				t.Fatal(err)
			}
			want := []Label{{bucketName, x.bucket}}
			for _, y := range l.appendLabels(nil, x) {
				if y.Value != "" {
					want = append(want, y)
				}
			}
			var got []Label
			for _, p := range s.pairIDs {
				got = append(got, Label{string(s.index.Name(p)), string(s.index.Value(p))})
			}
			if !slices.Equal(got, want) {
				t.Errorf("round %d, series %d: the pairs are %q, want %q", round, i, got, want)
			}
		}
	}
}

// TestReadTimes reads the times that a series may have beside its samples, which no
// file of testdata has: what is written as is read, both changed alike, does not pass.
func TestReadTimes(t *testing.T) {
	for what, want := range []savedSeries{
		{complete: math.MinInt64},
		{dirty: true, unsentFrom: 1000, complete: math.MinInt64},
		{complete: 2000},
		{dirty: true, unsentFrom: 1000, complete: 2000},
	} {
		payload := append(appendText(appendText(append(appendText([]byte{'L'}, "default"), 1), "__name__"), "m"), byte(what))
		if want.dirty {
			payload = append(payload, 0xd0, 0x0f) // 1000
		}
		if want.complete == 2000 {
			payload = append(payload, 0xa0, 0x1f)
		}
		l := savedReader{version: saveVersion}
		l.begin(frame{payload: payloadOf(append(payload, 0, 0, 0))})
		if err := l.read(frameSeries); err != nil || len(l.series) != 1 {
			t.Fatalf("%d: %d series, %v", what, len(l.series), err)
		}
		if x := l.series[0]; x.dirty != want.dirty || x.unsentFrom != want.unsentFrom || x.complete != want.complete {
			t.Errorf("%d: unsent %v from %d, complete from %d; want %+v", what, x.dirty, x.unsentFrom, x.complete, want)
		}
	}
}
