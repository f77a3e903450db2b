package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// overwrite puts content into a file, at a time that no other content has.
func overwrite(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	written++
	if err := os.Chtimes(path, time.Time{}, time.Unix(written, 0)); err != nil {
		t.Fatal(err)
	}
}

var written int64 = 1e9

// TestWatch: a file that has changed is read when it looks the same twice; one
// that is wrong is told once, and read when it is right again.
func TestWatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	overwrite(t, path, "a")
	var log bytes.Buffer
	r := &reloader{log: slog.New(slog.NewTextHandler(&log, nil)), inForce: map[string]string{},
		reread: func() (*config, error) { return &config{}, nil },
		apply:  func(map[string]string, *config) flagChanges { return flagChanges{} }}
	inForce, reads := "a", 0
	r.add(&source{flag: "x.file", files: func() []string { return []string{path} }, read: func() error {
		reads++
		b, err := os.ReadFile(path)
		if err == nil && strings.HasPrefix(string(b), "bad") {
			err = errors.New("nonsense")
		}
		if err == nil {
			inForce = string(b)
		}
		return err
	}})
	expect := func(when, want string, wantReads, wantWarnings int) {
		t.Helper()
		if warnings := strings.Count(log.String(), "level=WARN"); inForce != want || reads != wantReads || warnings != wantWarnings {
			t.Errorf("%s: %q is in force, want %q; read %d times, want %d; %d warnings, want %d\n%s", when, inForce, want, reads, wantReads, warnings, wantWarnings, log.String())
		}
	}
	r.watch()
	expect("unchanged", "a", 0, 0)
	overwrite(t, path, "b")
	r.watch()
	expect("just changed", "a", 0, 0)
	r.watch()
	expect("changed and settled", "b", 1, 0)
	overwrite(t, path, "b")
	r.watch()
	r.watch()
	expect("touched", "b", 1, 0)
	overwrite(t, path, "bad 1")
	for range 5 {
		r.watch()
	}
	expect("wrong", "b", 2, 1)
	if r.lastRight.Load() {
		t.Error("a file is wrong, and the last reload is right")
	}
	if news := r.reload(); len(news.Failed) != 1 || !strings.Contains(news.Failed[0], "--x.file: nonsense") {
		t.Errorf("reloaded: %+v", news)
	}
	if strings.Contains(log.String(), `msg=Reloaded.`) || !strings.Contains(log.String(), `msg="Not all was reloaded." changed=nothing`) {
		t.Errorf("what was wrong is logged as reloaded:\n%s", &log)
	}
	expect("wrong, and asked", "b", 3, 2)
	overwrite(t, path, "bad 2")
	r.watch()
	r.watch()
	expect("wrong otherwise", "b", 4, 3)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	r.watch()
	r.watch()
	expect("gone", "b", 5, 4)
	overwrite(t, path, "b")
	r.watch()
	r.watch()
	expect("as it was", "b", 5, 4)
	if !r.lastRight.Load() || r.stats().right != 1 {
		t.Error("the file is right again, and the metric says otherwise")
	}
	overwrite(t, path, "c")
	if news := r.reload(); len(news.Failed) != 0 || len(news.Changed) != 1 || !strings.Contains(news.Changed[0], path) {
		t.Errorf("reloaded: %+v", news)
	}
	expect("asked", "c", 6, 4)
	r.watch()
	r.watch()
	expect("nothing since", "c", 6, 4)
	if news := r.reload(); len(news.Failed)+len(news.Changed) != 0 || !r.lastRight.Load() {
		t.Errorf("reloaded: %+v", news)
	}
}

// TestWatchPipes: what can be read but once is not waited for.
func TestWatchPipes(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	name := []string{fmt.Sprintf("/proc/self/fd/%d", r.Fd())}
	if before := digest(name); before != digest(name) {
		t.Error("a pipe changes")
	}
}

// TestHandshakeLog: failures are warned of now and then, looks at the port are not.
func TestHandshakeLog(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(1e9, 0)
	h := &handshakeLog{log: slog.New(slog.NewTextHandler(&out, nil)), now: func() time.Time { return now }}
	for range 100 {
		for _, line := range []string{"http: TLS handshake error from 1.2.3.4:5: remote error: tls: bad certificate\n", "http: TLS handshake error from 1.2.3.4:5: EOF\n", "http: superfluous call\n"} {
			if _, err := h.Write([]byte(line)); err != nil {
				t.Fatal(err)
			}
		}
		now = now.Add(time.Second)
	}
	if n := strings.Count(out.String(), "bad certificate"); n != 10 || strings.Count(out.String(), "\n") != 10 || !strings.Contains(out.String(), "more_since_the_last_warning=9") ||
		!strings.Contains(out.String(), `from=1.2.3.4:5 err="remote error: tls: bad certificate"`) {
		t.Errorf("%d warnings:\n%s", n, out.String())
	}
}
