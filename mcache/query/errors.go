package query

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/prometheus/prometheus/promql"
)

// errorType is Prometheus' word for a kind of error, and the status it has.
type errorType struct {
	name   string
	status int
}

// statusClientClosed is nginx's status for a client that did not wait.
const statusClientClosed = 499

var (
	errorBadData     = errorType{"bad_data", http.StatusBadRequest}
	errorExec        = errorType{"execution", http.StatusUnprocessableEntity}
	errorCanceled    = errorType{"canceled", statusClientClosed}
	errorTimeout     = errorType{"timeout", http.StatusServiceUnavailable}
	errorUnavailable = errorType{"unavailable", http.StatusServiceUnavailable}
	errorInternal    = errorType{"internal", http.StatusInternalServerError}
)

// apiError is an error as the API answers it.
type apiError struct {
	typ errorType
	err error
}

func (e *apiError) Error() string { return e.typ.name + ": " + e.err.Error() }
func (e *apiError) Unwrap() error { return e.err }

func badData(err error) *apiError { return &apiError{errorBadData, err} }

func badParam(name string, err error) *apiError {
	return badData(fmt.Errorf("invalid parameter %q: %w", name, err))
}

// asAPIError sorts what an evaluation or a select returned.
func asAPIError(err error) *apiError {
	var (
		api      *apiError
		canceled promql.ErrQueryCanceled
		timeout  promql.ErrQueryTimeout
		stored   promql.ErrStorage
		noRoom   refusal
	)
	switch {
	case errors.As(err, &api):
		return api
	case errors.As(err, &noRoom):
		if _, later := noRoom.RetryAfter(); later {
			return &apiError{errorUnavailable, err}
		}
		return &apiError{errorExec, err}
	case errors.Is(err, errGateFull):
		return &apiError{errorUnavailable, err}
	case errors.As(err, &canceled), errors.Is(err, context.Canceled):
		return &apiError{errorCanceled, err}
	case errors.As(err, &timeout), errors.Is(err, context.DeadlineExceeded):
		return &apiError{errorTimeout, err}
	case errors.As(err, &stored):
		return &apiError{errorInternal, err}
	default:
		return &apiError{errorExec, err}
	}
}
