package query

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// readSeries is a series as a remote read brings it.
type readSeries struct {
	labels  string
	samples []prompb.Sample
}

func readRequest(t testing.TB, a http.Handler, r *prompb.ReadRequest) *httptest.ResponseRecorder {
	t.Helper()
	raw, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return sendRead(t, a, snappy.Encode(nil, raw))
}

func sendRead(t testing.TB, a http.Handler, body []byte) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequest(http.MethodPost, "/api/v1/read", bytes.NewReader(body))
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("X-Prometheus-Remote-Read-Version", "0.1.0")
	return send(t, a, req)
}

func labelString(ls []prompb.Label) string {
	b := labels.NewScratchBuilder(len(ls))
	for _, l := range ls {
		b.Add(l.Name, l.Value)
	}
	return b.Labels().String()
}

// decodeSamples reads an answer in one message.
func decodeSamples(t testing.TB, w *httptest.ResponseRecorder) (results [][]readSeries) {
	t.Helper()
	raw, err := snappy.Decode(nil, w.Body.Bytes())
	if err != nil {
		t.Fatalf("%d %v: %s", w.Code, err, w.Body)
	}
	var response prompb.ReadResponse
	if err := response.Unmarshal(raw); err != nil {
		t.Fatal(err)
	}
	for _, r := range response.Results {
		var result []readSeries
		for _, ts := range r.Timeseries {
			result = append(result, readSeries{labelString(ts.Labels), ts.Samples})
		}
		slices.SortFunc(result, func(a, b readSeries) int { return bytes.Compare([]byte(a.labels), []byte(b.labels)) })
		results = append(results, result)
	}
	return results
}

// decodeStream reads an answer in frames, and counts them.
func decodeStream(t testing.TB, w *httptest.ResponseRecorder, queries int) (results [][]readSeries, frames int) {
	t.Helper()
	results = make([][]readSeries, queries)
	rest := bytes.NewReader(w.Body.Bytes())
	for rest.Len() > 0 {
		n, err := binary.ReadUvarint(rest)
		if err != nil {
			t.Fatal(err)
		}
		frame := make([]byte, 4+n)
		if _, err := io.ReadFull(rest, frame); err != nil {
			t.Fatal(err)
		}
		if sum := crc32.Checksum(frame[4:], crc32.MakeTable(crc32.Castagnoli)); sum != binary.BigEndian.Uint32(frame) {
			t.Fatal("wrong checksum")
		}
		frames++
		var message prompb.ChunkedReadResponse
		if err := message.Unmarshal(frame[4:]); err != nil {
			t.Fatal(err)
		}
		for _, s := range message.ChunkedSeries {
			result := &results[message.QueryIndex]
			name := labelString(s.Labels)
			if n := len(*result); n == 0 || (*result)[n-1].labels != name {
				if n > 0 && (*result)[n-1].labels > name {
					t.Errorf("%s comes after %s", name, (*result)[n-1].labels)
				}
				*result = append(*result, readSeries{labels: name})
			}
			last := &(*result)[len(*result)-1]
			for _, c := range s.Chunks {
				if c.Type != prompb.Chunk_XOR {
					t.Errorf("chunk of type %v", c.Type)
				}
				chunk, err := chunkenc.FromData(chunkenc.EncXOR, c.Data)
				if err != nil {
					t.Fatal(err)
				}
				first := len(last.samples)
				for it := chunk.Iterator(nil); it.Next() != chunkenc.ValNone; {
					ts, v := it.At()
					last.samples = append(last.samples, prompb.Sample{Timestamp: ts, Value: v})
				}
				if got := last.samples[first:]; len(got) == 0 || len(got) > samplesPerChunk || got[0].Timestamp != c.MinTimeMs || got[len(got)-1].Timestamp != c.MaxTimeMs {
					t.Errorf("chunk of %d samples from %d to %d", len(got), c.MinTimeMs, c.MaxTimeMs)
				}
			}
		}
	}
	return results, frames
}

func sameSamples(a, b []prompb.Sample) bool {
	return slices.EqualFunc(a, b, func(a, b prompb.Sample) bool {
		return a.Timestamp == b.Timestamp && math.Float64bits(a.Value) == math.Float64bits(b.Value)
	})
}

// TestRemoteRead reads random series in both forms and compares them with what was written.
func TestRemoteRead(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	c := newCache(t)
	const series, points = 30, 500
	var want []readSeries
	special := []float64{0, math.Copysign(0, -1), math.NaN(), math.Float64frombits(value.StaleNaN), math.Inf(1), math.SmallestNonzeroFloat64}
	for i := range series {
		values := make([]float64, points)
		for j := range values {
			switch {
			case i%3 == 0:
				values[j] = float64(j * i)
			case rnd.IntN(10) == 0:
				values[j] = special[rnd.IntN(len(special))]
			default:
				values[j] = rnd.NormFloat64()
			}
		}
		name, number := "m", fmt.Sprintf("%03d", i)
		fill(t, c, "default", 15_000, values, "__name__", name, "i", number)
		s := readSeries{labels: labels.FromStrings("__name__", name, "i", number).String()}
		for j, v := range values {
			s.samples = append(s.samples, prompb.Sample{Timestamp: t0 + int64(j)*15_000, Value: v})
		}
		want = append(want, s)
	}
	o := testOptions()
	o.MaxFrameBytes = 400 // less than most of the series take
	a := NewAPI(c, o)
	frames, uncut := 0, 0
	for round := range 50 {
		from, to := rnd.IntN(points), rnd.IntN(points)
		if from > to && round > 5 {
			from, to = to, from
		}
		first := rnd.IntN(series)
		query := &prompb.Query{
			StartTimestampMs: t0 + int64(from)*15_000, EndTimestampMs: t0 + int64(to)*15_000,
			Matchers: []*prompb.LabelMatcher{
				{Type: prompb.LabelMatcher_EQ, Name: "__name__", Value: "m"},
				{Type: prompb.LabelMatcher_NEQ, Name: "i", Value: fmt.Sprintf("%03d", first)},
				{Type: prompb.LabelMatcher_NRE, Name: "i", Value: "02.*"},
				{Type: prompb.LabelMatcher_RE, Name: "i", Value: "0.*"},
			},
		}
		if rnd.IntN(2) == 0 {
			query.Hints = &prompb.ReadHints{StartMs: query.StartTimestampMs - 5, EndMs: query.EndTimestampMs + 5}
		}
		var part []readSeries
		for i, s := range want {
			if i != first && i/10 != 2 && from <= to {
				part = append(part, readSeries{s.labels, s.samples[from : to+1]})
			}
		}
		check := func(form string, got []readSeries) {
			if !slices.EqualFunc(got, part, func(a, b readSeries) bool { return a.labels == b.labels && sameSamples(a.samples, b.samples) }) {
				t.Fatalf("seed %d, from %d to %d, without %d, %s: %d series, expected %d", seed, from, to, first, form, len(got), len(part))
			}
		}
		request := &prompb.ReadRequest{Queries: []*prompb.Query{query, {StartTimestampMs: 0, EndTimestampMs: 1}, query}}
		w := readRequest(t, a, request)
		if h := w.Header(); h.Get("Content-Type") != "application/x-protobuf" || h.Get("Content-Encoding") != "snappy" {
			t.Fatal(h)
		}
		results := decodeSamples(t, w)
		check("samples", results[0])
		check("samples again", results[2])

		request.AcceptedResponseTypes = []prompb.ReadRequest_ResponseType{prompb.ReadRequest_STREAMED_XOR_CHUNKS, prompb.ReadRequest_SAMPLES}
		w = readRequest(t, a, request)
		if ct := w.Header().Get("Content-Type"); ct != "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse" {
			t.Fatal(ct)
		}
		streamed, n := decodeStream(t, w, 3)
		check("stream", streamed[0])
		check("stream again", streamed[2])
		frames += n
		uncut += 2 * len(part)
		if len(results[1])+len(streamed[1]) != 0 {
			t.Fatal("samples from 1970")
		}
	}
	if frames < uncut*6/5 {
		t.Errorf("seed %d: %d frames for %d series: too few were cut", seed, frames, uncut)
	}
	if s := a.Stats(); s.RemoteReads != 100 || s.Samples == 0 || s.Errors != 0 || s.Running != 0 {
		t.Errorf("%+v", s)
	}
}

func TestRemoteReadErrors(t *testing.T) {
	o := testOptions()
	o.MaxSamples, o.MaxSeries = 50, 2
	a := smallAPI(t, o)
	request := func(m prompb.LabelMatcher, types ...prompb.ReadRequest_ResponseType) *httptest.ResponseRecorder {
		return readRequest(t, a, &prompb.ReadRequest{AcceptedResponseTypes: types, Queries: []*prompb.Query{{
			StartTimestampMs: t0, EndTimestampMs: t0 + 3_600_000, Matchers: []*prompb.LabelMatcher{&m}}}})
	}
	bomb := binary.AppendUvarint(nil, 1<<32-1)
	both := prompb.LabelMatcher{Name: "__name__", Value: "requests_total"}
	for _, c := range []struct {
		name   string
		w      *httptest.ResponseRecorder
		status int
		body   string
	}{
		{"no snappy", sendRead(t, a, []byte{0xff}), 400, "snappy: corrupt input\n"},
		{"bomb", sendRead(t, a, bomb), 400, "a remote read of 4294967295 bytes when decompressed, at most 1048576 (MaxReadBytes)\n"},
		{"large body", sendRead(t, a, make([]byte, maxReadRequestBytes+1)), 400, "a remote read of more than 1048576 bytes (MaxReadBytes)\n"},
		{"no protobuf", sendRead(t, a, snappy.Encode(nil, []byte{0x0a})), 400, "unexpected EOF\n"},
		{"unknown form", request(both, 7), 400, "server does not support any of the requested response types: [7]\n"},
		{"unknown matcher", request(prompb.LabelMatcher{Type: 9}), 400, "invalid matcher type\n"},
		{"bad expression", request(prompb.LabelMatcher{Type: prompb.LabelMatcher_RE, Name: "a", Value: "("}), 400, "error parsing regexp: missing closing ): `(`\n"},
		{"samples", request(both), 400, "exceeded sample limit (50)\n"},
		{"series", request(prompb.LabelMatcher{Type: prompb.LabelMatcher_RE, Name: "job", Value: ".+"}), 422, "too many series selected: 3, at most 2 (MaxSeries): narrow the selector\n"},
	} {
		t.Run(c.name, func(t *testing.T) { wantBody(t, c.w, c.status, c.body) })
	}
	if w := get(t, a, "read"); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", w.Code)
	}
}

func FuzzReadRequest(f *testing.F) {
	raw, err := (&prompb.ReadRequest{Queries: []*prompb.Query{{EndTimestampMs: t0, Matchers: []*prompb.LabelMatcher{{Name: "a", Value: "b"}}}}}).Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	a := smallAPI(f, testOptions())
	f.Fuzz(func(t *testing.T, raw []byte) {
		if w := sendRead(t, a, snappy.Encode(nil, raw)); w.Code >= 500 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}
