package main

import (
	"fmt"
	"io"
	"maps"
	"net"
	"slices"

	"github.com/prometheus/common/version"
)

// welcome says what to point at the daemon and what to try. It is for people:
// where the log is for machines it is one record like any other.
func (d *daemon) welcome(w io.Writer) {
	base := d.url()
	if d.config.log.Format.String() == "json" {
		d.log.Info("Ready.", "version", version.Version, "http", base, "resp", d.config.respListen, "resp_socket", d.config.respSocket, "forward", d.config.forward.url)
		return
	}
	// A name that is right, and nothing that is secret.
	auth, curl := "", "curl"
	for _, user := range slices.Sorted(maps.Keys(d.config.webSettings.users))[:min(1, len(d.config.webSettings.users))] {
		auth, curl = fmt.Sprintf(", basic_auth: {username: %s, password_file: FILE}", user), "curl -u "+user
	}
	fmt.Fprintf(w, `mcached %s is ready.
  write   remote_write: [{url: %s/api/v1/write%s}]   in prometheus.yml
  read    %s as a Prometheus data source in Grafana, or
          %s '%s/api/v1/query?query=up'
`, version.Version, base, auth, base, curl, base)
	for _, l := range d.respListeners {
		if l.Addr().Network() == "unix" {
			fmt.Fprintf(w, "  redis   redis-cli -s %s%s%s set hello world\n", l.Addr(), d.redisFollow(), d.redisPassword())
		} else if host, port, err := net.SplitHostPort(l.Addr().String()); err == nil {
			fmt.Fprintf(w, "  redis   redis-cli -h %s -p %s%s set hello world\n", reachable(host), port, d.redisOptions())
		}
	}
	if d.forwarder != nil {
		fmt.Fprintf(w, "  forward to %s, at most %s behind\n", d.config.forward.url, &d.config.forward.maxDirtyAge)
	}
}

// redisOptions are what redis-cli needs to be let in, and to find any key.
func (d *daemon) redisOptions() string {
	options := d.redisFollow()
	if d.config.respCertificate != nil {
		options += " --tls --cacert " + d.config.respTLSCertFile
	}
	return options + d.redisPassword()
}

// redisFollow has redis-cli go on to the member that has a key.
func (d *daemon) redisFollow() string {
	if f := &d.config.cluster; f.on() && f.resp.is == respRedirect {
		return " -c"
	}
	return ""
}

func (d *daemon) redisPassword() string {
	if d.config.respPasswordFile == "" {
		return ""
	}
	return fmt.Sprintf(` -a "$(cat %s)"`, d.config.respPasswordFile)
}

// reachable is a host to connect to for a listener on host.
func reachable(host string) string {
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		return "localhost"
	}
	return host
}

// url is where the first HTTP listener is reached from this machine.
func (d *daemon) url() string {
	host, port, err := net.SplitHostPort(d.webListeners[0].Addr().String())
	if err != nil {
		return d.webListeners[0].Addr().String()
	}
	scheme := "http"
	if d.config.webSettings.tls != nil {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(reachable(host), port)
}
