// Package sendertest has Prometheus' own sender write to our receiver: a head
// with its log, the watcher that reads the log, the queues that fill requests,
// in both protocols, and compares what arrived with what was appended. And it
// has our forwarder write to Prometheus' own receiver.
//
// All of that comes with packages that the rest of the project must not depend
// on. So this is a module of its own, with nothing but tests in it.
package sendertest
