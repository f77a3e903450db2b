package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
	path := filepath.Join(root, "README.md")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "./cmd/mcached -->\n", "<!-- /flags -->"
	before, rest, ok := strings.Cut(string(b), begin)
	old, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatal("the README has lost the marks around its table of flags")
	}
	if old == table.String() {
		return
	}
	if os.Getenv("UPDATE") != "1" {
		t.Fatal("the README's table of flags is not what the code says: UPDATE=1 go test -run TestReadmeFlags ./cmd/mcached")
	}
	if err := os.WriteFile(path, []byte(before+begin+table.String()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
