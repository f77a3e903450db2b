package ingest

import (
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"mcached/ingest/resp"
)

// maxSectionName is more than any section's name has.
const maxSectionName = 32

// info answers INFO with the lines that monitoring and clients look for, each
// with a true figure or left out.
func info(c *conn, args [][]byte) {
	want := map[string]bool{} // however often each is named
	for _, a := range args[1:] {
		if len(a) <= maxSectionName {
			want[string(resp.Lower(nil, a))] = true
		}
	}
	all := want["all"] || want["everything"]
	usual := all || len(args) == 1 || want["default"]
	var b strings.Builder
	for _, s := range c.srv.infoSections() {
		if !all && !(usual && !s.extra) && !want[strings.ToLower(s.name)] {
			continue
		}
		if b.Len() > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString("# " + s.name + "\r\n")
		for _, l := range s.lines {
			b.WriteString(l + "\r\n")
		}
	}
	c.Text(b.String())
}

type infoSection struct {
	name  string
	lines []string
	extra bool // only shown when it, or all, is asked for
}

func (s *Server) infoSections() []infoSection {
	st, blobs := s.Stats(), s.o.Blobs.Stats()
	now := s.o.Now()
	up := int64(now.Sub(s.started).Seconds())
	enabled := 0
	if s.redirects() {
		enabled = 1
	}
	line := func(name string, value any) string { return fmt.Sprintf("%s:%v", name, value) }
	var ru syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
	seconds := func(t syscall.Timeval) string { return fmt.Sprintf("%d.%06d", t.Sec, t.Usec) }
	executable, _ := os.Executable()
	return []infoSection{
		{name: "Server", lines: []string{
			line("redis_version", redisVersion),
			line("mcached_version", s.o.Version),
			line("redis_mode", s.mode()),
			line("os", runtime.GOOS+" "+runtime.GOARCH),
			line("arch_bits", 64),
			line("process_id", os.Getpid()),
			line("run_id", s.runID),
			line("tcp_port", s.port()),
			line("server_time_usec", now.UnixMicro()),
			line("uptime_in_seconds", up),
			line("uptime_in_days", up/86400),
			line("executable", executable),
			line("config_file", ""),
		}},
		{name: "Clients", lines: []string{
			line("connected_clients", st.Connections),
			line("maxclients", s.MaxConnections()),
			line("blocked_clients", s.blocked.Load()),
			line("tracking_clients", s.tracking.some.Load()),
		}},
		{name: "Memory", lines: s.memoryLines()},
		{name: "Persistence", lines: []string{
			line("loading", 0),
			line("async_loading", 0),
			line("rdb_bgsave_in_progress", 0),
			line("aof_enabled", 0),
		}},
		{name: "Stats", lines: slices.Concat([]string{
			line("total_connections_received", st.ConnectionsAccepted),
			line("total_commands_processed", st.Commands),
			line("instantaneous_ops_per_sec", s.commandsPerS.Load()),
			line("total_net_input_bytes", st.BytesRead),
			line("total_net_output_bytes", st.BytesWritten),
			line("instantaneous_input_kbps", kbps(s.inPerS.Load())),
			line("instantaneous_output_kbps", kbps(s.outPerS.Load())),
			line("rejected_connections", st.ConnectionsRefused),
			line("timed_out_connections", st.ConnectionsTimedOut),
			line("total_error_replies", st.CommandErrors+st.ProtocolErrors),
			line("expired_keys", blobs.Expired),
			line("evicted_keys", blobs.Evicted),
			line("keyspace_hits", blobs.Hits),
			line("keyspace_misses", blobs.Misses),
		}, s.pubsubLines(), s.trackingLines())},
		{name: "Replication", lines: []string{
			line("role", "master"),
			line("connected_slaves", 0),
			line("master_replid", s.runID),
			line("master_repl_offset", 0),
		}},
		{name: "CPU", lines: []string{
			line("used_cpu_sys", seconds(ru.Stime)),
			line("used_cpu_user", seconds(ru.Utime)),
		}},
		{name: "Modules", lines: s.moduleLines()},
		{name: "Commandstats", lines: s.commandLines(), extra: true},
		{name: "Errorstats", lines: s.errors.lines()},
		{name: "Latencystats", lines: s.latencyLines(), extra: true},
		{name: "Cluster", lines: []string{line("cluster_enabled", enabled)}},
		{name: "Keyspace", lines: s.keyspace()},
	}
}

// kbps is a rate in KiB a second, which Redis calls kbps.
func kbps(bytesPerS uint64) string { return fmt.Sprintf("%.2f", float64(bytesPerS)/1024) }

// moduleLines tell what MODULE LIST does.
func (s *Server) moduleLines() []string {
	if s.o.Metrics == nil {
		return nil
	}
	return []string{fmt.Sprintf("module:name=%s,ver=%d,api=1,filters=0,usedby=[],using=[],options=[]", moduleName, moduleVersion)}
}

// keyspace has a line for each database that is not empty.
func (s *Server) keyspace() (lines []string) {
	for n := range s.o.Blobs.Len() {
		var keys, expires int
		var meanMs int64
		if b := s.o.Blobs.Made(n); b != nil {
			st := b.Stats()
			keys, expires, meanMs = int(st.Entries), int(st.Expiring), b.MeanTTL()
		}
		series, expiring := s.seriesOf(n).counts()
		if keys += series; keys > 0 {
			lines = append(lines, fmt.Sprintf("db%d:keys=%d,expires=%d,avg_ttl=%d", n, keys, expires+expiring, meanMs))
		}
	}
	return lines
}

// residentBytes is the process' memory as the kernel counts it, or 0 where it
// does not tell.
func residentBytes(proc fs.FS) int64 {
	b, err := fs.ReadFile(proc, "statm")
	if err != nil {
		return 0
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(b), &size, &pages); err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

func human(n int64) string {
	v, units := float64(n), "BKMGT"
	for v >= 1024 && len(units) > 1 {
		v, units = v/1024, units[1:]
	}
	return fmt.Sprintf("%.2f%c", v, units[0])
}
