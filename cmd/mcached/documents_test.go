package main

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"go/ast"
	"go/doc/comment"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mcached/ingest"
)

// Parts of the documents are made of the code: TestDocuments compares them, and
// with UPDATE=1 writes them.
const updateDocuments = "UPDATE=1 go test -run TestDocuments ./cmd/mcached"

// documents are all that a person is given to read, from the root of the module.
func documents(t *testing.T) []string {
	t.Helper()
	all := []string{"README.md", ".github/CONTRIBUTING.md", "cmd/mcached/CHANGELOG.md", "cmd/mcached/deploy/RUNBOOK.md", "cmd/mcached/deploy/kubernetes/README.md", "cmd/mcbench/BENCHMARKS.md"}
	pages, err := filepath.Glob(filepath.Join(root, "cmd/mcached/docs/*.md"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	for _, p := range pages {
		rel, err := filepath.Rel(root, p)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rel)
	}
	return all
}

// TestDocumentsFlags holds the table of the daemon's flags to the code.
func TestDocumentsFlags(t *testing.T) {
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
	holdDocument(t, "flags.md", "flags", table.String())
}

// TestDocumentsClients does so with what the other commands say of themselves.
func TestDocumentsClients(t *testing.T) {
	var said strings.Builder
	for _, name := range slices.Sorted(maps.Keys(commands())) {
		if name == "check-config" { // it has the daemon's
			continue
		}
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), dispatchInTest+"="+name+" --help", "COLUMNS=100")
		out, err := c.Output()
		if err != nil {
			t.Fatalf("mcached %s --help: %v", name, err)
		}
		fmt.Fprintf(&said, "\n## mcached %s\n\n```text\n%s\n```\n", name, bytes.TrimSpace(trimLines(out)))
	}
	holdDocument(t, "flags.md", "clients", said.String()[1:])
}

// trimLines takes the blanks from the ends of lines.
func trimLines(b []byte) []byte {
	return regexp.MustCompile(`(?m)[ \t]+$`).ReplaceAll(b, nil)
}

// TestDocumentsCommands holds the table of Redis commands.
func TestDocumentsCommands(t *testing.T) {
	holdDocument(t, "redis.md", "commands", ingest.CommandTable())
}

// TestDocumentsRedisClients holds the table of the clients that are tried, whose
// versions, but for Debian's, are those of the lock files.
func TestDocumentsRedisClients(t *testing.T) {
	dir := filepath.Join(root, "cmd/mcached/e2e/clients")
	b, err := os.ReadFile(filepath.Join(dir, "clients.csv"))
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(b)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	version := map[string]string{}
	for file, line := range map[string]string{"node/package.json": `"(\S+)": "([0-9]\S*)"`, "go/go.mod": `(?m)^\t(\S+) v(\S+)$`} {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(line).FindAllStringSubmatch(string(b), -1) {
			// A commit without a tag has a time in its version.
			version[m[1]] = regexp.MustCompile(`^0\.0\.0-(\d{8})\d{6}-.*`).ReplaceAllString(m[2], "of $1")
		}
	}
	var table strings.Builder
	table.WriteString("| client | versions | from | what is asked |\n|---|---|---|---|\n")
	for _, r := range rows[1:] {
		from, versions := "Debian 12", r[3]
		if language, _, _ := strings.Cut(r[1], "/"); language == "node" || language == "go" {
			from = map[string]string{"node": "npm", "go": "Go"}[language]
			var each []string
			for _, module := range strings.Fields(r[3]) {
				if version[module] == "" {
					t.Errorf("nothing says the version of %s", module)
				}
				each = append(each, module+" "+version[module])
			}
			versions = strings.Join(each, ", ")
		}
		fmt.Fprintf(&table, "| %s | %s | %s | %s |\n", r[0], versions, from, r[4])
	}
	holdDocument(t, "redis.md", "tried", table.String())
}

// TestDocumentsDiffers has what differs from Redis said once, in the package's comment.
func TestDocumentsDiffers(t *testing.T) {
	_, section, ok := strings.Cut(packageComment(t, "ingest"), "\n# What differs\n")
	if !ok {
		t.Fatal("the comment of package ingest does not say what differs")
	}
	section, _, _ = strings.Cut(section, "\n# ")
	var p comment.Parser
	printer := comment.Printer{HeadingID: func(*comment.Heading) string { return "" }}
	holdDocument(t, "redis.md", "differs", string(printer.Markdown(p.Parse(section))))
}

// TestDocumentsGlossary makes the glossary of the packages' terms.
func TestDocumentsGlossary(t *testing.T) {
	var b strings.Builder
	for _, from := range []struct{ pkg, title string }{{"mcache", "Series"}, {"kvcache", "Memory"}} {
		_, section, ok := strings.Cut(packageComment(t, from.pkg), "\n# Terms\n")
		if !ok {
			t.Fatalf("the comment of package %s has no terms", from.pkg)
		}
		section, _, _ = strings.Cut(section, "\n# ")
		fmt.Fprintf(&b, "\n## %s\n", from.title)
		term, meaning := "", ""
		flush := func() {
			if term != "" {
				fmt.Fprintf(&b, "| %s | %s |\n", term, strings.ReplaceAll(meaning, "|", "\\|"))
			}
			term = ""
		}
		inTable := false
		for line := range strings.Lines(section) {
			line = strings.TrimRight(line, "\n")
			switch text := strings.TrimSpace(line); {
			case text == "":
			case !strings.HasPrefix(line, "\t"): // a line that heads a group
				flush()
				fmt.Fprintf(&b, "\n%s\n", text)
				inTable = false
			case strings.HasPrefix(line, "\t ") || len(line) > 1 && line[1] == ' ': // goes on
				meaning += " " + text
			default:
				flush()
				if !inTable {
					b.WriteString("\n| term | meaning |\n|---|---|\n")
					inTable = true
				}
				// Two blanks or the column end the term.
				if i := regexp.MustCompile(`\s{2,}`).FindStringIndex(text); i != nil && i[0] < 16 {
					term, meaning = text[:i[0]], text[i[1]:]
				} else {
					term, meaning, _ = cutAt(text, termColumn(section))
				}
			}
		}
		flush()
	}
	holdDocument(t, "glossary.md", "terms", b.String()[1:])
}

// termColumn is where meanings begin in a section of terms: what most lines that go on are indented to.
func termColumn(section string) int {
	count := map[int]int{}
	for _, m := range regexp.MustCompile(`(?m)^\t( +)\S`).FindAllStringSubmatch(section, -1) {
		count[len(m[1])]++
	}
	best := 0
	for column, n := range count {
		if n > count[best] || n == count[best] && column < best {
			best = column
		}
	}
	return best
}

func cutAt(text string, column int) (before, after string, ok bool) {
	if len(text) <= column {
		return text, "", false
	}
	return strings.TrimSpace(text[:column]), strings.TrimSpace(text[column:]), true
}

// packageComment is the text of a package's comment.
func packageComment(t *testing.T, pkg string) string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, pkg, "doc.go"), nil, parser.ParseComments|parser.PackageClauseOnly)
	if err != nil {
		t.Fatal(err)
	}
	return docText(f)
}

func docText(f *ast.File) string { return "\n" + f.Doc.Text() }

// holdDocument compares what stands between two marks of a document with what
// should, or puts it there.
func holdDocument(t *testing.T, page, name, want string) {
	t.Helper()
	path := filepath.Join(root, "cmd/mcached/docs", page)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- "+name+": "+updateDocuments+" -->\n", "<!-- /"+name+" -->"
	before, rest, ok := strings.Cut(string(b), begin)
	old, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has lost the marks around its part %s", page, name)
	}
	if old == want {
		return
	}
	if os.Getenv("UPDATE") != "1" {
		t.Fatalf("the part %s of %s is not what the code says: %s", name, page, updateDocuments)
	}
	if err := os.WriteFile(path, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestDocumentLinks follows what the documents say lies elsewhere in the
// repository, headings included, and the targets of make that they name.
func TestDocumentLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:\s]*)(#[^)\s]*)?\)`)
	target := regexp.MustCompile("`make ([a-z0-9-]+)")
	targets, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	followed := 0
	for _, doc := range documents(t) {
		b, err := os.ReadFile(filepath.Join(root, doc))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, m := range link.FindAllStringSubmatch(string(b), -1) {
			to := filepath.Join(root, filepath.Dir(doc), m[1])
			if m[1] == "" {
				to = filepath.Join(root, doc)
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: %v", doc, err)
			} else if m[2] != "" && filepath.Ext(to) == ".md" && !slices.Contains(anchors(t, to), m[2][1:]) {
				t.Errorf("%s: there is no heading %s in %s", doc, m[2], to)
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
	if followed < 60 {
		t.Errorf("only %d links and targets were found", followed)
	}
}

// anchors are the names by which the headings of a document are linked to.
func anchors(t *testing.T, path string) (names []string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	drop := regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(string(b), -1) {
		names = append(names, strings.ReplaceAll(drop.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return names
}

// TestDocumentFlags looks for flags in the documents that no command has.
func TestDocumentFlags(t *testing.T) {
	known := map[string]bool{"help": true, "version": true, "help-man": true, "completion-script-bash": true, "completion-script-zsh": true, "completion-script-fish": true}
	for _, f := range newServeApp(&config{}).Model().Flags {
		known[f.Name] = true
	}
	page, err := os.ReadFile(filepath.Join(root, "cmd/mcached/docs/flags.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^\s+(?:-\w, )?--(?:\[no-\])?([a-z.-]+)`).FindAllStringSubmatch(string(page), -1) {
		known[m[1]] = true
	}
	ours := regexp.MustCompile("(?:`| )--(?:no-)?((?:web|resp|memory|snapshot|forward|self-scrape|tenancy|query|remote-write|bucket|admission|shutdown|log|cluster)\\.[a-z.-]*[a-z])(…)?")
	for _, doc := range documents(t) {
		if strings.HasSuffix(doc, "CHANGELOG.md") {
			continue // it also names what is gone
		}
		b, err := os.ReadFile(filepath.Join(root, doc))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, m := range ours.FindAllStringSubmatch(string(b), -1) {
			if !known[m[1]] && m[2] == "" {
				t.Errorf("%s: there is no flag --%s", doc, m[1])
			}
		}
	}
}
