package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
)

// selected is the data of the answer to a range selector over everything of one
// job, without the warning of a daemon that has not been written to yet.
func (s *server) selected(t *testing.T, at string) any {
	t.Helper()
	var v struct{ Data any }
	if err := s.get(`/api/v1/query?time=`+at+`&query=`+`%7Bjob%3D%22mcached%22%2C__name__!~%22mcached_http.*%7Cgo_.*%7Cprocess_.*%22%7D%5B1d%5D`, &v); err != nil {
		t.Fatal(err)
	}
	return v.Data
}

// TestE2ESnapshot: what a daemon holds when it stops another one holds after
// its start, to the bit; of a file that was damaged it has what is intact, and
// says so; and it does not start with what is no snapshot, or another's.
func TestE2ESnapshot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "snapshot")
	s := startServer(t, "--snapshot.path="+path, "--self-scrape.interval=1h")
	at := fmt.Sprint(time.Now().Add(time.Hour).Unix()) // later than the scrape, however long that takes
	var before any
	eventually(t, "the first scrape", func() error {
		if before = s.selected(t, at); !strings.Contains(fmt.Sprint(before), `scrape_duration_seconds`) {
			return errors.New("not there yet")
		}
		return nil
	})
	before = s.selected(t, at)
	if err := s.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a snapshot on demand", func() error {
		_, err := os.Stat(path)
		return err
	})
	if code := s.stop(); code != exitOK {
		t.Errorf("exit code %d: %s", code, s.output())
	}

	s = startServer(t, "--snapshot.path="+path, "--self-scrape.interval=0")
	if after := s.selected(t, at); !reflect.DeepEqual(before, after) {
		t.Errorf("after the restart:\n%v\nbefore:\n%v", after, before)
	}
	if code := s.stop(); code != exitOK {
		t.Errorf("exit code %d: %s", code, s.output())
	}

	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const header = 32
	damaged := append(bytes.Clone(file[:header]), bytes.ReplaceAll(file[header:], []byte("mcached"), []byte("mcaches"))...)
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	s = startServer(t, "--snapshot.path="+path, "--self-scrape.interval=0")
	if out := s.output(); !strings.Contains(out, "The snapshot is damaged") || strings.Contains(fmt.Sprint(s.selected(t, at)), `__name__:up`) {
		t.Errorf("a damaged snapshot was taken, or nothing said: %s", out)
	}
	if b, err := os.ReadFile(path + ".damaged"); err != nil || !bytes.Equal(b, damaged) {
		t.Errorf("its copy: %d bytes, %v", len(b), err)
	}
	none := []string{"--web.listen-address=127.0.0.1:0", "--resp.listen-address=127.0.0.1:0", "--memory.size=64MiB"}
	if code, said := refusal(t, append(none, "--snapshot.path="+path)...); code != exitError || !strings.Contains(said, fmt.Sprintf("another mcached (process %d)", s.cmd.Process.Pid)) {
		t.Errorf("another's snapshot: exit code %d and %q", code, said)
	}
	if code := s.stop(); code != exitOK {
		t.Errorf("exit code %d: %s", code, s.output())
	}

	for _, name := range []string{"dir", "pipe", "text"} {
		at := filepath.Join(dir, name)
		if err := map[string]func() error{
			"dir":  func() error { return os.Mkdir(at, 0o700) },
			"pipe": func() error { return syscall.Mkfifo(at, 0o600) },
			"text": func() error { return os.WriteFile(at, []byte("not a snapshot, but somebody's"), 0o600) },
		}[name](); err != nil {
			t.Fatal(err)
		}
		before, _ := os.ReadDir(dir)
		if code, said := refusal(t, append(none, "--snapshot.path="+at)...); code != exitError || !strings.Contains(said, "--snapshot.path="+at) {
			t.Errorf("%s: exit code %d and %q", name, code, said)
		}
		if after, _ := os.ReadDir(dir); len(after) != len(before) {
			t.Errorf("%s: %v, and before %v", name, after, before)
		}
	}

	code, said := refusal(t, append(none, "--snapshot.path="+filepath.Join(dir, "none", "snapshot"))...)
	if code != exitError || !strings.Contains(said, "--snapshot.path") {
		t.Errorf("a path that cannot be written: exit code %d and %q", code, said)
	}
}

// TestE2ECrash: after a crash the last snapshot is back, and every answer over
// what came between it and the first write after the start says so; as does a
// daemon that begins without a snapshot, over what was before.
func TestE2ECrash(t *testing.T) {
	t.Parallel()
	args := []string{"--snapshot.path=" + filepath.Join(t.TempDir(), "snapshot"), "--self-scrape.interval=0"}
	// completeFrom asks for everything from a time on.
	completeFrom := func(s *server, from time.Time) (at time.Time, warned bool) {
		t.Helper()
		res, err := http.Get(s.url + "/api/v1/query_range?query=m&step=1&start=" + fmt.Sprint(from.Unix()) + "&end=" + fmt.Sprint(time.Now().Unix()))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v", res.Status, body, err)
		}
		if h := res.Header.Get("X-Mcached-Complete-From"); h != "" {
			if at, err = time.Parse(time.RFC3339Nano, h); err != nil {
				t.Fatal(err)
			}
		}
		warned = strings.Count(string(body), "may be missing: until then this server was down, or had not been written to") == 1
		if warned == at.IsZero() {
			t.Errorf("a header without a warning, or a warning without a header: %v, %s", res.Header, body)
		}
		return at, warned
	}
	began := time.Now()
	s := startServer(t, args...)
	s.send(1, "__name__", "m")
	wrote := time.Now()
	if at, _ := completeFrom(s, began.Add(-time.Minute)); at.Before(began.Add(-time.Millisecond)) || at.After(wrote) {
		t.Errorf("began at %v, first written to before %v: complete from %v", began, wrote, at)
	}
	if code, _, errs := invoke(t, "snapshot", "--url="+s.url); code != exitOK {
		t.Fatal(errs)
	}
	s.send(2, "__name__", "m", "lost", "yes")
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-s.exited
	crashed := time.Now()

	s = startServer(t, args...)
	if at, _ := completeFrom(s, crashed); at.Before(crashed.Add(-time.Second)) {
		t.Errorf("crashed at %v, not written to yet: complete from %v", crashed, at)
	}
	before := time.Now()
	s.send(3, "__name__", "m")
	if at, _ := completeFrom(s, wrote); at.Before(before.Add(-time.Millisecond)) || at.After(time.Now()) {
		t.Errorf("first written to between %v and now: complete from %v", before, at)
	}
	if n := s.metric(`mcached_query_incomplete_total{reason="uncovered"}`); n != 2 {
		t.Errorf("%v answers counted of 2", n)
	}
	if code := s.stop(); code != exitOK {
		t.Errorf("exit code %d: %s", code, s.output())
	}
}
