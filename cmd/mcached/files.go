package main

import (
	"golang.org/x/sys/unix"
)

// Connections are files, of which the system permits a process so many (ulimit -n).
// Who is at that limit can neither let in who would make way for another, nor open a
// snapshot, nor reach a store or another member: idle Redis clients would keep probes of
// health out. So the bounds of connections are lowered to what fits, as Redis lowers
// maxclients.

// reservedFiles are for all that is no connection of a client: listeners, a snapshot,
// connections to stores and members. Of a limit that is small it is half.
const reservedFiles = 256

// connections are how many there may be at a time: of HTTP for each address, and of
// Redis clients.
type connections struct{ web, resp int }

// fitting is c, or less of it where it and what is reserved are more than so many
// files. HTTP has a quarter of what is left, and Redis clients the rest.
func (c connections) fitting(files uint64, webListeners int, resp bool) connections {
	clients := 0
	if resp {
		clients = c.resp
	}
	n := max(1, webListeners)
	if files >= uint64(reservedFiles+n*c.web+clients) {
		return c
	}
	left := int(files) - int(min(reservedFiles, files/2))
	web := left
	if resp {
		web = left / 4
	}
	c.web = max(1, min(c.web, web/n))
	if resp {
		c.resp = max(1, min(c.resp, left-n*c.web))
	}
	return c
}

// connectionsFor is what a command line has of them, as far as the system permits.
func (d *daemon) connectionsFor(c *config) connections {
	want := connections{web: int(c.webMaxConnections), resp: int(c.respMaxClients)}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return want
	}
	got := want.fitting(files.Cur, len(c.webListen), c.respListen != "" || c.respSocket != "")
	if got != want {
		d.log.Warn("The system permits fewer open files than there may be connections: fewer are let in. Raise the limit (ulimit -n, LimitNOFILE), or lower --resp.max-clients and --web.max-connections.",
			"files", files.Cur, "web_connections", got.web, "resp_clients", got.resp)
	}
	return got
}
