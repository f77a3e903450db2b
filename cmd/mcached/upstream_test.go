package main

import (
	"strings"
	"testing"
)

// TestUpstreamFlags refuses what cannot be meant.
func TestUpstreamFlags(t *testing.T) {
	for flags, want := range map[string]string{
		"--query.upstream=127.0.0.1:9090":                                                "must be http://",
		"--query.upstream=ftp://host":                                                    "must be http://",
		"--query.upstream=http://":                                                       "must be http://",
		"--query.upstream=http://me:secret@host":                                         "must not hold a password",
		"--query.upstream=http://host?x=y":                                               "no parameters",
		"--query.upstream=http://127.0.0.1:9201/x":                                       "this daemon itself",
		"--query.upstream=http://host --query.upstream.timeout=0s":                       "timeout must be more than 0",
		"--query.upstream=http://host --query.upstream.max-body-size=0":                  "max-body-size must be more than 0",
		"--query.upstream=http://host --query.upstream.authoritative={":                  "query.upstream.authoritative",
		"--query.upstream.authoritative={a=\"b\"}":                                       "is for --query.upstream",
		"--query.upstream=http://host --query.upstream.when=often":                       "enum value must be one of",
		"--query.upstream=http://host --query.upstream.http-config-file=/does/not/exist": "http-config-file",
		"--query.upstream.http-config-file=/does/not/exist":                              "is for --query.upstream",
		"--query.upstream=http://host/prefix --query.upstream.when=always":               "",
		"--query.upstream=http://host --query.upstream.when=never":                       "",
	} {
		c, err := parseConfig(strings.Fields(flags))
		if err == nil && want != "" || err != nil && (want == "" || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%s: %v, want %q", flags, err, want)
		}
		if err != nil {
			continue
		}
		if o := c.upstream.options(""); o == nil || string(o.When) != c.upstream.when {
			t.Errorf("%s: %+v", flags, o)
		}
	}
}
