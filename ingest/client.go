package ingest

import (
	"crypto/sha256"
	"crypto/subtle"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"mcached/ingest/resp"
)

// client is what a connection has said about itself. Other connections read
// name, lib, db and last for CLIENT LIST under Server.mu; the rest is its own.
type client struct {
	authenticated bool
	db            int  // the selected database
	quit          bool // no more commands; close when the answers are written
	silent        bool // CLIENT REPLY OFF
	skip          int  // commands that are not answered, this one included
	counted       bool // the error that is answered is counted: a command's in a script
	name          string
	libName       string
	libVersion    string
	last          atomic.Pointer[command] // nil for none yet
	noEvict       atomic.Bool             // CLIENT NO-EVICT, which changes nothing but is told
	noTouch       atomic.Bool             // CLIENT NO-TOUCH, the same
	peer          bool                    // it is another node of the cluster
	challenge     []byte                  // that a node was given
}

func (c *conn) setAuthenticated(ok bool) {
	c.authenticated = ok
	c.limits = &c.srv.limits
	if !ok {
		l := c.srv.limits.Unauthenticated()
		c.limits = &l
	}
}

func connectionCommands() []command {
	return []command{
		{name: "ping", arity: -1, group: groupConnection, syntax: "[message]", summary: "Returns the server's liveliness response.", flags: fast, run: ping},
		{name: "echo", arity: 2, group: groupConnection, syntax: "message", summary: "Returns the given string.", flags: fast, run: func(c *conn, args [][]byte) { c.Bulk(args[1]) }},
		{name: "auth", arity: -2, group: groupConnection, syntax: "[username] password", summary: "Authenticates the connection.", flags: fast | noauth | secret, run: auth},
		{name: "hello", arity: -1, group: groupConnection, syntax: "[protover [AUTH username password] [SETNAME clientname]]", summary: "Handshakes with the server and chooses RESP2 or RESP3.", flags: fast | noauth | secret, run: hello},
		{name: "select", arity: 2, group: groupConnection, syntax: "index", summary: "Changes the selected database.", flags: fast, run: selectDB},
		{name: "quit", arity: -1, group: groupConnection, summary: "Closes the connection.", flags: fast | noauth, run: func(c *conn, _ [][]byte) { c.OK(); c.quit = true }},
		{name: "reset", arity: 1, group: groupConnection, summary: "Resets the connection.", flags: fast | noauth, run: resetConn},
		{name: "client", arity: -2, group: groupConnection, syntax: "subcommand [argument ...]", summary: "Names and lists connections.", subs: []command{
			{name: "id", arity: 2, summary: "Returns the connection's id.", run: func(c *conn, _ [][]byte) { c.Int(c.id) }},
			{name: "getname", arity: 2, summary: "Returns the connection's name.", run: clientGetName},
			{name: "setname", arity: 3, syntax: "connection-name", summary: "Sets the connection's name.", run: clientSetName},
			{name: "setinfo", arity: 4, syntax: "LIB-NAME libname | LIB-VER libver", summary: "Sets information about the client's library.", run: clientSetInfo},
			{name: "info", arity: 2, summary: "Returns information about the connection.", run: func(c *conn, _ [][]byte) { c.Text(c.describe() + "\n") }},
			{name: "pause", arity: -3, syntax: "timeout [WRITE | ALL]", summary: "Has commands, or those that write, wait for so many milliseconds.", flags: admin, run: clientPause},
			{name: "unpause", arity: 2, summary: "Ends a pause.", flags: admin, run: func(c *conn, _ [][]byte) { c.srv.unpause(); c.OK() }},
			{name: "list", arity: -2, syntax: "[TYPE NORMAL | MASTER | REPLICA | PUBSUB] [ID client-id [client-id ...]]", summary: "Lists open connections.", flags: slow, run: clientList},
			{name: "kill", arity: -3, syntax: "ip:port | [ID client-id] [TYPE NORMAL | MASTER | REPLICA | PUBSUB] [USER username] [ADDR ip:port] [LADDR ip:port] [SKIPME YES | NO]", summary: "Closes the connections that meet all conditions.", flags: admin, run: clientKill},
			{name: "tracking", arity: -3, syntax: "ON | OFF [REDIRECT client-id] [PREFIX prefix [PREFIX prefix ...]] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]", summary: "Has the client told of what it has read and is written.", run: clientTracking},
			{name: "caching", arity: 3, syntax: "YES | NO", summary: "Says of the next command whether what it reads is kept.", run: clientCaching},
			{name: "trackinginfo", arity: 2, summary: "Returns how the connection tracks.", run: clientTrackingInfo},
			{name: "getredir", arity: 2, summary: "Returns the id of the client that is told instead.", run: clientGetRedir},
			{name: "no-evict", arity: 3, syntax: "ON | OFF", summary: "Is accepted; clients are never evicted.", run: func(c *conn, args [][]byte) { c.setSwitch(&c.noEvict, args[2]) }},
			{name: "no-touch", arity: 3, syntax: "ON | OFF", summary: "Is accepted; reads count all the same.", run: func(c *conn, args [][]byte) { c.setSwitch(&c.noTouch, args[2]) }},
			{name: "reply", arity: 3, syntax: "ON | OFF | SKIP", summary: "Tells the server whether to answer.", run: clientReply},
			{name: "help", arity: 2, summary: "Lists the subcommands.", run: func(c *conn, _ [][]byte) { c.help("client") }},
		}},
	}
}

func ping(c *conn, args [][]byte) {
	if c.apart && c.restricted() && len(args) <= 2 {
		c.Array(2)
		c.BulkString("pong")
		c.Bulk(slices.Concat(args[1:]...))
		return
	}
	switch len(args) {
	case 1:
		c.B = append(c.B, "+PONG\r\n"...)
	case 2:
		c.Bulk(args[1])
	default:
		c.wrongArity("ping")
	}
}

const errWrongPass = "WRONGPASS invalid username-password pair or user is disabled."

func auth(c *conn, args [][]byte) {
	switch {
	case len(args) > 3:
		c.Fail(errSyntax)
	case len(args) == 2 && c.srv.password() == "":
		c.Fail("ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?")
	case len(args) == 2 && c.login("default", args[1]), len(args) == 3 && c.login(string(args[1]), args[2]):
		c.OK()
	default:
		c.Fail(errWrongPass)
	}
}

// login checks a password in a time that tells nothing about it. There is one
// user, and without a password every password is right, as with Redis' nopass.
func (c *conn) login(user string, password []byte) bool {
	wanted := c.srv.password()
	want, got := sha256.Sum256([]byte(wanted)), sha256.Sum256(password)
	same := subtle.ConstantTimeCompare(want[:], got[:]) == 1
	if user != "default" || !same && wanted != "" {
		return false
	}
	c.setAuthenticated(true)
	return true
}

func hello(c *conn, args [][]byte) {
	resp3 := c.V3
	if len(args) > 1 {
		v, ok := resp.ParseInt(args[1])
		if !ok {
			c.Fail("ERR Protocol version is not an integer or out of range")
			return
		}
		if v != 2 && v != 3 {
			c.Fail("NOPROTO unsupported protocol version")
			return
		}
		resp3 = v == 3
	}
	for i := 2; i < len(args); i++ {
		switch more := len(args) - i - 1; {
		case resp.EqualFold(args[i], "auth") && more >= 2:
			if !c.login(string(args[i+1]), args[i+2]) {
				c.Fail(errWrongPass)
				return
			}
			i += 2
		case resp.EqualFold(args[i], "setname") && more >= 1:
			if !validName(args[i+1]) {
				c.Fail(errClientName)
				return
			}
			c.rename(string(args[i+1])) // as it comes, whatever follows
			i++
		default:
			c.Fail("ERR Syntax error in HELLO option '" + clip(args[i], 128) + "'")
			return
		}
	}
	if !c.authenticated {
		c.Fail("NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time")
		return
	}
	c.speaks(resp3)
	c.MapOf(7)
	c.BulkString("server")
	c.BulkString("redis")
	c.BulkString("version")
	c.BulkString(redisVersion)
	c.BulkString("proto")
	c.Int(c.proto())
	c.BulkString("id")
	c.Int(c.id)
	c.BulkString("mode")
	c.BulkString(c.srv.mode())
	c.BulkString("role")
	c.BulkString("master")
	c.BulkString("modules")
	c.modules()
}

func (c *conn) proto() int64 {
	if c.V3 {
		return 3
	}
	return 2
}

// moduleName and moduleVersion are RedisTimeSeries' own.
const (
	moduleName    = "timeseries"
	moduleVersion = 11_000
)

// modules tells clients that look for RedisTimeSeries that it is spoken here.
func (c *conn) modules() {
	if c.srv.o.Metrics == nil {
		c.Array(0)
		return
	}
	c.Array(1)
	c.MapOf(4)
	c.BulkString("name")
	c.BulkString(moduleName)
	c.BulkString("ver")
	c.Int(moduleVersion)
	c.BulkString("path")
	c.BulkString("")
	c.BulkString("args")
	c.Array(0)
}

func resetConn(c *conn, _ [][]byte) {
	c.setAuthenticated(c.srv.password() == "")
	c.deafen()
	c.speaks(false)
	c.silent, c.skip = false, 0
	c.noEvict.Store(false)
	c.noTouch.Store(false)
	c.peer, c.challenge = false, nil
	c.forget()
	c.rename("")
	c.selects(0)
	c.Simple("RESET")
}

func (c *conn) rename(name string) {
	c.srv.mu.Lock()
	c.name = name
	c.srv.mu.Unlock()
}

const errClientName = "ERR Client names cannot contain spaces, newlines or special characters."

// maxClientText bounds a client's name and what it says of its library.
const maxClientText = 1 << 10

func validName(b []byte) bool {
	return len(b) <= maxClientText && !slices.ContainsFunc(b, func(c byte) bool { return c < '!' || c > '~' })
}

func clientGetName(c *conn, _ [][]byte) {
	if c.name == "" {
		c.Null()
	} else {
		c.BulkString(c.name)
	}
}

func clientSetName(c *conn, args [][]byte) {
	if !validName(args[2]) {
		c.Fail(errClientName)
		return
	}
	c.rename(string(args[2]))
	c.OK()
}

func clientSetInfo(c *conn, args [][]byte) {
	field := &c.libName
	switch {
	case resp.EqualFold(args[2], "lib-name"):
	case resp.EqualFold(args[2], "lib-ver"):
		field = &c.libVersion
	default:
		c.Fail("ERR Unrecognized option '" + clip(args[2], 128) + "'")
		return
	}
	if !validName(args[3]) {
		c.Fail("ERR " + string(resp.Lower(nil, args[2])) + " cannot contain spaces, newlines or special characters.")
		return
	}
	c.srv.mu.Lock()
	*field = string(args[3])
	c.srv.mu.Unlock()
	c.OK()
}

func (c *conn) setSwitch(is *atomic.Bool, word []byte) {
	on := resp.EqualFold(word, "on")
	if !on && !resp.EqualFold(word, "off") {
		c.Fail(errSyntax)
		return
	}
	is.Store(on)
	c.OK()
}

func clientReply(c *conn, args [][]byte) {
	switch {
	case resp.EqualFold(args[2], "on"):
		c.silent, c.skip = false, 0
		c.OK()
	case resp.EqualFold(args[2], "off"):
		c.silent = true
	case resp.EqualFold(args[2], "skip"):
		if !c.silent {
			c.skip = 2
		}
	default:
		c.Fail(errSyntax)
	}
}

// help lists the subcommands of a command.
func (c *conn) help(name string) {
	cmd := c.srv.commands.byName[name]
	c.Array(1 + 2*len(cmd.subs))
	c.Simple(strings.ToUpper(name) + " <subcommand> [<arg> [value] [opt] ...]. Subcommands are:")
	for _, s := range cmd.subs {
		c.Simple(strings.TrimSpace(strings.ToUpper(s.name) + " " + s.syntax))
		c.Simple("    " + s.summary)
	}
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
