package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"mcached/kvcache/pressure"
	"mcached/mcache/query"
)

// checkConfigCommand is `mcached check-config`: it reads what the daemon would
// with the same flags, certificates and passwords included, asks the server of
// --query.upstream what it is, and opens no port.
// What the daemon would only warn of is printed, and is no failure.
func checkConfigCommand(ctx context.Context, args []string, out, errOut io.Writer) error {
	c, err := parseConfig(args)
	if err != nil {
		return usageError{err}
	}
	if _, err := checkSnapshotPlace(c.snapshotPath); err != nil {
		return usageError{err}
	}
	for _, w := range c.warnings(os.Environ(), machineBytes()) {
		fmt.Fprintf(errOut, "mcached: warning: %s\n", w)
	}
	if o := c.upstream.options(c.tenancyHeader); o != nil {
		features, _ := c.enableFeatures.features()
		fmt.Fprintln(out, spellDialect(c.upstream.url, query.AskUpstream(ctx, *o, features)))
	}
	_, err = fmt.Fprintln(out, "The flags and the files they name are in order.")
	return err
}

// machineBytes is the memory that the daemon could have at the most: the
// machine's, or the least limit of the control groups above it; 0 if nobody knows.
func machineBytes() int64 {
	n, err := pressure.TotalBytes(nil)
	if err != nil {
		return 0
	}
	return n
}

// warnings are what is allowed and probably not meant. environment is as
// os.Environ gives it, machine is machineBytes.
func (c *config) warnings(environment []string, machine int64) []string {
	var all []string
	if machine > 0 {
		has := showBytes(float64(machine))
		switch size, heap := int64(c.memorySize), int64(c.memoryHeap); {
		case size > machine:
			all = append(all, fmt.Sprintf("--memory.size=%s is more than there is: the machine, or the control group, has %s", &c.memorySize, has))
		case size > machine-heap && heap > 0:
			all = append(all, fmt.Sprintf("--memory.size=%s and --memory.heap-limit=%s together are more than there is: the machine, or the control group, has %s", &c.memorySize, &c.memoryHeap, has))
		case int64(c.memoryKeep) >= machine:
			all = append(all, fmt.Sprintf("--memory.keep-available=%s leaves nothing to the cache: the machine, or the control group, has %s", &c.memoryKeep, has))
		}
	}
	for _, name := range unknownVariables(environment) {
		all = append(all, fmt.Sprintf("the environment has %s, which is no flag's: mcached --help lists the flags, --a.b-c is MCACHED_A_B_C", name))
	}
	_, ofFeatures := c.enableFeatures.features()
	return append(all, ofFeatures...)
}

// clientVariables are what the commands other than the daemon read.
var clientVariables = []string{
	"MCACHED_URL", "MCACHED_CA_FILE", "MCACHED_USER", "MCACHED_PASSWORD_FILE", "MCACHED_BEARER_TOKEN_FILE", "MCACHED_TENANT", "MCACHED_TENANT_HEADER", "MCACHED_TIMEOUT",
	"MCACHED_RANGE", "MCACHED_STEP", "MCACHED_TIME", "MCACHED_OUTPUT", "MCACHED_INTERVAL", "MCACHED_COLOR",
}

// serviceLink are the variables that Kubernetes, and Docker before it, sets for
// every service whose name begins with mcached.
var serviceLink = regexp.MustCompile(`^MCACHED_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// maxVariablesTold bounds how many unknown variables are listed.
const maxVariablesTold = 20

// unknownVariables are the names that begin with MCACHED_ and mean nothing.
func unknownVariables(environment []string) []string {
	known := map[string]bool{"MCACHED_TEST_BINARY": true} // of the tests of this program
	for _, name := range clientVariables {
		known[name] = true
	}
	for _, f := range newServeApp(&config{}).Model().Flags {
		known[variableOf(f.Name)] = true
	}
	var unknown []string
	for _, e := range environment {
		name, _, _ := strings.Cut(e, "=")
		if strings.HasPrefix(name, "MCACHED_") && !known[name] && !serviceLink.MatchString(name) {
			unknown = append(unknown, printable(name))
		}
	}
	slices.Sort(unknown)
	return unknown[:min(len(unknown), maxVariablesTold)]
}

// variableOf is the variable of the environment that a flag is read from.
func variableOf(flag string) string {
	return "MCACHED_" + strings.NewReplacer(".", "_", "-", "_").Replace(strings.ToUpper(flag))
}
