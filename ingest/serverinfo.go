package ingest

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
)

// newRunID is what INFO tells a server from the one before by.
func newRunID() string {
	var b [20]byte
	_, _ = rand.Read(b[:]) // which does not fail
	return hex.EncodeToString(b[:])
}

// port is the least TCP port that is listened at, or 0.
func (s *Server) port() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	least := 0
	for l := range s.listeners {
		if a, ok := l.Addr().(*net.TCPAddr); ok && (least == 0 || a.Port < least) {
			least = a.Port
		}
	}
	return least
}

// notePeak keeps the largest use of memory; the sweeper looks, and whoever asks.
func (s *Server) notePeak(used int64) int64 {
	for {
		peak := s.peakBytes.Load()
		if used <= peak || s.peakBytes.CompareAndSwap(peak, used) {
			return max(used, peak)
		}
	}
}

func percent(part, whole int64) string {
	if whole == 0 {
		return "0.00%"
	}
	return fmt.Sprintf("%.2f%%", 100*float64(part)/float64(whole))
}

// memoryLines are INFO's about memory.
func (s *Server) memoryLines() []string {
	mem, blobs := s.o.Memory.Stats(), s.o.Blobs.Stats()
	line := func(name string, value any) string { return fmt.Sprintf("%s:%v", name, value) }
	resident := residentBytes(os.DirFS("/proc/self"))
	peak := s.notePeak(mem.UsedBytes)
	lines := []string{
		line("used_memory", mem.UsedBytes),
		line("used_memory_human", human(mem.UsedBytes)),
		line("used_memory_rss", resident),
		line("used_memory_rss_human", human(resident)),
		line("used_memory_peak", peak),
		line("used_memory_peak_human", human(peak)),
		line("used_memory_peak_perc", percent(mem.UsedBytes, peak)),
		line("used_memory_dataset", blobs.LiveBytes),
		line("used_memory_dataset_perc", percent(blobs.LiveBytes, mem.UsedBytes)),
		line("used_memory_overhead", int64(blobs.OverheadPerEntry()*float64(blobs.Entries))),
	}
	var si syscall.Sysinfo_t
	if syscall.Sysinfo(&si) == nil {
		total := int64(si.Totalram) * int64(si.Unit)
		lines = append(lines, line("total_system_memory", total), line("total_system_memory_human", human(total)))
	}
	ratio := 1.0
	if mem.UsedBytes > 0 {
		ratio = float64(resident) / float64(mem.UsedBytes)
	}
	return append(lines,
		line("maxmemory", mem.BudgetBytes),
		line("maxmemory_human", human(mem.BudgetBytes)),
		line("maxmemory_policy", "allkeys-lru"),
		line("mem_fragmentation_ratio", fmt.Sprintf("%.2f", ratio)),
		line("mem_fragmentation_bytes", resident-mem.UsedBytes),
		line("mem_allocator", "mmap"),
		line("number_of_cached_scripts", s.scripts.kept()),
	)
}

// memoryDoctor says in words what MEMORY STATS says in numbers.
func memoryDoctor(c *conn, _ [][]byte) {
	m, b := c.srv.o.Memory.Stats(), c.srv.o.Blobs.Stats()
	var t strings.Builder
	fmt.Fprintf(&t, "%s of %s are used, %s at the most so far.\n", human(m.UsedBytes), human(m.BudgetBytes), human(c.srv.notePeak(m.UsedBytes)))
	if b.Entries == 0 {
		t.WriteString("There are no keys.\n")
	} else {
		fmt.Fprintf(&t, "%d keys have %s; each costs %.1f bytes beside its own.\n", b.Entries, human(b.LiveBytes), b.OverheadPerEntry())
	}
	if whole := b.LiveBytes + b.DeadBytes; whole > 0 && b.DeadBytes > whole/4 {
		fmt.Fprintf(&t, "%s of removed keys wait for compaction, which writers do on the way.\n", human(b.DeadBytes))
	}
	if b.Evicted > 0 {
		fmt.Fprintf(&t, "%d keys were evicted: with more memory fewer would be.\n", b.Evicted)
	}
	c.Text(t.String())
}

// aclCommands know the default user, who may do all.
func aclCommands() []command {
	return []command{{name: "acl", arity: -2, group: groupServer, syntax: "WHOAMI | LIST | USERS | GETUSER username | CAT [category]", summary: "Tells of the default user, who may do everything; there are no others.", flags: admin, subs: []command{
		{name: "whoami", arity: 2, summary: "Returns the user of the connection.", run: func(c *conn, _ [][]byte) { c.BulkString("default") }},
		{name: "users", arity: 2, summary: "Returns the users.", run: func(c *conn, _ [][]byte) { c.strings([]string{"default"}) }},
		{name: "list", arity: 2, summary: "Returns the users with what they may.", run: func(c *conn, _ [][]byte) {
			pass := "nopass"
			if c.srv.password() != "" {
				pass = "sanitize-payload" // the password's hash stays here
			}
			c.strings([]string{"user default on " + pass + " ~* &* +@all"})
		}},
		{name: "getuser", arity: 3, syntax: "username", summary: "Returns what a user may.", run: aclGetUser},
		{name: "cat", arity: -2, syntax: "[category]", summary: "Returns the categories, or the commands of one.", run: aclCat},
		{name: "help", arity: 2, summary: "Lists the subcommands.", run: func(c *conn, _ [][]byte) { c.help("acl") }},
	}}}
}

func aclGetUser(c *conn, args [][]byte) {
	if string(args[2]) != "default" {
		c.Null()
		return
	}
	flags := []string{"on"}
	if c.srv.password() == "" {
		flags = append(flags, "nopass")
	}
	c.MapOf(6)
	c.BulkString("flags")
	c.SetOf(len(flags))
	for _, f := range flags {
		c.BulkString(f)
	}
	c.BulkString("passwords")
	c.Array(0)
	for _, p := range [][2]string{{"commands", "+@all"}, {"keys", "~*"}, {"channels", "&*"}} {
		c.BulkString(p[0])
		c.BulkString(p[1])
	}
	c.BulkString("selectors")
	c.Array(0)
}

// aclCat has the groups of the table for categories.
func aclCat(c *conn, args [][]byte) {
	if len(args) > 3 {
		c.wrongSubArity(args)
		return
	}
	var names []string
	seen := map[string]bool{}
	for i := range c.srv.commands.rows {
		m := &c.srv.commands.rows[i]
		name := string(m.group)
		if len(args) == 3 {
			if string(args[2]) != name {
				continue
			}
			name = m.name
		}
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	if len(args) == 3 && len(names) == 0 {
		c.Fail("ERR Unknown category '" + clip(args[2], 128) + "'")
		return
	}
	c.strings(names)
}
