package main

import (
	"bytes"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
)

// What a header's lines are told as is what net/http tells, with all that it leaves out
// and mends.
func TestPlainAnswerHeader(t *testing.T) {
	t.Parallel()
	names := []string{"Content-Type", "Content-Encoding", "Content-Length", "Date", "Connection", "Transfer-Encoding", "X-Prometheus-Remote-Write-Samples-Written",
		"X-Prometheus-Remote-Write-Exemplars-Written", "Retry-After", "Allow", "x-lower", "X_Under", "", "X Space", "X:Colon", "X-Ä", "X\r\nY"}
	values := []string{"", "0", "100", "text/plain; charset=utf-8", "gzip", " begins", "ends ", "\tboth\t", "two\r\nlines", "two\nlines", "ü", "\x00", "\u00a0"}
	r := rand.New(rand.NewPCG(1, 1))
	mended := 0
	const rounds = 20_000
	for range rounds {
		w := plainAnswer{header: http.Header{}, names: []string{"Of", "Another"}}
		some := slices.Clone(names)
		clean := r.IntN(2) == 0
		for range r.IntN(5) {
			name, value := some[r.IntN(len(some))], values[r.IntN(len(values))]
			if clean {
				name, value = some[r.IntN(12)], values[r.IntN(5)]
			}
			w.header[name] = append(w.header[name], value)
		}
		if r.IntN(50) == 0 {
			w.header["X-None"] = nil
		}
		var want bytes.Buffer
		_ = w.header.WriteSubset(&want, ownHeaders)
		had := http.Header.Clone(w.header)
		if !w.writeHeader() {
			if mended++; w.head.Len() != 0 {
				t.Fatalf("%q: it writes %q, and says that it does not", had, w.head.String())
			}
		} else if w.head.String() != want.String() {
			t.Fatalf("%q: %q, not %q", had, w.head.String(), want.String())
		}
	}
	if mended < rounds/10 || mended > rounds/2 {
		t.Errorf("of %d headers %d are left to net/http", rounds, mended)
	}
}
