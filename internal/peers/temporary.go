package peers

import (
	"time"

	"github.com/coredns-shaker/shaker/health"
)

// Until health has them.

func settingsOf(k health.Key) (s health.Settings) {
	if k != (health.Key{}) {
		s = k.Value()
	}
	if s.Interval <= 0 {
		s.Interval = 2 * time.Second
	}
	if s.Fast <= 0 {
		s.Fast = 500 * time.Millisecond
	}
	if s.Timeout <= 0 {
		s.Timeout = time.Second
	}
	if s.Fall <= 0 {
		s.Fall = 3
	}
	return s
}
