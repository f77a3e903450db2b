package ingest

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"mcached/ingest/admission"
	"mcached/mcache"
)

func newPool(t *testing.T, o admission.Options) *admission.Pool {
	t.Helper()
	p, err := admission.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// nothingHeld fails unless all that was lent has been given back.
func nothingHeld(t *testing.T, p *admission.Pool) {
	t.Helper()
	eventually(t, "everything is given back", func() error {
		s := p.Stats()
		for _, k := range admission.Kinds {
			if s.Bytes[k] != 0 {
				return fmt.Errorf("%d bytes of %v are still held", s.Bytes[k], k)
			}
		}
		return nil
	})
}

func TestLargeCommandsAreRefused(t *testing.T) {
	p := newPool(t, admission.Options{MaxBytes: 400 << 10, BytesSetting: "--max"})
	_, addr := newServer(t, func(o *Options) { o.Admission = p })
	got := talk(t, addr, bulks("SET", "k", strings.Repeat("v", 200_000))+bulks("PING"))
	if !strings.HasPrefix(got, "-ERR needs ") || !strings.Contains(got, "raise --max") || !strings.HasSuffix(got, "\r\n+PONG\r\n") {
		t.Fatalf("got %q", got)
	}
	if got := talk(t, addr, bulks("SET", "k", strings.Repeat("v", 30_000))); got != "+OK\r\n" {
		t.Fatalf("got %q", got)
	}
	nothingHeld(t, p)
}

// Halves of an AUTH, of however many strangers, take nothing that others need.
func TestHalfCommandsMakeWay(t *testing.T) {
	p := newPool(t, admission.Options{MaxBytes: 4 << 20})
	s, addr := newServer(t, func(o *Options) { o.Admission, o.Password = p, "secret" })
	half := "*2\r\n$4\r\nAUTH\r\n$16000\r\n" + strings.Repeat("x", 15_000)
	for range 100 {
		send(t, dial(t, addr), half)
	}
	eventually(t, "the halves have come", func() error {
		if st := p.Stats(); st.Bytes[admission.Stranger]+int64(st.RefusedBytes[admission.Stranger])*bufferBytes < 100*bufferBytes {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	if st := p.Stats(); st.Bytes[admission.Stranger] > st.Limits[admission.Stranger] || st.RefusedBytes[admission.Stranger] == 0 || st.Bytes[admission.Input] != 0 || st.Requests != 0 {
		t.Errorf("%+v", st)
	}
	// One who has the password sends a large value meanwhile.
	if got := talk(t, addr, bulks("AUTH", "secret")+bulks("SET", "k", strings.Repeat("v", 200_000))); got != "+OK\r\n+OK\r\n" {
		t.Errorf("got %q", got)
	}
	if s.Stats().ConnectionsShed == 0 {
		t.Error("nobody was sent away")
	}
}

// The rest of a command that does not come keeps no other from coming.
func TestStalledCommandsAreCut(t *testing.T) {
	p := newPool(t, admission.Options{MaxBytes: 2 << 20})
	_, addr := newServer(t, func(o *Options) { o.Admission = p })
	stalled := dial(t, addr)
	send(t, stalled, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$200000\r\n"+strings.Repeat("v", 160_000))
	eventually(t, "half a command is held", func() error {
		if n := p.Stats().Bytes[admission.Input]; n < 160_000 {
			return fmt.Errorf("%d bytes are", n)
		}
		return nil
	})
	eventually(t, "another is taken", func() error {
		if got := talk(t, addr, bulks("SET", "k", strings.Repeat("v", 250_000))); got != "+OK\r\n" {
			return fmt.Errorf("got %.80q", got)
		}
		return nil
	})
	if _, err := io.ReadAll(stalled); p.Stats().Cut[admission.Input] != 1 {
		t.Errorf("%+v, %v", p.Stats(), err)
	}
}

// ask is the first line of the answer to a command.
func ask(t *testing.T, addr, command string) string {
	t.Helper()
	line, _, _ := strings.Cut(talk(t, addr, command), "\r\n")
	return line
}

// eventually waits until f finds nothing wrong.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// Keys without samples are on the heap: their text is bounded, each and in sum.
func TestKeysWithoutSamplesAreBounded(t *testing.T) {
	s, addr := newServer(t, func(o *Options) {
		o.MaxKeyBytes = 100 << 10
		o.Flags = map[string]string{"MaxKeyBytes": "--keys", "MaxLabels": "--labels", "MaxLabelNameBytes": "--names", "MaxLabelValueBytes": "--values"}
	})
	refused := 0
	for i := range 20 {
		got := ask(t, addr, bulks("TS.CREATE", fmt.Sprint("k", i), "LABELS", "l", strings.Repeat("x", 10_000)))
		if got != "+OK" {
			refused++
			if !strings.Contains(got, "the limit is 102400 (--keys)") {
				t.Fatal(got)
			}
		}
	}
	if refused != 11 {
		t.Errorf("%d of 20 were refused", refused)
	}
	var many []string
	for i := range 200 {
		many = append(many, fmt.Sprint("l", i), "x")
	}
	for _, x := range []struct {
		labels []string
		want   string
	}{
		{[]string{"l", strings.Repeat("x", 200_000)}, "has a value of 200000 bytes, the limit is 16384 (--values)"},
		{[]string{strings.Repeat("n", 2000), "x"}, "a label's name of 2000 bytes, the limit is 1024 (--names)"},
		{many, "a series of 201 labels, the limit is 128 (--labels)"},
	} {
		if got := ask(t, addr, bulks(append([]string{"TS.CREATE", "new", "LABELS"}, x.labels...)...)); !strings.Contains(got, x.want) {
			t.Errorf("got %.200q, want %q", got, x.want)
		}
	}
	// What goes makes room, and other labels are counted as well.
	if got := ask(t, addr, bulks("TS.ALTER", "k0", "LABELS", "l", strings.Repeat("y", 16_000))); !strings.Contains(got, "the limit is 102400 (--keys)") {
		t.Error(got)
	}
	if got := ask(t, addr, bulks("DEL", "k1", "k2", "k3")); got != ":3" {
		t.Error(got)
	}
	if got := ask(t, addr, bulks("TS.ALTER", "k0", "LABELS", "l", strings.Repeat("y", 16_000))); got != "+OK" {
		t.Error(got)
	}
	for i := range 9 {
		ask(t, addr, bulks("DEL", fmt.Sprint("k", i)))
	}
	s.series.mu.Lock()
	defer s.series.mu.Unlock()
	if s.series.bytes != 0 || len(s.series.byName) != 0 || len(s.series.byPrint) != 0 {
		t.Errorf("%d bytes of %d keys, %d label sets are left", s.series.bytes, len(s.series.byName), len(s.series.byPrint))
	}
}

// What a command collects before it answers is taken first, and given back.
func TestReadsTakeRoom(t *testing.T) {
	p := newPool(t, admission.Options{MaxBytes: 4 << 20})
	s, addr := newServer(t, func(o *Options) { o.Admission = p })
	const n = 100_000
	for i := range n / 1000 {
		samples := make([]mcache.Sample, 1000)
		for j := range samples {
			samples[j] = mcache.Sample{T: int64(i*1000+j) * 1000, V: math.Float64bits(float64(j))}
		}
		if err := s.o.Metrics.AppendSamples(s.o.Bucket, []mcache.Label{{Name: nameLabel, Value: "m"}}, samples...); err != nil {
			t.Fatal(err)
		}
	}
	for _, command := range [][]string{
		{"TS.RANGE", "m", "-", "+"}, {"TS.REVRANGE", "m", "-", "+", "COUNT", "1"}, {"TS.MRANGE", "-", "+", "FILTER", "__name__=m"},
		{"TS.MRANGE", "-", "+", "FILTER", "__name__=m", "GROUPBY", "__name__", "REDUCE", "sum"},
	} {
		if got := ask(t, addr, bulks(command...)); !strings.HasPrefix(got, "-ERR needs ") {
			t.Errorf("%s: got %.100q", command, got)
		}
	}
	// What is aggregated is held as well; a part of it is not too much.
	if got := ask(t, addr, bulks("TS.RANGE", "m", "0", "999")); got != "*1" {
		t.Errorf("got %.100q", got)
	}
	nothingHeld(t, p)
}

// MC.GET answers as it decodes: it holds what the cache does, not what it writes.
func TestRawKeysAreAnsweredAsTheyAreDecoded(t *testing.T) {
	p := newPool(t, admission.Options{MaxBytes: 2 << 20})
	s, addr := newServer(t, func(o *Options) { o.Admission = p })
	const n = 500_000
	want := make([]byte, 8*n)
	for i := range n {
		binary.LittleEndian.PutUint64(want[8*i:], uint64(i/1000))
	}
	if err := s.o.Metrics.Insert("b", []byte("k"), 5, want); err != nil {
		t.Fatal(err)
	}
	if err := s.o.Metrics.Insert("b", []byte("k"), n+100, want[:16]); err != nil {
		t.Fatal(err)
	}
	if err := s.o.Metrics.InsertHPTS("pairs", []byte("k"), want[:32]); err != nil {
		t.Fatal(err)
	}
	whole := fmt.Sprintf("*2\r\n*2\r\n:5\r\n$%d\r\n%s\r\n*2\r\n:%d\r\n$16\r\n%s\r\n", 8*n, want, n+100, want[:16])
	for _, command := range [][]string{{"MC.GET", "b", "k"}, {"MC.RANGE", "b", "k", "0", "10000000"}, {"MC.TAKE", "b", "k"}} {
		if got := talk(t, addr, bulks(command...)); got != whole {
			t.Errorf("%s: got %d bytes, want %d", command, len(got), len(whole))
		}
	}
	for command, want := range map[string]string{
		"MC.GET b k":              "*0\r\n",
		"MC.RANGE pairs k -10 10": "*1\r\n*2\r\n:0\r\n$16\r\n" + string(make([]byte, 16)) + "\r\n",
	} {
		if got := talk(t, addr, bulks(strings.Fields(command)...)); got != want {
			t.Errorf("%s: got %q, want %q", command, got, want)
		}
	}
	nothingHeld(t, p)
}

// overTLS are the two ways in which clients come.
func overTLS(t *testing.T, f func(t *testing.T, o func(*Options), dial func(addr string) pipeline)) {
	plain := func(addr string) pipeline { return dial(t, addr) }
	t.Run("plain", func(t *testing.T) { f(t, func(*Options) {}, plain) })
	t.Run("TLS", func(t *testing.T) {
		made := httptest.NewTLSServer(nil) // for its certificate
		defer made.Close()
		roots := x509.NewCertPool()
		roots.AddCert(made.Certificate())
		f(t, func(o *Options) { o.TLS = &tls.Config{Certificates: made.TLS.Certificates} }, func(addr string) pipeline {
			return tls.Client(dial(t, addr), &tls.Config{RootCAs: roots, ServerName: "example.com"})
		})
	})
}

// pipeline is a connection that can say that it writes no more.
type pipeline interface {
	net.Conn
	CloseWrite() error
}

// talkOver asks a command or several, and reads so many bytes of answer.
func talkOver(t *testing.T, c pipeline, commands string, n int) string {
	t.Helper()
	if _, err := io.WriteString(c, commands); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, n)
	if _, err := io.ReadFull(c, got); err != nil {
		t.Fatal(err)
	}
	return string(got)
}

// A client may write all of its commands before it reads the first answer.
func TestPipelineWrittenBeforeItIsRead(t *testing.T) {
	overTLS(t, testPipelineWrittenBeforeItIsRead)
}

func testPipelineWrittenBeforeItIsRead(t *testing.T, way func(*Options), dial func(addr string) pipeline) {
	p := newPool(t, admission.Options{MaxBytes: 256 << 20})
	_, addr := newServer(t, func(o *Options) { o.Admission = p; way(o) })
	value := strings.Repeat("v", 1000)
	c := dial(addr)
	if got := talkOver(t, c, bulks("SET", "k", value), 5); got != "+OK\r\n" {
		t.Fatal(got)
	}
	const n = 40_000
	get := bulks("GET", "k")
	for range n / 100 {
		if _, err := io.WriteString(c, strings.Repeat(get, 100)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(c, bulks("PING")); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "answers are kept", func() error {
		if p.Stats().Bytes[admission.Read] < 10<<20 {
			return fmt.Errorf("%+v", p.Stats())
		}
		return nil
	})
	got, err := io.ReadAll(c)
	if want := strings.Repeat("$1000\r\n"+value+"\r\n", n) + "+PONG\r\n"; string(got) != want || err != nil {
		t.Errorf("got %d bytes, want %d, %v", len(got), len(want), err)
	}
	nothingHeld(t, p)
}

// A client that has written a pipeline may take its time to read the answers,
// unless others need their room.
func TestPipelineThatIsReadLate(t *testing.T) {
	p := newPool(t, admission.Options{MaxBytes: 256 << 20})
	s, addr := newServer(t, func(o *Options) { o.Admission, o.WriteTimeout = p, time.Hour })
	client := dial(t, addr)
	const n = 1000
	value := strings.Repeat("v", 20_000)
	send(t, client, bulks("SET", "k", value)+strings.Repeat(bulks("GET", "k"), n))
	var c *conn
	eventually(t, "all answers are kept", func() error {
		s.mu.Lock()
		for c = range s.conns {
		}
		s.mu.Unlock()
		if c == nil {
			return errors.New("nobody was let in yet")
		}
		if got := s.Stats().Commands; got < n+1 || c.writing.Load() == 0 {
			return fmt.Errorf("%d commands, %d bytes wait", got, c.unread.Load())
		}
		return nil
	})
	check := func(after time.Duration, want string) {
		t.Helper()
		if why, _ := c.overdue(s.tick.Load() + s.ticks(after) + 2); why != want {
			t.Errorf("after %v it is %q, want %q", after, why, want)
		}
	}
	check(time.Hour, "")
	check(slowest*time.Hour, unreadForLong)
	var others admission.Lease
	others.Open(p, admission.Read, nil)
	if err := others.Try(p.Limit(admission.Read)/2 + 1 - p.Stats().Bytes[admission.Read]); err != nil {
		t.Fatal(err)
	}
	check(0, "")
	check(time.Hour, unreadForLong)
	others.Release()
	check(time.Hour, "")
	expect(t, client, "+OK\r\n"+strings.Repeat("$20000\r\n"+value+"\r\n", n))
	nothingHeld(t, p)
}

// Where the bounds end, a client that does not read is closed, and the log says
// who it was and what it had not read.
func TestPipelineThatIsNeverRead(t *testing.T) {
	overTLS(t, testPipelineThatIsNeverRead)
}

func testPipelineThatIsNeverRead(t *testing.T, way func(*Options), dial func(addr string) pipeline) {
	var mu sync.Mutex
	var log bytes.Buffer
	p := newPool(t, admission.Options{MaxBytes: 4 << 20})
	s, addr := newServer(t, func(o *Options) {
		way(o)
		o.Admission, o.WriteTimeout = p, 200*time.Millisecond
		o.Logger = slog.New(slog.NewTextHandler(writing(func(b []byte) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			return log.Write(b)
		}), nil))
	})
	c := dial(addr)
	talkOver(t, c, bulks("SET", "k", strings.Repeat("v", 10_000)), 5)
	get := strings.Repeat(bulks("GET", "k"), 100)
	go func() {
		for {
			if _, err := io.WriteString(c, get); err != nil {
				return // closed, as it should be
			}
		}
	}()
	eventually(t, "it is closed", func() error {
		mu.Lock()
		defer mu.Unlock()
		if !strings.Contains(log.String(), "unread_bytes=") || !strings.Contains(log.String(), c.LocalAddr().String()) {
			return fmt.Errorf("the log is %q", log.String())
		}
		return nil
	})
	if st := p.Stats(); st.Bytes[admission.Read] > st.Limits[admission.Read]+st.Limits[admission.Stranger] {
		t.Errorf("%+v", st)
	}
	eventually(t, "it has gone", func() error {
		if n := s.Stats().Connections; n != 0 {
			return fmt.Errorf("%d connections", n)
		}
		return nil
	})
	nothingHeld(t, p)
}

type writing func([]byte) (int, error)

func (w writing) Write(b []byte) (int, error) { return w(b) }
