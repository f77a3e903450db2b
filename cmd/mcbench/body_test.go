package main

import (
	"bytes"
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"mcached/mcache"
	"mcached/remotewrite/send"
	"mcached/remotewrite/wire"
)

// What is made of frames is what package send encodes, whether a frame is that of a
// request before, of one that it nearly is, or of none.
func TestBodies(t *testing.T) {
	t.Parallel()
	for _, protocol := range []wire.Protocol{wire.V1, wire.V2} {
		l := load{series: 3000, samples: 30, startMs: 1_795_208_610_000, intervalMs: 15_000, latePct: 3, seed: 1, churnPct: 20}
		b, names := newBodies(&l, protocol, 600<<10), l.namer()
		var encoder send.EncoderV2
		var body []byte
		request := func(samples []lateSample) {
			t.Helper()
			var series []send.Series
			for _, x := range samples {
				series = append(series, send.Series{Labels: names.labels(x.series, x.T, nil), Samples: []mcache.Sample{x.Sample}})
			}
			want := send.AppendV1(nil, series)
			if protocol == wire.V2 {
				want = encoder.Append(nil, series)
			}
			var err error
			if body, err = b.append(body[:0], samples); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(body, want) {
				t.Fatalf("protocol %v: a request of %d series from %d on has %d bytes, want %d, or others", protocol, len(samples), samples[0].series, len(body), len(want))
			}
		}
		for i := range l.samples {
			for first := 0; first < l.series; first += 700 {
				var samples []lateSample
				for n := first; n < min(first+700, l.series); n++ {
					if l.late(n, i) == 0 || i%5 == 0 { // rounds in which none is late, too
						samples = append(samples, lateSample{n, mcache.Sample{T: l.time(n, i), V: bits(float64(n % 3))}})
					}
				}
				request(samples)
			}
		}
		if all := len(b.frames) >= 5; all != (protocol == wire.V2) || b.bytes > b.maxBytes { // those of 1.0 have not all room
			t.Errorf("%v: %d frames of %d bytes are kept", protocol, len(b.frames), b.bytes)
		}
		sum := 0
		for _, f := range b.frames {
			sum += f.bytes()
		}
		if sum != b.bytes {
			t.Errorf("%v: frames of %d bytes are kept, %d are counted", protocol, sum, b.bytes)
		}
	}
}

// A load goes to a server behind TLS, too, as its certificate says who it is or not at all.
func TestWriteTLS(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w := writer{load: load{series: 10, samples: 2, startMs: 1000, intervalMs: 1000}, url: server.URL, protocol: wire.V1, perRequest: 10, connections: 1}
	if _, err := w.run(ctx); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("to a server of no known certificate: %v", err)
	}
	w.url = strings.Replace(server.URL, "https", "ftp", 1)
	if _, err := w.run(ctx); err == nil || !strings.Contains(err.Error(), "ftp") {
		t.Errorf("by ftp: %v", err)
	}
}
