package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/alecthomas/kingpin/v2"
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
		p, err := installed(p)
		if err != nil {
			fmt.Fprintln(out, err)
			continue
		}
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

// table prints a table, of which row writes a line for each of the contestants,
// and which servers gave the figures.
func table(ctx context.Context, out io.Writer, all []contestant, head string, row func(t io.Writer, c contestant) error) error {
	t := newTable(out)
	fmt.Fprintln(t, head)
	for _, c := range all {
		if err := row(t, c); err != nil {
			return fmt.Errorf("%v: %w", c, err)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	for i, c := range all {
		if i == 0 || all[i-1].name != c.name {
			fmt.Fprintf(out, "%s: %s\n", c.name, version(ctx, c.peer))
		}
	}
	return nil
}

// writeTo writes a load to a server that was started, and makes it visible.
func (c contestant) writeTo(ctx context.Context, s *server, w writer) (writeReport, error) {
	r := writeReport{Series: w.load.series, SamplesPerSeries: w.load.samples, Protocol: c.protocol, StartMs: w.load.startMs}
	w.url, w.protocol = s.url+c.write, protocolOf(c.protocol)
	if err := r.write(ctx, &w, s.process()); err != nil {
		return r, fmt.Errorf("%v: %w", c, err)
	}
	if c.flush != "" {
		return r, s.get(ctx, c.flush)
	}
	return r, nil
}

func (s *server) process() process { return process{"/proc", s.cmd.Process.Pid} }

// medianOf is the median, of an even number the mean of the two in the middle.
func medianOf(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}
