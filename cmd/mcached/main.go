package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

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

// usageError is a mistake in the command line.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

// dispatch picks the command; without one the daemon serves.
func dispatch(args []string, stdout, stderr io.Writer) int {
	if version.Version == "" { // a plain go build, without the Makefile's flags
		version.Version = "dev"
	}
	name := ""
	if len(args) > 0 {
		name = args[0]
	}
	var command func(ctx context.Context, args []string, out io.Writer) error
	switch name {
	case "query":
		command = queryCommand
	case "stats":
		command = statsCommand
	case "metrics":
		command = metricsCommand
	case "check-config":
		command = checkConfigCommand
	case "version":
		fmt.Fprintln(stdout, version.Print("mcached"))
		return exitOK
	case "serve":
		args = args[1:]
	}
	if command == nil {
		c, err := parseConfig(args)
		if err != nil {
			return fail(stderr, exitUsage, err)
		}
		return serve(c, stdout, stderr)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := command(ctx, args[1:], stdout)
	switch usage := (usageError{}); {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return fail(stderr, exitUsage, err)
	default:
		return fail(stderr, exitError, err)
	}
}

// checkConfigCommand is `mcached check-config`: it reads what the daemon would
// with the same flags, certificates and passwords included, and opens no port.
func checkConfigCommand(_ context.Context, args []string, out io.Writer) error {
	if _, err := parseConfig(args); err != nil {
		return usageError{err}
	}
	_, err := fmt.Fprintln(out, "The flags and the files they name are in order.")
	return err
}

// fail prints one line.
func fail(stderr io.Writer, code int, err error) int {
	fmt.Fprintf(stderr, "mcached: %v\n", err)
	return code
}
