package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/alecthomas/kingpin/v2"
)

// clusterCommand measures what a sample costs all members of a cluster.
func clusterCommand(app *kingpin.Application) (string, action) {
	c := app.Command("cluster", "Write the same load to one mcached and to clusters of several, with one copy of each series and with two, in turns, and compare the processor time of all daemons together.")
	binary := mcachedFlag(c)
	m := members{memory: "1GiB", handover: "--cluster.handover=0s"} // they all stop when they were measured
	c.Flag("members", "Daemons of a cluster.").Default("3").IntVar(&m.number)
	c.Flag("turns", "How often each is measured; medians are shown.").Default("3").IntVar(&m.turns)
	c.Flag("flag", "Another flag for all daemons. Repeatable.").StringsVar(&m.flags)
	c.Flag("per-request", "Samples in a request of the load.").Default("2000").IntVar(&m.perRequest)
	c.Flag("connections", "How many send at a time, to the members in turn.").Default("6").IntVar(&m.connections)
	protocols := c.Flag("protocol", "Version of remote write that the load comes by. Repeatable. Default: both.").Enums("1", "2")
	data := loadFlags(c)
	return c.FullCommand(), func(ctx context.Context, out io.Writer) (err error) {
		if m.load, err = data(); err != nil {
			return err
		}
		if m.number < 2 || m.number > 64 || m.turns < 1 || m.perRequest < 1 || m.connections < 1 || m.connections > 1024 {
			return usageError{fmt.Errorf("--members must be from 2 to 64, --turns and --per-request positive, --connections from 1 to 1024; got %d, %d, %d and %d", m.number, m.turns, m.perRequest, m.connections)}
		}
		if m.daemon, err = installed(peers(*binary)[0]); err != nil {
			return err
		}
		if m.protocols = *protocols; len(m.protocols) == 0 {
			m.protocols = m.daemon.protocols
		}
		return m.run(ctx, out)
	}
}

// members is what is measured.
type members struct {
	load        load
	daemon      peer
	number      int
	turns       int
	flags       []string
	perRequest  int
	connections int
	protocols   []string
	keyFile     string // with the secret of the clusters
	memory      string // of each
	handover    string // the flag that says what is handed over
}

// shapes are one daemon, and clusters with that many copies.
func (m *members) shapes() []struct{ daemons, copies int } {
	return []struct{ daemons, copies int }{{1, 1}, {m.number, 1}, {m.number, 2}}
}

func (m *members) run(ctx context.Context, out io.Writer) error {
	forget, err := m.makeKey()
	if err != nil {
		return err
	}
	defer forget()
	took := map[string][][]float64{} // by protocol and shape, in turns
	for _, protocol := range m.protocols {
		took[protocol] = make([][]float64, len(m.shapes()))
	}
	for range m.turns {
		for _, protocol := range m.protocols {
			for k, shape := range m.shapes() {
				us, err := m.turn(ctx, protocol, shape.daemons, shape.copies)
				if err != nil {
					return fmt.Errorf("%d daemons, %d copies, protocol %s: %w", shape.daemons, shape.copies, protocol, err)
				}
				took[protocol][k] = append(took[protocol][k], us)
			}
		}
	}
	fmt.Fprintf(out, "%d series × %d samples, %d a request over %d connections; CPU µs of all daemons per 1,000 samples, median of %d\n",
		m.load.series, m.load.samples, m.perRequest, m.connections, m.turns)
	t := newTable(out)
	fmt.Fprint(t, "daemons\tcopies\t")
	for _, protocol := range m.protocols {
		fmt.Fprintf(t, "v%s\tof one\t", protocol)
	}
	fmt.Fprintln(t)
	for k, shape := range m.shapes() {
		fmt.Fprintf(t, "%d\t%d\t", shape.daemons, shape.copies)
		for _, protocol := range m.protocols {
			us, one := medianOf(took[protocol][k]), medianOf(took[protocol][0])
			fmt.Fprintf(t, "%.0f\t%.2f\t", us, us/one)
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "\n%s: %s\n", m.daemon.name, version(ctx, m.daemon))
	return err
}

// makeKey writes a secret to a file, as all clusters have one whose members are on
// several machines.
func (m *members) makeKey() (forget func(), err error) {
	f, err := os.CreateTemp("", "mcbench-key-")
	if err != nil {
		return nil, err
	}
	m.keyFile = f.Name()
	_, err = fmt.Fprintln(f, rand.Text())
	return func() { _ = os.Remove(m.keyFile) }, errors.Join(err, f.Close())
}

// turn writes the load to new daemons, and is what that took them, in µs for 1,000 samples.
func (m *members) turn(ctx context.Context, protocol string, daemons, copies int) (us float64, err error) {
	all, err := m.start(ctx, daemons, copies)
	defer func() {
		for _, s := range all {
			s.stop()
		}
	}()
	if err != nil {
		return 0, err
	}
	w := writer{load: m.load, protocol: protocolOf(protocol), perRequest: m.perRequest, connections: m.connections}
	for _, s := range all {
		w.urls = append(w.urls, s.url+m.daemon.write)
	}
	before, err := cpuOf(all)
	if err != nil {
		return 0, err
	}
	done, err := w.run(ctx)
	if err != nil {
		return 0, err
	}
	after, err := cpuOf(all)
	return float64((after - before).Microseconds()) / float64(done.samples) * 1000, err
}

// cpuOf is the processor time of all servers together.
func cpuOf(all []*server) (t time.Duration, err error) {
	for _, s := range all {
		u, err := s.process().usage()
		if err != nil {
			return 0, err
		}
		t += u.cpu
	}
	return t, nil
}

// start starts daemons that know of each other, or a single one. Those that
// run are returned with an error, too.
func (m *members) start(ctx context.Context, daemons, copies int) (all []*server, err error) {
	flags := append([]string{"--memory.size=" + m.memory}, m.flags...)
	if daemons > 1 {
		flags = append(flags, "--cluster.name=mcbench", "--cluster.key-file="+m.keyFile, m.handover, fmt.Sprint("--cluster.copies=", copies))
	}
	for i := range daemons {
		own := flags[:len(flags):len(flags)]
		if daemons > 1 {
			gossip, err := freeAddress()
			if err != nil {
				return all, err
			}
			own = append(own, fmt.Sprint("--cluster.node-name=", i), "--cluster.listen-address="+gossip)
			flags = append(flags, "--cluster.join="+gossip)
		}
		s, err := start(ctx, m.daemon.with(own...))
		if err != nil {
			return all, err
		}
		all = append(all, s)
	}
	if daemons == 1 {
		return all, nil
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for _, s := range all { // until it sees the others
		for seen := 0.0; int(seen) != daemons; {
			if err := sleep(ctx, 50*time.Millisecond); err != nil {
				return all, fmt.Errorf("a member sees %v of %d: %w", seen, daemons, err)
			}
			if seen, err = s.metric(ctx, `mcached_cluster_members{state="ready"}`); err != nil {
				return all, err
			}
		}
	}
	return all, nil
}
