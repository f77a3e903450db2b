package query

import (
	"context"
	"fmt"
)

// What another door than HTTP reads of all members. Each is done when it has its
// turn among remote reads; what is held for it is taken from the loan, which is
// used by several goroutines until it returns.

// SelectAll finds series of all members, whatever the API is told to leave out of
// labels. notes say what may be missing because a member did not answer.
func (a *API) SelectAll(ctx context.Context, loan Loan, s Selection) (found Found, notes []error, err error) {
	ctx, leave, err := a.turnOfDoor(ctx, loan)
	if err != nil {
		return nil, nil, err
	}
	defer leave()
	if found, err = a.o.FanOut.Select(ctx, s); err != nil {
		return nil, nil, err
	}
	if n, most := found.Len(), a.limits.Load().maxSeries; n > most {
		return nil, nil, fmt.Errorf("%w: %d, at most %d%s: narrow the selector", ErrMaxSeries, n, most, a.o.flag("MaxSeries"))
	}
	if n, ok := found.(noted); ok {
		notes = n.Notes()
	}
	return found, notes, nil
}

// KeysOfAll is what Options.Keys of all members puts. A member that does not answer
// makes it fail: what it has names for, nobody else can tell.
func (a *API) KeysOfAll(ctx context.Context, loan Loan, of []byte) ([]string, error) {
	ctx, leave, err := a.turnOfDoor(ctx, loan)
	if err != nil {
		return nil, err
	}
	defer leave()
	q := a.o.FanOut.questionOf(askKeys, Selection{})
	q.Name = of
	var all []string
	for _, r := range a.o.FanOut.same(ctx, &q, nil) {
		if r.got == nil {
			return nil, fmt.Errorf("the member %s did not answer: %w", r.name, r.err)
		}
		all = append(all, r.got.texts...)
	}
	return all, nil
}

func (a *API) turnOfDoor(ctx context.Context, loan Loan) (_ context.Context, leave func(), err error) {
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, loanKey{}, loan), a.limits.Load().timeout)
	if err := a.reads.enter(ctx); err != nil {
		cancel()
		return nil, nil, err
	}
	return ctx, func() { a.reads.leave(); cancel() }, nil
}
