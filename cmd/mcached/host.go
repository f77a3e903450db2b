package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
)

// A web page may let its own name mean 127.0.0.1 once it has been loaded. The
// browser then takes the daemon for the page's own server, whose answers the page
// may read and to which it may write: no rule about origins helps. What gives the
// page away is the name in the Host header. So what comes in by a loopback address
// must be meant for an address, for localhost, for this machine's name, for a host
// that is listened on, or for a name that --web.allowed-host gives: that of a proxy
// on this machine which passes on what it was asked for.
//
// What listens on other addresses is open to others anyway, and known to them by
// names that nobody can tell here.

// checkHost answers those who ask another host.
func (d *daemon) checkHost(next http.Handler) http.Handler {
	known := d.knownHosts()
	if slices.Contains(known, "*") {
		return next
	}
	var last atomic.Pointer[string] // that was known: a sender says the same in each request
	isKnown := func(host string) bool {
		if !hostKnown(host, known) {
			return false
		}
		kept := strings.Clone(host)
		last.Store(&kept)
		return true
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := last.Load(); p != nil && *p == r.Host {
			next.ServeHTTP(w, r)
			return
		}
		to, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
		if ok && to.IP.IsLoopback() && !isKnown(r.Host) {
			http.Error(w, fmt.Sprintf("mcached: the request is for host %.100q, which is none of this machine's names: if a proxy passes it on, start the daemon with --web.allowed-host=NAME", r.Host), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// knownHosts are names in lower case that requests may be meant for.
func (d *daemon) knownHosts() []string {
	known := []string{"localhost"}
	if name, err := os.Hostname(); err == nil {
		known = append(known, strings.ToLower(name))
	}
	for _, a := range d.config.webListen {
		if host, _, err := net.SplitHostPort(a); err == nil && host != "" {
			known = append(known, strings.ToLower(host))
		}
	}
	for _, name := range d.config.webAllowedHosts {
		known = append(known, strings.ToLower(name))
	}
	return known
}

// hostKnown says whether a Host header names one of the known hosts, or an
// address. Without one it is no browser that asks.
func hostKnown(host string, known []string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	address, _, _ := strings.Cut(host, "%")
	return host == "" || net.ParseIP(address) != nil || slices.Contains(known, host) || strings.HasSuffix(host, ".localhost")
}
