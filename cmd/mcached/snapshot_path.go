package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"mcached/mcache"
)

// --snapshot.path is a name that somebody typed. Nothing under it is touched,
// at the start or later, but a regular file that begins as a snapshot does; of
// what stands beside it, only what earlier daemons left there.

// magicBytes of a file tell whether it begins as a snapshot.
const magicBytes = 16

// checkSnapshotPlace says whether a snapshot can be kept at path, and changes
// nothing. The file need not exist. It returns the name without symbolic links
// in its last place.
func checkSnapshotPlace(path string) (file string, err error) {
	if path == "" {
		return "", nil
	}
	file, err = checkSnapshotFile(path)
	if err != nil {
		return "", fmt.Errorf("--snapshot.path=%s: %w", path, err)
	}
	dir := filepath.Dir(file)
	switch info, err := os.Stat(dir); {
	case err != nil:
		return "", fmt.Errorf("--snapshot.path=%s: %w", path, err)
	case !info.IsDir():
		return "", fmt.Errorf("--snapshot.path=%s: %w", path, &fs.PathError{Op: "open", Path: dir, Err: unix.ENOTDIR})
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return "", fmt.Errorf("--snapshot.path=%s: no file can be made in %s: %w", path, dir, err)
	}
	if err := checkLockPlace(file); err != nil {
		return "", fmt.Errorf("--snapshot.path=%s: %w", path, err)
	}
	return file, nil
}

// checkLockPlace is an error if there is something that is no lock where the
// lock of the snapshot at path would be.
func checkLockPlace(path string) error {
	f, err := openLock(path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		_ = f.Close()
	}
	return err
}

// checkSnapshotFile is an error if there is something at path that is no snapshot.
func checkSnapshotFile(path string) (file string, err error) {
	f, file, err := openSnapshotFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return file, nil
	}
	if err == nil {
		_ = f.Close()
	}
	return file, err
}

// openSnapshotFile opens the snapshot at path, if that is what there is. The
// name that it returns is where symbolic links lead to.
func openSnapshotFile(path string) (f *os.File, file string, err error) {
	info, err := os.Lstat(path)
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		link := path
		if path, err = filepath.EvalSymlinks(link); err != nil {
			return nil, link, fmt.Errorf("%s is a symbolic link that leads nowhere: %s", link, reason(err))
		}
		info, err = os.Stat(path)
	}
	if err != nil {
		return nil, path, err
	}
	if err := regular(info); err != nil {
		return nil, path, err
	}
	// Who put a pipe in its place meanwhile does not make us wait for a writer.
	if f, err = os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0); err != nil {
		return nil, path, err
	}
	if info, err = f.Stat(); err == nil {
		if err = regular(info); err == nil {
			err = beginsAsSnapshot(f)
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, path, err
	}
	return f, path, nil
}

// reason is what is wrong with a file, without its name.
func reason(err error) string {
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

func regular(info fs.FileInfo) error {
	what := "no regular file"
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		what = "a directory"
	case mode&fs.ModeNamedPipe != 0:
		what = "a pipe"
	case mode&fs.ModeSocket != 0:
		what = "a socket"
	case mode&fs.ModeDevice != 0:
		what = "a device"
	}
	return fmt.Errorf("it is %s; name a file, which need not exist", what)
}

// beginsAsSnapshot reads the first bytes of f and goes back to its beginning.
func beginsAsSnapshot(f *os.File) error {
	head := make([]byte, magicBytes)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return err
	}
	if !mcache.IsSaved(head[:n]) {
		return errors.New("there is a file that is no snapshot; it stays as it is: name another, or move it away")
	}
	_, err = f.Seek(0, io.SeekStart)
	return err
}

// snapshotLock keeps others from the snapshot for as long as it is open. It is
// a file beside the snapshot, which itself is replaced time and again.
type snapshotLock struct{ f *os.File }

const lockSuffix = ".lock"

// lockSnapshot takes the lock of the snapshot at path, or says who has it.
func lockSnapshot(path string) (snapshotLock, error) {
	f, err := openLock(path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return snapshotLock{}, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("another mcached%s has it: each needs a file of its own", lockHolder(f))
		} else {
			err = fmt.Errorf("%s cannot be locked: %w", f.Name(), err)
		}
		_ = f.Close()
		return snapshotLock{}, err
	}
	// For people: the kernel knows without.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt(strconv.AppendInt(nil, int64(os.Getpid()), 10), 0)
	}
	return snapshotLock{f}, nil
}

// openLock opens the lock of the snapshot at path, if that is what there is.
func openLock(path string, flag int) (*os.File, error) {
	name := path + lockSuffix
	f, err := os.OpenFile(name, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		if err = regular(info); err == nil && !isLock(f) {
			err = errors.New("there is a file that is no lock of mcached; it stays as it is: move it away, or name another snapshot")
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

// isLock says whether a file has in it what lockSnapshot writes: nothing, or a number.
func isLock(f *os.File) bool {
	b := make([]byte, lockBytes+1)
	n, err := f.ReadAt(b, 0)
	return err == io.EOF && strings.Trim(string(b[:n]), "0123456789") == ""
}

// lockBytes are enough for the number of a process.
const lockBytes = 20

// lockHolder is the process that has the lock, as far as it said so.
func lockHolder(f *os.File) string {
	b := make([]byte, lockBytes)
	n, _ := f.ReadAt(b, 0)
	pid, err := strconv.Atoi(string(b[:n]))
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" (process %d)", pid)
}

func (l snapshotLock) release() {
	if l.f != nil {
		_ = l.f.Close()
	}
}

// A snapshot is written to a file whose name begins as its own does.
const tempSuffix = ".tmp"

func tempPattern(path string) string { return filepath.Base(path) + ".*" + tempSuffix }

// isTemp reports whether name is one that os.CreateTemp makes of tempPattern.
func isTemp(path, name string) bool {
	middle, ok := strings.CutPrefix(name, filepath.Base(path)+".")
	if !ok {
		return false
	}
	middle, ok = strings.CutSuffix(middle, tempSuffix)
	return ok && middle != "" && strings.Trim(middle, "0123456789") == ""
}

// removeStale removes what daemons left that were killed while they wrote a
// snapshot to path, and returns its names. The lock is held: nobody writes now.
func removeStale(path string) (removed []string, err error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !isTemp(path, e.Name()) || !e.Type().IsRegular() {
			continue
		}
		name := filepath.Join(filepath.Dir(path), e.Name())
		if !isOurs(name) {
			continue
		}
		if err := os.Remove(name); err != nil {
			return removed, err
		}
		removed = append(removed, name)
	}
	return removed, nil
}

// isOurs reports whether a temporary file begins as a snapshot, as far as it goes.
func isOurs(name string) bool {
	info, err := os.Lstat(name)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	if info.Size() == 0 {
		return true
	}
	f, _, err := openSnapshotFile(name)
	if err != nil {
		return false
	}
	_ = f.Close()
	return true
}
