package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"mcached/mcache"
	"mcached/remotewrite"
)

// A snapshot is the metric cache in one file, with exemplars and descriptions, so that a restart does not begin
// cold. It is read before the first request and written after the last, and
// whenever SIGUSR1 or `mcached snapshot` asks for it. The file is replaced whole or not at all.

// openSnapshot makes the snapshot this daemon's own, before any port is open:
// what is there is one, nobody else uses it, and a new one can be written.
func (d *daemon) openSnapshot() error {
	if d.config.snapshotPath == "" {
		return nil
	}
	file, err := checkSnapshotPlace(d.config.snapshotPath)
	if err != nil {
		return err
	}
	d.snapshot = &snapshotState{path: file}
	if d.snapshot.lock, err = lockSnapshot(file); err != nil {
		return fmt.Errorf("--snapshot.path=%s: %w", d.config.snapshotPath, err)
	}
	// Better to learn now than at the end that it cannot be written.
	probe, err := os.CreateTemp(filepath.Dir(file), tempPattern(file))
	if err != nil {
		return fmt.Errorf("--snapshot.path=%s: %w", d.config.snapshotPath, err)
	}
	err = errors.Join(probe.Close(), os.Remove(probe.Name()))
	if err != nil {
		return fmt.Errorf("--snapshot.path=%s: %w", d.config.snapshotPath, err)
	}
	stale, err := removeStale(file)
	if len(stale) > 0 {
		d.log.Info("What killed daemons left was removed.", "files", len(stale), "first", stale[0])
	}
	if err != nil {
		d.log.Warn("What killed daemons left was not removed.", "err", err)
	}
	return nil
}

// snapshotState is what a daemon knows of its snapshot.
type snapshotState struct {
	path string // without symbolic links in its last place
	lock snapshotLock

	written atomic.Int64 // bytes of the one that is being written, or was written last

	mu sync.Mutex
	snapshotStats
}

// snapshotStats are for metrics.
type snapshotStats struct {
	lastSuccess            time.Time // of the last snapshot, be it of a daemon before this one
	took                   time.Duration
	bytes                  int64
	saveErrors, loadErrors uint64
}

func (s *snapshotState) stats() snapshotStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshotStats
}

// read notes what was read at the start.
func (s *snapshotState) read(st mcache.Loaded, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.TimeMs != 0 {
		s.lastSuccess, s.bytes = time.UnixMilli(st.TimeMs), st.Bytes
	}
	if err != nil {
		s.loadErrors++
	}
}

// wrote notes what was written, or why not.
func (s *snapshotState) wrote(began time.Time, bytes int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.saveErrors++
		return
	}
	s.lastSuccess, s.took, s.bytes = began, time.Since(began), bytes
}

// loadSnapshot reads the snapshot, if there is one. What is damaged in it is
// left out, and said; a copy of the file stays for who wants to look.
func (d *daemon) loadSnapshot() error {
	if d.snapshot == nil {
		return nil
	}
	path := d.snapshot.path
	f, _, err := openSnapshotFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		d.log.Info("No snapshot yet.", "path", path)
		return nil
	}
	if err != nil {
		return fmt.Errorf("--snapshot.path=%s: %w", path, err)
	}
	defer f.Close()
	size := int64(0)
	if info, err := f.Stat(); err == nil {
		size = info.Size()
	}
	began := time.Now()
	var read atomic.Int64
	done := d.progress.follow("Reading the snapshot", func() string {
		return fmt.Sprintf("%s of %s", showBytes(float64(read.Load())), showBytes(float64(size)))
	})
	st, err := d.metrics.Load(countingReader{f, &read}, mcache.LoadOptions{CheckRecord: remotewrite.CheckHistogram, Extra: d.writes.TakeKept})
	done()
	d.snapshot.read(st, err)
	return d.tellLoaded(path, st, err, time.Since(began))
}

// tellLoaded says what was read, and what was not. Only what may be over at
// the next try is an error.
func (d *daemon) tellLoaded(path string, st mcache.Loaded, err error, took time.Duration) error {
	args := []any{"path", path, "series", st.Series, "points", st.Points, "bytes", st.Bytes,
		"saved", time.UnixMilli(st.TimeMs).UTC().Format(time.RFC3339), "took", took}
	switch {
	case err == nil:
		d.log.Info("Snapshot read.", args...)
	case errors.Is(err, mcache.ErrVersion):
		aside, failed := moveRefused(path)
		if failed != nil {
			return fmt.Errorf("--snapshot.path=%s: %w", path, failed)
		}
		d.log.Warn("The snapshot is of a later mcached and refused; the cache begins empty.", "path", path, "moved_to", aside, "err", err)
	case errors.Is(err, mcache.ErrNoMemory):
		d.log.Warn("The snapshot does not fit into memory; a part of it was loaded.", append(args, "damaged_parts", st.Damaged, "refused_series", st.Refused, "err", err)...)
	case st.Damaged > 0:
		args = append(args, "damaged_parts", st.Damaged, "lost_series", st.LostSeries, "lost_points", st.LostPoints, "refused_series", st.Refused, "err", err)
		if aside, err := keepDamaged(path); err != nil {
			args = append(args, "not_copied", err)
		} else {
			args = append(args, "copy", aside)
		}
		d.log.Warn("The snapshot is damaged; what is intact was read.", args...)
	case st.Refused > 0:
		d.log.Warn("Some series of the snapshot were refused.", append(args, "refused_series", st.Refused, "err", err)...)
	default:
		return fmt.Errorf("--snapshot.path=%s: %w", path, err)
	}
	return nil
}

// moveRefused gives a snapshot that is refused another name, in place of one that
// was refused before.
func moveRefused(path string) (aside string, err error) {
	aside = path + ".refused"
	if _, err := checkSnapshotFile(aside); err != nil {
		return "", fmt.Errorf("%s: %w", aside, err)
	}
	return aside, os.Rename(path, aside)
}

// keepDamaged gives a damaged snapshot another name as well, under which it
// stays when the next one takes its place.
func keepDamaged(path string) (aside string, err error) {
	aside = path + ".damaged"
	if _, err := checkSnapshotFile(aside); err != nil {
		return "", fmt.Errorf("%s: %w", aside, err)
	}
	if err := os.Remove(aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return aside, os.Link(path, aside)
}

// saveSnapshot writes the snapshot beside the old one and then puts it in its
// place; when that fails, for want of disk say, the old one stays. d.saving is held.
func (d *daemon) saveSnapshot() (st mcache.Saved, err error) {
	path, began := d.snapshot.path, time.Now()
	d.snapshot.written.Store(0)
	defer func() { d.snapshot.wrote(began, st.Bytes, err) }()
	f, err := os.CreateTemp(filepath.Dir(path), tempPattern(path))
	if err != nil {
		return st, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	w := bufio.NewWriterSize(countingWriter{f, &d.snapshot.written}, 1<<20)
	st, err = d.metrics.Save(w, began.UnixMilli(), d.writes.Kept())
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		return st, err
	}
	if err = f.Sync(); err != nil {
		return st, err
	}
	if err = f.Close(); err != nil {
		return st, err
	}
	if err = d.replaceSnapshot(f.Name()); err != nil {
		return st, err
	}
	d.log.Info("Snapshot written.", "path", path, "series", st.Series, "points", st.Points, "bytes", st.Bytes, "took", time.Since(began))
	return st, nil
}

// replaceSnapshot puts what was written in the place of the snapshot, unless
// something else is there by now.
func (d *daemon) replaceSnapshot(written string) error {
	path := d.snapshot.path
	if _, err := checkSnapshotFile(path); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := os.Rename(written, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync() // or the name may be the old file's again after a loss of power
}

// followSnapshot is saveSnapshot that shows how far it is.
func (d *daemon) followSnapshot() error {
	d.saving.Lock()
	defer d.saving.Unlock()
	defer d.progress.follow("Writing the snapshot", func() string { return showBytes(float64(d.snapshot.written.Load())) })()
	_, err := d.saveSnapshot()
	return err
}

// countingReader and countingWriter count what passes.
type countingReader struct {
	io.Reader
	n *atomic.Int64
}

func (c countingReader) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n.Add(int64(n))
	return n, err
}

type countingWriter struct {
	io.Writer
	n *atomic.Int64
}

func (c countingWriter) Write(b []byte) (int, error) {
	n, err := c.Writer.Write(b)
	c.n.Add(int64(n))
	return n, err
}

// snapshotLoop writes a snapshot whenever SIGUSR1 asks for one.
func (d *daemon) snapshotLoop(ctx context.Context, asked <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-asked:
			if d.config.snapshotPath == "" {
				d.log.Warn("There is nowhere to write a snapshot to: start the daemon with --snapshot.path.")
				continue
			}
			if err := d.followSnapshot(); err != nil {
				d.log.Error("The snapshot was not written.", "path", d.config.snapshotPath, "err", err)
			}
		}
	}
}
