// Package ingest is the front door for Redis clients.
//
// # The problem
//
// Strangers send bytes; commands have to come out of them fast, and nothing
// else may. A listener is reachable before anybody has said AUTH, so the
// reading of lengths and counts is the surface that is attacked, and every
// amount that a client can choose needs a bound that holds before it is
// believed. At the same time a GET costs less than the system calls around
// it, so whatever is done for each command shows.
//
// # How it works
//
//	           fill                consume               flush
//	socket ──▶ in (16 KiB) ──▶ framer ──▶ execute ──▶ reply ──▶ socket
//	           one read        args are    one row of   one write
//	                           views of in  the table
//
// Plain sockets are served by a few loops, a goroutine each (loop.go); one
// that may make the others of its loop wait, because its client asks for
// something slow or does not take its answers, gets a goroutine of its own, as
// TLS connections have from the start. Either way it is the same turn: read
// what there is, run every complete command in it, and write the answers in
// one go. A pipeline is a batch, in which GETs and SETs that follow one another
// are done together (bundle.go), as are those that came at the same time from
// several clients of a loop (gather.go).
//
// The framer is our own and not redcon's Reader, because that has no limits,
// can be made to panic or spin before AUTH, parses an incomplete command from
// its start at every read, and copies every command, which is most of what a
// small GET costs. What redcon writes, it writes for us: its appenders make
// all answers that RESP2 has. All of that is package resp, which knows no command.
//
// What a command costs besides the cache's own work (a sketch, which the
// benchmarks hold to): a pass over its count and length lines, 30 ns; one map
// lookup of its name, 15 ns; the answer appended in place, 10 ns; no
// allocation. The system calls are a read and a write, some 3 µs, shared by all
// commands of the pipeline, and a wait, shared by all connections that have
// something.
//
// # Bounds
//
// Each is a field of Options, and the error names the limit and what came:
//
//   - framing: MaxArgs, MaxBulkBytes, MaxInlineBytes, MaxCommandBytes, and
//     Redis' own smaller numbers before AUTH. A buffer grows only as bytes
//     come, and what stays of it between two reads is lent by Admission.
//     Large buffers that nobody uses are kept for the next, 16 MiB of them for a
//     second or two; see spares.
//   - answers: MaxOutputBytes is written before more is collected. A value in
//     parts is collected whole, in what Admission lends; see longanswers.go. What the
//     client does not take is kept, so that it may write a pipeline before it
//     reads, as far as Admission has room: see backlog. MaxReplySamples for what
//     must be counted first.
//   - connections: MaxConnections; strangers, and who has been idle for a minute,
//     make way. A connection that waits has neither input nor output buffer. One
//     that has left its loop keeps its goroutine until it ends, some 6 KiB.
//   - scripts: ScriptTimeout, MaxScriptBytes, MaxScriptSteps; one runs at a time;
//     1,000 of them are kept, of 8 MiB together.
//   - transactions: MaxCommandBytes for what is queued and for what is answered,
//     65,536 commands; what is queued is lent by Admission. In a loop 64 commands
//     of 64 KiB together, none of them slow.
//   - time: IdleTimeout if there is one, CommandTimeout for the rest of a begun command,
//     WriteTimeout for unread answers where room for them is short, six times as
//     long where it is not. One goroutine per server looks at all connections;
//     there are no timers to set on the way.
//   - series: MaxKeys and MaxKeyBytes, see there.
//   - tracked keys: MaxTrackedKeys and MaxTrackedBytes.
//   - the others' patience: a connection in a loop runs 64 commands at a time.
//
// # Invariants
//
//   - What a command costs to read grows with its length, however it was cut: see
//     resp.Framer.
//   - Answers are in the order of the commands; a protocol error or QUIT ends
//     the connection after them, and nothing behind it runs.
//   - args are views of the input buffer, valid until the command returns.
//   - Nothing a client sends panics.
//
// # Lock order
//
// Whoever holds a lock may wait for those below it, and for none above:
//
//	clusterState.mu              what changes the view waits for all gates with it
//	gates.mu, the gates          held for reading by who runs commands: multi.go
//	copies.mu
//	outgoing.mu or incoming.mu
//	peers.mu
//	peer.mu                      of one node; it is dialled with it, for seconds at the most
//	Server.msetnx or directory.linking
//	seriesKey.mu                 of a source, then of its destination: compaction.go
//	tracking.mu or watchers.mu
//	a shard of kvcache           functions that it calls may look into the directory
//	directory.mu
//	mcache: what has changed, then a shard
//	pubsub.mu or monitors.mu
//	early.mu
//	backlog.mu
//	Server.mu
//
// So a command waits for clusterState.mu, for other nodes and for its client without a
// gate (conn.away, conn.flush); other locks are leaves, or their fields say what they are.
//
// # Commands
//
//   - connection: PING ECHO AUTH HELLO SELECT QUIT RESET CLIENT READONLY
//     READWRITE ASKING
//   - server: COMMAND CONFIG INFO TIME DBSIZE FLUSHDB FLUSHALL FUNCTION
//     MODULE WAIT MEMORY ACL SLOWLOG LATENCY MONITOR ROLE SWAPDB CLUSTER
//     MC.PEER MC.COPY
//   - string: GET SET SETNX SETEX PSETEX GETSET GETDEL GETEX MGET MSET MSETNX
//     APPEND STRLEN GETRANGE SUBSTR INCR DECR INCRBY DECRBY INCRBYFLOAT DELEX
//     DELIFEQ DIGEST SETRANGE
//   - generic: DEL UNLINK EXISTS TOUCH TYPE TTL PTTL EXPIRETIME PEXPIRETIME
//     EXPIRE PEXPIRE EXPIREAT PEXPIREAT PERSIST SCAN KEYS RANDOMKEY OBJECT
//     MOVE RENAME RENAMENX COPY
//   - transactions: MULTI EXEC DISCARD WATCH UNWATCH
//   - pubsub: SUBSCRIBE UNSUBSCRIBE PSUBSCRIBE PUNSUBSCRIBE SSUBSCRIBE
//     SUNSUBSCRIBE PUBLISH SPUBLISH PUBSUB
//   - hash: HSET HMSET HSETNX HGET HMGET HGETALL HKEYS HVALS HDEL HEXISTS
//     HLEN HSTRLEN HINCRBY HINCRBYFLOAT HSCAN HRANDFIELD
//   - set: SADD SREM SMEMBERS SISMEMBER SMISMEMBER SCARD SSCAN SPOP
//     SRANDMEMBER SMOVE SINTER SUNION SDIFF
//   - scripting: EVAL EVAL_RO EVALSHA EVALSHA_RO SCRIPT
//   - timeseries: TS.CREATE TS.ALTER TS.ADD TS.MADD TS.INCRBY TS.DECRBY
//     TS.GET TS.MGET TS.RANGE TS.REVRANGE TS.MRANGE TS.MREVRANGE
//     TS.QUERYINDEX TS.INFO TS.CREATERULE TS.DELETERULE TS.DEL
//   - mcache: MC.INSERT MC.HPTS MC.GET MC.RANGE MC.TAKE MC.POP MC.AGE
//     MC.STATS MC.BUCKETS MC.DROP
//
// The whole table, with arguments, is CommandTable. Names, arguments, answers
// and errors are those of Redis 7.0.15 and of RedisTimeSeries 8; DELEX, DIGEST
// and SET's comparisons are those of Redis 8.4, DELIFEQ is that of Valkey 9.
//
// # What differs
//
// Redis' own tests of strings, increments, hashes, sets, expiry, keys, scan,
// protocol, transactions, scripts, tracking, publications, slow log and quit,
// go-redis' specs of strings, keys, scanning, hashes, sets, scripts and time series (make
// redis-tests, make go-redis-specs), and RedisTimeSeries' flow tests were run
// against a daemon. What they showed and was left as it is:
//
//   - Types: strings, hashes, sets and time series, so LPUSH, ZADD, XADD and
//     what belongs to them are unknown, and SINTERSTORE and its like, and
//     SINTERCARD: a cache has no use for most. For the same reason SETBIT, BITCOUNT and their kin,
//     LCS and SORT are unknown.
//   - A hash or a set is at most as long as a region, 512 KiB if the cache began
//     with 256 MiB to 2 GiB, 1 MiB up to 32 GiB, and a change costs a pass over it.
//     What Redis has in a hash table, it gives in any order; here it is the order
//     in which it came.
//   - OBJECT IDLETIME is the age of the record's region, or 0 if the key was
//     read since; OBJECT FREQ is told whatever the policy.
//   - CLIENT TRACKING counts writes as WATCH does, by key whatever the database.
//     A sweep tells of keys that have expired, and of those that were evicted or
//     reclaimed, in its time: some seconds with many keys. BCAST tells of writes
//     alone, in a message for each prefix and each command, transaction or
//     script, where Redis makes one of all that came together. Samples that come by
//     remote write are no writes of a key.
//     To whom REDIRECT leads, a null that stands for all keys is told in the protocol
//     that it speaks, where Redis has that of who redirects.
//   - CLIENT PAUSE holds no command about connections, so that UNPAUSE can end it.
//   - SLOWLOG and LATENCY have one time for commands that were run together: a
//     pipeline's GETs, its plain SETs, up to 16 of one kind that is always fast.
//     Times are added up while a threshold is at least a millisecond.
//   - ACL knows the default user; categories are the groups of commands. HELP and
//     COMMAND DOCS have words of their own, COMMAND INFO tells no key
//     specifications. MONITOR tells of a command before it is run: SELECT is told
//     with the database that was.
//   - CLIENT UNBLOCK, LATENCY GRAPH, MEMORY MALLOC-STATS, COMMAND GETKEYSANDFLAGS,
//     SAVE, BGSAVE, BGREWRITEAOF, LASTSAVE, SHUTDOWN and LOLWUT are unknown: nothing
//     here waits for a key, no key is saved, and who may write may not end the daemon.
//   - Scripts have bounds of time, memory and instructions, at which they end,
//     where Redis asks the operator to end them; what they have written stays.
//     Others are told BUSY after a fifth of that time. Messages
//     of the interpreter name no variables; blocking commands
//     are unknown to them, rather than forbidden, and full memory or missing
//     replicas refuse none. See package script. SCRIPT DEBUG and functions are missing.
//   - WATCH counts a write that changes nothing, such as the DEL of a key that
//     is not there or the SMOVE to a set that has the member, as one: EXEC answers null
//     once more than it had to. What a transaction queues is bounded, and what it answers.
//   - Commands of several connections run at the same time: what one has sent
//     and has no answer to, another need not see.
//   - DUMP, RESTORE, MIGRATE, DEBUG, replication and keyspace notifications:
//     what is cached here is made again, not carried elsewhere.
//   - Answers that a client does not read are kept, for one client up to a quarter
//     of --admission.max-in-flight-size; then its commands wait. If it goes on
//     reading nothing it is closed, after 10 seconds where it is at that bound or
//     others need the room, after a minute where not, and the log says how many
//     bytes it had not read.
//   - A value is at most as long as --resp.max-value-size says, and as a
//     quarter of the memory, where Redis takes 512 MB. A command with a longer one is
//     read, thrown away and refused; beyond 512 MiB it is a protocol error, as in
//     Redis. Hashes and sets are at most as long as a region. Values beyond that
//     are kept in parts, and miss when any part has vanished.
//   - INCRBYFLOAT takes no hexadecimal numbers: strtold's are not ParseFloat's.
//   - EXPIRETIME of the latest times is right; Redis' overflows.
//   - OBJECT ENCODING is what a value would have when it was set, as there is
//     but one encoding: APPEND does not make it raw.
//   - MSET and MSETNX are not atomic towards readers.
//   - CONFIG knows few parameters, and SET changes maxmemory, timeout, the thresholds
//     of SLOWLOG and LATENCY, the size of the tracking table, and the shares of memory.
//
// Of time series:
//
//   - They are in database 0: TS commands are refused in others, and SWAPDB and
//     MOVE do not move them.
//   - Those that were created or written by TS commands are keys; those that
//     came in by labels are not, although TS commands find them.
//   - RENAME of a series without a __name__ of its own makes it another series,
//     to which its samples move; COPY cannot copy one with a __name__.
//   - An unknown word among options is an error, and so is a LABELS with a
//     word too many. RedisTimeSeries ignores both, so that a RETENTION that is
//     misspelt keeps all; options may be in any order.
//   - Labels are a set: they come back in the order of their names.
//   - Chunks are this cache's own: TS.INFO tells one, which takes any size, and
//     DEBUG adds nothing. memoryUsage is what the samples that are sealed take
//     and an estimate of the rest.
//   - Compactions (TS.CREATERULE): an out-of-order sample also mends the buckets next
//     to it where the aggregator is twa; NaN does not close a bucket of twa; such a sample
//     of a bucket that the source no longer has whole is not counted, where
//     RedisTimeSeries puts in what is left. A key has at most 128 rules. Samples
//     that come by remote write are not compacted, and rules, as all that
//     TS.CREATE says, end with the process. There is no COMPACTION_POLICY.
//     In a cluster TS.MGET and its like add the open buckets (LATEST) of the node
//     that is asked alone.
//   - twa of a bucket that has NaN alone and numbers on one side only is NaN;
//     RedisTimeSeries continues the side that it has.
//   - Variances are computed by Welford's way, which differs in the last digits
//     and does not cancel where the mean is large.
//   - At most 1,000,000 samples are read for one answer.
package ingest
