package main

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kingpin/v2"
	promconfig "github.com/prometheus/common/config"
	"golang.org/x/net/http/httpguts"

	"mcached/remotewrite/rawio"
	"mcached/remotewrite/send"
	"mcached/remotewrite/wire"
)

// forwardConfig says where samples go on to, and how.
type forwardConfig struct {
	url            string // empty: nowhere
	protocol       protocol
	maxDirtyAge    duration
	maxDirty       byteSize // 0: by the budget
	lanes          count
	maxSamples     count
	timeout        duration
	headers        headerLines
	httpConfigFile string

	http  *http.Client // by httpConfigFile and timeout
	files []string     // that it was made of
}

// Bounds of the flags, and of the file. With a shorter age the requests would be
// many and small; the other bounds keep a slip of the pen from taking the memory.
const (
	minDirtyAge        = duration(1e9)
	maxForwardLanes    = 64
	maxForwardSamples  = 1_000_000
	maxForwardFileSize = 1 << 20
)

func (f *forwardConfig) addFlags(app *kingpin.Application, add addFlag) {
	app.Flag("forward.url", "Remote-write receiver that every sample is forwarded to. Unacknowledged samples are never evicted. Empty for none: a pure cache.").
		PlaceHolder("URL").StringVar(&f.url)
	add("forward.protocol", "auto", &f.protocol,
		"Version of remote write to forward by: 2, 1, or auto: 2, falling back to 1 if the receiver rejects it.")
	add("forward.max-dirty-age", "1m", &f.maxDirtyAge,
		"How long a sample may wait before it is forwarded: what a crash can lose, and how long a series' runs become.")
	add("forward.max-dirty-size", "0", &f.maxDirty,
		"Bytes of samples, at 16 each, that may wait for the receiver. Beyond it writes are rejected, to be retried (503). 0 means an eighth of the memory.")
	add("forward.lanes", "2", &f.lanes,
		"Requests to the receiver at a time.")
	add("forward.max-samples-per-request", "25000", &f.maxSamples,
		"Samples in one request to the receiver.")
	add("forward.timeout", "30s", &f.timeout,
		"Longest time that one request to the receiver may take.")
	app.Flag("forward.header", "'NAME: VALUE' to send with every request to the receiver. Repeatable; values are not shown.").
		PlaceHolder("'NAME: VALUE'").SetValue(&f.headers)
	app.Flag("forward.http-config-file", "File with TLS, proxy, basic authentication or credentials for the receiver, as Prometheus spells them (http_config).").
		PlaceHolder("FILE").StringVar(&f.httpConfigFile)
}

// check holds the flags against each other and reads what they name. tenancy
// is --tenancy.header, and listen are the daemon's own addresses.
func (f *forwardConfig) check(tenancy string, listen []string) error {
	if f.url == "" {
		if f.httpConfigFile != "" || len(f.headers) > 0 {
			return fmt.Errorf("--forward.header and --forward.http-config-file are for --forward.url, which is not given")
		}
		return nil
	}
	u, err := url.Parse(f.url)
	switch {
	case err != nil:
		return fmt.Errorf("--forward.url is not a URL such as http://127.0.0.1:9090/api/v1/write")
	case u.User != nil:
		return fmt.Errorf("--forward.url must not hold a password, which others can see: put it in --forward.http-config-file")
	}
	if _, err := send.NewClient(send.ClientOptions{URL: f.url}); err != nil || impossiblePort(u) {
		return fmt.Errorf("--forward.url must be http://… or https://…, got %q", f.url)
	}
	switch {
	case f.maxDirtyAge < minDirtyAge:
		return fmt.Errorf("--forward.max-dirty-age must be at least 1s, got %s", &f.maxDirtyAge)
	case f.maxDirty != 0 && f.maxDirty < minMaxDirty:
		return fmt.Errorf("--forward.max-dirty-size must be 0 or at least 1MiB, got %s", &f.maxDirty)
	case f.lanes > maxForwardLanes:
		return fmt.Errorf("--forward.lanes is at most %d, got %d", maxForwardLanes, f.lanes)
	case f.maxSamples > maxForwardSamples:
		return fmt.Errorf("--forward.max-samples-per-request is at most %d, got %d", maxForwardSamples, f.maxSamples)
	case f.timeout == 0:
		return fmt.Errorf("--forward.timeout must be more than 0")
	case tenancy != "" && f.headers.has(tenancy):
		return fmt.Errorf("--forward.header sets %s, which --tenancy.header sets by the bucket", http.CanonicalHeaderKey(tenancy))
	}
	for _, a := range listen {
		if sameAddress(u, a) {
			return fmt.Errorf("--forward.url=%s is this daemon itself, which listens on %s", f.url, a)
		}
	}
	if f.http, err = f.client(); err != nil {
		return fmt.Errorf("--forward.http-config-file: %w", err)
	}
	return nil
}

// client makes the HTTP client that the file describes, and reads every other
// file that it names: better now than when the first sample waits.
func (f *forwardConfig) client() (*http.Client, error) {
	c := &promconfig.DefaultHTTPClientConfig
	if f.httpConfigFile != "" {
		if st, err := os.Stat(f.httpConfigFile); err == nil && st.Size() > maxForwardFileSize {
			return nil, fmt.Errorf("%s has %d bytes, more than %d", f.httpConfigFile, st.Size(), maxForwardFileSize)
		}
		var err error
		if c, _, err = promconfig.LoadHTTPConfigFile(f.httpConfigFile); err != nil {
			return nil, fmt.Errorf("%s: %s", f.httpConfigFile, strings.ReplaceAll(err.Error(), "\n", " "))
		}
	}
	f.files = filesOf(c)
	for _, name := range f.files {
		if _, err := os.ReadFile(name); err != nil {
			return nil, err
		}
	}
	if f.httpConfigFile != "" {
		f.files = append(f.files, f.httpConfigFile)
	}
	client, err := promconfig.NewClientFromConfig(*c, "forward", promconfig.WithDialContextFunc(rawio.Dial))
	if err != nil {
		return nil, err
	}
	client.Timeout = f.timeout.std()
	// A request goes out in one piece, where 4 KiB and then 32 at a time are
	// the default. A transport that is wrapped, for authentication, keeps that.
	if t, ok := client.Transport.(*http.Transport); ok {
		t.WriteBufferSize = forwardWriteBuffer
	}
	return client, nil
}

// filesOf are the files that a configuration names.
func filesOf(c *promconfig.HTTPClientConfig) []string {
	files := []string{c.TLSConfig.CAFile, c.TLSConfig.CertFile, c.TLSConfig.KeyFile, c.BearerTokenFile}
	if c.BasicAuth != nil {
		files = append(files, c.BasicAuth.UsernameFile, c.BasicAuth.PasswordFile)
	}
	if c.Authorization != nil {
		files = append(files, c.Authorization.CredentialsFile)
	}
	if o := c.OAuth2; o != nil {
		files = append(files, o.ClientSecretFile, o.ClientCertificateKeyFile, o.TLSConfig.CAFile, o.TLSConfig.CertFile, o.TLSConfig.KeyFile)
	}
	if c.HTTPHeaders != nil {
		for _, h := range c.HTTPHeaders.Headers {
			files = append(files, h.Files...)
		}
	}
	return slices.DeleteFunc(files, func(name string) bool { return name == "" })
}

// forwardWriteBuffer bytes hold most requests of 25,000 samples, in runs of 20 or more.
const forwardWriteBuffer = 320 << 10

// sameAddress says whether a request to u would come to a listener on address
// of this machine. Names are not looked up, but for localhost: a loop that
// goes by another name is found when the first request comes back.
func sameAddress(u *url.URL, address string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	toPort := u.Port()
	if toPort == "" {
		toPort = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	if port != toPort || port == "0" {
		return false
	}
	to, own := net.ParseIP(u.Hostname()), net.ParseIP(host)
	everywhere := host == "" || own != nil && own.IsUnspecified()
	switch {
	case strings.EqualFold(u.Hostname(), host):
		return true
	case isLoopback(u.Hostname()):
		return everywhere || isLoopback(host)
	case to == nil:
		return false
	case to.IsUnspecified():
		return everywhere || isLoopback(host)
	}
	return everywhere && isOwnAddress(to) || to.Equal(own)
}

// isOwnAddress says whether a network interface of this machine has the address.
func isOwnAddress(ip net.IP) bool {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(addresses, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.Equal(ip)
	})
}

// protocol is a flag's version of remote write; the zero value means to detect it.
type protocol wire.Protocol

// Set implements kingpin.Value.
func (p *protocol) Set(s string) error {
	switch s {
	case "auto":
		*p = 0
	case "1", "1.0":
		*p = protocol(wire.V1)
	case "2", "2.0":
		*p = protocol(wire.V2)
	default:
		return fmt.Errorf("%q is not auto, 1 or 2", s)
	}
	return nil
}

// String implements kingpin.Value.
func (p *protocol) String() string {
	if p == nil || *p == 0 {
		return "auto"
	}
	return wire.Protocol(*p).String()
}

// headerLines are a repeatable flag's headers. They may be secrets, so they
// are not printed.
type headerLines []struct{ name, value string }

// reservedHeaders are the protocol's own.
var reservedHeaders = []string{"Content-Type", "Content-Encoding", "Content-Length", "Transfer-Encoding", "Connection",
	"X-Prometheus-Remote-Write-Version", forwardedBy}

// Set implements kingpin.Value.
func (h *headerLines) Set(s string) error {
	name, value, ok := strings.Cut(s, ":")
	name, value = http.CanonicalHeaderKey(strings.TrimSpace(name)), strings.TrimSpace(value)
	switch {
	case !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value):
		return fmt.Errorf("--forward.header must be 'NAME: VALUE'") // what came may be a secret
	case slices.Contains(reservedHeaders, name):
		return fmt.Errorf("--forward.header: %s is the protocol's own", name)
	}
	*h = append(*h, struct{ name, value string }{name, value})
	return nil
}

// IsCumulative lets kingpin take the flag more than once.
func (h *headerLines) IsCumulative() bool { return true }

// String implements kingpin.Value.
func (h *headerLines) String() string {
	if h == nil {
		return ""
	}
	var shown []string
	for _, l := range *h {
		shown = append(shown, l.name+": <secret>")
	}
	return strings.Join(shown, ", ")
}

func (h headerLines) has(name string) bool {
	return slices.ContainsFunc(h, func(l struct{ name, value string }) bool { return l.name == http.CanonicalHeaderKey(name) })
}

func (h headerLines) header() http.Header {
	all := http.Header{}
	for _, l := range h {
		all.Add(l.name, l.value)
	}
	return all
}

// minMaxDirty is room for 65,536 samples; less would refuse the first request.
const minMaxDirty = 1 << 20
