package mcache

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
)

// LoadOptions say what Load does with what it cannot judge itself.
type LoadOptions struct {
	// CheckRecord returns an error for a record's value that must not be kept. Nil
	// takes all. It is called from several goroutines, and the value is valid
	// during the call.
	CheckRecord func(value []byte) error
	// Extra is called with each of the extras of Save, one after the other, in
	// order; b is valid during the call. Its errors count as damage, but not to
	// what series hold. Nil takes none.
	Extra func(name string, b []byte) error
}

// Loaded counts what Load read. Series and Points are those that it kept.
type Loaded struct {
	Saved
	// Damaged parts of the file, frames mostly, were left out or have no end.
	Damaged int
	// LostSeries and LostPoints were in damaged parts, as far as the end of
	// the file tells.
	LostSeries, LostPoints uint64
	// Refused series, and chunks of records, are intact and were not kept: limits of
	// their bucket, a bucket that holds another kind of data, or CheckRecord.
	Refused uint64
}

// Load adds what Save wrote. Series that are there already keep what they
// have, and what is read is written over it. What is damaged is left out, and
// all else is kept; nothing that r says is believed unless it was checked.
//
// The error is the first of: an error of r; ErrNoMemory, when not all had room;
// ErrVersion, when nothing could be read; ErrDamaged; or why a series was refused.
//
// Frames are independent of each other: as many as there are processors are
// checked and written at once.
func (c *Cache) Load(r io.Reader, o LoadOptions) (Loaded, error) {
	var st Loaded
	if c.closed.Load() {
		return st, ErrClosed
	}
	c.loads.Add(1)
	defer c.loads.Add(-1)
	p := newLoadPool()
	fr := frameReader{br: bufio.NewReader(r), maxBytes: maxFrameBytes, room: p.room}
	usable, err := fr.readHeader()
	if err != nil {
		p.damage(err)
	}
	if !usable {
		st.Damaged, st.Bytes = p.damaged, fr.at
		return st, err
	}
	var running sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		running.Go(func() {
			l := c.newLoader(fr.version, o)
			for f := range p.frames {
				p.done(f, l.frame(f))
			}
		})
	}
	p.read(&fr, c.newLoader(fr.version, o), o.Extra)
	close(p.frames)
	running.Wait()
	for _, b := range *c.byName.Load() {
		c.changes.noteAll(b)
	}
	st, err = p.result(&fr)
	if p.partial || st.Refused > 0 || p.fatal != nil {
		c.forgetLoadedCoverage()
	}
	c.takeCoverage(st.TimeMs)
	return st, err
}

func (c *Cache) newLoader(version uint32, o LoadOptions) *loader {
	return &loader{cache: c, savedReader: savedReader{version: version, checkRecord: o.CheckRecord}}
}

// loadPool hands frames to workers and sums up what they did. At most as many
// payloads exist as fit free.
type loadPool struct {
	frames chan frame
	free   chan []byte

	mu       sync.Mutex
	returned sync.Cond
	bytes    int // of payloads in hand
	sum      outcome
	damaged  int
	partial  bool  // what was damaged may have been series
	fatal    error // of the file itself, or ErrNoMemory
	first    error // of what was damaged

	// As the end of the file has it.
	ended                bool
	endSeries, endPoints uint64
}

// outcome is what came of a frame.
type outcome struct {
	read, readPoints    uint64 // series that were sound, and their points
	series, points      uint64 // that were kept
	refused             uint64
	damage, why, noRoom error // why is that of the first that was refused
}

// Bounds of what is read ahead: payloads, and bytes of them beyond the first.
// A buffer that grew larger than keptPayload, for a frame of one large series,
// is not kept.
const (
	aheadPayloads = 2 // beside one for each worker
	aheadBytes    = 64 << 20
	keptPayload   = 4 * frameBytes
)

func newLoadPool() *loadPool {
	n := runtime.GOMAXPROCS(0) + aheadPayloads
	p := &loadPool{frames: make(chan frame), free: make(chan []byte, n)}
	p.returned.L = &p.mu
	for range n {
		p.free <- nil
	}
	return p
}

// room waits until a payload of n bytes may be read.
func (p *loadPool) room(n int) {
	p.mu.Lock()
	for p.bytes > 0 && p.bytes+n > aheadBytes {
		p.returned.Wait()
	}
	p.bytes += n
	p.mu.Unlock()
}

// give takes a payload back, of a frame that room was found for.
func (p *loadPool) give(f frame) {
	p.mu.Lock()
	p.bytes -= len(f.payload)
	p.returned.Signal()
	p.mu.Unlock()
	if cap(f.payload) > keptPayload {
		f.payload = nil
	}
	p.free <- f.payload
}

func (p *loadPool) done(f frame, o outcome) {
	p.mu.Lock()
	p.sum.read += o.read
	p.sum.readPoints += o.readPoints
	p.sum.series += o.series
	p.sum.points += o.points
	p.sum.refused += o.refused
	if p.sum.why == nil {
		p.sum.why = o.why
	}
	if o.noRoom != nil && p.fatal == nil {
		p.fatal = o.noRoom
	}
	p.mu.Unlock()
	if o.damage != nil {
		if f.kind == frameExtra {
			p.damageExtra(o.damage)
		} else {
			p.damage(o.damage)
		}
	}
	p.give(f)
}

// damage counts a damaged part in which there may have been series.
func (p *loadPool) damage(err error) {
	p.mu.Lock()
	p.partial = true
	p.mu.Unlock()
	p.damageExtra(err)
}

// damageExtra counts a damaged part in which there were none.
func (p *loadPool) damageExtra(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.damaged++
	if p.first == nil {
		p.first = err
	}
}

func (p *loadPool) failed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fatal != nil
}

// read hands out all frames with series, and sees to all others itself.
func (p *loadPool) read(fr *frameReader, l *loader, extra func(string, []byte) error) {
	for !p.failed() {
		f, err := fr.next(<-p.free)
		switch {
		case err == io.EOF:
			return
		case errors.Is(err, ErrDamaged):
			p.damage(err)
			p.free <- nil // if room was found for it, the file was cut, and nothing follows
		case err != nil:
			p.mu.Lock()
			p.fatal = err
			p.mu.Unlock()
			return
		case f.kind == frameSeries || f.kind == frameOld:
			p.frames <- f
		case p.ended:
			p.done(f, outcome{damage: fmt.Errorf("%w: a frame at %d, behind the end", ErrDamaged, f.at)})
		case f.kind == frameEnd:
			p.done(f, p.end(f))
		case f.kind == frameExtra:
			p.done(f, handExtra(f, extra))
		default:
			p.done(f, l.frame(f))
		}
	}
}

// end takes in the end of a file.
func (p *loadPool) end(f frame) (o outcome) {
	if o.damage = f.check(); o.damage == nil && len(f.payload) != saveEndBytes {
		o.damage = fmt.Errorf("%w: end of %d bytes at %d", ErrDamaged, len(f.payload), f.at)
	}
	if o.damage == nil {
		p.ended, p.endSeries, p.endPoints = true, le.Uint64(f.payload), le.Uint64(f.payload[8:])
	}
	return o
}

func handExtra(f frame, extra func(string, []byte) error) (o outcome) {
	if o.damage = f.check(); o.damage != nil || extra == nil {
		return o
	}
	if len(f.payload) > MaxExtra+binary.MaxVarintLen32 {
		o.damage = fmt.Errorf("%w: extra of %d bytes at %d, limit %d", ErrDamaged, len(f.payload), f.at, MaxExtra)
		return o
	}
	l := savedReader{payload: f.payload}
	name := l.view()
	if l.bad {
		o.damage = fmt.Errorf("%w: extra at %d", ErrDamaged, f.at)
		return o
	}
	if err := extra(strings.Clone(name), l.payload[l.at:]); err != nil {
		o.damage = fmt.Errorf("%w: extra %q: %w", ErrDamaged, name, err)
	}
	return o
}

// result is what Load returns.
func (p *loadPool) result(fr *frameReader) (Loaded, error) {
	st := Loaded{Saved: Saved{p.sum.series, p.sum.points, fr.at, fr.savedMs}, Damaged: p.damaged, Refused: p.sum.refused}
	if p.ended {
		if p.endSeries > p.sum.read {
			st.LostSeries = p.endSeries - p.sum.read
		}
		if p.endPoints > p.sum.readPoints {
			st.LostPoints = p.endPoints - p.sum.readPoints
		}
	}
	if p.fatal != nil {
		return st, p.fatal
	}
	switch {
	case !p.ended:
		st.Damaged++
		p.partial = true
		if p.first == nil {
			p.first = fmt.Errorf("%w: it ends after %d bytes, before its end mark", ErrDamaged, fr.at)
		}
	case p.first == nil && (p.endSeries != p.sum.read || p.endPoints != p.sum.readPoints):
		st.Damaged++
		p.partial = true
		p.first = fmt.Errorf("%w: %d series and %d points read, its end mark says %d and %d", ErrDamaged, p.sum.read, p.sum.readPoints, p.endSeries, p.endPoints)
	}
	if p.first != nil {
		return st, p.first
	}
	return st, p.sum.why
}
