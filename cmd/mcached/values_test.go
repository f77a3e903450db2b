package main

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mcached/mcache"
)

func TestParseSize(t *testing.T) {
	for in, want := range map[string]byteSize{
		"0": 0, "1": 1, "1048576": 1 << 20, "512MiB": 512 << 20, "512mib": 512 << 20, "1.5GiB": 3 << 29,
		"2 GiB": 2 << 30, "64MB": 64e6, "10kB": 10e3, "7B": 7, "1TiB": 1 << 40, "0.5KiB": 512,
		// As Kubernetes spells them.
		"2Gi": 2 << 30, "2G": 2e9, "512M": 512e6, "512Mi": 512 << 20, "1.5Gi": 3 << 29, "100k": 100e3, "64Ki": 64 << 10, "1T": 1e12, "1Ti": 1 << 40, "2g": 2e9,
	} {
		if got, err := parseSize(in); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "MiB", "x", "-1", "-5MiB", "1e9", "inf", "NaN", "0x10", "1_000", "12Q", "9000000TiB", "512m", "2Gi5", "2iG", "Gi", "2Mii", "1MiBMiB", "--", "1 2"} {
		if got, err := parseSize(in); err == nil {
			t.Errorf("parseSize(%q) = %d, want an error", in, got)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("parseSize(%q): error of several lines: %q", in, err)
		}
	}
}

// TestByteSizeString: what a size prints is what can be given back.
func TestByteSizeString(t *testing.T) {
	for _, v := range []byteSize{0, 1, 1000, 1 << 10, 3 << 19, 512 << 20, 2 << 30, 1 << 40, 1<<40 + 1} {
		s := v.String()
		if got, err := parseSize(s); err != nil || got != v {
			t.Errorf("%d prints as %q, which reads as %d, %v", v, s, got, err)
		}
	}
}

func TestShare(t *testing.T) {
	for in, want := range map[string]share{"1%": 0.01, "25%": 0.25, "12.5%": 0.125, "100%": 1, " 50% ": 0.5} {
		var got share
		if err := got.Set(in); err != nil || got != want {
			t.Errorf("%q is %v, %v; want %v", in, float64(got), err, float64(want))
		}
		var again share
		if err := again.Set(got.String()); err != nil || again != got {
			t.Errorf("%v prints as %q", float64(got), got.String())
		}
	}
	for _, in := range []string{"", "%", "0%", "0.5%", "101%", "50", "0.5", "-1%", "x%", "NaN%", "inf%"} {
		got := share(0.5)
		if err := got.Set(in); err == nil || got != 0.5 {
			t.Errorf("%q is a share of %v", in, float64(got))
		}
	}
}

func TestConfigDefaults(t *testing.T) {
	c, err := parseConfig(nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.webListen) != 1 || c.webListen[0] != "127.0.0.1:9201" || c.respListen != "127.0.0.1:6379" {
		t.Errorf("listens on %v and %q by default", c.webListen, c.respListen)
	}
	if c.selfScrape.std() != 15*time.Second || !bool(c.respProtected) || c.memorySize != 0 {
		t.Errorf("defaults: %+v", c)
	}
}

// TestBooleanFlags: booleans are spelt as Prometheus' are, and with a value.
func TestBooleanFlags(t *testing.T) {
	for args, want := range map[string][2]bool{ // --web.enable-admin, off by default; --resp.protected-mode, on
		"":                                               {false, true},
		"--web.enable-admin":                             {true, true},
		"--web.enable-admin --log.level=warn":            {true, true},
		"--web.enable-admin=true":                        {true, true},
		"--web.enable-admin true":                        {true, true},
		"--web.enable-admin=false":                       {false, true},
		"--web.enable-admin 0 --log.level warn":          {false, true},
		"--no-web.enable-admin":                          {false, true},
		"--no-resp.protected-mode":                       {false, false},
		"--resp.protected-mode=false --web.enable-admin": {true, false},
		"--resp.protected-mode=F --web.enable-admin=1":   {true, false},
	} {
		c, err := parseConfig(strings.Fields(args))
		if err != nil {
			t.Errorf("%q: %v", args, err)
		} else if got := [2]bool{bool(c.webAdmin), bool(c.respProtected)}; got != want {
			t.Errorf("%q: %v, want %v", args, got, want)
		}
	}
	for _, args := range []string{"--web.enable-admin=", "--web.enable-admin=yes", "--no-web.enable-admin=true", "--no-memory.size", "--web.enable-admin perhaps", "--log.level --web.enable-admin"} {
		if _, err := parseConfig(strings.Fields(args)); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want one line", args, err)
		}
	}
	t.Setenv("MCACHED_WEB_ENABLE_ADMIN", "true")
	if c, err := parseConfig(nil); err != nil || !bool(c.webAdmin) {
		t.Errorf("from the environment: %v", err)
	}
	if c, err := parseConfig([]string{"--no-web.enable-admin"}); err != nil || bool(c.webAdmin) {
		t.Errorf("a flag goes before the environment: %v", err)
	}
}

func TestConfigFromEnvironment(t *testing.T) {
	t.Setenv("MCACHED_MEMORY_SIZE", "64MiB")
	t.Setenv("MCACHED_WEB_LISTEN_ADDRESS", "127.0.0.1:1234")
	c, err := parseConfig(nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.memorySize != 64<<20 || c.webListen[0] != "127.0.0.1:1234" {
		t.Errorf("got memory %s, address %v", &c.memorySize, c.webListen)
	}
}

// TestConfigErrors: each wrong command line is refused in one line that names
// the flag or the word at fault.
func TestConfigErrors(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	password := file("password", "secret\n")
	for _, c := range []struct{ args, says string }{
		{"--no-such-flag", "no-such-flag"},
		{"serv", "serv"},
		{"--memory.size=lots", "memory.size"},
		{"--memory.size=-1", "memory.size"},
		{"--memory.size=1MiB", "memory.size"},
		{"--memory.size=1GiB --memory.keep-available=1GiB", "memory.keep-available"},
		{"--memory.heap-limit=1MiB", "memory.heap-limit"},
		{"--self-scrape.interval=fast", "self-scrape.interval"},
		{"--self-scrape.interval=10ms", "self-scrape.interval"},
		{"--query.timeout=0", "query.timeout"},
		{"--query.max-samples=0", "query.max-samples"},
		{"--query.max-concurrency=-3", "query.max-concurrency"},
		{"--shutdown.timeout=x", "shutdown.timeout"},
		{"--log.level=loud", `--log.level: "loud" is not debug, info, warn or error`},
		{"--log.format=xml", `--log.format: "xml" is not logfmt or json`},
		{"@" + file("unknown", "--memory.sise=1GiB\n"), "one flag a line"},
		{"@" + file("words", "memory.size=1GiB\n"), "one flag a line"},
		{"--web.allowed-host=http://proxy.example", "web.allowed-host"},
		{"--web.allowed-host=proxy.example:443", "web.allowed-host"},
		{"--cluster.node-name=a", "--cluster.node-name is for a cluster"},
		{"--cluster.copies=3", "--cluster.copies is for a cluster"},
		{"--cluster.write-acks=2", "--cluster.write-acks is for a cluster"},
		{"--cluster.blob-copies=2", "--cluster.blob-copies is for a cluster"},
		{"--cluster.resp=proxy", "--cluster.resp is for a cluster"},
		{"--cluster.name=try --cluster.resp=both", `--cluster.resp: "both" is not redirect or proxy`},
		{"--cluster.name=try --cluster.advertise-resp=nonsense", `--cluster.advertise-resp must be IP:PORT that clients can reach, got "nonsense"`},
		{"--cluster.name=try --cluster.advertise-resp=127.0.0.1:0", "cluster.advertise-resp"},
		{"--web.listen-address=9201", "web.listen-address"},
		{"--web.config.file=" + dir + "/none.yml", "web.config.file"},
		{"--web.config.file=" + file("bad.yml", "tls_server_config: {cert_file: none.pem, key_file: none.key}\n"), "web.config.file"},
		{"--resp.listen-address=6379", "resp.listen-address"},
		{"--resp.listen-address=:6379", "resp.password-file"},
		{"--resp.listen-address=0.0.0.0:6379", "resp.protected-mode"},
		{"--resp.protected-mode=perhaps", "resp.protected-mode"},
		{"--resp.password-file=" + dir + "/none", "resp.password-file"},
		{"--resp.password-file=" + file("empty", "\n"), "empty"},
		{"--resp.password-file=" + file("two", "a\nb\n"), "one line"},
		{"--resp.password-file=" + file("long", strings.Repeat("x", maxPasswordBytes+1)), "at most"},
		{"--resp.tls-cert-file=x", "resp.tls-key-file"},
		{"--resp.tls-cert-file=x --resp.tls-key-file=y", "resp.tls-cert-file"},
		{"--web.enable-debug=perhaps", "web.enable-debug"},
		{"--tenancy.header=a:b", "tenancy.header"},
		{"--admission.max-in-flight-size=64MiB", "max-decoded-size"},
		{"--web.cors.origin=(", "cors.origin"},
		{"--remote-write.max-labels=none", "max-labels"},
		{"--remote-write.max-new-series=-1", "max-new-series"},
		{"--bucket.max-series=many", "bucket.max-series"},
		{"--bucket.limits=max-series=1", "bucket.limits"},
		{"--bucket.limits=:max-series=1", "bucket.limits"},
		{"--bucket.limits=a:series=1", "bucket.limits"},
		{"--bucket.limits=a:max-series=-1", "bucket.limits"},
		{"--bucket.limits=a:max-series=", "bucket.limits"},
		{"--bucket.limits=a:max-series=1 --bucket.limits=a:max-series=2", "bucket.limits"},
	} {
		_, err := parseConfig(strings.Fields(c.args))
		if err == nil {
			t.Errorf("%s: accepted", c.args)
			continue
		}
		if !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error should be one line naming %q, got %q", c.args, c.says, err)
		}
	}
	for _, args := range []string{
		"--resp.listen-address=:6379 --resp.protected-mode=false",
		"--resp.listen-address=:6379 --resp.password-file=" + password,
		"--resp.listen-address=[::1]:6379", "--resp.listen-address=localhost:6379", "--resp.listen-address=", "--resp.listen-address=off",
		"--tenancy.header=X-Scope-OrgID",
		"--cluster.name=try --cluster.advertise-resp=127.0.0.1:6380", "--cluster.copies=2",
		"--web.allowed-host=proxy.example", "--web.allowed-host=*",
	} {
		if _, err := parseConfig(strings.Fields(args)); err != nil {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestBucketLimits(t *testing.T) {
	c, err := parseConfig([]string{"--bucket.max-series=10", "--bucket.max-series-per-metric=5",
		"--bucket.limits=a:max-series=20", "--bucket.limits=b:c:max-series=0, max-series-per-metric=7"})
	if err != nil {
		t.Fatal(err)
	}
	all, named := c.limits()
	want := map[string]mcache.Limits{"a": {Series: 20, SeriesPerMetric: 5}, "b:c": {SeriesPerMetric: 7}}
	if (all != mcache.Limits{Series: 10, SeriesPerMetric: 5}) || !maps.Equal(named, want) {
		t.Errorf("got %+v and %+v", all, named)
	}
	if got := c.flags["bucket.limits"]; got != "a:max-series=20 b:c:max-series=0,max-series-per-metric=7" {
		t.Errorf("shown as %q", got)
	}
	t.Setenv("MCACHED_BUCKET_LIMITS", "a:max-series=1\nb:max-series=2")
	if c, err = parseConfig(nil); err != nil {
		t.Fatal(err)
	}
	if _, named = c.limits(); !maps.Equal(named, map[string]mcache.Limits{"a": {Series: 1}, "b": {Series: 2}}) {
		t.Errorf("from the environment: %+v", named)
	}
}
