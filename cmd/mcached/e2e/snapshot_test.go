package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
)

// selected is the answer to a range selector over everything of one job.
func (s *server) selected(t *testing.T, at string) any {
	t.Helper()
	var v any
	if err := s.get(`/api/v1/query?time=`+at+`&query=`+`%7Bjob%3D%22mcached%22%2C__name__!~%22mcached_http.*%7Cgo_.*%7Cprocess_.*%22%7D%5B1d%5D`, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestE2ESnapshot: what a daemon holds when it stops another one holds after
// its start, to the bit; and a file that was damaged is refused in one line.
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
	if err := os.WriteFile(path, bytes.ReplaceAll(file, []byte("mcached"), []byte("mcaches")), 0o600); err != nil {
		t.Fatal(err)
	}
	s = startServer(t, "--snapshot.path="+path, "--self-scrape.interval=0")
	if out := s.output(); strings.Count(out, "refused") < 1 || strings.Contains(fmt.Sprint(s.selected(t, at)), `__name__:up`) {
		t.Errorf("a damaged snapshot was taken, or nothing said: %s", out)
	}
	if code := s.stop(); code != exitOK {
		t.Errorf("exit code %d: %s", code, s.output())
	}

	code, said := refusal(t, "--web.listen-address=127.0.0.1:0", "--resp.listen-address=127.0.0.1:0", "--memory.size=64MiB", "--snapshot.path="+filepath.Join(dir, "none", "snapshot"))
	if code != exitError || !strings.Contains(said, "--snapshot.path") {
		t.Errorf("a path that cannot be written: exit code %d and %q", code, said)
	}
}
