package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The measurement itself is cmd/mcached's TestE2ENeighbour, which has a daemon.

func TestTakeMemory(t *testing.T) {
	var out bytes.Buffer
	if err := takeMemory(strings.NewReader("1048577 0\n0 0\n2097152 50000000\n"), &out); err != nil {
		t.Fatal(err)
	}
	var us [3]int
	if _, err := fmt.Sscan(out.String(), &us[0], &us[1], &us[2]); err != nil || us[2] < 20_000 {
		t.Errorf("it took %q µs, %v", out.String(), err)
	}
	for _, line := range []string{"much", "1", "-1 0", "1 -2"} {
		if err := takeMemory(strings.NewReader(line), io.Discard); err == nil {
			t.Errorf("%q passes", line)
		}
	}
}

func TestHugePages(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nr_hugepages")
	if err := os.WriteFile(file, []byte("7\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	h := hugePages{file: file}
	for _, bytes := range []int64{5 << 20, 1} {
		if err := h.take(bytes, asideRate); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := h.read(); n != 7+3+1 || err != nil {
		t.Errorf("%d pages, %v", n, err)
	}
	h.giveBack()
	if n, err := h.read(); n != 7 || err != nil {
		t.Errorf("%d pages in the end, %v", n, err)
	}
	h = hugePages{file: filepath.Join(t.TempDir(), "none")}
	if err := h.take(1, asideRate); err == nil {
		t.Error("pages without a kernel that has them")
	}
}

// TestNeighbourRefuses: it takes nothing where that could leave the machine
// without memory, or would not show anything.
func TestNeighbourRefuses(t *testing.T) {
	const mib = 1 << 20
	for _, x := range []struct {
		floor, budget int
		limit         string
		args          []string
		want          string
	}{
		{4096 * mib, 2048 * mib, "node", nil, "too little"},
		{2048 * mib, 8192 * mib, "node", nil, "--memory.keep-available"},
		{2048 * mib, 8192 * mib, "node", []string{"--leave", "1GiB"}, "1024 are to be left"},
		{4096 * mib, 8192 * mib, "/sys/fs/cgroup/a", []string{"--huge-pages"}, "do not count"},
		{0, 8192 * mib, "node", nil, "no floor"},
		{4096 * mib, 8192 * mib, "node", []string{"--take", "1KiB"}, "--take must be"},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "# HELP mcached_memory_budget_bytes Bytes.\nmcached_memory_budget_bytes %e\nmcached_memory_used_bytes 5\n", float64(x.budget))
			if x.floor > 0 {
				fmt.Fprintf(w, "mcached_pressure_floor_bytes{limit=%q} %d\nmcached_pressure_ceiling_bytes{limit=%q} %d\n", x.limit, x.floor, x.limit, x.floor*3/2)
			}
		}))
		_, err := bench(t, append([]string{"neighbour", "--url", s.URL, "--pid", fmt.Sprint(os.Getpid())}, x.args...)...)
		if err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("floor %d, budget %d, %v: %v", x.floor, x.budget, x.args, err)
		}
		s.Close()
	}
}

func TestAvailable(t *testing.T) {
	if n, err := available("node"); err != nil || n <= 0 {
		t.Errorf("the machine has %d bytes, %v", n, err)
	}
	for _, files := range []map[string]string{{"memory.max": "1000\n", "memory.current": "400\n"}, {"memory.limit_in_bytes": "1000", "memory.usage_in_bytes": "400"}} {
		dir := t.TempDir()
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := available(dir); n != 600 || err != nil {
			t.Errorf("%v: %d, %v", files, n, err)
		}
	}
	if _, err := available(t.TempDir()); err == nil {
		t.Error("a group without files passes")
	}
}
