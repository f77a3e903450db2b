package cluster

import (
	"bytes"
	"math/rand/v2"
	"net/http/httptest"
	"testing"
)

// However a body lies, its signature is the same; and any bit of it that is
// another makes it another.
func TestBodyIsSignedInPieces(t *testing.T) {
	k, err := NewKeys("test", nil)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(5, 6))
	for _, n := range []int{0, 1, 100, hashBlockBytes - 1, hashBlockBytes, hashBlockBytes + 1, 3*hashBlockBytes + 77} {
		body := make([]byte, n)
		for i := range body {
			body[i] = byte(rng.Uint32())
		}
		for range 20 {
			var pieces [][]byte
			for rest := body; len(rest) > 0; {
				m := 1 + rng.IntN(len(rest))
				if rng.IntN(2) == 0 {
					m = min(m, 1+rng.IntN(100))
				}
				if len(pieces) > 50 {
					m = len(rest)
				}
				pieces, rest = append(pieces, rest[:m]), rest[m:]
			}
			r := httptest.NewRequest("POST", "/x", nil)
			k.Sign(r, pieces...)
			if err := k.Verify(r, body); err != nil {
				t.Fatalf("%d bytes in %d pieces: %v", n, len(pieces), err)
			}
			if n == 0 {
				continue
			}
			other := bytes.Clone(body)
			other[rng.IntN(n)] ^= 1 << rng.IntN(8)
			if k.Verify(r, other) == nil || k.Verify(r, body[:n-1]) == nil || k.Verify(r, append(bytes.Clone(body), 0)) == nil {
				t.Fatalf("%d bytes: another body is taken", n)
			}
		}
		if n > hashBlockBytes { // blocks have places
			r := httptest.NewRequest("POST", "/x", nil)
			k.Sign(r, body)
			if k.Verify(r, append(bytes.Clone(body[hashBlockBytes:]), body[:hashBlockBytes]...)) == nil {
				t.Fatal("blocks in another order are taken")
			}
		}
	}
}

func BenchmarkSign(b *testing.B) {
	k, _ := NewKeys("test", nil)
	body := make([]byte, 200<<10)
	r := httptest.NewRequest("POST", "/x", nil)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		k.Sign(r, body)
	}
}
