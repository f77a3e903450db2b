// Package conntrack stands in for github.com/mwitkow/go-conntrack, through which
// the HTTP clients of prometheus/common dial. The package of that name counts
// connections in a registry that the daemon does not show, and keeps a log of each
// for pages below /debug/events that it serves on a mux that the daemon does not
// have. For these the linker would take in golang.org/x/net/trace and html/template.
// Here a connection is dialled and nothing else. The go.mod of the daemon replaces
// the module by this one.
//
// If a newer prometheus/common wants more names, the build says which.
package conntrack

import (
	"context"
	"net"
)

type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

type dialerOpt func(*dialFunc)

// DialWithDialContextFunc has a connection dialled by f.
func DialWithDialContextFunc(f dialFunc) dialerOpt {
	return func(dial *dialFunc) { *dial = f }
}

// DialWithName is for a metric that there is none of.
func DialWithName(string) dialerOpt { return func(*dialFunc) {} }

// DialWithTracing is for a page that there is none of.
func DialWithTracing() dialerOpt { return func(*dialFunc) {} }

// NewDialContextFunc returns what dials: net.Dialer, if nothing else is said.
func NewDialContextFunc(opts ...dialerOpt) dialFunc {
	dial := new(net.Dialer).DialContext
	for _, o := range opts {
		o(&dial)
	}
	return dial
}
