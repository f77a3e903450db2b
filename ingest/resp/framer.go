package resp

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Bounds of the framing that nobody needs to set.
const (
	// maxCountLine bounds "*<count>" and "$<length>": a sign and 19 digits
	// are all that a 64-bit number can have.
	maxCountLine = 32
	// Before AUTH a client gets by with very little; these are Redis' numbers.
	unauthenticatedArgs      = 10
	unauthenticatedBulkBytes = 16 << 10
)

// A ProtocolError ends its connection, after the replies to everything before it.
type ProtocolError string

func (e ProtocolError) Error() string { return "ERR Protocol error: " + string(e) }

// Limits are the bounds of one command, as the options of a server say them.
type Limits struct {
	Args         int
	BulkBytes    int
	SkipBytes    int64 // of a bulk that is refused and can be read all the same; see TooLong
	InlineBytes  int
	CommandBytes int
}

// Unauthenticated is l as it is for a client that has yet to say AUTH.
func (l Limits) Unauthenticated() Limits {
	l.Args = min(l.Args, unauthenticatedArgs)
	l.BulkBytes = min(l.BulkBytes, unauthenticatedBulkBytes)
	l.SkipBytes = 0
	return l
}

// TooLong is the error of a command with an argument that is longer than BulkBytes
// and not than SkipBytes. The stream can be followed behind it, by one who throws
// it away.
type TooLong struct {
	Bytes int64 // of the argument
	Body  int   // where it begins, an offset as Next's n
	Left  int   // arguments that follow
}

func (e *TooLong) Error() string { return fmt.Sprintf("an argument of %d bytes is too long", e.Bytes) }

// BulkHead reads the line before an argument at the start of b: its length, and
// the length of the line, 0 when that is not complete.
func BulkHead(b []byte) (size int64, n int, err error) {
	if len(b) == 0 {
		return 0, 0, nil
	}
	if b[0] != '$' {
		return 0, 0, ProtocolError(fmt.Sprintf("expected '$', got '%c'", printable(b[0])))
	}
	size, n, err = countLine(b, 1, "invalid bulk length", "too big bulk count string")
	if err == nil && size < 0 {
		err = ProtocolError("invalid bulk length")
	}
	return size, n, err
}

// A Framer finds the commands in a stream of bytes. It remembers how far it
// has got inside a command of which only a part has arrived. So the lines of a
// command are read once if it is there as a whole, and once more where they are of
// its first part, however the stream is cut; and a bulk is never looked at.
//
// It keeps offsets from the first byte of the command, not slices, because
// the buffer may move between two calls.
type Framer struct {
	// pos is parsed up to here; only bytes from here on are looked at.
	pos int
	// want is the number of arguments that the command still lacks, 0 when
	// its first line has not been read.
	want int
	// bulk is the length of the argument that begins at pos, or -1 when its
	// "$<length>" line has not been read.
	bulk int
	// argBytes is the sum of the lengths so far.
	argBytes int
	// marks are the places of the complete arguments.
	marks []mark
	// args is what the last call found, reused by the next one.
	args [][]byte
}

// mark is the place of an argument: offsets from the command's first byte.
type mark struct{ from, to uint32 }

// keepMarks is how many marks survive a large command.
const keepMarks = 1024

// Reset forgets the command in progress.
func (f *Framer) Reset() {
	f.pos, f.want, f.bulk, f.argBytes = 0, 0, -1, 0
	if cap(f.marks) > keepMarks {
		f.marks, f.args = nil, nil
	}
	f.marks = f.marks[:0]
}

// Abandon is how to go on behind the command in progress, if a bulk of it has
// begun; see TooLong. Bytes is what that was to have.
func (f *Framer) Abandon() *TooLong {
	if f.want == 0 || f.bulk < 0 {
		return nil
	}
	return &TooLong{Bytes: int64(f.bulk), Body: f.pos, Left: f.want - 1}
}

// Pending is how many arguments of the command in progress are complete.
func (f *Framer) Pending() int { return len(f.marks) }

// Next looks for a command at the start of b, which begins at the first byte
// of the same command as in the calls before, until Next has returned an
// n > 0. Then n bytes are done with, and args is the command: views of b,
// valid until b changes or Next is called again; no arguments means that
// there is nothing to do (an empty line, *0, *-1). n is 0 when bytes are
// missing; need is then how long b has to become at the least.
func (f *Framer) Next(b []byte, l *Limits) (n int, args [][]byte, need int, err error) {
	if f.want == 0 {
		if len(b) == 0 {
			return 0, nil, 1, nil
		}
		if b[0] != '*' {
			return f.inline(b, l)
		}
		if n, args = f.whole(b, l); n > 0 {
			return n, args, 0, nil
		}
		count, end, err := countLine(b, 1, "invalid multibulk length", "too big mbulk count string")
		if end == 0 || err != nil {
			return 0, nil, len(b) + 1, err
		}
		if count <= 0 {
			return end, nil, 0, nil
		}
		if count > int64(l.Args) {
			return 0, nil, 0, ProtocolError(fmt.Sprintf("invalid multibulk length (%d arguments, the limit is %d)", count, l.Args))
		}
		f.pos, f.want, f.bulk, f.argBytes = end, int(count), -1, 0
		f.marks = f.marks[:0]
	}
	for f.want > 0 {
		if f.bulk < 0 {
			if f.pos >= len(b) {
				return 0, nil, f.pos + 1, nil
			}
			if b[f.pos] != '$' {
				return 0, nil, 0, ProtocolError(fmt.Sprintf("expected '$', got '%c'", printable(b[f.pos])))
			}
			size, end, err := countLine(b, f.pos+1, "invalid bulk length", "too big bulk count string")
			if end == 0 || err != nil {
				return 0, nil, len(b) + 1, err
			}
			if size < 0 {
				return 0, nil, 0, ProtocolError("invalid bulk length")
			}
			if size > int64(l.BulkBytes) && size <= l.SkipBytes {
				return 0, nil, 0, &TooLong{Bytes: size, Body: end, Left: f.want - 1}
			}
			if size > int64(l.BulkBytes) {
				return 0, nil, 0, ProtocolError(fmt.Sprintf("invalid bulk length (%d bytes, the limit is %d)", size, l.BulkBytes))
			}
			if f.argBytes += int(size); f.argBytes > l.CommandBytes {
				return 0, nil, 0, ProtocolError(fmt.Sprintf("command too long (%d bytes, the limit is %d)", f.argBytes, l.CommandBytes))
			}
			f.pos, f.bulk = end, int(size)
		}
		end := f.pos + f.bulk
		if len(b) < end+2 {
			return 0, nil, end + 2, nil
		}
		if b[end] != '\r' || b[end+1] != '\n' {
			return 0, nil, 0, ProtocolError("a bulk is not followed by CRLF")
		}
		f.marks = append(f.marks, mark{uint32(f.pos), uint32(end)})
		f.pos, f.bulk = end+2, -1
		f.want--
	}
	args = f.args[:0]
	for _, m := range f.marks {
		args = append(args, b[m.from:m.to:m.to])
	}
	f.args = args
	n, f.pos = f.pos, 0
	return n, args, 0, nil
}

// whole is Next for a command that is there as a whole and within all limits,
// as nearly every one is. n is 0 otherwise, and nothing was noted: Next, which
// keeps its place and names what is wrong, begins anew.
func (f *Framer) whole(b []byte, l *Limits) (n int, _ [][]byte) {
	if len(b) < 5 {
		return 0, nil
	}
	count, end := shortLine(binary.LittleEndian.Uint32(b[1:]))
	if end == 0 || uint(count-1) >= uint(l.Args) {
		return 0, nil
	}
	if cap(f.args) < count {
		f.args = make([][]byte, 0, max(8, count))
	}
	args, at, bytes := f.args[:count], 1+end, 0
	for k := range args {
		if uint(at) >= uint(len(b)) || len(b)-at < 6 || b[at] != '$' {
			return 0, nil
		}
		size, end := shortLine(binary.LittleEndian.Uint32(b[at+1:]))
		if end == 0 {
			if size, end = longLine(b[at:], l); end == 0 {
				return 0, nil
			}
		}
		from := at + 1 + end
		to := from + size
		if bytes += size; size > l.BulkBytes || to+2 > len(b) || b[to] != '\r' || b[to+1] != '\n' {
			return 0, nil
		}
		args[k], at = b[from:to:to], to+2
	}
	if bytes > l.CommandBytes {
		return 0, nil
	}
	f.args = args
	return at, args
}

const crlf = '\r' | '\n'<<8 // as a little-endian number

// shortLine reads a number of one or two digits and CRLF off a little-endian
// word. n is how many bytes those are, 0 for whatever else there is. It is
// small enough to be inlined.
func shortLine(w uint32) (v, n int) {
	d, e := w&0xff-'0', w>>8&0xff-'0'
	if d <= 9 && w>>8&0xffff == crlf {
		return int(d), 3
	}
	if d-1 < 9 && e <= 9 && w>>16 == crlf {
		return int(10*d + e), 4
	}
	return 0, 0
}

// longLine is shortLine for the line behind the first byte of b, of any length.
func longLine(b []byte, l *Limits) (v, n int) {
	long, end, err := countLine(b, 1, "", "")
	if err != nil || end == 0 || long < 0 || long > int64(l.BulkBytes) {
		return 0, 0
	}
	return int(long), end - 1
}

// countLine reads a number and CRLF at b[at:]. end is the offset behind them,
// or 0 when the line is not complete.
func countLine(b []byte, at int, invalid, tooBig ProtocolError) (v int64, end int, err error) {
	// The usual line has one to four digits.
	for i := at; i < len(b) && i < at+5; i++ {
		d := b[i] - '0'
		if d <= 9 {
			if i > at && v == 0 {
				break // a leading zero
			}
			v = v*10 + int64(d)
			continue
		}
		if i > at && b[i] == '\r' && i+1 < len(b) && b[i+1] == '\n' {
			return v, i + 2, nil
		}
		break
	}
	line := b[at:min(len(b), at+maxCountLine)]
	i := bytes.IndexByte(line, '\n')
	if i < 0 {
		if len(line) == maxCountLine {
			return 0, 0, tooBig
		}
		return 0, 0, nil
	}
	if i == 0 || line[i-1] != '\r' {
		return 0, 0, invalid
	}
	v, ok := ParseInt(line[:i-1])
	if !ok {
		return 0, 0, invalid
	}
	return v, at + i + 1, nil
}

// inline reads a command that somebody typed.
func (f *Framer) inline(b []byte, l *Limits) (n int, args [][]byte, need int, err error) {
	i := bytes.IndexByte(b[f.pos:], '\n')
	if i < 0 {
		if len(b) > l.InlineBytes {
			return 0, nil, 0, ProtocolError(fmt.Sprintf("too big inline request (more than %d bytes)", l.InlineBytes))
		}
		f.pos = len(b)
		return 0, nil, len(b) + 1, nil
	}
	line := b[:f.pos+i]
	n, f.pos = len(line)+1, 0
	if len(line) > l.InlineBytes {
		return 0, nil, 0, ProtocolError(fmt.Sprintf("too big inline request (%d bytes, the limit is %d)", len(line), l.InlineBytes))
	}
	line = bytes.TrimSuffix(line, []byte("\r"))
	args, ok := SplitLine(line, f.args[:0])
	if !ok {
		return 0, nil, 0, ProtocolError("unbalanced quotes in request")
	}
	if len(args) > l.Args {
		return 0, nil, 0, ProtocolError(fmt.Sprintf("too many arguments in an inline request (%d, the limit is %d)", len(args), l.Args))
	}
	f.args = args
	return n, args, 0, nil
}

// SplitLine splits a typed line into words with the quoting of redis-cli:
// "…" knows \n \r \t \b \a \xHH and \ before anything, '…' knows \'.
// It reports false when a quote is not closed or closed inside a word.
func SplitLine(line []byte, args [][]byte) ([][]byte, bool) {
	for {
		line = bytes.TrimLeft(line, " \t\r\v\f\x00")
		if len(line) == 0 {
			return args, true
		}
		word, rest, ok := splitWord(line)
		if !ok {
			return nil, false
		}
		args, line = append(args, word), rest
	}
}

func splitWord(line []byte) (word, rest []byte, ok bool) {
	word = []byte{}
	var quote byte
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quote == 0 && (isSpace(c) || c == 0):
			return word, line[i:], true
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case quote != 0 && c == quote:
			// The closing quote ends the word.
			if i+1 < len(line) && !isSpace(line[i+1]) {
				return nil, nil, false
			}
			return word, line[i+1:], true
		case quote == '"' && c == '\\' && i+3 < len(line) && line[i+1] == 'x' && isHex(line[i+2]) && isHex(line[i+3]):
			word = append(word, unhex(line[i+2])<<4|unhex(line[i+3]))
			i += 3
		case quote == '"' && c == '\\' && i+1 < len(line):
			i++
			word = append(word, unescape(line[i]))
		case quote == '\'' && c == '\\' && i+1 < len(line) && line[i+1] == '\'':
			i++
			word = append(word, '\'')
		default:
			word = append(word, c)
		}
	}
	return word, nil, quote == 0
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	}
	return c - 'a' + 10
}

func unescape(c byte) byte {
	switch c {
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'b':
		return '\b'
	case 'a':
		return '\a'
	}
	return c
}

// printable keeps a stray byte from breaking the line of an error.
func printable(c byte) byte {
	if c < ' ' || c > '~' {
		return '?'
	}
	return c
}
