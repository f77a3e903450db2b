package mcache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
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
	l := savedReader{version: saveVersion, in: []byte{0, 1, 1, 1, 1, 1}}
	if err := l.read(frameSizes); !errors.Is(err, ErrDamaged) {
		t.Errorf("no shards: %v", err)
	}
	l.in = []byte{1}
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
			l := savedReader{version: version, in: payloadOf(payload), checkRecord: func([]byte) error { return nil }}
			for left := len(l.in) + 1; l.more(); {
				if len(l.in) >= left {
					t.Fatal("no end")
				}
				left = len(l.in)
				_ = l.read(frameKind(kind))
				for i := range l.series {
					x := &l.series[i]
					if _, err := checkLabels(l.labelsOf(x)); x.flags&flagRaw == 0 && err != nil {
						t.Fatal(err)
					}
					last := int64(-MaxTime - 1)
					for _, b := range l.samplesOf(x) {
						n, err := l.decode(b.bytes, b.first)
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
