package e2e

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// invoke runs a command of the daemon's binary to its end.
func invoke(t testing.TB, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	c := exec.CommandContext(t.Context(), daemonBinary(t), args...)
	c.Stdout, c.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := c.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return c.ProcessState.ExitCode(), stdout.String(), stderr.String()
}

// documented are the metrics of the table that the daemon prints: whether a
// name's series have labels of their own.
func documented(t testing.TB) map[string]bool {
	t.Helper()
	code, table, errs := invoke(t, "metrics")
	names := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| [a-z]+ \\| (.*?) \\|").FindAllStringSubmatch(table, -1) {
		names[m[1]] = m[2] != ""
	}
	if code != exitOK || len(names) < 50 {
		t.Fatalf("mcached metrics: code %d, %d metrics in its table, %s", code, len(names), errs)
	}
	return names
}

// TestE2EMetrics: what a daemon shows at /metrics is what the table says, and
// follows the rules for names.
func TestE2EMetrics(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--forward.url=http://127.0.0.1:1/write", "--shutdown.timeout=100ms", // nobody is there; its metrics are
		"--snapshot.path="+filepath.Join(t.TempDir(), "snapshot"), "--cluster.name=alone", "--cluster.listen-address=127.0.0.1:0")
	eventually(t, "a scrape is stored", func() error { _, err := s.instant("up"); return err })
	res, err := http.Get(s.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(res.Body); err != nil {
		t.Fatal(err)
	}
	names := documented(t)
	for name, labels := range names {
		if !labels && !strings.Contains(text.String(), "\n"+name+" ") {
			t.Errorf("/metrics has no %s", name)
		}
	}
	for _, line := range strings.Split(text.String(), "\n") {
		if name, ok := strings.CutPrefix(line, "# TYPE mcached_"); ok {
			name, _, _ = strings.Cut("mcached_"+name, " ")
			if _, ok := names[name]; !ok && name != "mcached_build_info" {
				t.Errorf("/metrics has %s, and the table does not", name)
			}
		}
	}
}

// TestE2ECommands: the commands against a running daemon.
func TestE2ECommands(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--self-scrape.interval=1s")
	eventually(t, "stats has something to show", func() error {
		if code, out, errs := invoke(t, "stats", "--url="+s.url); code != exitOK || !strings.Contains(out, "memory budget") {
			return errors.New(errs + out)
		}
		return nil
	})
	if code, out, errs := invoke(t, "query", "--url="+s.url, "up"); code != exitOK || !strings.HasPrefix(out, "# samples before ") || !strings.Contains(out, "\nup{instance=") {
		// What was in the last 5 minutes, before the daemon began, is not known.
		t.Errorf("query: code %d, %q, %q", code, out, errs)
	}
	if code, out, errs := invoke(t, "query", "--url="+s.url, "--range=1m", "mcached_memory_budget_bytes"); code != exitOK || !strings.Contains(out, "67.11M") {
		t.Errorf("query --range: code %d, %q, %q", code, out, errs)
	}
	for _, c := range [][]string{{"stats", "--nonsense"}, {"metrics", "--nonsense"}, {"query", "--nonsense", "x"}} {
		if code, _, errs := invoke(t, c...); code != exitUsage || strings.Count(errs, "\n") != 1 {
			t.Errorf("%v: code %d, %q", c, code, errs)
		}
	}
}

// TestE2ESnapshotCommand: a snapshot is written when it is asked for, and the
// command says what, or why not.
func TestE2ESnapshotCommand(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "snapshot")
	s := startServer(t, "--snapshot.path="+path, "--self-scrape.interval=1s")
	eventually(t, "there is something to write", func() error {
		if n, _ := s.hasMetric(`mcached_series{bucket="default"}`); n == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	code, out, errs := invoke(t, "snapshot", "--url="+s.url)
	if code != exitOK || errs != "" || strings.Count(out, "\n") != 1 || !strings.HasPrefix(out, path+": ") || strings.Contains(out, " 0 series") {
		t.Errorf("code %d, %q, %q", code, out, errs)
	}
	if info, err := os.Stat(path); err != nil || info.Size() == 0 {
		t.Errorf("%v, %v", info, err)
	}

	// A directory in its place cannot be replaced.
	if err := errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(path, "x"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := invoke(t, "snapshot", "--url="+s.url); code != exitError || out != "" || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, path) {
		t.Errorf("code %d, %q, %q", code, out, errs)
	}
	if err := errors.Join(os.RemoveAll(path)); err != nil {
		t.Fatal(err)
	}

	// Neither a browser's page nor a proxy's client has one written; reading does not write.
	for _, c := range []struct {
		method, header, value string
		code                  int
	}{
		{http.MethodPost, "Sec-Fetch-Site", "cross-site", http.StatusForbidden},
		{http.MethodPost, "X-Forwarded-For", "203.0.113.7", http.StatusForbidden},
		{http.MethodGet, "X-Nothing", "", http.StatusNotFound},
	} {
		if code := statusWith(t, c.method, s.url+"/-/snapshot", c.header, c.value); code != c.code && code != http.StatusMethodNotAllowed {
			t.Errorf("%+v: %d", c, code)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a snapshot was written: %v", err)
	}

	none := startServer(t)
	if code, _, errs := invoke(t, "snapshot", "--url="+none.url); code != exitError || !strings.Contains(errs, "--snapshot.path") {
		t.Errorf("without a path: code %d, %q", code, errs)
	}
}

// TestE2ECompletion: a shell learns the commands and each one's flags.
func TestE2ECompletion(t *testing.T) {
	t.Parallel()
	for words, want := range map[string]string{"": "snapshot", "sna": "snapshot", "query --": "--range", "snapshot --": "--timeout", "--mem": "--memory.size", "serve --": "--memory.size", "check-config --": "--memory.size"} {
		out, err := exec.Command(daemonBinary(t), append([]string{"--completion-bash"}, strings.Split(words, " ")...)...).Output()
		if err != nil || !slices.Contains(strings.Fields(string(out)), want) {
			t.Errorf("%q: %v, %q", words, err, out)
		}
	}
	out, err := exec.Command(daemonBinary(t), "--completion-script-bash").Output()
	if err != nil || !strings.Contains(string(out), "complete -F _mcached_bash_autocomplete") {
		t.Errorf("%v, %q", err, out)
	}
}

// TestE2EHelp: what a newcomer types, and what packagers do.
func TestE2EHelp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, says string }{
		{"help", "--memory.size"}, {"help query", "--range"}, {"help check-config", "--memory.size"}, {"healthy --help", "ready"},
		{"--completion-script-fish", "complete -c mcached"}, {"--help-man", ".TH mcached 1 \"mcached dev\"\n.SH"},
	} {
		if code, out, errs := invoke(t, strings.Fields(c.args)...); code != exitOK || !strings.Contains(out, c.says) || strings.Count(out, ".TH ") > 1 {
			t.Errorf("%s: code %d, %q, no %q in %.300q", c.args, code, errs, c.says, out)
		}
	}
}

// TestE2EWelcome: the command that the daemon prints for Redis clients works
// with the certificate and the password that it has.
func TestE2EWelcome(t *testing.T) {
	realServer(t, "redis-cli", "redis-tools")
	t.Parallel()
	dir := t.TempDir()
	certFile, keyFile, _ := certificate(t, dir)
	passwordFile := filepath.Join(dir, "password")
	write(t, passwordFile, "open sesame\n")
	for _, flags := range [][]string{nil, {"--resp.password-file=" + passwordFile}, {"--resp.password-file=" + passwordFile, "--resp.tls-cert-file=" + certFile, "--resp.tls-key-file=" + keyFile, "--resp.unix-socket=" + filepath.Join(dir, "s")},
		{"--cluster.name=welcome", "--cluster.listen-address=127.0.0.1:0"}} {
		s := startServer(t, flags...)
		lines := regexp.MustCompile(`(?m)^  redis   (redis-cli .*)$`).FindAllStringSubmatch(s.output(), -1)
		if len(lines) != 1+strings.Count(strings.Join(flags, " "), "unix-socket") {
			t.Fatalf("%d commands in\n%s", len(lines), s.output())
		}
		for _, line := range lines {
			if strings.Contains(line[1], " -c ") != strings.Contains(strings.Join(flags, " "), "cluster") {
				t.Errorf("%s with %q: does redis-cli follow to other members?", line[1], flags)
			}
			out, err := exec.Command("sh", "-c", line[1]).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "OK") {
				t.Errorf("%s: %v, %s", line[1], err, out)
			}
		}
		if strings.Contains(s.output(), "sesame") {
			t.Error("the password is shown")
		}
	}
	for _, command := range [][]string{nil, {"check-config"}} {
		code, said := refusal(t, append(command, "--resp.unix-socket="+passwordFile)...)
		if code == exitOK || !strings.Contains(said, "is no socket") {
			t.Errorf("%s with a file in the socket's place: %d, %s", command, code, said)
		}
	}
	write(t, filepath.Join(dir, "web.yml"), basicAuth(t, "reader", "secret"))
	s := start(t, daemonBinary(t), "--web.listen-address=127.0.0.1:0", "--resp.listen-address=off", "--memory.size=16MiB", "--web.config.file="+filepath.Join(dir, "web.yml"))
	s.said(0, "curl -u reader 'http://")
	s.said(0, "basic_auth: {username: reader, ")
}
