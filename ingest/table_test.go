package ingest

import (
	"os"
	"strings"
	"testing"
)

// TestPackageCommentListsTheCommands holds doc.go to the table; -update writes it.
func TestPackageCommentListsTheCommands(t *testing.T) {
	const from, to = "// # Commands\n//\n", "//\n// The whole table"
	b, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok1 := strings.Cut(string(b), from)
	list, tail, ok2 := strings.Cut(rest, to)
	if !ok1 || !ok2 {
		t.Fatal("doc.go has no list of commands")
	}
	if list == commandList() {
		return
	}
	if !*update {
		t.Fatalf("doc.go lists\n%s\nwant (go test -run PackageComment -update)\n%s", list, commandList())
	}
	if err := os.WriteFile("doc.go", []byte(head+from+commandList()+to+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCommandTable(t *testing.T) {
	table := CommandTable()
	if !strings.Contains(table, "| `GETDEL` | `key` |") || strings.Count(table, "\n") < 80 {
		t.Fatalf("the table is\n%s", table)
	}
	set := newCommandSet(true)
	if len(set.byName) != len(set.rows) {
		t.Fatal("two commands have one name")
	}
	for _, m := range set.rows {
		switch {
		case m.name != strings.ToLower(m.name) || len(m.name) > maxNameBytes:
			t.Errorf("%s: a name is in lower case and at most %d bytes long", m.name, maxNameBytes)
		case m.arity == 0 || m.summary == "" || m.group == "":
			t.Errorf("%s: something is missing", m.name)
		case m.run == nil && m.subs == nil, m.run != nil && m.subs != nil && m.arity != -1:
			t.Errorf("%s: it runs, or has subcommands, or is one that runs where none is said", m.name)
		}
	}
}

// TestArityIsCheckedFirst calls every command with too few arguments, and with
// empty ones: each answers once, and nothing panics.
func TestArityIsCheckedFirst(t *testing.T) {
	s, addr := newServer(t, nil)
	for _, m := range s.commands.rows {
		if m.name == "quit" || m.name == "multi" || m.name == "monitor" { // which ends, queues, or shows what follows
			continue
		}
		for n := 1; n < 12; n++ {
			for _, fill := range []string{"", "0", "x"} {
				args := []string{m.name}
				for range n - 1 {
					args = append(args, fill)
				}
				after := bulks("ECHO", "after")
				if strings.HasSuffix(m.name, "subscribe") { // after which RESP2 has nothing else
					after = bulks("RESET") + after
				}
				got := talk(t, addr, bulks(args...)+after)
				if !m.takes(n) && !strings.HasPrefix(got, "-ERR wrong number of arguments for '"+m.name+"' command\r\n") && m.subs == nil {
					t.Errorf("%q: %q", args, got)
				}
				if !strings.HasSuffix(got, "$5\r\nafter\r\n") {
					t.Errorf("%q: nothing is answered behind %q", args, got)
				}
			}
		}
	}
}
