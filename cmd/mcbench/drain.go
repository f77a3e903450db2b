package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"mcached/remotewrite/wire"
)

// drainCommand measures how long a member takes to give others what it alone has.
func drainCommand(app *kingpin.Application) (string, action) {
	c := app.Command("drain", "Write a load to a cluster with one copy of each series, stop one of its members, and read all back from the others when it has ended: how much is missing, how long it took, and for how much processor time.")
	binary := mcachedFlag(c)
	m := members{perRequest: 2000, handover: "--cluster.handover=24h"}
	c.Flag("members", "Daemons of the cluster.").Default("3").IntVar(&m.number)
	c.Flag("memory", "Of each daemon, as its --memory.size.").Default("1GiB").StringVar(&m.memory)
	c.Flag("flag", "Another flag for all daemons. Repeatable.").StringsVar(&m.flags)
	c.Flag("connections", "How many send at a time, to the members in turn.").Default("6").IntVar(&m.connections)
	protocol := c.Flag("protocol", "Version of remote write that the load comes by.").Default("2").Enum("1", "2")
	data := loadFlags(c)
	return c.FullCommand(), func(ctx context.Context, out io.Writer) (err error) {
		if m.load, err = data(); err != nil {
			return err
		}
		if m.number < 2 || m.number > 64 || m.connections < 1 || m.connections > 1024 {
			return usageError{fmt.Errorf("--members must be from 2 to 64, --connections from 1 to 1024; got %d and %d", m.number, m.connections)}
		}
		if m.daemon, err = installed(peers(*binary)[0]); err != nil {
			return err
		}
		m.flags = append(m.flags, fmt.Sprint("--shutdown.timeout=", drainMost))
		return m.drain(ctx, out, protocolOf(*protocol))
	}
}

// drainMost is how long the member is given.
const drainMost = 5 * time.Minute

// drain writes the load, stops the last member, and says what became of what it had.
func (m *members) drain(ctx context.Context, out io.Writer, protocol wire.Protocol) error {
	forget, err := m.makeKey()
	if err != nil {
		return err
	}
	defer forget()
	all, err := m.start(ctx, m.number, 1)
	defer func() {
		for _, s := range all {
			s.stop()
		}
	}()
	if err != nil {
		return err
	}
	w := writer{load: m.load, protocol: protocol, perRequest: m.perRequest, connections: m.connections}
	for _, s := range all {
		w.urls = append(w.urls, s.url+m.daemon.write)
	}
	if _, err = w.run(ctx); err != nil {
		return err
	}
	leaves, heirs := all[len(all)-1], all[:len(all)-1]
	had, err := holdingsOf(ctx, leaves)
	if err != nil {
		return err
	}
	before, err := holdingsOf(ctx, heirs...)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := leaves.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-leaves.exited:
	case <-time.After(2 * drainMost):
		return errors.New("the member does not end")
	case <-ctx.Done():
		return ctx.Err()
	}
	took := time.Since(began)
	after, err := holdingsOf(ctx, heirs...)
	if err != nil {
		return err
	}
	all = all[:len(heirs)]
	k := checker{load: m.load, url: heirs[0].url + "/api/v1", http: &http.Client{Timeout: 2 * time.Minute}}
	read, err := k.run(ctx) // all that the cluster was written
	leaves.stop()
	if err != nil {
		return err
	}
	end, lost := leaves.cmd.ProcessState, read.missing+read.wrong+read.extra
	t := newTable(out)
	fmt.Fprintf(t, "it had\t%.0f samples, %.0f MiB\t\n", had.samples, had.bytes/(1<<20))
	fmt.Fprintf(t, "missing or wrong\t%d, %.2f %%\t\n", lost, 100*float64(lost)/had.samples)
	fmt.Fprintf(t, "it ended after\t%.1f s\t\n", took.Seconds())
	fmt.Fprintf(t, "its CPU\t%.1f s\t\n", (end.UserTime() + end.SystemTime() - had.cpu).Seconds())
	fmt.Fprintf(t, "others' CPU\t%.1f s\t\n", (after.cpu - before.cpu).Seconds())
	if err := t.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "\n%s: %s\n", m.daemon.name, version(ctx, m.daemon))
	return err
}

// memberHoldings are what members have been written, what all they cache takes, and the
// processor time they have used.
type memberHoldings struct {
	samples, bytes float64
	cpu            time.Duration
}

// holdingsOf is the sum over members.
func holdingsOf(ctx context.Context, all ...*server) (sum memberHoldings, err error) {
	for _, s := range all {
		samples, err := s.metric(ctx, "mcached_series_samples_inserted_total")
		if err != nil {
			return sum, err
		}
		bytes, err := s.metric(ctx, "mcached_memory_used_bytes")
		if err != nil {
			return sum, err
		}
		sum.samples, sum.bytes = sum.samples+samples, sum.bytes+bytes
	}
	sum.cpu, err = cpuOf(all)
	return sum, err
}
