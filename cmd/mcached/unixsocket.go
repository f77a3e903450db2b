package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"
)

// A socket of the file system for Redis clients of this machine. Who may connect
// is a matter of the file's permissions and its directory's, so it is plain where
// others speak TLS, and needs no password where none is set.

// maxSocketPath is the longest path that the kernel binds to, its final zero left out.
const maxSocketPath = 107

// permissions are those of a file, in octal.
type permissions fs.FileMode

// Set implements kingpin.Value.
func (p *permissions) Set(s string) error {
	v, err := strconv.ParseUint(s, 8, 32)
	if err != nil || v > 0o777 {
		return fmt.Errorf("%q are no permissions in octal, from 000 to 777", s)
	}
	*p = permissions(v)
	return nil
}

// String implements kingpin.Value.
func (p *permissions) String() string {
	if p == nil {
		return ""
	}
	return fmt.Sprintf("%03o", uint32(*p))
}

// checkSocketPath says whether a socket can be made there, and makes none: the
// name is short enough, and what has it already, if anything, is a socket that
// nobody listens on.
func checkSocketPath(path string) error {
	if len(path) > maxSocketPath {
		return fmt.Errorf("--resp.unix-socket must be at most %d bytes long, got %d", maxSocketPath, len(path))
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("--resp.unix-socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("--resp.unix-socket=%s is there already and is no socket", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		c.Close()
		return fmt.Errorf("cannot listen for Redis clients on %s: another program does; stop it or choose another path with --resp.unix-socket", path)
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("--resp.unix-socket: %w", err)
	}
	return nil
}

// listenUnix makes the socket, in place of one that was left behind. It never
// has more permissions than the ones given.
func listenUnix(path string, p permissions) (net.Listener, error) {
	if err := checkSocketPath(path); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("--resp.unix-socket: %w", err)
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		// The file gets the permissions of the socket, less the umask.
		return errors.Join(c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), uint32(p)) }), err)
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("--resp.unix-socket: %w", err)
	}
	if err := os.Chmod(path, fs.FileMode(p)); err != nil { // whatever the umask is
		l.Close()
		return nil, fmt.Errorf("--resp.unix-socket: %w", err)
	}
	return l, nil
}
