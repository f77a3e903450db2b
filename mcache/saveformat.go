package mcache

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"mcached/mcache/block"
)

// What Save writes and Load reads is a file of frames:
//
//	file    header, then frames, the last of which is an end
//	header  magic (16 bytes) | version (4) | time of saving in ms (8) |
//	        CRC-32C of all before it (4)
//	frame   sync (4) | kind (1) | length of the payload (4) | CRC-32C of the
//	        payload (4) | CRC-32C of all before it (4) | payload
//
// Numbers of a fixed size are little-endian. Text is its length (uvarint) and
// bytes. A frame says what it is, and has a checksum of its head and one of its
// payload: where either is wrong, Load leaves that frame out and goes on with
// the next one, which it finds by its sync and the checksum of its head. Kinds:
//
//	N  sizes: see saveSizes, each a uvarint; the first frame
//	S  series, in sequence, each:
//	        width (1) | bucket | labels (uvarint), each name and value |
//	        what follows (1) | with savedDirty: the time (varint) from which on it
//	        has points that a downstream store has not acknowledged | with
//	        savedLost: that from which on nothing of it is missing |
//	        chunks: of blocks, of start times, of records, each a count (uvarint) of
//	        time of the first point (varint), length (uvarint), bytes
//	G  for each bucket of which series left whole: bucket | number of groups
//	        of names, for each: group (uvarint), time (varint) from which on
//	        nothing of the group is missing
//	C  for each bucket of labelled series: bucket | number of intervals of time
//	        that it covers, for each: from (varint), length (uvarint), in ms
//	X  something that is not the cache's: name | bytes that only the caller knows
//	E  end: counts of series (8) and points (8), so that a cut file shows
//
// Blocks and chunks of records are as they lie in memory; a head is written as
// one more block. Everything is checked when it is read, as if a stranger had
// written it: a checksum tells of accidents only.
//
// Series are written in the order in which they were made, over all shards: so
// they have most of their labels in common with those before, which spares
// Load most of the work, and batches go on finding them in order (find.go).
//
// # Older versions
//
// Version 4 has no intervals.
//
// Up to version 3 the header has no checksum, and a frame is length (4),
// CRC-32C of the payload (4), payload. What is a series, sizes (N) or groups
// (G) says the first byte of each. The end is 16 bytes long and the last
// frame: another may be as long, hence Load looks whether something follows.
// Version 1 has nothing of what was not acknowledged, 2 no sizes and groups.
const (
	saveMagic   = "mcached series\x00\x01"
	saveVersion = 5
	saveOldest  = 1
	saveUntyped = 3 // the last version whose frames did not say what they are
	saveHeader  = len(saveMagic) + 4 + 8

	frameSync     = "\xf5MCF" // 0xf5 is in no UTF-8
	frameHeader   = len(frameSync) + 1 + 4 + 4 + 4
	untypedHeader = 8
	frameBytes    = 256 << 10 // a frame ends with the series that reaches it
	maxFrameBytes = 1 << 30   // what Load will allocate for one
	saveEndBytes  = 16

	frameSizes  = frameKind('N')
	frameSeries = frameKind('S')
	frameGone   = frameKind('G')
	frameCover  = frameKind('C')
	frameExtra  = frameKind('X')
	frameEnd    = frameKind('E')
	// frameOld is a frame of an untyped file, of series, sizes and groups.
	frameOld = frameKind(0)

	savedDirty   = 1
	savedLost    = 2
	saveLabelled = 'L'
	saveRaw      = 'R'
	saveRawPairs = 'P'
)

// frameKind is what is in a frame.
type frameKind byte

// ErrDamaged says that what Load reads was not written by Save, or is not as it
// was written.
var ErrDamaged = errors.New("mcache: damaged or foreign file")

// ErrVersion says that what Load reads was written by a later version of Save.
var ErrVersion = errors.New("mcache: file of an unknown version")

// IsSaved reports whether a file that begins with b may be one of Save's. Of
// b, the first 16 bytes matter; a file that is shorter is none.
func IsSaved(b []byte) bool { return bytes.HasPrefix(b, []byte(saveMagic)) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

func appendHeader(dst []byte, nowMs int64) []byte {
	dst = append(dst, saveMagic...)
	dst = le.AppendUint32(dst, saveVersion)
	dst = le.AppendUint64(dst, uint64(nowMs))
	return le.AppendUint32(dst, checksum(dst))
}

// putFrameHeader fills in the head of a frame, whose payload follows it in b.
func putFrameHeader(b []byte, kind frameKind) {
	copy(b, frameSync)
	b[4] = byte(kind)
	le.PutUint32(b[5:], uint32(len(b)-frameHeader))
	le.PutUint32(b[9:], checksum(b[frameHeader:]))
	le.PutUint32(b[13:], checksum(b[:13]))
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// saveSizes is what Load makes room for before it begins: of the index, over
// all shards. It is a hint; without memory for it Load goes on without.
type saveSizes struct {
	shards, series, setBytes, textBytes, pairs, postingBytes uint64
}

func (z *saveSizes) fields() []*uint64 {
	return []*uint64{&z.shards, &z.series, &z.setBytes, &z.textBytes, &z.pairs, &z.postingBytes}
}

// frame is one frame of a file, whose payload may not be what was written.
type frame struct {
	kind     frameKind
	payload  []byte // with unpackSlack bytes of capacity behind it
	checksum uint32
	at, end  int64 // in the file
}

// check compares the payload with its checksum.
func (f *frame) check() error {
	if checksum(f.payload) != f.checksum {
		return fmt.Errorf("%w: wrong checksum of the frame at %d", ErrDamaged, f.at)
	}
	return nil
}

// frameReader reads the frames of a file. It knows nothing of what is in them.
type frameReader struct {
	br       *bufio.Reader // small, so that payloads go past it
	at       int64         // in the file
	version  uint32
	savedMs  int64       // 0 if the header is damaged
	maxBytes int         // of a payload
	room     func(n int) // waits for room for a payload of n bytes; may be nil
}

// readHeader reads the header. A header of which only the checksum is wrong is
// an ErrDamaged behind which frames may be read all the same.
func (r *frameReader) readHeader() (usable bool, err error) {
	header := make([]byte, saveHeader+4)
	n, _ := io.ReadFull(r.br, header[:saveHeader])
	if n < saveHeader || !IsSaved(header) {
		return false, fmt.Errorf("%w: it does not begin as one", ErrDamaged)
	}
	r.version = le.Uint32(header[len(saveMagic):])
	r.savedMs = int64(le.Uint64(header[len(saveMagic)+4:]))
	if r.version >= saveOldest && r.version <= saveUntyped {
		r.at = int64(saveHeader)
		return true, nil
	}
	if m, _ := io.ReadFull(r.br, header[saveHeader:]); m < 4 {
		return false, fmt.Errorf("%w: it is cut in its header", ErrDamaged)
	}
	r.at = int64(len(header))
	if checksum(header[:saveHeader]) != le.Uint32(header[saveHeader:]) {
		r.version, r.savedMs = saveVersion, 0 // as is most likely
		return true, fmt.Errorf("%w: wrong checksum of the header", ErrDamaged)
	}
	if r.version < saveOldest || r.version > saveVersion {
		return false, fmt.Errorf("%w: version %d, this program reads %d to %d", ErrVersion, r.version, saveOldest, saveVersion)
	}
	return true, nil
}

// next reads a frame into buf, which may grow. An ErrDamaged tells of bytes
// that were left out before the next call, io.EOF of the end of the file; any
// other error is of the file itself.
func (r *frameReader) next(buf []byte) (frame, error) {
	if r.version <= saveUntyped {
		return r.nextUntyped(buf)
	}
	head, err := r.br.Peek(frameHeader)
	switch {
	case len(head) == 0 && err == io.EOF:
		return frame{payload: buf}, io.EOF
	case err != nil && err != io.EOF:
		return frame{payload: buf}, err
	case len(head) < frameHeader || string(head[:4]) != frameSync || checksum(head[:13]) != le.Uint32(head[13:]):
		at := r.at
		if err := r.resync(); err != nil {
			return frame{payload: buf}, err
		}
		return frame{payload: buf}, fmt.Errorf("%w: no frame in the %d bytes at %d", ErrDamaged, r.at-at, at)
	}
	f := frame{kind: frameKind(head[4]), checksum: le.Uint32(head[9:]), at: r.at}
	n := le.Uint32(head[5:])
	r.skip(frameHeader)
	return r.readPayload(f, buf, n)
}

// resync skips to what may be the next frame, or to the end of the file. It
// looks at each byte once.
func (r *frameReader) resync() error {
	r.skip(1)
	for {
		b, err := r.br.Peek(max(r.br.Buffered(), len(frameSync)))
		if k := bytes.Index(b, []byte(frameSync)); k >= 0 {
			r.skip(k)
			if head, _ := r.br.Peek(frameHeader); len(head) == frameHeader && checksum(head[:13]) == le.Uint32(head[13:]) {
				return nil
			}
			r.skip(1)
			continue
		}
		if err != nil {
			r.skip(len(b))
			if err == io.EOF {
				return nil
			}
			return err
		}
		r.skip(len(b) - len(frameSync) + 1)
	}
}

// skip discards bytes that are in the buffer, or as many as there are.
func (r *frameReader) skip(n int) {
	k, _ := r.br.Discard(n)
	r.at += int64(k)
}

func (r *frameReader) nextUntyped(buf []byte) (frame, error) {
	f := frame{kind: frameOld, payload: buf, at: r.at}
	var head [untypedHeader]byte
	if n, err := io.ReadFull(r.br, head[:]); err != nil {
		if r.at += int64(n); n == 0 && err == io.EOF {
			return f, io.EOF
		}
		return f, fmt.Errorf("%w: it is cut at %d", ErrDamaged, r.at)
	}
	r.at += untypedHeader
	f.checksum = le.Uint32(head[4:])
	f, err := r.readPayload(f, buf, le.Uint32(head[:]))
	if err == nil && len(f.payload) == saveEndBytes {
		if _, err := r.br.Peek(1); err == io.EOF { // another frame may be as long
			f.kind = frameEnd
		}
	}
	return f, err
}

func (r *frameReader) readPayload(f frame, buf []byte, n uint32) (_ frame, err error) {
	if int64(n) > int64(r.maxBytes) {
		f.payload = buf
		k, _ := io.CopyN(io.Discard, r.br, int64(n))
		r.at += k
		return f, fmt.Errorf("%w: frame of %d bytes at %d, limit %d", ErrDamaged, n, f.at, r.maxBytes)
	}
	if r.room != nil {
		r.room(int(n))
	}
	f.payload, err = readFrame(r.br, buf, int(n))
	r.at += int64(len(f.payload))
	f.end = r.at
	switch err {
	case nil:
		return f, nil
	case io.EOF, io.ErrUnexpectedEOF:
		return f, fmt.Errorf("%w: it is cut in the frame at %d", ErrDamaged, f.at)
	default:
		return f, err
	}
}

// readFrame reads n bytes into buf and leaves room for unpackSlack more behind
// them. A frame that says to be large and is not there costs no more than twice
// what there is.
func readFrame(r io.Reader, buf []byte, n int) ([]byte, error) {
	buf = buf[:0]
	for len(buf) < n || cap(buf) < n+block.Slack {
		if len(buf)+block.Slack >= cap(buf) {
			buf = append(make([]byte, 0, block.Slack+min(n, max(2*len(buf), 2*frameBytes))), buf...)
		}
		at := len(buf)
		buf = buf[:min(n, cap(buf)-block.Slack)]
		if k, err := io.ReadFull(r, buf[at:]); err != nil {
			return buf[:at+k], err
		}
	}
	return buf, nil
}
