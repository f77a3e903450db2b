// Package workqueue is empty, and compiled by nobody: go mod tidy, which
// follows the tests of Prometheus' query engine, asks that it be there.
package workqueue
