package mcache

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"mcached/mcache/block"
)

// frameSpan is where a frame lies in a file, its head included.
type frameSpan struct {
	kind     frameKind
	from, to int
}

// framesOf walks the frames of a file of the current version.
func framesOf(t testing.TB, file []byte) (all []frameSpan) {
	t.Helper()
	for at := saveHeader + 4; at < len(file); {
		if string(file[at:at+4]) != frameSync {
			t.Fatalf("no frame at %d", at)
		}
		to := at + frameHeader + int(le.Uint32(file[at+5:]))
		all = append(all, frameSpan{frameKind(file[at+4]), at, to})
		at = to
	}
	return all
}

// asUntyped makes a file of version 3 of one of the current version: their
// payloads are the same, but for the byte that says what is sizes, or a group.
func asUntyped(t testing.TB, file []byte) []byte {
	t.Helper()
	out := bytes.Clone(file[:saveHeader])
	le.PutUint32(out[len(saveMagic):], saveUntyped)
	for _, f := range framesOf(t, file) {
		payload := file[f.from+frameHeader : f.to]
		switch f.kind {
		case frameSizes:
			payload = append([]byte{oldSizes}, payload...)
		case frameGone:
			t.Fatal("groups have a byte each")
		case frameExtra: // which version 3 did not have
			continue
		}
		out = le.AppendUint32(out, uint32(len(payload)))
		out = le.AppendUint32(out, checksum(payload))
		out = append(out, payload...)
	}
	return out
}

// readFile counts what the reader, without a cache, finds in a file.
func readFile(r io.Reader) (series, points uint64, err error) {
	fr := frameReader{br: bufio.NewReader(r), maxBytes: maxFrameBytes}
	if usable, err := fr.readHeader(); !usable {
		return 0, 0, err
	}
	l := savedReader{version: fr.version}
	for ended := false; ; {
		f, err := fr.next(nil)
		if err == io.EOF && ended {
			return series, points, nil
		}
		if err == nil {
			err = f.check()
		}
		if err != nil {
			return series, points, err
		}
		if f.kind == frameEnd {
			if series != le.Uint64(f.payload) || points != le.Uint64(f.payload[8:]) {
				return series, points, errors.New("other counts")
			}
			ended = true
			continue
		}
		for l.begin(f); l.more(); {
			if err := l.read(f.kind); err != nil {
				return series, points, err
			}
			for i := range l.series {
				series++
				points += l.series[i].points
			}
		}
	}
}

// TestFrameLengths writes and reads frames of every length: none is taken for
// something else because of it.
func TestFrameLengths(t *testing.T) {
	t.Parallel()
	const longest = 5000
	payload := make([]byte, longest)
	for i := range payload {
		payload[i] = byte(rand.Uint32())
	}
	for n := range longest {
		var file bytes.Buffer
		fw := frameWriter{w: &file}
		if err := fw.header(7); err != nil {
			t.Fatal(err)
		}
		for _, kind := range []frameKind{frameSizes, frameSeries, frameExtra, frameEnd} {
			fw.buf = append(fw.buf, payload[:n]...)
			if err := fw.flush(kind); err != nil {
				t.Fatal(err)
			}
		}
		fr := frameReader{br: bufio.NewReader(&file), maxBytes: maxFrameBytes}
		if _, err := fr.readHeader(); err != nil || fr.savedMs != 7 {
			t.Fatal(err, fr.savedMs)
		}
		for _, kind := range []frameKind{frameSizes, frameSeries, frameExtra, frameEnd} {
			f, err := fr.next(nil)
			if err == nil {
				err = f.check()
			}
			if err != nil || f.kind != kind || !bytes.Equal(f.payload, payload[:n]) {
				t.Fatalf("frame %q of %d bytes: %q of %d, %v", kind, n, f.kind, len(f.payload), err)
			}
		}
		if _, err := fr.next(nil); err != io.EOF {
			t.Fatal(err)
		}
	}
}

// TestUntypedFrameLengths is TestFrameLengths for files of version 3, of which
// the end was told by its length: it is the last frame, whatever the others are.
func TestUntypedFrameLengths(t *testing.T) {
	for n := range 100 {
		for frames := range 3 {
			file := asUntyped(t, appendHeader(nil, 0))
			for k := range frames + 1 {
				payload := make([]byte, n)
				if k == frames {
					payload = make([]byte, saveEndBytes)
				}
				file = le.AppendUint32(file, uint32(len(payload)))
				file = append(le.AppendUint32(file, checksum(payload)), payload...)
			}
			fr := frameReader{br: bufio.NewReader(bytes.NewReader(file)), maxBytes: maxFrameBytes}
			if _, err := fr.readHeader(); err != nil {
				t.Fatal(err)
			}
			for k := range frames + 1 {
				f, err := fr.next(nil)
				if err == nil {
					err = f.check()
				}
				if err != nil || (f.kind == frameEnd) != (k == frames) {
					t.Fatalf("frame %d of %d of %d bytes: %q, %v", k, frames, n, f.kind, err)
				}
			}
		}
	}
}

// TestSaveEveryCount saves caches of 1 to some thousands of series and reads
// each of these files, many of them also as one of version 3.
func TestSaveEveryCount(t *testing.T) {
	t.Parallel()
	most := uint64(2000)
	if testing.Short() {
		most = 700
	}
	c := newTestCache(t, Options{Shards: 2})
	var file bytes.Buffer
	for n := uint64(1); n <= most; n++ {
		if err := c.AppendSamples("default", []Label{{"a", fmt.Sprint(n)}}, Sample{T: 1, V: n}); err != nil {
			t.Fatal(err)
		}
		file.Reset()
		if _, err := c.Save(&file, 0, nil); err != nil {
			t.Fatal(err)
		}
		files := [][]byte{file.Bytes()}
		if n < 200 || n%16 == 0 {
			files = append(files, asUntyped(t, file.Bytes()))
		}
		for k, b := range files {
			if series, points, err := readFile(bytes.NewReader(b)); err != nil || series != n || points != n {
				t.Fatalf("%d series, as version %d: %d series, %d points, %v", n, saveVersion-k, series, points, err)
			}
		}
		if n%500 != 0 && n > 3 {
			continue
		}
		d := newTestCache(t, Options{})
		if st, err := d.Load(&file, LoadOptions{}); err != nil || st.Series != n || st.Points != n {
			t.Fatalf("%d series: %+v, %v", n, st, err)
		}
	}
}

// TestLoadShortFrame loads a file of version 3 whose first frame is as long as
// its end, as those of some ten thousand series had.
func TestLoadShortFrame(t *testing.T) {
	file := asUntyped(t, saveSome(t, 20))
	payload := []byte{oldSizes}
	z := saveSizes{shards: 16, series: 17_000, setBytes: 700_000, textBytes: 17_000, pairs: 17_000, postingBytes: 1}
	for _, v := range z.fields() {
		payload = binary.AppendUvarint(payload, *v)
	}
	payload = payload[:len(payload)-1]
	for len(payload) < saveEndBytes-1 { // a number may be written longer than it need be
		payload = append(payload, 0x80)
	}
	if payload = append(payload, 0); len(payload) != saveEndBytes {
		t.Fatalf("a first frame of %d bytes", len(payload))
	}
	first := saveHeader + untypedHeader + int(le.Uint32(file[saveHeader:]))
	short := le.AppendUint32(bytes.Clone(file[:saveHeader]), saveEndBytes)
	short = append(append(le.AppendUint32(short, checksum(payload)), payload...), file[first:]...)
	d := newTestCache(t, Options{})
	if st, err := d.Load(bytes.NewReader(short), LoadOptions{}); err != nil || st.Series != 20 {
		t.Errorf("%+v, %v", st, err)
	}
}

// TestGolden loads a file of the current version and compares what is then
// written with it: a format does not change without its number. It is not of the
// cache that wrote it, which may cut its samples into blocks in another way.
// UPDATE=1 writes the file of a new version.
func TestGolden(t *testing.T) {
	path := fmt.Sprintf("testdata/snapshot-%d", saveVersion)
	want, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && os.Getenv("UPDATE") != "" {
		c := oldCacheOf(t, 1)
		c.findBucket("other").note(3, 1000)
		c.findBucket("default").cover.list = coveredOfGolden
		want = saved(t, c)
		err = os.WriteFile(path, want, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	c := newTestCache(t, Options{Memory: newTestMemory(t, 4<<20, 16<<10), Shards: 1})
	if _, err := c.Load(bytes.NewReader(want), LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	c.findBucket("default").cover.list = coveredOfGolden // what is covered depends on when a file is loaded
	got := saved(t, c)
	gotRest, gotSizes := cutSizes(t, got)
	wantRest, wantSizes := cutSizes(t, want)
	var index saveSizes
	for _, s := range c.shards {
		x := s.index.Sizes()
		index.setBytes += uint64(x.Sets)
		index.postingBytes += uint64(x.Postings)
	}
	if gotSizes.setBytes != index.setBytes || gotSizes.postingBytes != index.postingBytes || index.setBytes == 0 {
		t.Errorf("sets of %d bytes and postings of %d are said to be, of %d and %d", gotSizes.setBytes, gotSizes.postingBytes, index.setBytes, index.postingBytes)
	}
	// How many bytes an index takes is no part of the format: it is what to make room for.
	gotSizes.setBytes, gotSizes.postingBytes = wantSizes.setBytes, wantSizes.postingBytes
	if !bytes.Equal(gotRest, wantRest) || gotSizes != wantSizes {
		t.Errorf("what is written is not what version %d is: it needs another number", saveVersion)
	}
}

// cutSizes takes the frame of sizes, which is the first, out of a file.
func cutSizes(t *testing.T, file []byte) (rest []byte, z saveSizes) {
	t.Helper()
	const header = saveHeader + 4 // with its checksum
	frame := file[header:]
	if frame[4] != byte(frameSizes) {
		t.Fatalf("the first frame is of kind %q", frame[4])
	}
	end := frameHeader + int(le.Uint32(frame[5:]))
	payload := frame[frameHeader:end]
	for _, v := range z.fields() {
		x, n := binary.Uvarint(payload)
		if n <= 0 {
			t.Fatal("sizes end early")
		}
		*v, payload = x, payload[n:]
	}
	if len(payload) > 0 {
		t.Fatalf("%d bytes behind the sizes", len(payload))
	}
	return append(bytes.Clone(file[:header]), frame[end:]...), z
}

var coveredOfGolden = []Interval{{-5, 100}, {1000, 1234000}}

// saved is what c saves beside something else, at a fixed time.
func saved(t *testing.T, c *Cache) []byte {
	t.Helper()
	var file bytes.Buffer
	if _, err := c.Save(&file, 1234567, maps.All(map[string][]byte{"of another": []byte("bytes")})); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// saveSome saves some hundred series in frames of about 64 KiB, and something else.
func saveSome(t testing.TB, series int) []byte {
	t.Helper()
	c := newTestCache(t, Options{})
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range series {
		ss := make([]Sample, 300)
		for k := range ss {
			ss[k] = Sample{T: int64(k) * 15000, V: rnd.Uint64()}
		}
		if err := c.AppendSamples("default", kubernetesLabels(i), ss...); err != nil {
			t.Fatal(err)
		}
	}
	var file bytes.Buffer
	if _, err := c.Save(&file, 1, maps.All(map[string][]byte{"x": []byte("yes")})); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// TestLoadDamaged damages a small file at every byte: that is an error, never
// a panic, and what is not in a damaged frame is kept.
func TestLoadDamaged(t *testing.T) {
	c := newTestCache(t, Options{})
	for i := range 5 {
		if err := c.AppendSamples("default", kubernetesLabels(i), Sample{T: 1, V: 2}, Sample{T: 3, V: 4}); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if _, err := c.Save(&b, 0, nil); err != nil {
		t.Fatal(err)
	}
	file := b.Bytes()
	series := framesOf(t, file)[1]
	load := func(b []byte) (uint64, error) {
		d := newTestCache(t, Options{Memory: newTestMemory(t, 4<<20, 16<<10), Shards: 1})
		st, err := d.Load(bytes.NewReader(b), LoadOptions{})
		if st.Damaged == 0 && !errors.Is(err, ErrVersion) {
			t.Fatalf("nothing is damaged: %+v, %v", st, err)
		}
		if all := d.Stats().Series; uint64(all) != st.Series {
			t.Fatalf("%d series kept, %d told", all, st.Series)
		}
		return st.Series, err
	}
	for n := range file {
		want := uint64(0)
		if n >= series.to {
			want = 5
		}
		if got, err := load(file[:n]); !errors.Is(err, ErrDamaged) || got != want {
			t.Fatalf("cut at %d of %d: %d series, %v", n, len(file), got, err)
		}
		want = 5
		if n < len(saveMagic) || n >= series.from && n < series.to {
			want = 0
		}
		b := bytes.Clone(file)
		b[n] ^= 0x41
		if got, err := load(b); !errors.Is(err, ErrDamaged) || got != want {
			t.Fatalf("changed at %d of %d: %d series, %v", n, len(file), got, err)
		}
	}
	if got, err := load(append(bytes.Clone(file), 0)); !errors.Is(err, ErrDamaged) || got != 5 {
		t.Errorf("with something behind its end: %d series, %v", got, err)
	}
	later := bytes.Clone(file)
	le.PutUint32(later[len(saveMagic):], saveVersion+1)
	le.PutUint32(later[saveHeader:], checksum(later[:saveHeader]))
	if got, err := load(later); !errors.Is(err, ErrVersion) || errors.Is(err, ErrDamaged) || got != 0 {
		t.Errorf("of a later version: %d series, %v", got, err)
	}
}

// TestLoadIntact damages files of many frames at random places, in several
// ways, and holds that every series of every frame that is intact is kept.
func TestLoadIntact(t *testing.T) {
	t.Parallel()
	file := saveSome(t, 1200)
	frames := framesOf(t, file)
	if len(frames) < 10 {
		t.Fatalf("%d frames", len(frames))
	}
	inFrame := make([]int, len(frames))
	for i, f := range frames {
		if f.kind != frameSeries {
			continue
		}
		l := savedReader{version: saveVersion}
		l.begin(frame{payload: append(make([]byte, 0, f.to-f.from+block.Slack), file[f.from+frameHeader:f.to]...)})
		for l.more() {
			if err := l.read(f.kind); err != nil {
				t.Fatal(err)
			}
			inFrame[i] += len(l.series)
		}
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	lost := 0
	for round := range 60 {
		b := bytes.Clone(file)
		hit := make([]bool, len(frames))
		for range 1 + rnd.IntN(3) {
			n := []int{1, 16, 4096, 300_000}[rnd.IntN(4)]
			at := saveHeader + 4 + rnd.IntN(len(b)-n-saveHeader-4)
			if rnd.IntN(2) == 0 { // where heads are
				at = max(frames[rnd.IntN(len(frames))].from-rnd.IntN(n), saveHeader+4)
				n = min(n, len(b)-at)
			}
			if part := b[at : at+n]; rnd.IntN(2) == 0 {
				clear(part)
				part[0] ^= 1
			} else {
				for i := range part {
					part[i] = byte(rnd.Uint32())
				}
			}
			for i, f := range frames {
				hit[i] = hit[i] || !bytes.Equal(b[f.from:f.to], file[f.from:f.to])
			}
		}
		want, extra := uint64(0), 0
		for i := range frames {
			if !hit[i] {
				want += uint64(inFrame[i])
			}
		}
		d := newTestCache(t, Options{})
		st, err := d.Load(bytes.NewReader(b), LoadOptions{Extra: func(string, []byte) error { extra++; return nil }})
		if slices.Contains(hit, true) != errors.Is(err, ErrDamaged) || st.Series != want || (st.Damaged > 0) != (err != nil) || uint64(d.Stats().Series) != want {
			t.Fatalf("round %d: %d series of %d, %+v, %v", round, st.Series, want, st, err)
		}
		if end := len(frames) - 1; !hit[end] && st.LostSeries != 1200-want {
			t.Fatalf("round %d: %d series said to be lost, %d are", round, st.LostSeries, 1200-want)
		}
		if (extra == 1) == hit[len(frames)-2] {
			t.Fatalf("round %d: %d extras", round, extra)
		}
		lost += int(1200 - want)
	}
	if lost < 1200 {
		t.Errorf("%d series were lost: that shows too little", lost)
	}
}

// TestExtra carries bytes of others, in order, and says when these are refused.
func TestExtra(t *testing.T) {
	c := newTestCache(t, Options{})
	var file bytes.Buffer
	names := []string{"b", "a", "", "b"}
	st, err := c.Save(&file, 0, func(yield func(string, []byte) bool) {
		for i, n := range names {
			if !yield(n, bytes.Repeat([]byte{byte(i)}, i*1000)) {
				return
			}
		}
	})
	if err != nil || st.Bytes != int64(file.Len()) {
		t.Fatal(st, err)
	}
	var got []string
	d := newTestCache(t, Options{})
	if _, err := d.Load(bytes.NewReader(file.Bytes()), LoadOptions{Extra: func(name string, b []byte) error {
		if !bytes.Equal(b, bytes.Repeat([]byte{byte(len(got))}, len(got)*1000)) {
			t.Errorf("extra %d: %d bytes", len(got), len(b))
		}
		got = append(got, name)
		return nil
	}}); err != nil || !slices.Equal(got, names) {
		t.Errorf("%q, %v", got, err)
	}
	refuse := errors.New("not mine")
	if st, err := d.Load(&file, LoadOptions{Extra: func(name string, _ []byte) error {
		if name == "a" {
			return refuse
		}
		return nil
	}}); !errors.Is(err, refuse) || !errors.Is(err, ErrDamaged) || st.Damaged != 1 {
		t.Errorf("%+v, %v", st, err)
	}
	tooLong := func(yield func(string, []byte) bool) { yield("x", make([]byte, MaxExtra)) }
	if _, err := c.Save(io.Discard, 0, tooLong); err == nil {
		t.Error("an extra without a bound was written")
	}
}
