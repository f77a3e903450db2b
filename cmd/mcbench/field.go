package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"

	"github.com/alecthomas/kingpin/v2"

	"mcached/remotewrite/wire"
)

// field are the servers that a measurement puts side by side: mcached by both
// protocols, and the peers that are installed.
type field struct {
	binary *string
	only   *[]string
}

// contestant is a server with the protocol that it is written to by.
type contestant struct {
	peer
	protocol string
}

func (c contestant) String() string { return c.name + " v" + c.protocol }

func fieldFlags(c *kingpin.CmdClause) field {
	return field{mcachedFlag(c), c.Flag("only", "Leave out all servers but these. Repeatable.").Strings()}
}

// contestants are those that are installed; the others are named on out.
func (f field) contestants(out io.Writer, protocols ...string) (all []contestant, err error) {
	for _, p := range peers(*f.binary) {
		if len(*f.only) > 0 && !slices.Contains(*f.only, p.name) {
			continue
		}
		path, err := exec.LookPath(p.binary)
		if err != nil {
			fmt.Fprintf(out, "%s is not installed (%s) and left out.\n", p.name, p.binary)
			continue
		}
		p.binary = path
		for _, protocol := range p.protocols {
			if len(protocols) == 0 || slices.Contains(protocols, protocol) {
				all = append(all, contestant{p, protocol})
			}
		}
	}
	if len(all) == 0 {
		return nil, errors.New("nothing to measure: no server is installed")
	}
	return all, nil
}

// versions says which server gave the figures.
func versions(ctx context.Context, out io.Writer, all []contestant) {
	fmt.Fprintln(out)
	for i, c := range all {
		if i == 0 || all[i-1].name != c.name {
			fmt.Fprintf(out, "%s: %s\n", c.name, version(ctx, c.peer))
		}
	}
}

// writeTo writes a load to a server that was started, and makes it visible.
func (c contestant) writeTo(ctx context.Context, s *server, w writer) (report, error) {
	r := report{Series: w.load.series, SamplesPerSeries: w.load.samples, Protocol: c.protocol, StartMs: w.load.startMs}
	w.url, w.protocol = s.url+c.write, wire.V1
	if c.protocol == "2" {
		w.protocol = wire.V2
	}
	if err := r.write(ctx, &w, s.process()); err != nil {
		return r, fmt.Errorf("%v: %w", c, err)
	}
	if c.flush != "" {
		return r, s.get(ctx, c.flush)
	}
	return r, nil
}

func (s *server) process() process { return process{"/proc", s.cmd.Process.Pid} }

func medianOf(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}
