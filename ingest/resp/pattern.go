package resp

import (
	"bytes"
	"math/bits"
)

// A Pattern is one of Match's that many keys are held against. Between its stars
// there are segments: the first stands at the start, the last at the end, and each
// other at the first place behind the one before where it fits, since a later
// place leaves less. So a key is gone through once. To find a segment that is
// text takes what bytes.Index does; one with ? or [] takes an operation for each
// byte and each 64 elements (Baeza-Yates and Gonnet's shift-and).
type Pattern struct {
	segments []segment
	star     bool // there is one; without there is one segment, which is all
}

// segment is what stands between two stars.
type segment struct {
	text     []byte    // if it is that
	elements []byteSet // else the bytes that each of its places may have
	masks    []uint64  // by byte: of words words, the bits of the elements that it fits
	words    int
	state    []uint64
}

// byteSet is a set of bytes.
type byteSet [4]uint64

func (s *byteSet) add(c byte)      { s[c>>6] |= 1 << (c & 63) }
func (s *byteSet) has(c byte) bool { return s[c>>6]>>(c&63)&1 != 0 }

// Compile reads a pattern as Match does.
func Compile(p []byte) *Pattern {
	g := new(Pattern)
	var elements []byteSet
	for i := 0; i < len(p); {
		if p[i] == '*' {
			g.segments, elements = append(g.segments, segmentOf(elements)), nil
			g.star = true
			i++
			continue
		}
		var s byteSet
		n := 0
		for c := range 256 {
			var ok bool
			if n, ok = matchOne(p[i:], byte(c)); ok {
				s.add(byte(c))
			}
		}
		elements = append(elements, s)
		i += n
	}
	g.segments = append(g.segments, segmentOf(elements))
	return g
}

func segmentOf(elements []byteSet) segment {
	text := make([]byte, 0, len(elements))
	for i := range elements {
		e := &elements[i]
		n := 0
		for w, m := range e {
			if n += bits.OnesCount64(m); m != 0 {
				text = append(text[:i], byte(64*w+bits.TrailingZeros64(m)))
			}
		}
		if n != 1 {
			return segment{elements: elements}
		}
	}
	return segment{text: text}
}

func (s *segment) len() int { return max(len(s.text), len(s.elements)) }

// at reports whether the segment is what b begins with. b is long enough.
func (s *segment) at(b []byte) bool {
	if s.elements == nil {
		return bytes.HasPrefix(b, s.text)
	}
	for i := range s.elements {
		if !s.elements[i].has(b[i]) {
			return false
		}
	}
	return true
}

// find is the end of the first place in b where the segment fits, -1 if there is none.
func (s *segment) find(b []byte) int {
	if s.elements == nil {
		if i := bytes.Index(b, s.text); i >= 0 {
			return i + len(s.text)
		}
		return -1
	}
	s.prepare()
	clear(s.state)
	last := len(s.elements) - 1
	for i, c := range b {
		masks, carry := s.masks[int(c)*s.words:][:s.words], uint64(1)
		for w := range s.state {
			x := s.state[w]
			s.state[w] = (x<<1 | carry) & masks[w]
			carry = x >> 63
		}
		if s.state[last>>6]>>(last&63)&1 != 0 {
			return i + 1
		}
	}
	return -1
}

// prepare makes the tables of find, which few segments need.
func (s *segment) prepare() {
	if s.masks != nil {
		return
	}
	s.words = (len(s.elements) + 63) / 64
	s.masks, s.state = make([]uint64, 256*s.words), make([]uint64, s.words)
	for i := range s.elements {
		for c := range 256 {
			if s.elements[i].has(byte(c)) {
				s.masks[c*s.words+i>>6] |= 1 << (i & 63)
			}
		}
	}
}

// Match reports whether the pattern is what b is. It is not for two goroutines at
// the same time.
func (g *Pattern) Match(b []byte) bool {
	first, last := &g.segments[0], &g.segments[len(g.segments)-1]
	if !g.star {
		return len(b) == first.len() && first.at(b)
	}
	if len(b) < first.len()+last.len() || !first.at(b) || !last.at(b[len(b)-last.len():]) {
		return false
	}
	b = b[first.len() : len(b)-last.len()]
	for i := 1; i < len(g.segments)-1; i++ {
		if s := &g.segments[i]; s.len() > 0 {
			end := s.find(b)
			if end < 0 {
				return false
			}
			b = b[end:]
		}
	}
	return true
}
