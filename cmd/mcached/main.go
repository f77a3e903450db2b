package main

import (
	"fmt"
	"io"
	"os"

	"github.com/prometheus/common/version"
)

// Exit codes: the shell and service managers tell a wrong command line, which
// no restart mends, from a failure, which one may.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

func main() {
	os.Exit(dispatch(os.Args[1:], os.Stdout, os.Stderr))
}

// dispatch picks the command; without one the daemon serves.
func dispatch(args []string, stdout, stderr io.Writer) int {
	if version.Version == "" { // a plain go build, without the Makefile's flags
		version.Version = "dev"
	}
	command := ""
	if len(args) > 0 {
		command = args[0]
	}
	switch command {
	case "version":
		fmt.Fprintln(stdout, version.Print("mcached"))
		return exitOK
	case "serve":
		args = args[1:]
	}
	c, err := parseConfig(args)
	if err != nil {
		return fail(stderr, exitUsage, err)
	}
	return serve(c, stdout, stderr)
}

// fail prints one line.
func fail(stderr io.Writer, code int, err error) int {
	fmt.Fprintf(stderr, "mcached: %v\n", err)
	return code
}
