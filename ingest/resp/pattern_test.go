package resp

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

// FuzzPattern holds compiled patterns to Match.
func FuzzPattern(f *testing.F) {
	for _, p := range []string{"", "*", "a*b", "*a?c*", "[a-c]*[^b]", "[", "[^", "[a", "\\", "\\*a", "a**b", "?", "*[]*", "[a-", "*\\"} {
		f.Add([]byte(p), []byte("abc*"))
	}
	f.Fuzz(func(t *testing.T, p, s []byte) {
		if len(p) > 1024 {
			return
		}
		if got, want := Compile(p).Match(s), Match(p, s); got != want {
			t.Errorf("%q of %q: %v, want %v", p, s, got, want)
		}
	})
}

func TestPatternModel(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	text := func(letters string, n int) []byte {
		b := make([]byte, r.IntN(n))
		for i := range b {
			b[i] = letters[r.IntN(len(letters))]
		}
		return b
	}
	hits := 0
	for range 200_000 {
		p, s := text("ab*?[]-^\\", 10), text("ab-", 12)
		got, want := Compile(p).Match(s), Match(p, s)
		if got != want {
			t.Fatalf("%q of %q: %v, want %v", p, s, got, want)
		}
		if got && len(s) > 3 && bytes.ContainsAny(p, "?[") {
			hits++
		}
	}
	if hits < 100 {
		t.Errorf("%d hits", hits)
	}
	// Segments of more than 64 elements.
	for _, n := range []int{63, 64, 65, 128, 200} {
		p := []byte("*" + strings.Repeat("?", n) + "[bc]*")
		for _, s := range []string{strings.Repeat("a", n), strings.Repeat("a", n) + "b", strings.Repeat("a", 300) + "c" + "aa", strings.Repeat("a", 300)} {
			if got, want := Compile(p).Match([]byte(s)), Match(p, []byte(s)); got != want {
				t.Errorf("%d: %.80q: %v, want %v", n, s, got, want)
			}
		}
	}
}

// The longest pattern on the longest key takes a step for each byte and 64 elements.
func BenchmarkPattern(b *testing.B) {
	key := bytes.Repeat([]byte("a"), 64<<10-1)
	for _, p := range []string{"*" + strings.Repeat("a", 1021) + "b*", "*" + strings.Repeat("?", 1021) + "b*"} {
		g := Compile([]byte(p))
		b.Run(p[1:2], func(b *testing.B) {
			for b.Loop() {
				if g.Match(key) {
					b.Fatal("a match")
				}
			}
		})
	}
}
