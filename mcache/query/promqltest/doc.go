// Package promqltest compares queries of an mcache with Prometheus.
//
// It runs Prometheus' own scripts of PromQL on the cache; it asks Prometheus'
// API and ours the same, of the same data, and compares the answers byte for
// byte; and it reads through Prometheus' own client for remote reads.
//
// All of that comes with packages that the rest of the project must not depend
// on. So this is a module of its own, with nothing but tests in it.
package promqltest
