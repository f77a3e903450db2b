package ingest

import (
	"fmt"
	"slices"
	"strconv"
	"sync"

	"mcached/ingest/resp"
)

// monitors are the connections that are told of every command.
type monitors struct {
	mu    sync.Mutex
	conns map[*conn]struct{}
}

// maxMonitored bounds what a monitor is shown of an argument.
const maxMonitored = 64 << 10

func monitor(c *conn, _ [][]byte) {
	if c.holdsBack() {
		c.Fail("ERR MONITOR isn't allowed for DENY BLOCKING client") // which one in EXEC is
		return
	}
	if !c.canBePushed() {
		return
	}
	m := &c.srv.monitors
	m.mu.Lock()
	if m.conns == nil {
		m.conns = map[*conn]struct{}{}
	}
	m.conns[c] = struct{}{}
	m.mu.Unlock()
	c.ears.monitors.Store(true)
	c.srv.attention.set(monitored, true)
	c.OK()
}

func (c *conn) stopMonitoring() {
	if !c.ears.monitors.Load() {
		return
	}
	m := &c.srv.monitors
	m.mu.Lock()
	if delete(m.conns, c); len(m.conns) == 0 {
		c.srv.attention.set(monitored, false)
	}
	m.mu.Unlock()
	c.ears.monitors.Store(false)
}

// show tells the monitors of a command that is about to be run. Who ends monitoring
// by it is not told of that.
func (c *conn) show(cmd *command, args [][]byte) {
	if cmd.flags&admin != 0 || cmd.name == "quit" {
		return
	}
	from := "lua"
	if c.script == nil {
		from = addressOf(c.accepted)
	}
	us := c.srv.o.Now().UnixMicro()
	line := fmt.Appendf(nil, "+%d.%06d [%d %s]", us/1e6, us%1e6, c.db, from)
	for _, a := range redacted(cmd, args) {
		line = append(line, ' ')
		line = appendQuoted(line, a[:min(len(a), maxMonitored)])
		if len(a) > maxMonitored {
			line = append(line, "... ("+strconv.Itoa(len(a)-maxMonitored)+" more bytes)"...)
		}
	}
	line = append(line, "\r\n"...)
	m := &c.srv.monitors
	m.mu.Lock()
	defer m.mu.Unlock()
	for k := range m.conns {
		if k != c || cmd.name != "reset" {
			k.push(line)
		}
	}
}

// secretParameters are those of Redis whose values are for nobody to see. That CONFIG
// SET refuses them here is no reason to show what somebody believed to be one.
var secretParameters = []string{"requirepass", "masterauth", "masteruser", "tls-key-file-pass", "tls-client-key-file-pass"}

// redacted are the arguments as others may see them: without user names and passwords.
func redacted(cmd *command, args [][]byte) [][]byte {
	if cmd.flags&secret == 0 {
		return args
	}
	hidden := func(i int) bool { return i > 0 }
	switch cmd.whole {
	case "hello": // whatever else is wrong with it
		hidden = func(i int) bool {
			return i > 1 && (resp.EqualFold(args[i-1], "auth") || resp.EqualFold(args[i-2], "auth"))
		}
	case "config|set":
		hidden = func(i int) bool {
			return i > 2 && slices.Contains(secretParameters, string(resp.Lower(nil, args[i-1])))
		}
	}
	shown := make([][]byte, len(args))
	for i, a := range args {
		if shown[i] = a; hidden(i) {
			shown[i] = []byte("(redacted)")
		}
	}
	return shown
}

// appendQuoted writes b as Redis quotes what may be any bytes.
func appendQuoted(dst, b []byte) []byte {
	dst = append(dst, '"')
	for _, x := range b {
		switch {
		case x == '\\' || x == '"':
			dst = append(dst, '\\', x)
		case x == '\n':
			dst = append(dst, `\n`...)
		case x == '\r':
			dst = append(dst, `\r`...)
		case x == '\t':
			dst = append(dst, `\t`...)
		case x == '\a':
			dst = append(dst, `\a`...)
		case x == '\b':
			dst = append(dst, `\b`...)
		case x < ' ' || x > '~':
			dst = fmt.Appendf(dst, `\x%02x`, x)
		default:
			dst = append(dst, x)
		}
	}
	return append(dst, '"')
}
