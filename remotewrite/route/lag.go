package route

import "time"

// Lag is how long the oldest frame that is not on its way to a node has waited: 0
// if none does.
func (r *Router) Lag(node string) time.Duration {
	r.mu.Lock()
	o := r.all[node]
	r.mu.Unlock()
	if o == nil {
		return 0
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waiting) == 0 {
		return 0
	}
	return max(0, time.Since(o.waiting[0].since))
}
