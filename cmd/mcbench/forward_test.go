package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/golang/snappy"

	"mcached/remotewrite/wire"
)

func TestForward(t *testing.T) {
	binary := daemonBinary(t)
	t.Parallel()
	var out bytes.Buffer
	args := []string{"forward", "--mcached", binary, "--turns", "1", "--series", "300", "--samples", "8", "--per-request", "100", "--max-dirty-age", "1s", "--receiver", "discard"}
	if err := run(t.Context(), args, &out); err != nil {
		t.Fatal(err)
	}
	var samplesPerS, perRequest, perRun float64
	for line := range strings.Lines(out.String()) {
		if f := strings.Fields(line); len(f) == 10 && f[0] == "forwards" {
			if _, err := fmt.Sscan(strings.Join(f[6:9], " "), &samplesPerS, &perRequest, &perRun); err != nil {
				t.Errorf("%q: %v", line, err)
			}
		}
	}
	// A run is what comes within a second: all of a series, where all are written in half of one.
	const samples, all = 8.0, 300 * 8.0
	least := 1.0
	if samplesPerS > 2*all {
		least = samples
	}
	if perRun < least || perRun > samples || perRequest < perRun || perRequest > all || !strings.Contains(out.String(), "forwarding costs") {
		t.Errorf("it prints\n%s", out.String())
	}
	for _, args := range [][]string{{"--turns", "0"}, {"--max-dirty-age", "1ms"}, {"--rate", "-1"}, {"--receiver", "nobody"}, {"--mcached", "/nonexistent"}} {
		if err := run(t.Context(), append([]string{"forward"}, args...), &out); err == nil {
			t.Errorf("forward %v: no error", args)
		}
	}
}

// TestDiscard: the receiver that keeps nothing says what it was sent, or else the
// forwarder would take it for one of protocol 1.0.
func TestDiscard(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(discard))
	defer s.Close()
	l := load{series: 30, samples: 3, startMs: 1_795_208_610_000, intervalMs: 15_000, seed: 1}
	w := writer{load: l, url: s.URL, protocol: wire.V2, perRequest: 20, connections: 1}
	if _, err := w.run(t.Context()); err != nil {
		t.Error(err)
	}
	var body []byte
	for i := range 7 {
		series := binary.AppendUvarint(binary.AppendUvarint(nil, wire.TagV2SeriesSample), 0)
		body = append(binary.AppendUvarint(binary.AppendUvarint(body, wire.TagV2Series), uint64(i*len(series))), bytes.Repeat(series, i)...)
	}
	resp, err := http.Post(s.URL, "", bytes.NewReader(snappy.Encode(nil, body)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get(wire.HeaderSamplesWritten); got != "21" {
		t.Errorf("of 21 samples it counts %s", got)
	}
}

func TestMedian(t *testing.T) {
	all := func(t forwardTurn) float64 { return t.all }
	for want, turns := range map[float64][]forwardTurn{3: {{all: 3}}, 2: {{all: 9}, {all: 1}, {all: 2}}, 1.5: {{all: 2}, {all: 1}}} {
		if got := median(turns, all); got != want {
			t.Errorf("the median of %v is %v, want %v", turns, got, want)
		}
	}
}
