package main

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"golang.org/x/sys/unix"

	"mcached/kvcache"
	"mcached/mcache"
	"mcached/remotewrite"
	"mcached/remotewrite/wire"
)

// newSnapshotDaemon is a daemon that has nothing but metrics and a snapshot.
func newSnapshotDaemon(t *testing.T, path string) *daemon {
	t.Helper()
	memory, err := kvcache.NewMemory(kvcache.MemoryOptions{BudgetBytes: 8 << 20, RegionBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { memory.Close() })
	metrics, err := mcache.New(mcache.Options{Memory: memory, Shards: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { metrics.Close() })
	d := &daemon{config: &config{snapshotPath: path}, memory: memory, metrics: metrics, writes: remotewrite.NewHandler(metrics, remotewrite.Options{}), progress: newProgress(io.Discard), log: slog.New(slog.DiscardHandler)}
	t.Cleanup(func() {
		if d.snapshot != nil {
			d.snapshot.lock.release()
		}
	})
	return d
}

func (d *daemon) mustOpenSnapshot(t *testing.T) {
	t.Helper()
	if err := d.openSnapshot(); err != nil {
		t.Fatal(err)
	}
	if err := d.loadSnapshot(); err != nil {
		t.Fatal(err)
	}
}

// writeSnapshot makes a snapshot of one series at path.
func writeSnapshot(t *testing.T, path string) {
	t.Helper()
	d := newSnapshotDaemon(t, path)
	d.mustOpenSnapshot(t)
	if err := d.metrics.AppendSamples("default", []mcache.Label{{Name: "__name__", Value: "m"}}, mcache.Sample{T: 1, V: 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.saveSnapshot(); err != nil {
		t.Fatal(err)
	}
	d.snapshot.lock.release()
}

// TestSnapshotPlace: whatever --snapshot.path names that is no snapshot stays as
// it is; the daemon does not start, and check-config says so.
func TestSnapshotPlace(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	writeSnapshot(t, in("snapshot"))
	l, err := net.Listen("unix", in("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := errors.Join(
		os.Mkdir(in("dir"), 0o700), os.WriteFile(in("dir/file"), nil, 0o600), unix.Mkfifo(in("pipe"), 0o600),
		os.WriteFile(in("text"), []byte("dear diary, today I wrote a cache"), 0o600), os.WriteFile(in("empty"), nil, 0o600),
		os.WriteFile(in("short"), []byte("mcached ser"), 0o600),
		os.WriteFile(in("locked.lock"), []byte("of somebody else"), 0o600), os.Mkdir(in("shut.lock"), 0o700),
		os.Symlink("snapshot", in("link")), os.Symlink("nowhere", in("dangling")), os.Symlink("dir", in("dirlink")), os.Symlink("loop", in("loop")),
	); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, says string }{
		{in("new"), ""}, {in("snapshot"), ""}, {in("link"), ""},
		{in("dir"), "a directory"}, {in("dirlink"), "a directory"}, {in("pipe"), "a pipe"}, {in("socket"), "a socket"}, {"/dev/null", "a device"},
		{in("text"), "no snapshot"}, {in("empty"), "no snapshot"}, {in("short"), "no snapshot"}, {in("dangling"), "leads nowhere"}, {in("loop"), "leads nowhere"},
		{in("none/snapshot"), "none"}, {in("text/snapshot"), "not a directory"}, {"/proc/1/snapshot", "/proc/1"},
		{in("locked"), "no lock of mcached"}, {in("shut"), "shut.lock: it is a directory"},
	} {
		before := listing(t, dir)
		_, err := checkSnapshotPlace(c.path)
		if (err == nil) != (c.says == "") || err != nil && (!strings.Contains(err.Error(), c.says) || !strings.HasPrefix(err.Error(), "--snapshot.path="+c.path+": ") || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%s: %v, want %q", c.path, err, c.says)
		}
		var out, errs bytes.Buffer
		if code := dispatch([]string{"check-config", "--snapshot.path=" + c.path}, &out, &errs); (code == exitOK) != (c.says == "") || !strings.Contains(errs.String(), c.says) {
			t.Errorf("%s: check-config: code %d, %q", c.path, code, errs.String())
		}
		if after := listing(t, dir); after != before {
			t.Errorf("%s: a check changed\n%s to\n%s", c.path, before, after)
		}
		d := newSnapshotDaemon(t, c.path)
		switch err := d.openSnapshot(); {
		case (err == nil) != (c.says == ""):
			t.Errorf("%s: the daemon: %v", c.path, err)
		case err != nil && listing(t, dir) != before:
			t.Errorf("%s: a start that failed changed\n%s to\n%s", c.path, before, listing(t, dir))
		case err == nil:
			d.snapshot.lock.release()
		}
	}
	// Through a link the file is replaced, not the link.
	d := newSnapshotDaemon(t, in("link"))
	d.mustOpenSnapshot(t)
	if d.metrics.Stats().Series != 1 {
		t.Error("nothing was read through a link")
	}
	if _, err := d.saveSnapshot(); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(in("link")); to != "snapshot" {
		t.Errorf("the link is %q, %v", to, err)
	}
}

// listing is the names, kinds and sizes of all files below dir.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	if err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if strings.HasSuffix(path, lockSuffix) {
			return nil
		}
		info, err := e.Info()
		if err == nil {
			b.WriteString(path + " " + info.Mode().String() + " " + showBytes(float64(info.Size())) + "\n")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestSnapshotLock: two daemons do not share a snapshot, under no name.
func TestSnapshotLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "snapshot")
	link := path + ".link"
	writeSnapshot(t, path)
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	first := newSnapshotDaemon(t, path)
	first.mustOpenSnapshot(t)
	if _, err := first.saveSnapshot(); err != nil { // the file is another now
		t.Fatal(err)
	}
	for _, name := range []string{path, link} {
		if err := newSnapshotDaemon(t, name).openSnapshot(); err == nil || !strings.Contains(err.Error(), "another mcached (process ") || !strings.Contains(err.Error(), "--snapshot.path="+name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	first.snapshot.lock.release()
	newSnapshotDaemon(t, path).mustOpenSnapshot(t)

	other := filepath.Join(t.TempDir(), "snapshot")
	if err := unix.Mkfifo(other+lockSuffix, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := newSnapshotDaemon(t, other).openSnapshot(); err == nil || !strings.Contains(err.Error(), "a pipe") {
		t.Errorf("a pipe for a lock: %v", err)
	}
	for _, foreign := range []string{"somebody else's file", "123456789012345678901"} {
		other = filepath.Join(t.TempDir(), "snapshot")
		if err := os.WriteFile(other+lockSuffix, []byte(foreign), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := newSnapshotDaemon(t, other).openSnapshot(); err == nil || !strings.Contains(err.Error(), "no lock of mcached") {
			t.Errorf("another's file for a lock: %v", err)
		}
		if b, err := os.ReadFile(other + lockSuffix); string(b) != foreign {
			t.Errorf("another's file is %q, %v", b, err)
		}
	}
}

// TestSnapshotAside: a snapshot that is refused takes the place of an earlier one
// that was, and of nothing else.
func TestSnapshotAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "snapshot")
	aside := path + ".refused"
	for range 2 {
		writeSnapshot(t, path)
		if name, err := moveRefused(path); name != aside || err != nil {
			t.Fatalf("%q, %v", name, err)
		}
	}
	if err := os.WriteFile(aside, []byte("somebody else's file"), 0o600); err != nil {
		t.Fatal(err)
	}
	writeSnapshot(t, path)
	if _, err := moveRefused(path); err == nil || !strings.Contains(err.Error(), aside) {
		t.Errorf("another's file in its place: %v", err)
	}
	if b, err := os.ReadFile(aside); string(b) != "somebody else's file" {
		t.Errorf("another's file is %q, %v", b, err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

// TestSnapshotStale: what killed daemons left is removed at the start, and
// nothing else.
func TestSnapshotStale(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "S")
	writeSnapshot(t, path)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	stale := []string{"S.123.tmp", "S.4.tmp", "S.5.tmp"}
	stay := []string{"S.6.tmp", "S..tmp", "S.x.tmp", "S.7.tmp.bak", "SS.8.tmp", "T.9.tmp", "S.refused", "S.damaged"}
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, stale[0]), whole, 0o600), os.WriteFile(filepath.Join(dir, stale[1]), nil, 0o600),
		os.WriteFile(filepath.Join(dir, stale[2]), whole[:100], 0o600),
		os.WriteFile(filepath.Join(dir, stay[0]), []byte("somebody else's, by that name"), 0o600),
		os.Mkdir(filepath.Join(dir, "S.10.tmp"), 0o700), unix.Mkfifo(filepath.Join(dir, "S.11.tmp"), 0o600), os.Symlink(path, filepath.Join(dir, "S.12.tmp")),
	); err != nil {
		t.Fatal(err)
	}
	for _, name := range stay[1:] {
		if err := os.WriteFile(filepath.Join(dir, name), whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	newSnapshotDaemon(t, path).mustOpenSnapshot(t)
	for _, name := range stale {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", name, err)
		}
	}
	for _, name := range append(stay, "S", "S.10.tmp", "S.11.tmp", "S.12.tmp") {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

// TestSnapshotDamaged: what is intact of a damaged snapshot is there, the file
// has a copy, and the metrics tell.
func TestSnapshotDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "snapshot")
	writeSnapshot(t, path)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := file[:len(file)-5] // the end
	later := bytes.Clone(file)
	later[magicBytes] = 99
	for name, c := range map[string]struct {
		file   []byte
		series int
		copy   string
	}{"damaged": {damaged, 1, ".damaged"}, "cut": {file[:40], 0, ".damaged"}, "version byte": {later, 1, ".damaged"}} {
		if err := os.WriteFile(path, c.file, 0o600); err != nil {
			t.Fatal(err)
		}
		d := newSnapshotDaemon(t, path)
		var log bytes.Buffer
		d.log = slog.New(slog.NewTextHandler(&log, nil))
		d.mustOpenSnapshot(t)
		if n := d.metrics.Stats().Series; n != c.series || !strings.Contains(log.String(), "damaged") {
			t.Errorf("%s: %d series, %s", name, n, log.String())
		}
		if b, err := os.ReadFile(path + c.copy); err != nil || !bytes.Equal(b, c.file) {
			t.Errorf("%s: the copy: %d bytes, %v", name, len(b), err)
		}
		if n := d.snapshot.stats().loadErrors; n != 1 {
			t.Errorf("%s: %d errors", name, n)
		}
		if _, err := d.saveSnapshot(); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(path + c.copy); err != nil || !bytes.Equal(b, c.file) {
			t.Errorf("%s: the copy after the next snapshot: %d bytes, %v", name, len(b), err)
		}
		d.snapshot.lock.release()
	}
}

// TestServeSnapshot: 200 says that the snapshot is on the disk, and nothing
// else does.
func TestServeSnapshot(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "snapshot")
	d := newSnapshotDaemon(t, path)
	ask := func() *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		d.serveSnapshot(w, httptest.NewRequest(http.MethodPost, "/-/snapshot", nil))
		return w
	}
	if w := ask(); w.Code != http.StatusConflict {
		t.Errorf("without a path: %d %s", w.Code, w.Body)
	}
	d.mustOpenSnapshot(t)
	if w := ask(); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), path) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if st := d.snapshot.stats(); st.lastSuccess.IsZero() || st.bytes == 0 || st.saveErrors != 0 {
		t.Errorf("%+v", st)
	}
	w := httptest.NewRecorder()
	d.serveSnapshotProgress(w, nil)
	if !strings.Contains(w.Body.String(), `{"bytes":`) || strings.Contains(w.Body.String(), `{"bytes":0}`) {
		t.Errorf("progress: %s", w.Body)
	}
	whole := d.snapshot.stats()
	// Something else in its place, and no place at all.
	if err := os.WriteFile(path, []byte("somebody else's file"), 0o600); err != nil {
		t.Fatal(err)
	}
	failures := uint64(0)
	fails := func(what string) {
		t.Helper()
		failures++
		if w := ask(); w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), `"error":"`) {
			t.Errorf("%s: %d %s", what, w.Code, w.Body)
		}
		if st := d.snapshot.stats(); st.saveErrors != failures || st.lastSuccess != whole.lastSuccess || st.bytes != whole.bytes {
			t.Errorf("%s: %+v", what, st)
		}
		if temps, _ := filepath.Glob(filepath.Join(dir, "*.tmp")); len(temps) > 0 {
			t.Errorf("%s: left %q", what, temps)
		}
	}
	fails("another's file")
	if b, err := os.ReadFile(path); string(b) != "somebody else's file" {
		t.Errorf("another's file is %q, %v", b, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	fails("no directory")
	d.saving.Lock()
	if w := ask(); w.Code != http.StatusConflict {
		t.Errorf("at the same time: %d %s", w.Code, w.Body)
	}
	d.saving.Unlock()
}

// TestSnapshotCrafted: a histogram that says to span four billion buckets is
// not taken from a snapshot, however right its checksums; the rest is.
func TestSnapshotCrafted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "snapshot")
	d := newSnapshotDaemon(t, path)
	d.mustOpenSnapshot(t)
	good := writev2.FromIntHistogram(0, 1000, &histogram.Histogram{Count: 1, PositiveSpans: []histogram.Span{{Offset: 0, Length: 1}}, PositiveBuckets: []int64{1}})
	bad := good
	bad.PositiveSpans = []writev2.BucketSpan{{Offset: 0, Length: math.MaxUint32}}
	for name, h := range map[string]*writev2.Histogram{"good": &good, "bad": &bad} {
		b, err := h.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		labels := []mcache.Label{{Name: "__name__", Value: name}}
		var batch mcache.Batch
		batch.Reset("default")
		batch.Series(d.metrics.Fingerprint(labels))
		batch.Record(1000, b)
		batch.Sample(2000, 1)
		if _, err := d.metrics.AppendNew(&batch, 0, labels); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.saveSnapshot(); err != nil {
		t.Fatal(err)
	}
	d.snapshot.lock.release()
	d = newSnapshotDaemon(t, path)
	var log bytes.Buffer
	d.log = slog.New(slog.NewTextHandler(&log, nil))
	d.mustOpenSnapshot(t)
	if st := d.metrics.Stats(); st.Series != 2 || st.Points != 3 || !strings.Contains(log.String(), "refused") {
		t.Errorf("%d series of %d points; %s", st.Series, st.Points, log.String())
	}
}

// TestSnapshotKept: exemplars and descriptions are back after a restart.
func TestSnapshotKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "snapshot")
	d := newSnapshotDaemon(t, path)
	d.mustOpenSnapshot(t)
	series := remotewrite.SeriesExemplars{Labels: []mcache.Label{{Name: "__name__", Value: "m"}},
		Exemplars: []remotewrite.Exemplar{{T: 1000, V: math.Float64bits(2), Labels: []mcache.Label{{Name: "trace_id", Value: "abc"}}}}}
	d.writes.PutExemplars("default", series)
	want := wire.Metadata{Type: "counter", Help: "what it is", Unit: "things"}
	d.writes.PutMetadata("default", "m", want)
	if _, err := d.saveSnapshot(); err != nil {
		t.Fatal(err)
	}
	d.snapshot.lock.release()
	d = newSnapshotDaemon(t, path)
	d.mustOpenSnapshot(t)
	if got, ok := d.writes.Describe("default", "m"); !ok || got != want {
		t.Errorf("%+v, %v", got, ok)
	}
	if got := d.writes.Exemplars("default", 0, 2000, func([]mcache.Label) bool { return true }); !reflect.DeepEqual(got, []remotewrite.SeriesExemplars{series}) {
		t.Errorf("%+v", got)
	}
}
