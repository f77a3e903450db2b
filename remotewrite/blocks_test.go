package remotewrite

import (
	"bytes"
	"encoding/binary"
	"net/http"
	"testing"

	"mcached/mcache/block"
	"mcached/remotewrite/wire"
	"mcached/remotewrite/writetest"
)

// withBlocks is a request of protocol 2.0 the series of which have some of their samples
// in blocks, of n each; what is left over, fewer than n, are samples.
func withBlocks(t testing.TB, n int, all ...writetest.Series) []byte {
	var codec block.Codec
	rest := make([]writetest.Series, len(all))
	fields := make([][]byte, len(all))
	for i, s := range all {
		for ; len(s.Samples) >= n; s.Samples = s.Samples[n:] {
			ss := s.Samples[:n]
			fields[i] = wire.AppendBlock(fields[i], ss[0].T, codec.Encode(nil, ss, ss[1].T-ss[0].T))
		}
		rest[i] = s
	}
	m := writetest.RequestV2(rest...)
	var body []byte
	field := func(tag byte, b []byte) {
		body = append(append(body, tag), binary.AppendUvarint(nil, uint64(len(b)))...)
		body = append(body, b...)
	}
	for _, s := range m.Symbols {
		field(wire.TagV2Symbol, []byte(s))
	}
	for i := range m.Timeseries {
		field(wire.TagV2Series, append(writetest.Marshal(t, &m.Timeseries[i]), fields[i]...))
	}
	return body
}

// long are series with samples of a quarter of an hour.
func long(n int) (all []writetest.Series) {
	for i := range n {
		s := writetest.Series{Labels: writetest.Named("long", "i", string(rune('a'+i)))}
		for k := range 60 + i {
			s.Samples = append(s.Samples, writetest.Sample(float64(-900+15*k), float64(k*i)))
		}
		all = append(all, s)
	}
	return all
}

func lines(all []writetest.Series) (want []string) {
	for _, s := range all {
		want = append(want, writetest.Line(writetest.LabelText(s.Labels), s.Samples...))
	}
	return want
}

// What comes in blocks is as if its samples had come: in a cache that has none of the
// series, has it all, or has some of it.
func TestBlocks(t *testing.T) {
	all := long(5)
	for _, had := range []int{0, 20, 60} {
		r := newReceiver(t, Options{})
		if had > 0 {
			some := long(5)
			for i := range some {
				some[i].Samples = some[i].Samples[len(some[i].Samples)-had:]
			}
			writetest.Answered(t, r.Send(wire.V2, writetest.Encode(t, wire.V2, some...)), http.StatusNoContent, "")
		}
		body := withBlocks(t, 25, all...)
		a := r.Store(t.Context(), wire.Part{Protocol: wire.Blocks, Bucket: "default", Body: body})
		if a.Status != http.StatusNoContent || a.Written.Samples != 60+61+62+63+64 {
			t.Errorf("%+v", a)
		}
		r.Holds(lines(all)...)
	}
}

// Limits and bounds are those of any request: too late a time is refused, sample for
// sample; a label that is too long, or more series than there may be, with all it has. What
// is malformed spoils the part. A part like that from anybody but a node is read without
// the blocks.
func TestBlocksAreBounded(t *testing.T) {
	all := long(3)
	ahead := writetest.Series{Labels: writetest.Named("ahead")}
	for k := range 10 {
		ahead.Samples = append(ahead.Samples, writetest.Sample(float64(k*300-600), float64(k)))
	}
	r := newReceiver(t, Options{MaxLabelValueBytes: 10})
	bad := writetest.Series{Labels: writetest.Named("bad", "x", "more than ten bytes"), Samples: all[0].Samples}
	store := func(body []byte) wire.Answer {
		return r.Store(t.Context(), wire.Part{Protocol: wire.Blocks, Bucket: "default", Body: body})
	}
	a := store(withBlocks(t, 5, append(all, ahead, bad)...))
	in := 0
	for _, x := range ahead.Samples {
		if x.T <= writetest.Now.Add(r.o().MaxAhead).UnixMilli() {
			in++
		}
	}
	if a.Status != http.StatusBadRequest || a.Written.Samples != 60+61+62+in || in == 0 || in == 10 || len(a.Reasons) != 2 || len(a.Losses) != 0 {
		t.Errorf("%+v", a)
	}
	ahead.Samples = ahead.Samples[:in]
	r.Holds(lines(append(all, ahead))...)

	good := withBlocks(t, 30, all[:1]...)
	at := bytes.IndexByte(good, wire.TagV2SeriesBlock)
	for _, body := range [][]byte{good[:len(good)-1], bytes.Replace(good, good[at+8:at+11], []byte{0xff, 0xff, 0xff}, 1)} {
		if a := store(body); a.Status != http.StatusBadRequest || !a.Whole {
			t.Errorf("%+v", a)
		}
	}
	r = newReceiver(t, Options{})
	few := writetest.Series{Labels: writetest.Named("few"), Samples: all[0].Samples[:31]}
	writetest.Answered(t, r.Send(wire.V2, withBlocks(t, 30, few)), http.StatusNoContent, "")
	r.Holds(writetest.Line(writetest.LabelText(few.Labels), few.Samples[30]))
}

// A part with blocks may be anything.
func FuzzBlocks(f *testing.F) {
	f.Add(withBlocks(f, 20, long(3)...))
	f.Add(withBlocks(f, 2, long(1)...))
	r := newReceiver(f, Options{})
	f.Fuzz(func(t *testing.T, body []byte) {
		r.T = t
		defer r.Cache.RemoveBucket("default")
		for range 2 { // into a cache that has none of it, and one that has
			r.Store(t.Context(), wire.Part{Protocol: wire.Blocks, Bucket: "default", Body: body})
		}
		if err := r.Cache.Check(); err != nil {
			t.Fatal(err)
		}
		r.Contents("default")
	})
}
