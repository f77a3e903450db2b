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
	"sync/atomic"
	"time"

	"mcached/mcache"
)

// A snapshot is the metric cache in one file, so that a restart does not begin
// cold. It is read before the first request and written after the last, and
// whenever SIGUSR1 or `mcached snapshot` asks for it. The file is replaced whole or not at all.

// loadSnapshot reads the snapshot, if there is one. A file that is no whole
// snapshot is put aside and the cache begins empty; that costs what a cache
// may cost. What cannot be read or later written is an error.
func (d *daemon) loadSnapshot() error {
	path := d.config.snapshotPath
	if path == "" {
		return nil
	}
	// Better to learn now than at the end that it cannot be written.
	probe, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return fmt.Errorf("--snapshot.path: %w", err)
	}
	_ = probe.Close()
	if err := os.Remove(probe.Name()); err != nil {
		return fmt.Errorf("--snapshot.path: %w", err)
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		d.log.Info("No snapshot yet.", "path", path)
		return nil
	}
	if err != nil {
		return fmt.Errorf("--snapshot.path: %w", err)
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
	st, err := d.metrics.Load(countingReader{f, &read}, mcache.LoadOptions{})
	done()
	switch {
	case errors.Is(err, mcache.ErrDamaged):
		for _, b := range d.metrics.Buckets() {
			d.metrics.RemoveBucket(b)
		}
		aside := path + ".refused"
		if err := os.Rename(path, aside); err != nil {
			return fmt.Errorf("--snapshot.path: %w", err)
		}
		d.log.Warn("The snapshot is refused; the cache begins empty.", "path", path, "moved_to", aside, "err", err)
		return nil
	case errors.Is(err, mcache.ErrNoMemory):
		d.log.Warn("Not all of the snapshot has room.", "path", path, "series", st.Series, "points", st.Points, "err", err)
		return nil
	case err != nil:
		return fmt.Errorf("--snapshot.path: %w", err)
	}
	d.log.Info("Snapshot read.", "path", path, "series", st.Series, "points", st.Points, "bytes", st.Bytes,
		"saved", time.UnixMilli(st.TimeMs).UTC().Format(time.RFC3339), "took", time.Since(began))
	return nil
}

// saveSnapshot writes the snapshot beside the old one and then puts it in its
// place; when that fails, for want of disk say, the old one stays. What is
// written is added to written as it goes. d.saving is held.
func (d *daemon) saveSnapshot(written *atomic.Int64) (st mcache.Saved, err error) {
	path := d.config.snapshotPath
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return st, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	began := time.Now()
	w := bufio.NewWriterSize(countingWriter{f, written}, 1<<20)
	st, err = d.metrics.Save(w, began.UnixMilli(), nil)
	if err = errors.Join(err, w.Flush()); err != nil {
		return st, err
	}
	if err = f.Sync(); err != nil {
		return st, err
	}
	if err = f.Close(); err != nil {
		return st, err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return st, err
	}
	d.log.Info("Snapshot written.", "path", path, "series", st.Series, "points", st.Points, "bytes", st.Bytes, "took", time.Since(began))
	return st, nil
}

// followSnapshot is saveSnapshot that shows how far it is.
func (d *daemon) followSnapshot() error {
	d.saving.Lock()
	defer d.saving.Unlock()
	var written atomic.Int64
	defer d.progress.follow("Writing the snapshot", func() string { return showBytes(float64(written.Load())) })()
	_, err := d.saveSnapshot(&written)
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
			if err := d.followSnapshot(); err != nil {
				d.log.Error("The snapshot was not written.", "path", d.config.snapshotPath, "err", err)
			}
		}
	}
}
