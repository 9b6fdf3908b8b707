package gateway

import (
	"fmt"
	"time"
)

// quota holds a Rate: it remembers when it was last used.
type quota struct {
	used []time.Time // the newest Count uses, oldest first
}

// take uses the quota, or tells that there is nothing left of it. A nil rate
// never ends.
func (q *quota) take(r *Rate, now time.Time) bool {
	if !q.left(r, now) {
		return false
	}
	if r != nil {
		q.used = append(q.used, now)
	}
	return true
}

// left tells whether take would succeed.
func (q *quota) left(r *Rate, now time.Time) bool {
	if r == nil {
		return true
	}
	for len(q.used) > 0 && now.Sub(q.used[0]) >= r.Per {
		q.used = q.used[1:]
	}
	return len(q.used) < r.Count
}

// often is the rate for messages: "6 in 1h0m0s".
func (r *Rate) often() string {
	return fmt.Sprintf("%d in %s", r.Count, r.Per)
}
