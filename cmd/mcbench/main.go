package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kingpin/v2"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "mcbench:", err)
	var u usageError
	if errors.As(err, &u) {
		os.Exit(2)
	}
	os.Exit(1)
}

// usageError is a mistake in the command line.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

// action is what a subcommand does once its flags are parsed.
type action func(ctx context.Context, out io.Writer) error

// run is main with its surroundings passed in.
func run(ctx context.Context, args []string, out io.Writer) error {
	app := kingpin.New("mcbench", "Measures servers for metrics and blobs with one load, and reads back what they kept.")
	app.HelpFlag.Short('h')
	commands := map[string]action{}
	for _, add := range []func(*kingpin.Application) (string, action){
		writeCommand, queryCommand, respCommand, redisCommand, hitsCommand, compareCommand, smallCommand, growCommand, clusterCommand, drainCommand, concurrentCommand, wideCommand, dashboardsCommand, exportersCommand, benefitCommand, forwardCommand, readthroughCommand, neighbourCommand, takerCommand,
	} {
		name, f := add(app)
		commands[name] = f
	}
	if len(args) == 0 {
		return usageError{errors.New("which command? Try mcbench --help")}
	}
	chosen, err := app.Parse(args)
	if err != nil {
		return usageError{err}
	}
	return commands[chosen](ctx, out)
}
