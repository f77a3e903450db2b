package block

import (
	"bytes"
	"hash/crc32"
	"slices"
	"testing"
)

// testBlob is the blob of 200 samples and as many records between them.
func testBlob() []byte {
	var c Codec
	var p Parts
	for at := 0; at < 200; {
		var ss []Sample
		var rs []Record
		for ; at < 200 && len(ss) < MaxSamples; at++ {
			ss = append(ss, Sample{int64(at) * 1000, uint64(at * at)})
			rs = append(rs, Record{int64(at)*1000 + 500, []byte("record")})
		}
		p.Blocks = append(p.Blocks, Part{ss[0].T, len(ss), c.Encode(nil, ss, 1000)})
		p.Records = append(p.Records, Part{rs[0].T, len(rs), AppendChunk(nil, rs)})
	}
	return p.Append(nil, 199_500)
}

// FuzzBlob opens arbitrary bytes, with their checksum put right: they are a
// blob or none, and the chunks of one can be decoded or not, without a panic.
func FuzzBlob(f *testing.F) {
	own := testBlob()
	if o, ok := OpenBlob(own); !ok || o.Points != 400 || o.First() != 0 || o.Last != 199_500 {
		f.Fatal("own blob is none")
	}
	f.Add(own)
	f.Add(own[:blobHeader+2])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, ok := OpenBlob(b); ok && !bytes.Equal(b, own) && len(b) >= 4 && crc32.Checksum(b[4:], castagnoli) != le.Uint32(b) {
			t.Fatal("a blob with a wrong checksum")
		}
		if len(b) < 4 {
			return
		}
		b = slices.Clone(b)
		le.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
		o, ok := OpenBlob(b)
		if !ok {
			return
		}
		points := 0
		var c Codec
		var out [MaxSamples]Sample
		for o.Blocks.Len() > 0 {
			start, b := o.Blocks.Next()
			if n, err := c.Decode(&out, append(slices.Clone(b), make([]byte, Slack)...), start); err == nil && n != Len(b) {
				t.Fatalf("block of %d says %d", n, Len(b))
			}
			points += Len(b)
		}
		for o.Records.Len() > 0 {
			start, c := o.Records.Next()
			points += len(AppendRecords(nil, c, start))
		}
		if points != o.Points {
			t.Fatalf("%d points, the header says %d", points, o.Points)
		}
	})
}
