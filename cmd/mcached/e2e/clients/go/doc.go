// Command clients runs one of Go's Redis clients against the daemon at a port,
// as its documentation says: clients NAME PORT. It says ok, or what failed.
//
// It is a module of its own, so that nothing here is asked of the daemon's.
package main
