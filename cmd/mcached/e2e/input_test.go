package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
)

// body encodes series as protocol 1.0 has them, without compression.
func body(t testing.TB, series ...prompb.TimeSeries) []byte {
	t.Helper()
	b, err := (&prompb.WriteRequest{Timeseries: series}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// oneSeries has one sample at ms, and the labels given as name, value, name, value…
func oneSeries(ms int64, v float64, labels ...string) prompb.TimeSeries {
	ts := prompb.TimeSeries{Samples: []prompb.Sample{{Timestamp: ms, Value: v}}}
	for i := 0; i < len(labels); i += 2 {
		ts.Labels = append(ts.Labels, prompb.Label{Name: labels[i], Value: labels[i+1]})
	}
	return ts
}

// writers is the client of all requests that may be canceled while they are
// answered 204. net/http gives a connection back before who waits has such an
// answer: if that one cancels in between, the next request over the connection
// fails as canceled, whoever it is of. So nobody else may share theirs.
var writers = &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}

// post sends a remote-write body and returns the status and the answer.
func (s *server) post(ctx context.Context, b []byte, headers ...string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/api/v1/write", bytes.NewReader(b))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Content-Encoding", "snappy")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := writers.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	return res.StatusCode, string(answer), err
}

// TestE2EBadInput sends what no client should to a daemon that holds
// something, and looks whether it says why, still holds it and still serves.
func TestE2EBadInput(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--remote-write.max-body-size=1MiB", "--remote-write.max-decoded-size=2MiB")
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	now := time.Now().UnixMilli()
	good := snappy.Encode(nil, body(t, oneSeries(now, 42, "__name__", "kept", "job", "test")))
	if code, said, err := s.post(ctx, good); err != nil || code != http.StatusNoContent {
		t.Fatalf("a good request: %d %q %v", code, said, err)
	}

	bomb := prompb.TimeSeries{Samples: []prompb.Sample{{Timestamp: now, Value: 1}}, Labels: []prompb.Label{{Name: "__name__", Value: "bomb"}}}
	for i := range 10_000 {
		bomb.Labels = append(bomb.Labels, prompb.Label{Name: fmt.Sprintf("l%05d", i), Value: "v"})
	}
	claim := append(binary.AppendUvarint(nil, 1<<32-1), 0, 'x')
	plain := body(t, oneSeries(now, 1, "__name__", "a"))
	for _, c := range []struct {
		name    string
		body    []byte
		headers []string
		code    int
	}{
		{"truncated snappy", good[:len(good)/2], nil, 400},
		{"truncated protobuf", snappy.Encode(nil, plain[:len(plain)-3]), nil, 400},
		{"garbage", []byte("no snappy at all \xff\xfe\xfd"), nil, 400},
		{"snappy of garbage", snappy.Encode(nil, bytes.Repeat([]byte{0xff}, 1000)), nil, 400},
		{"oversized body", make([]byte, 2<<20), nil, 413},
		{"oversized when decoded", snappy.Encode(nil, make([]byte, 3<<20)), nil, 413},
		{"snappy claim of 4 GiB", claim, nil, 413},
		{"label bomb", snappy.Encode(nil, body(t, bomb)), nil, 400},
		{"long value", snappy.Encode(nil, body(t, oneSeries(now, 1, "__name__", "a", "l", strings.Repeat("v", 1<<20)))), nil, 400},
		{"invalid UTF-8", snappy.Encode(nil, body(t, oneSeries(now, 1, "__name__", "a", "l", "\xff\xfe"))), nil, 400},
		{"duplicate label", snappy.Encode(nil, body(t, oneSeries(now, 1, "__name__", "a", "l", "1", "l", "2"))), nil, 400},
		{"no name", snappy.Encode(nil, body(t, oneSeries(now, 1, "l", "1"))), nil, 400},
		{"no labels", snappy.Encode(nil, body(t, oneSeries(now, 1))), nil, 400},
		{"far in the future", snappy.Encode(nil, body(t, oneSeries(now+int64(time.Hour/time.Millisecond), 1, "__name__", "a"))), nil, 400},
		{"wrong type", good, []string{"Content-Type", "text/plain"}, 415},
		{"wrong encoding", good, []string{"Content-Encoding", "br"}, 415},
		{"snappy that is said to be zstd", good, []string{"Content-Encoding", "zstd"}, 400},
	} {
		code, said, err := s.post(ctx, c.body, c.headers...)
		if err != nil || code != c.code || strings.TrimSpace(said) == "" || len(said) > 2000 {
			t.Errorf("%s: %d %.200q %v; want %d and a reason", c.name, code, said, err, c.code)
		}
	}

	for _, q := range []struct {
		path string
		code int
	}{
		{"/api/v1/query?query=" + url.QueryEscape("sum((((("), 400},
		{"/api/v1/query?query=" + url.QueryEscape(strings.Repeat("(", 100_000)), 400},
		{"/api/v1/query_range?query=up&start=0&end=100000&step=1", 400}, // more than 11,000 points
		{"/api/v1/query_range?query=up&start=100&end=0&step=1", 400},
		{"/api/v1/query_range?query=up&start=0&end=10&step=-1", 400},
		{"/api/v1/series", 400},
		{"/nothing/here", 404},
	} {
		res, err := http.Get(s.url + q.path)
		if err != nil {
			t.Errorf("%.80s: %v", q.path, err)
			continue
		}
		res.Body.Close()
		// A URL beyond the bound on heads is 431, before anyone parses it.
		if res.StatusCode != q.code && !(len(q.path) > maxHeaderBytes && res.StatusCode == http.StatusRequestHeaderFieldsTooLarge) {
			t.Errorf("%.80s: status %d, want %d", q.path, res.StatusCode, q.code)
		}
	}

	// Connections that are opened and left half-way, on both ports.
	leave := func(address string, says ...string) (left []net.Conn) {
		for _, half := range says {
			for range 20 {
				conn, err := net.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { conn.Close() })
				if _, err := io.WriteString(conn, half); err != nil {
					t.Fatal(err)
				}
				left = append(left, conn)
			}
		}
		return left
	}
	leave(s.resp, "*3\r\n$3\r\nSET\r\n$1000000\r\nxxx", "*2\r\n", "")
	halfHTTP := []string{"POST /api/v1/write HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nabc", "GET / HT", ""}
	leave(host(s.url), halfHTTP...)
	for _, garbage := range []string{
		"*1\r\n$9223372036854775807\r\nx", "*1000000000\r\n", "*9000000000000000000\r\n", "*1\r\n$-5\r\n", "$5\r\nhello\r\n",
		"\x00\x01\x02\xff\xfe\r\n", "*2\r\n$3\r\nGET\r\n!3\r\n", strings.Repeat("A", 1<<20), "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", s.resp)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, garbage) // the daemon may hang up before it has all of it
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		_, _ = io.Copy(io.Discard, io.LimitReader(conn, 10))
		conn.Close()
	}

	// The daemon is up, holds what it held, and takes more.
	s.alive()
	if v, err := s.instant(`kept`); err != nil || len(v) != 1 || v[`{"__name__":"kept","job":"test"}`] != "42" {
		t.Errorf("what was written before is %v, %v", v, err)
	}
	if v, err := s.instant(`{__name__=~"a|bomb"}`); err != nil || len(v) != 0 {
		t.Errorf("something of the bad requests was stored: %v, %v", v, err)
	}
	again := snappy.Encode(nil, body(t, oneSeries(now+1, 43, "__name__", "kept", "job", "test")))
	if code, said, err := s.post(ctx, again); err != nil || code != http.StatusNoContent {
		t.Errorf("a good request afterwards: %d %q %v", code, said, err)
	}
	conn, err := net.Dial("tcp", s.resp)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	pong := make([]byte, 7)
	if _, err := io.WriteString(conn, "PING\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, pong); err != nil || string(pong) != "+PONG\r\n" {
		t.Errorf("PING afterwards: %q, %v", pong, err)
	}
	if rss := s.rssBytes(); rss > 300<<20 {
		t.Errorf("%d MiB resident after it all", rss>>20)
	}

	// HTTP connections that were left half-way are closed in time, here by a
	// daemon that does not give much.
	for _, conn := range leave(host(startServer(t, "--web.read-timeout=1s").url), halfHTTP...) {
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, conn); err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Errorf("a half-open connection still stands: %v", err)
				break
			}
		}
	}
}
