// Package rest stands in for the package of that name of k8s.io/client-go, of
// which Prometheus' query engine imports two names: its util/logging has a
// handler of warnings from Kubernetes' API beside the log handler that the
// engine uses. For these two the linker would take in Kubernetes' client, its
// API's machinery and what those need, 60 packages and more; nothing here
// speaks to Kubernetes. The go.mod of the daemon replaces k8s.io/client-go by this module.
//
// If a newer Prometheus wants more names, the build says which. They are added
// here as long as nothing calls them, or the replacement goes.
package rest

import "context"

// WarningHandlerWithContext takes warnings that came with an answer of the API.
type WarningHandlerWithContext interface {
	HandleWarningHeaderWithContext(ctx context.Context, code int, agent string, text string)
}

// WarningLogger is one. There is nobody here whose warnings it could be given.
type WarningLogger struct{}

// HandleWarningHeaderWithContext does nothing.
func (WarningLogger) HandleWarningHeaderWithContext(context.Context, int, string, string) {}
