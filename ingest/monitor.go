package ingest

import (
	"fmt"
	"strconv"
	"sync"
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

// show tells the monitors of a command that is about to be run.
func (c *conn) show(cmd *command, args [][]byte) {
	if cmd.flags&(admin|secret) != 0 {
		return
	}
	us := c.srv.o.Now().UnixMicro()
	line := fmt.Appendf(nil, "+%d.%06d [%d %s]", us/1e6, us%1e6, c.db, addressOf(c.sock))
	for _, a := range args {
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
		k.push(line)
	}
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
