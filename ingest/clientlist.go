package ingest

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strings"

	"mcached/ingest/resp"
)

// described is what a line of CLIENT LIST is made of, without a lock.
type described struct {
	id                        int64
	fd                        int
	accepted                  net.Conn
	name, libName, libVersion string
	created, active           int64 // ticks
	db                        int
	resp3                     bool
	multi                     int32 // as conn.multi
	multiBytes                int64 // of the transaction's queue
	noEvict, noTouch          bool
	unread                    int64
	half                      bool // a command is incomplete
	last                      *command
	listening                 listening
}

// describedBytes is about what a line takes, with what it is made of.
const describedBytes = 1 << 10

// connBytes is about what a connection takes that has no buffers.
const connBytes = 1536

func (c *conn) describedLocked() described {
	return described{
		id: c.id, fd: c.fd, accepted: c.accepted, name: c.name, libName: c.libName, libVersion: c.libVersion,
		created: c.created, active: c.active.Load(), db: c.db, resp3: c.ears.resp3.Load(),
		multi: c.multi.Load(), multiBytes: c.multiBytes.Load(), noEvict: c.noEvict.Load(), noTouch: c.noTouch.Load(), unread: c.unread.Load(), half: c.half.Load() != 0, last: c.last.Load(),
		listening: c.listens(),
	}
}

// describe is the connection's line of CLIENT LIST.
func (c *conn) describe() string {
	c.srv.mu.Lock()
	d := c.describedLocked()
	c.srv.mu.Unlock()
	return d.line(c.srv)
}

// isPubSub says that the client is one of CLIENT LIST TYPE PUBSUB.
func (d *described) isPubSub() bool {
	return d.listening.channels+d.listening.patterns+d.listening.shards > 0
}

// line has the fields of Redis. Those about buffers tell of what a connection holds
// between its commands: arguments are views of the input, and answers are written
// from buffers of all.
func (d *described) line(s *Server) string {
	now, every := s.tick.Load(), s.every.Seconds()
	flags := d.listening.flags()
	if d.multi > 0 {
		flags += "x"
	}
	if _, local := d.accepted.(*net.UnixConn); local {
		flags += "U"
	}
	if d.noEvict {
		flags += "e"
	}
	if d.noTouch {
		flags += "T"
	}
	if flags == "" {
		flags = "N"
	}
	events, last, queued, version := "r", "NULL", 0, 2
	if d.unread > 0 {
		events, queued = "rw", 1
	}
	if d.last != nil {
		last = d.last.whole
	}
	if d.resp3 {
		version = 3
	}
	input := 0
	if d.half {
		input = bufferBytes
	}
	return fmt.Sprintf("id=%d addr=%s laddr=%s fd=%d name=%s age=%d idle=%d flags=%s db=%d sub=%d psub=%d ssub=%d multi=%d qbuf=%d qbuf-free=0 argv-mem=0 multi-mem=%d rbs=0 rbp=0 obl=0 oll=%d omem=%d tot-mem=%d events=%s cmd=%s user=default redir=%d resp=%d lib-name=%s lib-ver=%s",
		d.id, addressOf(d.accepted), localAddressOf(d.accepted), d.fd, d.name,
		int(float64(now-d.created)*every), int(float64(now-d.active)*every), flags, d.db,
		d.listening.channels, d.listening.patterns, d.listening.shards, d.multi-1, input, d.multiBytes, queued, d.unread,
		connBytes+int64(input)+d.multiBytes+d.unread, events, last, d.listening.redirect, version, d.libName, d.libVersion)
}

// addressOf is where a client is. One that comes by the file system has no address
// but the socket's, which Redis writes with a port of 0.
func addressOf(c net.Conn) string {
	if _, local := c.(*net.UnixConn); local {
		return localAddressOf(c)
	}
	return c.RemoteAddr().String()
}

func localAddressOf(c net.Conn) string {
	if _, local := c.(*net.UnixConn); local {
		return c.LocalAddr().String() + ":0"
	}
	return c.LocalAddr().String()
}

// clientTypes are those that TYPE knows; there are clients of the first two only.
var clientTypes = []string{"normal", "pubsub", "master", "replica", "slave"}

// clientFilter is what CLIENT LIST and CLIENT KILL say of the clients they mean.
// What is not said is met by all.
type clientFilter struct {
	ids         []int64 // sorted
	kind        string  // of clientTypes
	addr, laddr string
	user        string
}

func (f *clientFilter) meets(d *described) bool {
	if f.ids != nil {
		if _, wanted := slices.BinarySearch(f.ids, d.id); !wanted {
			return false
		}
	}
	kind := "normal"
	if d.isPubSub() {
		kind = "pubsub"
	}
	switch {
	case f.kind != "" && f.kind != kind,
		f.addr != "" && f.addr != addressOf(d.accepted),
		f.laddr != "" && f.laddr != localAddressOf(d.accepted),
		f.user != "" && f.user != "default":
		return false
	}
	return true
}

func (f *clientFilter) parseType(c *conn, b []byte) bool {
	f.kind = string(resp.Lower(nil, b))
	if !slices.Contains(clientTypes, f.kind) {
		c.Fail("ERR Unknown client type '" + clip(b, 128) + "'")
		return false
	}
	return true
}

// clients are the open connections that the filter means, in order of their ids.
// It reports false when there is no room to list them, and has answered that.
func (c *conn) clients(f *clientFilter) (found []described, ok bool) {
	s := c.srv
	s.mu.Lock()
	all := make([]described, 0, len(s.conns))
	for k := range s.conns {
		all = append(all, k.describedLocked())
	}
	s.mu.Unlock()
	if !c.room(int64(len(all)) * describedBytes) {
		return nil, false
	}
	all = slices.DeleteFunc(all, func(d described) bool { return !f.meets(&d) })
	slices.SortFunc(all, func(a, b described) int { return cmp.Compare(a.id, b.id) })
	return all, true
}

func clientList(c *conn, args [][]byte) {
	var f clientFilter
	if len(args) > 2 {
		switch {
		case resp.EqualFold(args[2], "type") && len(args) == 4:
			if !f.parseType(c, args[3]) {
				return
			}
		case resp.EqualFold(args[2], "id") && len(args) > 3:
			for _, a := range args[3:] {
				id, ok := resp.ParseInt(a)
				if !ok || id < 1 {
					c.Fail("ERR Invalid client ID")
					return
				}
				f.ids = append(f.ids, id)
			}
			slices.Sort(f.ids)
		default:
			c.Fail(errSyntax)
			return
		}
	}
	all, ok := c.clients(&f)
	if !ok {
		return
	}
	var b strings.Builder
	for i := range all {
		b.WriteString(all[i].line(c.srv))
		b.WriteByte('\n')
	}
	c.Text(b.String())
}

// parseKill reads the conditions of CLIENT KILL, or answers what is wrong with them.
func (c *conn) parseKill(args [][]byte) (f clientFilter, skipMe, ok bool) {
	skipMe = true
	for ; len(args) > 0; args = args[2:] {
		if len(args) == 1 {
			c.Fail(errSyntax)
			return f, false, false
		}
		word, value := args[0], args[1]
		switch {
		case resp.EqualFold(word, "id"):
			id, isInt := resp.ParseInt(value)
			if !isInt || id < 1 {
				c.Fail("ERR client-id should be greater than 0")
				return f, false, false
			}
			f.ids = []int64{id}
		case resp.EqualFold(word, "type"):
			if !f.parseType(c, value) {
				return f, false, false
			}
		case resp.EqualFold(word, "addr"):
			f.addr = string(value)
		case resp.EqualFold(word, "laddr"):
			f.laddr = string(value)
		case resp.EqualFold(word, "user"):
			if f.user = string(value); f.user != "default" {
				c.Fail("ERR No such user '" + clip(value, 128) + "'")
				return f, false, false
			}
		case resp.EqualFold(word, "skipme") && resp.EqualFold(value, "yes"):
			skipMe = true
		case resp.EqualFold(word, "skipme") && resp.EqualFold(value, "no"):
			skipMe = false
		default:
			c.Fail(errSyntax)
			return f, false, false
		}
	}
	return f, skipMe, true
}

func clientKill(c *conn, args [][]byte) {
	f, skipMe, ok, old := clientFilter{}, false, true, len(args) == 3
	if old {
		f.addr = string(args[2])
	} else if f, skipMe, ok = c.parseKill(args[2:]); !ok {
		return
	}
	all, ok := c.clients(&f)
	if !ok {
		return
	}
	killed := int64(0)
	s := c.srv
	s.mu.Lock()
	for k := range s.conns {
		_, wanted := slices.BinarySearchFunc(all, k.id, func(d described, id int64) int { return cmp.Compare(d.id, id) })
		switch {
		case !wanted || k == c && skipMe:
			continue
		case k == c:
			c.quit = true
		default:
			k.shut()
		}
		killed++
	}
	s.mu.Unlock()
	switch {
	case !old:
		c.Int(killed)
	case killed == 0:
		c.Fail("ERR No such client")
	default:
		c.OK()
	}
}
