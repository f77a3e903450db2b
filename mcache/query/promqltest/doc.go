// Package promqltest runs Prometheus' own scripts of PromQL on an mcache.
//
// The scripts come with packages that the rest of the project must not depend
// on. That is why this is a module of its own, with nothing but tests in it.
package promqltest
