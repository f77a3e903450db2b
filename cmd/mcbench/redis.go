package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
)

// redisCommand measures mcached beside redis-server, by Redis' own benchmark.
func redisCommand(app *kingpin.Application) (string, action) {
	c := app.Command("redis", "Run redis-benchmark's SET and GET against mcached and redis-server in turns, for each size of values and length of pipelines, and compare operations a second and server CPU.")
	binary := mcachedFlag(c)
	m := redisMatch{}
	redis := c.Flag("redis-server", "Which redis-server to start.").Default("redis-server").String()
	c.Flag("redis-benchmark", "Which redis-benchmark to run.").Default("redis-benchmark").StringVar(&m.benchmark)
	c.Flag("turns", "How often each is measured; medians are shown.").Default("3").IntVar(&m.turns)
	c.Flag("pipeline", "Commands sent at a time on one connection. Repeatable; default 1, 16 and 64.").IntsVar(&m.pipelines)
	c.Flag("value-size", "Bytes of a value. Repeatable; default 64, 1024, 10000 and 100000.").IntsVar(&m.sizes)
	c.Flag("keys", "How many keys.").Default("1000").IntVar(&m.keys)
	c.Flag("operations", "Most commands of one measurement.").Default("600000").IntVar(&m.operations)
	bytes := c.Flag("bytes", "Most bytes of values of one measurement.").Default("1GiB").Bytes()
	report := jsonFlag(c)
	return c.FullCommand(), func(ctx context.Context, out io.Writer) error {
		m.bytes = int64(*bytes)
		if len(m.pipelines) == 0 {
			m.pipelines = []int{1, 16, 64}
		}
		if len(m.sizes) == 0 {
			m.sizes = []int{64, 1024, 10_000, 100_000}
		}
		if m.turns < 1 || m.turns > 1000 || slices.Min(m.pipelines) < 1 || slices.Max(m.pipelines) > 10_000 || slices.Min(m.sizes) < 1 || slices.Max(m.sizes) > 64<<20 || m.keys < 1 || m.operations < 1 || m.bytes < 1 {
			return usageError{fmt.Errorf("--turns must be from 1 to 1000, --pipeline to 10000, --value-size to 64 MiB, --keys, --operations and --bytes positive; got %d, %v, %v, %d, %d and %d",
				m.turns, m.pipelines, m.sizes, m.keys, m.operations, m.bytes)}
		}
		var err error
		if m.cache, err = installed(peers(*binary)[0]); err != nil {
			return err
		}
		if m.redis, err = installed(redisServer(*redis)); err != nil {
			return err
		}
		if _, err := exec.LookPath(m.benchmark); err != nil {
			return err
		}
		rows, err := m.run(ctx)
		if err != nil {
			return err
		}
		return report(out, rows, func(out io.Writer) error { return printRedisRows(out, rows, m.turns) })
	}
}

// redisMatch is what is measured.
type redisMatch struct {
	cache, redis     peer
	benchmark        string
	turns            int
	pipelines, sizes []int
	keys, operations int
	bytes            int64
}

// redisSide is what one server did: medians of the turns.
type redisSide struct {
	OpsPerS    float64 `json:"operations_per_second"`
	CPUUsPerOp float64 `json:"server_cpu_us_per_operation"`
}

// redisRow is one command with one size and length of pipeline, as --json prints it.
type redisRow struct {
	Command  string    `json:"command"`
	Size     int       `json:"value_bytes"`
	Pipeline int       `json:"pipeline"`
	Mcached  redisSide `json:"mcached"`
	Redis    redisSide `json:"redis"`
}

// redisTarget is a server that runs.
type redisTarget struct {
	server *server
	port   string
}

// redisServer is a redis-server that keeps nothing on disk.
func redisServer(binary string) peer {
	return peer{name: "redis", binary: binary, args: func(dir, address string) []string {
		_, port, _ := net.SplitHostPort(address)
		return []string{"--bind", "127.0.0.1", "--port", port, "--dir", dir, "--save", "", "--appendonly", "no"}
	}}
}

func (m *redisMatch) run(ctx context.Context) ([]redisRow, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	targets := make([]redisTarget, 2)
	for i, p := range []peer{m.cache.with("--resp.listen-address=" + address), m.redis} {
		s, err := start(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		defer s.stop()
		if i == 1 {
			address = strings.TrimPrefix(s.url, "http://")
		}
		_, port, _ := net.SplitHostPort(address)
		targets[i] = redisTarget{s, port}
	}
	var rows []redisRow
	for _, size := range m.sizes {
		for _, pipeline := range m.pipelines {
			cells, err := m.cell(ctx, targets, size, pipeline)
			if err != nil {
				return nil, err
			}
			rows = append(rows, cells...)
		}
	}
	return rows, nil
}

// cell measures SET and GET of both servers, in turns, of which every other begins
// with the other server.
func (m *redisMatch) cell(ctx context.Context, targets []redisTarget, size, pipeline int) ([]redisRow, error) {
	commands := []string{"set", "get"} // so that GET finds something
	var ops, cpu [2][2][]float64       // by command and server
	for turn := range m.turns {
		for k := range targets {
			i := (k + turn) % 2
			for j, command := range commands {
				o, us, err := m.measure(ctx, targets[i], command, size, pipeline)
				if err != nil {
					return nil, err
				}
				ops[j][i], cpu[j][i] = append(ops[j][i], o), append(cpu[j][i], us)
			}
		}
	}
	var rows []redisRow
	for j, command := range commands {
		side := func(i int) redisSide { return redisSide{medianOf(ops[j][i]), medianOf(cpu[j][i])} }
		rows = append(rows, redisRow{command, size, pipeline, side(0), side(1)})
	}
	return rows, nil
}

const (
	// roundTripPart: without a pipeline each command is a round trip of its own, and as
	// slow as six in one.
	roundTripPart = 6
	// redisClients is how many connections there are, and what their buffers
	// may hold together, beyond which there are fewer.
	redisClients, redisClientBytes = 50, 1 << 20
)

// measure is one run of redis-benchmark: operations a second, and µs of server CPU an
// operation.
func (m *redisMatch) measure(ctx context.Context, t redisTarget, command string, size, pipeline int) (ops, cpuUs float64, err error) {
	n := max(min(m.operations, int(m.bytes)/size), pipeline)
	if pipeline == 1 {
		n = max(min(n, m.operations/roundTripPart), 1)
	}
	clients := max(min(redisClients, redisClientBytes/size), 1)
	p := t.server.process()
	before, err := p.cpuTime()
	if err != nil {
		return 0, 0, err
	}
	out, err := exec.CommandContext(ctx, m.benchmark, "-p", t.port, "-t", command, "-n", strconv.Itoa(n), "-d", strconv.Itoa(size),
		"-P", strconv.Itoa(pipeline), "-c", strconv.Itoa(clients), "-r", strconv.Itoa(m.keys), "--csv").Output()
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", m.benchmark, err)
	}
	after, err := p.cpuTime()
	if err != nil {
		return 0, 0, err
	}
	ops, err = benchmarkOps(string(out), command)
	return ops, float64(after-before) / float64(time.Microsecond) / float64(n), err
}

// benchmarkOps reads what redis-benchmark prints with --csv: a heading, and a line that
// begins with the command and operations a second.
func benchmarkOps(out, command string) (float64, error) {
	records, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil {
		return 0, fmt.Errorf("redis-benchmark printed %.200q: %w", out, err)
	}
	for _, r := range records {
		if len(r) > 1 && strings.EqualFold(r[0], command) {
			return strconv.ParseFloat(r[1], 64)
		}
	}
	return 0, errors.New("redis-benchmark printed no line of " + command)
}

func printRedisRows(out io.Writer, rows []redisRow, turns int) error {
	fmt.Fprintf(out, "thousand operations a second, µs of server CPU an operation: medians of %d turns; ratios say how much better mcached is\n", turns)
	t := newTable(out)
	fmt.Fprintln(t, "command\tbytes\tpipeline\tmcached\tredis\tratio\tmcached µs\tredis µs\tratio\t")
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%d\t%d\t%.1f\t%.1f\t%.2f\t%.2f\t%.2f\t%.2f\t\n", strings.ToUpper(r.Command), r.Size, r.Pipeline,
			r.Mcached.OpsPerS/1000, r.Redis.OpsPerS/1000, r.Mcached.OpsPerS/r.Redis.OpsPerS, r.Mcached.CPUUsPerOp, r.Redis.CPUUsPerOp, r.Redis.CPUUsPerOp/r.Mcached.CPUUsPerOp)
	}
	return t.Flush()
}
