package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"mcached/ingest"
)

// TestReadmeFlags holds the README's table of flags to the code. With UPDATE=1
// it writes the table.
func TestReadmeFlags(t *testing.T) {
	var table strings.Builder
	table.WriteString("| flag | default | meaning |\n|---|---|---|\n")
	for _, f := range newServeApp(&config{}).Model().Flags {
		if f.Hidden || f.Name == "help" || f.Name == "version" {
			continue
		}
		byDefault := strings.Join(f.Default, ", ")
		if byDefault != "" {
			byDefault = "`" + byDefault + "`"
		}
		fmt.Fprintf(&table, "| `--%s` | %s | %s |\n", f.Name, byDefault, strings.ReplaceAll(f.Help, "|", "\\|"))
	}
	holdReadme(t, "flags", table.String())
}

// TestReadmeCommands likewise holds its table of Redis commands.
func TestReadmeCommands(t *testing.T) {
	holdReadme(t, "commands", ingest.CommandTable())
}

// holdReadme compares what stands between two marks of the README with what
// should, or puts it there.
func holdReadme(t *testing.T, name, want string) {
	t.Helper()
	path := filepath.Join(root, "README.md")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- "+name+": UPDATE=1 go test -run TestReadme ./cmd/mcached -->\n", "<!-- /"+name+" -->"
	before, rest, ok := strings.Cut(string(b), begin)
	old, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("the README has lost the marks around its table of %s", name)
	}
	if old == want {
		return
	}
	if os.Getenv("UPDATE") != "1" {
		t.Fatalf("the README's table of %s is not what the code says: UPDATE=1 go test -run TestReadme ./cmd/mcached", name)
	}
	if err := os.WriteFile(path, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestDocumentLinks follows what the documents say lies elsewhere in the
// repository, and the commands that they name.
func TestDocumentLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:\s]+)(?:#[^)]*)?\)`)
	target := regexp.MustCompile("`make ([a-z0-9]+)")
	targets, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	followed := 0
	for _, doc := range []string{"README.md", ".github/CONTRIBUTING.md", "cmd/mcached/CHANGELOG.md", "cmd/mcached/deploy/RUNBOOK.md", "cmd/mcached/deploy/kubernetes/README.md", "cmd/mcbench/BENCHMARKS.md"} {
		b, err := os.ReadFile(filepath.Join(root, doc))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, m := range link.FindAllStringSubmatch(string(b), -1) {
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(doc), m[1])); err != nil {
				t.Errorf("%s: %v", doc, err)
			}
			followed++
		}
		for _, m := range target.FindAllStringSubmatch(string(b), -1) {
			if !strings.Contains(string(targets), "\n"+m[1]+":") {
				t.Errorf("%s: there is no make %s", doc, m[1])
			}
			followed++
		}
	}
	if followed < 10 {
		t.Errorf("only %d links and targets were found", followed)
	}
}
