package main

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestUnixSocketPlaces: a socket that was left behind is replaced, and nothing
// else that has the name is.
func TestUnixSocketPlaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	l, err := listenUnix(path, 0o707)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != fs.ModeSocket|0o707 {
		t.Fatalf("%v %v", info.Mode(), err)
	}
	if _, err := listenUnix(path, 0o700); err == nil || !strings.Contains(err.Error(), "another program does") {
		t.Errorf("a second one: %v", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Fatal("the socket of the first one is gone")
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as when the process is killed
	l.Close()
	if l, err = listenUnix(path, 0o700); err != nil {
		t.Fatalf("in place of one that nobody listens on: %v", err)
	}
	l.Close()
	if _, err := os.Lstat(path); err == nil {
		t.Error("it stays behind when it is closed")
	}
	file := filepath.Join(dir, "file")
	link := filepath.Join(dir, "link")
	fifo := filepath.Join(dir, "fifo")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{file, link, fifo, dir} {
		if _, err := listenUnix(p, 0o700); err == nil || !strings.Contains(err.Error(), "is no socket") {
			t.Errorf("%s: %v", p, err)
		}
		if _, err := os.Lstat(p); err != nil {
			t.Errorf("%s is gone", p)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("%q %v", b, err)
	}
	for _, p := range []string{filepath.Join(dir, strings.Repeat("x", 200)), filepath.Join(dir, "none", "s")} {
		if _, err := listenUnix(p, 0o700); err == nil {
			t.Errorf("%s: no error", p)
		}
	}
}

func TestPermissions(t *testing.T) {
	for s, want := range map[string]permissions{"700": 0o700, "0770": 0o770, "0": 0} {
		var p permissions
		if err := p.Set(s); err != nil || p != want {
			t.Errorf("%s: %v %v", s, p, err)
		}
	}
	for _, s := range []string{"", "rwx", "888", "1777", "-1"} {
		if err := new(permissions).Set(s); err == nil {
			t.Errorf("%q is accepted", s)
		}
	}
}
