package block

import (
	"encoding/binary"
	"fmt"
)

// A block that is not full yet may be a list of sections, one for each head
// that was sealed into it. To add one, what is there is copied, not decoded: a
// sample is encoded twice before its block is full, once in its section and
// once when all sections become one.
const (
	// MaxSections bounds what the heads of a series that is on no grid, which
	// are short, spend on headers. Heads full of slots make four before their
	// block is full.
	MaxSections = 4

	sectionLength   = 2                               // bytes of the length
	sectionOverhead = sectionLength + 10 + 2 + 10 + 3 // of a section: length, time, and what else its block has before its packed bits
)

// Sections is how many sections b has; 1 if it is a plain block.
func Sections(b []byte) int {
	if b[1]&3 == timeSections {
		return int(b[1] >> 2)
	}
	return 1
}

// AppendSection appends to dst the block old, which begins at start, with ss,
// which come after it, as one more section.
func (c *Codec) AppendSection(dst, old []byte, start int64, ss []Sample, step int64) []byte {
	count := Sections(old)
	dst = append(dst, byte(Len(old)+len(ss)-1), timeSections|byte(count+1)<<2)
	if count == 1 {
		dst = append(binary.LittleEndian.AppendUint16(dst, uint16(1+len(old))), 0)
		dst = append(dst, old...)
	} else {
		dst = append(dst, old[2:]...)
	}
	return c.appendSection(dst, start, ss, step)
}

// appendSection appends one section of a block that begins at start.
func (c *Codec) appendSection(dst []byte, start int64, ss []Sample, step int64) []byte {
	at := len(dst)
	dst = append(dst, 0, 0)
	dst = binary.AppendUvarint(dst, uint64(ss[0].T-start))
	dst = c.Encode(dst, ss, step)
	binary.LittleEndian.PutUint16(dst[at:], uint16(len(dst)-at-sectionLength))
	return dst
}

// Last is the last section of a block.
type Last struct {
	Start int64 // of its samples
	// Samples are its block in the block's bytes, all of them if that is plain.
	Samples []byte
	head    int // where the section begins, 0 if the block is plain
}

// LastSection finds the last section of b, which begins at start and is sound.
func LastSection(b []byte, start int64) Last {
	n := Sections(b)
	if n == 1 {
		return Last{Start: start, Samples: b}
	}
	at := 2
	for ; n > 1; n-- {
		at += sectionLength + int(binary.LittleEndian.Uint16(b[at:]))
	}
	gap, k := binary.Uvarint(b[at+sectionLength:])
	return Last{Start: start + int64(gap), Samples: b[at+sectionLength+k:], head: at}
}

// ReplaceLast appends to dst the block old, which begins at start, with the
// samples ss in place of those of its last section. The two may not be more
// than a block has.
func (c *Codec) ReplaceLast(dst, old []byte, start int64, last Last, ss []Sample, step int64) []byte {
	if last.head == 0 {
		return c.Encode(dst, ss, step)
	}
	at := len(dst)
	dst = append(dst, old[:last.head]...)
	dst[at] = byte(Len(old) - Len(last.Samples) + len(ss) - 1)
	return c.appendSection(dst, start, ss, step)
}

// sections walks the sections of buf, a block with Slack bytes behind
// it, and calls f with each and the time that it begins at. Each has as many
// bytes behind it that may be read.
func sections(buf []byte, start int64, f func(section []byte, start int64) error) error {
	at, end := 2, len(buf)-Slack
	for range buf[1] >> 2 {
		if at+sectionLength > end {
			return fmt.Errorf("%w: sections", ErrDamaged)
		}
		next := at + sectionLength + int(binary.LittleEndian.Uint16(buf[at:]))
		if next > end {
			return fmt.Errorf("%w: section of %d bytes at %d of %d", ErrDamaged, next-at, at, end)
		}
		gap, k := binary.Uvarint(buf[at+sectionLength : next])
		if k <= 0 {
			return fmt.Errorf("%w: section at %d", ErrDamaged, at)
		}
		if err := f(buf[at+sectionLength+k:next+Slack], start+int64(gap)); err != nil {
			return err
		}
		at = next
	}
	if at != end {
		return fmt.Errorf("%w: sections end at %d of %d", ErrDamaged, at, end)
	}
	return nil
}

// decodeSections is decode for a block of sections.
func (c *Codec) decodeSections(out *[MaxSamples]Sample, buf []byte, start int64) (n int, err error) {
	err = sections(buf, start, func(section []byte, start int64) error {
		k, err := c.decodeOne(out[n:], section, start)
		n += k
		return err
	})
	if err == nil && n != Len(buf) {
		err = fmt.Errorf("%w: %d samples in sections of %d", ErrDamaged, n, Len(buf))
	}
	return n, err
}
