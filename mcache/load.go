package mcache

import (
	"bufio"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"sync"
)

// Load adds what Save wrote. Series that are there already keep what they
// have, and what is read is written over it. An error that is ErrDamaged, or
// of r, leaves in the cache what else was read; other errors are Append's.
//
// Frames are independent of each other: as many as there are processors are
// checked and written at once. Blocks are not decoded but inspected: what
// passes can be decoded, and has its times in order.
func (c *Cache) Load(r io.Reader) (Saved, error) {
	var st Saved
	br := bufio.NewReader(r) // small, so that payloads go past it
	header := make([]byte, saveHeader)
	if _, err := io.ReadFull(br, header); err != nil || string(header[:len(saveMagic)]) != saveMagic {
		return st, fmt.Errorf("%w: it does not begin as one", ErrDamaged)
	}
	version := le.Uint32(header[len(saveMagic):])
	if version < saveOldest || version > saveVersion {
		return st, fmt.Errorf("%w: version %d, this program reads %d to %d", ErrDamaged, version, saveOldest, saveVersion)
	}
	st.TimeMs = int64(le.Uint64(header[len(saveMagic)+4:]))
	st.Bytes = int64(saveHeader)

	workers := runtime.GOMAXPROCS(0)
	p := loadPool{frames: make(chan loadFrame), free: make(chan []byte, workers+2)}
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			l := loader{cache: c, version: version}
			for f := range p.frames {
				p.done(l.frame(f))
				p.free <- f.payload
			}
		})
	}
	for range cap(p.free) {
		p.free <- nil
	}
	end, err := p.read(br, &st)
	close(p.frames)
	running.Wait()
	st.Series, st.Points = p.series, p.points
	switch {
	case p.err != nil:
		return st, p.err
	case err != nil:
		return st, err
	}
	if series, points := le.Uint64(end), le.Uint64(end[8:]); series != st.Series || points != st.Points {
		return st, fmt.Errorf("%w: %d series and %d points read, its end mark says %d and %d", ErrDamaged, st.Series, st.Points, series, points)
	}
	return st, nil
}

// loadFrame is a frame on its way to a worker.
type loadFrame struct {
	payload  []byte
	checksum uint32
	at, end  int64 // in the file
}

// loadPool hands frames to workers and sums up what they did. At most as many
// payloads exist as fit free.
type loadPool struct {
	frames chan loadFrame
	free   chan []byte

	mu             sync.Mutex
	series, points uint64
	err            error // of the frame that is first in the file
	errAt          int64
}

func (p *loadPool) done(f loadFrame, series, points uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.series += series
	p.points += points
	if err != nil && (p.err == nil || f.at < p.errAt) {
		p.err, p.errAt = err, f.at
	}
}

func (p *loadPool) failed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err != nil
}

// read hands out all frames up to the end mark, which it returns, or to the
// first that fails.
func (p *loadPool) read(r io.Reader, st *Saved) (end []byte, err error) {
	for !p.failed() {
		var head [frameHeader]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return nil, fmt.Errorf("%w: it ends after %d bytes, before its end mark", ErrDamaged, st.Bytes)
		}
		n := le.Uint32(head[:])
		if n > maxFrameBytes {
			return nil, fmt.Errorf("%w: frame of %d bytes at %d, limit %d", ErrDamaged, n, st.Bytes, maxFrameBytes)
		}
		f := loadFrame{payload: <-p.free, checksum: le.Uint32(head[4:]), at: st.Bytes}
		if f.payload, err = readFrame(r, f.payload, int(n)); err != nil {
			return nil, fmt.Errorf("%w: it is cut in the frame at %d", ErrDamaged, st.Bytes)
		}
		st.Bytes += int64(frameHeader + len(f.payload))
		f.end = st.Bytes
		if len(f.payload) == saveEndBytes {
			return f.payload, f.check()
		}
		p.frames <- f
	}
	return nil, nil
}

// readFrame reads n bytes into buf and leaves room for unpackSlack more behind
// them. A frame that says to be large and is not there costs no more than what
// there is.
func readFrame(r io.Reader, buf []byte, n int) ([]byte, error) {
	buf = buf[:0]
	for len(buf) < n || cap(buf) < n+unpackSlack {
		if len(buf)+unpackSlack >= cap(buf) {
			buf = append(make([]byte, 0, unpackSlack+min(n, max(2*len(buf), 2*frameBytes))), buf...)
		}
		at := len(buf)
		buf = buf[:min(n, cap(buf)-unpackSlack)]
		if _, err := io.ReadFull(r, buf[at:]); err != nil {
			return buf, err
		}
	}
	return buf, nil
}

func (f *loadFrame) check() error {
	if crc32.Checksum(f.payload, castagnoli) != f.checksum {
		return fmt.Errorf("%w: wrong checksum of the frame at %d", ErrDamaged, f.at)
	}
	return nil
}
