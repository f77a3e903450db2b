package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestUnknownVariables(t *testing.T) {
	got := unknownVariables([]string{
		"PATH=/bin", "MCACHED_MEMORY_SIZE=1GiB", "MCACHED_WEB_LISTEN_ADDRESS=:1", "MCACHED_URL=x", "MCACHED_MEMORY_SIZ=1GiB", "MCACHED_=x", "MCACHED_FORWARD_HEADERS=a",
		// Of a Kubernetes service of that name, and of one named mcached-each.
		"MCACHED_SERVICE_HOST=10.0.0.1", "MCACHED_SERVICE_PORT=9201", "MCACHED_SERVICE_PORT_HTTP=9201", "MCACHED_PORT=tcp://10.0.0.1:9201",
		"MCACHED_PORT_9201_TCP=tcp://10.0.0.1:9201", "MCACHED_PORT_9201_TCP_PROTO=tcp", "MCACHED_PORT_9201_TCP_ADDR=10.0.0.1", "MCACHED_EACH_SERVICE_HOST=10.0.0.2",
	})
	if want := []string{"MCACHED_", "MCACHED_FORWARD_HEADERS", "MCACHED_MEMORY_SIZ"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	var many []string
	for i := range 100 {
		many = append(many, "MCACHED_X"+strings.Repeat("X", i))
	}
	if n := len(unknownVariables(many)); n != maxVariablesTold {
		t.Errorf("%d of 100 are listed", n)
	}
}

// TestVariables: kingpin reads each flag from the variable that is said to be its own.
func TestVariables(t *testing.T) {
	app := newServeApp(&config{})
	if _, err := app.Parse(nil); err != nil {
		t.Fatal(err)
	}
	flags := 0
	for _, f := range app.Model().Flags {
		if f.Envar != "" {
			flags++
			if f.Envar != variableOf(f.Name) {
				t.Errorf("--%s is read from %s, not from %s", f.Name, f.Envar, variableOf(f.Name))
			}
		}
	}
	if flags < 40 {
		t.Errorf("only %d flags have variables", flags)
	}
}

// TestMemoryWarnings: sizes beyond the machine are allowed, and said.
func TestMemoryWarnings(t *testing.T) {
	const machine = 4 << 30
	for args, says := range map[string]string{
		"": "", "--memory.size=4GiB": "", "--memory.size=3Gi --memory.heap-limit=1Gi": "", "--memory.keep-available=3GiB": "",
		"--memory.size=4.1GiB":                            "--memory.size=",
		"--memory.size=3.5GiB --memory.heap-limit=600MiB": "together",
		"--memory.keep-available=4GiB":                    "--memory.keep-available=4GiB",
	} {
		c, err := parseConfig(strings.Fields(args))
		if err != nil {
			t.Fatal(err)
		}
		w := strings.Join(c.warnings(nil, machine), "\n")
		if !strings.Contains(w, says) || (says == "") != (w == "") || says != "" && !strings.Contains(w, "4 GiB") {
			t.Errorf("%q: %q", args, w)
		}
		if w := c.warnings(nil, 0); len(w) > 0 {
			t.Errorf("%q, and nobody knows the machine: %q", args, w)
		}
	}
	if n := machineBytes(); n < 64<<20 || n > 1<<50 {
		t.Errorf("this machine has %d bytes", n)
	}
}

// TestCheckConfig: what would go wrong at the start goes wrong here, and what
// is probably not meant is said.
func TestCheckConfig(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("MCACHED_MEMORY_SIZES", "1GiB")
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"--memory.size=64Mi", exitOK, "MCACHED_MEMORY_SIZES"},
		{"--memory.size=900Ti", exitOK, "more than there is"},
		{"--snapshot.path=" + dir + "/snapshot", exitOK, ""},
		{"--snapshot.path=" + dir + "/none/snapshot", exitUsage, dir + "/none"},
		{"--snapshot.path=" + file + "/snapshot", exitUsage, "not a directory"},
		{"--snapshot.path=/proc/1/snapshot", exitUsage, "/proc/1"},
		{"--web.listen-address=127.0.0.1:99999", exitUsage, `got "127.0.0.1:99999"`},
		{"--web.listen-address=127.0.0.1:-1", exitUsage, `got "127.0.0.1:-1"`},
		{"--web.listen-address=:0 --web.listen-address=[::1]:http", exitOK, ""},
		{"--forward.url=http://127.0.0.1:99999/write", exitUsage, `got "http://127.0.0.1:99999/write"`},
		{"--query.upstream=http://127.0.0.1:0", exitUsage, `got "http://127.0.0.1:0"`},
		{"--resp.listen-address=127.0.0.1:65536", exitUsage, `got "127.0.0.1:65536"`},
	} {
		var out, errs bytes.Buffer
		code := dispatch(append([]string{"check-config"}, strings.Fields(c.args)...), &out, &errs)
		if code != c.code || !strings.Contains(errs.String(), c.says) || strings.Contains(out.String(), "in order") != (code == exitOK) || out.Len()+errs.Len() > 1000 {
			t.Errorf("%s: code %d, %q, %q", c.args, code, out.String(), errs.String())
		}
	}
}
