package ingest

import (
	"slices"
	"strings"

	"mcached/ingest/resp"
)

// redisVersion is the version of Redis whose commands and errors these are.
const redisVersion = "7.0.15"

func serverCommands() []command {
	return []command{
		{name: "command", arity: -1, group: groupServer, syntax: "[COUNT | DOCS [command-name ...] | GETKEYS command [argument ...] | INFO [command-name ...] | LIST [FILTERBY PATTERN pattern | ACLCAT category | MODULE module]]", summary: "Returns details about the commands.", run: commandInfos, subs: []command{
			{name: "count", arity: 2, summary: "Counts the commands.", run: func(c *conn, _ [][]byte) { c.Int(int64(len(c.srv.commands.rows))) }},
			{name: "docs", arity: -2, syntax: "[command-name ...]", summary: "Returns what the manual says of commands.", run: commandDocs},
			{name: "getkeys", arity: -4, syntax: "command [argument ...]", summary: "Returns which arguments of a command are keys.", run: commandKeys},
			{name: "info", arity: -2, syntax: "[command-name ...]", summary: "Returns the arity, flags and keys of commands.", run: commandInfos},
			{name: "list", arity: -2, syntax: "[FILTERBY PATTERN pattern | ACLCAT category | MODULE module]", summary: "Lists the names of commands.", run: listCommands},
			{name: "help", arity: 2, summary: "Lists the subcommands.", run: func(c *conn, _ [][]byte) { c.help("command") }},
		}},
		{name: "config", arity: -2, group: groupServer, syntax: "GET parameter [parameter ...] | SET parameter value [parameter value ...] | RESETSTAT", summary: "Reads and sets the configuration.", flags: admin, subs: []command{
			{name: "get", arity: -3, syntax: "parameter [parameter ...]", summary: "Returns the parameters that match.", run: configGet},
			{name: "set", arity: -4, syntax: "parameter value [parameter value ...]", summary: "Sets parameters: maxmemory, of slow log, latency and tracking, shares of memory.", flags: slow | secret, run: configSet},
			{name: "resetstat", arity: 2, summary: "Resets commandstats, errorstats and latencystats; counters that metrics show are not reset.", run: resetStats},
			{name: "rewrite", arity: 2, summary: "Is refused: there is no configuration file.", run: func(c *conn, _ [][]byte) { c.Fail("ERR The server is running without a config file") }},
			{name: "help", arity: 2, summary: "Lists the subcommands.", run: func(c *conn, _ [][]byte) { c.help("config") }},
		}},
		{name: "info", arity: -1, group: groupServer, syntax: "[section [section ...]]", summary: "Returns information about the server.", run: info},
		{name: "time", arity: 1, group: groupServer, summary: "Returns the server time.", flags: fast, run: func(c *conn, _ [][]byte) {
			us := c.srv.o.Now().UnixMicro()
			c.Array(2)
			c.BulkInt(us / 1e6)
			c.BulkInt(us % 1e6)
		}},
		{name: "dbsize", arity: 1, group: groupServer, summary: "Returns the number of keys.", flags: readonly | fast, run: func(c *conn, _ [][]byte) { c.Int(int64(c.cache().Len() + c.srv.seriesOf(c.db).keys())) }},
		{name: "flushdb", arity: -1, group: groupServer, syntax: "[ASYNC | SYNC]", summary: "Removes all keys of the selected database.", flags: write | slow, run: flushDB},
		{name: "flushall", arity: -1, group: groupServer, syntax: "[ASYNC | SYNC]", summary: "Removes all keys of all databases.", flags: write | slow, run: flushAll},
		{name: "function", arity: -2, group: groupServer, syntax: "FLUSH [ASYNC | SYNC]", summary: "There are no functions to flush.", flags: write, subs: []command{
			{name: "flush", arity: -2, syntax: "[ASYNC | SYNC]", summary: "Does nothing.", run: functionFlush},
		}},
		{name: "module", arity: -2, group: groupServer, syntax: "LIST", summary: "Tells of RedisTimeSeries, whose commands are spoken.", flags: admin, subs: []command{
			{name: "list", arity: 2, summary: "Lists what HELLO tells as modules.", run: func(c *conn, _ [][]byte) { c.modules() }},
			{name: "help", arity: 2, summary: "Lists the subcommands.", run: func(c *conn, _ [][]byte) { c.help("module") }},
		}},
		{name: "wait", arity: 3, group: groupServer, syntax: "numreplicas timeout", summary: "There are no replicas to wait for.", run: wait},
		{name: "memory", arity: -2, group: groupServer, syntax: "USAGE key [SAMPLES count] | STATS | DOCTOR | PURGE", summary: "Tells what memory is used for.", flags: readonly, subs: []command{
			{name: "usage", arity: -3, syntax: "key [SAMPLES count]", summary: "Returns what a key costs in bytes, its share of the index included.", keys: [3]int{2, 2, 1}, run: memoryUsage},
			{name: "stats", arity: 2, summary: "Returns details about memory.", run: memoryStats},
			{name: "doctor", arity: 2, summary: "Says in words how memory is used.", run: memoryDoctor},
			{name: "purge", arity: 2, summary: "Gives unused memory back to the operating system.", flags: slow, run: func(c *conn, _ [][]byte) { c.srv.o.Memory.Trim(0); c.OK() }},
			{name: "help", arity: 2, summary: "Lists the subcommands.", run: func(c *conn, _ [][]byte) { c.help("memory") }},
		}},
	}
}

// commandInfos is COMMAND, and COMMAND INFO.
func commandInfos(c *conn, args [][]byte) {
	names := c.commandNames(args[min(len(args), 2):])
	c.Array(len(names))
	for _, n := range names {
		if cmd := c.srv.commands.byName[n]; cmd != nil {
			c.commandInfo(cmd, cmd.name)
		} else {
			c.Null()
		}
	}
}

func commandDocs(c *conn, args [][]byte) {
	byName := c.srv.commands.byName
	names := slices.DeleteFunc(c.commandNames(args[2:]), func(n string) bool { return byName[n] == nil })
	c.MapOf(len(names))
	for _, n := range names {
		c.BulkString(n)
		c.commandDoc(byName[n])
	}
}

// listCommands is COMMAND LIST.
func listCommands(c *conn, args [][]byte) {
	keep := func(*command) bool { return true }
	switch {
	case len(args) == 2:
	case len(args) != 5 || !resp.EqualFold(args[2], "filterby"):
		c.Fail(errSyntax)
		return
	case resp.EqualFold(args[3], "pattern"):
		p, ok := c.patternArg(resp.Lower(nil, args[4]))
		if !ok {
			return
		}
		keep = func(m *command) bool { return p.Match(m.nameBytes) }
	case resp.EqualFold(args[3], "aclcat"):
		keep = func(m *command) bool { return resp.EqualFold(args[4], string(m.group)) }
	case resp.EqualFold(args[3], "module"):
		keep = func(m *command) bool { return m.group == groupSeries && resp.EqualFold(args[4], "timeseries") }
	default:
		c.Fail(errSyntax)
		return
	}
	var names []string
	for i := range c.srv.commands.rows {
		if m := &c.srv.commands.rows[i]; keep(m) {
			names = append(names, m.name)
		}
	}
	c.strings(names)
}

// commandKeys is COMMAND GETKEYS.
func commandKeys(c *conn, args [][]byte) {
	args = args[2:]
	cmd := c.srv.commands.find(args[0])
	if cmd != nil && cmd.container(args) {
		cmd = cmd.sub(args[1])
	}
	switch {
	case cmd == nil:
		c.Fail("ERR Invalid command specified")
		return
	case cmd.keys[0] == 0 && cmd.counted == 0:
		c.Fail("ERR The command has no key arguments")
		return
	case !cmd.takes(len(args)):
		c.Fail("ERR Invalid number of arguments specified for command")
		return
	}
	n := 0
	cmd.eachKey(args, func([]byte) { n++ })
	c.Array(n)
	cmd.eachKey(args, func(key []byte) { c.Bulk(key) })
}

// resetStats is CONFIG RESETSTAT.
func resetStats(c *conn, _ [][]byte) {
	c.srv.commands.everyCommand(func(m *command) { m.stats.reset() })
	c.srv.errors.reset()
	c.OK()
}

// commandNames is the names asked for, or all of them.
func (c *conn) commandNames(args [][]byte) []string {
	var names []string
	for _, a := range args {
		names = append(names, string(resp.Lower(nil, a)))
	}
	if len(args) == 0 {
		for i := range c.srv.commands.rows {
			names = append(names, c.srv.commands.rows[i].name)
		}
	}
	return names
}

func (c *conn) commandInfo(cmd *command, name string) {
	c.Array(10)
	c.BulkString(name)
	c.Int(int64(cmd.arity))
	f := cmd.flags.names()
	if cmd.counted != 0 {
		f = append(f, "movablekeys")
	}
	c.SetOf(len(f))
	for _, n := range f {
		c.Simple(n)
	}
	for _, k := range cmd.keys {
		c.Int(int64(k))
	}
	c.SetOf(1)
	c.Simple("@" + string(cmd.group))
	c.Array(0) // tips
	c.Array(0) // key specifications
	c.Array(len(cmd.subs))
	for i := range cmd.subs {
		c.commandInfo(&cmd.subs[i], cmd.name+"|"+cmd.subs[i].name)
	}
}

func (c *conn) commandDoc(cmd *command) {
	n := 3
	if cmd.syntax != "" {
		n++
	}
	c.MapOf(n)
	c.BulkString("summary")
	c.BulkString(cmd.summary)
	c.BulkString("since")
	c.BulkString("1.0.0")
	c.BulkString("group")
	c.BulkString(string(cmd.group))
	if cmd.syntax != "" {
		c.BulkString("arguments")
		c.Array(1)
		c.MapOf(3)
		c.BulkString("name")
		c.BulkString(cmd.syntax)
		c.BulkString("type")
		c.BulkString("string")
		c.BulkString("display_text")
		c.BulkString(cmd.syntax)
	}
}

func flushDB(c *conn, args [][]byte)  { c.clear(args, c.cache().Clear, c.srv.seriesOf(c.db)) }
func flushAll(c *conn, args [][]byte) { c.clear(args, c.srv.o.Blobs.Clear, c.srv.series) }

// clear removes strings by f, and the series of d if it is not nil.
func (c *conn) clear(args [][]byte, f func(), d *directory) {
	if len(args) > 2 || len(args) == 2 && !resp.EqualFold(args[1], "async") && !resp.EqualFold(args[1], "sync") {
		c.Fail(errSyntax)
		return
	}
	f()
	if d != nil {
		d.removeAll()
	}
	c.OK()
}

func functionFlush(c *conn, args [][]byte) {
	if len(args) > 3 || len(args) == 3 && !resp.EqualFold(args[2], "async") && !resp.EqualFold(args[2], "sync") {
		c.Fail("ERR FUNCTION FLUSH only supports SYNC|ASYNC option")
		return
	}
	c.OK()
}

func wait(c *conn, args [][]byte) {
	if _, ok := c.integerArg(args[1]); !ok {
		return
	}
	switch ms, ok := resp.ParseInt(args[2]); {
	case !ok:
		c.Fail("ERR timeout is not an integer or out of range")
	case ms < 0:
		c.Fail("ERR timeout is negative")
	default:
		c.Int(0)
	}
}

func memoryUsage(c *conn, args [][]byte) {
	if len(args) > 3 {
		if len(args) != 5 || !resp.EqualFold(args[3], "samples") {
			c.Fail(errSyntax)
			return
		}
		switch n, ok := c.integerArg(args[4]); {
		case !ok:
			return
		case n < 0:
			c.Fail(errSyntax)
			return
		}
	}
	if n, ok := c.cache().EntryBytes(args[2]); ok {
		c.Int(int64(n))
	} else if n, ok := c.srv.seriesOf(c.db).keyBytes(args[2]); ok {
		c.Int(n)
	} else {
		c.Null()
	}
}

func memoryStats(c *conn, _ [][]byte) {
	m, b := c.srv.o.Memory.Stats(), c.srv.o.Blobs.Stats()
	rows := []struct {
		name  string
		value int64
	}{
		{"total.allocated", m.UsedBytes},
		{"budget.bytes", m.BudgetBytes},
		{"regions.bytes", int64(m.RegionBytes)},
		{"regions.used", int64(m.RegionsInUse)},
		{"regions.spare", int64(m.RegionsSpare)},
		{"regions.reclaimed", int64(m.RegionsReclaimed)},
		{"returned.bytes", int64(m.BytesReturned)},
		{"spans.bytes", m.SpanBytes},
		{"keys.count", int64(b.Entries)},
		{"keys.live-bytes", b.LiveBytes},
		{"keys.dead-bytes", b.DeadBytes},
		{"keys.free-bytes", b.FreeBytes},
		{"keys.index-bytes", b.IndexBytes},
	}
	c.MapOf(len(rows) + 1)
	for _, r := range rows {
		c.BulkString(r.name)
		c.Int(r.value)
	}
	c.BulkString("keys.overhead-per-key")
	c.Double(b.OverheadPerEntry())
}

// parameters are what CONFIG GET knows: clients ask for some of them before they
// do anything else. Of these CONFIG SET changes maxmemory and Options.Parameters,
// and refuses the rest.
func (s *Server) parameters() [][2]string {
	all := [][2]string{
		{"appendonly", "no"},
		{"databases", itoa(int64(s.o.Blobs.Len()))},
		{"maxclients", itoa(int64(s.MaxConnections()))},
		{"maxmemory", itoa(s.o.Memory.Budget())},
		{"maxmemory-policy", "allkeys-lru"},
		{"proto-max-bulk-len", itoa(int64(s.o.MaxBulkBytes))},
		{"save", ""},
	}
	for _, p := range s.o.Parameters {
		all = append(all, [2]string{p.Name, p.Get()})
	}
	slices.SortFunc(all, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	return all
}

func configGet(c *conn, args [][]byte) {
	var bytes int
	for _, pattern := range args[2:] {
		bytes += len(pattern)
	}
	if bytes > maxPatternBytes {
		c.Fail("ERR patterns of " + itoa(int64(bytes)) + " bytes together are too long, the limit is " + itoa(maxPatternBytes) + ", which no setting changes")
		return
	}
	var found [][2]string
	for _, p := range c.srv.parameters() {
		if slices.ContainsFunc(args[2:], func(pattern []byte) bool { return resp.Match(resp.Lower(nil, pattern), []byte(p[0])) }) {
			found = append(found, p)
		}
	}
	c.MapOf(len(found))
	for _, p := range found {
		c.BulkString(p[0])
		c.BulkString(p[1])
	}
}

// configSet changes all parameters that it names, or none.
func configSet(c *conn, args [][]byte) {
	if len(args)%2 != 0 {
		c.Fail(errSyntax)
		return
	}
	budget, ok := c.settings(args[2:])
	if !ok {
		return
	}
	var undo []func()
	failed := func(name string, err error) {
		for _, f := range undo {
			f()
		}
		c.failSetting(name, err.Error())
	}
	for i := 2; i < len(args); i += 2 {
		name := string(resp.Lower(nil, args[i]))
		for _, p := range c.srv.o.Parameters {
			if p.Name != name {
				continue
			}
			before := p.Get()
			if err := p.Set(string(args[i+1])); err != nil {
				failed(name, err)
				return
			}
			undo = append(undo, func() { _ = p.Set(before) }) // it was in force a moment ago
		}
	}
	if budget > 0 {
		if err := c.srv.o.SetBudget(budget); err != nil {
			failed("maxmemory", err)
			return
		}
	}
	c.OK()
}

// settings checks the names and values of CONFIG SET, as far as they can be told
// from outside, and answers what is wrong. budget is maxmemory's, -1 if it stays.
func (c *conn) settings(args [][]byte) (budget int64, ok bool) {
	budget = -1
	known := c.srv.parameters()
	seen := make([]bool, len(known))
	for i := 0; i < len(args); i += 2 {
		name, value := string(resp.Lower(nil, args[i])), string(args[i+1])
		at := slices.IndexFunc(known, func(p [2]string) bool { return p[0] == name })
		switch {
		case at < 0:
			c.Fail("ERR Unknown option or number of arguments for CONFIG SET - '" + clip(args[i], 128) + "'")
			return 0, false
		case seen[at]:
			c.failSetting(name, "duplicate parameter")
			return 0, false
		case known[at][1] == value:
			// Nothing changes.
		case slices.ContainsFunc(c.srv.o.Parameters, func(p Parameter) bool { return p.Name == name }):
			// It knows itself what it takes.
		case name != "maxmemory":
			c.failSetting(name, "can't set immutable config")
			return 0, false
		default:
			if budget, ok = parseMemory(value); !ok || budget <= 0 {
				c.failSetting(name, "argument must be a memory value")
				return 0, false
			}
			if c.srv.o.SetBudget == nil {
				c.failSetting(name, "the memory budget follows what the machine has to spare")
				return 0, false
			}
		}
		seen[at] = true
	}
	return budget, true
}

func (c *conn) failSetting(name, why string) {
	c.Fail("ERR CONFIG SET failed (possibly related to argument '" + name + "') - " + why)
}

// parseMemory reads "100mb" as redis.conf has it: k is 1000, kb is 1024.
func parseMemory(s string) (int64, bool) {
	s = strings.ToLower(s)
	unit := int64(1)
	for _, u := range []struct {
		suffix string
		bytes  int64
	}{{"kb", 1 << 10}, {"mb", 1 << 20}, {"gb", 1 << 30}, {"k", 1e3}, {"m", 1e6}, {"g", 1e9}, {"b", 1}} {
		if strings.HasSuffix(s, u.suffix) {
			s, unit = strings.TrimSuffix(s, u.suffix), u.bytes
			break
		}
	}
	n, ok := resp.ParseInt([]byte(s))
	if !ok || n < 0 || n > (1<<62)/unit {
		return 0, false
	}
	return n * unit, true
}
