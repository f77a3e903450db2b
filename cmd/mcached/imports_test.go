package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	root   = "../.." // of the module, from this package
	module = "mcached"
)

// mayImport is the design's table: what each package may import beyond the
// standard library. A trailing "/..." stands for everything below. What is not
// listed for a package of this module is forbidden to it.
var mayImport = map[string][]string{
	"kvcache":           {"golang.org/x/sys/..."},
	"kvcache/pressure":  {"golang.org/x/sys/..."},
	"kvcache/lockcheck": {}, // for the tests of all
	"kvcache/offheap":   {"mcached/kvcache"},
	"mcache/block":      {},
	"mcache/block/mix":  {}, // what benchmarks seal
	"mcache/index":      {"mcached/kvcache/offheap"},
	"mcache":            {"mcached/kvcache", "mcached/kvcache/offheap", "mcached/mcache/block", "mcached/mcache/index"},
	"mcache/query": {
		"mcached/mcache",
		"github.com/golang/snappy",
		"github.com/prometheus/common/model",                                           // the label and duration types of the packages below
		"github.com/prometheus/common/expfmt", "github.com/prometheus/client_model/go", // what federation is written in
		"github.com/prometheus/prometheus/model/...",
		"github.com/prometheus/prometheus/prompb/...",
		"github.com/prometheus/prometheus/schema", // the names of the labels that have a meaning
		"github.com/prometheus/prometheus/promql", "github.com/prometheus/prometheus/promql/parser",
		"github.com/prometheus/prometheus/promql/parser/posrange",
		"github.com/prometheus/prometheus/storage",
		"github.com/prometheus/prometheus/tsdb/chunkenc", "github.com/prometheus/prometheus/tsdb/chunks",
		"github.com/prometheus/prometheus/util/...",
	},
	"remotewrite/wire":   {},
	"remotewrite/rawio":  {},
	"remotewrite/send":   {"mcached/mcache", "mcached/remotewrite/wire", "github.com/golang/snappy"},
	"remotewrite/prints": {"mcached/remotewrite/wire"},
	"remotewrite/route":  {"mcached/remotewrite/prints", "mcached/remotewrite/rawio", "mcached/remotewrite/send", "mcached/remotewrite/wire"},
	"remotewrite": {
		"mcached/mcache", "mcached/remotewrite/prints", "mcached/remotewrite/wire",
		"github.com/klauspost/compress/s2", "github.com/klauspost/compress/zstd",
		"github.com/prometheus/prometheus/prompb", "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2",
	},
	"remotewrite/writetest": { // for the tests of both ends
		"mcached/kvcache", "mcached/mcache", "mcached/remotewrite/wire",
		"github.com/gogo/protobuf/proto", "github.com/golang/snappy",
		"github.com/prometheus/prometheus/prompb", "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2",
	},
	"ingest/admission": {},
	"ingest/cluster":   {"github.com/cespare/xxhash/v2", "github.com/hashicorp/memberlist"},
	"ingest/resp":      {"github.com/tidwall/redcon"},
	"ingest/script":    {"mcached/ingest/resp", "github.com/yuin/gopher-lua", "github.com/yuin/gopher-lua/ast", "github.com/yuin/gopher-lua/parse"},
	"ingest":           {"mcached/mcache", "mcached/kvcache", "mcached/ingest/admission", "mcached/ingest/resp", "mcached/ingest/script", "github.com/zeebo/xxh3"},
	"cmd/mcached":      {"..."},
	"cmd/mcached/e2e":  {}, // tests alone, whose imports are not in question
	"cmd/mcbench": {
		"mcached/kvcache", "mcached/mcache", "mcached/remotewrite/send", "mcached/remotewrite/wire", "github.com/alecthomas/kingpin/v2",
		"github.com/golang/snappy", "golang.org/x/sys/unix", "github.com/prometheus/prometheus/model/labels", "github.com/prometheus/prometheus/promql/parser",
		"github.com/prometheus/prometheus/prompb", "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2",
	},
}

type goPackage struct {
	ImportPath string
	Dir        string
	Imports    []string
}

// TestImports holds the design's import table: boundaries that nothing checks
// are gone within a year.
func TestImports(t *testing.T) {
	checked := 0
	for _, p := range goList(t, "./...") {
		name, ok := strings.CutPrefix(p.ImportPath, module+"/")
		allowed, known := mayImport[name]
		if !ok || !known {
			t.Errorf("package %s is not in the import table", p.ImportPath)
			continue
		}
		for _, imp := range p.Imports {
			if first, _, _ := strings.Cut(imp, "/"); first != module && !strings.Contains(first, ".") {
				continue // the standard library
			}
			checked++
			if !slices.ContainsFunc(allowed, func(pattern string) bool { return matches(pattern, imp) }) {
				t.Errorf("%s may not import %s", name, imp)
			}
		}
	}
	if checked < 5 {
		t.Fatalf("only %d imports checked: the list is not what it was thought to be", checked)
	}
}

// matches says whether pattern, which may end in "/...", covers imp.
func matches(pattern, imp string) bool {
	if pattern == "..." {
		return true
	}
	tree, ok := strings.CutSuffix(pattern, "/...")
	return imp == pattern || ok && (imp == tree || strings.HasPrefix(imp, tree+"/"))
}

// heavy are the trees that Prometheus' remote storage and web packages bring
// along: 500 packages of cloud clients that a cache has no use for.
var heavy = []string{
	"github.com/aws/", "github.com/Azure/", "cloud.google.com/", "google.golang.org/api/", "google.golang.org/grpc",
	"k8s.io/", "sigs.k8s.io/", "github.com/hashicorp/consul", "github.com/docker/",
	"github.com/prometheus/prometheus/storage/remote", "github.com/prometheus/prometheus/web",
	"github.com/prometheus/prometheus/discovery",
	"golang.org/x/net/trace", "github.com/miekg/dns",
}

// TestNoCloudClients keeps the daemon light.
func TestNoCloudClients(t *testing.T) {
	deps := goList(t, "-deps", "./cmd/mcached")
	if len(deps) < 100 {
		t.Fatalf("go list -deps gave only %d packages", len(deps))
	}
	here, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range deps {
		if strings.HasPrefix(p.Dir, here+"/cmd/mcached/standins/") {
			continue // what stands in for one of them, and has nothing in it
		}
		for _, h := range heavy {
			if strings.HasPrefix(p.ImportPath, h) {
				t.Errorf("the daemon depends on %s", p.ImportPath)
			}
		}
	}
}

// TestClusterIsLight bounds what being one of several adds to the daemon.
func TestClusterIsLight(t *testing.T) {
	const cluster, most = "mcached/ingest/cluster", 25
	imports := slices.DeleteFunc(goList(t, "./cmd/mcached")[0].Imports, func(p string) bool { return p == cluster })
	without := map[string]bool{}
	for _, p := range goList(t, append([]string{"-deps"}, imports...)...) {
		without[p.ImportPath] = true
	}
	var more []string
	for _, p := range goList(t, "-deps", cluster) {
		if !without[p.ImportPath] {
			more = append(more, p.ImportPath)
		}
	}
	if len(more) > most || !slices.Contains(more, cluster) {
		t.Errorf("%s adds %d packages to the daemon, want at most %d and itself among them: %v", cluster, len(more), most, more)
	}
}

// TestLayout holds the top level to the design's list.
func TestLayout(t *testing.T) {
	want := []string{"cmd", "ingest", "mcache", "kvcache", "remotewrite", "go.mod", "go.sum", "Makefile", "README.md", "LICENSE"}
	out, err := command("git", "ls-files", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		// A source archive has no index; what lies there is the best there is.
		entries, err := os.ReadDir(root)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name() != "bin" { // what make build leaves
				out = append(out, e.Name()+"\n"...)
			}
		}
	}
	for _, f := range strings.Fields(string(out)) {
		top, _, _ := strings.Cut(path.Clean(f), "/")
		if !strings.HasPrefix(top, ".") && !slices.Contains(want, top) {
			t.Errorf("%s is not part of the layout", top)
		}
	}
}

// goList runs go list in the module's root. Imports of tests are not in its answer.
func goList(t *testing.T, args ...string) []goPackage {
	t.Helper()
	out, err := command("go", append([]string{"list", "-json=ImportPath,Dir,Imports"}, args...)...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %s", exit.Stderr)
		}
		t.Fatal(err)
	}
	var list []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		switch err := dec.Decode(&p); err {
		case nil:
			list = append(list, p)
		case io.EOF:
			return list
		default:
			t.Fatal(err)
		}
	}
}

// command prepares a program to run in the module's root.
func command(name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Dir = root
	return c
}
