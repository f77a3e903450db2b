package block

import (
	"encoding/binary"
	"fmt"
)

// A block that is not full yet may be a list of sections, one for each head
// that was sealed into it. To add one, what is there is copied, not decoded: a
// sample is encoded in its section, and once more whenever the sections become one,
// as when the block is full.
const (
	// MaxSections bounds what the heads of a series that is on no grid, which
	// are short, spend on headers.
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
	return c.encodeSection(dst, start, ss, step)
}

// encodeSection appends one section of a block that begins at start.
func (c *Codec) encodeSection(dst []byte, start int64, ss []Sample, step int64) []byte {
	at := len(dst)
	dst = append(dst, 0, 0)
	dst = binary.AppendUvarint(dst, uint64(ss[0].T-start))
	dst = c.Encode(dst, ss, step)
	binary.LittleEndian.PutUint16(dst[at:], uint16(len(dst)-at-sectionLength))
	return dst
}

// LastSection is the last section of b, which begins at start and is sound, and
// the time of its first sample; b itself if it is a plain block.
func LastSection(b []byte, start int64) (section []byte, from int64) {
	n := Sections(b)
	if n == 1 {
		return b, start
	}
	at := 2
	for ; n > 1; n-- {
		at += sectionLength + int(binary.LittleEndian.Uint16(b[at:]))
	}
	gap, k := binary.Uvarint(b[at+sectionLength:])
	return b[at+sectionLength+k:], start + int64(gap)
}

// sections walks the sections of buf, a block with Slack bytes behind
// it, and calls f with each and the time that it begins at. Each has as many
// bytes behind it that may be read.
func eachSection(buf []byte, start int64, f func(section []byte, start int64) error) error {
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
	err = eachSection(buf, start, func(section []byte, start int64) error {
		k, err := c.decodeOne(out[n:], section, start)
		n += k
		return err
	})
	if err == nil && n != Len(buf) {
		err = fmt.Errorf("%w: %d samples in sections of %d", ErrDamaged, n, Len(buf))
	}
	return n, err
}
