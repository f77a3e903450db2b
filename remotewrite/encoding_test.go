package remotewrite

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/klauspost/compress/zstd"

	"mcached/mcache"
	"mcached/remotewrite/wire"
)

// packZstd compresses as a sender does: in one frame that says its length, or
// as a stream, which does not.
func packZstd(t testing.TB, streamed bool, plain []byte, o ...zstd.EOption) []byte {
	t.Helper()
	var out bytes.Buffer
	z, err := zstd.NewWriter(&out, append(o, zstd.WithEncoderConcurrency(1))...)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	if !streamed {
		return z.EncodeAll(plain, nil)
	}
	for part := range bytes.Lines(plain) { // or anything that cuts it
		if _, err := z.Write(part); err != nil {
			t.Fatal(err)
		}
		if err := z.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// vmagent sends zstd first, and falls back to snappy when that is refused.
func TestZstd(t *testing.T) {
	both(t, func(t *testing.T, p wire.Protocol) {
		r := newReceiver(t, Options{})
		var series []Series
		var want []string
		for i := range 2000 {
			s := Series{Labels: named("x", "i", fmt.Sprint(i), "of", "a cluster with a name that is long"), Samples: []mcache.Sample{sample(0, float64(i))}}
			series = append(series, s)
			want = append(want, line(labelText(s.Labels), s.Samples...))
		}
		plain := encode(t, p, series...)
		var before, after zstd.Header
		whole, streamed := packZstd(t, false, plain), packZstd(t, true, plain)
		if before.Decode(whole) != nil || after.Decode(streamed) != nil || !before.HasFCS || after.HasFCS {
			t.Fatal("one of them should say its length, the other not")
		}
		for name, body := range map[string][]byte{
			"one frame": whole, "a stream": streamed,
			"two frames":           append(packZstd(t, true, encode(t, p, series[:1000]...)), packZstd(t, false, encode(t, p, series[1000:]...))...),
			"without a checksum":   packZstd(t, false, plain, zstd.WithEncoderCRC(false)),
			"with a window of 1K":  packZstd(t, true, plain, zstd.WithWindowSize(zstd.MinWindowSize)),
			"at the highest level": packZstd(t, false, plain, zstd.WithEncoderLevel(zstd.SpeedBestCompression)),
		} {
			for _, encoding := range []string{"zstd", "ZSTD"} {
				if name == "two frames" && p == wire.V2 {
					continue // two concatenated messages have two tables
				}
				r.Cache.RemoveBucket("default")
				answered(t, r.Post(contentType(p), encoding, body), 204, "")
				if r.Holds(want...); t.Failed() {
					t.Fatal(name)
				}
			}
		}
		// Bodies of both encodings come one after the other, to the same buffers.
		for i := range 10 {
			s := Series{Labels: named("y", "i", fmt.Sprint(i)), Samples: []mcache.Sample{sample(0, 1)}}
			want = append(want, line(labelText(s.Labels), s.Samples...))
			if i%2 == 0 {
				answered(t, r.Send(p, encode(t, p, s)), 204, "")
			} else {
				answered(t, r.Post(contentType(p), "zstd", packZstd(t, i%4 == 1, encode(t, p, s))), 204, "")
			}
		}
		r.Holds(want...)
	})
}

// frame is the head of a frame of zstd that claims a length, and what follows.
func frame(length uint64, blocks ...byte) []byte {
	b := []byte{0x28, 0xb5, 0x2f, 0xfd, 3<<6 | 1<<5} // eight bytes of length, in one segment
	return append(binary.LittleEndian.AppendUint64(b, length), blocks...)
}

// rle is a block of so many times one byte, in four bytes.
func rle(n uint32, last bool) []byte {
	h := n<<3 | 1<<1
	if last {
		h |= 1
	}
	return []byte{byte(h), byte(h >> 8), byte(h >> 16), 0}
}

// What a body of zstd says of its length and its window gets no memory beyond
// the bound, and a few bytes that stand for many cost no more than that.
func TestZstdBombs(t *testing.T) {
	const limit = 4 << 20
	r := newReceiver(t, Options{MaxDecodedBytes: limit, MaxBodyBytes: 1 << 20})
	var many []byte // 128 MiB in 4 KiB
	for range 1023 {
		many = append(many, rle(128<<10, false)...)
	}
	many = append(many, rle(128<<10, true)...)
	window := func(exponent byte) []byte { // a window, and no length
		return append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, exponent << 3}, many...)
	}
	nested := packZstd(t, false, packZstd(t, false, bytes.Repeat([]byte{0}, limit)))
	for name, c := range map[string]struct {
		body   []byte
		status int
		text   string
	}{
		"claims all there is":        {frame(1<<64-1, rle(1, true)...), 413, "a body of 18446744073709551615 bytes when decompressed, more than 4194304"},
		"claims more than the limit": {frame(limit+1, many...), 413, "a body of 4194305 bytes when decompressed, more than 4194304"},
		"claims less than it is":     {frame(1000, many...), 400, "is not zstd, or damaged"},
		"claims more than it is":     {frame(limit, rle(1, true)...), 400, "is not zstd, or damaged"},
		"claims nothing":             {window(13), 413, "a body of more than 4194304 bytes when decompressed"},
		"a window of 2 TiB":          {window(31), 400, "is not zstd, or damaged"},
		"a window of 1 GiB":          {window(20), 400, "is not zstd, or damaged"},
		"frame after frame":          {bytes.Repeat(frame(1<<20, many[:32]...), 100), 400, "is not zstd, or damaged"},
		"zstd in zstd":               {nested, 400, ""},
		"cut off":                    {nested[:len(nested)-1], 400, "is not zstd, or damaged"},
		"only a head":                {nested[:6], 400, "is not zstd, or damaged"},
		"a dictionary":               {[]byte{0x28, 0xb5, 0x2f, 0xfd, 0x21, 7, 1, 0x01, 0, 0}, 400, "is not zstd, or damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			n := allocated(func() { answered(t, r.Post(wire.ContentTypeV1, "zstd", c.body), c.status, c.text) })
			if n > maxZstdWindow+4*limit {
				t.Errorf("%d MiB allocated for %d bytes", n>>20, len(c.body))
			}
		})
	}
	r.Holds()
}

// A body of zstd is lent what it decompresses to, as one of snappy.
func TestZstdIsAdmitted(t *testing.T) {
	plain := encode(t, wire.V1, Series{Labels: named("x", "a", string(bytes.Repeat([]byte("v"), 10_000))), Samples: []mcache.Sample{sample(0, 1)}})
	for _, streamed := range []bool{false, true} {
		a := &admission{limit: 5000}
		r := newReceiver(t, Options{Admission: a.open})
		answered(t, r.Post(wire.ContentTypeV1, "zstd", packZstd(t, streamed, plain)), 503, "")
		a.limit = maxZstdWindow + 1<<20
		answered(t, r.Post(wire.ContentTypeV1, "zstd", packZstd(t, streamed, plain)), 204, "")
		if now, most := a.lent(); now != 0 || most < int64(len(plain)) {
			t.Errorf("%d bytes are lent, %d were", now, most)
		}
	}
}
