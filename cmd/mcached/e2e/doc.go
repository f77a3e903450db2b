// Package e2e has the end-to-end tests of mcached, and nothing else: they run
// the daemon's binary on ports that the kernel chooses and talk to it as its
// clients would, by HTTP, RESP and real programs. Nothing of package main is
// used, so what they hold the daemon to (exit codes, headers, limits, texts) is
// written here once more, as a client would have it.
//
// The binary is built once a run, with the flags in GOFLAGS: what `make race`
// tests is the daemon under the race detector. MCACHED_TEST_BINARY names one
// that is there already.
package e2e
