package main

import (
	"crypto/tls"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/alecthomas/kingpin/v2"
	promconfig "github.com/prometheus/common/config"

	"mcached/ingest/cluster"
)

// clusterConfig says which other daemons this one is one cache with, and how.
type clusterConfig struct {
	join           []string
	name           string
	keyFile        string
	listen         string
	advertise      string
	advertiseRESP  string
	nodeName       string
	zone           string
	copies         count
	writeAcks      count
	blobCopies     count
	resp           oneOf // redirect or proxy
	spread         natural
	ignoreLabels   []string
	readTimeout    duration
	handover       duration
	httpConfigFile string

	keys      *cluster.Keys
	hash      *cluster.SeriesHash
	prints    *cluster.SeriesPrints // nil without a secret
	bind      netip.AddrPort
	reachedBy netip.AddrPort // advertise; the zero value if it follows from listen
	http      *http.Client   // by httpConfigFile
	tls       *tls.Config    // likewise, for other members' Redis doors
}

// on says whether the daemon is one of several.
func (f *clusterConfig) on() bool { return len(f.join) > 0 || f.name != "" }

// defaultClusterName is that of daemons that are only told whom to join.
const defaultClusterName = "mcached"

// defaultCopies of each series outlive any one member.
const defaultCopies = 2

// maxBlobCopies are those of the member that serves a key and of its heir.
const maxBlobCopies = 2

// The ways to answer Redis clients that ask for another member's key.
const (
	respRedirect = "redirect"
	respProxy    = "proxy"
)

func (f *clusterConfig) addFlags(app *kingpin.Application, add addFlag) {
	app.Flag("cluster.join", "Address of another daemon's --cluster.listen-address to be one cache with, or dns+NAME:PORT for all addresses of a name. Repeatable; asked again and again.").
		PlaceHolder("HOST:PORT").StringsVar(&f.join)
	app.Flag("cluster.name", "Name of the cluster; daemons of another one never join. For the first daemon, which has nobody to join, it turns the cluster on. Default mcached.").
		PlaceHolder("NAME").StringVar(&f.name)
	app.Flag("cluster.key-file", "File with the secret that all members share, of 16 bytes or more in one line, and while it is replaced the other one in a second line. Required beyond loopback.").
		PlaceHolder("FILE").StringVar(&f.keyFile)
	app.Flag("cluster.listen-address", "Address for the members' gossip, UDP and TCP.").
		Default("127.0.0.1:7946").StringVar(&f.listen)
	app.Flag("cluster.advertise-address", "Address by which other members reach this one's gossip, and its HTTP port by the same host; by default the listener's, or the machine's own if that listens everywhere.").
		PlaceHolder("IP[:PORT]").StringVar(&f.advertise)
	app.Flag("cluster.advertise-resp", "Address that Redis clients are told for this member's keys; by default the same host and the port of --resp.listen-address.").
		PlaceHolder("IP:PORT").StringVar(&f.advertiseRESP)
	app.Flag("cluster.node-name", "Name of this member, which decides what it owns: the same after a restart, and no other's. By default the host's name and the HTTP port.").
		PlaceHolder("NAME").StringVar(&f.nodeName)
	app.Flag("cluster.zone", "Zone of this member: copies are kept in different zones if there are any.").
		PlaceHolder("NAME").StringVar(&f.zone)
	add("cluster.copies", strconv.Itoa(defaultCopies), &f.copies,
		"Members that hold each series. All members must have the same.")
	add("cluster.write-acks", "1", &f.writeAcks,
		"Members that must hold each series of a write before it is acknowledged.")
	add("cluster.blob-copies", "1", &f.blobCopies,
		"Members that hold each Redis key: with 2 the keys of a member that dies live on at another, if there are three or more. Then writes are answered when both have them. All members must have the same.")
	f.resp.of = []string{respRedirect, respProxy}
	add("cluster.resp", respRedirect, &f.resp,
		"How Redis clients reach keys of other members: redirect answers MOVED, for clients of Redis Cluster; proxy passes commands on, for any.")
	add("cluster.spread", "0", &f.spread,
		"Members that the series of one target (job and instance) are spread over, so that a large cluster does not cut each request into small parts; 8 above 16 members. 0 for all. All members must have the same.")
	app.Flag("cluster.ignore-labels", "Labels that do not decide which members hold a series, between commas: those by which the replicas of a pair of Prometheis differ. All members must have the same.").
		PlaceHolder("NAMES").SetValue(namedValue{(*nameList)(&f.ignoreLabels), "cluster.ignore-labels"})
	add("cluster.read-timeout", "2s", &f.readTimeout,
		"How long a query waits for a member if the others have all of its data.")
	add("cluster.handover", "1h", &f.handover,
		"How much of the newest data members hand to each other when one joins, leaves or is lost.")
	app.Flag("cluster.http-config-file", "File with TLS, basic authentication or credentials for the other members, as Prometheus spells them (http_config).").
		PlaceHolder("FILE").StringVar(&f.httpConfigFile)
}

// check holds the flags against each other and those of the two doors, and
// reads the files that they name.
func (c *config) checkCluster() error {
	f := &c.cluster
	if !f.on() {
		for name, given := range map[string]bool{"key-file": f.keyFile != "", "advertise-address": f.advertise != "", "advertise-resp": f.advertiseRESP != "",
			"node-name": f.nodeName != "", "zone": f.zone != "", "http-config-file": f.httpConfigFile != "", "ignore-labels": len(f.ignoreLabels) > 0, "spread": f.spread != 0,
			"copies": f.copies > defaultCopies, "write-acks": f.writeAcks > 1, "blob-copies": f.blobCopies > 1, "resp": f.resp.is != respRedirect} {
			if given {
				return fmt.Errorf("--cluster.%s is for a cluster: give --cluster.join, or --cluster.name for the first daemon of one", name)
			}
		}
		return nil
	}
	if f.name == "" {
		f.name = defaultClusterName
	}
	for flag, s := range map[string]string{"name": f.name, "node-name": f.nodeName, "zone": f.zone} {
		if len(s) > cluster.MaxNameBytes || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return fmt.Errorf("--cluster.%s must be at most %d bytes of printable text, got %.200q", flag, cluster.MaxNameBytes, s)
		}
	}
	for _, s := range f.join {
		if err := cluster.CheckSeed(s); err != nil {
			return fmt.Errorf("--cluster.join: %w", err)
		}
	}
	for _, n := range []struct {
		flag        string
		value, most count
	}{{"copies", f.copies, cluster.MaxCopies}, {"write-acks", f.writeAcks, f.copies}, {"blob-copies", f.blobCopies, maxBlobCopies}} {
		if n.value > n.most {
			return fmt.Errorf("--cluster.%s must be at most %d, got %d", n.flag, n.most, n.value)
		}
	}
	switch {
	case f.spread != 0 && int(f.spread) < int(f.copies) || f.spread > cluster.MaxSpread:
		return fmt.Errorf("--cluster.spread must be 0, or from --cluster.copies=%d to %d, got %d", f.copies, cluster.MaxSpread, f.spread)
	case f.readTimeout == 0:
		return fmt.Errorf("--cluster.read-timeout must be more than 0")
	}
	if err := c.checkClusterAddresses(); err != nil {
		return err
	}
	return c.readClusterFiles()
}

// checkClusterAddresses also checks whether others can reach the doors.
func (c *config) checkClusterAddresses() error {
	f := &c.cluster
	var err error
	if f.bind, err = parseAddress(f.listen); err != nil {
		return fmt.Errorf("--cluster.listen-address must be IP:PORT as 0.0.0.0:7946, got %q", f.listen)
	}
	if f.advertise != "" {
		host, port := f.advertise, "0"
		if h, p, err := net.SplitHostPort(f.advertise); err == nil {
			host, port = h, p
		}
		if f.reachedBy, err = parseAddress(net.JoinHostPort(strings.Trim(host, "[]"), port)); err != nil || f.reachedBy.Addr().IsUnspecified() {
			return fmt.Errorf("--cluster.advertise-address must be IP or IP:PORT, got %q", f.advertise)
		}
	}
	if f.advertiseRESP != "" {
		a, err := parseAddress(f.advertiseRESP)
		if err != nil || a.Port() == 0 || a.Addr().IsUnspecified() {
			return fmt.Errorf("--cluster.advertise-resp must be IP:PORT that clients can reach, got %q", f.advertiseRESP)
		}
		f.advertiseRESP = a.String() // members take addresses, no names
	}
	if f.bind.Addr().IsLoopback() && !f.reachedBy.Addr().IsValid() {
		return nil // all on one machine
	}
	if f.keyFile == "" {
		return fmt.Errorf("--cluster.listen-address=%s is open to others, who could join without a key: give --cluster.key-file", f.listen)
	}
	if !slices.ContainsFunc(c.webListen, func(a string) bool {
		host, _, err := net.SplitHostPort(a)
		return err == nil && !isLoopback(host)
	}) {
		return fmt.Errorf("--web.listen-address=%s cannot be reached by other members of the cluster: listen on one that can", strings.Join(c.webListen, ", "))
	}
	if host, _, err := net.SplitHostPort(c.respListen); f.advertiseRESP == "" && err == nil && isLoopback(host) && f.resp.is == respRedirect {
		return fmt.Errorf("--resp.listen-address=%s cannot be reached by clients that are sent here for a key: listen on an address that can, give --cluster.advertise-resp, or turn Redis clients off", c.respListen)
	}
	return nil
}

// parseAddress reads IP:PORT; localhost counts as 127.0.0.1, and no host as all.
func parseAddress(s string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return netip.AddrPort{}, err
	}
	switch host {
	case "localhost":
		host = "127.0.0.1"
	case "":
		host = "0.0.0.0"
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	p, err := strconv.ParseUint(port, 10, 16)
	return netip.AddrPortFrom(a, uint16(p)), err
}

// maxKeyFileBytes is more than two secrets take.
const maxKeyFileBytes = 64 << 10

func (c *config) readClusterFiles() error {
	f := &c.cluster
	var secrets [][]byte
	if f.keyFile != "" {
		if st, err := os.Stat(f.keyFile); err == nil && st.Size() > maxKeyFileBytes {
			return fmt.Errorf("--cluster.key-file: %s has %d bytes, more than %d", f.keyFile, st.Size(), maxKeyFileBytes)
		}
		b, err := os.ReadFile(f.keyFile)
		if err == nil {
			secrets, err = cluster.ReadSecrets(b)
		}
		if err != nil {
			return fmt.Errorf("--cluster.key-file: %s: %w", f.keyFile, err)
		}
	}
	var err error
	if f.keys, err = cluster.NewKeys(f.name, secrets, c.tenancyHeader); err != nil {
		return fmt.Errorf("--cluster.key-file: %w", err)
	}
	f.hash = cluster.NewSeriesHash(f.keys.Series(), f.ignoreLabels, cluster.TargetSlots(int(f.spread), int(f.copies)))
	if key := f.keys.Prints(); key != nil {
		f.prints = cluster.NewSeriesPrints(key, f.hash)
	}
	as := forwardConfig{httpConfigFile: f.httpConfigFile} // each request has a deadline of its own
	if f.http, err = as.client(); err != nil {
		return fmt.Errorf("--cluster.http-config-file: %w", err)
	}
	if c.respCertificate != nil {
		client := &promconfig.DefaultHTTPClientConfig
		if f.httpConfigFile != "" {
			if client, _, err = promconfig.LoadHTTPConfigFile(f.httpConfigFile); err != nil {
				return fmt.Errorf("--cluster.http-config-file: %w", err)
			}
		}
		if f.tls, err = promconfig.NewTLSConfig(&client.TLSConfig); err != nil {
			return fmt.Errorf("--cluster.http-config-file: %w", err)
		}
	}
	f.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return nil
}

// nominalBytes is the memory that a member is weighed by: what it may have at
// the most, never what it has at the moment. machine is machineBytes.
func (c *config) nominalBytes(machine int64) int64 {
	if c.memorySize != 0 {
		return int64(c.memorySize)
	}
	if machine <= 0 {
		return math.MaxInt64 >> 20 // as good as any, if all members are alike
	}
	return machine
}

// nameList is names between commas, as often as the flag is given.
type nameList []string

// Set implements kingpin.Value.
func (l *nameList) Set(s string) error {
	for name := range strings.SplitSeq(s, ",") {
		if name = strings.TrimSpace(name); name == "" {
			return fmt.Errorf("%q has an empty name", s)
		}
		*l = append(*l, name)
	}
	return nil
}

// IsCumulative lets kingpin take the flag more than once.
func (l *nameList) IsCumulative() bool { return true }

// String implements kingpin.Value.
func (l *nameList) String() string {
	if l == nil {
		return ""
	}
	return strings.Join(*l, ",")
}

// oneOf is a word of a few: two or more.
type oneOf struct {
	is string
	of []string
}

// Set implements kingpin.Value.
func (o *oneOf) Set(s string) error {
	if !slices.Contains(o.of, s) {
		last := len(o.of) - 1
		return fmt.Errorf("%q is not %s or %s", s, strings.Join(o.of[:last], ", "), o.of[last])
	}
	o.is = s
	return nil
}

// String implements kingpin.Value.
func (o *oneOf) String() string {
	if o == nil {
		return ""
	}
	return o.is
}
