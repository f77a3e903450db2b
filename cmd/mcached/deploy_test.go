package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDeployedFlags: the command lines of the manifests are ones that this version
// takes.
func TestDeployedFlags(t *testing.T) {
	flag := regexp.MustCompile(`(?m)--[a-z]+\.[a-z.-]+(?:=[^\s"']*)?`)
	password := filepath.Join(t.TempDir(), "password") // where a Secret is mounted
	if err := os.WriteFile(password, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"deploy/kubernetes/node/daemonset.yaml", "deploy/kubernetes/redis/daemonset.yaml", "deploy/kubernetes/standalone/statefulset.yaml",
		"deploy/kubernetes/components/snapshot/kustomization.yaml", "deploy/kubernetes/components/snapshot-node/kustomization.yaml"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		b = bytes.ReplaceAll(b, []byte("/etc/mcached/password"), []byte(password))
		var args []string
		for _, line := range strings.Split(string(b), "\n") {
			if !strings.HasPrefix(strings.TrimSpace(line), "#") {
				args = append(args, flag.FindAllString(line, -1)...)
			}
		}
		if len(args) == 0 {
			t.Errorf("%s: no flags", file)
		}
		if _, err := parseConfig(args); err != nil {
			t.Errorf("%s: %v: %v", file, args, err)
		}
	}
	b, err := os.ReadFile("deploy/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	settings := regexp.MustCompile(`(MCACHED_[A-Z_]+)=(\S*)`).FindAllStringSubmatch(string(b), -1)
	if len(settings) != 2 {
		t.Errorf("the Dockerfile sets %v", settings)
	}
	for _, s := range settings {
		t.Setenv(s[1], s[2])
	}
	c, err := parseConfig(nil)
	if err != nil {
		t.Fatalf("the Dockerfile's environment: %v", err)
	}
	if c.webListen[0] != ":9201" || c.respListen != "" {
		t.Errorf("in a container it listens on %v and %q", c.webListen, c.respListen)
	}
}

// TestUnitLeavesFlagsToEnvironment: what /etc/default/mcached says holds, whichever
// flag it is about, as no flag stands on the unit's own command line.
func TestUnitLeavesFlagsToEnvironment(t *testing.T) {
	b, err := os.ReadFile("deploy/mcached.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"EnvironmentFile=-/etc/default/mcached", "ExecStart=/usr/bin/mcached"} {
		if !strings.Contains(string(b), "\n"+want+"\n") {
			t.Errorf("the unit has no line %s", want)
		}
	}
}

// TestDeployedCluster: so are those of the components that make pods one cache,
// with what Kubernetes puts in for the variables.
func TestDeployedCluster(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("a secret that all members share"), 0o600); err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("$(POD_IP)", "10.0.0.1", "$(MEMBER)", "mcached-0", "$(ZONE)", "", "/etc/mcached-cluster/key", key)
	flag := regexp.MustCompile(`(?m)- (--\S+)$|value: (--\S+)$`)
	for base, component := range map[string]string{"standalone/statefulset.yaml": "cluster", "node/daemonset.yaml": "cluster-node"} {
		var args []string
		for _, file := range []string{base, "components/" + component + "/kustomization.yaml"} {
			b, err := os.ReadFile("deploy/kubernetes/" + file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range flag.FindAllStringSubmatch(fill.Replace(string(b)), -1) {
				args = append(args, m[1]+m[2])
			}
		}
		c, err := parseConfig(args)
		if err != nil {
			t.Fatalf("%s: %v: %v", component, args, err)
		}
		if f := &c.cluster; !f.on() || f.nodeName != "mcached-0" || f.reachedBy.Addr().String() != "10.0.0.1" || !f.bind.Addr().IsUnspecified() {
			t.Errorf("%s: %+v", component, f)
		}
	}
}

// TestPackageContents: what the deb and the rpm take out of the tree is there,
// and what `make release` makes for them is named in the Makefile.
func TestPackageContents(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, "cmd/mcached/deploy/nfpm.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	sources := regexp.MustCompile(`src: "?([^",]+)`).FindAllStringSubmatch(string(b), -1)
	if len(sources) < 8 {
		t.Fatalf("only %d files were found", len(sources))
	}
	for _, m := range sources {
		if made, ok := strings.CutPrefix(m[1], "bin/package/"); ok {
			if made != "mcached" && !strings.Contains(string(makefile), "$$dir/"+made) {
				t.Errorf("make release does not make %s", made)
			}
		} else if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
			t.Error(err)
		}
	}
}
