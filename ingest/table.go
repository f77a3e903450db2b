package ingest

import (
	"fmt"
	"strings"
)

// CommandTable is the list of all commands in Markdown, for the documents and for
// this package's comment.
func CommandTable() string {
	var b strings.Builder
	b.WriteString("| command | arguments | what it does |\n|---|---|---|\n")
	for _, m := range newCommandSet(true).rows {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", strings.ToUpper(m.name), code(m.syntax), m.summary)
	}
	return b.String()
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + strings.ReplaceAll(s, "|", "\\|") + "`"
}

// commandList is the names of all commands by group, as the package comment
// has them.
func commandList() string {
	var b strings.Builder
	byGroup := map[group][]string{}
	var groups []group
	for _, m := range newCommandSet(true).rows {
		if byGroup[m.group] == nil {
			groups = append(groups, m.group)
		}
		byGroup[m.group] = append(byGroup[m.group], strings.ToUpper(m.name))
	}
	for _, g := range groups {
		line := "//   - " + string(g) + ":"
		for _, n := range byGroup[g] {
			if len(line)+1+len(n) > 78 {
				b.WriteString(line + "\n")
				line = "//    "
			}
			line += " " + n
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}
