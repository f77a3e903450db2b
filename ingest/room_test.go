package ingest

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"mcached/ingest/admission"
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
	s, addr := newServer(t, func(o *Options) { o.Admission = p })
	got := talk(t, addr, bulks("SET", "k", strings.Repeat("v", 200_000)))
	if !strings.HasPrefix(got, "-ERR needs ") || !strings.Contains(got, "raise --max") || s.Stats().ConnectionsShed != 1 {
		t.Fatalf("got %q, %+v", got, s.Stats())
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
