package e2e

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// client is a row of clients/clients.csv, the table of Redis clients that are
// tried. The document for Redis clients shows it, and CI installs what it names.
type client struct {
	name  string
	run   string // folder, which is the language, and what to run there
	needs []string
}

func clients(t *testing.T) (all []client) {
	t.Helper()
	f, err := os.Open("clients/clients.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows[1:] {
		all = append(all, client{name: r[0], run: r[1], needs: strings.Fields(r[2])})
	}
	return all
}

// TestE2EClients has each client do by a small program in its own language what
// its documentation says, against a daemon of its own with defaults. A program
// checks for itself what it gets, and says ok.
func TestE2EClients(t *testing.T) {
	if testing.Short() {
		t.Skip("installs packages of npm and builds a module of Go")
	}
	t.Parallel()
	for _, c := range clients(t) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path, args := c.command(t)
			s := startServer(t)
			_, port, err := net.SplitHostPort(s.resp)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, path, append(args, port)...)
			if out, err := cmd.CombinedOutput(); err != nil || !strings.HasSuffix(string(out), "ok\n") {
				t.Errorf("%s: %v\n%s", c.run, err, tail(string(out), 60))
			}
		})
	}
}

// command is what runs the client, all but the port.
func (c client) command(t *testing.T) (path string, args []string) {
	t.Helper()
	for _, n := range c.needs {
		pkg, file, _ := strings.Cut(n, "=")
		if found, err := filepath.Glob(file); err != nil || len(found) == 0 {
			notInstalled(t, fmt.Errorf("needs %s: apt-get install %s", file, pkg))
		}
	}
	language, what, _ := strings.Cut(c.run, "/")
	script := filepath.Join("clients", language, what)
	switch language {
	case "python": // Debian's, which has Debian's packages
		return "/usr/bin/python3", []string{"-B", script}
	case "php", "ruby":
		return language, []string{script}
	case "node":
		node, dir := nodeClients(t)
		return node, []string{filepath.Join(dir, what)}
	case "go":
		return goClients(t), []string{what}
	case "tools":
		return script, nil
	}
	t.Fatalf("nothing runs %s", c.run)
	return "", nil
}

// notInstalled skips a test whose client is missing, but not in CI, which installs all.
func notInstalled(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	t.Skip(err)
}

// clientsMade is what is installed or built once for all clients of a language.
// TestMain removes dir.
var clientsMade struct {
	sync.Mutex
	dir string
}

func clientsDir() (string, error) {
	clientsMade.Lock()
	defer clientsMade.Unlock()
	var err error
	if clientsMade.dir == "" {
		clientsMade.dir, err = os.MkdirTemp("", "mcached-clients-")
	}
	return clientsMade.dir, err
}

// nodeClients is node, and a folder that has the programs of clients/node and
// what their lock file names.
func nodeClients(t *testing.T) (node, dir string) {
	t.Helper()
	node, err1 := exec.LookPath("node")
	_, err2 := exec.LookPath("npm")
	if errors.Join(err1, err2) != nil {
		notInstalled(t, errors.New("needs node and npm: apt-get install nodejs npm"))
	}
	dir, err := installNodeClients()
	if err != nil {
		notInstalled(t, err)
	}
	return node, dir
}

var installNodeClients = sync.OnceValues(func() (dir string, err error) {
	if dir, err = clientsDir(); err != nil {
		return "", err
	}
	dir = filepath.Join(dir, "node")
	if err := os.CopyFS(dir, os.DirFS("clients/node")); err != nil {
		return "", err
	}
	install := exec.Command("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %w: %s", err, out)
	}
	return dir, nil
})

// goClients is the program of the module clients/go.
func goClients(t *testing.T) string {
	t.Helper()
	path, err := buildGoClients()
	if err != nil {
		notInstalled(t, err)
	}
	return path
}

var buildGoClients = sync.OnceValues(func() (path string, err error) {
	dir, err := clientsDir()
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "goclients")
	build := exec.Command("go", "build", "-o", path, ".")
	build.Dir = "clients/go"
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return path, nil
})
