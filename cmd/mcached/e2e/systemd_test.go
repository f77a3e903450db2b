package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestE2ESystemdNotify: the service manager hears when the daemon serves, when
// it reads its files again, and when it stops.
func TestE2ESystemdNotify(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	expect := func(want string) {
		t.Helper()
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		var b [4096]byte
		n, err := c.Read(b[:])
		if got := string(b[:n]); err != nil || !regexp.MustCompile("^"+want+"$").MatchString(got) {
			t.Fatalf("the manager hears %q, %v; want %s", got, err, want)
		}
	}
	s := startServerBy(t, []string{"env", "NOTIFY_SOCKET=" + path})
	expect("READY=1")
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	expect(`RELOADING=1\nMONOTONIC_USEC=\d+`)
	expect("READY=1")
	s.stop()
	expect("STOPPING=1")
}

// TestE2ESystemdUnits has systemd look at the units, with the daemon's binary where it is to be.
func TestE2ESystemdUnits(t *testing.T) {
	analyze := realServer(t, "systemd-analyze", "systemd")
	t.Parallel()
	dir := t.TempDir()
	units, err := filepath.Glob("../deploy/mcached*.*")
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"verify", "--man=no"}
	for _, name := range units {
		if !strings.HasSuffix(name, ".service") && !strings.HasSuffix(name, ".timer") {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, filepath.Base(name))
		write(t, to, strings.ReplaceAll(string(b), "/usr/bin/mcached", daemonBinary(t)))
		args = append(args, to)
	}
	if len(args) != 2+3 {
		t.Fatalf("the units are %v", args[2:])
	}
	out, err := exec.Command(analyze, args...).CombinedOutput()
	for _, line := range strings.Split(string(out), "\n") {
		// What it says of other units of the machine is none of ours.
		if strings.Contains(line, dir) || strings.Contains(line, "mcached") {
			t.Errorf("systemd-analyze: %s", line)
		}
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
}

// TestE2EInstall: what `make install` puts below a prefix runs from there, and its
// units name it there.
func TestE2EInstall(t *testing.T) {
	tool := realServer(t, "make", "make")
	t.Parallel()
	// A tree that is built already: the binary that the tests run, and the units.
	tree, to := t.TempDir(), t.TempDir()
	repository, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"bin", "cmd/mcached"} {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"bin/mcached": daemonBinary(t), "cmd/mcached/deploy": filepath.Join(repository, "cmd/mcached/deploy")} {
		if err := os.Symlink(target, filepath.Join(tree, link)); err != nil {
			t.Fatal(err)
		}
	}
	install := exec.Command(tool, "-f", filepath.Join(repository, "Makefile"), "-C", tree, "-o", "build", "install", "DESTDIR="+to, "PREFIX=/opt/cache")
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := exec.Command(filepath.Join(to, "/opt/cache/bin/mcached"), "version").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for unit, want := range map[string]string{
		"mcached.service":          "\nExecStart=/opt/cache/bin/mcached\n",
		"mcached-snapshot.service": "\nExecStart=/opt/cache/bin/mcached snapshot\n",
		"mcached-snapshot.timer":   "\nOnCalendar=",
	} {
		b, err := os.ReadFile(filepath.Join(to, "/opt/cache/lib/systemd/system", unit))
		if err != nil || !strings.Contains(string(b), want) || strings.Contains(string(b), "/usr/bin/mcached") {
			t.Errorf("%s: %v, want%sin it:\n%s", unit, err, want, b)
		}
	}
	for _, name := range []string{"share/man/man1/mcached.1", "share/bash-completion/completions/mcached", "share/fish/vendor_completions.d/mcached.fish"} {
		if info, err := os.Stat(filepath.Join(to, "/opt/cache", name)); err != nil || info.Size() < 100 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestE2EImage runs the daemon in a root directory that holds what the
// Dockerfile puts into the image and nothing else, and has it forward to a
// receiver whose certificate the image's roots have signed.
func TestE2EImage(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the daemon anew")
	}
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root, to change the root directory")
		}
		t.Skip("needs root, to change the root directory")
	}
	t.Parallel()
	arrived := make(chan struct{}, 1000)
	receiver := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer receiver.Close()
	root_ := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: receiver.Certificate().Raw})

	dockerfile, err := os.ReadFile("../deploy/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	image := t.TempDir()
	build := map[string]func(to string) error{ // what the stage before it has
		"/src/LICENSE": func(to string) error { return os.WriteFile(to, []byte("text"), 0o644) },
		"/src/bin/mcached": func(to string) error {
			c := exec.Command("go", "build", "-trimpath", "-o", to, "./cmd/mcached")
			c.Dir, c.Env = root, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=") // as the Makefile builds it, so that the work is done once
			return c.Run()
		},
		"/etc/ssl/certs/ca-certificates.crt": func(to string) error { return os.WriteFile(to, root_, 0o644) },
	}
	for _, m := range regexp.MustCompile(`(?m)^COPY --from=build (\S+) (\S+)$`).FindAllSubmatch(dockerfile, -1) {
		made, ok := build[string(m[1])]
		to := filepath.Join(image, string(m[2]))
		if !ok {
			t.Fatalf("the image has %s, which nobody knows", m[1])
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), made(to)); err != nil {
			t.Fatal(err)
		}
	}
	var out syncBuffer
	c := &exec.Cmd{Path: "/mcached", Dir: "/", Stdout: &out, Stderr: &out, Env: []string{"MCACHED_WEB_LISTEN_ADDRESS=127.0.0.1:0", "MCACHED_RESP_LISTEN_ADDRESS=off"},
		Args:        []string{"/mcached", "--memory.size=16MiB", "--self-scrape.interval=0", "--forward.url=" + receiver.URL, "--forward.max-dirty-age=1s", "--forward.protocol=1"},
		SysProcAttr: &syscall.SysProcAttr{Chroot: image, Pdeathsig: syscall.SIGKILL, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}}
	if err := os.Chmod(image, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		if errors.Is(err, fs.ErrPermission) {
			if os.Getenv("CI") == "true" {
				t.Fatal("the root directory cannot be changed here: ", err)
			}
			t.Skip("the root directory cannot be changed here: ", err)
		}
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	defer func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		if err := <-ended; err != nil {
			t.Errorf("it ended by %v\n%s", err, out.String())
		}
	}()
	s := &server{process: &process{t: t}}
	eventually(t, "the daemon says where it listens", func() error {
		if m := urlInOutput.FindStringSubmatch(out.String()); m != nil {
			s.url = m[1]
			return nil
		}
		return errors.New(out.String())
	})
	s.send(1, "__name__", "x")
	select {
	case <-arrived:
	case <-time.After(patience):
		t.Errorf("nothing arrives by https:\n%s", out.String())
	}
	// The certificate is one that only the image's roots make right.
	if _, err := tls.Dial("tcp", strings.TrimPrefix(receiver.URL, "https://"), &tls.Config{RootCAs: x509.NewCertPool()}); err == nil {
		t.Error("anyone trusts the receiver")
	}
}

// syncBuffer is a buffer that a process writes to while it is read.
type syncBuffer struct{ process }

func (b *syncBuffer) String() string { return b.output() }
