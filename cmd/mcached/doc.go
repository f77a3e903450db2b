// Command mcached is a metrics ingestion cache: it takes remote write from
// Prometheus and its kin, keeps the recent samples of every series in memory
// that nobody else on the machine is using, answers PromQL from there, and
// gives the memory back when something else needs it. The same memory serves
// values and time series to Redis clients.
//
// This package is the wiring. It turns flags into the options of the packages
// that do the work, opens the listeners, reports on everything at /metrics,
// and ends it all in order:
//
//	main.go          which command
//	config.go        flags and environment → config; every wrong value is one line
//	check.go         mcached check-config, and what the daemon warns of as it starts
//	values.go        sizes, durations and booleans as flags spell them
//	serve.go         the life of the daemon: open, run, stop, close; doors.go makes
//	                 what answers requests, welcome.go says how to reach it
//	memory.go        the budget of what is cached, and the limit of the Go heap
//	web.go           HTTP: which path goes to which package, readiness, counting
//	conns.go         the bound on HTTP connections; host.go the names that loopback
//	                 requests may be for
//	heads.go         the bound on heads of requests, which come before any password
//	plainserver.go   writes and reads without net/http's cost for each: plainconn.go is
//	                 one connection, plainanswer.go one answer, plaincontext.go whose
//	                 client may hang up
//	admission.go     how the Go heap is divided; limits.go, shares.go: of buckets, and
//	                 of accounts of the memory
//	unixsocket.go    the socket of the file system for Redis clients
//	cluster.go       the daemon as one of several: cluster_config.go has the flags,
//	                 cluster_write.go, _read.go, _redis.go, _series.go and _handover.go
//	                 show the cluster to those who ask for it, cluster_status.go and
//	                 cluster_metrics.go to people
//	page.go, page/   the status page; regions.go gives it the map of memory,
//	                 warnings.go the last lines of the log
//	metrics.go       /metrics, from the rows that each package lists beside its
//	                 Stats; metrics_rows.go has those that are of none
//	metadata.go      types and help texts for the API; exemplars.go likewise
//	websecurity.go   TLS and passwords of HTTP; reload.go reads files again, and
//	                 puts in force what of the command line can change
//	notify.go        what systemd is told
//	operate.go       mcached reload and healthy
//	admin.go         actions of an operator: mcached snapshot, and what it asks of
//	progress.go      how far long work is, on a terminal and elsewhere
//	snapshot.go      the metric cache in a file, over a restart
//	snapshot_path.go what may stand where that file goes, and the lock on it
//	forward.go       forwarding every sample to another store; forward_config.go
//	upstream.go      the server that answers queries which memory cannot;
//	                 features.go has PromQL's optional parts
//	scrape.go        the daemon scraping itself, as a Prometheus would; self.go
//	                 shows what it has of itself, whatever else is stored
//	query.go         mcached query; output.go has its formats, plot.go draws in a
//	                 terminal
//	stats.go         mcached stats
//	table.go         mcached metrics, which prints METRICS.md; version.go
//
// # What forwarding promises
//
// With --forward.url a sample that was acknowledged to its sender stays in the
// cache until the receiver behind has acknowledged it. What can lose it is a
// short list: the receiver rejects it
// (mcached_forward_samples_total{result="rejected"} counts); the process is killed
// within --forward.max-dirty-age (nobody counts); a stop cannot drain within
// --shutdown.timeout and there is no --snapshot.path (the log says how many).
// Whatever else goes
// wrong with the receiver is retried without limit, while samples wait up to
// --forward.max-dirty-size; beyond that, writes get 503. One daemon never gets
// its own samples back: requests carry the ids of all whose samples they may
// hold, and a request with one's own id is answered 508.
//
// # Order of life
//
// Everything that can fail for a reason the operator can mend (flags, files,
// ports) happens before the first client is served. Then every long-running
// part is an actor of one run.Group: the first that returns ends the others,
// and the group returns when all have. Memory is unmapped last, and only if no
// handler outlived its deadline: a read of an unmapped region would kill the
// process that was about to say what it left undone.
//
//	       signal ──┐
//	pressure loop ──┤
//	 HTTP servers ──┼─▶ first to return ─▶ readiness off ─▶ each is interrupted
//	  RESP server ──┤                      and waited for ─▶ caches, memory
//	  self-scrape ──┘
//
// Exit codes: 0 after an orderly stop, 1 when running failed, 2 when the
// command line was wrong.
package main
