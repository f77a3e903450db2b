package resp

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

// bulks is a command as clients send it.
func bulks(args ...string) string {
	var r Reply
	r.Array(len(args))
	for _, a := range args {
		r.BulkString(a)
	}
	return string(r.B)
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

var testLimits = Limits{Args: 8, BulkBytes: 64, InlineBytes: 100, CommandBytes: 200}

// frames runs a stream through a Framer in pieces and lists what comes out.
func frames(stream []byte, l *Limits, piece func(left int) int) (out []string) {
	var f Framer
	f.Reset()
	var buf []byte
	for len(stream) > 0 || len(buf) > 0 {
		n, args, _, err := f.Next(buf, l)
		switch {
		case err != nil:
			return append(out, "error")
		case n > 0:
			if len(args) > 0 {
				out = append(out, fmt.Sprintf("%q", args))
			}
			// A fresh buffer each time: nothing may be kept of the old one.
			buf = bytes.Clone(buf[n:])
			continue
		case len(stream) == 0:
			return append(out, "incomplete")
		}
		k := piece(len(stream))
		buf = append(bytes.Clone(buf), stream[:k]...)
		stream = stream[k:]
	}
	return out
}

// reference is the grammar written down once more, with all of the stream in
// hand and no thought of speed.
func reference(stream []byte, l *Limits) (out []string) {
	s := string(stream)
	for s != "" {
		if s[0] != '*' {
			line, rest, ok := strings.Cut(s, "\n")
			if !ok && len(s) > l.InlineBytes || ok && len(line) > l.InlineBytes {
				return append(out, "error")
			}
			if !ok {
				return append(out, "incomplete")
			}
			args, ok := SplitLine([]byte(strings.TrimSuffix(line, "\r")), nil)
			if !ok || len(args) > l.Args {
				return append(out, "error")
			}
			if len(args) > 0 {
				out = append(out, fmt.Sprintf("%q", args))
			}
			s = rest
			continue
		}
		count, rest, state := referenceLine(s[1:])
		if state != "" {
			return append(out, state)
		}
		if count > int64(l.Args) {
			return append(out, "error")
		}
		var args []string
		total := int64(0)
		for range max(count, 0) {
			if rest == "" {
				return append(out, "incomplete")
			}
			if rest[0] != '$' {
				return append(out, "error")
			}
			var n int64
			if n, rest, state = referenceLine(rest[1:]); state != "" {
				return append(out, state)
			}
			if total += n; n < 0 || n > int64(l.BulkBytes) || total > int64(l.CommandBytes) {
				return append(out, "error")
			}
			if int64(len(rest)) < n+2 {
				return append(out, "incomplete")
			}
			if rest[n:n+2] != "\r\n" {
				return append(out, "error")
			}
			args, rest = append(args, rest[:n]), rest[n+2:]
		}
		if len(args) > 0 {
			out = append(out, fmt.Sprintf("%q", args))
		}
		s = rest
	}
	return out
}

func referenceLine(s string) (n int64, rest, state string) {
	line, rest, ok := strings.Cut(s, "\n")
	if !ok && len(s) >= maxCountLine || ok && len(line) >= maxCountLine {
		return 0, "", "error"
	}
	if !ok {
		return 0, "", "incomplete"
	}
	digits, ok := strings.CutSuffix(line, "\r")
	n, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || strconv.FormatInt(n, 10) != digits {
		return 0, "", "error"
	}
	return n, rest, ""
}

func FuzzFrames(f *testing.F) {
	for _, s := range []string{
		"*1\r\n$4\r\nPING\r\n", "PING\r\n", "*0\r\n*-1\r\nPING \"a b\" 'c'\r\n", "*2\r\n$0\r\n\r\n$1\r\nx\r\n",
		"*1\r\n$9223372036854775807\r\nx", "*9000000000000000000\r\n", "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10\r\n0123456789\r\nGET k\n",
		"*1\r\n$00\r\n", "*-0\r\n", "*\r\n", "*1\r\n$\r\n", "SET \"\\x41\\n\" 'it\\'s'\r\n", "\"", "* 1\r\n", "*1\r\n$4\r\nPINGxx",
	} {
		f.Add([]byte(s), uint64(1))
	}
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		want := reference(stream, &testLimits)
		rng := newRand(seed)
		for try := range 5 {
			size := 1 + rng.IntN(1+rng.IntN(40))
			got := frames(stream, &testLimits, func(left int) int {
				if try == 0 {
					return left // all that comes is whole
				}
				return min(left, 1+rng.IntN(size))
			})
			if fmt.Sprint(got) != fmt.Sprint(want) {
				// An error may be seen before an incomplete line ends, never instead of a command.
				t.Fatalf("seed %d: %q\n got %s\nwant %s", seed, stream, got, want)
			}
		}
	})
}

// TestFramesOfRandomStreams is the same on streams that are mostly right.
func TestFramesOfRandomStreams(t *testing.T) {
	rng := newRand(7)
	commands, errors, cut := 0, 0, 0
	for round := range 5000 {
		var b bytes.Buffer
		for range 1 + rng.IntN(6) {
			switch rng.IntN(10) {
			case 0:
				b.WriteString("SET \"k\\x20\" 'v'\r\n")
			case 1:
				b.WriteString([]string{"*0\r\n", "*-1\r\n", "\r\n", "  \r\n"}[rng.IntN(4)])
			default:
				var args []string
				for range 1 + rng.IntN(5) {
					args = append(args, strings.Repeat("v\r\n", rng.IntN(20)))
				}
				b.WriteString(bulks(args...))
			}
		}
		s := b.Bytes()
		switch rng.IntN(4) {
		case 0:
			s = s[:rng.IntN(len(s)+1)]
		case 1:
			s[rng.IntN(len(s))] = "*$\r\n0123-x "[rng.IntN(11)]
		}
		want := reference(s, &testLimits)
		got := frames(s, &testLimits, func(left int) int { return min(left, 1+rng.IntN(30)) })
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("round %d: %q\n got %s\nwant %s", round, s, got, want)
		}
		if at := frames(s, &testLimits, func(left int) int { return left }); fmt.Sprint(at) != fmt.Sprint(want) {
			t.Fatalf("round %d, at once: %q\n got %s\nwant %s", round, s, at, want)
		}
		for _, o := range got {
			switch o {
			case "error":
				errors++
			case "incomplete":
				cut++
			default:
				commands++
			}
		}
	}
	if commands < 5000 || errors < 300 || cut < 500 {
		t.Fatalf("%d commands, %d errors, %d incomplete: the streams do not try much", commands, errors, cut)
	}
}

func TestParseInt(t *testing.T) {
	for s, want := range map[string]bool{
		"0": true, "-1": true, "9223372036854775807": true, "-9223372036854775808": true,
		"": false, "-": false, "-0": false, "00": false, "01": false, "+1": false, " 1": false, "1 ": false,
		"9223372036854775808": false, "-9223372036854775809": false, "99999999999999999999": false, "1x": false,
	} {
		got, ok := ParseInt([]byte(s))
		if n, _ := strconv.ParseInt(s, 10, 64); ok != want || ok && got != n {
			t.Errorf("ParseInt(%q) = %d, %v", s, got, ok)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"*", "", true}, {"*", "abc", true}, {"a*c", "abbc", true}, {"a*c", "abb", false}, {"?", "", false}, {"a?c", "abc", true},
		{"[a-c]x", "bx", true}, {"[c-a]x", "bx", true}, {"[^a-c]x", "bx", false}, {"[^a]", "b", true}, {"\\*", "*", true}, {"\\*", "a", false},
		{"[\\]]", "]", true}, {"[abc", "c", true}, {"a**b", "ab", true}, {"*a*a*a*b", strings.Repeat("a", 200), false},
		{"", "", true}, {"", "a", false}, {"a\\", "a\\", true}, {"[", "[", false},
	} {
		if got := Match([]byte(c.pattern), []byte(c.s)); got != c.want {
			t.Errorf("Match(%q, %q) = %v", c.pattern, c.s, got)
		}
	}
}

// TestIncompleteBulkIsParsedOnce holds the framer to looking at each byte
// once: the time for a command that comes a byte at a time is not quadratic.
func TestIncompleteBulkIsParsedOnce(t *testing.T) {
	l := Limits{Args: 100, BulkBytes: 1 << 20, InlineBytes: 1 << 10, CommandBytes: 1 << 20}
	in := []byte(bulks("SET", "key", strings.Repeat("v", 1000), "EX", "100"))
	var f Framer
	f.Reset()
	last := 0
	for i := 1; i < len(in); i++ {
		n, _, need, err := f.Next(in[:i], &l)
		if n != 0 || err != nil {
			t.Fatalf("a command of %d bytes came out of %d: %v", len(in), i, err)
		}
		if f.pos < last {
			t.Fatalf("went back from %d to %d", last, f.pos)
		}
		// What was announced is known, so the middle of a bulk is not looked at.
		if need <= i || f.bulk >= 0 && need != f.pos+f.bulk+2 {
			t.Fatalf("at %d: parsed up to %d, needs %d", i, f.pos, need)
		}
		last = f.pos
	}
	n, args, _, err := f.Next(in, &l)
	if n != len(in) || len(args) != 5 || err != nil {
		t.Fatalf("got %d of %d bytes, %d arguments, %v", n, len(in), len(args), err)
	}
}

func BenchmarkFramer(b *testing.B) {
	in := []byte(bulks("SET", "key:000000000001", strings.Repeat("v", 64)))
	l := Limits{Args: 1 << 20, BulkBytes: 1 << 20, InlineBytes: 1 << 16, CommandBytes: 1 << 24}
	var f Framer
	f.Reset()
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if n, args, _, err := f.Next(in, &l); n != len(in) || len(args) != 3 || err != nil {
			b.Fatal(n, args, err)
		}
	}
}
