package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestE2EDocuments runs what the documents tell their readers to run: the blocks
// marked sh, a document from top to bottom in one shell, in a network of its own
// where the ports are the documents' own. A line that starts the daemon leaves
// it running until the next one does; a document that starts none has one that
// is there already. Blocks with another mark are no commands, or need what a
// test has not (console).
func TestE2EDocuments(t *testing.T) {
	t.Parallel()
	for program, debianPackage := range map[string]string{"unshare": "util-linux", "ip": "iproute2", "curl": "curl", "redis-cli": "redis-tools", "redis-benchmark": "redis-tools", "openssl": "openssl"} {
		realServer(t, program, debianPackage)
	}
	if out, err := exec.Command("unshare", "--net", "--map-root-user", "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("this machine allows no network namespaces: %v %s", err, out)
		}
		t.Skipf("this machine allows no network namespaces: %v %s", err, out)
	}
	pages, err := filepath.Glob(filepath.Join(root, "cmd/mcached/docs/*.md"))
	if err != nil {
		t.Fatal(err)
	}
	pages = append(pages, filepath.Join(root, "README.md"), filepath.Join(root, "cmd/mcached/deploy/RUNBOOK.md"), filepath.Join(root, "cmd/mcached/deploy/kubernetes/README.md"))
	ran := 0
	for _, page := range pages {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		lines := documentedCommands(t, page, string(b))
		if len(lines) == 0 {
			continue
		}
		ran += len(lines)
		t.Run(strings.TrimSuffix(filepath.Base(page), ".md"), func(t *testing.T) {
			t.Parallel()
			runDocument(t, lines)
		})
	}
	if ran < 40 {
		t.Errorf("only %d commands were found", ran)
	}
}

// documentedCommands are the lines of a document's blocks of commands.
func documentedCommands(t *testing.T, page, text string) (lines []string) {
	t.Helper()
	marks := []string{"sh", "console", "yaml", "text", "promql", "json", "ini"}
	for _, m := range regexp.MustCompile("(?ms)^ *```(.*?)\n(.*?)^ *```").FindAllStringSubmatch(text, -1) {
		if !slices.Contains(marks, m[1]) {
			t.Errorf("%s: a block is marked %q, which says neither that its lines are run nor that they are not: one of %q", page, m[1], marks)
		}
		if m[1] == "sh" {
			for line := range strings.Lines(m[2]) {
				lines = append(lines, strings.TrimSpace(line))
			}
		}
	}
	return lines
}

// startsDaemon knows a line that runs until it is stopped.
var startsDaemon = regexp.MustCompile(`^(bin/)?mcached( |$)(--|@|$)`)

// documentShell is what is there before the first line of a document.
const documentShell = `
set -eu
ip link set lo up
pid=
stop() { [ -z "$pid" ] || { kill $pid; wait $pid || true; pid=; }; }
trap stop EXIT
daemon() {
	stop
	: >daemon.log # here, so that the loop below does not read the one before
	mcached "$@" >daemon.log 2>&1 & pid=$!
	until grep -q 'is ready' daemon.log; do kill -0 $pid || { cat daemon.log; exit 1; }; sleep 0.05; done
}
`

// runDocument runs lines as a reader would type them, and fails if one fails.
func runDocument(t *testing.T, lines []string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(daemonBinary(t), filepath.Join(dir, "bin/mcached")); err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	script.WriteString(documentShell)
	if !slices.ContainsFunc(lines[:1], startsDaemon.MatchString) {
		script.WriteString("daemon --memory.size=64MiB\n")
	}
	for _, line := range lines {
		fmt.Fprintf(&script, "printf '%%s\\n' %s\n", quote("$ "+line))
		if startsDaemon.MatchString(line) {
			_, line, _ = strings.Cut(line, "mcached")
			line = "daemon" + line
		}
		script.WriteString(line + "\n")
	}
	script.WriteString("stop\n")
	c := exec.Command("unshare", "--net", "--map-root-user", "bash", "-c", script.String())
	c.Dir = dir
	c.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"), "HOME="+dir, "MCACHED_SHUTDOWN_TIMEOUT=1s", "MCACHED_MEMORY_HEAP_LIMIT=128MiB")
	// An answer that is an error is one of curl, too.
	if err := os.WriteFile(filepath.Join(dir, ".curlrc"), []byte("fail-with-body\nno-progress-meter\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, tail(string(out), 30))
	}
	for _, sign := range []string{"(error)", "ERR ", "DATA RACE", "panic:"} {
		if strings.Contains(string(out), sign) {
			t.Errorf("%q among what the commands answer:\n%s", sign, tail(string(out), 60))
		}
	}
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
