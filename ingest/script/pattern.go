package script

import (
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// Lua's patterns, matched by backtracking as in its own lstrlib.c, from which this
// differs in that each try is a step of the budget: a pattern of five stars on a
// long string would take days otherwise.

const (
	maxCaptures = 32
	maxNested   = 200 // what is matched by recursion
	unclosed    = -1
	position    = -2
)

type capture struct{ at, n int }

type matcher struct {
	s       *state
	l       *lua.LState
	src, p  string
	level   int
	nested  int
	capture [maxCaptures]capture
}

func (m *matcher) fail(msg string) { m.l.RaiseError("%s", msg) }

// classEnd is where the single class that begins at p ends.
func (m *matcher) classEnd(p int) int {
	if p >= len(m.p) {
		m.fail("malformed pattern (ends with '%')")
	}
	c := m.p[p]
	p++
	switch c {
	case '%':
		if p >= len(m.p) {
			m.fail("malformed pattern (ends with '%')")
		}
		return p + 1
	case '[':
		if p < len(m.p) && m.p[p] == '^' {
			p++
		}
		for first := true; first || p >= len(m.p) || m.p[p] != ']'; first = false {
			if p >= len(m.p) {
				m.fail("malformed pattern (missing ']')")
			}
			c := m.p[p]
			p++
			if c == '%' && p < len(m.p) {
				p++
			}
		}
		return p + 1
	}
	return p
}

func isAlpha(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// inClass reports whether c is of the class that the letter names.
func inClass(c, class byte) bool {
	var in bool
	switch class | 0x20 {
	case 'a':
		in = isAlpha(c)
	case 'c':
		in = c < 32 || c == 127
	case 'd':
		in = isDigit(c)
	case 'l':
		in = c >= 'a' && c <= 'z'
	case 'p':
		in = c > 32 && c < 127 && !isAlpha(c) && !isDigit(c)
	case 's':
		in = c == ' ' || c >= 9 && c <= 13
	case 'u':
		in = c >= 'A' && c <= 'Z'
	case 'w':
		in = isAlpha(c) || isDigit(c)
	case 'x':
		in = isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f'
	case 'z':
		in = c == 0
	default:
		return class == c
	}
	if !isAlpha(class) {
		return class == c
	}
	return in == (class >= 'a')
}

// inSet reports whether c is in the set p[from:to], the brackets included.
func (m *matcher) inSet(c byte, from, to int) bool {
	p, in := from+1, true
	if m.p[p] == '^' {
		in = false
		p++
	}
	for ; p < to; p++ {
		switch {
		case m.p[p] == '%':
			p++
			if inClass(c, m.p[p]) {
				return in
			}
		case p+2 < to && m.p[p+1] == '-':
			if m.p[p] <= c && c <= m.p[p+2] {
				return in
			}
			p += 2
		case m.p[p] == c:
			return in
		}
	}
	return !in
}

// single reports whether the character at s is of the class p[p:end].
func (m *matcher) single(s, p, end int) bool {
	if s >= len(m.src) {
		return false
	}
	c := m.src[s]
	switch m.p[p] {
	case '.':
		return true
	case '%':
		return inClass(c, m.p[p+1])
	case '[':
		return m.inSet(c, p, end-1)
	}
	return m.p[p] == c
}

// match is where a match of the pattern from p on ends that begins at s, or -1.
func (m *matcher) match(s, p int) int {
	if m.nested++; m.nested > maxNested {
		m.fail("pattern too complex")
	}
	defer func() { m.nested-- }()
	for {
		m.s.budget.take(m.l, 1)
		if p >= len(m.p) {
			return s
		}
		switch m.p[p] {
		case '(':
			if p+1 < len(m.p) && m.p[p+1] == ')' {
				return m.open(s, p+2, position)
			}
			return m.open(s, p+1, unclosed)
		case ')':
			return m.close(s, p+1)
		case '$':
			if p+1 == len(m.p) {
				if s == len(m.src) {
					return s
				}
				return -1
			}
		case '%':
			if p+1 < len(m.p) {
				switch c := m.p[p+1]; {
				case c == 'b':
					if s = m.balance(s, p+2); s < 0 {
						return -1
					}
					p += 4
					continue
				case c == 'f':
					p += 2
					if p >= len(m.p) || m.p[p] != '[' {
						m.fail("missing '[' after '%f' in pattern")
					}
					end := m.classEnd(p)
					before, here := byte(0), byte(0)
					if s > 0 {
						before = m.src[s-1]
					}
					if s < len(m.src) {
						here = m.src[s]
					}
					if m.inSet(before, p, end-1) || !m.inSet(here, p, end-1) {
						return -1
					}
					p = end
					continue
				case isDigit(c):
					if s = m.back(s, c); s < 0 {
						return -1
					}
					p += 2
					continue
				}
			}
		}
		end := m.classEnd(p)
		next := byte(0)
		if end < len(m.p) {
			next = m.p[end]
		}
		switch next {
		case '?':
			if m.single(s, p, end) {
				if at := m.match(s+1, end+1); at >= 0 {
					return at
				}
			}
			p = end + 1
		case '*':
			return m.most(s, p, end)
		case '+':
			if !m.single(s, p, end) {
				return -1
			}
			return m.most(s+1, p, end)
		case '-':
			for {
				if at := m.match(s, end+1); at >= 0 {
					return at
				}
				if !m.single(s, p, end) {
					return -1
				}
				s++
				m.s.budget.take(m.l, 1)
			}
		default:
			if !m.single(s, p, end) {
				return -1
			}
			s, p = s+1, end
		}
	}
}

// most tries the longest run of the class first.
func (m *matcher) most(s, p, end int) int {
	n := 0
	for m.single(s+n, p, end) {
		n++
	}
	m.s.budget.take(m.l, n/8)
	for ; n >= 0; n-- {
		if at := m.match(s+n, end+1); at >= 0 {
			return at
		}
	}
	return -1
}

func (m *matcher) open(s, p, what int) int {
	if m.level >= maxCaptures {
		m.fail("too many captures")
	}
	m.capture[m.level] = capture{s, what}
	m.level++
	at := m.match(s, p)
	if at < 0 {
		m.level--
	}
	return at
}

func (m *matcher) close(s, p int) int {
	n := m.level - 1
	for ; n >= 0 && m.capture[n].n != unclosed; n-- {
	}
	if n < 0 {
		m.fail("invalid pattern capture")
	}
	m.capture[n].n = s - m.capture[n].at
	at := m.match(s, p)
	if at < 0 {
		m.capture[n].n = unclosed
	}
	return at
}

func (m *matcher) balance(s, p int) int {
	if p+1 >= len(m.p) {
		m.fail("unbalanced pattern")
	}
	if s >= len(m.src) || m.src[s] != m.p[p] {
		return -1
	}
	open, shut, depth := m.p[p], m.p[p+1], 1
	for i := s + 1; i < len(m.src); i++ {
		if i&63 == 0 {
			m.s.budget.take(m.l, 8)
		}
		switch m.src[i] {
		case shut:
			if depth--; depth == 0 {
				return i + 1
			}
		case open:
			depth++
		}
	}
	return -1
}

// back matches what a capture has matched.
func (m *matcher) back(s int, digit byte) int {
	n := int(digit) - '1'
	if n < 0 || n >= m.level || m.capture[n].n == unclosed {
		m.fail("invalid capture index")
	}
	c := m.capture[n]
	if c.n < 0 || !strings.HasPrefix(m.src[s:], m.src[c.at:c.at+c.n]) {
		return -1
	}
	m.s.budget.take(m.l, c.n/64)
	return s + c.n
}

// find is the first match at or behind init.
func (m *matcher) find(init int) (from, to int, ok bool) {
	p := 0
	if strings.HasPrefix(m.p, "^") {
		p = 1
	}
	for s := init; s <= len(m.src); s++ {
		m.level = 0
		if end := m.match(s, p); end >= 0 {
			return s, end, true
		}
		if p == 1 {
			break
		}
	}
	return 0, 0, false
}

// get is the i-th capture, or the whole match where there is none.
func (m *matcher) get(i, from, to int) lua.LValue {
	if i >= m.level {
		if i != 0 {
			m.fail("invalid capture index")
		}
		return lua.LString(m.src[from:to])
	}
	switch c := m.capture[i]; c.n {
	case unclosed:
		m.fail("unfinished capture")
	case position:
		return lua.LNumber(c.at + 1)
	default:
		return lua.LString(m.src[c.at : c.at+c.n])
	}
	return lua.LNil
}

// push pushes all captures, or the whole match.
func (m *matcher) push(from, to int) int {
	n := max(m.level, 1)
	for i := range n {
		m.l.Push(m.get(i, from, to))
	}
	return n
}
