package remotewrite

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"mcached/remotewrite/wire"
)

// encoding is how a body is compressed.
type encoding uint8

const (
	snappyBlock encoding = iota // what the specifications say, and what none means
	zstdFrames                  // what vmagent tries first: some 0.6 of the bytes
)

func encodingOf(contentEncoding string) (encoding, error) {
	switch {
	case contentEncoding == "snappy" || contentEncoding == "" || strings.EqualFold(contentEncoding, "snappy"):
		return snappyBlock, nil
	case strings.EqualFold(contentEncoding, "zstd"):
		return zstdFrames, nil
	}
	return 0, fmt.Errorf("Content-Encoding must be snappy or zstd, got %s", wire.Quote(contentEncoding))
}

// decodedLen is how long body says that it is when it is decompressed, or -1
// if it does not say. The lease covers it.
func (h *Handler) decodedLen(e encoding, body []byte, l *lease) (n int, err error) {
	var claimed uint64
	corrupt := len(body) == 0
	switch {
	case corrupt:
	case e == snappyBlock:
		n, err = s2.DecodedLen(body)
		claimed, corrupt = uint64(n), err != nil
		// A body that claims to expand further than snappy can is corrupt, and
		// gets no memory for it.
		corrupt = corrupt || n > maxSnappyRatio*len(body) && (n <= h.o().MaxDecodedBytes || e.foreign(body) != "")
	default:
		var frame zstd.Header
		corrupt = frame.Decode(body) != nil
		if claimed = frame.FrameContentSize; !frame.HasFCS && !corrupt {
			return -1, l.take(int(min(frame.WindowSize, maxZstdWindow)))
		}
	}
	switch {
	case corrupt:
		return 0, refused{http.StatusBadRequest, 0, e.corrupt(body)}
	case claimed > uint64(h.o().MaxDecodedBytes):
		return 0, refused{http.StatusRequestEntityTooLarge, 0, h.tooLong(claimed)}
	}
	return int(claimed), l.take(int(claimed))
}

// tooLong is the error for a body of n bytes when decompressed.
func (h *Handler) tooLong(n uint64) error {
	return fmt.Errorf("%w: a body of %d bytes when decompressed, more than %d%s", errTooLarge, n, h.o().MaxDecodedBytes, h.o().flag("MaxDecodedBytes"))
}

// maxSnappyRatio is above what snappy can reach: its longest copy makes 64 bytes
// of 3, a ratio of 21.3.
const maxSnappyRatio = 32

// decompress sets decoded to what body holds, which are n bytes, or any number
// if n is below 0. The lease covers n.
func (in *intake) decompress(h *Handler, e encoding, body []byte, n int, l *lease) (err error) {
	if n < 0 {
		return in.decompressUnknown(h, body, l)
	}
	in.reserve(n)
	if e == snappyBlock {
		// It reads what snappy writes, in two thirds of the time (BenchmarkSnappy).
		in.decoded, err = s2.Decode(in.decoded[:cap(in.decoded)], body)
	} else if err = in.unzstd(body, n); err == nil && len(in.decoded) != n {
		err = errLength
	}
	if err != nil {
		return refused{http.StatusBadRequest, 0, e.corrupt(body)}
	}
	return nil
}

var errLength = errors.New("not the length that was announced")

// reserve sees to it that decoded has room for n bytes.
func (in *intake) reserve(n int) {
	if cap(in.decoded) < n {
		in.decoded = make([]byte, n+n/8)
	}
}

// maxZstdWindow is what a frame may reach back over whose length is not
// announced: what RFC 8878 wants every decoder to support. It is kept beside
// what is decoded.
const maxZstdWindow = 8 << 20

// unzstd decompresses body, which announces n bytes, into decoded. It works
// within the room that is there, which serves as the window, too.
func (in *intake) unzstd(body []byte, n int) (err error) {
	if in.zstd == nil {
		in.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxMemory(maxDecodedBytes), zstd.WithDecoderMaxWindow(maxDecodedBytes))
		if err != nil {
			return err
		}
	}
	in.decoded, err = in.zstd.DecodeAll(body, in.decoded[:0:n])
	return err
}

// decompressUnknown decompresses a body of zstd that does not announce how long
// it becomes, piece by piece, into room that is lent as it is needed.
func (in *intake) decompressUnknown(h *Handler, body []byte, l *lease) (err error) {
	if in.zstdStream == nil {
		if in.zstdStream, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow)); err != nil {
			return err
		}
	}
	if err = in.zstdStream.Reset(bytes.NewReader(body)); err == nil {
		in.decoded, err = readAll(in.decoded[:0], in.zstdStream, h.o().MaxDecodedBytes+1, l)
	}
	_ = in.zstdStream.Reset(nil) // it keeps no body
	switch {
	case errors.As(err, new(refused)):
		return err
	case err != nil:
		return refused{http.StatusBadRequest, 0, zstdFrames.corrupt(body)}
	case len(in.decoded) > h.o().MaxDecodedBytes:
		return refused{http.StatusRequestEntityTooLarge, 0, fmt.Errorf("%w: a body of more than %d bytes when decompressed%s",
			errTooLarge, h.o().MaxDecodedBytes, h.o().flag("MaxDecodedBytes"))}
	}
	return nil
}

// corrupt is the error for a body that is not compressed as e says.
func (e encoding) corrupt(body []byte) error {
	if len(body) == 0 {
		return errors.New("the body is empty")
	}
	what := "a block of snappy"
	if e == zstdFrames {
		what = "zstd"
	}
	if looks := e.foreign(body); looks != "" {
		return fmt.Errorf("the body, of %d bytes, is not %s: it looks like %s", len(body), what, looks)
	}
	if n, err := s2.DecodedLen(body); e == snappyBlock && err == nil && n > maxSnappyRatio*len(body) {
		return fmt.Errorf("the body is not %s: its %d bytes cannot hold %d", what, len(body), n)
	}
	return fmt.Errorf("the body, of %d bytes, is not %s, or damaged", len(body), what)
}

const zstdMagic = "\x28\xb5\x2f\xfd"

// foreign says what a body looks like that is not what e says; empty if it
// looks like nothing else.
func (e encoding) foreign(body []byte) string {
	for _, f := range [...]struct {
		magic, name string
	}{
		{"\xff\x06\x00\x00sNaPpY", "framed snappy, which is for streams"},
		{"\x1f\x8b", "gzip"},
		{zstdMagic, "zstd, which is taken with Content-Encoding: zstd"},
		{"\x04\x22\x4d\x18", "lz4"},
	} {
		if !bytes.HasPrefix(body, []byte(f.magic)) {
			continue
		}
		if e == zstdFrames && f.magic == zstdMagic {
			return ""
		}
		return f.name
	}
	switch {
	case isZlib(body):
		return "zlib"
	case isRequest(body):
		return "protobuf that is not compressed"
	case isText(body):
		return "text: " + wire.Quote(string(body[:min(len(body), 256)]))
	}
	if n, err := s2.DecodedLen(body); e == zstdFrames && err == nil && n <= maxSnappyRatio*len(body) && n >= len(body)/2 {
		return "a block of snappy, which is taken with Content-Encoding: snappy"
	}
	return ""
}

// isZlib reports whether b begins as a stream of zlib with the usual window: two
// bytes that are a multiple of 31, and ask for no dictionary.
func isZlib(b []byte) bool {
	const usual, dictionary = 0x78, 0x20
	return len(b) > 2 && b[0] == usual && b[1]&dictionary == 0 && (int(b[0])<<8|int(b[1]))%31 == 0
}

// isRequest reports whether b begins as a request of either protocol that is
// not compressed: with a whole field of it, and another or the end behind that.
func isRequest(b []byte) bool {
	t, i := wire.Tag(b, 0)
	switch t {
	case wire.TagV1Series, wire.TagV1Metadata, wire.TagV2Symbol, wire.TagV2Series:
	default:
		return false
	}
	if i = wire.Skip(b, t, i); i < 0 {
		return false
	}
	if i == len(b) {
		return true
	}
	_, i = wire.Tag(b, i)
	return i > 0
}

// isText reports whether what is looked at of b is for people.
func isText(b []byte) bool {
	for _, c := range b[:min(len(b), 64)] {
		if c < ' ' && c != '\n' && c != '\r' && c != '\t' || c > '~' {
			return false
		}
	}
	return true
}
