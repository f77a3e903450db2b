package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// refusal runs the daemon with a command line it should refuse, and returns
// its exit code and what it said.
func refusal(t *testing.T, args ...string) (int, string) {
	t.Helper()
	p := start(t, daemonBinary(t), args...)
	select {
	case <-p.exited:
	case <-time.After(patience):
		t.Fatalf("mcached %s: still runs after %v", strings.Join(args, " "), patience)
	}
	return p.cmd.ProcessState.ExitCode(), p.output()
}

// TestE2ERefusals: what is wrong is said in one line that names the flag to
// change, and the exit code tells a wrong command line from a failure.
func TestE2ERefusals(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	const alone = "--log.level=error --memory.size=16MiB --resp.listen-address=off --cluster.name=alone --web.listen-address="
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"--no-such-flag", exitUsage, "no-such-flag"},
		{"--memory.size=lots", exitUsage, "--memory.size"},
		{"frobnicate", exitUsage, "frobnicate"},
		{"--log.level=loud", exitUsage, "--log.level"},
		{"--resp.listen-address=0.0.0.0:0", exitUsage, "--resp.password-file"},
		{"--resp.password-file=" + filepath.Join(dir, "none"), exitUsage, "--resp.password-file"},
		{"--web.listen-address=" + taken.Addr().String(), exitError, "--web.listen-address"},
		{"--web.listen-address=127.0.0.1:0 --resp.listen-address=" + taken.Addr().String(), exitError, "--resp.listen-address"},
		{"--web.listen-address=192.0.2.1:9201", exitError, "--web.listen-address"}, // an address of nobody's
		{alone + "127.0.0.1:0 --cluster.listen-address=" + taken.Addr().String(), exitError, "another program does; choose another with --cluster.listen-address"},
		{alone + "0.0.0.0:0 --cluster.key-file=" + keyFile(t) + " --cluster.listen-address=192.0.2.1:7946 --cluster.advertise-address=127.0.0.1", exitError, "choose another with --cluster.listen-address"},
	} {
		code, said := refusal(t, strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(said, c.says) || strings.Count(said, "\n") != 1 {
			t.Errorf("mcached %s: exit code %d and %q; want %d and one line naming %s", c.args, code, said, c.code, c.says)
		}
	}
}

func TestE2EVersionAndHelp(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"version"}, {"--version"}, {"--help"}, {"query", "--help"}, {"stats", "--help"}, {"metrics", "--help"}} {
		p := exec.Command(daemonBinary(t), args...)
		p.Env = append(os.Environ(), "MCACHED_VERSION=1", "MCACHED_HELP=1")
		out, err := p.Output()
		if err != nil || !strings.Contains(string(out), "mcached") {
			t.Errorf("mcached %v: %v, %q", args, err, out)
		}
	}
}

// TestE2EStop: a request under way is answered although SIGTERM has come, new
// ones are not taken, and the daemon ends with code 0.
func TestE2EStop(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		s := startServer(t)
		// A body that has not all come is a request under way.
		conn := heldRequest(t, s)
		if err := s.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		eventually(t, "no new connection is taken", func() error {
			res, err := http.Get(s.url + "/-/ready")
			if err == nil {
				res.Body.Close()
				return errors.New(res.Status)
			}
			return nil
		})
		s.alive()
		if _, err := conn.Write([]byte("=1")); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 12)
		if _, err := conn.Read(answer); err != nil || string(answer) != "HTTP/1.1 200" {
			t.Errorf("%v: the request under way was answered %q, %v", sig, answer, err)
		}
		if code := s.wait(); code != exitOK {
			t.Errorf("%v: exit code %d\n%s", sig, code, s.output())
		}
	}
}

// TestE2EStopTwice: a signal that comes twice, as timeout(1) sends it, is one
// request to stop, and no way past the snapshot. Who asks again later does not
// want to wait.
func TestE2EStopTwice(t *testing.T) {
	t.Parallel()
	for together := false; !together; { // on a busy machine not at the first try
		snapshot := filepath.Join(t.TempDir(), "snapshot")
		s := startServer(t, "--shutdown.timeout=10m", "--snapshot.path="+snapshot)
		request := heldRequest(t, s)
		signal := func() {
			if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		signal()
		s.said(0, "msg=Stopping.")
		signal()
		if together = time.Since(began) < time.Second; !together {
			continue
		}
		if _, err := request.Write([]byte("=1")); err != nil {
			t.Fatal(err)
		}
		if code := s.wait(); code != exitOK {
			t.Errorf("exit code %d\n%s", code, s.output())
		}
		if _, err := os.Stat(snapshot); err != nil {
			t.Error(err)
		}
	}

	s := startServer(t, "--shutdown.timeout=10m")
	heldRequest(t, s)
	eventually(t, "it ends at once", func() error {
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-s.exited:
			return nil
		default:
			return errors.New("it runs")
		}
	})
}

// heldRequest is a connection with a request under way: "=1" is missing of it.
func heldRequest(t *testing.T, s *server) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	head := "POST /api/v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\nquery"
	if _, err := conn.Write([]byte(head)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the request is under way", func() error {
		if s.metric(`mcached_http_requests_in_flight{handler="query"}`) != 1 {
			return errors.New("not yet")
		}
		return nil
	})
	return conn
}

// TestE2EStopDeadline: a request that never ends does not keep the daemon.
func TestE2EStopDeadline(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--shutdown.timeout=200ms")
	heldRequest(t, s)
	if code := s.stop(); code != exitOK || !strings.Contains(s.output(), "cut off") {
		t.Errorf("exit code %d, and it said:\n%s", code, s.output())
	}
}

// TestE2ESelfScrape: a fresh start has data to look at.
func TestE2ESelfScrape(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--self-scrape.interval=1s")
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(host(s.url))
	eventually(t, "the first scrape can be read", func() error {
		up, err := s.instant("up")
		if err != nil {
			return err
		}
		want := `{"__name__":"up","instance":"` + net.JoinHostPort(name, port) + `","job":"mcached"}`
		if up[want] != "1" {
			return fmt.Errorf("%v, want 1 for %s", up, want)
		}
		return nil
	})
	eventually(t, "there is a rate", func() error {
		rates, err := s.instant(`rate(mcached_http_requests_total{handler="query",code="200"}[1m]) > 0`)
		if err == nil && len(rates) != 1 {
			err = errors.New("no rate yet")
		}
		return err
	})
	if v := s.metric(`mcached_series{bucket="default"}`); v < 50 {
		t.Errorf("only %v series of its own", v)
	}
}

// TestE2EAutomaticMemory: without a size the budget comes from the machine,
// and no client may change it.
func TestE2EAutomaticMemory(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--memory.size=0", "--memory.keep-available=256MiB")
	if !strings.Contains(s.output(), "automatic=true") {
		t.Errorf("it says\n%s", s.output())
	}
	budget := s.metric("mcached_memory_budget_bytes")
	eventually(t, "the machine is looked at", func() error {
		if s.metric("mcached_pressure_polls_total") < 5 {
			return errors.New("not yet")
		}
		return nil
	})
	if budget < minMemoryBytes || s.metric("mcached_pressure_failures_total") > 0 {
		t.Errorf("a budget of %v bytes, %v failures", budget, s.metric("mcached_pressure_failures_total"))
	}
	conn, err := net.Dial("tcp", s.resp)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("CONFIG SET maxmemory 100mb\r\n")); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 4)
	if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "-ERR" {
		t.Errorf("CONFIG SET maxmemory is answered %q, %v", answer, err)
	}

	fixed := startServer(t)
	if conn, err = net.Dial("tcp", fixed.resp); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("CONFIG SET maxmemory 32mb\r\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "+OK\r" {
		t.Errorf("with a fixed size it is answered %q, %v", answer, err)
	}
	if v := fixed.metric("mcached_memory_budget_bytes"); v != 32<<20 {
		t.Errorf("the budget is %v then", v)
	}
}
