package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kingpin/v2"
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

// subcommand is one that is not the daemon itself.
type subcommand func(ctx context.Context, args []string, out, errOut io.Writer) error

// commands by name. Those without news for errOut do not take it.
func commands() map[string]subcommand {
	quiet := func(f func(context.Context, []string, io.Writer) error) subcommand {
		return func(ctx context.Context, args []string, out, _ io.Writer) error { return f(ctx, args, out) }
	}
	return map[string]subcommand{
		"query": queryCommand, "stats": quiet(statsCommand), "cluster": quiet(clusterCommand), "metrics": quiet(metricsCommand),
		"check-config": checkConfigCommand, "snapshot": snapshotCommand,
		"reload": quiet(reloadCommand), "healthy": quiet(healthyCommand),
	}
}

// complete answers a shell's completion: the names of commands for the first
// word, and for others what the command's own flags are, which kingpin knows.
func complete(words []string, stdout, stderr io.Writer) int {
	const ask = "--completion-bash"
	if len(words) > 1 {
		if run := commands()[words[0]]; run != nil {
			if err := run(context.Background(), append([]string{ask}, words[1:]...), stdout, stderr); err != nil {
				return exitError
			}
			return exitOK
		}
	}
	if len(words) <= 1 && (len(words) == 0 || !strings.HasPrefix(words[0], "-")) {
		for _, name := range append(slices.Sorted(maps.Keys(commands())), "help", "serve", "version") {
			fmt.Fprintln(stdout, name)
		}
		return exitOK
	}
	_, _ = newServeApp(&config{}).Parse(append([]string{ask}, words...)) // prints, and ends the process
	return exitOK
}

// fishCompletion has fish ask as bash does.
const fishCompletion = `function __mcached_complete
    set -l words (commandline -opc) (commandline -ct)
    command mcached --completion-bash $words[2..-1]
end
complete -c mcached -a '(__mcached_complete)'
`

// manual prints the page for man that kingpin makes of the daemon's flags.
func manual(stdout, stderr io.Writer) int {
	var page strings.Builder
	app := newServeApp(&config{})
	app.UsageWriter(&page)
	context, err := app.ParseContext(nil)
	if err == nil {
		err = app.UsageForContextWithTemplate(context, 2, kingpin.ManPageTemplate)
	}
	if err != nil {
		return fail(stderr, exitError, err)
	}
	// The head is one line, of which the version is the third part.
	_, rest, _ := strings.Cut(page.String(), "\n.SH")
	fmt.Fprintf(stdout, ".TH mcached 1 \"mcached %s\"\n.SH%s", version.Version, rest)
	return exitOK
}

// dispatch picks the command; without one the daemon serves.
func dispatch(args []string, stdout, stderr io.Writer) int {
	if version.Version == "" { // a plain go build, without the Makefile's flags
		version.Version = "dev"
	}
	name := ""
	if len(args) > 0 {
		name = args[0]
	}
	run := commands()[name]
	switch name {
	case "version":
		fmt.Fprintln(stdout, version.Print("mcached"))
		return exitOK
	case "help": // of one command, or of all
		args = append(args[1:], "--help")
		return dispatch(args, stdout, stderr)
	case "--completion-bash":
		return complete(args[1:], stdout, stderr)
	case "--completion-script-fish":
		fmt.Fprint(stdout, fishCompletion)
		return exitOK
	case "--help-man":
		return manual(stdout, stderr)
	case "serve":
		args = args[1:]
	}
	if run == nil {
		c, err := parseConfig(args)
		if err != nil {
			return fail(stderr, exitUsage, err)
		}
		return serve(c, stdout, stderr)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := run(ctx, args[1:], stdout, stderr)
	switch usage := (usageError{}); {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return fail(stderr, exitUsage, err)
	default:
		return fail(stderr, exitError, err)
	}
}

// fail prints one line.
func fail(stderr io.Writer, code int, err error) int {
	fmt.Fprintf(stderr, "mcached: %v\n", err)
	return code
}
