package ingest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"mcached/ingest/admission"
	"mcached/ingest/resp"
	"mcached/kvcache"
	"mcached/mcache"
)

// ErrProtected says that a listener is open to other machines and nothing
// asks them for a password.
var ErrProtected = errors.New("ingest: refusing to serve other machines without a password")

// Options configure a Server; the zero value of a field means its default.
// Durations and counts that are negative switch the bound off where that is
// said, and are an error elsewhere.
type Options struct {
	// Blobs holds strings, hashes and sets, by database. Required.
	Blobs *kvcache.Databases
	// Memory is what Blobs lives in, for INFO, MEMORY and CONFIG. Required.
	Memory *kvcache.Memory
	// Metrics holds the series of TS.* and the arrays of MC.*. Without it
	// these commands are unknown.
	Metrics *mcache.Cache
	// Bucket is where TS.* finds its series. Default "default".
	Bucket string
	// SetBudget is called by CONFIG SET maxmemory. Without it the command is
	// refused, because something else, such as the pressure controller, sets
	// the budget.
	SetBudget func(bytes int64) error
	// Parameters are what CONFIG knows beside Redis' own.
	Parameters []Parameter

	// Password is asked for by AUTH when it is not empty; SetPassword changes it.
	Password string
	// TLS makes every connection a TLS one that does not come by the file system. Its GetCertificate may give another
	// one from time to time.
	TLS *tls.Config
	// NoProtectedMode permits listeners that are open to other machines
	// although there is no password.
	NoProtectedMode bool

	// MaxConnections bounds the clients at a time; for one more another makes
	// way, see Server, or it is told so and closed. An idle one costs about 1.5 KiB, with TLS some 16. Default 10,000.
	MaxConnections int
	// MaxArgs bounds the arguments of one command. Default 1,048,576, as in Redis.
	MaxArgs int
	// MaxBulkBytes bounds one argument. A command with a longer one is read and
	// refused, up to 512 MiB; then it is an error of the protocol. Default: the longest value that Blobs
	// takes, and at least 64 KiB.
	MaxBulkBytes int
	// MaxInlineBytes bounds a typed line. Default 64 KiB, as in Redis.
	MaxInlineBytes int
	// MaxCommandBytes bounds the arguments of one command together.
	// Default 64 MiB, or 1 MiB more than MaxBulkBytes if that is more.
	MaxCommandBytes int
	// MaxOutputBytes is how much of an answer is collected before it is
	// written, and so how much one slow reader can hold, beside one value.
	// Default 64 KiB.
	MaxOutputBytes int
	// MaxReplySamples bounds the samples in the answer to one TS or MC
	// command, which has to be counted before it can be written, at 16 bytes
	// each. Default 1,000,000.
	MaxReplySamples int
	// MaxKeys bounds the series that TS.CREATE and TS.ADD keep options for,
	// at about 500 bytes of Go heap each. Default: as many as MaxKeyBytes holds.
	MaxKeys int
	// MaxKeyBytes bounds what these take together, with their labels, those
	// without a sample included. Default 64 MiB.
	MaxKeyBytes int
	// MaxTrackedKeys bounds the keys that are remembered for clients with CLIENT
	// TRACKING. For more, some are told to be forgotten. Default 1,000,000.
	MaxTrackedKeys int
	// MaxTrackedBytes bounds the Go heap that these take: each its name and 256
	// bytes, and 16 for each client. Default 256 MiB.
	MaxTrackedBytes int
	// MaxLabels of a series that TS commands name or create. Default 128.
	MaxLabels int
	// MaxLabelNameBytes and MaxLabelValueBytes of each. Defaults 1 KiB and
	// 16 KiB. A key that is its metric's name is a value, too.
	MaxLabelNameBytes, MaxLabelValueBytes int
	// ScriptTimeout bounds how long a Lua script runs, and so how long it can keep
	// all others waiting. Default 5 seconds.
	ScriptTimeout time.Duration
	// MaxScriptBytes bounds the memory that a script takes; one runs at a time.
	// Default 64 MiB.
	MaxScriptBytes int
	// MaxScriptSteps bounds the instructions that a script runs. Default 1,000,000,000.
	MaxScriptSteps int
	// Flags says by which flag an operator sets an option, by its name, as
	// "MaxLabels": the errors that name a limit name it, too. Default: none.
	Flags map[string]string

	// Cluster, if set, makes the server one of several.
	Cluster *ClusterOptions

	// IdleTimeout closes connections that ask nothing for so long, but for those that
	// listen to channels or monitor. Default never, as in Redis: MaxConnections bounds
	// them, and idle ones make way. CONFIG SET timeout changes it.
	IdleTimeout time.Duration
	// CommandTimeout is how long the rest of a command may take to arrive,
	// and a TLS handshake. Default one minute.
	CommandTimeout time.Duration
	// WriteTimeout is how long a client may take nothing of its answers, if it
	// sends nothing that can be taken either: answers that it does not read yet
	// are kept meanwhile, up to half of what Admission leaves to reads, or 16 MiB
	// without one. Then it is closed, which is logged. It may take nothing for six
	// times as long while its answers are within that bound and reads are not short
	// of room. Default 10 seconds.
	WriteTimeout time.Duration

	// Admission, if set, is asked for the memory of commands that are not whole
	// or larger than a connection's first buffer, of what commands collect
	// before they can answer, and of answers that are not read.
	Admission *admission.Pool
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Logger gets what an operator should know. Default slog.Default().
	Logger *slog.Logger
	// Version is what INFO tells as mcached's. Default "dev".
	Version string
}

// flag is how an operator changes an option, for an error.
func (o *Options) flag(option string) string {
	if f := o.Flags[option]; f != "" {
		return " (" + f + ")"
	}
	return ""
}

func (o *Options) setDefaults() error {
	if o.Blobs == nil || o.Memory == nil {
		return errors.New("ingest: Options.Blobs and Options.Memory are required")
	}
	if o.Bucket == "" {
		o.Bucket = "default"
	}
	for _, b := range []struct {
		name  string
		value *int
		def   int
		least int
	}{
		{"MaxConnections", &o.MaxConnections, 10_000, 1},
		{"MaxArgs", &o.MaxArgs, 1 << 20, 16},
		{"MaxBulkBytes", &o.MaxBulkBytes, max(o.Blobs.At(0).MaxLarge(), 64<<10), 64},
		{"MaxInlineBytes", &o.MaxInlineBytes, 64 << 10, 64},
		{"MaxCommandBytes", &o.MaxCommandBytes, max(64<<20, o.MaxBulkBytes+1<<20), 64},
		{"MaxOutputBytes", &o.MaxOutputBytes, 64 << 10, 1024},
		{"MaxReplySamples", &o.MaxReplySamples, 1_000_000, 1},
		{"MaxKeys", &o.MaxKeys, 1 << 30, 1},
		{"MaxKeyBytes", &o.MaxKeyBytes, 64 << 20, 1 << 10},
		{"MaxTrackedKeys", &o.MaxTrackedKeys, 1_000_000, 1},
		{"MaxTrackedBytes", &o.MaxTrackedBytes, 256 << 20, 1 << 10},
		{"MaxLabels", &o.MaxLabels, 128, 1},
		{"MaxScriptBytes", &o.MaxScriptBytes, 64 << 20, 1 << 20},
		{"MaxScriptSteps", &o.MaxScriptSteps, 1_000_000_000, 1000},
		{"MaxLabelNameBytes", &o.MaxLabelNameBytes, 1 << 10, 1},
		{"MaxLabelValueBytes", &o.MaxLabelValueBytes, 16 << 10, 1},
	} {
		if *b.value == 0 {
			*b.value = b.def
		}
		// Offsets inside a command have 32 bits, and half of that is generous.
		if *b.value < b.least || *b.value > 1<<30 {
			return fmt.Errorf("ingest: Options.%s must be from %d to %d, got %d", b.name, b.least, 1<<30, *b.value)
		}
	}
	if o.CommandTimeout == 0 {
		o.CommandTimeout = time.Minute
	}
	if o.WriteTimeout == 0 {
		o.WriteTimeout = 10 * time.Second
	}
	if o.ScriptTimeout == 0 {
		o.ScriptTimeout = 5 * time.Second
	}
	if o.ScriptTimeout < 0 {
		return fmt.Errorf("ingest: Options.ScriptTimeout must be positive, got %v", o.ScriptTimeout)
	}
	if o.CommandTimeout < 0 || o.WriteTimeout < 0 || o.IdleTimeout < 0 {
		return fmt.Errorf("ingest: Options.CommandTimeout, WriteTimeout and IdleTimeout must be positive, got %v, %v and %v", o.CommandTimeout, o.WriteTimeout, o.IdleTimeout)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Version == "" {
		o.Version = "dev"
	}
	return nil
}

func (o *Options) frameLimits() resp.Limits {
	return resp.Limits{Args: o.MaxArgs, BulkBytes: o.MaxBulkBytes, SkipBytes: maxDropped, InlineBytes: o.MaxInlineBytes, CommandBytes: o.MaxCommandBytes}
}

// Parameter is one that CONFIG GET shows and CONFIG SET changes. Its functions
// are called from any connection.
type Parameter struct {
	Name string // lower case
	Get  func() string
	Set  func(value string) error // nothing has changed when it fails
}
